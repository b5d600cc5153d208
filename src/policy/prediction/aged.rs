//! A map that forgets: bounded, and what was not looked at for long goes first.

use std::collections::HashMap;

use crate::ids::Hashing;

/// Holds between half of `bound` and `bound` entries once it is full. When its younger half is full that becomes the
/// older one, whose entries are forgotten: ages without a clock, one look-up or two.
#[derive(Debug)]
pub struct Aged<V> {
    half: usize,
    younger: HashMap<u64, V, Hashing>,
    older: HashMap<u64, V, Hashing>,
}

impl<V> Aged<V> {
    pub fn new(bound: usize) -> Self {
        Self { half: (bound / 2).max(1), younger: HashMap::default(), older: HashMap::default() }
    }

    pub fn get(&self, key: u64) -> Option<&V> {
        self.younger.get(&key).or_else(|| self.older.get(&key))
    }

    /// The entry, which is young again, or a new one.
    pub fn entry(&mut self, key: u64, new: impl FnOnce() -> V) -> &mut V {
        if !self.younger.contains_key(&key) {
            let value = self.older.remove(&key);
            if self.younger.len() >= self.half {
                self.older = std::mem::take(&mut self.younger);
            }
            self.younger.insert(key, value.unwrap_or_else(new));
        }
        self.younger.get_mut(&key).expect("it was there or has been inserted")
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.younger.len() + self.older.len()
    }

    /// Every entry, the older half first, so that inserting them in order keeps the younger.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.older.iter().chain(&self.younger).map(|(key, value)| (*key, value))
    }
}

/// Spreads the bits of a number over all of them, the same in every run (SplitMix64's finalizer, Steele, Lea and Flood,
/// OOPSLA 2014).
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_looked_at() {
        let mut aged = Aged::new(16);
        for key in 0..1000 {
            aged.entry(key, || key);
            aged.entry(7, || 0);
            assert!(aged.len() <= 16);
        }
        assert_eq!((aged.get(7), aged.get(999), aged.get(5)), (Some(&0), Some(&999), None));
        assert_eq!(aged.iter().count(), aged.len());
    }
}
