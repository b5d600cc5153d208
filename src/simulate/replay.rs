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
}

impl<'a> Replay<'a> {
    /// Of `trace` under `budget_bytes`.
    pub fn new(trace: &'a Trace, budget_bytes: u64) -> Self {
        Self { trace, budget_bytes }
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
        let mut victims = Vec::new();
        for (turn, place) in (1u32..).zip(self.trace.requests()) {
            let slot = &mut table.slots[*place as usize];
            figures.requests += 1;
            figures.requested_bytes += slot.size;
            if slot.usage != ABSENT {
                slot.usage = Usage::from_bits(slot.usage).used(table.tick).to_bits();
                figures.hits += 1;
                figures.hit_bytes += slot.size;
                continue;
            }
            table.tick = turn;
            let size = slot.size;
            if size > self.budget_bytes {
                figures.bypassed += 1;
                continue;
            }
            while table.charged_bytes + size > self.budget_bytes {
                victims.clear();
                policy.choose(table.charged_bytes + size - self.budget_bytes, None, &table, &mut victims);
                if !table.evict(policy, &victims, &mut figures) {
                    break;
                }
            }
            if table.charged_bytes + size <= self.budget_bytes {
                table.admit(policy, *place, self.trace);
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
struct Table<'a> {
    slots: Vec<Slot>,
    trace: &'a Trace,
    charged_bytes: u64,
    tick: u32,
}

struct Slot {
    /// A [`Usage`], or [`ABSENT`].
    usage: u64,
    size: u64,
}

impl<'a> Table<'a> {
    fn new(trace: &'a Trace) -> Self {
        let slots = trace.objects().iter().map(|object| Slot { usage: ABSENT, size: object.size }).collect();
        Self { slots, trace, charged_bytes: 0, tick: 0 }
    }

    fn admit(&mut self, policy: &mut dyn Eviction, place: u32, trace: &Trace) {
        let object = trace.objects()[place as usize];
        self.slots[place as usize].usage = Usage::new(self.tick).to_bits();
        self.charged_bytes += object.size;
        policy.admitted(&Admitted {
            id: id_of(place),
            weight: object.size,
            kind: object.kind,
            tick: self.tick,
            cost_us: if object.cost_us > 0.0 { object.cost_us } else { 1.0 },
            priority: Priority::Medium,
            speculative: false,
        });
    }

    /// Whether something was evicted.
    fn evict(&mut self, policy: &mut dyn Eviction, victims: &[AssetId], figures: &mut Figures) -> bool {
        let before = figures.evictions;
        for id in victims {
            let slot = place_of(*id).and_then(|place| self.slots.get_mut(place)).filter(|slot| slot.usage != ABSENT);
            let Some(slot) = slot else { continue };
            let last = Usage::from_bits(std::mem::replace(&mut slot.usage, ABSENT));
            self.charged_bytes -= slot.size;
            figures.evictions += 1;
            policy.removed(*id, Removal::Evicted, Some(last));
        }
        figures.evictions > before
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

fn id_of(place: u32) -> AssetId {
    let mut word = (u64::from(place) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    AssetId(word ^ (word >> 31))
}

fn place_of(id: AssetId) -> Option<usize> {
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
