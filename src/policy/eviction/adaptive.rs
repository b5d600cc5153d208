//! The default: what is least likely to be asked for again soon, for its bytes and for what loading it again costs.
//!
//! It learns how soon assets come back from what they did so far (`model.rs`), and evicts the lowest rank among those it
//! looked at: a few that its hand passes at each choice, the latest arrivals, and the worst of those seen before, which
//! it keeps for the next choice. Sampling instead of a queue is what Redis does; the kept worst, too (its `evict.c`).
//! What was evicted leaves a ghost (`history.rs`) so that it brings its past along when it comes back.
//!
//! An asset's rank is `discounted time to the next use * worth`, and its worth per byte follows from what is to be had:
//! most hits (`1 / size`), most bytes from hits (the same for every byte), or both: the sum of the two, each as part of
//! all requests, is largest with `1 / size + 1 / mean size`. Loading that costs more than is usual for its size
//! counts as that much more.

mod costs;
mod experts;
mod history;
mod model;
mod pace;
mod samples;

use std::collections::HashMap;

use self::costs::Costs;
use self::experts::{Expert, Experts, Now, Sighting};
use self::history::{Ghost, History};
use self::model::{Features, Model, Past, level};
use self::pace::Pace;
use self::samples::{Sample, Samples, Ticket};
use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionObjective;
use crate::ids::{AssetId, AssetKind, Hashing};

/// Residents that the hand passes at each choice, and for each further victim of it.
const LOOKS_FIRST: usize = 8;
const LOOKS_MORE: usize = 4;
/// The worst that are kept from one choice to the next.
const POOL: usize = 32;
/// Samples taken at one choice, at most.
const SAMPLES_PER_CHOICE: f32 = 6.0;
/// The part of the horizon after which a sample that was not used teaches what the model says of it then.
const STEP_OF_HORIZON: f32 = 0.1;
/// The shortest time of that kind, in ticks.
const STEP_MIN: f32 = 64.0;
/// How much more an arrival's rank may be below that of its victims before it is not worth them.
const REFUSAL: f32 = 1.5;
/// What bytes count for beside objects when both do.
const BALANCE: f32 = 0.9;

/// A resident asset.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: AssetId,
    /// What a use of it is worth, for each byte.
    worth: f32,
    weight: u32,
    /// The choice that named it last.
    named: u32,
    /// The sample that waits for it.
    waits: Option<Ticket>,
    past: Past,
}

/// One that may be the next victim, with the rank that it had when it was looked at.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    rank: f32,
    id: AssetId,
    /// It was not looked at since it arrived.
    new: bool,
}

/// The residents of one kind.
#[derive(Debug, Default)]
struct Shelf {
    entries: Vec<Entry>,
    /// The hand: where it looks next.
    hand: usize,
    /// Passed by the hand in this choice.
    passed: usize,
    pool: Vec<Candidate>,
}

impl Shelf {
    /// The next one that the hand passes, unless it passed all.
    fn pass(&mut self) -> Option<usize> {
        if self.passed >= self.entries.len() {
            return None;
        }
        self.passed += 1;
        self.hand = if self.hand + 1 >= self.entries.len() { 0 } else { self.hand + 1 };
        Some(self.hand)
    }
}

/// The adaptive policy.
#[derive(Debug)]
pub struct Adaptive {
    objective: EvictionObjective,
    shelves: [Shelf; AssetKind::ALL.len()],
    /// Where each resident is: its kind's number and its place there.
    at: HashMap<AssetId, (u8, u32), Hashing>,
    history: History,
    samples: Samples,
    model: Model,
    pace: Pace,
    costs: Costs,
    experts: Experts,
    /// Bytes that are resident.
    bytes: u64,
    choices: u32,
    refusals: u64,
    /// Samples that may be taken now; grows with each choice.
    credit: f32,
    random: u64,
}

impl Adaptive {
    /// Nothing is known; the same seed decides the same.
    pub fn new(objective: EvictionObjective, seed: u64) -> Self {
        Self {
            objective,
            shelves: Default::default(),
            at: HashMap::default(),
            history: History::default(),
            samples: Samples::default(),
            model: Model::new(),
            pace: Pace::default(),
            costs: Costs::default(),
            experts: Experts::default(),
            bytes: 0,
            choices: 0,
            refusals: 0,
            credit: 0.0,
            // Never zero, which would stay zero.
            random: seed ^ 0x9e37_79b9_7f4a_7c15 | 1,
        }
    }

