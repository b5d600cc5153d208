//! Who is believed: every expert's guesses are watched, and those like the ones that came true are prefetched.
//!
//! A guess that is not prefetched costs nothing, and whether it would have been right shows all the same when the asset is
//! asked for, or is not. So every expert is calibrated on its guesses before a byte is spent, one that guesses badly stops
//! by itself, and one that has stopped comes back when its guesses are good again. What is spent on prefetches is held to
//! the target precision by three things: the share that a guess must have earned, each expert's distance, and a credit
//! that a prefetch costs and a used one earns. The idea of choosing among predictors by what they would have achieved is
//! that of sandbox prefetching (Pugsley et al., "Sandbox Prefetching: Safe Run-Time Evaluation of Aggressive Prefetchers",
//! HPCA 2014).

mod saved;
mod track;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::aged::Aged;
use super::neural::{Features, Uses};
use super::{
    Access, Clustered, Dependency, Due, Expert, ExpertKind, Guess, Neural, Outcome, Pattern, Predicted, World,
    sequential, strided,
};
use crate::config::PredictionConfig;
use crate::ids::{AssetId, AssetKind, Hashing};
use track::{Track, cost_us};

pub use track::ExpertStats;

/// Guesses watched at once.
const OPEN_MAX: usize = 16 << 10;
/// Prefetches that are neither used nor wasted yet, and remembered.
const FETCHED_MAX: usize = 64 << 10;
/// Assets whose uses are counted.
const USES_MAX: usize = 32 << 10;
/// Guesses of one access that the network looks at.
const SCORED_MAX: usize = 16;
/// Prefetches of one access.
const PREDICTED_MAX: usize = 256;
/// What a guess may be late by, in accesses, besides twice its time.
const SLACK: u64 = 16;
/// The same in time.
const SLACK_TIME: Duration = Duration::from_millis(500);
/// Ended prefetches after which the threshold is looked at.
const WINDOW: u32 = 32;
const TOLERANCE: f32 = 0.05;
/// Where the threshold moves, and by how much.
const THRESHOLD: (f32, f32, f32) = (0.25, 0.95, 0.05);

/// A number for each expert.
type ByExpert<T> = [T; ExpertKind::ALL.len()];

/// A guess that is watched.
struct Open {
    /// The level of each expert who made it, from 1.
    by: ByExpert<u8>,
    /// What the network saw.
    sample: Option<Box<Features>>,
    /// Whether it was prefetched.
    fetched: bool,
    deadline: Deadline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Tick(u64),
    Time(Duration),
}

/// A prefetch of which it is not known yet what came of it.
struct Fetched {
    expert: ExpertKind,
    bytes: u64,
}

/// Experts, and how far each is believed.
pub struct Ensemble {
    target: f32,
    largest_bytes: u64,
    experts: Vec<Box<dyn Expert>>,
    neural: Option<Neural>,
    tracks: ByExpert<Track>,
    threshold: f32,
    /// Prefetches that ended, since the threshold was looked at; those that were used.
    ended: (u32, u32),
    open: HashMap<u64, Open, Hashing>,
    by_tick: BinaryHeap<Reverse<(u64, u64)>>,
    by_time: BinaryHeap<Reverse<(Duration, u64)>>,
    fetched: HashMap<u64, Fetched, Hashing>,
    uses: Aged<Uses>,
    tick: u64,
    accesses: u64,
    misses: u64,
    guesses: Vec<Guess>,
    merged: Vec<Merged>,
    last: Option<Access>,
}

/// All that was guessed of one asset at one access.
#[derive(Clone, Copy)]
struct Merged {
    guess: Guess,
    by: ByExpert<f32>,
}

