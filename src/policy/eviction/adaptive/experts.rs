//! Which rank to go by: experts, and a small simulated cache for each that shows which one does best.
//!
//! The simulation sees the requests for a part of the ids, chosen by their hash, and has that part of the bytes (SHARDS:
//! Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015). Misses are told to it as they happen, hits
//! when the policy comes across them. That the leader is not whoever did best by chance: it has to be
//! ahead by a margin before another takes over (as LeCaR and CACHEUS weigh experts by what their ghosts show; Vietri et
//! al., HotStorage 2018; Rodriguez et al., FAST 2021).

use std::collections::HashMap;

use super::super::Usage;
use super::model::{Features, Model, Past};
use crate::ids::{AssetId, Hashing};

/// A way of ranking: the lowest goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expert {
    /// By what was learned.
    #[default]
    Learned,
    /// By the last use alone.
    Recent,
    /// By the number of uses, as GDSF without its clock: what has not been used for long counts less.
    Frequent,
}

impl Expert {
    pub const ALL: [Expert; 3] = [Expert::Learned, Expert::Recent, Expert::Frequent];

    pub fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Recent => "recent",
            Self::Frequent => "frequent",
        }
    }

    /// The rank of an asset of these features, last used `age` ticks ago, each byte of which is worth so much.
    pub fn rank(self, model: &Model, horizon: f32, features: &Features, age: u32, worth: f32) -> f32 {
        match self {
            Self::Learned => model.foretell(features, horizon) * worth,
            Self::Recent => 1.0 / (1.0 + age as f32),
            Self::Frequent => f32::from(features.uses) * worth / (1.0 + age as f32 / (AGEING * horizon)),
        }
    }
}

/// Horizons without a use after which a frequency counts half.
const AGEING: f32 = 8.0;
/// Residents that the simulated caches have, at most; half of it when the part of the ids was made smaller.
const RESIDENTS_MAX: usize = 128;
/// Assets that are remembered for them.
const RECORDS_MAX: usize = 1024;
/// Looked at for one victim.
const LOOKS: usize = 8;
/// Requests of late that count.
const WINDOW: f32 = 4000.0;
/// Requests before the first change, and between changes.
const PATIENCE: u32 = 1000;
/// How far ahead of what was learned another expert must be: a part of its hits, and of all requests. A sample of a
/// hundred residents is off by that much by chance.
const MARGIN: f32 = 0.1;
const MARGIN_OF_ALL: f32 = 0.02;

/// An asset as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub id: AssetId,
    pub usage: Usage,
    pub past: Past,
    pub weight: u32,
    pub kind: u8,
    pub worth: f32,
}

/// What is remembered of it, and which experts have it in their caches.
#[derive(Clone, Copy, Debug)]
struct Record {
    seen: Sighting,
    /// A bit for each expert.
    held_by: u8,
}

/// What ranks go by.
pub(super) struct Now<'a> {
    pub model: &'a Model,
    pub horizon: f32,
    pub tick: u32,
    pub random: u64,
}

/// The simulated caches.
#[derive(Debug, Default)]
pub(super) struct Experts {
    leader: Expert,
    records: Vec<Record>,
    at: HashMap<AssetId, u32, Hashing>,
    /// Of the ids, those whose hash ends in so many zeros take part.
    zeros: u32,
    budget_bytes: u64,
    used_bytes: [u64; Expert::ALL.len()],
    /// The worth of their hits, of the worth of the requests, of late.
    hits: [f32; Expert::ALL.len()],
    worth: f32,
    /// Requests since the last change.
    patience: u32,
    pub requests: u64,
    pub changes: u64,
}

impl Experts {
    /// The one to go by.
    pub fn leader(&self) -> Expert {
        self.leader
    }

    /// Hits of each, as a part of the requests of late.
    pub fn ratios(&self) -> [f32; Expert::ALL.len()] {
        self.hits.map(|hits| hits / self.worth.max(f32::MIN_POSITIVE))
    }

    /// Whether requests for it are simulated.
    pub fn watches(&self, id: AssetId) -> bool {
        let mixed = (id.0 ^ id.0 >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 20).trailing_zeros() >= self.zeros
    }

