//! How often names were seen lately, in half a byte each: a count-min sketch that ages.
//!
//! Source: Cormode, Muthukrishnan: "An improved data stream summary: the count-min sketch and its applications", 2005;
//! the ageing by halving is that of Einziger, Friedman, Manes: "TinyLFU", ACM Transactions on Storage 2017.

use crate::ids::AssetId;

/// Words of the smallest sketch.
const WORDS_MIN: usize = 512;
/// Counters that a name adds to.
const ROWS: u32 = 4;
/// A counter stays at this.
pub(super) const COUNT_MAX: u32 = 15;
/// Sightings after which every counter is halved, for each word.
const SIGHTINGS_PER_WORD: usize = 10;

/// The counters: sixteen in a word. A name's four are in four words, in a quarter of each that is its own.
#[derive(Debug)]
pub(super) struct Sketch {
    words: Vec<u64>,
    sightings: usize,
    /// Makes it hard to choose names that collide.
    seed: u64,
}

impl Sketch {
    pub fn new(seed: u64) -> Self {
        Self { words: vec![0; WORDS_MIN], sightings: 0, seed }
    }

    /// Room for so many names, a word for each. What was counted is kept.
    pub fn grow(&mut self, names: usize) {
        while self.words.len() < names {
            // A name's place has one bit more from now on: both halves know what the whole knew.
            self.words.extend_from_within(..);
        }
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    fn places(&self, id: AssetId) -> impl Iterator<Item = (usize, u32)> + use<> {
        let hash = (id.0 ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = hash ^ (hash >> 32);
        let mask = self.words.len() - 1;
        (0..ROWS).map(move |row| {
            let place = hash.wrapping_mul(MULTIPLIERS[row as usize]);
            let counter = row * 4 + ((hash >> (row * 2)) & 3) as u32;
            ((place >> 24) as usize & mask, counter * 4)
        })
    }

    /// Counts sightings of a name.
    pub fn add(&mut self, id: AssetId, sightings: u32) {
        let mut added = 0;
        for (word, shift) in self.places(id) {
            let count = (self.words[word] >> shift) as u32 & COUNT_MAX;
            let more = sightings.min(COUNT_MAX - count);
            self.words[word] += u64::from(more) << shift;
            added = added.max(more);
        }
        self.sightings += added as usize;
        if self.sightings >= self.words.len() * SIGHTINGS_PER_WORD {
            self.sightings /= 2;
            self.words.iter_mut().for_each(|word| *word = (*word >> 1) & 0x7777_7777_7777_7777);
        }
    }

    /// About how often a name was seen lately, at most [`COUNT_MAX`].
    pub fn count(&self, id: AssetId) -> u32 {
        let counts = self.places(id).map(|(word, shift)| (self.words[word] >> shift) as u32 & COUNT_MAX);
        counts.min().unwrap_or(0)
    }
}

/// Odd numbers without a pattern: the fractions of the square roots of 2, 3, 5 and 7.
const MULTIPLIERS: [u64; ROWS as usize] =
    [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_counts_too_few_and_seldom_too_many_until_it_ages() {
        let mut sketch = Sketch::new(7);
        for id in 0..400u64 {
            sketch.add(AssetId(id), 1 + (id % 7) as u32);
        }
        let over = |id: &u64| sketch.count(AssetId(*id)) > 1 + (*id % 7) as u32;
        assert!((0..400u64).all(|id| sketch.count(AssetId(id)) > (id % 7) as u32));
        assert!((0..400u64).filter(over).count() < 20);
        sketch.add(AssetId(3), 1000);
        assert_eq!(sketch.count(AssetId(3)), COUNT_MAX);
        let before: Vec<u32> = (0..400).map(|id| sketch.count(AssetId(id))).collect();
        sketch.grow(5000);
        assert_eq!((0..400).map(|id| sketch.count(AssetId(id))).collect::<Vec<u32>>(), before);
        assert_eq!(sketch.memory_bytes(), 8192 * 8);
    }

    #[test]
    fn what_was_seen_long_ago_fades() {
        let mut sketch = Sketch::new(1);
        sketch.add(AssetId(1), 15);
        for id in 0..3 * WORDS_MIN * SIGHTINGS_PER_WORD {
            sketch.add(AssetId(1000 + id as u64), 1);
        }
        assert!(sketch.count(AssetId(1)) < 12);
    }
}
