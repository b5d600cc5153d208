//! W-TinyLFU: a window for what is new; behind it only what is asked for more often than what it would replace.
//!
//! Source: Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage
//! 2017; the window that finds its own size by climbing the hill of hit ratios: Einziger, Eytan, Friedman, Manes:
//! "Adaptive Software Cache Management", Middleware 2018, with the constants of Manes' Caffeine. Weighed in bytes.
//!
//! Eviction comes before admission here, so that nothing is refused: what leaves the window becomes a candidate, and at
//! the next choice either it goes or what is the oldest on probation, whichever was seen less often. How often is counted
//! by a sketch, which learns of admissions when they come and of hits when an asset is looked at.

use std::collections::VecDeque;

use super::lists::{At, Lists};
use super::seen::LastLook;
use super::sketch::{COUNT_MAX, Sketch};
use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionPolicy;
use crate::ids::{AssetId, AssetKind};

const WINDOW: usize = 0;
const PROBATION: usize = 1;
const PROTECTED: usize = 2;
/// The protected part of what is not in the window.
const PROTECTED_PART: f64 = 0.8;
/// Candidates that are remembered; older ones are on probation like others.
const CANDIDATES_MAX: usize = 64;
/// Protected assets that are looked at for one that becomes protected.
const TURNS_MAX: usize = 4;
/// Requests between two steps of the window, for each resident asset.
const SAMPLE_PER_RESIDENT: u32 = 10;
/// The least requests between two steps.
const SAMPLE_MIN: u32 = 1000;
/// The window's part at the beginning, at least and at most.
const PART: (f64, f64, f64) = (0.01, 0.005, 0.8);
/// The first step, what is left of it after each, and the change of the hit ratio that begins anew with the first.
const STEP: f64 = 0.0625;
const STEP_DECAY: f64 = 0.98;
const RESTART: f64 = 0.05;

/// See the module's words.
#[derive(Debug)]
pub struct TinyLfu {
    lists: Lists<LastLook, 3>,
    sketch: Sketch,
    candidates: VecDeque<AssetId>,
    climber: Climber,
}

/// Changes the window's part in the direction in which the hit ratio grows.
#[derive(Debug)]
struct Climber {
    part: f64,
    step: f64,
    /// The hit ratio of the sample before.
    ratio: f64,
    /// When the sample began, and the admissions since.
    since: Option<u32>,
    misses: u32,
}

impl Climber {
    fn new() -> Self {
        Self { part: PART.0, step: STEP, ratio: 0.0, since: None, misses: 0 }
    }

    /// A sample ends when there were enough requests.
    fn tick(&mut self, tick: u32, residents: usize) {
        let requests = tick.wrapping_sub(*self.since.get_or_insert(tick));
        let enough = SAMPLE_MIN.max((residents as u32).saturating_mul(SAMPLE_PER_RESIDENT));
        if requests < enough || requests > u32::MAX / 2 {
            return;
        }
        let ratio = 1.0 - f64::from(self.misses.min(requests)) / f64::from(requests);
        let change = ratio - self.ratio;
        let direction = if change < 0.0 { -self.step } else { self.step };
        self.part = (self.part + direction).clamp(PART.1, PART.2);
        self.step = if change.abs() >= RESTART { STEP.copysign(direction) } else { direction * STEP_DECAY };
        (self.ratio, self.since, self.misses) = (ratio, Some(tick), 0);
    }
}

impl Default for TinyLfu {
    fn default() -> Self {
        Self::new()
    }
}

impl TinyLfu {
    /// Nothing is known.
    pub fn new() -> Self {
        let (lists, candidates) = (Lists::default(), VecDeque::new());
        // The sketch's hash only has to be another one than that of the maps.
        Self { lists, sketch: Sketch::new(0x5eed_1f0f), candidates, climber: Climber::new() }
    }

    /// The bytes of the window, and of all.
    fn window_and_all(&self) -> (u64, u64) {
        let [window, probation, protected] = [WINDOW, PROBATION, PROTECTED].map(|part| self.lists.bytes(part, None));
        (window, window + probation + protected)
    }

