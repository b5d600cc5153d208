//! What could have been hit by someone who knew the future.
//!
//! Two kinds of limit, and for each one by objects and one by bytes:
//!
//! * **reached**: a replay that evicts what is needed farthest ahead, and does not keep what is needed later than
//!   everything it holds. By bytes that is Belady's rule (IBM Systems Journal, 1966) with sizes; by objects each object's
//!   distance counts times its size, as libCacheSim's BeladySize does. With equal sizes this is the optimum; with
//!   different ones the optimum is NP-hard, and this is a strong heuristic that a real schedule reaches.
//! * **bound**: what nothing exceeds. Every interval between two requests for an object occupies its size times its
//!   length of the budget's bytes times the trace's length; the cheapest are taken until those are used up, the last in
//!   part. That is PFOO-L (Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object
//!   Sizes", POMACS 2018), loose where the budget is small.

use std::collections::BinaryHeap;

use serde::Serialize;

use super::replay::Figures;
use super::trace::Trace;

/// What limits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// As many hits as possible.
    Objects,
    /// As many bytes of hits as possible.
    Bytes,
}

/// The offline limits of one trace.
#[derive(Debug)]
pub struct Limits<'a> {
    trace: &'a Trace,
    /// For each request the number of the next for the same object; [`NEVER`] for the last.
    next: Vec<u32>,
}

/// After every request.
const NEVER: u32 = u32::MAX;

impl<'a> Limits<'a> {
    /// Of `trace`.
    pub fn new(trace: &'a Trace) -> Self {
        let requests = trace.requests();
        let mut next = vec![NEVER; requests.len()];
        let mut seen = vec![NEVER; trace.objects().len()];
        for (turn, place) in requests.iter().enumerate().rev() {
            next[turn] = std::mem::replace(&mut seen[*place as usize], turn as u32);
        }
        Self { trace, next }
    }

    /// What someone who knows the future reaches under `budget_bytes`.
    pub fn reached(&self, budget_bytes: u64, aim: Aim) -> Figures {
        let mut held = Held::new(self.trace, aim);
        let mut figures = Figures::default();
        for (now, (place, next)) in (0u32..).zip(self.trace.requests().iter().zip(&self.next)) {
            let size = self.trace.objects()[*place as usize].size;
            figures.requests += 1;
            figures.requested_bytes += size;
            if held.next[*place as usize] == now {
                figures.hits += 1;
                figures.hit_bytes += size;
                held.drop(*place);
            }
            if size > budget_bytes {
                figures.bypassed += 1;
                continue;
            }
            if *next == NEVER {
                continue;
            }
            held.keep(*place, *next, now);
            while held.bytes > budget_bytes && held.evict(now) {
                figures.evictions += 1;
            }
            figures.peak_bytes = figures.peak_bytes.max(held.bytes);
        }
        figures
    }

    /// What nothing exceeds under each of `budgets`: ratios from 0 to 1.
    pub fn bounds(&self, budgets: &[u64], aim: Aim) -> Vec<f64> {
        let requests = self.trace.requests();
        let size = |turn: usize| self.trace.objects()[requests[turn] as usize].size;
        // (what it costs for what it gains, its turn), the best first.
        let mut intervals: Vec<(u128, u32)> = (0u32..)
            .zip(&self.next)
            .filter(|(_, next)| **next != NEVER)
            .map(|(turn, next)| {
                let length = u128::from(next - turn);
                let cost = if aim == Aim::Objects { length * u128::from(size(turn as usize)) } else { length };
                (cost, turn)
            })
            .collect();
        intervals.sort_unstable();
        let all: u64 = if aim == Aim::Objects { requests.len() as u64 } else { self.trace.requested_bytes() };
        let under = |budget: &u64| {
            let mut room = u128::from(*budget) * requests.len() as u128;
            let mut gained = 0.0;
            for (_, turn) in &intervals {
                let (turn, weight) = (*turn as usize, size(*turn as usize));
                if weight > *budget {
                    continue;
                }
                let cost = u128::from(self.next[turn] - turn as u32) * u128::from(weight);
                let gain = if aim == Aim::Objects { 1.0 } else { weight as f64 };
                if cost > room {
                    gained += gain * room as f64 / cost as f64;
                    break;
                }
                room -= cost;
                gained += gain;
            }
            gained / all.max(1) as f64
        };
        budgets.iter().map(under).collect()
    }
}

/// What the one who knows the future holds.
struct Held<'a> {
    trace: &'a Trace,
    aim: Aim,
    /// When each object is needed next; [`NEVER`] when it is not held.
    next: Vec<u32>,
    bytes: u64,
    /// The class of each object.
    class_of: Vec<u16>,
    /// By class of size the objects held, what is needed last on top; entries of the past are left where they are.
    classes: Vec<BinaryHeap<(u32, u32)>>,
    /// Objects held of each class.
    held: Vec<usize>,
}

/// Classes of sizes per power of two: within one, an object counts as large as the others, an eighth off at most.
const STEPS: u32 = 8;

impl<'a> Held<'a> {
    fn new(trace: &'a Trace, aim: Aim) -> Self {
        let step = |size: u64| match aim {
            Aim::Bytes => 0,
            Aim::Objects => {
                let power = size.max(1).ilog2();
                power * STEPS + ((u128::from(size.max(1)) * u128::from(STEPS)) >> power) as u32 - STEPS
            }
        };
        let steps: Vec<u32> = trace.objects().iter().map(|object| step(object.size)).collect();
        // Only the classes that there are: each is looked at for every victim.
        let mut known = steps.clone();
        known.sort_unstable();
        known.dedup();
        let class_of = steps.iter().map(|step| known.partition_point(|other| other < step) as u16).collect();
        let (next, held) = (vec![NEVER; trace.objects().len()], vec![0; known.len()]);
        Self { trace, aim, next, bytes: 0, class_of, classes: vec![BinaryHeap::new(); known.len()], held }
    }

