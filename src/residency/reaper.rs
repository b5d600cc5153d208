//! What the operating system takes its time with, on a thread of its own: giving a large buffer back takes long enough
//! to be felt on a host's async worker (invariant 13), and making fresh memory ready long enough to hold up reads.
//!
//! Nothing depends on the reaper for correctness: when there is none, or it has ended, whoever drops the last handle
//! frees in place. A charge travels with its buffer and ends after it, wherever that happens.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::budget::{Budget, Charge};
use crate::limits;
use crate::platform::affinity::CpuSet;
use crate::platform::memory::{AlignedBuffer, Heap};
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

/// What the reaper is asked for.
enum Chore {
    Free(Garbage, Waiting),
    /// A value of whatever type, and its charge, which ends after it.
    Drop(Box<dyn Any + Send>, Charge, Waiting),
    Warm(Arc<Heap>),
}

impl Chore {
    fn run(self) {
        match self {
            Self::Free(garbage, waiting) => {
                garbage.free();
                drop(waiting);
            }
            Self::Drop(value, charge, waiting) => {
                drop(value);
                drop(charge);
                drop(waiting);
            }
            Self::Warm(heap) => heap.warm(),
        }
    }
}

/// Where a budget's garbage goes: to the reaper while one runs. The queue is bounded by the budget: what waits in it
/// is still charged, and each piece has at least [`limits::LARGE_FREE_BYTES`].
#[derive(Default)]
pub(super) struct Bin {
    sender: ArcSwapOption<Sender<Chore>>,
    /// Bytes that were sent and are not free yet.
    waiting: Arc<AtomicU64>,
}

/// Counts bytes for as long as it is there.
struct Waiting(Arc<AtomicU64>, u64);

impl Waiting {
    fn of(count: &Arc<AtomicU64>, bytes: u64) -> Self {
        count.fetch_add(bytes, Ordering::Relaxed);
        Self(Arc::clone(count), bytes)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Bin {
    /// Frees `garbage`: on the reaper when it is large and there is one, else here. A block of a heap is given back here
    /// whatever its size, since the system has no part in that.
    pub(super) fn throw(&self, garbage: Garbage) {
        if garbage.buffer.len() >= limits::LARGE_FREE_BYTES
            && !garbage.buffer.is_lent()
            && let Some(sender) = &*self.sender.load()
        {
            let waiting = Waiting::of(&self.waiting, garbage.charge.bytes());
            if let Err(refused) = sender.send(Chore::Free(garbage, waiting)) {
                refused.into_inner().run();
            }
        } else {
            garbage.free();
        }
    }

    /// Drops `value`, and then ends its charge: on the reaper when it is large and there is one, else here.
    pub(super) fn throw_value<T: Send + 'static>(&self, value: T, charge: Charge) {
        if charge.bytes() >= limits::LARGE_FREE_BYTES as u64
            && let Some(sender) = &*self.sender.load()
        {
            let waiting = Waiting::of(&self.waiting, charge.bytes());
            if let Err(refused) = sender.send(Chore::Drop(Box::new(value), charge, waiting)) {
                refused.into_inner().run();
            }
        } else {
            drop(value);
            drop(charge);
        }
    }

    /// Bytes that wait for the reaper.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Has memory of `heap` made ready when use comes near the end of what is. Without a reaper it never is.
    pub(super) fn warm(&self, heap: &Arc<Heap>) {
        if let Some(sender) = &*self.sender.load()
            && heap.is_cold()
        {
            // Refused, it is not made ready: the reaper has ended, and so has the runtime.
            drop(sender.send(Chore::Warm(Arc::clone(heap))));
        }
    }
}

/// The thread that does a budget's large frees and makes its memory ready. Dropping it frees what waits and joins the thread.
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
        budget.bin.sender.store(Some(Arc::new(sender)));
        Ok(Reaper { budget: Arc::clone(budget), thread: Mutex::new(Some(thread)) })
    }

    /// Frees what waits and joins the thread; later frees happen in place. Does nothing the second time.
    pub fn stop(&self) {
        self.budget.bin.sender.store(None);
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
fn reap(receiver: &Receiver<Chore>) {
    for chore in receiver {
        // The wake-up callback of a budget is foreign code; its panic must not end the thread.
        drop(catch_unwind(AssertUnwindSafe(|| chore.run())));
    }
}
