//! A histogram of durations that many threads record into at once: log-linear buckets of relaxed counters.
//!
//! Four buckets per power of two of a microsecond: a quantile is at most 25 % above the true one. The idea is
//! that of HdrHistogram (Gil Tene) at its lowest precision.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 2;
const BUCKETS: usize = 40 << SUB_BITS;

/// Counts durations from 1 µs to days.
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

/// What a histogram knows, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Durations recorded.
    pub count: u64,
    /// Their sum.
    pub sum_us: u64,
    /// Half are at most this.
    pub p50_us: u64,
    /// 95 of 100 are at most this.
    pub p95_us: u64,
    /// 99 of 100 are at most this.
    pub p99_us: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The quantiles of what was recorded so far.
    pub fn quantiles(&self) -> Quantiles {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count = counts.iter().sum();
        let at = |share: f64| {
            let mut left = (count as f64 * share).ceil() as u64;
            for (index, bucket) in counts.iter().enumerate() {
                if *bucket > 0 && *bucket >= left {
                    return upper_bound(index);
                }
                left -= (*bucket).min(left);
            }
            0
        };
        let sum_us = self.sum_us.load(Ordering::Relaxed);
        Quantiles { count, sum_us, p50_us: at(0.50), p95_us: at(0.95), p99_us: at(0.99) }
    }
}

fn bucket(us: u64) -> usize {
    if us < (1 << SUB_BITS) {
        return us as usize;
    }
    let power = us.ilog2();
    let sub = (us >> (power - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    ((((power - SUB_BITS + 1) as usize) << SUB_BITS) + sub as usize).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> u64 {
    if index < (1 << SUB_BITS) {
        return index as u64;
    }
    let power = (index >> SUB_BITS) as u32 + SUB_BITS - 1;
    let sub = (index & ((1 << SUB_BITS) - 1)) as u64;
    (((1 << SUB_BITS) + sub + 1) << (power - SUB_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_a_quarter_too_high() {
        for us in (0..10_000).chain([1 << 20, (1 << 30) + 12_345]) {
            let bound = upper_bound(bucket(us));
            assert!(bound >= us && bound <= us + us / 4, "{us} {bound}");
        }
    }

    #[test]
    fn quantiles_follow_the_counts() {
        let histogram = Histogram::default();
        for us in 1..=100 {
            histogram.record(Duration::from_micros(us));
        }
        let quantiles = histogram.quantiles();
        assert_eq!((quantiles.count, quantiles.sum_us), (100, 5050));
        assert!((50..=63).contains(&quantiles.p50_us) && (99..=124).contains(&quantiles.p99_us), "{quantiles:?}");
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
    }
}
