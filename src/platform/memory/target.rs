//! Where the bytes of a read go.

use std::fmt;

use super::{AlignedBuffer, PoolBuffer};
use crate::platform::fill::FillClaim;

/// The destination of a read, or the source of a write. It belongs to the driver while the kernel may touch it
/// (invariant 15), and comes back with the completion.
pub enum IoBuffer {
    /// An allocation of its own.
    Owned(AlignedBuffer),
    /// A part of a pool, registered with the ring where that is allowed.
    Pooled(PoolBuffer),
    /// A part of somebody's final memory. The driver never counts it as filled: who checked the bytes does.
    Claim(FillClaim),
    /// One contiguous range of a file into several places, in the order of the file.
    Scatter(Vec<Segment>),
}

/// One part of a [`IoBuffer::Scatter`].
pub enum Segment {
    /// As many bytes as the claim has.
    Claim(FillClaim),
    /// So many bytes to the start of a part of a pool.
    Pooled(PoolBuffer, usize),
    /// So many bytes that nobody wants: what stands between two frames. Never the last segment.
    Gap(usize),
}

impl Segment {
    /// Bytes of the file that it takes.
    pub fn len(&self) -> usize {
        match self {
            Segment::Claim(claim) => claim.len(),
            Segment::Pooled(_, len) | Segment::Gap(len) => *len,
        }
    }

    /// Whether it takes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes, as far as they were read; a gap keeps none.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Segment::Claim(claim) => claim.as_slice(),
            Segment::Pooled(buffer, len) => buffer.as_slice().get(..*len).unwrap_or_default(),
            Segment::Gap(_) => &[],
        }
    }

    /// All the memory that it may use; none for a gap.
    pub(crate) fn room_mut(&mut self) -> &mut [u8] {
        match self {
            Segment::Claim(claim) => claim.room_mut(),
            Segment::Pooled(buffer, _) => buffer.as_mut_slice(),
            Segment::Gap(_) => &mut [],
        }
    }
}

impl IoBuffer {
    /// No bytes at all: what an operation without data carries.
    pub fn empty() -> Self {
        IoBuffer::Scatter(Vec::new())
    }

    /// The most bytes that a read may ask for with this as its destination.
    pub fn capacity(&self) -> usize {
        match self {
            IoBuffer::Owned(buffer) => buffer.capacity(),
            IoBuffer::Pooled(buffer) => buffer.as_slice().len(),
            IoBuffer::Claim(claim) => claim.len(),
            IoBuffer::Scatter(segments) => segments.iter().map(Segment::len).fold(0, usize::saturating_add),
        }
    }

    /// All the bytes of the memory, as far as they were read; none for [`IoBuffer::Scatter`], whose segments have
    /// theirs.
    pub fn room(&self) -> &[u8] {
        match self {
            IoBuffer::Owned(buffer) => buffer.with_spare(),
            IoBuffer::Pooled(buffer) => buffer.as_slice(),
            IoBuffer::Claim(claim) => claim.room(),
            IoBuffer::Scatter(_) => &[],
        }
    }

    /// All the memory that a read may use; none for [`IoBuffer::Scatter`].
    pub fn room_mut(&mut self) -> &mut [u8] {
        match self {
            IoBuffer::Owned(buffer) => buffer.with_spare_mut(),
            IoBuffer::Pooled(buffer) => buffer.as_mut_slice(),
            IoBuffer::Claim(claim) => claim.room_mut(),
            IoBuffer::Scatter(_) => &mut [],
        }
    }
}

impl From<AlignedBuffer> for IoBuffer {
    fn from(buffer: AlignedBuffer) -> Self {
        IoBuffer::Owned(buffer)
    }
}

impl From<PoolBuffer> for IoBuffer {
    fn from(buffer: PoolBuffer) -> Self {
        IoBuffer::Pooled(buffer)
    }
}

impl From<FillClaim> for IoBuffer {
    fn from(claim: FillClaim) -> Self {
        IoBuffer::Claim(claim)
    }
}

impl fmt::Debug for IoBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoBuffer::Owned(buffer) => buffer.fmt(f),
            IoBuffer::Pooled(buffer) => buffer.fmt(f),
            IoBuffer::Claim(claim) => claim.fmt(f),
            IoBuffer::Scatter(segments) => write!(f, "Scatter({} segments)", segments.len()),
        }
    }
}
