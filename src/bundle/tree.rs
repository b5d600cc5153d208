//! Reading a tree: one descent for a key, or a cursor that walks entries in order.
//!
//! A child's first key must be the key its parent names it by, its level one less, and keys must grow along a
//! walk; so no chain of pages is longer than [`limits::TREE_DEPTH_MAX`], and no page is walked twice.

use std::ops::Range;

use super::bytes::Fields;
use super::index::Index;
pub(crate) use super::page::TreeSpec;
use super::page::{Fault, Key, PageRef, Position, ValueLen, search};
use super::pages::{Page, View};
use crate::error::Result;
use crate::limits;

macro_rules! trees {
    ($($name:ident = $number:literal, $text:literal, $value:expr;)*) => {
        $(pub(crate) static $name: TreeSpec = TreeSpec { number: $number, name: $text, value: $value };)*
        /// Every tree of format 1, in the order of their numbers.
        pub(crate) static TREES: [&TreeSpec; TREE_COUNT] = [$(&$name),*];
    };
}

/// How many trees format 1 has.
pub(crate) const TREE_COUNT: usize = 13;

trees! {
    ASSETS = 1, "assets", ValueLen::Varint;
    IDS = 2, "ids", ValueLen::Fixed(4);
    CONTENTS = 3, "contents", ValueLen::Varint;
    EXTENTS = 4, "extents", ValueLen::Varint;
    FRAMES = 5, "frames", ValueLen::Varint;
    FRAME_HASHES = 6, "frame hashes", ValueLen::Fixed(0);
    DEPENDENTS = 7, "dependents", ValueLen::Fixed(0);
    DEPENDENCIES = 8, "dependencies", ValueLen::Fixed(0);
    WANTED = 9, "wanted", ValueLen::Varint;
    FOLDERS = 10, "folders", ValueLen::Varint;
    FOLDER_IDS = 11, "folder ids", ValueLen::Fixed(4);
    BUILD = 12, "build records", ValueLen::Varint;
    DICTIONARIES = 13, "dictionaries", ValueLen::Fixed(44);
}

/// A tree's root as the root page states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeRoot {
    pub page: PageRef,
    pub level: u8,
    /// Entries in all leaves.
    pub entries: u64,
    /// Bytes of all pages.
    pub bytes: u64,
}

/// A tree of one generation.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'v> {
    pub view: &'v View,
    pub spec: &'static TreeSpec,
    pub root: Option<&'v TreeRoot>,
    /// Its upper pages, where they are kept unfolded.
    pub index: Option<&'v Index>,
}

/// Leaves of one parent that are farther apart than this are not fetched ahead: most of it would be something else.
const FORESEEN_BYTES_MAX: u64 = 4 << 20;

/// A page with a position in it.
struct Step<'v> {
    at: PageRef,
    page: Page<'v>,
    position: Position,
}

