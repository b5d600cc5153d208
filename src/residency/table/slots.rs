//! Open addressing by id. Ids are hashes already, but whoever names the files can choose them (invariant 9): where an
//! id goes depends on a seed that nobody outside knows, and a table in which a probe gets long is built anew with
//! another seed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::version::Node;
use crate::ids::AssetId;
use crate::residency::hold::{Linked, Place};

/// Fewest slots.
const SLOTS_MIN: usize = 1024;
/// Longest probe. With three quarters of the slots in use, a longer one is less likely than a failing machine, unless
/// the ids were chosen for this seed.
const PROBES_MAX: usize = 256;

/// The versions of one id, the newest first.
pub(super) type Cell = Place<Node>;

/// A slot. Its key is written once, after its cell; an id that is no longer resident keeps its slot until the next
/// rebuild, with an empty cell.
#[derive(Default)]
struct Slot {
    /// The id mixed with the seed; 0 while the slot is free.
    key: AtomicU64,
    cell: Cell,
}

/// A table of slots. Only the writer inserts; readers never wait.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    seed: u64,
    /// Turns an id into a key: a bijection that leaves one id for the key 0, which gets no slot under this seed.
    mix: u64,
    /// Turns a key into a place.
    spread: u64,
}

impl Slots {
    /// An empty table in which `count` ids leave half of the slots free.
    pub(super) fn with_room_for(count: usize, seed: u64) -> Slots {
        let len = count.saturating_mul(2).next_power_of_two().max(SLOTS_MIN);
        let slots = (0..len).map(|_| Slot::default()).collect();
        Slots { slots, seed, mix: scramble(seed), spread: scramble(!seed) | 1 }
    }

    /// The seed of the table that comes after this one.
    pub(super) fn next_seed(&self) -> u64 {
        scramble(self.seed ^ self.spread)
    }

    /// The cell of `id`, if it has one.
    #[inline]
    pub(super) fn cell(&self, id: AssetId) -> Option<&Cell> {
        let key = self.key(id);
        for place in self.places(key) {
            let slot = &self.slots[place];
            match slot.key.load(Ordering::Acquire) {
                0 => return None,
                found if found == key => return Some(&slot.cell),
                _ => {}
            }
        }
        None
    }

    /// Gives the id of `version`, which has no slot here, one with it. `false` when it needs a new table: nothing is changed.
    pub(super) fn insert(&self, version: Linked<'_, Node>) -> bool {
        let key = self.key(version.name().id);
        if key == 0 {
            return false;
        }
        for place in self.places(key) {
            let slot = &self.slots[place];
            if slot.key.load(Ordering::Relaxed) == 0 {
                slot.cell.store(Some(version));
                slot.key.store(key, Ordering::Release);
                return true;
            }
        }
        false
    }

    /// The number of slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every cell that is in use, or was.
    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells_of(0..self.len())
    }

    /// The cells among these slots that are in use, or were.
    pub(super) fn cells_of(&self, places: Range<usize>) -> impl Iterator<Item = &Cell> {
        let end = places.end.min(self.len());
        self.slots[places.start.min(end)..end]
            .iter()
            .filter(|slot| slot.key.load(Ordering::Acquire) != 0)
            .map(|slot| &slot.cell)
    }

    #[cfg(test)]
    pub(super) fn cell_key(&self, id: AssetId) -> u64 {
        self.key(id)
    }

    #[inline]
    fn key(&self, id: AssetId) -> u64 {
        id.0 ^ self.mix
    }

    #[inline]
    /// Where a key may be, in order: a folded multiplication by the secret spread, then one slot after another.
    fn places(&self, key: u64) -> impl Iterator<Item = usize> {
        let product = u128::from(key) * u128::from(self.spread);
        let first = (product as u64 ^ (product >> 64) as u64) as usize;
        let mask = self.slots.len() - 1;
        (0..PROBES_MAX.min(self.slots.len())).map(move |step| first.wrapping_add(step) & mask)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): neighbouring seeds give unrelated words.
fn scramble(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
