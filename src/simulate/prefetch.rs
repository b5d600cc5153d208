//! What prediction would have been worth: a replay in which an ensemble of experts prefetches.
//!
//! The ensemble is told what the runtime's predictor is told by default: of misses, and of first uses of what was
//! prefetched. What it names is admitted at once, room for it made by the policy as for a load. Objects are in the order
//! of their ids in the trace. A trace says nothing of dependencies, so that expert has nothing to say.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::replay::{Figures, Table, id_of, place_of};
use super::trace::Trace;
use crate::config::{EvictionConfig, EvictionPolicy, ExpertsConfig, PredictionConfig};
use crate::ids::AssetId;
use crate::policy::eviction;
use crate::policy::prediction::{Access, Ensemble, Outcome, Predicted, World};

/// Powers of two of microseconds that latencies are counted by; the last one takes what is longer.
pub const LATENCY_CLASSES: usize = 24;
/// A load without a cost of its own takes this long, and a byte of it as long as at 500 MB/s.
const LOAD_US: f64 = 100.0;
const BYTE_US: f64 = 0.002;
/// Between two requests, where a prefetch has time to come.
const GAP_US: f64 = 100.0;

/// Who prefetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Predictor {
    /// Nobody: what the others are measured by.
    None,
    /// The next in the order of ids.
    Sequential,
    /// Every so many in that order.
    Strided,
    /// What was used about the same time.
    Clustered,
    /// What followed the last few.
    Pattern,
    /// All of them, weighed by what they are worth.
    Ensemble,
}

impl Predictor {
    /// Everyone.
    pub const ALL: [Predictor; 6] = [
        Predictor::None,
        Predictor::Sequential,
        Predictor::Strided,
        Predictor::Clustered,
        Predictor::Pattern,
        Predictor::Ensemble,
    ];

    /// As `--predictors` names it.
    pub fn name(self) -> &'static str {
        match self {
            Predictor::None => "none",
            Predictor::Sequential => "sequential",
            Predictor::Strided => "strided",
            Predictor::Clustered => "clustered",
            Predictor::Pattern => "pattern",
            Predictor::Ensemble => "ensemble",
        }
    }

    fn config(self) -> PredictionConfig {
        let none = ExpertsConfig::none();
        let experts = match self {
            Predictor::None => none,
            Predictor::Sequential => ExpertsConfig { sequential: true, ..none },
            Predictor::Strided => ExpertsConfig { strided: true, ..none },
            Predictor::Clustered => ExpertsConfig { clustered: true, ..none },
            Predictor::Pattern => ExpertsConfig { pattern: true, ..none },
            Predictor::Ensemble => ExpertsConfig::default(),
        };
        PredictionConfig { experts, ..PredictionConfig::default() }
    }
}

impl FromStr for Predictor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|predictor| predictor.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|predictor| predictor.name()).collect();
            format!("'{text}' is no predictor; known are {}", names.join(", "))
        })
    }
}

/// What came of prefetching under a budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prefetched {
    /// Who.
    pub predictor: Predictor,
    /// The budget.
    pub budget_bytes: u64,
    /// Requests replayed.
    pub requests: u64,
    /// Requests that had to load.
    pub misses: u64,
    /// Objects prefetched.
    pub prefetched: u64,
    /// Bytes of those.
    pub prefetched_bytes: u64,
    /// Those asked for before they were evicted.
    pub used: u64,
    /// Those of them that were asked for before they would have come.
    pub late: u64,
    /// Those evicted before anybody asked.
    pub wasted: u64,
    /// Bytes of those.
    pub wasted_bytes: u64,
    /// Requests by latency: in memory, then up to 2, 4, 8 microseconds and so on. A load takes what the trace says, or
    /// 100 µs and its bytes at 500 MB/s; requests are 100 µs apart.
    pub latencies: [u64; LATENCY_CLASSES],
}