impl<'v> Tree<'v> {
    /// Opens a page and checks what its parent claims: the level, and the first key where `first` names one.
    fn open(&self, at: &PageRef, level: u8, first: Option<&Key>) -> Result<Step<'v>> {
        let page = self.view.page(at)?;
        let position = Position::start(&page, self.spec).map_err(|fault| self.view.fault(at, fault))?;
        if position.level != level || usize::from(level) >= limits::TREE_DEPTH_MAX {
            return Err(self.view.fault(at, "it stands at another level than its parent says"));
        }
        if let Some(first) = first {
            let mut ahead = position.clone();
            ahead.next(&page).map_err(|fault| self.view.fault(at, fault))?;
            if ahead.key.as_slice() != first.as_slice() {
                return Err(self.view.fault(at, "its first key is not the one its parent names"));
            }
        }
        Ok(Step { at: *at, page, position })
    }

    /// Has the leaves below a page fetched ahead of whoever walks them. They lie together where one commit wrote them;
    /// where they do not, each comes as it is read.
    fn foresee(&self, step: &Step<'v>) {
        if step.position.level != 1 {
            return;
        }
        let (mut ahead, mut range) = (step.position.clone(), None::<Range<u64>>);
        while let Ok(Some(payload)) = ahead.next(&step.page) {
            let Ok(at) = child(payload) else { return };
            let (start, end) = (at.offset, at.offset.saturating_add(u64::from(at.len)));
            range = Some(range.map_or(start..end, |range| range.start.min(start)..range.end.max(end)));
        }
        if let Some(range) = range.filter(|range| range.end - range.start <= FORESEEN_BYTES_MAX) {
            self.view.will_need(range);
        }
    }

    /// In an interior page, passes to the last child whose key is at most `key`, or to the first child; answers it
    /// and leaves the position behind it.
    fn choose(&self, step: &mut Step<'v>, key: &[u8]) -> Result<(Key, PageRef)> {
        let mut chosen = None;
        let mut ahead = step.position.clone();
        loop {
            let payload = ahead.next(&step.page).map_err(|fault| self.view.fault(&step.at, fault))?;
            let Some(payload) = payload else { break };
            if chosen.is_some() && ahead.key.as_slice() > key {
                break;
            }
            let child = child(payload).map_err(|fault| self.view.fault(&step.at, fault))?;
            chosen = Some((ahead.key, child));
            step.position = ahead.clone();
        }
        // `Position::start` refuses an empty page, so there is a first child.
        chosen.ok_or_else(|| self.view.fault(&step.at, "a page is empty"))
    }

    /// The value of `key`, handed to `read` while its page is at hand.
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> Option<R>) -> Result<Option<R>> {
        let Some(root) = self.root else { return Ok(None) };
        if self.spec.value == ValueLen::Fixed(0) {
            // Keys of these trees may stand in runs, which only a cursor unfolds.
            let mut cursor = self.seek(key, false)?;
            return cursor
                .next_as(|found, value| (found.as_slice() != key).then_some(None).or_else(|| read(value).map(Some)))
                .map(Option::flatten);
        }
        let (mut at, mut level) = self.lead(root, key);
        loop {
            let page = self.view.page(&at)?;
            let found = search(&page, self.spec, level, key).map_err(|fault| self.view.fault(&at, fault))?;
            match found {
                Some((payload, _)) if level > 0 => {
                    at = child(payload).map_err(|fault| self.view.fault(&at, fault))?;
                    level -= 1;
                }
                Some((payload, true)) => return read(payload).map(Some).ok_or_else(|| self.unreadable(&at)),
                _ => return Ok(None),
            }
        }
    }

    /// The first entry whose key is at least `key`, where it stands in the leaf that `key` leads to. `None` says
    /// nothing: a cursor has to look further.
    pub fn near<R>(&self, key: &[u8], read: impl FnOnce(&[u8], &[u8]) -> Option<R>) -> Result<Option<R>> {
        let Some(root) = self.root else { return Ok(None) };
        let (mut at, mut level) = self.lead(root, key);
        loop {
            let page = self.view.page(&at)?;
            let fault = |fault| self.view.fault(&at, fault);
            if level > 0 {
                let Some((payload, _)) = search(&page, self.spec, level, key).map_err(fault)? else { return Ok(None) };
                at = child(payload).map_err(fault)?;
                level -= 1;
                continue;
            }
            let mut position = Position::near(&page, self.spec, key).map_err(fault)?;
            if position.level != 0 {
                return Err(fault("it stands at another level than its parent says"));
            }
            while let Some(payload) = position.next(&page).map_err(fault)? {
                if position.key.as_slice() >= key {
                    return read(position.key.as_slice(), payload).map(Some).ok_or_else(|| self.unreadable(&at));
                }
            }
            return Ok(None);
        }
    }

    /// The page that a descent towards `key` begins with, and its level.
    fn lead(&self, root: &TreeRoot, key: &[u8]) -> (PageRef, u8) {
        self.index.map_or((root.page, root.level), |index| index.lead(self, root, key))
    }

    fn unreadable(&self, at: &PageRef) -> crate::Error {
        let what = self.spec.name;
        self.view.pages.corrupt(format_args!("page at byte {}: a record of {what} cannot be read", at.offset))
    }

    /// A cursor before the first entry.
    pub fn cursor(&self) -> Result<Cursor<'v>> {
        self.seek(&[], false)
    }

    /// A cursor before the first entry whose key is at least `key`; with `floor`, before the last entry whose key is
    /// at most `key` where there is one.
    pub fn seek(&self, key: &[u8], floor: bool) -> Result<Cursor<'v>> {
        let mut cursor = Cursor { tree: *self, stack: Vec::new(), last: Key::EMPTY };
        let Some(root) = self.root else { return Ok(cursor) };
        let mut level = root.level;
        let mut step = self.open(&root.page, level, None)?;
        while level > 0 {
            let (first, at) = self.choose(&mut step, key)?;
            self.foresee(&step);
            cursor.stack.push(step);
            level -= 1;
            step = self.open(&at, level, Some(&first))?;
        }
        let mut before = step.position.clone();
        loop {
            let mut ahead = before.clone();
            let payload = ahead.next(&step.page).map_err(|fault| self.view.fault(&step.at, fault))?;
            match payload.map(|_| ahead.key.as_slice().cmp(key)) {
                Some(std::cmp::Ordering::Less) => {
                    if floor {
                        step.position = before;
                    }
                    before = ahead;
                }
                Some(std::cmp::Ordering::Equal) => {
                    step.position = before;
                    break;
                }
                Some(std::cmp::Ordering::Greater) | None => {
                    if !floor {
                        step.position = before;
                    }
                    break;
                }
            }
        }
        cursor.last = step.position.key;
        cursor.stack.push(step);
        Ok(cursor)
    }
}