    /// A random number (xorshift: Marsaglia, "Xorshift RNGs", 2003).
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn horizon(&self) -> f32 {
        self.pace.turnover(self.at.len())
    }

    /// What a use is worth for each byte of an asset of this weight.
    fn worth(&self, weight: u32, cost_ratio: f32) -> f32 {
        let (by_objects, by_bytes) = (1.0 / weight.max(1) as f32, 1.0 / self.costs.mean_weight.max(1.0));
        let worth = match self.objective {
            EvictionObjective::Objects => by_objects,
            EvictionObjective::Balanced => by_objects + BALANCE * by_bytes,
            EvictionObjective::Bytes => by_bytes,
        };
        worth * cost_ratio
    }

    /// An entry for an asset that arrives, with what is remembered of it.
    fn arriving(&self, asset: &Admitted, ghost: Option<&Ghost>) -> Entry {
        let asked = u8::from(!asset.speculative);
        let past = match ghost {
            Some(ghost) => Past {
                uses: ghost.past.uses.saturating_add(asked),
                gaps: [level(asset.tick.wrapping_sub(ghost.tick)), ghost.past.gaps[0]],
            },
            None => Past { uses: asked, gaps: [0; 2] },
        };
        let weight = u32::try_from(asset.weight).unwrap_or(u32::MAX);
        let worth = self.worth(weight, self.costs.ratio(weight, asset.cost_us));
        Entry { id: asset.id, worth, weight, named: 0, waits: None, past }
    }

    fn remove(&mut self, id: AssetId) -> Option<(u8, Entry)> {
        let (kind, place) = self.at.remove(&id)?;
        let entries = &mut self.shelves[usize::from(kind)].entries;
        let entry = entries.swap_remove(place as usize);
        self.bytes -= u64::from(entry.weight);
        if let Some(moved) = entries.get(place as usize) {
            self.at.insert(moved.id, (kind, place));
        }
        Some((kind, entry))
    }

    /// Tells the experts of an asset that was asked for and missing, or was looked at, where they watch it.
    fn simulate(&mut self, entry: &Entry, kind: u8, usage: Usage, now: u32, missed: bool) {
        if !self.experts.watches(entry.id) {
            return;
        }
        let (random, horizon) = (self.random(), self.horizon());
        let now = Now { model: &self.model, horizon, tick: now, random };
        let Entry { id, past, weight, worth, .. } = *entry;
        let sighting = Sighting { id, usage, past, weight, kind, worth };
        let changed = match missed {
            true => self.experts.missed(sighting, &now),
            false => self.experts.looked(sighting, &now),
        };
        if changed {
            // Ranks of different experts do not compare.
            let all = self.shelves.iter_mut().flat_map(|shelf| &mut shelf.pool);
            all.for_each(|candidate| candidate.new = true);
        }
    }

    /// Takes a sample, if it is time for one.
    fn sample(&mut self, id: AssetId, now: u32, usage: Usage, features: Features) -> Option<Ticket> {
        if self.credit < 1.0 || self.random() & 1 == 0 {
            return None;
        }
        self.credit -= 1.0;
        self.samples.push(Sample::new(id, now, usage, features))
    }

    /// Learns what became of the sample that waits for this asset, if that is known by now; gives the one that still waits.
    fn settle(&mut self, waits: Option<Ticket>, id: AssetId, usage: Usage) -> Option<Ticket> {
        let ticket = waits?;
        let sample = self.samples.open(ticket, id)?;
        let Some(waited) = sample.waited(usage) else { return Some(ticket) };
        self.samples.close(ticket);
        self.teach(&sample, waited);
        None
    }

    fn teach(&mut self, sample: &Sample, waited: f32) {
        let horizon = self.horizon();
        self.model.learn(&sample.features, horizon, (-waited / horizon).exp());
    }

