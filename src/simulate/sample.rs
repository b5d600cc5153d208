//! A sample of a large trace that behaves like the whole.
//!
//! Source: Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC Construction with SHARDS", FAST 2015: objects are kept
//! by a hash of their id, all requests for them with them, and the budget shrinks alike. Ratios are corrected by the
//! difference between the requests expected in the sample and those in it (SHARDS-adj), since one very hot object in the
//! sample or beside it would tilt them otherwise. Budgets shrink by the sample's share of the footprint's bytes rather
//! than by the rate, so that a budget is the same share of either.

use super::limit::Aim;
use super::replay::Figures;
use super::trace::Trace;
use crate::error::{Error, Result};

/// Requests of a sample that `auto` aims at.
const REQUESTS_AIM: usize = 1 << 20;
/// Objects below which a sample says little about small budgets.
const OBJECTS_MIN: usize = 1 << 15;

/// How much of a trace is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sample {
    /// Everything, or as much of a large trace as about a million requests need.
    #[default]
    Auto,
    /// This part of the objects: above 0, at most 1.
    Rate(f64),
}

impl Sample {
    /// From `--sample`: `auto`, or a rate such as 0.1 or 10%.
    ///
    /// # Errors
    /// [`Error::Config`] for `sample`, when it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "auto" {
            return Ok(Sample::Auto);
        }
        let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        let rate = number.trim().parse::<f64>().map(|number| number / unit).unwrap_or(f64::NAN);
        if !(rate > 0.0 && rate <= 1.0) {
            let why = format!("'{text}' is no rate; expected 'auto', or a part of the objects such as 0.1 or 10%");
            return Err(Error::config("sample", why));
        }
        Ok(Sample::Rate(rate))
    }

    /// The rate for `trace`.
    pub fn rate(self, trace: &Trace) -> f64 {
        match self {
            Sample::Rate(rate) => rate,
            Sample::Auto => {
                let by_requests = REQUESTS_AIM as f64 / trace.requests().len() as f64;
                let by_objects = OBJECTS_MIN as f64 / trace.objects().len().max(1) as f64;
                let rate = by_requests.max(by_objects);
                // A sample of most of it would be inexact and hardly quicker.
                if rate > 0.5 { 1.0 } else { rate }
            }
        }
    }
}

/// A sample and what it stands for.
#[derive(Debug)]
pub(super) struct Sampled {
    pub trace: Trace,
    /// The part of the objects in it.
    pub rate: f64,
    /// The sample's share of the footprint: budgets shrink by it.
    pub scale: f64,
    expected_requests: f64,
    expected_bytes: f64,
}

impl Sampled {
    /// The part of `trace` at `rate`; `seed` chooses which.
    pub fn of(trace: &Trace, rate: f64, seed: u64) -> Self {
        let threshold = (rate * (1u64 << 53) as f64) as u64;
        let kept = trace.filtered(|object| mix(object.id ^ mix(seed)) >> 11 < threshold);
        let scale = kept.footprint_bytes() as f64 / trace.footprint_bytes().max(1) as f64;
        let expected_requests = trace.requests().len() as f64 * rate;
        // A sample's bytes are those of its objects: the correction must not bring in sizes that are not there.
        let expected_bytes = trace.requested_bytes() as f64 * scale;
        Self { trace: kept, rate, scale, expected_requests, expected_bytes }
    }

    /// The budget that stands for `budget_bytes` of the whole.
    pub fn budget(&self, budget_bytes: u64) -> u64 {
        (budget_bytes as f64 * self.scale).round() as u64
    }

    /// Object and byte hit ratio of the whole, from what came of the sample.
    pub fn ratios(&self, figures: &Figures) -> (f64, f64) {
        (
            adjusted(figures.hits as f64, figures.requests as f64, self.expected_requests),
            adjusted(figures.hit_bytes as f64, figures.requested_bytes as f64, self.expected_bytes),
        )
    }

    /// What a part `ratio` of the sample's requests is of the whole's; of their bytes, by bytes.
    pub fn of_whole(&self, ratio: f64, aim: Aim) -> f64 {
        let (all, expected) = match aim {
            Aim::Objects => (self.trace.requests().len() as f64, self.expected_requests),
            Aim::Bytes => (self.trace.requested_bytes() as f64, self.expected_bytes),
        };
        adjusted(ratio * all, all, expected)
    }
}

/// Requests that the sample has too few of, or too many, count as hits (SHARDS-adj).
fn adjusted(hits: f64, all: f64, expected: f64) -> f64 {
    ((hits + expected - all) / expected.max(1.0)).clamp(0.0, 1.0)
}

fn mix(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::{Policy, Replay, Synthetic};
    use super::*;

    #[test]
    fn a_sample_of_a_skewed_trace_is_near_the_whole_at_every_budget() {
        let trace = Synthetic::Zipf { exponent: 0.8 }.trace(200_000, 40_000, 3);
        let sampled = Sampled::of(&trace, 0.1, 1);
        assert!(sampled.trace.requests().len() < 60_000, "{}", sampled.trace.requests().len());
        for percent in [5, 20, 60] {
            let budget = trace.footprint_bytes() * percent / 100;
            let whole = Replay::new(&trace, budget).run(Policy::Lru);
            let part = Replay::new(&sampled.trace, sampled.budget(budget)).run(Policy::Lru);
            let (hits, bytes) = sampled.ratios(&part);
            assert!((hits - whole.hit_ratio()).abs() < 0.03, "{percent} %: {hits} of {}", whole.hit_ratio());
            assert!(
                (bytes - whole.byte_hit_ratio()).abs() < 0.04,
                "{percent} %: {bytes} of {}",
                whole.byte_hit_ratio()
            );
        }
    }

    #[test]
    fn a_rate_of_one_is_the_whole() {
        let trace = Synthetic::Zipf { exponent: 1.0 }.trace(5_000, 700, 9);
        let sampled = Sampled::of(&trace, 1.0, 7);
        assert_eq!((sampled.trace.requests(), sampled.budget(12_345)), (trace.requests(), 12_345));
        let figures = Replay::new(&trace, 1 << 20).run(Policy::Lru);
        let (hits, bytes) = sampled.ratios(&figures);
        assert!((hits - figures.hit_ratio()).abs() < 1e-9 && (bytes - figures.byte_hit_ratio()).abs() < 1e-9);
    }

    #[test]
    fn rates_are_read_and_refused() {
        assert_eq!(Sample::parse("auto").unwrap(), Sample::Auto);
        assert_eq!(Sample::parse("10%").unwrap(), Sample::Rate(0.1));
        for bad in ["0", "1.5", "NaN", "-1", "", "x%"] {
            assert!(Sample::parse(bad).unwrap_err().to_string().starts_with("sample: "), "{bad}");
        }
    }
}