/// The child that an interior entry names.
pub(crate) fn child(payload: &[u8]) -> Result<PageRef, Fault> {
    PageRef::decode(&mut Fields(payload)).ok_or("a child's address is cut off")
}

/// Walks the entries of a tree in key order.
pub(crate) struct Cursor<'v> {
    tree: Tree<'v>,
    stack: Vec<Step<'v>>,
    last: Key,
}

impl Cursor<'_> {
    /// The next entry's key and value. After an error the cursor is at its end.
    pub fn next(&mut self) -> Result<Option<(Key, &[u8])>> {
        match self.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                self.stack.clear();
                return Err(error);
            }
        }
        let view = self.tree.view;
        let Some(step) = self.stack.last_mut() else { return Ok(None) };
        let payload = step.position.next(&step.page).map_err(|fault| view.fault(&step.at, fault))?;
        let Some(payload) = payload else { return Ok(None) };
        self.last = step.position.key;
        Ok(Some((step.position.key, payload)))
    }

    /// As [`Cursor::next`], decoding the value; a value that `read` refuses is corrupt.
    pub fn next_as<R>(&mut self, read: impl FnOnce(&Key, &[u8]) -> Option<R>) -> Result<Option<R>> {
        let at = self.stack.last().map(|step| step.at);
        let tree = self.tree;
        let Some((key, value)) = self.next()? else { return Ok(None) };
        match read(&key, value) {
            Some(value) => Ok(Some(value)),
            None => {
                let at = at.or(tree.root.map(|root| root.page));
                Err(at.map_or_else(|| tree.view.pages.corrupt("a record cannot be read"), |at| tree.unreadable(&at)))
            }
        }
    }

    /// Moves to a leaf with an entry left, and checks that its key grows. `false` at the end of the tree.
    fn advance(&mut self) -> Result<bool> {
        let view = self.tree.view;
        loop {
            let Some(step) = self.stack.last_mut() else { return Ok(false) };
            let mut ahead = step.position.clone();
            let payload = ahead.next(&step.page).map_err(|fault| view.fault(&step.at, fault))?;
            let Some(payload) = payload else {
                self.stack.pop();
                continue;
            };
            let level = ahead.level;
            if level == 0 {
                // An empty `last` stands for nothing passed yet; no key is empty.
                if ahead.key.as_slice() <= self.last.as_slice() {
                    return Err(view.fault(&step.at, "keys are not in order"));
                }
                return Ok(true);
            }
            let at = child(payload).map_err(|fault| view.fault(&step.at, fault))?;
            let first = ahead.key;
            if first.as_slice() <= self.last.as_slice() {
                return Err(view.fault(&step.at, "keys are not in order"));
            }
            step.position = ahead;
            let next = self.tree.open(&at, level - 1, Some(&first))?;
            self.tree.foresee(&next);
            self.stack.push(next);
        }
    }
}
