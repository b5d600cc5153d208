//! What will be needed next. One expert per file; the [`Ensemble`] decides which of them is believed.
//!
//! An expert learns from accesses and guesses, as often as it likes: a guess costs no byte. The ensemble keeps book of
//! what became of each guess, calibrates every expert by that, and only what has earned it is prefetched.

mod aged;
mod clustered;
mod dependency;
mod ensemble;
mod models;
mod neural;
mod pattern;
mod sequential;
pub mod spatial;
mod streams;
mod strided;
#[cfg(test)]
mod testing;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AssetId, AssetKind};

pub use clustered::Clustered;
pub use dependency::Dependency;
pub use ensemble::{Ensemble, ExpertStats, PredictionStats};
pub use models::MODELS_BYTES_MAX;
pub use neural::FEATURES_MAX;
use neural::Neural;
pub use pattern::Pattern;
pub use sequential::sequential;
pub use spatial::Spatial;
pub use streams::{Steps, Streams};
pub use strided::strided;

/// The experts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ExpertKind {
    /// What an asset uses.
    Dependency = 0,
    /// The next in order.
    Sequential = 1,
    /// Every so many in order, forwards or backwards.
    Strided = 2,
    /// What was used about the same time.
    Clustered = 3,
    /// What followed the last few.
    Pattern = 4,
    /// What a viewer comes to.
    Spatial = 5,
    /// What a small network makes of the others' guesses.
    Neural = 6,
}

impl ExpertKind {
    /// Every expert, in the order of their numbers.
    pub const ALL: [ExpertKind; 7] = [
        ExpertKind::Dependency,
        ExpertKind::Sequential,
        ExpertKind::Strided,
        ExpertKind::Clustered,
        ExpertKind::Pattern,
        ExpertKind::Spatial,
        ExpertKind::Neural,
    ];

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dependency => "dependency",
            Self::Sequential => "sequential",
            Self::Strided => "strided",
            Self::Clustered => "clustered",
            Self::Pattern => "pattern",
            Self::Spatial => "spatial",
            Self::Neural => "neural",
        }
    }
}

/// A use of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which.
    pub id: AssetId,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub kind: AssetKind,
    /// Whether it was in memory.
    pub resident: bool,
    /// Since the start of the run.
    pub now: Duration,
    /// Seconds since 1970.
    pub wall_seconds: u64,
}

/// When a guess is expected to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// After about so many accesses that the predictor is told of.
    Requests(u32),
    /// After about so long.
    Time(Duration),
}

/// What an expert says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// Which.
    pub id: AssetId,
    /// How sure it is, 0 to 1. Only the order matters, since every expert is calibrated by what becomes of its guesses.
    pub confidence: f32,
    /// When.
    pub due: Due,
}

/// What is to be prefetched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Which.
    pub id: AssetId,
    /// The share of guesses like this one that came true.
    pub confidence: f32,
    /// When it is expected to be used.
    pub due: Due,
    /// Who said so.
    pub expert: ExpertKind,
    /// Its size, where that is known.
    pub bytes: Option<u64>,
}

/// What became of a prediction that was prefetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Someone asked for it while it was resident. An access says so by itself.
    Used,
    /// Someone asked for it while it was on its way.
    Late,
    /// It was evicted, or changed, before anyone asked for it.
    Wasted,
    /// It was never loaded: the queue was full or memory was short.
    Dropped,
}

/// What experts may ask about the assets. None of it may block.
pub trait World {
    /// Its place in the order of all assets.
    fn rank(&self, id: AssetId) -> Option<u64>;
    /// The asset in this place.
    fn at(&self, rank: u64) -> Option<AssetId>;
    /// Appends what an asset uses, as far as that is known, the nearest first.
    fn dependencies(&self, id: AssetId, into: &mut Vec<AssetId>);
    /// Its size, where that is known.
    fn bytes(&self, id: AssetId) -> Option<u64>;
    /// Whether it is in memory, or on its way there.
    fn is_resident(&self, id: AssetId) -> bool;
}

/// Someone who guesses.
///
/// Callers guarantee: accesses in order, a `distance` of at least 1. An expert guarantees: bounded memory, a bounded
/// number of guesses per call, and that it says the same after the same accesses.
pub trait Expert: Send {
    /// Which it is.
    fn kind(&self) -> ExpertKind;

    /// Learns from an access and appends what it expects next, the surest first: `distance` says how far ahead.
    fn accessed(&mut self, access: &Access, world: &dyn World, distance: u8, into: &mut Vec<Guess>);

    /// Appends what it expects since time has passed, or something that it knows of has moved.
    fn passed(&mut self, now: Duration, world: &dyn World, distance: u8, into: &mut Vec<Guess>) {
        let _ = (now, world, distance, into);
    }

    /// What it has learned, to be given to [`Expert::restore`] in a later run. Nothing by default.
    fn saved(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes what an earlier run has learned. `None`, and it knows nothing, where that is not to be understood.
    fn restore(&mut self, saved: &[u8]) -> Option<()> {
        saved.is_empty().then_some(())
    }
}
