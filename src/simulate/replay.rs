//! One policy, one budget, one trace: what would have been hit.
//!
//! The policy is driven as the runtime drives it. A hit leaves one word beside the object and tells the policy nothing.
//! A miss advances the tick to the number of its request, makes room first, then admits. An object that is larger than
//! the budget passes by.

use serde::Serialize;

use super::trace::Trace;
use crate::config::{EvictionConfig, EvictionPolicy};
use crate::ids::{AssetId, Priority};
use crate::platform::clock::{Clock, SystemClock};
use crate::policy::eviction::{self, Admitted, Eviction, Removal, Seen, Usage, View};

/// What came of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Requests replayed.
    pub requests: u64,
    /// Those for what was resident.
    pub hits: u64,
    /// Bytes of all requests.
    pub requested_bytes: u64,
    /// Bytes of the hits.
    pub hit_bytes: u64,
    /// Objects evicted.
    pub evictions: u64,
    /// Requests for objects larger than the budget.
    pub bypassed: u64,
    /// Requests for what the policy would not keep at the cost of its victims; none unless [`Replay::refusing`].
    pub refused: u64,
    /// The most that was charged at once.
    pub peak_bytes: u64,
    /// Nanoseconds per request, policy and table together.
    pub ns_per_request: f64,
}

impl Figures {
    /// Hits of requests, from 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Bytes hit of bytes requested, from 0 to 1.
    pub fn byte_hit_ratio(&self) -> f64 {
        self.hit_bytes as f64 / self.requested_bytes.max(1) as f64
    }
}

/// A replay of a trace under a budget.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    trace: &'a Trace,
    budget_bytes: u64,
    refusing: bool,
}

impl<'a> Replay<'a> {
    /// Of `trace` under `budget_bytes`.
    pub fn new(trace: &'a Trace, budget_bytes: u64) -> Self {
        Self { trace, budget_bytes, refusing: false }
    }

    /// The same where the policy may let an object pass by that is not worth its victims, as caches do which hand values
    /// out of memory that is not theirs. Only the adaptive policy does.
    #[must_use]
    pub fn refusing(self) -> Self {
        Self { refusing: true, ..self }
    }

    /// What comes of it under `policy`.
    pub fn run(&self, policy: EvictionPolicy) -> Figures {
        self.run_as(&EvictionConfig { policy, ..EvictionConfig::default() })
    }

    /// What comes of it under a policy with settings of its own.
    pub fn run_as(&self, config: &EvictionConfig) -> Figures {
        self.run_with(eviction::build(config).as_mut())
    }

    /// What comes of it under a policy that was made elsewhere.
    fn run_with(&self, policy: &mut dyn Eviction) -> Figures {
        let clock = SystemClock;
        let began = clock.now();
        let mut table = Table::new(self.trace);
        let mut figures = Figures::default();
        let mut evicted = Vec::new();
        for (turn, place) in (1u32..).zip(self.trace.requests()) {
            let at = *place as usize;
            let size = table.slots[at].size;
            figures.requests += 1;
            figures.requested_bytes += size;
            if table.has(at) {
                table.hit(at);
                figures.hits += 1;
                figures.hit_bytes += size;
                continue;
            }
            table.tick = turn;
            if size > self.budget_bytes {
                figures.bypassed += 1;
                continue;
            }
            evicted.clear();
            let arriving = self.refusing.then(|| table.arriving(*place, false));
            if table.make_room(policy, size, self.budget_bytes, arriving, &mut figures, &mut evicted) {
                table.admit(policy, *place, false);
                figures.peak_bytes = figures.peak_bytes.max(table.charged_bytes);
            }
        }
        let took = clock.now().saturating_duration_since(began);
        figures.ns_per_request = took.as_nanos() as f64 / figures.requests.max(1) as f64;
        figures
    }
}

/// No usage has these bits: no gap is that long.
const ABSENT: u64 = u64::MAX;

/// What is resident: an array, since objects are numbered densely.
pub(super) struct Table<'a> {
    slots: Vec<Slot>,
    trace: &'a Trace,
    charged_bytes: u64,
    /// The number of the request that missed last.
    pub tick: u32,
    victims: Vec<AssetId>,
}

struct Slot {
    /// A [`Usage`], or [`ABSENT`].
    usage: u64,
    size: u64,
}

impl<'a> Table<'a> {
    pub fn new(trace: &'a Trace) -> Self {
        let slots = trace.objects().iter().map(|object| Slot { usage: ABSENT, size: object.size }).collect();
        Self { slots, trace, charged_bytes: 0, tick: 0, victims: Vec::new() }
    }

    pub fn has(&self, place: usize) -> bool {
        self.slots[place].usage != ABSENT
    }

    /// A hit on what is there.
    pub fn hit(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.usage = Usage::from_bits(slot.usage).used(self.tick).to_bits();
    }

    /// Evicts until `size` more bytes fit, and appends what went. Whether they fit now. `arriving` is what they are for, if
    /// the policy may refuse it.
    pub fn make_room(
        &mut self,
        policy: &mut dyn Eviction,
        size: u64,
        budget_bytes: u64,
        arriving: Option<Admitted>,
        figures: &mut Figures,
        evicted: &mut Vec<AssetId>,
    ) -> bool {
        while self.charged_bytes + size > budget_bytes {
            let mut victims = std::mem::take(&mut self.victims);
            victims.clear();
            policy.choose(self.charged_bytes + size - budget_bytes, None, self, &mut victims);
            if arriving.is_some_and(|arriving| !policy.keeps(&arriving, &victims, self)) {
                figures.refused += 1;
                self.victims = victims;
                return false;
            }
            let before = figures.evictions;
            for id in &victims {
                let slot = place_of(*id).and_then(|place| self.slots.get_mut(place));
                let Some(slot) = slot.filter(|slot| slot.usage != ABSENT) else { continue };
                let last = Usage::from_bits(std::mem::replace(&mut slot.usage, ABSENT));
                self.charged_bytes -= slot.size;
                figures.evictions += 1;
                policy.removed(*id, Removal::Evicted, Some(last));
                evicted.push(*id);
            }
            self.victims = victims;
            if figures.evictions == before {
                return false;
            }
        }
        true
    }