    /// What is above the window's part goes on probation, as a candidate; what came last stays.
    fn narrow_window(&mut self, last: AssetId) {
        while let Some(at) = self.lists.oldest(WINDOW, None)
            && self.lists.id(at) != last
        {
            let (window, all) = self.window_and_all();
            if window as f64 <= all as f64 * self.climber.part {
                break;
            }
            self.lists.move_to(at, PROBATION);
            self.candidates.push_back(self.lists.id(at));
            if self.candidates.len() > CANDIDATES_MAX {
                self.candidates.pop_front();
            }
        }
    }

    /// Counts the uses since the last look; gives whether there were any.
    fn learn(&mut self, at: At, usage: Usage) -> bool {
        let uses = self.lists.data(at).uses_until(usage);
        if uses > 0 {
            self.sketch.add(self.lists.id(at), uses.min(COUNT_MAX));
        }
        uses > 0
    }

    /// Makes it protected; who is protected the longest above that part's size is on probation again.
    fn protect(&mut self, at: At, view: &dyn View) {
        self.lists.move_to(at, PROTECTED);
        for _ in 0..TURNS_MAX {
            let (window, all) = self.window_and_all();
            if self.lists.bytes(PROTECTED, None) as f64 <= (all - window) as f64 * PROTECTED_PART {
                break;
            }
            let Some(oldest) = self.lists.oldest(PROTECTED, None) else { break };
            // Whoever was used since begins anew; if all were, the next one that is protected goes on from there.
            let used = view.look(self.lists.id(oldest)).is_some_and(|seen| self.learn(oldest, seen.usage));
            self.lists.move_to(oldest, if used { PROTECTED } else { PROBATION });
        }
    }

    /// How this one stands: its weight if it may go, or else `None`, and it is where it belongs.
    fn judged(&mut self, at: At, view: &dyn View, held: &mut Vec<At>) -> Option<u64> {
        let id = self.lists.id(at);
        let Some(seen) = view.look(id) else {
            self.lists.remove(id);
            return None;
        };
        self.lists.set_weight(at, seen.weight);
        let used = self.learn(at, seen.usage);
        if seen.pinned {
            self.lists.unlink(at);
            held.push(at);
        } else if !used {
            return Some(seen.weight);
        } else if self.lists.segment(at) == PROBATION {
            self.protect(at, view);
        } else {
            self.lists.move_to(at, self.lists.segment(at));
        }
        None
    }

    /// The oldest that was not used: of those on probation, if there are any.
    fn victim(&mut self, kind: Option<AssetKind>, view: &dyn View, held: &mut Vec<At>) -> Option<(At, u64)> {
        loop {
            let oldest = [PROBATION, PROTECTED, WINDOW].into_iter().find_map(|part| self.lists.oldest(part, kind))?;
            if let Some(weight) = self.judged(oldest, view, held) {
                return Some((oldest, weight));
            }
        }
    }

    /// The candidate of this kind that waited the longest, and that was not used.
    fn candidate(&mut self, kind: Option<AssetKind>, view: &dyn View, held: &mut Vec<At>) -> Option<(At, u64)> {
        loop {
            let lists = &self.lists;
            let is_meant = |id: &AssetId| {
                let at = lists.find(*id);
                at.is_none_or(|at| kind.is_none_or(|kind| kind == lists.kind(at)))
            };
            let place = self.candidates.iter().position(is_meant)?;
            let at = self.candidates.remove(place).and_then(|id| self.lists.find(id));
            let Some(at) = at.filter(|at| self.lists.segment(*at) == PROBATION && self.lists.is_linked(*at)) else {
                continue;
            };
            if let Some(weight) = self.judged(at, view, held) {
                return Some((at, weight));
            }
        }
    }
}