/// What prediction is worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PredictionStats {
    /// Accesses that were told of.
    pub accesses: u64,
    /// Those that had to load.
    pub misses: u64,
    /// Prefetches.
    pub prefetched: u64,
    /// Bytes of those.
    pub prefetched_bytes: u64,
    /// Prefetches that were used.
    pub used: u64,
    /// Prefetches that were asked for before they had come.
    pub late: u64,
    /// Prefetches that nobody used before they were evicted or replaced.
    pub wasted: u64,
    /// Bytes of those.
    pub wasted_bytes: u64,
    /// The share of ended prefetches that were used.
    pub precision: Option<f64>,
    /// The share of what would have had to load that was prefetched.
    pub recall: Option<f64>,
    /// The share of guesses like one that must have come true for it to be prefetched, now.
    pub threshold: f32,
    /// Each expert that guesses.
    pub experts: Vec<ExpertStats>,
}

impl Ensemble {
    /// Nothing is learned yet. `config` is valid.
    pub fn new(config: &PredictionConfig) -> Self {
        let on = &config.experts;
        let mut experts: Vec<Box<dyn Expert>> = Vec::new();
        // The network learns from the others' guesses, also where only its own are wanted.
        if on.dependency || on.neural {
            experts.push(Box::<Dependency>::default());
        }
        if on.sequential || on.neural {
            experts.push(Box::new(sequential()));
        }
        if on.strided || on.neural {
            experts.push(Box::new(strided()));
        }
        if on.clustered || on.neural {
            experts.push(Box::<Clustered>::default());
        }
        if on.pattern || on.neural {
            experts.push(Box::<Pattern>::default());
        }
        let believed = [on.dependency, on.sequential, on.strided, on.clustered, on.pattern, on.spatial, on.neural];
        let track = |expert: ExpertKind| {
            let mut track = Track::new(expert, config.target_precision, config.distance);
            track.silent = !believed[expert as usize];
            track
        };
        Self {
            target: config.target_precision,
            largest_bytes: config.largest_bytes,
            experts,
            neural: on.neural.then(Neural::default),
            tracks: ExpertKind::ALL.map(track),
            threshold: config.threshold,
            ended: (0, 0),
            open: HashMap::default(),
            by_tick: BinaryHeap::new(),
            by_time: BinaryHeap::new(),
            fetched: HashMap::default(),
            uses: Aged::new(USES_MAX),
            tick: 0,
            accesses: 0,
            misses: 0,
            guesses: Vec::new(),
            merged: Vec::new(),
            last: None,
        }
    }

    /// One more expert; in place of one of that kind.
    pub fn add(&mut self, expert: Box<dyn Expert>) {
        self.experts.retain(|other| other.kind() != expert.kind());
        self.experts.push(expert);
    }

    /// What the program tells of itself from now on: [`super::FEATURES_MAX`] numbers at most, the others are not seen.
    pub fn set_features(&mut self, features: &[f32]) {
        if let Some(neural) = &mut self.neural {
            neural.set_host(features);
        }
    }

    /// Takes in an access and appends what is to be prefetched, the most worthwhile first, none twice.
    pub fn accessed(&mut self, access: &Access, world: &dyn World, into: &mut Vec<Predicted>) {
        self.tick += 1;
        self.accesses += 1;
        self.tracks.iter_mut().for_each(|track| track.tick(self.tick));
        self.came_true(access);
        self.misses += u64::from(!access.resident);
        self.expire(access.now);
        let uses = self.uses.entry(access.id.0, Uses::default);
        *uses = Uses { tick: self.tick, count: uses.count.saturating_add(1) };
        self.last = Some(*access);
        self.ask(access, world, into, |expert, distance, guesses| {
            expert.accessed(access, world, distance, guesses);
        });
    }

    /// Time has passed without an access, or something has moved: as [`Ensemble::accessed`] otherwise.
    pub fn passed(&mut self, now: Duration, world: &dyn World, into: &mut Vec<Predicted>) {
        self.expire(now);
        // Whoever is told nothing but that something moved guesses too.
        let nothing = Access { id: AssetId(0), bytes: 0, kind: AssetKind::Other, resident: true, now, wall_seconds: 0 };
        let access = Access { now, ..self.last.unwrap_or(nothing) };
        self.ask(&access, world, into, |expert, distance, guesses| expert.passed(now, world, distance, guesses));
    }

