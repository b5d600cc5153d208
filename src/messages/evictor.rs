//! What the evictor is told.
//!
//! Senders: the cache manager (`Residents`), the dispatcher (`MakeRoom`), whoever notices pressure (`Relieve`), the program
//! (`Switch`), and itself (`RelieveOn`). What is resident is noted beside the actors
//! and taken in by the evictor when it has to choose, so that a load wakes nobody for it; a restart rebuilds it from the
//! resident table. A lost `MakeRoom` is repeated by the
//! dispatcher's tick, a lost `Relieve` by the next rise; a `Switch` is what the next evictor begins with, whether it comes
//! or not.

use crate::ids::AssetKind;

/// To the evictor.
pub enum EvictorMessage {
    /// Many became resident since it last looked: take them in. A hint.
    Residents,
    /// Evict until so many bytes are unlinked, of this kind when one is named. Answered to the dispatcher by
    /// `Evicted`, unless nothing could be evicted.
    MakeRoom {
        /// Bytes that are missing.
        bytes: u64,
        /// The kind whose budget is full; `None` for the total.
        kind: Option<AssetKind>,
    },
    /// The pressure is high: evict what is above the target of the budget, a small batch at a time, so that loads which
    /// need room come in between.
    Relieve,
    /// The next step of that.
    RelieveOn,
    /// The policy is to be another one: the one that the shared choice names.
    Switch,
}
