//! Changing a tree without changing a page: sorted upserts and deletes are applied along the paths they touch, and
//! only pages on those paths are written again. A page whose entries stay the same keeps its address, so that
//! writing what is already there writes nothing.

use super::page::{CHILD_BYTES, HEADER_BYTES, Key, PAGE_BYTES_TARGET, PageBuilder, PageRef, Position, TreeSpec};
use super::page::{PAGE_KEYS_MAX, ValueLen, entry_bytes};
use super::pages::{Page, View};
use super::tree::{TreeRoot, child};
use crate::error::{Error, Result};
use crate::limits;

/// A rewritten page smaller than this is joined with a neighbour.
const PAGE_BYTES_SMALL: usize = PAGE_BYTES_TARGET / 4;

/// Changes to one tree, collected without an allocation for each.
#[derive(Default)]
pub(crate) struct Batch {
    arena: Vec<u8>,
    items: Vec<Item>,
    sorted: bool,
}

#[derive(Clone, Copy)]
struct Item {
    start: usize,
    key: u8,
    /// `None` deletes.
    value: Option<u32>,
}

impl Batch {
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        self.add(Item { start, key: key.len() as u8, value: Some(value.len() as u32) });
    }

    pub fn delete(&mut self, key: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(key);
        self.add(Item { start, key: key.len() as u8, value: None });
    }

    fn add(&mut self, item: Item) {
        self.sorted = (self.sorted || self.items.is_empty())
            && self.items.last().is_none_or(|last| self.key(last) < self.key(&item));
        self.items.push(item);
    }

    fn key(&self, item: &Item) -> &[u8] {
        &self.arena[item.start..item.start + usize::from(item.key)]
    }

    fn value(&self, item: &Item) -> Option<&[u8]> {
        let start = item.start + usize::from(item.key);
        item.value.map(|len| &self.arena[start..start + len as usize])
    }

    /// Sorts by key; of several changes to one key the last one counts.
    pub fn settle(&mut self) {
        if self.sorted || self.items.is_empty() {
            return;
        }
        let mut items = std::mem::take(&mut self.items);
        items.sort_by(|a, b| self.key(a).cmp(self.key(b)));
        items.dedup_by(|later, kept| {
            let same = self.key(later) == self.key(kept);
            if same {
                *kept = *later;
            }
            same
        });
        self.items = items;
        self.sorted = true;
    }
}

/// Pages that are not written yet, and the address the first of them will have.
pub(crate) struct PageSink {
    base: u64,
    pub bytes: Vec<u8>,
}

impl PageSink {
    pub fn new(base: u64) -> Self {
        Self { base, bytes: Vec::new() }
    }

    /// Adds a byte string and answers where it will stand.
    pub fn add(&mut self, bytes: &[u8]) -> PageRef {
        let offset = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        PageRef { offset, len: bytes.len() as u32, hash: *blake3::hash(bytes).as_bytes() }
    }

    fn get(&self, at: &PageRef) -> Option<&[u8]> {
        let start = usize::try_from(at.offset.checked_sub(self.base)?).ok()?;
        self.bytes.get(start..start.checked_add(at.len as usize)?)
    }
}

/// Entries of one level, gathered before they are cut into pages.
#[derive(Default)]
struct Run {
    arena: Vec<u8>,
    items: Vec<(usize, u8, u32)>,
    bytes: usize,
}

impl Run {
    /// With room for a few more entries than `count`, of `bytes` in all.
    fn with_room(bytes: usize, count: usize) -> Self {
        Self { arena: Vec::with_capacity(bytes + bytes / 8), items: Vec::with_capacity(count + 8), bytes: 0 }
    }

    fn push(&mut self, key: &[u8], payload: &[u8], value: ValueLen) {
        let previous = self.items.last().map_or(&[][..], |(start, len, _)| &self.arena[*start..*start + *len as usize]);
        self.bytes += entry_bytes(self.items.len(), previous, key, payload.len(), value);
        let start = self.arena.len();
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(payload);
        self.items.push((start, key.len() as u8, payload.len() as u32));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.items.iter().map(|(start, key, payload)| {
            let middle = start + usize::from(*key);
            (&self.arena[*start..middle], &self.arena[middle..middle + *payload as usize])
        })
    }