    /// The real cache has so many residents of so many bytes: the simulated ones have their part of it.
    pub fn resize(&mut self, residents: usize, bytes: u64) {
        if residents >> self.zeros > RESIDENTS_MAX {
            while residents >> self.zeros > RESIDENTS_MAX / 2 {
                self.zeros += 1;
            }
            let mut records = std::mem::take(&mut self.records);
            records.retain(|record| self.watches(record.seen.id));
            (self.at, self.used_bytes) = (HashMap::default(), Default::default());
            for record in records {
                self.at.insert(record.seen.id, self.records.len() as u32);
                self.records.push(record);
                for (expert, used_bytes) in self.used_bytes.iter_mut().enumerate() {
                    *used_bytes += if record.held_by >> expert & 1 == 1 { u64::from(record.seen.weight) } else { 0 };
                }
            }
        }
        self.budget_bytes = bytes >> self.zeros;
    }

    /// It was asked for and not there: it is as this says now. Whether another expert leads from now on.
    pub fn missed(&mut self, sighting: Sighting, now: &Now<'_>) -> bool {
        self.watches(sighting.id) && self.asked(sighting, 1, now)
    }

    /// It was looked at and is there: whether it was asked for since it was seen last, only its usage tells.
    pub fn looked(&mut self, sighting: Sighting, now: &Now<'_>) -> bool {
        if !self.watches(sighting.id) {
            return false;
        }
        let Some(&at) = self.at.get(&sighting.id) else {
            // What it did from now on counts.
            self.record(sighting, &mut { now.random });
            return false;
        };
        let times = sighting.usage.uses().saturating_sub(self.records[at as usize].seen.usage.uses());
        times > 0 && self.asked(sighting, times, now)
    }

    fn asked(&mut self, sighting: Sighting, times: u16, now: &Now<'_>) -> bool {
        let mut random = now.random;
        let at = self.record(sighting, &mut random);
        let Record { seen: Sighting { weight, worth, .. }, held_by } = self.records[at];
        let (value, times) = (worth * weight as f32, f32::from(times.min(64)));
        let keep = (-times / WINDOW).exp();
        self.worth = self.worth * keep + value * times;
        for (index, expert) in Expert::ALL.into_iter().enumerate() {
            let held = held_by >> index & 1 == 1;
            let fits = u64::from(weight) <= self.budget_bytes;
            // After the first of several it is there.
            let hits = if held {
                times
            } else if fits {
                times - 1.0
            } else {
                0.0
            };
            self.hits[index] = self.hits[index] * keep + value * hits;
            if held || !fits {
                continue;
            }
            while self.used_bytes[index] + u64::from(weight) > self.budget_bytes
                && let Some(victim) = self.victim(index, expert, now, &mut random)
            {
                let record = &mut self.records[victim];
                record.held_by &= !(1 << index);
                self.used_bytes[index] -= u64::from(record.seen.weight);
            }
            self.records[at].held_by |= 1 << index;
            self.used_bytes[index] += u64::from(weight);
        }
        self.requests += 1;
        self.patience = self.patience.saturating_add(1);
        self.elect()
    }

    /// Where its record is, brought up to date.
    fn record(&mut self, sighting: Sighting, random: &mut u64) -> usize {
        if let Some(&at) = self.at.get(&sighting.id) {
            let record = &mut self.records[at as usize];
            for (expert, used_bytes) in self.used_bytes.iter_mut().enumerate() {
                if record.held_by >> expert & 1 == 1 {
                    *used_bytes = *used_bytes - u64::from(record.seen.weight) + u64::from(sighting.weight);
                }
            }
            record.seen = sighting;
            return at as usize;
        }
        let fresh = Record { seen: sighting, held_by: 0 };
        let at = if self.records.len() < RECORDS_MAX {
            self.records.push(fresh);
            self.records.len() - 1
        } else {
            // One that nobody holds, if a few tries find one.
            let tried = (0..LOOKS).map(|_| (next(random) % RECORDS_MAX as u64) as usize);
            let at = tried.min_by_key(|at| self.records[*at].held_by.count_ones()).unwrap_or(0);
            let old = std::mem::replace(&mut self.records[at], fresh);
            for (expert, used_bytes) in self.used_bytes.iter_mut().enumerate() {
                *used_bytes -= if old.held_by >> expert & 1 == 1 { u64::from(old.seen.weight) } else { 0 };
            }
            self.at.remove(&old.seen.id);
            at
        };
        self.at.insert(sighting.id, at as u32);
        at
    }

