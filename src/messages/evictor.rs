//! What the evictor is told.
//!
//! Senders: the cache manager (`Admitted`, `Removed`), the dispatcher (`MakeRoom`). All but `MakeRoom` are hints: a
//! restart rebuilds what a lost one said from the resident table. A lost `MakeRoom` is repeated by the dispatcher's tick.

use crate::ids::{AssetId, AssetKind};

/// To the evictor. Senders: the cache manager (`Admitted`, `Relieve`), the dispatcher (`MakeRoom`).
pub enum EvictorMessage {
    /// These became resident.
    Admitted(Vec<(AssetId, u64, AssetKind)>),
    /// These are no longer resident, by publication rather than eviction.
    Removed(Vec<AssetId>),
    /// Evict until so many bytes are unlinked, of this kind when one is named. Answered to the dispatcher by
    /// `RoomMade`, also when nothing could be evicted.
    MakeRoom {
        /// Bytes that are missing.
        bytes: u64,
        /// The kind whose budget is full; `None` for the total.
        kind: Option<AssetKind>,
    },
}
