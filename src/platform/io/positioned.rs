//! The portable engine: threads that read at positions and wait for it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::ReadDone;
use super::account::{Account, count};
use super::op::{Op, What};
use crate::platform::memory::{IoBuffer, Segment};
use crate::platform::threads::Pool;
use crate::storage::ReadAt;

/// The lane of all reads: their order was decided above.
const LANE: u8 = 0;

pub(super) struct Positioned<T> {
    pool: Pool,
    account: Arc<Account<T>>,
}

impl<T: Send + 'static> Positioned<T> {
    pub(super) fn new(pool: Pool, account: Arc<Account<T>>) -> Self {
        Self { pool, account }
    }

    /// Reads each of `ops`, which are admitted, and completes it.
    pub(super) fn start(&self, ops: Vec<Op<T>>) {
        count(&self.account.counters.positioned, ops.len() as u64);
        for op in ops {
            let account = Arc::clone(&self.account);
            self.pool.submit(LANE, Box::new(move || account.complete(vec![read(op)])));
        }
    }
}

/// Does it here and now. A source that panics has failed, no more.
fn read<T>(mut op: Op<T>) -> ReadDone<T> {
    let result = op.check().and_then(|()| {
        let attempt = AssertUnwindSafe(|| act(&mut op));
        catch_unwind(attempt).unwrap_or_else(|panic| Err(panicked(&*panic)))
    });
    op.done(result)
}

fn act<T>(op: &mut Op<T>) -> io::Result<()> {
    let (offset, len) = (op.offset, op.len);
    match &op.what {
        What::Read(_) | What::Write(_) if len == 0 => Ok(()),
        What::Read(source) => match &mut op.buffer {
            IoBuffer::Scatter(segments) => scatter(&**source, offset, segments),
            single => source.read_exact_at(offset, &mut single.room_mut()[..len]),
        },
        What::Write(target) => match &op.buffer {
            IoBuffer::Scatter(segments) => {
                let mut at = offset;
                for segment in segments {
                    match segment {
                        Segment::Gap(len) => target.write_all_at(at, &vec![0; *len])?,
                        segment => target.write_all_at(at, segment.bytes())?,
                    }
                    at += segment.len() as u64;
                }
                Ok(())
            }
            single => target.write_all_at(offset, &single.room()[..len]),
        },
        What::SyncData(target) => target.sync(),
        What::SyncAll(target) => target.sync_all(),
    }
}

/// Reads each segment that is wanted; the gaps are not read.
fn scatter(source: &dyn ReadAt, mut at: u64, segments: &mut [Segment]) -> io::Result<()> {
    for segment in segments {
        let len = segment.len();
        if !matches!(segment, Segment::Gap(_)) {
            source.read_exact_at(at, &mut segment.room_mut()[..len])?;
        }
        at += len as u64;
    }
    Ok(())
}

/// The panic of a source as an error.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    io::Error::other(format!("the source panicked: {what}"))
}