    /// Learns from the samples that are older than the step.
    fn mature(&mut self, step: u32, view: &dyn View) {
        let (now, horizon) = (view.tick(), self.horizon());
        while let Some(sample) = self.samples.pop(now, step) {
            let Some(sample) = sample else { continue };
            match view.look(sample.id).and_then(|seen| sample.waited(seen.usage)) {
                Some(waited) => self.teach(&sample, waited),
                None => {
                    let then = Features { age: level(now.wrapping_sub(sample.last)), ..sample.features };
                    let waited = now.wrapping_sub(sample.tick) as f32;
                    let truth = (-waited / horizon).exp() * self.model.foretell(&then, horizon);
                    self.model.learn(&sample.features, horizon, truth);
                }
            }
        }
    }

    /// The rank of a resident now; learns from it. `None` when it cannot go. What the view lost is added to `lost`.
    fn look(&mut self, kind: usize, place: usize, view: &dyn View, lost: &mut Vec<AssetId>) -> Option<Candidate> {
        let entry = self.shelves[kind].entries[place];
        let Entry { id, worth, weight, waits, past, .. } = entry;
        let Some(seen) = view.look(id) else {
            lost.push(id);
            return None;
        };
        let now = view.tick();
        self.simulate(&entry, kind as u8, seen.usage, now, false);
        let features = Features::of(past, seen.usage, weight, kind as u8, now);
        let waits = self.settle(waits, id, seen.usage);
        let waits = waits.or_else(|| self.sample(id, now, seen.usage, features));
        self.shelves[kind].entries[place].waits = waits;
        let rank = self.rank(&features, now.wrapping_sub(seen.usage.tick()), worth);
        (!seen.pinned).then_some(Candidate { rank, id, new: false })
    }

    /// By the expert that leads.
    fn rank(&self, features: &Features, age: u32, worth: f32) -> f32 {
        self.experts.leader().rank(&self.model, self.horizon(), features, age, worth)
    }

    /// The rank and the weight of a resident that can go.
    fn look_again(&self, id: AssetId, view: &dyn View) -> Option<(f32, u64)> {
        let &(kind, place) = self.at.get(&id)?;
        let entry = &self.shelves[usize::from(kind)].entries[place as usize];
        let seen = view.look(id).filter(|seen| !seen.pinned)?;
        let features = Features::of(entry.past, seen.usage, entry.weight, kind, view.tick());
        let age = view.tick().wrapping_sub(seen.usage.tick());
        Some((self.rank(&features, age, entry.worth), seen.weight))
    }

    /// Whether this choice named it already.
    fn is_named(&self, id: AssetId) -> bool {
        let entry = self.at.get(&id).map(|&(kind, place)| &self.shelves[usize::from(kind)].entries[place as usize]);
        entry.is_some_and(|entry| entry.named == self.choices)
    }

    /// The next that a hand passes: on a shelf that chance names among the residents of the kind.
    fn pass(&mut self, kind: Option<AssetKind>) -> Option<(usize, usize)> {
        if let Some(kind) = kind {
            let kind = kind as usize;
            return self.shelves[kind].pass().map(|place| (kind, place));
        }
        let mut chance = match self.at.len() {
            0 => return None,
            all => (self.random() % all as u64) as usize,
        };
        let mut named = 0;
        while chance >= self.shelves[named].entries.len() {
            chance -= self.shelves[named].entries.len();
            named += 1;
        }
        let shelves = self.shelves.len();
        (named..named + shelves).find_map(|kind| {
            let kind = kind % shelves;
            self.shelves[kind].pass().map(|place| (kind, place))
        })
    }

    /// The candidate of the lowest rank, taken out, with its weight. What was used since it was looked at is ranked anew.
    fn worst(&self, candidates: &mut Vec<Candidate>, view: &dyn View) -> Option<(AssetId, u64)> {
        loop {
            let (index, least) =
                candidates.iter().enumerate().min_by(|one, other| one.1.rank.total_cmp(&other.1.rank))?;
            let (id, rank) = (least.id, least.rank);
            // One that arrived twice is twice among them.
            match self.look_again(id, view).filter(|_| !self.is_named(id)) {
                Some((now, _)) if now > rank * 1.0001 + f32::MIN_POSITIVE => candidates[index].rank = now,
                Some((_, weight)) => {
                    candidates.swap_remove(index);
                    return Some((id, weight));
                }
                None => _ = candidates.swap_remove(index),
            }
        }
    }
}

