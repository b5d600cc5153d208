//! Walks over whole tables: entries decoded in key order, and assets in path order.

use std::collections::VecDeque;

use super::Inner;
use crate::bundle::page::Key;
use crate::bundle::records::{AssetHead, key};
use crate::bundle::tree::{self, Cursor, Tree};
use crate::bundle::values::AssetRecord;
use crate::error::Result;
use crate::ids::AssetPath;

/// Decodes every entry of a tree; ends after the first error.
pub(super) struct Scan<'v, R, F: Fn(&Key, &[u8]) -> Option<R>> {
    tree: Tree<'v>,
    cursor: Option<Cursor<'v>>,
    done: bool,
    read: F,
}

impl<'v, R, F: Fn(&Key, &[u8]) -> Option<R>> Scan<'v, R, F> {
    pub fn new(tree: Tree<'v>, read: F) -> Self {
        Self { tree, cursor: None, done: false, read }
    }

    fn step(&mut self) -> Result<Option<R>> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => self.cursor.insert(self.tree.cursor()?),
        };
        cursor.next_as(&self.read)
    }
}

impl<R, F: Fn(&Key, &[u8]) -> Option<R>> Iterator for Scan<'_, R, F> {
    type Item = Result<R>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Assets in path order. Those of a fresh pack are numbered in that order; those added since are few, are read
/// first, sorted, and merged in.
pub(super) struct Assets<'b> {
    inner: &'b Inner,
    from: String,
    walk: Option<Merge<'b>>,
    done: bool,
    last: Option<AssetPath>,
}

struct Merge<'b> {
    cursor: Cursor<'b>,
    /// The next of those that are numbered in path order.
    ahead: Option<AssetRecord>,
    added: VecDeque<AssetRecord>,
}

impl<'b> Assets<'b> {
    /// Those whose path is at least `from`.
    pub fn new(inner: &'b Inner, from: &str) -> Self {
        Self { inner, from: from.to_owned(), walk: None, done: false, last: None }
    }

    fn step(&mut self) -> Result<Option<AssetRecord>> {
        let Merge { cursor, ahead, added } = match &mut self.walk {
            Some(walk) => walk,
            None => self.walk.insert(self.inner.merge(&self.from)?),
        };
        let from_added = match (&ahead, added.front()) {
            (Some(ahead), Some(added)) => added.path < ahead.path,
            (None, added) => added.is_some(),
            (Some(_), None) => false,
        };
        let next = if from_added {
            added.pop_front()
        } else {
            let next = self.inner.ordered_next(cursor)?;
            std::mem::replace(ahead, next)
        };
        if let Some(next) = &next {
            if self.last.as_ref().is_some_and(|last| *last >= next.path) {
                return Err(self.inner.corrupt(format_args!("asset {} is out of path order", next.number)));
            }
            self.last = Some(next.path.clone());
        }
        Ok(next)
    }
}

impl Inner {
    fn merge(&self, from: &str) -> Result<Merge<'_>> {
        let tree = self.tree(&tree::ASSETS);
        let mut added = Vec::new();
        let mut cursor = tree.seek(&key::number(self.root.counters.ordered), false)?;
        while let Some(record) = self.next_record(&mut cursor)? {
            if record.path.as_str() >= from {
                added.push(record);
            }
        }
        added.sort_unstable_by(|a: &AssetRecord, b| a.path.cmp(&b.path));
        let mut cursor = tree.seek(&key::number(self.first_ordered(from)?), false)?;
        let ahead = self.ordered_next(&mut cursor)?;
        Ok(Merge { cursor, ahead, added: added.into() })
    }

    /// The smallest number from which on the assets that are numbered in path order have paths of at least `from`.
    fn first_ordered(&self, from: &str) -> Result<u32> {
        let (mut low, mut high) = (0, self.root.counters.ordered);
        while low < high && !from.is_empty() {
            let middle = low + (high - low) / 2;
            let mut cursor = self.tree(&tree::ASSETS).seek(&key::number(middle), false)?;
            // Numbers of assets that are gone are gaps: what follows a gap stands for it.
            match self.ordered_next(&mut cursor)? {
                Some(record) if record.path.as_str() < from => low = record.number + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The next asset of those that are numbered in path order.
    fn ordered_next(&self, cursor: &mut Cursor<'_>) -> Result<Option<AssetRecord>> {
        Ok(self.next_record(cursor)?.filter(|record| record.number < self.root.counters.ordered))
    }

    fn next_record(&self, cursor: &mut Cursor<'_>) -> Result<Option<AssetRecord>> {
        let read = |key: &Key, value: &[u8]| {
            let number = key::tail(key.as_slice())?;
            Some(self.record_of(number, AssetHead::decode(value)?))
        };
        cursor.next_as(read)?.transpose()
    }
}

impl Iterator for Assets<'_> {
    type Item = Result<AssetRecord>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
