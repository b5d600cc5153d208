//! The io_uring engine: one ring, owned by one future on the driver's thread.
//!
//! Invariant 15 rests on [`Ring`]: an operation that the kernel knows is in its slab until the kernel has answered, and
//! the ring is not dropped before. Submissions from anywhere go through the [`Inbox`]; the thread takes all there are
//! and hands them over in one system call. Completions are announced through an eventfd that the runtime waits on, so
//! the thread sleeps when there is nothing to do; under load it looks a moment longer first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::inbox::Inbox;
use self::ring::Outcome;
pub(super) use self::ring::Ring;
use super::account::{Account, count};
use super::depth::Depth;
use super::engine::{Engine, Which, is_meant};
use super::op::{Op, cancelled};
use super::positioned::Positioned;
use super::wait::Patience;
use crate::platform::clock::{Clock, SystemClock};

mod files;
mod inbox;
mod probe;
mod registered;
mod request;
mod ring;
mod setup;
pub(super) use self::probe::probe;

/// How long to wait when the kernel has no room for more requests.
const NO_ROOM_WAIT: Duration = Duration::from_millis(1);
/// How long a file stays registered after the last read.
const FILES_LINGER: Duration = Duration::from_secs(1);
/// Rounds with progress before the actors on this thread get their turn, also when there is more to do.
const ROUNDS_MAX: u32 = 4;

/// What the driver knows of the engine on its thread.
pub(super) struct Uring<T> {
    inbox: Inbox<T>,
    /// The thread has looked into the inbox for the last time before it sleeps: what comes now must wake it.
    asleep: AtomicBool,
    account: Arc<Account<T>>,
    /// For what a ring cannot read.
    positioned: Arc<Positioned<T>>,
}

impl<T> Uring<T> {
    pub(super) fn new(account: Arc<Account<T>>, positioned: Arc<Positioned<T>>) -> Self {
        Self { inbox: Inbox::default(), asleep: AtomicBool::new(false), account, positioned }
    }

    /// After something was put into the inbox.
    fn wake(&self) {
        // Either this sees that the thread goes to sleep, or the thread sees what was put, since it looks after it has
        // said so.
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.account.wake();
        }
    }
}

impl<T: Send + 'static> Engine<T> for Uring<T> {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn start(&self, ops: Vec<Op<T>>) {
        self.inbox.put(ops);
        self.wake();
    }

    fn cancel(&self, which: Which<T>) {
        self.positioned.cancel(Arc::clone(&which));
        self.inbox.cancel(which);
        self.wake();
    }

    fn stop(&self) {
        self.positioned.stop();
    }
}

/// The driver's loop: ends when the account is closed and nothing is in flight.
pub(super) async fn run<T: Send + 'static>(mut ring: Ring<T>, mut depth: Depth, engine: &Uring<T>) {
    let account = &engine.account;
    let counters = &account.counters;
    let mut outcome = Outcome::default();
    // Accepted, and kept back by the depth.
    let mut queued: VecDeque<Op<T>> = VecDeque::new();
    let mut patience = Patience::default();
    let mut rounds = 0;
    loop {
        let waiting = engine.inbox.take();
        queued.extend(waiting.ops);
        for which in &waiting.cancels {
            ring.cancel(which);
            let (ended, kept): (Vec<_>, Vec<_>) = queued.into_iter().partition(|op| is_meant(which, &op.token));
            queued = kept.into();
            outcome.done.extend(ended.into_iter().map(|op| op.done(Err(cancelled()))));
        }
        while ring.occupied() < depth.now() {
            let Some(op) = queued.pop_front() else { break };
            ring.accept(op, &mut outcome);
        }
        ring.register_more();
        count(&counters.batches, ring.hand_over(&mut outcome));
        // Before completions make room: whoever keeps it full refills it when they come.
        let saturated = !queued.is_empty() || ring.occupied() >= depth.now();
        ring.reap(&mut outcome);
        depth.note(SystemClock.now(), outcome.done.len(), outcome.bytes(), saturated);
        outcome.count(counters);
        counters.depth_now.store(depth.now() as u64, Ordering::Relaxed);
        if !outcome.by_thread.is_empty() {
            engine.positioned.start(std::mem::take(&mut outcome.by_thread));
        }
        let progressed = !outcome.done.is_empty();
        account.complete(std::mem::take(&mut outcome.done));
        if account.is_finished() {
            return;
        }
        let more = ring.has_more() || !engine.inbox.is_empty() || (!queued.is_empty() && ring.occupied() < depth.now());
        if more || (progressed && patience.is_worth_it()) {
            rounds += 1;
            if more && rounds < ROUNDS_MAX && !ring.is_out_of_room() {
                continue;
            }
            rounds = 0;
            // The actors on this thread get their turn before the next look.
            tokio::task::yield_now().await;
            if ring.is_out_of_room() {
                tokio::time::sleep(NO_ROOM_WAIT).await;
            }
            continue;
        }
        rounds = 0;
        if ring.with_kernel() > 0 && patience.is_worth_it() {
            count(&counters.polls, 1);
            let news = patience.look(&SystemClock, || ring.has_news() || !engine.inbox.is_empty());
            if news {
                count(&counters.poll_hits, 1);
                continue;
            }
        }
        // From here on the kernel announces and submitters wake; what came before that is seen by a last look.
        ring.announce(true);
        engine.asleep.store(true, Ordering::SeqCst);
        if !ring.has_news_at_last() && engine.inbox.is_empty() {
            count(&counters.sleeps, 1);
            let slept = SystemClock.now();
            let lingering = ring.holds_files();
            tokio::select! {
                announced = ring.announced() => if let Err(error) = announced {
                    // The runtime is going away under its own main future: this cannot happen, and if it did, dropping
                    // the ring waits for the kernel.
                    tracing::error!(%error, "the ring's eventfd cannot be waited for");
                    return;
                },
                () = account.woken() => {}
                () = tokio::time::sleep(FILES_LINGER), if lingering => ring.let_files_go(),
            }
            patience.slept(SystemClock.now().saturating_duration_since(slept));
        } else {
            // Whatever the kernel says, the actors on this thread get their turn.
            tokio::task::yield_now().await;
        }
        engine.asleep.store(false, Ordering::SeqCst);
        ring.announce(false);
    }
}

#[cfg(test)]
mod tests;