impl Eviction for TinyLfu {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, weight, kind, tick, speculative, .. } = *asset;
        if let Some(at) = self.lists.find(id) {
            if self.lists.kind(at) == kind {
                *self.lists.data(at) = LastLook::new(tick);
                self.lists.set_weight(at, weight);
                return;
            }
            self.lists.remove(id);
        }
        if !speculative {
            // What nobody asked for was not seen, and is no miss.
            self.sketch.add(id, 1);
            self.climber.misses = self.climber.misses.saturating_add(1);
        }
        self.lists.insert(id, WINDOW, kind, weight, LastLook::new(tick));
        self.sketch.grow(self.lists.len());
        self.climber.tick(tick, self.lists.len());
        self.narrow_window(id);
    }

    fn removed(&mut self, id: AssetId, _why: Removal, last: Option<Usage>) {
        if let (Some(last), Some(at)) = (last, self.lists.find(id)) {
            self.learn(at, last);
        }
        self.lists.remove(id);
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        let mut freed_bytes = 0u64;
        let (mut victims, mut losers, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let mut rival = None;
        while freed_bytes < want_bytes {
            rival = rival.or_else(|| self.candidate(kind, view, &mut held));
            let Some((mut at, mut weight)) = self.victim(kind, view, &mut held) else { break };
            match rival.take() {
                // It was used, or is held, since it was looked at.
                Some((candidate, _)) if candidate == at || !self.lists.is_linked(candidate) => {}
                Some(contest) => {
                    let [new, old] = [contest.0, at].map(|at| self.sketch.count(self.lists.id(at)));
                    if new > old {
                        // It stays, and stands against the next one.
                        rival = Some(contest);
                    } else {
                        (at, weight) = contest;
                    }
                }
                None => {}
            }
            self.lists.unlink(at);
            if rival.is_some() {
                victims.push(at)
            } else {
                losers.push(at)
            }
            into.push(self.lists.id(at));
            freed_bytes = freed_bytes.saturating_add(weight);
        }
        victims.into_iter().rev().for_each(|at| self.lists.link_oldest(at));
        for at in losers.into_iter().chain(held) {
            self.lists.link_newest(at, self.lists.segment(at));
        }
    }

    fn report(&self) -> PolicyReport {
        let [window, probation, protected] =
            [WINDOW, PROBATION, PROTECTED].map(|segment| self.lists.bytes(segment, None) as f64);
        PolicyReport {
            name: EvictionPolicy::TinyLfu.name().to_owned(),
            residents: self.lists.len(),
            ghosts: 0,
            memory_bytes: self.lists.memory_bytes() + self.sketch.memory_bytes(),
            figures: vec![
                ("window, bytes".into(), window),
                ("probation, bytes".into(), probation),
                ("protected, bytes".into(), protected),
                ("window aimed at, percent".into(), self.climber.part * 100.0),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{KIND, World, conforms, hits, skewed};
    use super::*;

    conforms!(TinyLfu::new());

    #[test]
    fn what_was_seen_more_often_stays_and_what_was_used_is_protected() {
        let (mut policy, mut world) = (TinyLfu::new(), World::default());
        for id in 0..10 {
            world.admit(&mut policy, id, 10, KIND);
        }
        for _ in 0..3 {
            world.tick += 1;
            assert!((0..8).all(|id| world.hit(id)));
        }
        world.admit(&mut policy, 20, 10, KIND);
        assert_eq!(world.evict(&mut policy, 20, None), [8, 9], "all others were used");
        assert_eq!(policy.lists.bytes(PROTECTED, None), 80, "eight tenths of what is not in the window");
        world.admit(&mut policy, 21, 10, KIND);
        assert_eq!(world.evict(&mut policy, 10, None), [20], "a candidate that was seen once, against one seen often");
    }

    #[test]
    fn a_scan_leaves_what_is_used_alone() {
        let often = (0..60_000u64).map(|n| if n % 3 == 0 { 1_000_000 + n } else { n / 3 % 50 });
        let hits = hits(&mut TinyLfu::new(), 100, often);
        assert!(hits > 38_000, "{hits} of 40,000");
    }

    #[test]
    fn the_window_finds_the_size_at_which_most_is_hit() {
        let mut climber = Climber::new();
        climber.tick(u32::MAX - 5, 10);
        for sample in 1..300u32 {
            let ratio = 0.9 - (climber.part - 0.4).abs();
            climber.misses = ((1.0 - ratio) * 1000.0) as u32;
            climber.tick((u32::MAX - 5).wrapping_add(sample * 1000), 10);
        }
        assert!((0.3..0.5).contains(&climber.part), "{climber:?}");
    }

    #[test]
    fn it_keeps_more_of_a_skewed_load_than_lru() {
        let ours = hits(&mut TinyLfu::new(), 200, skewed(3, 20_000).take(100_000));
        let lru = hits(&mut super::super::Lru::new(), 200, skewed(3, 20_000).take(100_000));
        assert!(ours > lru + lru / 20, "{ours} against {lru}");
    }
}
