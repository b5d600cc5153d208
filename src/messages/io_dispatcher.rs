//! What the I/O dispatcher is told.
//!
//! Senders: the ledger's wake-up (`Ready`), I/O workers (`LookedUp`), the budget (`RoomMade`), the evictor (`Evicted`), permits
//! (`Credit`), the predictor (`Prefetch`), viewers (`ViewersMoved`), timers (`Tokens`, `Tick`). Order does not matter between senders. Every message
//! but `LookedUp` and `Prefetch` is a wake-up that a restart repeats by itself; a lost `LookedUp` gives its
//! leases back; a lost `Prefetch` was only a wish.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::ids::AssetId;
use crate::residency::{Lease, Live, Located};

/// To the I/O dispatcher.
pub enum DispatcherMessage {
    /// The ledger's inbox has work, or a stage came up.
    Ready,
    /// Tables of contents were read; one outcome per lease.
    LookedUp(Vec<Lookup>),
    /// Memory came free.
    RoomMade,
    /// What the evictor was asked for is done, as far as it could.
    Evicted,
    /// A read's permit or its part of the I/O reserve came back.
    Credit,
    /// Load these at low priority, if nothing speaks against it.
    Prefetch(Vec<Prefetch>),
    /// A viewer has moved, or the places of assets have changed: put what is queued in order anew. Coalesced to one.
    ViewersMoved,
    /// The bandwidth has tokens again for what it held back.
    Tokens,
    /// Look at deadlines: of requests, and of loads that wait for memory. Every 5 ms while any waits.
    Tick,
}

/// Where an asset's bytes are.
pub struct Lookup {
    /// The request.
    pub lease: Lease,
    /// Its place, or why there is none.
    pub located: Result<Arc<Located>>,
    /// When it was taken from the ledger.
    pub since: Instant,
}

/// One wish of the predictor.
pub struct Prefetch {
    /// The generation it was predicted in.
    pub live: Arc<Live>,
    /// The asset.
    pub id: AssetId,
    /// Whether who wishes it is known to be right often enough.
    pub proven: bool,
}

const _: () = assert!(size_of::<DispatcherMessage>() <= 64, "dispatcher messages are moved often");
