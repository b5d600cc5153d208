//! What the predictor is told. Sender: the cache manager. All of it are hints: what is lost is not predicted.

use std::sync::Arc;

use crate::ids::AssetId;
use crate::residency::Live;

/// To the predictor. Sender: the cache manager.
pub enum PredictorMessage {
    /// These were loaded and are what a program now uses.
    Loaded(Vec<Loaded>),
    /// A new generation is current: predictions for older ones are void.
    Published(Arc<Live>),
}

/// A load that was answered.
pub struct Loaded {
    /// The generation it was loaded in.
    pub live: Arc<Live>,
    /// The asset.
    pub id: AssetId,
    /// What it uses.
    pub dependencies: Vec<AssetId>,
}
