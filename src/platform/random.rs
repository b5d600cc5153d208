//! Randomness as an argument: for jitter and for seeds that an attacker must not guess. Not for keys.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A number below `bound`; 0 when `bound` is 0. The bias is at most `bound` in 2^64.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Numbers that differ in every process and cannot be guessed from outside: SipHash of a counter under keys that the
/// standard library takes from the operating system.
#[derive(Debug, Default)]
pub struct SystemRandom {
    keys: RandomState,
    count: AtomicU64,
}

impl SystemRandom {
    /// A source with keys of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        self.keys.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// The same numbers for the same seed (splitmix64): the simulated twin of [`SystemRandom`].
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// A source that repeats exactly for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_follows_the_published_splitmix64() {
        let random = SeededRandom::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn below_stays_below() {
        let random = SeededRandom::new(7);
        assert!((0..1000).all(|_| random.below(10) < 10));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn two_system_sources_differ() {
        let (a, b) = (SystemRandom::new(), SystemRandom::new());
        let take = |random: &SystemRandom| [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_ne!(take(&a), take(&b));
    }
}
