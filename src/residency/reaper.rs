//! Large frees on a thread of their own, since giving a large buffer back to the operating system takes long enough
//! to be felt on a host's async worker (invariant 13).
//!
//! Nothing depends on the reaper for correctness: when there is none, or it has ended, whoever drops the last handle
//! frees in place. A charge travels with its buffer and ends after it, wherever that happens.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::budget::{Budget, Charge};
use crate::limits;
use crate::platform::affinity::CpuSet;
use crate::platform::memory::AlignedBuffer;
use crate::platform::threads::Threads;

/// Memory that nobody uses any more.
pub(super) struct Garbage {
    pub(super) buffer: AlignedBuffer,
    pub(super) charge: Charge,
}

impl Garbage {
    /// Frees the bytes, and then ends their charge.
    fn free(self) {
        drop(self.buffer);
        drop(self.charge);
    }
}

/// Where a budget's garbage goes: to the reaper while one runs. The queue is bounded by the budget: what waits in it
/// is still charged, and each piece has at least [`limits::LARGE_FREE_BYTES`].
#[derive(Default)]
pub(super) struct Bin(ArcSwapOption<Sender<Garbage>>);

impl Bin {
    /// Frees `garbage`: on the reaper when it is large and there is one, else here.
    pub(super) fn throw(&self, garbage: Garbage) {
        if garbage.buffer.len() >= limits::LARGE_FREE_BYTES
            && let Some(sender) = &*self.0.load()
        {
            if let Err(refused) = sender.send(garbage) {
                refused.into_inner().free();
            }
        } else {
            garbage.free();
        }
    }
}

/// The thread that does a budget's large frees. Dropping it frees what waits and joins the thread.
pub struct Reaper {
    budget: Arc<Budget>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reaper {
    /// Starts the thread and sends it the large frees of `budget` from now on.
    ///
    /// # Errors
    /// What the operating system says when it cannot start a thread.
    pub fn start(threads: &dyn Threads, budget: &Arc<Budget>) -> io::Result<Reaper> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let thread = threads.spawn("flyloft-reaper", &CpuSet::default(), Box::new(move || reap(&receiver)))?;
        budget.bin.0.store(Some(Arc::new(sender)));
        Ok(Reaper { budget: Arc::clone(budget), thread: Mutex::new(Some(thread)) })
    }

    /// Frees what waits and joins the thread; later frees happen in place. Does nothing the second time.
    pub fn stop(&self) {
        self.budget.bin.0.store(None);
        let Some(thread) = self.thread.lock().take() else { return };
        if thread.thread().id() != std::thread::current().id() {
            // It catches every panic, so a failed join has nothing to tell.
            drop(thread.join());
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends when the last sender is gone, after everything that was sent is free.
fn reap(receiver: &Receiver<Garbage>) {
    for garbage in receiver {
        // The wake-up callback of a budget is foreign code; its panic must not end the thread.
        drop(catch_unwind(AssertUnwindSafe(|| garbage.free())));
    }
}