    /// What became of a prefetch. That one was used is seen by itself, when that access is told of.
    pub fn outcome(&mut self, id: AssetId, outcome: Outcome) {
        let Some(Fetched { expert, bytes }) = self.fetched.remove(&id.0) else { return };
        let track = &mut self.tracks[expert as usize];
        match outcome {
            Outcome::Used => track.used(bytes, false),
            Outcome::Late => track.used(bytes, true),
            Outcome::Wasted => track.wasted(bytes),
            Outcome::Dropped => track.dropped(bytes),
        }
        match outcome {
            Outcome::Dropped => {
                if let Some(open) = self.open.get_mut(&id.0) {
                    open.fetched = false;
                }
            }
            // In time or not, it would have to be loaded again.
            Outcome::Wasted => {
                if let Some(open) = self.open.remove(&id.0) {
                    self.end(&open, false);
                }
            }
            Outcome::Used | Outcome::Late => {}
        }
    }

    /// Accesses that it was told of.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// What was prefetched and is neither used nor wasted yet, as far as is known.
    pub fn under_way(&self) -> Vec<AssetId> {
        self.fetched.keys().copied().map(AssetId).collect()
    }

    /// Whether it was prefetched and is neither used nor wasted yet, as far as is known; and who said so.
    pub fn fetched(&self, id: AssetId) -> Option<ExpertKind> {
        self.fetched.get(&id.0).map(|fetched| fetched.expert)
    }

    /// What was used most, the most used first, without regard to what is resident.
    pub fn likely(&self, count: usize) -> Vec<AssetId> {
        let mut all: Vec<(f32, u64)> = self.uses.iter().map(|(id, uses)| (self.heat(uses), id)).collect();
        all.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        all.into_iter().take(count).map(|(_, id)| AssetId(id)).collect()
    }

    /// Uses, those of long ago for less.
    fn heat(&self, uses: &Uses) -> f32 {
        uses.count as f32 / (1.0 + self.tick.saturating_sub(uses.tick) as f32 / 65_536.0)
    }

    /// What it is worth so far.
    pub fn stats(&self) -> PredictionStats {
        let speaks = |kind: ExpertKind| match kind {
            ExpertKind::Neural => self.neural.is_some(),
            _ => self.experts.iter().any(|expert| expert.kind() == kind),
        };
        let told = |track: &&Track| speaks(track.stats.expert) && !track.silent;
        let experts: Vec<ExpertStats> =
            self.tracks.iter().filter(told).map(|track| track.told(self.threshold)).collect();
        let sum = |of: fn(&ExpertStats) -> u64| experts.iter().map(of).sum::<u64>();
        let (used, wasted) = (sum(|expert| expert.used), sum(|expert| expert.wasted));
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        PredictionStats {
            accesses: self.accesses,
            misses: self.misses,
            prefetched: sum(|expert| expert.prefetched),
            prefetched_bytes: sum(|expert| expert.prefetched_bytes),
            used,
            late: sum(|expert| expert.late),
            wasted,
            wasted_bytes: sum(|expert| expert.wasted_bytes),
            precision: share(used, used + wasted),
            recall: share(used, used + self.misses),
            threshold: self.threshold,
            experts,
        }
    }

    /// Whoever guessed this was right.
    fn came_true(&mut self, access: &Access) {
        if let Some(open) = self.open.remove(&access.id.0) {
            self.end(&open, true);
        }
        if let Some(Fetched { expert, bytes }) = self.fetched.remove(&access.id.0) {
            self.tracks[expert as usize].used(bytes, !access.resident);
        }
    }

    /// Whatever should have come true by now was wrong.
    fn expire(&mut self, now: Duration) {
        while let Some(Reverse((deadline, id))) = self.by_tick.peek().copied()
            && deadline < self.tick
        {
            self.by_tick.pop();
            self.missed(id, Deadline::Tick(deadline));
        }
        while let Some(Reverse((deadline, id))) = self.by_time.peek().copied()
            && deadline < now
        {
            self.by_time.pop();
            self.missed(id, Deadline::Time(deadline));
        }
    }

