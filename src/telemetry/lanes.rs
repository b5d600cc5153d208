//! What each priority gets: completions, latencies and bytes; and how fast the disk is read, on average and at its peak.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Quantiles};
use super::metrics::Counter;
use crate::ids::Priority;

/// The rate is taken over this time.
const WINDOW: Duration = Duration::from_secs(1);

/// Counters of one priority.
#[derive(Default)]
pub struct LaneMetrics {
    /// Loads answered with what they asked for, prefetches too.
    pub completions: Counter,
    /// Reads that have completed.
    pub reads: Counter,
    /// Bytes of those reads.
    pub read_bytes: Counter,
    /// From a load's way out of the ledger until its read is with the engine.
    pub queue_latency: Histogram,
    /// From request to answer, for loads that were not hits.
    pub load_latency: Histogram,
    /// Loads and planned reads that wait now.
    queued: AtomicU64,
}

/// Counters of every priority, and the rate of all.
#[derive(Default)]
pub struct PriorityMetrics {
    lanes: [LaneMetrics; 4],
    rate: Mutex<Rate>,
}

/// What one priority got, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The same names as the counters.
pub struct LaneReport {
    pub completions: u64,
    pub reads: u64,
    pub read_bytes: u64,
    /// Loads and planned reads that wait now.
    pub queued: u64,
    pub queue_latency: Quantiles,
    pub load_latency: Quantiles,
}

/// How fast the disk is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateReport {
    /// Bytes per second in the last whole second in which anything was read.
    pub bytes_per_second: u64,
    /// The most of any second.
    pub bytes_per_second_peak: u64,
    /// Bytes per second since the first read.
    pub bytes_per_second_mean: u64,
    /// Reads per second in the last whole second in which anything was read.
    pub reads_per_second: u64,
    /// The most of any second.
    pub reads_per_second_peak: u64,
}

#[derive(Default)]
struct Rate {
    first: Option<Instant>,
    /// When the window began, and what was read in it.
    start: Option<Instant>,
    bytes: u64,
    reads: u64,
    all_bytes: u64,
    last: [u64; 2],
    peak: [u64; 2],
}

impl PriorityMetrics {
    /// The counters of one priority.
    pub fn of(&self, priority: Priority) -> &LaneMetrics {
        &self.lanes[priority as usize]
    }

    /// Notes reads that have completed by `now`, all of them together.
    pub fn read(&self, reads: u64, bytes: u64, now: Instant) {
        self.rate.lock().note(reads, bytes, now);
    }

    /// Notes how much waits, by priority.
    pub fn queued(&self, queued: [usize; 4]) {
        for (lane, queued) in self.lanes.iter().zip(queued) {
            lane.queued.store(queued as u64, Ordering::Relaxed);
        }
    }

    /// What each priority got.
    pub fn report(&self) -> BTreeMap<Priority, LaneReport> {
        let report = |lane: &LaneMetrics| LaneReport {
            completions: lane.completions.get(),
            reads: lane.reads.get(),
            read_bytes: lane.read_bytes.get(),
            queued: lane.queued.load(Ordering::Relaxed),
            queue_latency: lane.queue_latency.quantiles(),
            load_latency: lane.load_latency.quantiles(),
        };
        Priority::ALL.into_iter().map(|priority| (priority, report(self.of(priority)))).collect()
    }

    /// How fast the disk is read.
    pub fn rate(&self) -> RateReport {
        self.rate.lock().report()
    }
}

impl Rate {
    fn note(&mut self, reads: u64, bytes: u64, now: Instant) {
        self.first.get_or_insert(now);
        let start = *self.start.get_or_insert(now);
        let passed = now.saturating_duration_since(start);
        if passed >= WINDOW {
            let seconds = passed.as_secs_f64();
            self.last = [self.bytes, self.reads].map(|count| (count as f64 / seconds) as u64);
            self.peak = std::array::from_fn(|at| self.peak[at].max(self.last[at]));
            (self.start, self.bytes, self.reads) = (Some(now), 0, 0);
        }
        self.bytes += bytes;
        self.reads += reads;
        self.all_bytes += bytes;
    }

    fn report(&self) -> RateReport {
        let since = self.first.zip(self.start).map(|(first, start)| start.saturating_duration_since(first));
        let whole = self.all_bytes - self.bytes;
        let mean = since.filter(|since| !since.is_zero()).map_or(0.0, |since| whole as f64 / since.as_secs_f64());
        RateReport {
            bytes_per_second: self.last[0],
            bytes_per_second_peak: self.peak[0],
            bytes_per_second_mean: mean as u64,
            reads_per_second: self.last[1],
            reads_per_second_peak: self.peak[1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_whole_seconds_and_its_peak_stays() {
        let (metrics, start) = (PriorityMetrics::default(), Instant::now());
        let read = |ms, bytes| metrics.read(1, bytes, start + Duration::from_millis(ms));
        (0..10).for_each(|tenth| read(tenth * 100, 100));
        (10..20).for_each(|tenth| read(tenth * 100, 50));
        read(2000, 1);
        let rate = metrics.rate();
        assert_eq!((rate.bytes_per_second, rate.bytes_per_second_peak), (500, 1000));
        assert_eq!((rate.bytes_per_second_mean, rate.reads_per_second), (750, 10));
    }

    #[test]
    fn each_priority_is_counted_apart() {
        let metrics = PriorityMetrics::default();
        metrics.of(Priority::High).completions.one();
        metrics.queued([0, 0, 3, 4]);
        let report = metrics.report();
        let counted = Priority::ALL.map(|priority| (report[&priority].completions, report[&priority].queued));
        assert_eq!(counted, [(0, 0), (1, 0), (0, 3), (0, 4)]);
    }
}
