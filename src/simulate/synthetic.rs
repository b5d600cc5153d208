//! Made-up traces of known kinds, the same for the same seed: for tests, benches, and machines without a real one.

use super::trace::{Gathering, Trace};
use crate::error::Error;
use crate::platform::random::{Random, SeededRandom};

/// A kind of made-up trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Synthetic {
    /// A few objects often, by Zipf's law.
    Zipf {
        /// How steep; 0 is even.
        exponent: f64,
    },
    /// Zipf's law whose favourites change over time.
    Drift,
    /// The same objects over and over: nothing that evicts the oldest ever hits.
    Loop,
    /// Zipf's law, and now and then many objects once each.
    Scans,
}

impl Synthetic {
    /// One of each.
    pub const ALL: [Synthetic; 4] =
        [Synthetic::Zipf { exponent: 0.9 }, Synthetic::Drift, Synthetic::Loop, Synthetic::Scans];

    /// What tables call it.
    pub fn name(self) -> String {
        match self {
            Synthetic::Zipf { exponent } => format!("zipf-{exponent}"),
            Synthetic::Drift => "drift".into(),
            Synthetic::Loop => "loop".into(),
            Synthetic::Scans => "scans".into(),
        }
    }

    /// `requests` for `objects`, at least 1 of each; sizes spread around 16 KiB, from 1 KiB to 1 MiB.
    pub fn trace(self, requests: usize, objects: usize, seed: u64) -> Trace {
        let (requests, objects) = (requests.max(1), objects.max(1));
        let random = SeededRandom::new(seed);
        let exponent = if let Synthetic::Zipf { exponent } = self { exponent } else { 0.9 };
        let sums = cumulated(objects, exponent);
        let mut gathering = Gathering::new(&self.name());
        let mut scan = 0..0u64;
        for turn in 0..requests {
            let rank = sums.partition_point(|sum| *sum < unit(random.next_u64())).min(objects - 1) as u64;
            let id = match self {
                Synthetic::Zipf { .. } => rank,
                // Every favourite is another one after a tenth of the requests.
                Synthetic::Drift => rank + (turn * objects / requests.div_ceil(10)) as u64 / 100 * 100,
                Synthetic::Loop => (turn % objects) as u64,
                Synthetic::Scans => {
                    if scan.is_empty() && turn % (requests / 20).max(1) == 0 {
                        let start = objects as u64 + turn as u64;
                        scan = start..start + (requests / 50) as u64;
                    }
                    scan.next().unwrap_or(rank)
                }
            };
            // An id below the bound and a size below its own: nothing to refuse.
            if gathering.request(id, size(id)).is_err() {
                break;
            }
        }
        gathering.finish().unwrap_or_else(|_: Error| Trace::default())
    }
}

/// The likelihood of a rank up to each.
fn cumulated(count: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    sums.iter_mut().for_each(|part| *part /= sum);
    sums
}

fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// A size of an object's own: its logarithm is the sum of four even dice.
fn size(id: u64) -> u64 {
    let dice = SeededRandom::new(id ^ 0x51_7e);
    let sum: f64 = (0..4).map(|_| unit(dice.next_u64())).sum();
    1u64 << 10 | 2f64.powf(10.0 + 2.5 * sum) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_kinds_differ() {
        for kind in Synthetic::ALL {
            let (one, again) = (kind.trace(3_000, 500, 7), kind.trace(3_000, 500, 7));
            assert_eq!((one.requests(), one.objects()), (again.requests(), again.objects()));
            assert_eq!(one.requests().len(), 3_000);
            assert!(one.objects().iter().all(|object| (1 << 10..=1 << 21).contains(&object.size)));
        }
        assert_eq!(Synthetic::Loop.trace(3_000, 500, 7).objects().len(), 500);
        assert!(Synthetic::Scans.trace(3_000, 500, 7).objects().len() > 900);
    }
}
