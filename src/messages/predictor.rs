//! What the predictor is told.
//!
//! Senders: the cache manager (`Loaded`), its own offloaded look-ups (`Uses`, `Ordered`), whoever publishes (`Published`),
//! viewers (`Moved`), a timer (`Look`). All of it are hints: what is lost is not learned from or not predicted.

use std::sync::Arc;

use crate::ids::{AssetId, AssetKind};
use crate::residency::{Live, Order};

/// To the predictor.
pub enum PredictorMessage {
    /// These were loaded.
    Loaded(Vec<Loaded>),
    /// What these depend on, as it was looked up for the predictor.
    Uses(Vec<Uses>),
    /// The order of all assets of a generation, or none where there are too many.
    Ordered(Option<Arc<Order>>),
    /// A new generation is current.
    Published(Arc<Live>),
    /// A viewer has moved, or the places of assets have changed. Coalesced to one.
    Moved,
    /// Look what became of the prefetches. Every few milliseconds while there are any.
    Look,
}

/// A load that was answered.
pub struct Loaded {
    /// The generation it was loaded in.
    pub live: Arc<Live>,
    /// The asset.
    pub id: AssetId,
    /// The bytes it is charged.
    pub bytes: u64,
    /// What it is.
    pub kind: AssetKind,
    /// Whether anything is to be found that it depends on.
    pub has_dependencies: bool,
    /// Whether nobody but the predictor asked for it.
    pub speculative: bool,
}

/// What an asset depends on.
pub struct Uses {
    /// The asset, as it was loaded.
    pub loaded: Loaded,
    /// What it uses, and what that uses, the nearest first.
    pub dependencies: Vec<AssetId>,
}

const _: () = assert!(size_of::<PredictorMessage>() <= 64, "predictor messages are moved often");
