//! The place of one who waits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::entry::{Entry, Found};
use super::{Answer, Key, Ledger};
use crate::error::{Error, Result};
use crate::ids::{AssetPath, Priority};

/// An open request: a future of its answer that runs on any executor. Dropping it cancels the request; the work stops
/// when nobody else waits for it. Polled again after it is ready, it gives the same answer again.
#[must_use = "dropping a ticket cancels its request"]
pub struct Ticket {
    /// Whether dropping it cancels.
    attended: bool,
    ledger: Arc<Ledger>,
    entry: Arc<Entry>,
    slot: u32,
}

impl Ticket {
    pub(super) fn new(ledger: Arc<Ledger>, entry: Arc<Entry>, slot: u32) -> Ticket {
        Ticket { attended: true, ledger, entry, slot }
    }

    /// What it waits for.
    pub fn key(&self) -> Key {
        self.entry.key
    }

    /// The path, if the first request for it named it.
    pub fn path(&self) -> Option<&AssetPath> {
        self.entry.path.as_ref()
    }

    /// How urgent the work is by now.
    pub fn priority(&self) -> Priority {
        self.entry.priority()
    }

    /// The answer, if it is there.
    pub fn try_answer(&self) -> Option<Result<Answer>> {
        let found = self.entry.state.lock().look(self.slot);
        self.resolve(found)
    }

    /// Lets the request run on with nobody waiting for its answer.
    pub fn detach(mut self) {
        self.attended = false;
    }

    fn resolve(&self, found: Found) -> Option<Result<Answer>> {
        match found {
            Found::Waits => None,
            Found::Expired(after) => Some(Err(self.too_late(after))),
            Found::Outcome(outcome) => Some(outcome.map_err(|error| *error)),
        }
    }

    fn too_late(&self, after: Duration) -> Error {
        Error::Deadline { what: self.entry.what(), after }
    }
}

impl Future for Ticket {
    type Output = Result<Answer>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Answer>> {
        // Wakers are foreign code: they are cloned and dropped while the entry is not locked.
        let mut fresh = None;
        loop {
            let mut state = self.entry.state.lock();
            let found = state.look(self.slot);
            if let Some(waiter) = state.waiter(self.slot) {
                if waiter.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    return Poll::Pending;
                }
                if fresh.is_some() {
                    std::mem::swap(&mut waiter.waker, &mut fresh);
                    drop(state);
                    return Poll::Pending;
                }
                drop(state);
                fresh = Some(context.waker().clone());
                continue;
            }
            drop(state);
            return match self.resolve(found) {
                Some(answer) => Poll::Ready(answer),
                None => Poll::Pending,
            };
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.attended {
            self.ledger.cancel(&self.entry, self.slot);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {:?})", self.entry.what(), self.entry.key.want)
    }
}
