//! What the decompressor is told. Sender: the I/O workers. A lost batch gives its leases and permits back.

use crate::messages::work::ReadToken;
use crate::platform::io::ReadDone;

/// To the decompressor.
pub enum DecompressorMessage {
    /// Check and decode the frames of these completed reads; the finished assets go to the cache manager.
    Decode {
        /// Whose worker read them, by its place: they are decoded on that NUMA node.
        place: usize,
        /// The reads.
        reads: Vec<ReadDone<ReadToken>>,
    },
}