    /// What the expert would evict of what it holds, among a few.
    fn victim(&self, index: usize, expert: Expert, now: &Now<'_>, random: &mut u64) -> Option<usize> {
        let records = self.records.len();
        let start = (next(random) % records.max(1) as u64) as usize;
        let held = (0..records).map(|step| (start + step) % records);
        let held = held.filter(|at| self.records[*at].held_by >> index & 1 == 1).take(LOOKS);
        let ranked = held.map(|at| {
            let Sighting { usage, past, weight, kind, worth, .. } = self.records[at].seen;
            let features = Features::of(past, usage, weight, kind, now.tick);
            let age = now.tick.wrapping_sub(usage.tick());
            (expert.rank(now.model, now.horizon, &features, age, worth), at)
        });
        ranked.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, at)| at)
    }

    /// Whether another one leads from now on.
    fn elect(&mut self) -> bool {
        if self.patience < PATIENCE {
            return false;
        }
        let ratios = self.ratios();
        let mut best = self.leader;
        for expert in Expert::ALL {
            if ratios[expert as usize] > ratios[best as usize] {
                best = expert;
            }
        }
        let learned = ratios[Expert::Learned as usize];
        if best != Expert::Learned && ratios[best as usize] <= learned * (1.0 + MARGIN) + MARGIN_OF_ALL {
            // Not by that much: what was learned is as good, and gets better.
            best = Expert::Learned;
        }
        if best == self.leader {
            return false;
        }
        (self.leader, self.patience) = (best, 0);
        self.changes += 1;
        true
    }

    pub fn memory_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.at.capacity() * (size_of::<(AssetId, u32)>() + 1)
    }
}

/// The next random number (xorshift).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(experts: &mut Experts, model: &Model, id: u64, tick: u32, past: Past) -> bool {
        let usage = Usage::new(tick);
        let sighting = Sighting { id: AssetId(id), usage, past, weight: 10, kind: 0, worth: 0.1 };
        let now = Now { model, horizon: 100.0, tick, random: u64::from(tick) * 2 + 1 };
        experts.missed(sighting, &now)
    }

    #[test]
    fn who_does_better_leads_after_a_while_and_stays() {
        let (mut experts, mut model) = (Experts::default(), Model::new());
        experts.resize(100, 1000);
        // What was learned is wrong: it says that what is asked for often never comes back.
        for round in 0..12_000u32 {
            let (age, uses) = ((round / 2 % 96) as u8, if round % 2 == 0 { 1 } else { 100 });
            let features = Features { uses, age, size: super::super::model::level(10), ..Features::default() };
            model.learn(&features, 100.0, if uses > 1 { 0.0 } else { 1.0 });
        }
        let mut random = 5;
        for tick in 0..20_000u32 {
            let often = tick % 2 == 0;
            let id = if often { next(&mut random) % 60 } else { 1000 + u64::from(tick) };
            ask(&mut experts, &model, id, tick, Past { uses: if often { 100 } else { 1 }, gaps: [0; 2] });
        }
        let ratios = experts.ratios();
        assert_eq!(experts.leader(), Expert::Frequent, "{ratios:?}");
        assert!(ratios[Expert::Frequent as usize] > 0.4, "{ratios:?}");
        assert!(experts.changes <= 3, "{}", experts.changes);
    }

    #[test]
    fn simulated_caches_stay_small_and_within_their_part_of_the_bytes() {
        let (mut experts, model) = (Experts::default(), Model::new());
        experts.resize(100, 1000);
        let mut random = 5;
        for tick in 0..50_000u32 {
            if tick == 20_000 {
                experts.resize(1_000_000, 10_000_000);
            }
            ask(&mut experts, &model, next(&mut random) % 4_000_000, tick, Past::default());
            let Experts { used_bytes, budget_bytes, .. } = &experts;
            assert!(tick > 20_000 || used_bytes.iter().all(|used| used <= budget_bytes), "{used_bytes:?}");
        }
        assert!(experts.records.len() <= RECORDS_MAX && experts.at.len() == experts.records.len());
        let held = |expert: usize| experts.records.iter().filter(|record| record.held_by >> expert & 1 == 1).count();
        for expert in 0..Expert::ALL.len() {
            assert_eq!(experts.used_bytes[expert], 10 * held(expert) as u64);
        }
        let part = (0..100_000).filter(|id| experts.watches(AssetId(*id))).count();
        assert!(part > 0 && part < 100_000 / 1000, "{part}");
    }
}