    fn missed(&mut self, id: u64, deadline: Deadline) {
        // It may have come true, and been guessed anew, since.
        if self.open.get(&id).is_some_and(|open| open.deadline == deadline)
            && let Some(open) = self.open.remove(&id)
        {
            self.end(&open, false);
        }
    }

    fn end(&mut self, open: &Open, came_true: bool) {
        for (track, level) in self.tracks.iter_mut().zip(open.by) {
            if let Some(level) = level.checked_sub(1) {
                track.ended(usize::from(level), came_true);
            }
        }
        if let (Some(neural), Some(sample)) = (&mut self.neural, &open.sample) {
            neural.learn(sample, came_true);
        }
        if !open.fetched {
            return;
        }
        let (ended, used) = &mut self.ended;
        (*ended, *used) = (*ended + 1, *used + u32::from(came_true));
        if *ended >= WINDOW {
            let precision = *used as f32 / *ended as f32;
            let (least, most, step) = THRESHOLD;
            if precision > self.target + TOLERANCE {
                self.threshold = (self.threshold - step).max(least);
            } else if precision < self.target - TOLERANCE {
                self.threshold = (self.threshold + step).min(most);
            }
            self.ended = (0, 0);
        }
    }

    /// Asks every expert, watches what they guess, and appends what is believed.
    fn ask(
        &mut self,
        access: &Access,
        world: &dyn World,
        into: &mut Vec<Predicted>,
        mut ask: impl FnMut(&mut dyn Expert, u8, &mut Vec<Guess>),
    ) {
        let mut merged = std::mem::take(&mut self.merged);
        let mut guesses = std::mem::take(&mut self.guesses);
        merged.clear();
        for expert in &mut self.experts {
            guesses.clear();
            let kind = expert.kind();
            ask(&mut **expert, self.tracks[kind as usize].distance, &mut guesses);
            for guess in guesses.drain(..).filter(|guess| guess.id != access.id) {
                merge(&mut merged, guess, kind);
            }
        }
        merged.retain(|merged| self.open.contains_key(&merged.guess.id.0) || !world.is_resident(merged.guess.id));
        let mut samples: Vec<Option<Box<Features>>> = Vec::new();
        if let Some(neural) = &self.neural {
            for merged in merged.iter_mut().take(SCORED_MAX) {
                if self.open.contains_key(&merged.guess.id.0) {
                    // What it said when it saw that first still holds.
                    samples.push(None);
                    continue;
                }
                let bytes = world.bytes(merged.guess.id).unwrap_or(access.bytes);
                let uses = self.uses.get(merged.guess.id.0).copied().unwrap_or_default();
                let features = neural.features(&merged.guess, &merged.by, bytes, (self.tick, uses), access);
                merged.by[ExpertKind::Neural as usize] = neural.score(&features).max(f32::MIN_POSITIVE);
                samples.push(Some(Box::new(features)));
            }
        }
        samples.resize_with(merged.len(), || None);
        let from = into.len();
        for (merged, sample) in merged.iter().zip(samples) {
            if self.watch(merged, sample, access.now)
                && into.len() - from < PREDICTED_MAX
                && let Some(predicted) = self.believed(merged.guess, world)
            {
                into.push(predicted);
            }
        }
        (self.merged, self.guesses) = (merged, guesses);
        self.take(&mut into.split_off(from), into);
    }