    fn is_small(&self) -> bool {
        HEADER_BYTES + self.bytes < PAGE_BYTES_SMALL && self.items.len() < usize::from(PAGE_KEYS_MAX / 4)
    }
}

/// Where a page ends before it is full, so that pages come out about even: at whichever is reached later, since
/// entries that take few bytes are many.
#[derive(Clone, Copy)]
struct Cut {
    bytes: usize,
    keys: usize,
}

impl Cut {
    const NONE: Cut = Cut { bytes: usize::MAX, keys: usize::MAX };
}

/// A child as its parent will name it.
struct Child {
    key: Key,
    page: PageRef,
    /// Whether this update wrote it.
    new: bool,
}

struct Update<'v, 's> {
    view: Option<&'v View>,
    spec: &'static TreeSpec,
    sink: &'s mut PageSink,
    entries: u64,
    bytes: u64,
}

/// Applies `batch` to the tree under `root`, of which `view` reads the pages, and writes what is new to `sink`.
///
/// # Errors
/// What reading the old pages brings.
pub(crate) fn apply(
    view: Option<&View>,
    spec: &'static TreeSpec,
    root: Option<&TreeRoot>,
    batch: &mut Batch,
    sink: &mut PageSink,
) -> Result<Option<TreeRoot>> {
    batch.settle();
    let (Some(old), Some(_)) = (root, view) else {
        let mut update = Update { view, spec, sink, entries: 0, bytes: 0 };
        return update.build(batch);
    };
    if batch.items.is_empty() {
        return Ok(Some(*old));
    }
    let mut update = Update { view, spec, sink, entries: old.entries, bytes: old.bytes };
    let Some(run) = update.rewrite(&old.page, old.level, batch, &batch.items)? else { return Ok(Some(*old)) };
    update.finish(run, old.level)
}

impl Update<'_, '_> {
    fn payload(&self, level: u8) -> ValueLen {
        if level == 0 { self.spec.value } else { ValueLen::Fixed(CHILD_BYTES as u8) }
    }

    /// A tree from nothing: leaves are filled in order, straight from the batch.
    fn build(&mut self, batch: &Batch) -> Result<Option<TreeRoot>> {
        let mut page = PageBuilder::new(self.spec, 0);
        let mut leaves = Vec::new();
        for item in &batch.items {
            let Some(value) = batch.value(item) else { continue };
            self.push(&mut page, batch.key(item), value, Cut::NONE, &mut leaves);
            self.entries = self.entries.saturating_add(1);
        }
        self.flush(&mut page, &mut leaves);
        self.raise(leaves, 0)
    }

    /// Adds an entry to a page; first writes the page when it is full, or has reached `cut`.
    fn push(&mut self, page: &mut PageBuilder, key: &[u8], payload: &[u8], cut: Cut, done: &mut Vec<Child>) {
        let cut = page.len() >= cut.bytes && page.count() >= cut.keys;
        if cut || page.is_full() || page.len_with(key, payload.len()) > PAGE_BYTES_TARGET {
            self.flush(page, done);
        }
        page.push(key, payload);
    }

    fn flush(&mut self, page: &mut PageBuilder, done: &mut Vec<Child>) {
        if page.is_empty() {
            return;
        }
        let (bytes, key) = page.finish();
        let at = self.sink.add(bytes);
        self.bytes = self.bytes.saturating_add(u64::from(at.len));
        done.push(Child { key, page: at, new: true });
        page.clear();
    }