impl Eviction for Adaptive {
    fn admitted(&mut self, asset: &Admitted) {
        let weight = u32::try_from(asset.weight).unwrap_or(u32::MAX);
        self.costs.loaded(weight, asset.cost_us);
        // What changes its weight keeps its past, and the sample that waits for it.
        let known = self.remove(asset.id);
        let ghost = self.history.take(asset.id);
        let mut entry = self.arriving(asset, ghost.as_ref());
        match (known, ghost) {
            (Some((_, known)), _) => (entry.past, entry.waits) = (known.past, known.waits),
            (None, Some(ghost)) => {
                entry.waits = self.settle(ghost.waits, asset.id, Usage::new(asset.tick));
            }
            (None, None) => {}
        }
        let kind = asset.kind as u8;
        if entry.waits.is_none() {
            let usage = Usage::new(asset.tick);
            let features = Features::of(entry.past, usage, entry.weight, kind, asset.tick);
            entry.waits = self.sample(asset.id, asset.tick, usage, features);
        }
        if known.is_none() && !asset.speculative {
            self.simulate(&entry, kind, Usage::new(asset.tick), asset.tick, true);
        }
        self.bytes += u64::from(entry.weight);
        let shelf = &mut self.shelves[usize::from(kind)];
        self.at.insert(asset.id, (kind, shelf.entries.len() as u32));
        shelf.entries.push(entry);
        if shelf.pool.len() < 2 * POOL {
            shelf.pool.push(Candidate { rank: 0.0, id: asset.id, new: true });
        }
    }

    fn removed(&mut self, id: AssetId, why: Removal, last: Option<Usage>) {
        let Some((kind, entry)) = self.remove(id) else { return };
        self.costs.asked(entry.weight, last.map_or(0, Usage::uses));
        // What is gone for other reasons does not come back as what it was.
        let Some(usage) = last.filter(|_| why == Removal::Evicted) else { return };
        self.simulate(&entry, kind, usage, usage.tick(), false);
        let waits = self.settle(entry.waits, id, usage);
        let features = Features::of(entry.past, usage, entry.weight, kind, usage.tick());
        let past = Past { uses: features.uses, gaps: [features.gaps[0], features.gaps[1]] };
        self.history.put(Ghost { id, tick: usage.tick(), waits, past }, self.at.len());
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        let (now, horizon) = (view.tick(), self.horizon());
        let step = (STEP_OF_HORIZON * horizon).max(STEP_MIN);
        self.choices = self.choices.wrapping_add(1);
        self.experts.resize(self.at.len(), self.bytes);
        self.credit = (self.credit + self.pace.samples(step)).min(2.0 * SAMPLES_PER_CHOICE);
        let (mut candidates, mut lost) = (Vec::with_capacity(3 * POOL), Vec::new());
        for (index, shelf) in self.shelves.iter_mut().enumerate() {
            shelf.passed = 0;
            if kind.is_none_or(|kind| kind as usize == index) {
                // Those that left may have come back as another kind.
                let here = |id: &AssetId| self.at.get(id).is_some_and(|(kind, _)| usize::from(*kind) == index);
                candidates.extend(shelf.pool.drain(..).filter(|candidate| here(&candidate.id)));
            }
        }
        candidates.retain_mut(|candidate| {
            if candidate.new {
                let Some((rank, _)) = self.look_again(candidate.id, view) else { return false };
                (candidate.rank, candidate.new) = (rank, false);
            }
            true
        });
        let (mut freed_bytes, mut victims, mut looks, mut dropped) = (0u64, 0usize, LOOKS_FIRST, false);
        while freed_bytes < want_bytes {
            let mut left = looks;
            looks = LOOKS_MORE;
            // Until there is one that can go, or none is left to look at.
            while left > 0 || candidates.is_empty() {
                let Some((kind, place)) = self.pass(kind) else { break };
                left = left.saturating_sub(1);
                if self.shelves[kind].entries[place].named == self.choices {
                    continue;
                }
                let Some(candidate) = self.look(kind, place, view, &mut lost) else { continue };
                match candidates.iter_mut().find(|known| known.id == candidate.id) {
                    Some(known) => *known = candidate,
                    None => candidates.push(candidate),
                }
            }
            if candidates.len() > 2 * POOL {
                keep_worst(&mut candidates);
                dropped = true;
            }
            let Some((id, weight)) = self.worst(&mut candidates, view) else {
                // What was looked at and put aside can still go.
                if !std::mem::take(&mut dropped) {
                    break;
                }
                self.shelves.iter_mut().for_each(|shelf| shelf.passed = 0);
                continue;
            };
            if let Some(&(kind, place)) = self.at.get(&id) {
                self.shelves[usize::from(kind)].entries[place as usize].named = self.choices;
            }
            into.push(id);
            freed_bytes = freed_bytes.saturating_add(weight);
            victims += 1;
        }
        keep_worst(&mut candidates);
        for candidate in candidates {
            if let Some(&(kind, _)) = self.at.get(&candidate.id) {
                self.shelves[usize::from(kind)].pool.push(candidate);
            }
        }
        lost.into_iter().for_each(|id| _ = self.remove(id));
        self.pace.chose(now, victims, self.at.len());
        self.mature(step as u32, view);
    }

