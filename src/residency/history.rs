//! What happened to assets lately: which were evicted and why, and which changed. For people who ask; nothing is decided
//! by it. Bounded, the newest stay.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;

use crate::event::ChangedAsset;
use crate::ids::{AssetId, AssetKind, ContentHash, Generation};

/// Entries of each list.
const ENTRIES_MAX: usize = 4096;

/// An asset was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which asset, or its stored form.
    pub id: AssetId,
    /// When.
    pub at: Instant,
    /// How many bytes were wanted.
    pub wanted_bytes: u64,
    /// The kind whose budget was full; `None` when it was the whole one.
    pub kind: Option<AssetKind>,
}

/// An asset changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which asset.
    pub id: AssetId,
    /// In which generation.
    pub generation: Generation,
    /// Its content before.
    pub old: Option<ContentHash>,
    /// Its content since.
    pub new: Option<ContentHash>,
}

/// The latest evictions and changes.
#[derive(Default)]
pub struct History {
    evictions: Mutex<VecDeque<Eviction>>,
    changes: Mutex<VecDeque<Change>>,
}

impl History {
    /// Notes that these assets were to make room.
    pub fn evicted(&self, ids: &[AssetId], at: Instant, wanted_bytes: u64, kind: Option<AssetKind>) {
        let entry = |id: &AssetId| Eviction { id: *id, at, wanted_bytes, kind };
        note(&self.evictions, ids.len(), ids.iter().map(entry));
    }

    /// Notes what differs in a new generation.
    pub fn published(&self, generation: Generation, changed: &[ChangedAsset]) {
        let entry = |change: &ChangedAsset| Change { id: change.id, generation, old: change.old, new: change.new };
        note(&self.changes, changed.len(), changed.iter().map(entry));
    }

    /// The last eviction of an asset that is still remembered.
    pub fn eviction(&self, id: AssetId) -> Option<Eviction> {
        self.evictions.lock().iter().rev().find(|entry| entry.id == id).copied()
    }

    /// The last change of an asset that is still remembered.
    pub fn change(&self, id: AssetId) -> Option<Change> {
        self.changes.lock().iter().rev().find(|entry| entry.id == id).copied()
    }
}

fn note<T>(list: &Mutex<VecDeque<T>>, count: usize, entries: impl Iterator<Item = T>) {
    let mut list = list.lock();
    let entries = entries.skip(count.saturating_sub(ENTRIES_MAX));
    let over = (list.len() + count.min(ENTRIES_MAX)).saturating_sub(ENTRIES_MAX);
    list.drain(..over);
    list.extend(entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_last_of_an_asset_is_found() {
        let (history, at) = (History::default(), Instant::now());
        let ids: Vec<AssetId> = (0..ENTRIES_MAX as u64 + 10).map(AssetId).collect();
        history.evicted(&ids, at, 5, None);
        assert_eq!(history.eviction(AssetId(9)), None);
        assert_eq!(history.eviction(AssetId(10)).unwrap().wanted_bytes, 5);
        history.evicted(&[AssetId(11), AssetId(1)], at, 7, Some(AssetKind::Text));
        assert_eq!((history.eviction(AssetId(10)), history.eviction(AssetId(12)).is_some()), (None, true));
        assert_eq!(history.eviction(AssetId(11)).unwrap().kind, Some(AssetKind::Text));
        assert_eq!(history.evictions.lock().len(), ENTRIES_MAX);
    }
}