    /// Cuts a run into pages of about equal size.
    fn emit(&mut self, run: &Run, level: u8, done: &mut Vec<Child>) {
        let room = PAGE_BYTES_TARGET - HEADER_BYTES;
        let pages = run.bytes.div_ceil(room).max(run.items.len().div_ceil(usize::from(PAGE_KEYS_MAX)));
        let cut = match pages {
            0 | 1 => Cut::NONE,
            _ => Cut { bytes: HEADER_BYTES + run.bytes.div_ceil(pages), keys: run.items.len().div_ceil(pages) },
        };
        let mut page = PageBuilder::new(self.spec, level);
        for (key, payload) in run.iter() {
            self.push(&mut page, key, payload, cut, done);
        }
        self.flush(&mut page, done);
    }

    /// Builds levels above `children`, which stand at `level`, until one page is left.
    fn raise(&mut self, mut children: Vec<Child>, mut level: u8) -> Result<Option<TreeRoot>> {
        while children.len() > 1 {
            level += 1;
            if usize::from(level) >= limits::TREE_DEPTH_MAX {
                return Err(Error::Unsupported {
                    what: format!("a tree of {} entries", self.entries),
                    why: "the format's trees are not that deep".into(),
                });
            }
            let mut page = PageBuilder::new(self.spec, level);
            let mut parents = Vec::new();
            for child in &children {
                self.push(&mut page, child.key.as_slice(), &child.page.encode(), Cut::NONE, &mut parents);
            }
            self.flush(&mut page, &mut parents);
            children = parents;
        }
        Ok(children.first().map(|root| TreeRoot { page: root.page, level, entries: self.entries, bytes: self.bytes }))
    }

    /// The new root from the entries of the old one's page.
    fn finish(&mut self, run: Run, mut level: u8) -> Result<Option<TreeRoot>> {
        let mut children = Vec::new();
        if level > 0 && run.items.len() == 1 {
            for (key, payload) in run.iter() {
                let page = child(payload).map_err(|fault| self.corrupt(fault))?;
                children.push(Child { key: Key::new(key), page, new: false });
            }
            level -= 1;
        } else {
            self.emit(&run, level, &mut children);
        }
        // A root with one child is no use: the child becomes the root.
        while level > 0 && children.len() == 1 {
            let at = children[0].page;
            let entries = self.read(&at, level)?;
            let mut only = entries.iter();
            let (Some((key, payload)), None) = (only.next(), only.next()) else { break };
            let page = child(payload).map_err(|fault| self.corrupt(fault))?;
            self.bytes = self.bytes.saturating_sub(u64::from(at.len));
            children = vec![Child { key: Key::new(key), page, new: false }];
            level -= 1;
        }
        self.raise(children, level)
    }

    fn corrupt(&self, fault: &str) -> Error {
        match self.view {
            Some(view) => view.pages.corrupt(format_args!("tree of {}: {fault}", self.spec.name)),
            None => Error::corrupt("a new bundle", fault),
        }
    }

    /// All entries of a page at `level`, old or just written.
    fn read(&self, at: &PageRef, level: u8) -> Result<Run> {
        let page = match (self.sink.get(at), self.view) {
            (Some(bytes), _) => Page::Mapped(bytes),
            (None, Some(view)) => view.page(at)?,
            (None, None) => return Err(self.corrupt("a page is missing")),
        };
        let fault = |fault| self.corrupt(fault);
        let mut position = Position::start(&page, self.spec).map_err(fault)?;
        if position.level != level {
            return Err(self.corrupt("a page stands at another level than its parent says"));
        }
        let value = self.payload(level);
        // A key takes less room in a page than out of it.
        let mut run = Run::with_room(2 * page.len(), position.left());
        while let Some(payload) = position.next(&page).map_err(fault)? {
            run.push(position.key.as_slice(), payload, value);
        }
        Ok(run)
    }

    /// The entries that the page `at` has after `changes`; `None` when they are what they were.
    fn rewrite(&mut self, at: &PageRef, level: u8, batch: &Batch, changes: &[Item]) -> Result<Option<Run>> {
        let old = self.read(at, level)?;
        let new =
            if level == 0 { self.merge(&old, batch, changes) } else { self.descend(&old, level, batch, changes)? };
        if new.is_some() {
            self.bytes = self.bytes.saturating_sub(u64::from(at.len));
        }
        Ok(new)
    }