    fn keeps(&mut self, incoming: &Admitted, victims: &[AssetId], view: &dyn View) -> bool {
        let (mut loss, mut freed_bytes) = (0.0f64, 0u64);
        for id in victims {
            let Some((rank, weight)) = self.look_again(*id, view) else { continue };
            loss += f64::from(rank) * weight as f64;
            freed_bytes += weight;
        }
        let ghost = self.history.get(incoming.id).copied();
        let entry = self.arriving(incoming, ghost.as_ref());
        let usage = Usage::new(incoming.tick);
        let features = Features::of(entry.past, usage, entry.weight, incoming.kind as u8, incoming.tick);
        let rank = self.rank(&features, 0, entry.worth);
        // By the byte: what a large victim frees beyond what is wanted now is room for others.
        if f64::from(rank * REFUSAL) >= loss / freed_bytes.max(1) as f64 {
            return true;
        }
        self.refusals += 1;
        self.simulate(&entry, incoming.kind as u8, usage, incoming.tick, true);
        self.costs.loaded(entry.weight, incoming.cost_us);
        self.history.take(incoming.id);
        let waits = self.settle(ghost.and_then(|ghost| ghost.waits), incoming.id, usage);
        let waits = waits.or_else(|| self.sample(incoming.id, incoming.tick, usage, features));
        let ghost = Ghost { id: incoming.id, tick: incoming.tick, waits, past: entry.past };
        self.history.put(ghost, self.at.len());
        false
    }

    fn report(&self) -> PolicyReport {
        let entries: usize = self.shelves.iter().map(|shelf| shelf.entries.capacity()).sum();
        let places = self.at.capacity() * (size_of::<(AssetId, (u8, u32))>() + 1);
        let others = self.history.memory_bytes()
            + self.samples.memory_bytes()
            + self.model.memory_bytes()
            + self.experts.memory_bytes();
        let ratios = self.experts.ratios();
        let mut figures: Vec<(String, f64)> = Vec::new();
        for expert in Expert::ALL {
            let leads = if self.experts.leader() == expert { "leads: " } else { "" };
            figures.push((format!("{leads}{}", expert.name()), f64::from(ratios[expert as usize])));
        }
        let more = [
            ("simulated_requests", self.experts.requests as f64),
            ("changes_of_leader", self.experts.changes as f64),
            ("horizon_ticks", f64::from(self.horizon())),
            ("lessons", self.model.lessons as f64),
            ("mean_square_mistake", f64::from(self.model.mistake)),
            ("refusals", self.refusals as f64),
        ];
        figures.extend(more.map(|(name, figure)| (name.to_owned(), figure)));
        PolicyReport {
            name: "adaptive".to_owned(),
            residents: self.at.len(),
            ghosts: self.history.len(),
            memory_bytes: entries * size_of::<Entry>() + places + others,
            figures,
        }
    }
}

/// Keeps the lowest ranks of what may be evicted.
fn keep_worst(candidates: &mut Vec<Candidate>) {
    if candidates.len() > POOL {
        candidates.select_nth_unstable_by(POOL, |one, other| one.rank.total_cmp(&other.rank));
        candidates.truncate(POOL);
    }
}

#[cfg(test)]
mod tests;
