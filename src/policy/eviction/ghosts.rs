//! Names of assets that were evicted lately: the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};

use crate::ids::{AssetId, Hashing};

/// Names that are remembered however few assets are resident. In memory a name is about 40 bytes.
pub(super) const GHOSTS_MIN: usize = 4096;

/// The names.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// In the order of their going; one that came back meanwhile is in it once more, or not in the map.
    order: VecDeque<(AssetId, u64)>,
    numbers: HashMap<AssetId, u64, Hashing>,
    next: u64,
}

impl Ghosts {
    /// Names in it.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes of memory, about.
    pub fn memory_bytes(&self) -> usize {
        (self.order.capacity() + self.numbers.capacity()) * size_of::<(AssetId, u64)>() + self.numbers.capacity()
    }

    /// Remembers one, and forgets the oldest above `max` and [`GHOSTS_MIN`].
    pub fn insert(&mut self, id: AssetId, max: usize) {
        self.next += 1;
        self.numbers.insert(id, self.next);
        self.order.push_back((id, self.next));
        let max = max.max(GHOSTS_MIN);
        // Those that came back are still in the order: it may not outgrow the names by much.
        while self.numbers.len() > max || self.order.len() > max + max / 2 {
            let Some((oldest, number)) = self.order.pop_front() else { return };
            if self.numbers.get(&oldest) == Some(&number) {
                self.numbers.remove(&oldest);
            }
        }
    }

    /// Whether it was there; it is not any more.
    pub fn take(&mut self, id: AssetId) -> bool {
        self.numbers.remove(&id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_one_that_comes_back_is_not_a_ghost() {
        let mut ghosts = Ghosts::default();
        for id in 0..3 * GHOSTS_MIN as u64 {
            ghosts.insert(AssetId(id), 0);
            assert!(!ghosts.take(AssetId(id + 1)));
        }
        assert_eq!(ghosts.len(), GHOSTS_MIN);
        assert!(!ghosts.take(AssetId(2 * GHOSTS_MIN as u64 - 1)) && ghosts.take(AssetId(2 * GHOSTS_MIN as u64)));
        for _ in 0..3 * GHOSTS_MIN {
            ghosts.insert(AssetId(1), 0);
            assert!(ghosts.take(AssetId(1)));
        }
        assert!(ghosts.order.len() <= 2 * GHOSTS_MIN && ghosts.len() < GHOSTS_MIN);
    }
}