    fn merge(&mut self, old: &Run, batch: &Batch, changes: &[Item]) -> Option<Run> {
        let value = self.payload(0);
        let mut new = Run::with_room(old.arena.len(), old.items.len());
        let mut changed = false;
        let mut changes = changes.iter().peekable();
        let add = |run: &mut Run, entries: &mut u64, item: &Item| {
            if let Some(bytes) = batch.value(item) {
                run.push(batch.key(item), bytes, value);
                *entries = entries.saturating_add(1);
                return true;
            }
            false
        };
        for (key, payload) in old.iter() {
            while let Some(item) = changes.next_if(|item| batch.key(item) < key) {
                changed |= add(&mut new, &mut self.entries, item);
            }
            match changes.next_if(|item| batch.key(item) == key).map(|item| batch.value(item)) {
                None => new.push(key, payload, value),
                Some(Some(bytes)) => {
                    changed |= bytes != payload;
                    new.push(key, bytes, value);
                }
                Some(None) => {
                    changed = true;
                    self.entries = self.entries.saturating_sub(1);
                }
            }
        }
        for item in changes {
            changed |= add(&mut new, &mut self.entries, item);
        }
        changed.then_some(new)
    }

    fn descend(&mut self, old: &Run, level: u8, batch: &Batch, changes: &[Item]) -> Result<Option<Run>> {
        let children: Vec<(&[u8], PageRef)> = old
            .iter()
            .map(|(key, payload)| child(payload).map(|at| (key, at)))
            .collect::<Result<_, _>>()
            .map_err(|fault| self.corrupt(fault))?;
        let below = level - 1;
        let mut done: Vec<Child> = Vec::with_capacity(children.len() + 1);
        let mut small: Option<Run> = None;
        let mut changed = false;
        let mut rest = changes;
        for (index, (key, at)) in children.iter().enumerate() {
            let next = children.get(index + 1);
            let count = next.map_or(rest.len(), |(next, _)| rest.partition_point(|item| batch.key(item) < *next));
            let (part, after) = rest.split_at(count);
            rest = after;
            let run = if part.is_empty() { None } else { self.rewrite(at, below, batch, part)? };
            let run = match (run, small.take()) {
                (None, None) => {
                    done.push(Child { key: Key::new(key), page: *at, new: false });
                    continue;
                }
                (Some(run), None) => run,
                (run, Some(small)) => {
                    let run = match run {
                        Some(run) => run,
                        None => self.take(at, below)?,
                    };
                    self.join(small, &run, below)
                }
            };
            changed = true;
            if run.items.is_empty() {
                continue;
            }
            if run.is_small() && next.is_some() {
                small = Some(run);
                continue;
            }
            // The last child has no next one: it joins the one before, unless that was just written.
            let run = match done.pop_if(|before| run.is_small() && !before.new) {
                Some(before) => {
                    let before = self.take(&before.page, below)?;
                    self.join(before, &run, below)
                }
                None => run,
            };
            self.emit(&run, below, &mut done);
        }
        if !changed {
            return Ok(None);
        }
        let mut new = Run::with_room(old.arena.len(), done.len());
        for child in &done {
            new.push(child.key.as_slice(), &child.page.encode(), self.payload(level));
        }
        Ok(Some(new))
    }

    /// The entries of an unchanged page that is about to be joined with another.
    fn take(&mut self, at: &PageRef, level: u8) -> Result<Run> {
        let run = self.read(at, level)?;
        self.bytes = self.bytes.saturating_sub(u64::from(at.len));
        Ok(run)
    }

    fn join(&self, mut first: Run, second: &Run, level: u8) -> Run {
        let value = self.payload(level);
        for (key, payload) in second.iter() {
            first.push(key, payload, value);
        }
        first
    }
}

#[cfg(test)]
mod tests;