impl Prefetched {
    /// The share of ended prefetches that were used; `None` when none ended.
    pub fn precision(&self) -> Option<f64> {
        let ended = self.used + self.wasted;
        (ended > 0).then(|| self.used as f64 / ended as f64)
    }

    /// The share of what would have had to load that was prefetched.
    pub fn recall(&self) -> f64 {
        self.used as f64 / (self.used + self.misses).max(1) as f64
    }
}

/// Where things stand, as the experts see it.
struct Order {
    /// Places by the id that the trace gives.
    by_rank: Vec<u32>,
    rank_of: Vec<u32>,
}

impl Order {
    fn of(trace: &Trace) -> Self {
        let mut by_rank: Vec<u32> = (0..trace.objects().len() as u32).collect();
        by_rank.sort_unstable_by_key(|place| trace.objects()[*place as usize].id);
        let mut rank_of = vec![0; by_rank.len()];
        for (rank, place) in (0u32..).zip(&by_rank) {
            rank_of[*place as usize] = rank;
        }
        Self { by_rank, rank_of }
    }
}

struct Seen<'a, 'b> {
    order: &'a Order,
    table: &'a Table<'b>,
    trace: &'b Trace,
}

impl World for Seen<'_, '_> {
    fn rank(&self, id: AssetId) -> Option<u64> {
        self.order.rank_of.get(place_of(id)?).map(|rank| u64::from(*rank))
    }

    fn at(&self, rank: u64) -> Option<AssetId> {
        self.order.by_rank.get(usize::try_from(rank).ok()?).map(|place| id_of(*place))
    }

    fn dependencies(&self, _id: AssetId, _into: &mut Vec<AssetId>) {}

    fn bytes(&self, id: AssetId) -> Option<u64> {
        self.trace.objects().get(place_of(id)?).map(|object| object.size)
    }

    fn is_resident(&self, id: AssetId) -> bool {
        place_of(id).is_some_and(|place| self.table.has(place))
    }
}

/// Replays the first `requests_max` requests of `trace` under `budget_bytes` and `policy`, while `predictor` prefetches.
pub(super) fn replay(
    trace: &Trace,
    requests_max: usize,
    budget_bytes: u64,
    policy: EvictionPolicy,
    predictor: Predictor,
) -> Prefetched {
    let mut policy = eviction::build(&EvictionConfig { policy, ..EvictionConfig::default() });
    let config = predictor.config();
    let mut ensemble = Ensemble::new(&config);
    let order = Order::of(trace);
    let mut table = Table::new(trace);
    // The request at which each was prefetched, from 1; 0 for what somebody has asked for.
    let mut asked_at = vec![0u32; trace.objects().len()];
    let mut done = Prefetched {
        predictor,
        budget_bytes,
        requests: 0,
        misses: 0,
        prefetched: 0,
        prefetched_bytes: 0,
        used: 0,
        late: 0,
        wasted: 0,
        wasted_bytes: 0,
        latencies: [0; LATENCY_CLASSES],
    };
    let (mut predicted, mut evicted, mut figures) = (Vec::<Predicted>::new(), Vec::new(), Figures::default());
    for (turn, place) in (1u32..).zip(trace.requests().iter().take(requests_max)) {
        let at = *place as usize;
        let object = trace.objects()[at];
        let cost_us = if object.cost_us > 0.0 { f64::from(object.cost_us) } else { load_us(object.size) };
        done.requests += 1;
        let resident = table.has(at);
        let first_use = resident && asked_at[at] != 0;
        evicted.clear();
        let waits_us = if resident {
            table.hit(at);
            let lead_us = f64::from(turn - asked_at[at]) * GAP_US;
            if first_use { (cost_us - lead_us).max(0.0) } else { 0.0 }
        } else {
            done.misses += 1;
            table.tick = turn;
            if object.size <= budget_bytes
                && table.make_room(policy.as_mut(), object.size, budget_bytes, None, &mut figures, &mut evicted)
            {
                table.admit(policy.as_mut(), *place, false);
            }
            cost_us
        };
        if first_use {
            asked_at[at] = 0;
            done.used += 1;
            done.late += u64::from(waits_us > 0.0);
        }
        done.latencies[class(waits_us)] += 1;
        if predictor == Predictor::None || (resident && !first_use) {
            continue;
        }
        let now = Duration::from_micros(u64::from(turn) * GAP_US as u64);
        let access = Access {
            id: id_of(*place),
            bytes: object.size,
            kind: object.kind,
            resident,
            now,
            wall_seconds: now.as_secs(),
        };
        predicted.clear();
        ensemble.accessed(&access, &Seen { order: &order, table: &table, trace }, &mut predicted);
        for one in &predicted {
            let Some(place) = place_of(one.id).filter(|place| *place < asked_at.len()) else { continue };
            let size = trace.objects()[place].size;
            let fits = size <= budget_bytes.min(config.largest_bytes) && !table.has(place);
            if !fits || !table.make_room(policy.as_mut(), size, budget_bytes, None, &mut figures, &mut evicted) {
                ensemble.outcome(one.id, Outcome::Dropped);
                continue;
            }
            table.admit(policy.as_mut(), place as u32, true);
            asked_at[place] = turn;
            done.prefetched += 1;
            done.prefetched_bytes += size;
        }
        for id in &evicted {
            let Some(place) = place_of(*id).filter(|place| asked_at[*place] != 0 && !table.has(*place)) else {
                continue;
            };
            asked_at[place] = 0;
            done.wasted += 1;
            done.wasted_bytes += trace.objects()[place].size;
            ensemble.outcome(*id, Outcome::Wasted);
        }
    }
    done
}

