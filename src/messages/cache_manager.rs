//! What the cache manager is told.
//!
//! Senders: the decompressor and the dispatcher. A lost `Finished` gives its leases back.

use std::sync::Arc;

use crate::residency::{Chunk, Content, Lease, Located};

/// To the cache manager.
pub enum CacheManagerMessage {
    /// Contents that are complete in memory: make them resident and answer who waits.
    Finished(Vec<Finished>),
}

/// A complete content.
pub struct Finished {
    /// The request.
    pub lease: Lease,
    /// What it asked for.
    pub located: Arc<Located>,
    /// Its bytes.
    pub filled: Filled,
}

/// Complete bytes.
pub enum Filled {
    /// All of an asset.
    Content(Arc<Content>),
    /// A piece of one, for a stream: never resident.
    Piece(Chunk),
}
