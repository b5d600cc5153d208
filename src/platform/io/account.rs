//! What every engine shares: how many reads are in flight, and the way of a completion to whoever listens.
//!
//! A completion is parked first and then given to the sink by one thread at a time, in order. Whoever is replaced as
//! the sink loses nothing, and a sink that panics stops nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use tokio::sync::Notify;

use super::op::{Access, Op};
use super::{DriverStats, ReadDone};

type Sink<T> = Arc<dyn Fn(Vec<ReadDone<T>>) + Send + Sync>;

pub(super) struct Account<T> {
    depth: usize,
    state: Mutex<State<T>>,
    /// Signalled when nothing is in flight and nothing is being delivered.
    idle: Condvar,
    /// Wakes the driver's thread: reads were submitted, or it is time to end.
    wake: Notify,
    pub(super) counters: Counters,
}

struct State<T> {
    /// Admitted and not completed.
    in_flight: usize,
    closed: bool,
    sink: Option<Sink<T>>,
    /// Completed and not yet given to a sink.
    parked: Vec<ReadDone<T>>,
    /// The thread that is calling a sink.
    deliverer: Option<ThreadId>,
}

/// Counted without the mutex, by the engines.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) submitted: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) sleeps: AtomicU64,
    pub(super) continued: AtomicU64,
    pub(super) positioned: AtomicU64,
    pub(super) sink_panics: AtomicU64,
    pub(super) direct: AtomicU64,
    pub(super) not_direct: AtomicU64,
    pub(super) fixed: AtomicU64,
    pub(super) polls: AtomicU64,
    pub(super) poll_hits: AtomicU64,
    pub(super) overflows: AtomicU64,
    pub(super) depth_now: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl<T> Account<T> {
    pub(super) fn new(depth: usize) -> Self {
        let state = State { in_flight: 0, closed: false, sink: None, parked: Vec::new(), deliverer: None };
        Self {
            depth,
            state: Mutex::new(state),
            idle: Condvar::new(),
            wake: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// Splits off what may be in flight; the second part is the rest.
    pub(super) fn admit<O: Into<Op<T>>>(&self, mut ops: Vec<O>) -> (Vec<Op<T>>, Vec<O>) {
        let mut state = self.lock();
        let room = if state.closed { 0 } else { self.depth - state.in_flight };
        let rest = ops.split_off(room.min(ops.len()));
        state.in_flight += ops.len();
        drop(state);
        count(&self.counters.submitted, ops.len() as u64);
        (ops.into_iter().map(Into::into).collect(), rest)
    }

    /// Counts how a read that asked for `access` is done.
    pub(super) fn note_access(&self, access: Access, direct: bool) {
        match (access, direct) {
            (_, true) => count(&self.counters.direct, 1),
            (Access::Direct, false) => count(&self.counters.not_direct, 1),
            (Access::Cached, false) => {}
        }
    }

    /// Takes the end of admitted reads, and gives them to the sink unless another thread is at it: then that one does.
    pub(super) fn complete(&self, dones: Vec<ReadDone<T>>) {
        if dones.is_empty() {
            return;
        }
        let (mut failed, mut bytes) = (0, 0);
        for done in &dones {
            match done.result {
                Ok(()) => bytes += done.len as u64,
                Err(_) => failed += 1,
            }
        }
        count(&self.counters.completed, dones.len() as u64);
        count(&self.counters.failed, failed);
        count(&self.counters.bytes, bytes);
        let mut state = self.lock();
        debug_assert!(state.closed || state.in_flight >= dones.len(), "more completions than reads");
        state.in_flight = state.in_flight.saturating_sub(dones.len());
        if state.parked.is_empty() {
            state.parked = dones
        } else {
            state.parked.extend(dones)
        }
        self.deliver(state);
    }

    pub(super) fn attach(&self, sink: Box<dyn Fn(Vec<ReadDone<T>>) + Send + Sync>) {
        let mut state = self.lock();
        let before = state.sink.replace(Arc::from(sink));
        self.deliver(state);
        // Outside the mutex: dropping a sink may run anything.
        drop(before);
    }

    pub(super) fn detach(&self) {
        let before = self.lock().sink.take();
        drop(before);
    }

    /// Refuses everything from now on. Whether the caller may wait for the rest: not from within a sink.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        state.closed = true;
        let within_sink = state.deliverer == Some(thread::current().id());
        drop(state);
        self.wake.notify_one();
        !within_sink
    }

    /// Returns when nothing is in flight and no sink is being called.
    pub(super) fn wait_idle(&self) {
        let mut state = self.lock();
        while state.in_flight > 0 || state.deliverer.is_some() {
            state = self.idle.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Whether the driver's thread may end.
    pub(super) fn is_finished(&self) -> bool {
        let state = self.lock();
        state.closed && state.in_flight == 0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn stats(&self) -> DriverStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        DriverStats {
            submitted: of(&counters.submitted),
            completed: of(&counters.completed),
            failed: of(&counters.failed),
            bytes: of(&counters.bytes),
            batches: of(&counters.batches),
            sleeps: of(&counters.sleeps),
            continued: of(&counters.continued),
            positioned: of(&counters.positioned),
            sink_panics: of(&counters.sink_panics),
            direct: of(&counters.direct),
            not_direct: of(&counters.not_direct),
            fixed: of(&counters.fixed),
            polls: of(&counters.polls),
            poll_hits: of(&counters.poll_hits),
            overflows: of(&counters.overflows),
            depth_now: of(&counters.depth_now),
        }
    }

    /// Gives what is parked to the sink until nothing is, or no sink, or another thread is at it already.
    fn deliver<'a>(&'a self, mut state: MutexGuard<'a, State<T>>) {
        if state.deliverer.is_some() {
            return;
        }
        while let Some(sink) = state.sink.clone().filter(|_| !state.parked.is_empty()) {
            let dones = std::mem::take(&mut state.parked);
            state.deliverer = Some(thread::current().id());
            drop(state);
            let called = catch_unwind(AssertUnwindSafe(move || {
                sink(dones);
                // This may be the last reference to a sink that was replaced meanwhile.
                drop(sink);
            }));
            if called.is_err() {
                count(&self.counters.sink_panics, 1);
            }
            state = self.lock();
            state.deliverer = None;
        }
        if state.in_flight == 0 {
            let closed = state.closed;
            drop(state);
            self.idle.notify_all();
            if closed {
                self.wake.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that may panic runs under this mutex.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Held by the driver's thread. When it ends with reads still in flight, which only a panic in the driver itself can
/// bring about, whoever waits for them is let go.
pub(super) struct Leave<'a, T>(pub(super) &'a Account<T>);

impl<T> Drop for Leave<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        if std::mem::take(&mut state.in_flight) > 0 {
            tracing::error!("the I/O thread ended with reads in flight");
        }
        drop(state);
        self.0.idle.notify_all();
    }
}
