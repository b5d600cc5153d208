//! Counters of the whole runtime. What is already counted by its owner (ledger, budget, drivers) is not counted here
//! again; `Runtime::stats` puts all of it together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::costs::Costs;
use super::histogram::{Histogram, Quantiles};
use super::lanes::{LaneReport, PriorityMetrics, RateReport};
use super::shards::{self, COMMON, SHARDS};
use crate::ids::Priority;

/// A counter.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one and returns the sum before: a number that nobody else gets.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for the hit path: each of the first 63 threads has a cache line of its own, to which it adds with a load
/// and a store; threads beyond them share one. A thread that ends leaves its line, with its sum, to the next.
pub struct ShardedCounter {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

impl Default for ShardedCounter {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()) }
    }
}

impl ShardedCounter {
    /// Adds one.
    #[inline]
    pub fn one(&self) {
        let own = shards::own();
        let count = &self.shards[own].0;
        if own < COMMON {
            // Nobody else writes to it while this thread has it.
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }
}

/// The counters.
#[derive(Default)]
pub struct Metrics {
    /// `get` and `load` answered from memory at once.
    pub hits: ShardedCounter,
    /// Loads that had to ask. A `get` that finds nothing is not counted: whoever wants it loads it next.
    pub misses: Counter,
    /// Reads sent to the engines.
    pub reads: Counter,
    /// Bytes of those reads.
    pub read_bytes: Counter,
    /// Frames that came with those reads; above `reads` where neighbours were merged.
    pub frames: Counter,
    /// Bytes decoded.
    pub decoded_bytes: Counter,
    /// Stored bytes or contents that did not match their hash.
    pub corrupt: Counter,
    /// Panics caught while working on one item.
    pub item_panics: Counter,
    /// Assets evicted.
    pub evictions: Counter,
    /// Bytes evicted.
    pub evicted_bytes: Counter,
    /// Frames that a load waited for with another, while they were on their way.
    pub frames_joined: Counter,
    /// Frames that were read into their final memory, and only checked there.
    pub frames_in_place: Counter,
    /// Copies of decoded bytes from a shared frame to an asset.
    pub copies: Counter,
    /// Bytes of those copies.
    pub copied_bytes: Counter,
    /// Reads that the I/O thread finished itself.
    pub finished_inline: Counter,
    /// Planned reads that were dropped before they were sent, since nobody waited for them any more.
    pub reads_dropped: Counter,
    /// Loads that waited for memory.
    pub memory_waits: Counter,
    /// Prefetches that were asked for.
    pub prefetches: Counter,
    /// Numbers the requests, for their spans.
    pub requests: Counter,
    /// Times that what is queued was put in order anew since a viewer moved.
    pub rescorings: Counter,
    /// Generations published.
    pub reloads: Counter,
    /// What reads and decoding took lately.
    pub costs: Costs,
    /// From request to answer, for loads that were not hits.
    pub load_latency: Histogram,
    /// From the first event of a change set to its publication.
    pub reload_latency: Histogram,
    /// What each priority gets, and how fast the disk is read.
    pub priorities: PriorityMetrics,
}

/// [`Metrics`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The same names as the counters.
pub struct MetricsReport {
    pub hits: u64,
    pub misses: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub frames: u64,
    pub decoded_bytes: u64,
    pub corrupt: u64,
    pub item_panics: u64,
    pub evictions: u64,
    pub evicted_bytes: u64,
    pub frames_joined: u64,
    pub frames_in_place: u64,
    pub copies: u64,
    pub copied_bytes: u64,
    pub finished_inline: u64,
    pub reads_dropped: u64,
    pub memory_waits: u64,
    pub prefetches: u64,
    #[serde(default)]
    pub rescorings: u64,
    pub reloads: u64,
    pub load_latency: Quantiles,
    pub reload_latency: Quantiles,
    pub by_priority: BTreeMap<Priority, LaneReport>,
    pub rate: RateReport,
}

impl Metrics {
    /// Every counter now.
    pub fn report(&self) -> MetricsReport {
        MetricsReport {
            hits: self.hits.get(),
            misses: self.misses.get(),
            reads: self.reads.get(),
            read_bytes: self.read_bytes.get(),
            frames: self.frames.get(),
            decoded_bytes: self.decoded_bytes.get(),
            corrupt: self.corrupt.get(),
            item_panics: self.item_panics.get(),
            evictions: self.evictions.get(),
            evicted_bytes: self.evicted_bytes.get(),
            frames_joined: self.frames_joined.get(),
            frames_in_place: self.frames_in_place.get(),
            copies: self.copies.get(),
            copied_bytes: self.copied_bytes.get(),
            finished_inline: self.finished_inline.get(),
            reads_dropped: self.reads_dropped.get(),
            memory_waits: self.memory_waits.get(),
            prefetches: self.prefetches.get(),
            rescorings: self.rescorings.get(),
            reloads: self.reloads.get(),
            load_latency: self.load_latency.quantiles(),
            reload_latency: self.reload_latency.quantiles(),
            by_priority: self.priorities.report(),
            rate: self.priorities.rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_add_up_over_more_threads_than_there_are_shards() {
        let counter = ShardedCounter::default();
        let (threads, hits) = (3 * SHARDS, 200);
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..hits).for_each(|_| counter.one()));
                }
            });
        }
        assert_eq!(counter.get(), (2 * threads * hits) as u64);
    }
}
