//! Decoded bytes in memory, and what they are charged.
//!
//! A [`Content`] is the bytes of an asset, identified by their hash and shared by every name they have. A [`Chunk`]
//! is a piece of a streamed one. Both hold the charge for their memory, and the charge ends exactly
//! when the memory is free (invariant 7): the buffer goes first, then the charge, on the reaper when it is large.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::budget::Charge;
use super::hold::SteadyBytes;
use super::reaper::Garbage;
use super::typed::{Beside, Value};
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::limits;
use crate::platform::fill::{FillBuffer, FillClaim};
use crate::platform::memory::AlignedBuffer;

/// Memory with its charge. Dropping it hands both to the reaper, or frees them in that order.
struct Memory {
    buffer: AlignedBuffer,
    charge: Charge,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // An empty buffer allocates nothing. Were it refused, the fields would be freed here, in their order.
        if let Some(empty) = AlignedBuffer::new_zeroed(0, limits::RESIDENT_ALIGN) {
            let buffer = std::mem::replace(&mut self.buffer, empty);
            let charge = self.charge.take();
            let budget = Arc::clone(charge.budget());
            budget.bin.throw(Garbage { buffer, charge });
        }
    }
}

/// The decoded bytes of an asset, whatever it is called.
pub struct Content {
    hash: ContentHash,
    memory: Memory,
    beside: Beside,
}

impl Content {
    /// Takes `len` bytes of memory, 64-byte aligned, under `charge`.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no such memory. The charge is given back then.
    pub fn build(len: usize, charge: Charge) -> Result<ContentBuilder> {
        Self::build_in(charge.budget().memory(usize::from(charge.place()), len, limits::RESIDENT_ALIGN), len, charge)
    }

    /// As [`Content::build`], in whole blocks of memory, for what the disk may write into it directly. The charge is
    /// to be for [`Content::in_blocks`] bytes.
    ///
    /// # Errors
    /// As [`Content::build`].
    pub fn build_in_blocks(len: usize, charge: Charge) -> Result<ContentBuilder> {
        Self::build_in(
            charge.budget().memory_in_blocks(usize::from(charge.place()), len, limits::BLOCK_BYTES),
            len,
            charge,
        )
    }

    /// What `len` bytes take in whole blocks.
    pub fn in_blocks(len: u64) -> u64 {
        len.checked_next_multiple_of(limits::BLOCK_BYTES as u64).unwrap_or(u64::MAX)
    }

    fn build_in(buffer: Option<AlignedBuffer>, len: usize, charge: Charge) -> Result<ContentBuilder> {
        match buffer {
            Some(buffer) => {
                Ok(ContentBuilder { target: Arc::new(FillBuffer::new(buffer)), charge: Mutex::new(charge) })
            }
            None => {
                Err(Error::io(format!("allocate {len} bytes"), "memory", io::Error::from(io::ErrorKind::OutOfMemory)))
            }
        }
    }

    /// The hash of the bytes.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// On which NUMA node its memory was taken, by its place.
    pub fn place(&self) -> u8 {
        self.memory.charge.place()
    }

    /// What it is charged, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.memory.charge.bytes()
    }

    /// The value of type `T` that was decoded from it, if one is kept beside it; `tick` is when it is used. Takes no
    /// lock.
    #[inline]
    pub fn value<T: Send + Sync + 'static>(&self, tick: u32) -> Option<Arc<Value<T>>> {
        self.beside.get(tick)
    }

    pub(super) fn beside(&self) -> &Beside {
        &self.beside
    }

    /// What comes free when it is let go of: its own bytes, and those of values beside it that nobody else holds.
    pub(super) fn evictable_bytes(&self) -> u64 {
        self.weight_bytes() + self.beside.idle_bytes()
    }
}

impl Deref for Content {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.memory.buffer.as_slice()
    }
}

impl SteadyBytes for Arc<Content> {
    /// They are in a buffer that is written to by nobody and freed with the content.
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, {})", self.len(), self.hash)
    }
}

