//! Which asset is loaded when: the same for the same seed, whoever asks in whatever order.

use clap::ValueEnum;
use serde::Serialize;

/// Which assets are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Each once, in path order; then again.
    All,
    /// Any, each as likely as the other.
    Random,
    /// Few often, many seldom: the chance of the n-th is as 1/n.
    Zipf,
}

/// The asset of each turn.
pub struct Order {
    pattern: Pattern,
    assets: usize,
    seed: u64,
    /// Sums of 1/n, for zipf.
    sums: Vec<f64>,
    /// Which asset is the n-th most wanted, for zipf.
    ranks: Vec<u32>,
}

impl Order {
    /// Of `assets` assets; at least one.
    pub fn new(pattern: Pattern, assets: usize, seed: u64) -> Self {
        let (mut sums, mut ranks) = (Vec::new(), Vec::new());
        if pattern == Pattern::Zipf {
            let mut sum = 0.0;
            sums.extend((1..=assets).map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            }));
            ranks.extend(0..assets as u32);
            for index in (1..assets).rev() {
                ranks.swap(index, (mix(seed, index as u64 ^ 0x5eed) % (index as u64 + 1)) as usize);
            }
        }
        Self { pattern, assets, seed, sums, ranks }
    }

    /// The index of the asset to load at `turn`.
    pub fn at(&self, turn: usize) -> usize {
        match self.pattern {
            Pattern::All => turn % self.assets,
            Pattern::Random => (mix(self.seed, turn as u64) % self.assets as u64) as usize,
            Pattern::Zipf => {
                let share = (mix(self.seed, turn as u64) >> 11) as f64 / (1u64 << 53) as f64;
                let wanted = share * self.sums.last().copied().unwrap_or(0.0);
                let rank = self.sums.partition_point(|sum| *sum <= wanted).min(self.assets - 1);
                self.ranks[rank] as usize
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a number for each turn without a state to share.
fn mix(seed: u64, turn: u64) -> u64 {
    let mut z = seed.wrapping_add(turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pattern: Pattern, seed: u64) -> Vec<usize> {
        let order = Order::new(pattern, 100, seed);
        let mut counts = vec![0; 100];
        (0..10_000).for_each(|turn| counts[order.at(turn)] += 1);
        counts
    }

    #[test]
    fn all_is_each_equally_often() {
        assert!(counts(Pattern::All, 1).iter().all(|count| *count == 100));
    }

    #[test]
    fn random_is_even_and_zipf_is_not() {
        assert!(counts(Pattern::Random, 1).iter().all(|count| (40..200).contains(count)));
        let mut zipf = counts(Pattern::Zipf, 1);
        zipf.sort_unstable();
        // 1 of 5.19, the hundredth harmonic number.
        assert!((1700..2200).contains(&zipf[99]) && zipf[0] < 60, "{zipf:?}");
    }

    #[test]
    fn a_seed_gives_the_same_order_again() {
        assert_eq!(counts(Pattern::Zipf, 7), counts(Pattern::Zipf, 7));
        assert_ne!(counts(Pattern::Zipf, 7), counts(Pattern::Zipf, 8));
    }
}