    /// Watches what comes of a guess. Whether it may be prefetched.
    fn watch(&mut self, merged: &Merged, sample: Option<Box<Features>>, now: Duration) -> bool {
        let id = merged.guess.id.0;
        if !self.open.contains_key(&id) {
            if self.open.len() >= OPEN_MAX {
                return false;
            }
            let deadline = match merged.guess.due {
                Due::Requests(requests) => Deadline::Tick(self.tick + 2 * u64::from(requests) + SLACK),
                Due::Time(time) => Deadline::Time(now + 2 * time + SLACK_TIME),
            };
            match deadline {
                Deadline::Tick(tick) => self.by_tick.push(Reverse((tick, id))),
                Deadline::Time(time) => self.by_time.push(Reverse((time, id))),
            }
            let fetched = self.fetched.contains_key(&id);
            self.open.insert(id, Open { by: [0; ExpertKind::ALL.len()], sample, fetched, deadline });
        }
        let Some(open) = self.open.get_mut(&id) else { return false };
        for ((track, by), confidence) in self.tracks.iter_mut().zip(&mut open.by).zip(merged.by) {
            if *by == 0 && confidence > 0.0 {
                let level = Track::level_of(confidence);
                track.guessed(level);
                *by = level as u8 + 1;
            }
        }
        !open.fetched && !self.fetched.contains_key(&id)
    }

    /// The guess as a prediction, where somebody who made it is believed.
    fn believed(&self, guess: Guess, world: &dyn World) -> Option<Predicted> {
        let Guess { id, due, .. } = guess;
        let earned = |(track, level): (&Track, u8)| {
            let share = track.levels[usize::from(level.checked_sub(1)?)].share();
            let is_believed = !track.silent && share >= self.threshold && track.has_credit();
            is_believed.then_some((share, track.stats.expert))
        };
        let earned = self.tracks.iter().zip(self.open.get(&id.0)?.by).filter_map(earned);
        let (confidence, expert) = earned.max_by(|one, other| one.0.total_cmp(&other.0))?;
        let bytes = world.bytes(id);
        let fits = bytes.is_none_or(|bytes| bytes <= self.largest_bytes);
        fits.then_some(Predicted { id, confidence, due, expert, bytes })
    }

    /// Takes from what is believed what its experts have credit for, by what each byte is expected to save.
    fn take(&mut self, believed: &mut Vec<Predicted>, into: &mut Vec<Predicted>) {
        let benefits: ByExpert<Option<f64>> = std::array::from_fn(|expert| self.tracks[expert].benefit());
        let known: Vec<f64> = benefits.iter().flatten().copied().collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let weight = |expert: ExpertKind| match benefits[expert as usize] {
            Some(benefit) if mean > 0.0 => (benefit / mean).clamp(0.5, 2.0) as f32,
            _ => 1.0,
        };
        let worth = |predicted: &Predicted| {
            let bytes = predicted.bytes.unwrap_or(1).max(1);
            predicted.confidence * weight(predicted.expert) * cost_us(bytes) / bytes as f32
        };
        believed.sort_by(|one, other| worth(other).total_cmp(&worth(one)));
        for predicted in believed.drain(..) {
            let track = &mut self.tracks[predicted.expert as usize];
            if !track.has_credit() || self.fetched.len() >= FETCHED_MAX {
                continue;
            }
            let bytes = predicted.bytes.unwrap_or(0);
            track.prefetched(bytes);
            self.fetched.insert(predicted.id.0, Fetched { expert: predicted.expert, bytes });
            if let Some(open) = self.open.get_mut(&predicted.id.0) {
                open.fetched = true;
            }
            into.push(predicted);
        }
    }
}

fn merge(merged: &mut Vec<Merged>, guess: Guess, kind: ExpertKind) {
    // Not a number is no confidence.
    let confidence = if guess.confidence.is_nan() { 0.0 } else { guess.confidence.clamp(0.0, 1.0) };
    if confidence == 0.0 {
        return;
    }
    let by = match merged.iter_mut().find(|other| other.guess.id == guess.id) {
        Some(other) => &mut other.by[kind as usize],
        None => {
            merged.push(Merged { guess, by: [0.0; ExpertKind::ALL.len()] });
            let last = merged.len() - 1;
            &mut merged[last].by[kind as usize]
        }
    };
    *by = by.max(confidence);
}

#[cfg(test)]
mod tests;