/// Memory that is being filled, by as many threads as there are pieces. Dropping it frees it and ends its charge.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use flyloft::{AssetKind, ContentHash, residency::{Budget, Content}};
/// let budget = Budget::new(1 << 20, 0, &BTreeMap::new());
/// let charge = budget.try_charge(AssetKind::Text, 5).expect("there is room");
/// let builder = Content::build(5, charge)?;
/// builder.fill(3, 2, |into| Ok(into.copy_from_slice(b"lo")))?;
/// assert!(builder.finish(ContentHash::of(b"hello")).is_none(), "three bytes are missing");
/// builder.fill(0, 3, |into| Ok(into.copy_from_slice(b"hel")))?;
/// let content = builder.finish(ContentHash::of(b"hello")).expect("it is complete");
/// assert_eq!(&content[..], b"hello");
/// # Ok::<(), flyloft::Error>(())
/// ```
pub struct ContentBuilder {
    target: Arc<FillBuffer>,
    charge: Mutex<Charge>,
}

impl ContentBuilder {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.target.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets `fill` fill the `len` bytes at `to`. Several threads may fill different bytes at once.
    ///
    /// # Errors
    /// What `fill` says; [`Error::Corrupt`] when the bytes lie outside or were filled before, which only pieces that
    /// contradict each other can want. Bytes whose filling failed stay missing.
    pub fn fill(&self, to: usize, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let twice = || Error::corrupt("memory", format!("bytes {to} and {len} on are not there to be filled"));
        self.target.fill(to, len, fill).unwrap_or_else(|| Err(twice()))
    }

    /// The `len` bytes at `to`, for a read that fills them. They count as filled when the claim says so. A claim is to
    /// end before the builder does, since the charge goes with the builder. `None` as [`ContentBuilder::fill`] refuses.
    pub fn claim(&self, to: usize, len: usize) -> Option<FillClaim> {
        self.target.claim(to, len)
    }

    /// The content, once, when every byte is filled. `hash` is the hash of the bytes by an authenticated table of
    /// contents; it is not computed here.
    pub fn finish(&self, hash: ContentHash) -> Option<Arc<Content>> {
        let buffer = self.target.take()?;
        let memory = Memory { buffer, charge: self.charge.lock().take() };
        Some(Arc::new(Content { hash, memory, beside: Beside::default() }))
    }
}

impl Drop for ContentBuilder {
    fn drop(&mut self) {
        let target = Arc::get_mut(&mut self.target);
        debug_assert!(target.is_some(), "a claim outlives the charge for its memory");
        if let Some(buffer) = target.and_then(FillBuffer::take_unfinished) {
            drop(Memory { buffer, charge: self.charge.get_mut().take() });
        }
    }
}

impl fmt::Debug for ContentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// A piece of a streamed asset: decoded bytes and where they stand in it. Cheap to clone; the memory, and its charge,
/// last until the last clone.
#[derive(Clone)]
pub struct Chunk {
    /// The piece. Its hash is that of the whole asset.
    piece: Arc<Content>,
    range: Range<usize>,
    offset: u64,
}

impl Chunk {
    /// The bytes of `piece`, which stand at `offset` of their asset.
    pub fn new(offset: u64, piece: Arc<Content>) -> Chunk {
        let range = 0..piece.len();
        Chunk { piece, range, offset }
    }

    /// Where in the asset its first byte stands.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// A part of it, over the same memory; `None` when `range` is not within it.
    pub fn slice(&self, range: Range<usize>) -> Option<Chunk> {
        self.get(range.clone())?;
        let from = self.range.start;
        Some(Chunk {
            piece: Arc::clone(&self.piece),
            range: from + range.start..from + range.end,
            offset: self.offset + range.start as u64,
        })
    }

    /// The same bytes as [`Bytes`], without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.piece[self.range.clone()]
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Chunk> for Bytes {
    fn from(chunk: Chunk) -> Bytes {
        chunk.into_bytes()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes at {})", self.len(), self.offset)
    }
}

#[cfg(test)]
#[path = "content/tests.rs"]
mod tests;
