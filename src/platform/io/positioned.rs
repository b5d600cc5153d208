//! The portable engine: threads that read at positions and wait for it.
//!
//! It serves every source, also those without a file of the operating system under them.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::ReadDone;
use super::account::{Account, count};
use super::engine::{Engine, Which, is_meant};
use super::op::{Op, What, cancelled};
use super::plan::{Plan, Widths};
use crate::platform::memory::{IoBuffer, Segment};
use crate::platform::threads::Pool;
use crate::storage::{Direct, ReadAt, WriteAt};

/// The lane of all reads: their order was decided above.
const LANE: u8 = 0;
/// Zeros to write where a scattered write has a gap.
const ZEROS: [u8; 4096] = [0; 4096];

pub(super) struct Positioned<T> {
    pool: Pool,
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    account: Arc<Account<T>>,
    /// Operations that no thread has begun, in order. Each has one job in the pool that takes the first of them.
    waiting: Mutex<VecDeque<Op<T>>>,
}

impl<T> Shared<T> {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Op<T>>> {
        // Nothing that may panic runs under this mutex.
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: Send + 'static> Positioned<T> {
    pub(super) fn new(pool: Pool, account: Arc<Account<T>>) -> Self {
        Self { pool, shared: Arc::new(Shared { account, waiting: Mutex::default() }) }
    }
}

impl<T: Send + 'static> Engine<T> for Positioned<T> {
    fn name(&self) -> &'static str {
        "positioned"
    }

    fn start(&self, ops: Vec<Op<T>>) {
        let jobs = ops.len();
        count(&self.shared.account.counters.positioned, jobs as u64);
        self.shared.waiting().extend(ops);
        for _ in 0..jobs {
            let shared = Arc::clone(&self.shared);
            let job = move || {
                let first = shared.waiting().pop_front();
                // None when as many were cancelled meanwhile.
                if let Some(op) = first {
                    let done = perform(op, &shared.account);
                    shared.account.complete(vec![done]);
                }
            };
            self.pool.submit(LANE, Box::new(job));
        }
    }

    fn cancel(&self, which: Which<T>) {
        let mut waiting = self.shared.waiting();
        let all = std::mem::take(&mut *waiting);
        let (ended, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|op| is_meant(&which, &op.token));
        *waiting = kept.into();
        drop(waiting);
        self.shared.account.complete(ended.into_iter().map(|op| op.done(Err(cancelled()))).collect());
    }

    fn stop(&self) {
        self.pool.stop();
    }
}

/// Does it here and now. A source that panics has failed, no more.
fn perform<T>(mut op: Op<T>, account: &Account<T>) -> ReadDone<T> {
    let result = op.check().and_then(|()| {
        let attempt = AssertUnwindSafe(|| act(&mut op, account));
        catch_unwind(attempt).unwrap_or_else(|panic| Err(panicked(&*panic)))
    });
    op.done(result)
}

fn act<T>(op: &mut Op<T>, account: &Account<T>) -> io::Result<()> {
    match &op.what {
        What::Read(_) | What::Write(_) if op.len == 0 => Ok(()),
        What::Read(source) => {
            let source = Arc::clone(source);
            let plan = op.plan();
            account.note_access(op.access, plan.direct);
            if let Some(direct) = source.direct().filter(|_| plan.direct) {
                match read_blocks(direct, &plan, &mut op.buffer) {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                    // The file system takes the flag and not the read: through the cache, then.
                    Err(_) => {}
                }
            }
            op.plan_cached();
            read_all(&*source, op.offset, op.len, &mut op.buffer)
        }
        What::Write(target) => write_all(&**target, op.offset, op.len, &op.buffer),
        What::SyncData(target) => target.sync(),
        What::SyncAll(target) => target.sync_all(),
    }
}

/// Reads exactly what is wanted; gaps are not read.
fn read_all(source: &dyn ReadAt, offset: u64, len: usize, buffer: &mut IoBuffer) -> io::Result<()> {
    let IoBuffer::Scatter(segments) = buffer else {
        return source.read_exact_at(offset, &mut buffer.room_mut()[..len]);
    };
    let mut at = offset;
    for segment in segments {
        let len = segment.len();
        if !matches!(segment, Segment::Gap(_)) {
            source.read_exact_at(at, &mut segment.room_mut()[..len])?;
        }
        at += len as u64;
    }
    Ok(())
}

fn write_all(target: &dyn WriteAt, offset: u64, len: usize, buffer: &IoBuffer) -> io::Result<()> {
    let IoBuffer::Scatter(segments) = buffer else {
        return target.write_all_at(offset, &buffer.room()[..len]);
    };
    let mut at = offset;
    for segment in segments {
        if let Segment::Gap(len) = segment {
            for done in (0..*len).step_by(ZEROS.len()) {
                target.write_all_at(at + done as u64, &ZEROS[..ZEROS.len().min(len - done)])?;
            }
        } else {
            target.write_all_at(at, segment.bytes())?;
        }
        at += segment.len() as u64;
    }
    Ok(())
}

/// Reads whole blocks past the page cache; gaps are not read.
fn read_blocks(direct: Direct<'_>, plan: &Plan, buffer: &mut IoBuffer) -> io::Result<()> {
    let part = |at: u64, room: &mut [u8], need: usize| {
        let mut read = 0;
        while read < need {
            match read_at(direct.file, &mut room[read..], at + read as u64) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    match (&plan.widths, buffer) {
        (Widths::Each(widths), IoBuffer::Scatter(segments)) => {
            let mut at = plan.start;
            for (segment, width) in segments.iter_mut().zip(widths) {
                let need = segment.len();
                if !matches!(segment, Segment::Gap(_)) {
                    part(at, &mut segment.room_mut()[..*width], need)?;
                }
                at += *width as u64;
            }
            Ok(())
        }
        (Widths::One(width), single) => part(plan.start, &mut single.room_mut()[..*width], plan.need),
        (Widths::Each(_), _) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(unix)]
fn read_at(file: &std::fs::File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn read_at(file: &std::fs::File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

/// The panic of a source as an error.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    io::Error::other(format!("the source panicked: {what}"))
}
