//! What was evicted: a bounded past, so that what comes back brings its uses and gaps with it.

use std::collections::HashMap;

use super::model::Past;
use super::samples::Ticket;
use crate::ids::{AssetId, Hashing};

/// What is remembered of an asset that is gone. Its place in the ring is its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ghost {
    pub id: AssetId,
    /// When it was used last.
    pub tick: u32,
    /// The sample that waits for it.
    pub waits: Option<Ticket>,
    pub past: Past,
}

/// The last that were evicted: the oldest makes room for the newest.
#[derive(Debug, Default)]
pub(super) struct History {
    ring: Vec<Ghost>,
    /// The oldest, once the ring is full.
    next: usize,
    at: HashMap<AssetId, u32, Hashing>,
}

/// Ghosts that there is always room for: 24 bytes each, and as much again for finding them.
const GHOSTS_MIN: usize = 1 << 16;
/// Ghosts for each resident asset above that.
const GHOSTS_PER_RESIDENT: usize = 2;
/// However many assets are resident.
const GHOSTS_MAX: usize = 1 << 24;

impl History {
    /// Takes it in; `residents` says how many there is room for.
    pub fn put(&mut self, ghost: Ghost, residents: usize) {
        let room = (residents.saturating_mul(GHOSTS_PER_RESIDENT)).clamp(GHOSTS_MIN, GHOSTS_MAX);
        let place = if self.ring.len() < room {
            self.ring.push(ghost);
            self.ring.len() - 1
        } else {
            if self.next >= self.ring.len() {
                self.next = 0;
            }
            let place = self.next;
            self.next += 1;
            let oldest = std::mem::replace(&mut self.ring[place], ghost);
            // Unless it came back, or was put in again since.
            if self.at.get(&oldest.id) == Some(&(place as u32)) {
                self.at.remove(&oldest.id);
            }
            place
        };
        self.at.insert(ghost.id, place as u32);
    }

    /// What is remembered of it, which is forgotten.
    pub fn take(&mut self, id: AssetId) -> Option<Ghost> {
        let place = self.at.remove(&id)?;
        self.ring.get(place as usize).copied()
    }

    /// What is remembered of it.
    pub fn get(&self, id: AssetId) -> Option<&Ghost> {
        self.ring.get(*self.at.get(&id)? as usize)
    }

    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<Ghost>() + self.at.capacity() * (size_of::<(AssetId, u32)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ghost(id: u64, tick: u32) -> Ghost {
        Ghost { id: AssetId(id), tick, waits: None, past: Past::default() }
    }

    #[test]
    fn what_was_put_in_last_is_found_and_only_once_taken() {
        let mut history = History::default();
        history.put(ghost(1, 5), 0);
        history.put(ghost(1, 9), 0);
        assert_eq!(history.get(AssetId(1)).unwrap().tick, 9);
        assert_eq!(history.take(AssetId(1)).unwrap().tick, 9);
        assert!(history.take(AssetId(1)).is_none() && history.len() == 0);
    }

    #[test]
    fn the_oldest_are_forgotten_and_one_that_was_put_in_again_is_not() {
        let mut history = History::default();
        for id in 0..GHOSTS_MIN as u64 {
            history.put(ghost(id, 0), 0);
        }
        history.put(ghost(1, 7), 0);
        assert!(history.get(AssetId(0)).is_none(), "it was the oldest");
        history.put(ghost(900_000, 0), 0);
        assert_eq!(history.get(AssetId(1)).unwrap().tick, 7, "its older place was taken, not the newer");
        assert_eq!(history.len(), GHOSTS_MIN);
        assert!(size_of::<Ghost>() <= 24);
    }
}