fn load_us(bytes: u64) -> f64 {
    LOAD_US + bytes as f64 * BYTE_US
}

fn class(us: f64) -> usize {
    if us <= 0.0 { 0 } else { 1 + (us.max(1.0).log2() as usize).min(LATENCY_CLASSES - 2) }
}

#[cfg(test)]
mod tests {
    use super::super::Synthetic;
    use super::*;

    fn done(trace: &Trace, budget_bytes: u64, predictor: Predictor) -> Prefetched {
        let done = replay(trace, usize::MAX, budget_bytes, EvictionPolicy::Lru, predictor);
        assert_eq!(done.latencies.iter().sum::<u64>(), done.requests);
        assert!(done.used + done.wasted <= done.prefetched && done.late <= done.used);
        done
    }

    #[test]
    fn a_loop_that_lru_never_hits_is_prefetched_in_order() {
        let trace = Synthetic::Loop.trace(20_000, 1_000, 1);
        let budget = trace.footprint_bytes() / 10;
        let without = done(&trace, budget, Predictor::None);
        assert_eq!((without.misses, without.prefetched), (20_000, 0));
        let sequential = done(&trace, budget, Predictor::Sequential);
        assert!(sequential.misses < 10_000 && sequential.precision() > Some(0.9), "{sequential:?}");
        let ensemble = done(&trace, budget, Predictor::Ensemble);
        assert!(ensemble.misses < 10_000, "{ensemble:?}");
    }

    #[test]
    fn random_requests_are_hardly_prefetched() {
        let trace = Synthetic::Zipf { exponent: 0.0 }.trace(20_000, 5_000, 1);
        let ensemble = done(&trace, trace.footprint_bytes() / 10, Predictor::Ensemble);
        assert!(ensemble.wasted_bytes * 100 < trace.requested_bytes(), "{ensemble:?}");
    }

    #[test]
    fn predictors_are_known_by_name() {
        for predictor in Predictor::ALL {
            assert_eq!(predictor.name().parse(), Ok(predictor));
        }
        assert!("oracle".parse::<Predictor>().unwrap_err().contains("ensemble"));
    }
}