    fn size(&self, place: u32) -> u64 {
        self.trace.objects()[place as usize].size
    }

    fn class(&self, place: u32) -> usize {
        usize::from(self.class_of[place as usize])
    }

    fn keep(&mut self, place: u32, next: u32, now: u32) {
        let class = self.class(place);
        self.next[place as usize] = next;
        self.bytes += self.size(place);
        self.held[class] += 1;
        let heap = &mut self.classes[class];
        heap.push((next, place));
        if heap.len() > 2 * self.held[class] + 1024 {
            heap.retain(|(next, _)| *next > now);
        }
    }

    fn drop(&mut self, place: u32) {
        self.next[place as usize] = NEVER;
        self.bytes -= self.size(place);
        let class = self.class(place);
        self.held[class] -= 1;
    }

    /// Evicts what is worth least. Whether there was something.
    fn evict(&mut self, now: u32) -> bool {
        let mut worst: Option<(u128, u32)> = None;
        for class in 0..self.classes.len() {
            if self.held[class] == 0 {
                continue;
            }
            while let Some((next, place)) = self.classes[class].peek().copied() {
                if self.next[place as usize] != next {
                    self.classes[class].pop();
                    continue;
                }
                let weight = if self.aim == Aim::Objects { self.size(place) } else { 1 };
                let score = u128::from(next - now) * u128::from(weight);
                if worst.is_none_or(|(most, _)| score > most) {
                    worst = Some((score, place));
                }
                break;
            }
        }
        let Some((_, place)) = worst else { return false };
        let class = self.class(place);
        self.classes[class].pop();
        self.drop(place);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Policy, Replay};
    use super::*;

    fn trace(requests: &[(u64, u64)]) -> Trace {
        let text: String = requests.iter().map(|(id, size)| format!("0,{id},{size}\n")).collect();
        Trace::from_reader(text.as_bytes(), "t", None).unwrap()
    }

    /// The most that any schedule reaches, by trying all: keep or leave each object after each request.
    fn best(requests: &[(u64, u64)], budget: u64, aim: Aim) -> f64 {
        fn from(requests: &[(u64, u64)], at: usize, held: u32, budget: u64, aim: Aim) -> u64 {
            let Some((id, size)) = requests.get(at) else { return 0 };
            let bytes = |set: u32| {
                let size = |id: u64| requests.iter().find(|(known, _)| *known == id).map_or(0, |found| found.1);
                (0..6).filter(|id| set >> id & 1 == 1).map(size).sum::<u64>()
            };
            let gain = if held >> id & 1 == 0 {
                0
            } else if aim == Aim::Objects {
                1
            } else {
                *size
            };
            let may = held | 1 << id;
            // Every part of what could be held on from here.
            let mut most = 0;
            let mut part = may;
            loop {
                if bytes(part) <= budget {
                    most = most.max(from(requests, at + 1, part, budget, aim));
                }
                if part == 0 {
                    return gain + most;
                }
                part = (part - 1) & may;
            }
        }
        let all: u64 = requests.iter().map(|(_, size)| if aim == Aim::Objects { 1 } else { *size }).sum();
        from(requests, 0, 0, budget, aim) as f64 / all as f64
    }

    #[test]
    fn what_is_needed_farthest_ahead_goes_and_what_is_needed_never_is_not_kept() {
        // A cycle of three under two: two of each round's three cannot all hit, but one always can.
        let cycle: Vec<(u64, u64)> = (0..30).map(|turn| (turn % 3, 1)).collect();
        let trace = trace(&cycle);
        let limits = Limits::new(&trace);
        assert_eq!(limits.reached(2, Aim::Objects).hits, limits.reached(2, Aim::Bytes).hits);
        assert_eq!(limits.reached(2, Aim::Objects).hits, 18, "two thirds of 27 that could hit");
        assert_eq!(Replay::new(&trace, 2).run(Policy::Lru).hits, 0);
        assert_eq!(limits.reached(3, Aim::Bytes).hits, 27);
    }

    proptest! {
        // Every schedule is tried for each.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equal_sizes_reach_the_optimum_and_no_schedule_exceeds_the_bound(
            ids in proptest::collection::vec(0u64..5, 1..9), sizes in proptest::array::uniform5(1u64..4), budget in 1u64..7,
        ) {
            for equal in [true, false] {
                let weigh = |id: &u64| (*id, if equal { 1 } else { sizes[*id as usize] });
                let requests: Vec<(u64, u64)> = ids.iter().map(weigh).collect();
                let trace = trace(&requests);
                let limits = Limits::new(&trace);
                for aim in [Aim::Objects, Aim::Bytes] {
                    let figures = limits.reached(budget, aim);
                    let reached = if aim == Aim::Objects { figures.hit_ratio() } else { figures.byte_hit_ratio() };
                    let (optimum, bound) = (best(&requests, budget, aim), limits.bounds(&[budget], aim)[0]);
                    prop_assert!(figures.peak_bytes <= budget);
                    prop_assert!(reached <= optimum + 1e-9 && optimum <= bound + 1e-9, "{reached} {optimum} {bound}");
                    if equal {
                        prop_assert!((reached - optimum).abs() < 1e-9, "{reached} of {optimum}");
                    }
                }
            }
        }
    }
}
