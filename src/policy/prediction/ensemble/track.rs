//! What became of one expert's guesses: how far it is believed, how far ahead it may look, and how much it may cost.

use serde::{Deserialize, Serialize};

use crate::policy::prediction::ExpertKind;

/// Levels of confidence that are told apart.
pub(super) const LEVELS: usize = 8;
/// Guesses of a level that count; older ones count half, and so on.
const COUNTED_MAX: f32 = 128.0;
/// Guesses that came to nothing, which every level begins with.
const DOUBT: f32 = 2.0;
/// Ended guesses after which the distance is looked at.
const WINDOW: u32 = 32;
/// How far precision may be off the target (S7).
const TOLERANCE: f32 = 0.05;
/// Prefetches that an expert may make before any of them was used.
const CREDIT: f32 = 16.0;
/// The same for what viewers come to: a scene is many assets at once.
const CREDIT_SPATIAL: f32 = 64.0;
/// The most prefetches that an expert may have made without any of them being used.
const CREDIT_MAX: f32 = 256.0;
/// Accesses after which an expert without credit may try one more.
const PROBE_EVERY: u64 = 256;
/// Prefetches of an expert before its benefit is compared with the others'.
const COMPARED_MIN: u64 = 32;

/// How guesses of one level of confidence ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Level {
    pub(super) guesses: f32,
    pub(super) came_true: f32,
}

impl Level {
    fn guessed(&mut self) {
        self.guesses += 1.0;
        if self.guesses > COUNTED_MAX {
            self.guesses /= 2.0;
            self.came_true /= 2.0;
        }
    }

    /// The share that came true, those under way counted as if they would not: it has to be earned.
    pub(super) fn share(&self) -> f32 {
        (self.came_true / self.guesses.max(1.0)).min(1.0)
    }

    pub(super) fn is_sound(&self) -> bool {
        let range = 0.0..=COUNTED_MAX + 1.0;
        range.contains(&self.guesses) && range.contains(&self.came_true)
    }
}

/// What is known of an expert, and what it did. Counts since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertStats {
    /// Who.
    pub expert: ExpertKind,
    /// Guesses of what was not in memory; most are never prefetched.
    pub guesses: u64,
    /// Those of them that were asked for in time.
    pub came_true: u64,
    /// Prefetches.
    pub prefetched: u64,
    /// Bytes of those.
    pub prefetched_bytes: u64,
    /// Prefetches that were used.
    pub used: u64,
    /// Bytes of those.
    pub used_bytes: u64,
    /// Those of them that were asked for before they had come.
    pub late: u64,
    /// Prefetches that were evicted or replaced before anyone asked for them.
    pub wasted: u64,
    /// Bytes of those.
    pub wasted_bytes: u64,
    /// Prefetches that never came to be loaded.
    pub dropped: u64,
    /// How far ahead it looks now.
    pub distance: u8,
    /// Whether guesses of it are believed now.
    pub active: bool,
}

/// One expert's book.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) levels: [Level; LEVELS],
    pub(super) distance: u8,
    distance_max: u8,
    target: f32,
    /// Prefetches that it may still make. Each costs one; one that is used earns so many that just the target is
    /// sustained.
    credit: f32,
    /// Guesses that ended, since the distance was looked at; those that came true.
    ended: u32,
    came_true: u32,
    late: u32,
    /// Microseconds of loading that its prefetches saved.
    saved_us: f64,
    /// What it says need not be earned first: guesses count when they end, not when they are made.
    is_declared: bool,
    /// It guesses for the network alone.
    pub(super) silent: bool,
    pub(super) stats: ExpertStats,
}

