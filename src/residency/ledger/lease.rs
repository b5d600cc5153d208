//! The right to work on an entry. There is one at a time, and it gives itself back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::entry::Entry;
use super::{Answer, Key, Ledger, Wakers};
use crate::error::Result;
use crate::ids::{AssetPath, Priority};
use crate::policy::schedule::Hints;
use crate::residency::generations::Live;

/// The right to work on one entry. It travels with the work from stage to stage. Dropping it without an answer, in a
/// dead mailbox, an unwinding panic, or on purpose, queues the entry again.
///
/// A lease can become stale: when everyone who waited let go, or the ledger was closed. Then nothing done with it has
/// an effect; [`Lease::is_wanted`] tells.
#[must_use = "dropping a lease queues its entry again"]
pub struct Lease {
    ledger: Arc<Ledger>,
    entry: Arc<Entry>,
    live: Arc<Live>,
    epoch: u32,
    attempt: u32,
    /// Whether it was answered or merged away.
    spent: bool,
}

impl Lease {
    pub(super) fn new(ledger: Arc<Ledger>, entry: Arc<Entry>, live: Arc<Live>, epoch: u32, attempt: u32) -> Lease {
        Lease { ledger, entry, live, epoch, attempt, spent: false }
    }

    /// What is asked for.
    pub fn key(&self) -> Key {
        self.entry.key
    }

    /// The generation it is asked of.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How urgent it is now.
    pub fn priority(&self) -> Priority {
        self.entry.priority()
    }

    /// What the first request for it knew about how urgent it is within its lane.
    pub fn hints(&self) -> Option<&Hints> {
        self.entry.hints.as_deref()
    }

    /// The earliest deadline of those who wait for it under this name, now.
    pub fn deadline(&self) -> Option<Instant> {
        self.entry.state.lock().deadline()
    }

    /// Whether its priority follows the distance from the viewers, since nobody named one.
    pub fn is_by_distance(&self) -> bool {
        self.entry.is_by_distance()
    }

    /// Gives it this priority, less urgent ones included, if it follows the distance. Whether it does.
    pub fn follow_distance(&self, priority: Priority) -> bool {
        self.entry.follow_distance(priority)
    }

    /// How long the first request for it has been waiting, to the millisecond.
    pub fn waited(&self, now: Instant) -> Duration {
        self.ledger.age(self.entry.since_ms, now)
    }

    /// Whether nobody but the predictor has asked for it.
    pub fn is_speculative(&self) -> bool {
        self.entry.is_speculative()
    }

    /// Which attempt this is, from 1. An attempt that was given back before a stage had it in hand does not count.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The span of the first request for it.
    pub fn span(&self) -> Span {
        self.entry.span.as_deref().map_or_else(Span::none, Span::clone)
    }

    /// The path, if the first request named it.
    pub fn path(&self) -> Option<&AssetPath> {
        self.entry.path.as_ref()
    }

    /// On which NUMA node the first request wants it in memory, by its place.
    pub fn place(&self) -> Option<u8> {
        self.entry.place
    }

    /// What an error calls the asset: its path, or its id where the path is not known.
    pub fn what(&self) -> String {
        self.entry.what()
    }

    /// Whether someone still waits for it. Work on one that is not open is wasted.
    pub fn is_wanted(&self) -> bool {
        self.entry.state.lock().is_leased(self.epoch)
    }

    /// Says that a stage starts to work on it: if the lease is dropped before [`Working::done`], the attempt counts as
    /// failed, since the item may be what broke the stage. The name of the stage begins the cause: "decoding".
    pub fn begin(&self, stage: &'static str) -> Working {
        let mut state = self.entry.state.lock();
        if state.is_leased(self.epoch) {
            state.in_hand = Some(stage);
        }
        drop(state);
        Working { entry: Arc::clone(&self.entry), epoch: self.epoch }
    }

    /// Ends the entry: everyone who waits for it gets `answer`. `false` when the lease is stale, and nothing happens.
    pub fn answer(self, answer: Result<Answer>) -> bool {
        self.answer_with(answer, &mut Wakers::new())
    }

    /// [`Lease::answer`], as one of a batch: who is answered is woken when `wakers` is dropped.
    pub fn answer_with(mut self, answer: Result<Answer>, wakers: &mut Wakers) -> bool {
        self.spent = true;
        self.ledger.answer(&self.entry, self.epoch, answer, wakers)
    }

    /// Counts a failed attempt, as after a panic that was caught at this item, and queues the entry again, or
    /// quarantines it after [`crate::limits::ATTEMPTS_MAX`] of them.
    pub fn fail_item(mut self, cause: impl Into<String>) {
        self.spent = true;
        self.ledger.fail(&self.entry, self.epoch, cause.into());
    }

    pub(super) fn spend(&mut self) {
        self.spent = true;
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.spent {
            self.ledger.give_back(&self.entry, self.epoch);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, {:?}, attempt {})", self.what(), self.entry.key.want, self.attempt)
    }
}

/// The mark that a stage has an item in hand. Dropping it leaves the mark, since that is what a killed stage does.
#[must_use = "call done() when the stage is done with the item, or a later drop of its lease counts against it"]
pub struct Working {
    entry: Arc<Entry>,
    epoch: u32,
}

impl Working {
    /// Takes the mark away: the stage is done with the item and lives.
    pub fn done(self) {
        let mut state = self.entry.state.lock();
        if state.is_leased(self.epoch) {
            state.in_hand = None;
        }
    }
}

impl fmt::Debug for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Working({})", self.entry.what())
    }
}