    /// For which there is room.
    pub fn admit(&mut self, policy: &mut dyn Eviction, place: u32, speculative: bool) {
        let arriving = self.arriving(place, speculative);
        self.slots[place as usize].usage = Usage::new(self.tick).to_bits();
        self.charged_bytes += arriving.weight;
        policy.admitted(&arriving);
    }

    fn arriving(&self, place: u32, speculative: bool) -> Admitted {
        let object = self.trace.objects()[place as usize];
        Admitted {
            id: id_of(place),
            weight: object.size,
            kind: object.kind,
            tick: self.tick,
            cost_us: if object.cost_us > 0.0 { object.cost_us } else { 1.0 },
            priority: if speculative { Priority::Low } else { Priority::Medium },
            speculative,
        }
    }
}

impl View for Table<'_> {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let place = place_of(id)?;
        let slot = self.slots.get(place).filter(|slot| slot.usage != ABSENT)?;
        let kind = self.trace.objects()[place].kind;
        let usage = Usage::from_bits(slot.usage);
        Some(Seen { usage, weight: slot.size, kind, pinned: false, distance: None })
    }

    fn tick(&self) -> u32 {
        self.tick
    }
}

// Ids in the runtime are bits of a hash, and a policy may rely on that. So are these: a permutation of the places that
// can be turned back without a table (the finalizer of splitmix64; Steele, Lea, Flood, 2014).

pub(super) fn id_of(place: u32) -> AssetId {
    let mut word = (u64::from(place) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    AssetId(word ^ (word >> 31))
}

pub(super) fn place_of(id: AssetId) -> Option<usize> {
    let mut word = id.0;
    word = (word ^ (word >> 31) ^ (word >> 62)).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    word = (word ^ (word >> 27) ^ (word >> 54)).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    word = (word ^ (word >> 30) ^ (word >> 60)).wrapping_mul(inverse(0x9e37_79b9_7f4a_7c15));
    usize::try_from(word.checked_sub(1)?).ok()
}

/// What `odd` times this is 1, by Newton's method.
const fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    let mut step = 0;
    while step < 5 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
        step += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Policy;
    use super::*;

    fn trace(requests: &[(u64, u64)]) -> Trace {
        let text: String = requests.iter().map(|(id, size)| format!("0,{id},{size}\n")).collect();
        Trace::from_reader(text.as_bytes(), "t", None).unwrap()
    }

    /// LRU by the book, over ticks as the runtime has them: (hits, bytes of hits, evictions).
    fn by_the_book(requests: &[(u64, u64)], budget: u64) -> (u64, u64, u64) {
        // (tick of the last use, number of the admission, id, size)
        let (mut held, mut figures, mut tick) = (Vec::<(usize, usize, u64, u64)>::new(), (0, 0, 0), 0);
        for (turn, (id, size)) in requests.iter().enumerate() {
            if let Some(entry) = held.iter_mut().find(|entry| entry.2 == *id) {
                entry.0 = tick;
                figures = (figures.0 + 1, figures.1 + size, figures.2);
                continue;
            }
            tick = turn + 1;
            if *size <= budget {
                while held.iter().map(|entry| entry.3).sum::<u64>() + size > budget {
                    let oldest = held.iter().enumerate().min_by_key(|(_, entry)| **entry).unwrap().0;
                    held.remove(oldest);
                    figures.2 += 1;
                }
                held.push((tick, turn, *id, *size));
            }
        }
        figures
    }

    #[test]
    fn a_budget_that_holds_everything_misses_each_object_once() {
        let figures = Replay::new(&trace(&[(1, 5), (2, 5), (1, 5), (2, 5), (3, 90)]), 100).run(Policy::Lru);
        assert_eq!((figures.hits, figures.requests, figures.evictions, figures.peak_bytes), (2, 5, 0, 100));
        assert!((figures.hit_ratio() - 0.4).abs() < 1e-9 && (figures.byte_hit_ratio() - 10.0 / 110.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_larger_than_the_budget_passes_by() {
        let figures = Replay::new(&trace(&[(1, 5), (2, 50), (1, 5), (2, 50)]), 10).run(Policy::Lru);
        assert_eq!((figures.hits, figures.bypassed, figures.evictions), (1, 2, 0));
    }

    proptest! {
        #[test]
        fn ids_are_turned_back(place in any::<u32>()) {
            prop_assert_eq!(place_of(id_of(place)), Some(place as usize));
        }

        #[test]
        fn lru_is_the_textbooks(ids in proptest::collection::vec(0u64..20, 1..300), budget in 5u64..40) {
            let requests: Vec<(u64, u64)> = ids.into_iter().map(|id| (id, 1 + id * 7 % 5)).collect();
            let figures = Replay::new(&trace(&requests), budget).run(Policy::Lru);
            let expected = by_the_book(&requests, budget);
            prop_assert_eq!((figures.hits, figures.hit_bytes, figures.evictions), expected);
            prop_assert!(figures.peak_bytes <= budget);
        }
    }
}
