//! Counters of the whole runtime. What is already counted by its owner (ledger, budget, drivers) is not counted here
//! again; `Runtime::stats` puts all of it together.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Quantiles};

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

const SHARDS: usize = 16;

/// A counter for the hit path: each thread adds to a cache line of its own, so that hits share nothing.
#[derive(Default)]
pub struct ShardedCounter {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

impl ShardedCounter {
    /// Adds one.
    #[inline]
    pub fn one(&self) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        // A thread that is being torn down counts in the first shard.
        let shard = SHARD.try_with(|shard| *shard).unwrap_or(0);
        self.shards[shard].0.fetch_add(1, Ordering::Relaxed);
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
    /// Loads that waited for memory.
    pub memory_waits: Counter,
    /// Prefetches that were asked for.
    pub prefetches: Counter,
    /// Numbers the requests, for their spans.
    pub requests: Counter,
    /// Generations published.
    pub reloads: Counter,
    /// From request to answer, for loads that were not hits.
    pub load_latency: Histogram,
    /// From the first event of a change set to its publication.
    pub reload_latency: Histogram,
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
    pub memory_waits: u64,
    pub prefetches: u64,
    pub reloads: u64,
    pub load_latency: Quantiles,
    pub reload_latency: Quantiles,
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
            memory_waits: self.memory_waits.get(),
            prefetches: self.prefetches.get(),
            reloads: self.reloads.get(),
            load_latency: self.load_latency.quantiles(),
            reload_latency: self.reload_latency.quantiles(),
        }
    }
}
