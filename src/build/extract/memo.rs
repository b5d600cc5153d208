//! What references resolved to lately: the pages of a folder name the same few files, in the same order.
//!
//! It saves the work of resolving, and the paths that it hands out are shared, so that a tree of fifty thousand
//! pages does not hold the path of its style sheet fifty thousand times.

use crate::ids::AssetPath;

/// Most references remembered of one folder.
const ENTRIES_MAX: usize = 64;
/// Longest reference that is remembered.
const REFERENCE_BYTES_MAX: usize = 256;

/// References as written, and their targets, in one folder.
#[derive(Default)]
pub(super) struct Memo {
    folder: String,
    entries: Vec<(Box<[u8]>, AssetPath)>,
    /// The entry after the last one found: the likeliest next.
    next: usize,
}

impl Memo {
    /// Makes `folder` the one that references are written in.
    pub(super) fn enter(&mut self, folder: &str) {
        if self.folder != folder {
            folder.clone_into(&mut self.folder);
            self.entries.clear();
        }
        self.next = 0;
    }

    /// What `reference` resolves to in this folder, if that is remembered.
    pub(super) fn find(&mut self, reference: &[u8]) -> Option<AssetPath> {
        let is = |entry: &(Box<[u8]>, AssetPath)| *entry.0 == *reference;
        let index =
            if self.entries.get(self.next).is_some_and(is) { self.next } else { self.entries.iter().position(is)? };
        self.next = index + 1;
        Some(self.entries[index].1.clone())
    }

    /// Remembers what `reference` resolves to in this folder.
    pub(super) fn remember(&mut self, reference: &[u8], target: &AssetPath) {
        if self.entries.len() < ENTRIES_MAX && reference.len() <= REFERENCE_BYTES_MAX {
            self.entries.push((reference.into(), target.clone()));
            self.next = self.entries.len();
        }
    }
}
