//! What a driver is asked to do, and what comes back.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::platform::memory::{IoBuffer, Segment};
use crate::storage::{ReadAt, WriteAt};

/// Most segments of one scattered read: what the operating systems take in one call.
pub const SEGMENTS_MAX: usize = 1024;

/// Whether a read goes through the operating system's page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Through it.
    #[default]
    Cached,
    /// Past it, where the file system and the buffer allow it; through it elsewhere. The range is widened to whole
    /// blocks as far as the buffer has room for them ([`ReadDone::within`] says where the bytes asked for begin).
    Direct,
}

/// One read: `len` bytes at `offset` of `source` into `buffer`.
pub struct ReadOp<T> {
    /// What is read. It is kept open until the read is done.
    pub source: Arc<dyn ReadAt>,
    /// The first byte.
    pub offset: u64,
    /// Where the bytes go. It belongs to the driver until it comes back in a [`ReadDone`].
    pub buffer: IoBuffer,
    /// How many bytes, at most the buffer's capacity; exactly that for [`IoBuffer::Scatter`].
    pub len: usize,
    /// Whether through the page cache.
    pub access: Access,
    /// How long it may take, counted from when it is handed to the kernel; `None` as long as it takes. The ring
    /// interrupts a read that takes longer; threads cannot, and end it when it is done.
    pub limit: Option<Duration>,
    /// The caller's own; it comes back untouched.
    pub token: T,
}

/// One write, or a flush. Operations on one file run at once: a flush covers the writes that completed before it was
/// submitted.
pub struct WriteOp<T> {
    /// What is written.
    pub target: Arc<dyn WriteAt>,
    /// What is to be done.
    pub action: WriteAction,
    /// The caller's own; it comes back untouched.
    pub token: T,
}

/// What a [`WriteOp`] does.
pub enum WriteAction {
    /// Writes the first `len` bytes of the buffer at `offset`; the segments of a scattered one in their order, gaps as
    /// zeros.
    Write {
        /// Where in the file.
        offset: u64,
        /// The bytes.
        buffer: IoBuffer,
        /// How many, at most the buffer's capacity; exactly that for [`IoBuffer::Scatter`].
        len: usize,
    },
    /// Makes the bytes durable, and what is needed to find them again (`fdatasync`).
    SyncData,
    /// Makes the bytes and everything that the file system notes about the file durable (`fsync`).
    SyncAll,
}

/// The end of one operation.
pub struct ReadDone<T> {
    /// All `len` bytes are there, or why not: `UnexpectedEof` when the source ends before, `TimedOut` past the limit,
    /// one that [`is_cancelled`] knows after [`Driver::cancel`](super::Driver::cancel).
    pub result: io::Result<()>,
    /// The buffer of the operation.
    pub buffer: IoBuffer,
    /// The length asked for.
    pub len: usize,
    /// Where in the buffer's room the first byte asked for stands: 0 unless a direct read was widened. Always 0 for a
    /// claim and for a scattered read.
    pub within: usize,
    /// The token of the operation.
    pub token: T,
}

impl<T> ReadDone<T> {
    /// The bytes asked for, when the read succeeded. Empty for a scattered read, whose segments hold them.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.room().get(self.within..self.within + self.len).unwrap_or_default()
    }
}

/// The cause inside the error of an operation that was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was cancelled")
    }
}

impl StdError for Cancelled {}

/// Whether `error` says that the operation was cancelled.
pub fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Cancelled>())
}

/// The error of a cancelled operation.
pub(super) fn cancelled() -> io::Error {
    io::Error::other(Cancelled)
}

/// An operation inside the engines.
pub(super) struct Op<T> {
    pub(super) what: What,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) buffer: IoBuffer,
    pub(super) access: Access,
    /// Where in the buffer's room the byte at `offset` goes.
    pub(super) within: usize,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) limit: Option<Duration>,
    pub(super) token: T,
}

/// What an operation does.
pub(super) enum What {
    Read(Arc<dyn ReadAt>),
    Write(Arc<dyn WriteAt>),
    SyncData(Arc<dyn WriteAt>),
    SyncAll(Arc<dyn WriteAt>),
}

impl<T> From<ReadOp<T>> for Op<T> {
    fn from(op: ReadOp<T>) -> Self {
        let ReadOp { source, offset, buffer, len, access, limit, token } = op;
        Op { what: What::Read(source), offset, len, buffer, access, within: 0, limit, token }
    }
}

impl<T> From<WriteOp<T>> for Op<T> {
    fn from(op: WriteOp<T>) -> Self {
        let WriteOp { target, action, token } = op;
        let (what, offset, len, buffer) = match action {
            WriteAction::Write { offset, buffer, len } => (What::Write(target), offset, len, buffer),
            WriteAction::SyncData => (What::SyncData(target), 0, 0, IoBuffer::empty()),
            WriteAction::SyncAll => (What::SyncAll(target), 0, 0, IoBuffer::empty()),
        };
        Op { what, offset, len, buffer, access: Access::Cached, within: 0, limit: None, token }
    }
}

impl<T> Op<T> {
    /// Ends the operation; what it was on is let go of.
    pub(super) fn done(self, result: io::Result<()>) -> ReadDone<T> {
        ReadDone { result, buffer: self.buffer, len: self.len, within: self.within, token: self.token }
    }

    /// Whether the numbers make sense.
    pub(super) fn check(&self) -> io::Result<()> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let capacity = self.buffer.capacity();
        if let IoBuffer::Scatter(segments) = &self.buffer {
            if segments.len() > SEGMENTS_MAX {
                return refuse(format!("{} segments, more than {SEGMENTS_MAX}", segments.len()));
            }
            if self.len != capacity {
                return refuse(format!("{} bytes for segments of {capacity}", self.len));
            }
            if let Some(Segment::Gap(_)) = segments.last() {
                return refuse("segments that end with a gap".to_owned());
            }
            let short = |segment: &Segment| match segment {
                Segment::Pooled(buffer, len) => *len > buffer.as_slice().len(),
                _ => false,
            };
            if segments.iter().any(short) {
                return refuse("a segment is longer than its buffer".to_owned());
            }
        } else if self.len > capacity {
            return refuse(format!("{} bytes for a buffer of {capacity}", self.len));
        }
        if self.offset.checked_add(self.len as u64).is_none_or(|end| end > i64::MAX as u64) {
            return refuse(format!("{} bytes at {}, which no file has", self.len, self.offset));
        }
        Ok(())
    }
}

impl<T> fmt::Debug for ReadOp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOp").field("offset", &self.offset).field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for WriteOp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.action {
            WriteAction::Write { offset, len, .. } => format!("write {len} bytes at {offset}"),
            WriteAction::SyncData => "fdatasync".to_owned(),
            WriteAction::SyncAll => "fsync".to_owned(),
        };
        write!(f, "WriteOp({what})")
    }
}

impl<T> fmt::Debug for ReadDone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDone").field("result", &self.result).field("len", &self.len).finish_non_exhaustive()
    }
}
