//! Which asset is loaded when: the same for the same seed, whoever asks in whatever order.

use std::collections::HashMap;
use std::path::Path;

use clap::ValueEnum;
use flyloft::AssetId;
use flyloft::bundle::AssetRecord;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::open;

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
    /// Which asset it is at each turn, where that was recorded.
    turns: Option<Vec<u32>>,
}

/// The accesses of a trace, to those of `records` that it names.
pub fn replayed(trace: &Path, records: &[AssetRecord]) -> Result<Order> {
    let index: HashMap<AssetId, u32> =
        records.iter().enumerate().map(|(index, record)| (record.id, index as u32)).collect();
    let mut turns = Vec::new();
    for access in open::trace(trace)? {
        let access = access?;
        if access.level.is_access() {
            turns.extend(index.get(&access.id));
        }
    }
    if turns.is_empty() {
        let file = trace.display();
        return Err(Failure::unusable(format_args!("{file}: it asks for nothing that the bundle has")));
    }
    let (pattern, assets) = (Pattern::All, records.len());
    Ok(Order { pattern, assets, seed: 0, sums: Vec::new(), ranks: Vec::new(), turns: Some(turns) })
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
        Self { pattern, assets, seed, sums, ranks, turns: None }
    }

    /// How many loads make it up.
    pub fn len(&self) -> usize {
        self.turns.as_ref().map_or(self.assets, Vec::len)
    }

    /// The index of the asset to load at `turn`.
    pub fn at(&self, turn: usize) -> usize {
        if let Some(turns) = &self.turns {
            return turns[turn % turns.len()] as usize;
        }
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
