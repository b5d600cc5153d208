//! What an I/O worker is told.
//!
//! Senders: the dispatcher (`LookUp`, `Read`), the worker's own driver (`Completed`). A lost message gives its leases
//! and permits back. Reads that were already with the kernel stay with the driver and complete to the next worker.

use std::time::Instant;

use crate::messages::work::{Permit, ReadToken};
use crate::platform::io::{ReadDone, ReadOp};
use crate::residency::Lease;

/// To an I/O worker.
pub enum IoWorkerMessage {
    /// Find these in their generations' tables of contents; this may fault pages in. Answered by `LookedUp`, with when they
    /// were taken from the ledger.
    LookUp(Vec<Lease>, Permit, Instant),
    /// Read these, at most [`crate::limits::READ_BATCH_MAX`], each with its permit.
    Read(Vec<ReadOp<ReadToken>>),
    /// The driver's reads that completed, well or not.
    Completed(Vec<ReadDone<ReadToken>>),
}

const _: () = assert!(size_of::<IoWorkerMessage>() <= 64, "worker messages are moved often");
