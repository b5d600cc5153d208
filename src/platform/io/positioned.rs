//! The portable engine: threads that read at positions and wait for it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::account::{Account, count};
use super::{ReadDone, ReadOp};
use crate::platform::threads::Pool;

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
    pub(super) fn start(&self, ops: Vec<ReadOp<T>>) {
        count(&self.account.counters.positioned, ops.len() as u64);
        for op in ops {
            let account = Arc::clone(&self.account);
            self.pool.submit(LANE, Box::new(move || account.complete(vec![read(op)])));
        }
    }
}

/// Reads here and now. A source that panics has failed, no more.
fn read<T>(mut op: ReadOp<T>) -> ReadDone<T> {
    let result = op.check().and_then(|()| {
        if op.len == 0 {
            return Ok(());
        }
        let into = &mut op.buffer.as_mut_slice()[..op.len];
        let attempt = AssertUnwindSafe(|| op.source.read_exact_at(op.offset, into));
        catch_unwind(attempt).unwrap_or_else(|panic| Err(panicked(&*panic)))
    });
    op.done(result)
}

/// The panic of a source as an error.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    io::Error::other(format!("the source panicked: {what}"))
}
