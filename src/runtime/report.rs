//! The figures of a runtime as a page of text: how fast, how often from memory, how long it took.

use std::fmt;

use super::Stats;
use crate::telemetry::Quantiles;

const MIB: f64 = (1u64 << 20) as f64;

/// A report for people; [`Stats`] serialises for programs.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metrics, budget, rate) = (&self.metrics, &self.budget, &self.metrics.rate);
        let mib = |bytes: u64| bytes as f64 / MIB;
        writeln!(
            f,
            "throughput  {:.1} MiB/s now, {:.1} mean, {:.1} peak; {} reads/s now, {} peak",
            mib(rate.bytes_per_second),
            mib(rate.bytes_per_second_mean),
            mib(rate.bytes_per_second_peak),
            rate.reads_per_second,
            rate.reads_per_second_peak
        )?;
        let prediction = &self.prediction;
        writeln!(
            f,
            "hit rates   cache {} of {}, prefetch {} of {} used, prediction {} of what would have been loaded",
            Percent(share(metrics.hits, metrics.hits + metrics.misses)),
            metrics.hits + metrics.misses,
            Percent(prediction.precision),
            prediction.prefetched,
            Percent(prediction.recall),
        )?;
        writeln!(
            f,
            "memory      {:.1} of {:.1} MiB charged, {:.1} peak; {} assets, {} locked; pressure {}",
            mib(budget.charged + budget.charged_io),
            mib(budget.total),
            mib(budget.peak),
            self.resident,
            self.locks.assets,
            budget.level
        )?;
        writeln!(
            f,
            "evictions   {} ({} for each load that was not a hit), {:.1} MiB, by {}; {} loads waited for memory",
            metrics.evictions,
            Ratio(share(metrics.evictions, metrics.misses)),
            mib(metrics.evicted_bytes),
            self.eviction.name,
            metrics.memory_waits
        )?;
        writeln!(f, "loads       {}", Latency(&metrics.load_latency))?;
        for (priority, lane) in &metrics.by_priority {
            writeln!(
                f,
                "{:<11} {} done, {} queued; queue {}; load {}",
                priority.name(),
                lane.completions,
                lane.queued,
                Latency(&lane.queue_latency),
                Latency(&lane.load_latency)
            )?;
        }
        Ok(())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

struct Percent(Option<f64>);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(share) => write!(f, "{:.1} %", share * 100.0),
            None => f.write_str("none"),
        }
    }
}

struct Ratio(Option<f64>);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ratio) => write!(f, "{ratio:.2}"),
            None => f.write_str("none"),
        }
    }
}

struct Latency<'a>(&'a Quantiles);

impl fmt::Display for Latency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { p50_us, p95_us, p99_us, .. } = self.0;
        write!(f, "p50 {p50_us} us, p95 {p95_us} us, p99 {p99_us} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_nothing_are_none() {
        assert_eq!(Percent(share(1, 0)).to_string(), "none");
        assert_eq!(Percent(share(1, 3)).to_string(), "33.3 %");
        assert_eq!(Ratio(share(3, 2)).to_string(), "1.50");
    }
}