impl Track {
    pub(super) fn new(expert: ExpertKind, target: f32, distance_max: u8) -> Self {
        // What an asset uses is declared, not guessed, and so are places and viewers: believed until it proves wrong.
        let is_declared = matches!(expert, ExpertKind::Dependency | ExpertKind::Spatial);
        let credit = if expert == ExpertKind::Spatial { CREDIT_SPATIAL } else { CREDIT };
        let level = if is_declared {
            Level { guesses: 10.0, came_true: 9.0 }
        } else {
            Level { guesses: DOUBT, came_true: 0.0 }
        };
        let stats = ExpertStats {
            expert,
            guesses: 0,
            came_true: 0,
            prefetched: 0,
            prefetched_bytes: 0,
            used: 0,
            used_bytes: 0,
            late: 0,
            wasted: 0,
            wasted_bytes: 0,
            dropped: 0,
            distance: 0,
            active: false,
        };
        Self {
            levels: [level; LEVELS],
            distance: distance_max.min(4),
            distance_max,
            target,
            credit,
            is_declared,
            ended: 0,
            came_true: 0,
            late: 0,
            saved_us: 0.0,
            silent: false,
            stats,
        }
    }

    pub(super) fn level_of(confidence: f32) -> usize {
        ((confidence * LEVELS as f32) as usize).min(LEVELS - 1)
    }

    /// A guess was made that is looked after from now on.
    pub(super) fn guessed(&mut self, level: usize) {
        if !self.is_declared {
            self.levels[level].guessed();
        }
        self.stats.guesses += 1;
    }

    /// It ended.
    pub(super) fn ended(&mut self, level: usize, came_true: bool) {
        self.ended += 1;
        if self.is_declared {
            self.levels[level].guessed();
        }
        if came_true {
            self.levels[level].came_true += 1.0;
            self.came_true += 1;
            self.stats.came_true += 1;
        }
        if self.ended >= WINDOW {
            let precision = self.came_true as f32 / self.ended as f32;
            if precision > self.target + TOLERANCE {
                self.distance = (self.distance + 1).min(self.distance_max);
            } else if precision < self.target - TOLERANCE {
                self.distance = (self.distance - 1).max(1);
            }
            (self.ended, self.came_true) = (0, 0);
        }
    }

    /// Whether it may cost another prefetch.
    pub(super) fn has_credit(&self) -> bool {
        self.credit >= 1.0
    }

    /// Time passes; one without credit may try again now and then.
    pub(super) fn tick(&mut self, tick: u64) {
        if tick.is_multiple_of(PROBE_EVERY) && self.credit < 1.0 {
            self.credit += 1.0;
        }
    }

    pub(super) fn prefetched(&mut self, bytes: u64) {
        self.credit -= 1.0;
        self.stats.prefetched += 1;
        self.stats.prefetched_bytes += bytes;
    }

    pub(super) fn used(&mut self, bytes: u64, late: bool) {
        self.credit = (self.credit + 1.0 / self.target).min(CREDIT_MAX);
        self.saved_us += f64::from(cost_us(bytes));
        self.stats.used += 1;
        self.stats.used_bytes += bytes;
        if late {
            self.stats.late += 1;
            self.late += 1;
            if self.late >= WINDOW / 4 {
                self.late = 0;
                self.distance = (self.distance + 1).min(self.distance_max);
            }
        }
    }

    pub(super) fn wasted(&mut self, bytes: u64) {
        self.stats.wasted += 1;
        self.stats.wasted_bytes += bytes;
    }

    pub(super) fn dropped(&mut self, bytes: u64) {
        self.credit = (self.credit + 1.0).min(CREDIT_MAX);
        self.stats.prefetched -= 1;
        self.stats.prefetched_bytes -= bytes;
        self.stats.dropped += 1;
    }

    /// What it did, for people.
    pub(super) fn told(&self, threshold: f32) -> ExpertStats {
        let active = self.has_credit() && self.levels.iter().any(|level| level.share() >= threshold);
        ExpertStats { distance: self.distance, active, ..self.stats.clone() }
    }

    /// Microseconds saved for each byte fetched, once there is something to compare.
    pub(super) fn benefit(&self) -> Option<f64> {
        let known = self.stats.prefetched >= COMPARED_MIN && self.stats.prefetched_bytes > 0;
        known.then(|| self.saved_us / self.stats.prefetched_bytes as f64)
    }
}

/// About how long loading this many bytes takes: a read's latency, and a gigabyte in a second.
pub(super) fn cost_us(bytes: u64) -> f32 {
    100.0 + bytes as f32 / 1000.0
}
