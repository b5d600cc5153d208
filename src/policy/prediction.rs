//! What will be needed next. One policy per file.

pub mod dependency;
pub mod spatial;

use crate::ids::AssetId;

pub use dependency::DependencyPrediction;
pub use spatial::Spatial;

/// An asset that was loaded, by anyone: its place came through the ledger just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Which.
    pub id: AssetId,
    /// What it uses, as far as that exists.
    pub dependencies: Vec<AssetId>,
}

/// What became of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Someone asked for it while it was resident or on its way.
    Used,
    /// It was evicted, or changed, before anyone asked for it.
    Wasted,
    /// It was never loaded: the queue was full or memory was short.
    Dropped,
}

/// A prediction policy: it is told what was loaded, and names what to prefetch.
///
/// Callers guarantee: `loaded` for whatever was loaded, its own predictions included. A policy guarantees: bounded
/// memory, and bounded names per call.
pub trait Prediction: Send {
    /// Takes in a batch and appends what to prefetch, the likeliest first, none twice.
    fn loaded(&mut self, batch: &[Loaded], into: &mut Vec<AssetId>);
    /// What became of a prediction.
    fn outcome(&mut self, id: AssetId, outcome: Outcome);
}
