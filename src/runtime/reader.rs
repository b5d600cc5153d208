//! An asset read piece by piece, in bounded memory: two pieces of at most 1 MiB, however large the asset is.

use std::future::{Future, poll_fn};
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use super::load::ask;
use super::{DEFAULT_PRIORITY, Snapshot};
use crate::bundle::AssetRecord;
use crate::error::{Error, Result};
use crate::ids::{AssetKind, AssetPath, ContentHash, Generation, Origin, Priority};
use crate::limits;
use crate::residency::{Answer, Key, Ticket, Want};

/// The first piece of a stream whose end is not known: enough for a header, cheap to throw away.
const FIRST_BYTES: u64 = limits::FRAME_ACCESS_BYTES_MAX as u64;

/// A stream of the bytes of a range, each chunk checked and decoded. It reads one piece ahead.
pub struct Chunks {
    snapshot: Snapshot,
    record: AssetRecord,
    priority: Priority,
    /// What is still to be asked for.
    rest: Range<u64>,
    /// The largest piece to ask for next.
    step: u64,
    current: Option<Ticket>,
    ahead: Option<Ticket>,
}

impl Chunks {
    fn new(snapshot: Snapshot, record: AssetRecord, range: Range<u64>, step: u64) -> Self {
        let end = range.end.min(record.len);
        let rest = range.start.min(end)..end;
        Self { snapshot, record, priority: DEFAULT_PRIORITY, rest, step, current: None, ahead: None }
    }

    /// How urgent it is. Default medium.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The next chunk, or `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Asks for the next piece, up to the next multiple of the step, so that pieces end where frames do.
    fn ask_next(&mut self) -> Result<Option<Ticket>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.rest.start;
        let end = ((start / self.step + 1) * self.step).min(self.rest.end);
        let shared = &self.snapshot.shared;
        let ask = ask(shared, self.record.path.clone(), self.priority, Origin::System, None, shared.clock.now());
        let len = (end - start) as u32;
        let want = Want::Piece { offset: start, len };
        let key = Key { generation: self.snapshot.generation(), id: self.record.id, want };
        let (ticket, _) = shared.ledger.join(&self.snapshot.live, key, ask)?;
        self.step = (self.step * 4).min(limits::STREAM_BYTES_MAX as u64);
        self.rest.start = end;
        Ok(Some(ticket))
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = &mut *self;
        if this.current.is_none() {
            this.current = this.ahead.take();
        }
        if this.current.is_none() {
            match this.ask_next() {
                Ok(Some(ticket)) => this.current = Some(ticket),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        if this.ahead.is_none() {
            // A refusal is told when the piece is really wanted.
            this.ahead = this.ask_next().unwrap_or(None);
        }
        let Some(ticket) = &mut this.current else { return Poll::Ready(None) };
        let answer = ready!(Pin::new(ticket).poll(context));
        this.current = None;
        Poll::Ready(Some(match answer {
            Ok(Answer::Piece(chunk)) => Ok(chunk.into_bytes()),
            Ok(_) => Err(Error::Failed { cause: "a stream was answered with something else".into() }),
            Err(error) => {
                // Nothing follows a failure: the bytes after it would be taken for the bytes at it.
                this.rest.start = this.rest.end;
                this.ahead = None;
                Err(error)
            }
        }))
    }
}

/// An asset of one generation, as `AsyncRead` and `AsyncSeek`, or as a stream of chunks. It holds its generation, and
/// at most two pieces of 1 MiB of memory.
pub struct AssetReader {
    snapshot: Snapshot,
    record: AssetRecord,
    position: u64,
    chunks: Option<Chunks>,
    /// What is left of the last chunk.
    buffered: Bytes,
}

impl AssetReader {
    pub(super) fn new(snapshot: Snapshot, record: AssetRecord) -> Self {
        Self { snapshot, record, position: 0, chunks: None, buffered: Bytes::new() }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.record.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.record.len == 0
    }

    /// The hash of its content.
    pub fn hash(&self) -> ContentHash {
        self.record.content
    }

    /// Its path.
    pub fn path(&self) -> &AssetPath {
        &self.record.path
    }

    /// Its kind.
    pub fn kind(&self) -> AssetKind {
        self.record.kind
    }

    /// The generation it is read from.
    pub fn generation(&self) -> Generation {
        self.snapshot.generation()
    }

    /// The bytes of `range`, cut to the asset's end, as a stream. Reads only the frames that the range touches.
    pub fn chunks(&self, range: Range<u64>) -> Chunks {
        Chunks::new(self.snapshot.clone(), self.record.clone(), range, limits::STREAM_BYTES_MAX as u64)
    }

    fn fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.buffered.is_empty() && self.position < self.record.len {
            let (snapshot, record, position) = (&self.snapshot, &self.record, self.position);
            let start = || Chunks::new(snapshot.clone(), record.clone(), position..record.len, FIRST_BYTES);
            let chunks = self.chunks.get_or_insert_with(start);
            match ready!(Pin::new(chunks).poll_next(context)) {
                Some(Ok(bytes)) => self.buffered = bytes,
                Some(Err(error)) => {
                    self.chunks = None;
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for AssetReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.fill(context))?;
        let count = self.buffered.len().min(into.remaining());
        into.put_slice(&self.buffered.split_to(count));
        self.position += count as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for AssetReader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.record.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let target = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start"))?;
        let forward = target.checked_sub(self.position).filter(|by| *by <= self.buffered.len() as u64);
        match forward {
            // Within the last chunk: nothing is read again.
            Some(by) => drop(self.buffered.split_to(by as usize)),
            None => {
                self.buffered = Bytes::new();
                self.chunks = None;
            }
        }
        self.position = target;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
