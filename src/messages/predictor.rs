//! What the predictor is told. Senders: the cache manager, its own offloaded look-ups (`Uses`), and viewers (`Moved`). All of it are hints: what is lost is not predicted.

use std::sync::Arc;

use crate::ids::AssetId;
use crate::residency::Live;

/// To the predictor.
pub enum PredictorMessage {
    /// These were loaded, are what a program now uses, and depend on others.
    Loaded(Vec<Loaded>),
    /// What these depend on, as it was looked up for the predictor.
    Uses(Vec<Uses>),
    /// A viewer has moved, or the places of assets have changed. Coalesced to one.
    Moved,
    /// A new generation is current: predictions for older ones are void.
    Published(Arc<Live>),
}

/// A load that was answered.
pub struct Loaded {
    /// The generation it was loaded in.
    pub live: Arc<Live>,
    /// The asset.
    pub id: AssetId,
}

/// What an asset depends on.
pub struct Uses {
    /// The generation it was loaded in.
    pub live: Arc<Live>,
    /// The asset.
    pub id: AssetId,
    /// What it uses.
    pub dependencies: Vec<AssetId>,
}
