//! Checking everything: each superblock, page, frame and content against its hash, and the tables against each
//! other. Goes on after damage, so that all of it is named.

mod contents;
mod tables;

use std::collections::HashSet;
use std::fmt;

use super::page::{Key, PageRef, Position, TreeSpec};
use super::reader::{Bundle, Inner};
use super::superblock;
use super::tree::{self, TREES};
use crate::error::{Error, Result};
use crate::ids::{AssetPath, ContentHash};
use crate::limits;

/// One thing that is wrong with a bundle. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// One of the two superblocks is damaged; the other one is used. The next commit repairs it.
    Superblock {
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A page of the table of contents is damaged: what it lists can't be reached.
    Page {
        /// The table.
        table: &'static str,
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A frame is damaged. The assets that need it follow as findings of their own.
    Frame {
        /// Its number.
        number: u32,
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// An asset can't be loaded, or its bytes are not its content.
    Asset {
        /// Its path.
        path: AssetPath,
        /// The content that it should have.
        content: ContentHash,
        /// What is wrong with it.
        why: String,
    },
    /// The tables contradict each other.
    Table {
        /// How.
        what: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock { offset, why } => write!(f, "superblock at byte {offset}: {why}"),
            Self::Page { table, offset, why } => write!(f, "page at byte {offset} (table of {table}): {why}"),
            Self::Frame { number, offset, why } => write!(f, "frame {number} at byte {offset}: {why}"),
            Self::Asset { path, content, why } => write!(f, "{path} (content {}): {why}", content.short()),
            Self::Table { what } => write!(f, "table of contents: {what}"),
        }
    }
}

/// What a verification looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Pages of the table of contents.
    pub pages: u64,
    /// Frames read, checked and decoded.
    pub frames: u64,
    /// Contents hashed.
    pub contents: u64,
    /// Assets.
    pub assets: u64,
    /// Decoded bytes hashed.
    pub content_bytes: u64,
    /// Findings reported. 0: the bundle is sound.
    pub findings: u64,
}

/// One finding is reported once.
struct Reporter<'r> {
    report: &'r mut dyn FnMut(Finding),
    seen: HashSet<String>,
    verified: Verified,
}

/// Findings remembered in order to report each once.
const SEEN_MAX: usize = 100_000;

impl Reporter<'_> {
    fn add(&mut self, finding: Finding) {
        let text = finding.to_string();
        if self.seen.len() < SEEN_MAX && !self.seen.insert(text) {
            return;
        }
        self.verified.findings += 1;
        (self.report)(finding);
    }

    fn table(&mut self, what: impl Into<String>) {
        self.add(Finding::Table { what: what.into() });
    }

    /// Passes a value on. An error that says that the bundle is damaged becomes a finding; another one ends it.
    fn take<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { what, .. }) => {
                self.table(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Bundle {
    /// Checks every page, frame and content of this generation against its hash, and the tables against each other.
    /// `report` gets each finding as it is made.
    ///
    /// # Errors
    /// Only when the storage can't be read; damage is a finding.
    pub fn verify(&self, report: &mut dyn FnMut(Finding)) -> Result<Verified> {
        let inner = &*self.inner;
        let mut reporter = Reporter { report, seen: HashSet::new(), verified: Verified::default() };
        for (offset, why) in superblock::damaged(self.storage())? {
            reporter.add(Finding::Superblock { offset, why: why.into() });
        }
        reporter.verified.pages += 1;
        let mut sound = true;
        for spec in TREES {
            sound &= walk_tree(inner, spec, &mut reporter)?;
        }
        contents::check(inner, &mut reporter)?;
        // Tables with holes contradict each other in ways that would only repeat what is said already.
        if sound {
            tables::check(self, &mut reporter)?;
        }
        Ok(reporter.verified)
    }
}

/// Walks all pages of a tree, going on beside a damaged one; compares the totals with those in the root page.
fn walk_tree(inner: &Inner, spec: &'static TreeSpec, reporter: &mut Reporter<'_>) -> Result<bool> {
    let Some(root) = inner.tree(spec).root else { return Ok(true) };
    let mut walk = Walk { inner, spec, last: Key::EMPTY, entries: 0, bytes: 0, sound: true };
    walk.page(&root.page, root.level, reporter)?;
    if walk.sound && (walk.entries, walk.bytes) != (root.entries, root.bytes) {
        reporter.table(format!(
            "the tree of {} has {} entries in {} bytes, the root page says {} in {}",
            spec.name, walk.entries, walk.bytes, root.entries, root.bytes
        ));
    }
    Ok(walk.sound)
}

struct Walk<'b> {
    inner: &'b Inner,
    spec: &'static TreeSpec,
    /// The key that came last, in any leaf.
    last: Key,
    entries: u64,
    bytes: u64,
    sound: bool,
}

impl Walk<'_> {
    /// Checks a page and those below it.
    fn page(&mut self, at: &PageRef, level: u8, reporter: &mut Reporter<'_>) -> Result<()> {
        let result = self.entries_of(at, level);
        let bad = |why: String| Finding::Page { table: self.spec.name, offset: at.offset, why };
        let children = match result {
            Ok(children) => children,
            Err(Error::Corrupt { what, .. }) => {
                let prefix = format!("page at byte {}: ", at.offset);
                reporter.add(bad(what.strip_prefix(&prefix).unwrap_or(&what).to_owned()));
                self.sound = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        reporter.verified.pages += 1;
        self.bytes += u64::from(at.len);
        for (key, child) in children {
            if self.last.as_slice() >= key.as_slice() {
                reporter.add(Finding::Page {
                    table: self.spec.name,
                    offset: child.offset,
                    why: "its keys are not in order with those of the page before".into(),
                });
                self.sound = false;
                continue;
            }
            self.page(&child, level - 1, reporter)?;
        }
        Ok(())
    }

    /// The children of an interior page; the entries of a leaf are counted.
    fn entries_of(&mut self, at: &PageRef, level: u8) -> Result<Vec<(Key, PageRef)>> {
        let view = &self.inner.view;
        let fault = |fault| view.fault(at, fault);
        let page = view.page(at)?;
        let mut position = Position::start(&page, self.spec).map_err(fault)?;
        if position.level != level || usize::from(level) >= limits::TREE_DEPTH_MAX {
            return Err(fault("it stands at another level than its parent says"));
        }
        let mut children = Vec::new();
        let (mut entries, mut last) = (0, self.last);
        while let Some(payload) = position.next(&page).map_err(fault)? {
            if level > 0 {
                children.push((position.key, tree::child(payload).map_err(fault)?));
            } else {
                if entries == 0 && last.as_slice() >= position.key.as_slice() {
                    return Err(fault("its keys are not in order with those of the page before"));
                }
                entries += 1;
                last = position.key;
            }
        }
        (self.entries, self.last) = (self.entries + entries, last);
        Ok(children)
    }
}
