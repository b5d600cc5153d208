//! What the cache manager is told. It is the only writer of the resident table, so a publication and an admission
//! are never in doubt about which came first.
//!
//! Senders: the decompressor and the dispatcher (`Finished`), the rebuilder (`Publish`). A lost `Finished` gives its
//! leases back; a lost `Publish` is sent again by the rebuilder, and publishing a generation twice is once.

use std::sync::Arc;

use ractor::RpcReplyPort;

use crate::bundle::Bundle;
use crate::ids::AssetId;
use crate::residency::{Asset, Chunk, Content, Lease, Located};

/// To the cache manager.
pub enum CacheManagerMessage {
    /// Contents that are complete in memory: make them resident and answer who waits.
    Finished(Vec<Finished>),
    /// Make a staged generation the one that readers see. Call it with a deadline.
    Publish(Box<Publication>, RpcReplyPort<()>),
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

/// A generation to publish.
pub struct Publication {
    /// The bundle that holds it.
    pub bundle: Bundle,
    /// Every asset that differs, with its new version where it is to be resident at once.
    pub changes: Vec<(AssetId, Option<Asset>)>,
}
