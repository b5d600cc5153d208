//! How entries end, and how they come back.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::deadlines::Due;
use super::entry::{Entry, Outcome, Phase, State};
use super::stats::Tally;
use super::{Answer, Change, Ledger, Wakers};
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::limits;

impl Ledger {
    /// Ends the entry of a lease with its answer. `false` when the lease is stale.
    pub(super) fn answer(&self, entry: &Arc<Entry>, epoch: u32, answer: Result<Answer>, wakers: &mut Wakers) -> bool {
        let state = entry.state.lock();
        if !state.is_leased(epoch) {
            return false;
        }
        let tally = match &answer {
            Ok(_) => Tally::Answered,
            Err(Error::Quarantined { .. }) => Tally::Quarantined,
            Err(_) => Tally::Failed,
        };
        if tally == Tally::Answered {
            self.strikes.pardon(&entry.key);
        }
        self.end(entry, state, answer.map_err(Box::new), tally, wakers);
        true
    }

    /// Queues the entry of a dropped lease again. An attempt counts as failed if a stage had it in hand or the thread
    /// unwinds: then it may be the item that breaks the stage.
    pub(super) fn give_back(&self, entry: &Arc<Entry>, epoch: u32) {
        let mut state = entry.state.lock();
        if !state.is_leased(epoch) {
            return;
        }
        match (state.in_hand.take(), std::thread::panicking()) {
            (Some(stage), true) => self.strike(entry, state, format!("{stage} panicked")),
            (Some(stage), false) => self.strike(entry, state, format!("{stage} ended while it worked on it")),
            (None, true) => self.strike(entry, state, "a stage panicked".into()),
            (None, false) => self.queue_again(entry, state),
        }
    }

    /// As [`Ledger::give_back`], for an attempt that is known to have failed.
    pub(super) fn fail(&self, entry: &Arc<Entry>, epoch: u32, cause: String) {
        let state = entry.state.lock();
        if state.is_leased(epoch) {
            self.strike(entry, state, cause);
        }
    }

    fn strike(&self, entry: &Arc<Entry>, mut state: MutexGuard<'_, State>, cause: String) {
        state.in_hand = None;
        let content = state.lead.as_ref().map(|lead| lead.content);
        state.strikes = self.strikes.strike(&entry.key, content, state.strikes, &cause);
        if state.strikes < limits::ATTEMPTS_MAX {
            return self.queue_again(entry, state);
        }
        let error = Error::Quarantined { what: entry.what(), attempts: state.strikes, cause };
        self.end(entry, state, Err(Box::new(error)), Tally::Quarantined, &mut Wakers::new());
    }

    fn queue_again(&self, entry: &Arc<Entry>, mut state: MutexGuard<'_, State>) {
        state.phase = Phase::Queued;
        drop(state);
        self.counts.given_back();
        self.inbox.push(Arc::clone(entry));
    }

    /// Answers an open entry with why the ledger is closed; gives how many requests that answers.
    pub(super) fn close_one(&self, entry: &Arc<Entry>, error: &Error) -> usize {
        let state = entry.state.lock();
        if !state.is_open() {
            return 0;
        }
        self.end(entry, state, Err(Box::new(error.clone())), Tally::Closed, &mut Wakers::new())
    }

    /// Ends an open entry: everyone who waits for it, or for one that follows it, gets the outcome, and is woken by
    /// `wakers`. Gives how many requests that answers.
    pub(super) fn end(
        &self,
        entry: &Arc<Entry>,
        mut state: MutexGuard<'_, State>,
        outcome: Outcome,
        tally: Tally,
        wakers: &mut Wakers,
    ) -> usize {
        let lead = state.lead.take();
        let shared = lead.as_ref().filter(|lead| lead.following > 0).map(|_| outcome.clone());
        let before = std::mem::replace(&mut state.phase, Phase::Done(Box::new(outcome)));
        let live = state.live.take();
        let mut answered = 0;
        state.answer_all(|waiter| {
            answered += 1;
            self.counts.ended(waiter.priority, waiter.origin, tally);
            // Not the last reference, so nothing is dropped here under the lock.
            drop(self.deadlines.remove(waiter.deadline, waiter.sequence));
            wakers.add(waiter.waker);
        });
        drop(state);
        drop(live);
        self.forget(entry, lead.as_ref().map(|lead| lead.content));
        if let Phase::Follows(leader, _) = before {
            self.release(&leader);
        }
        if let (Some(lead), Some(outcome)) = (lead, shared) {
            for follower in &lead.followers {
                answered += self.answer_follower(follower, entry, &outcome, tally, wakers);
            }
        }
        answered
    }

    /// Answers an entry with what its leader was answered with, under its own name and for its own generation.
    fn answer_follower(
        &self,
        follower: &Arc<Entry>,
        leader: &Arc<Entry>,
        outcome: &Outcome,
        tally: Tally,
        wakers: &mut Wakers,
    ) -> usize {
        let name = match &follower.state.lock().phase {
            Phase::Follows(followed, name) if Arc::ptr_eq(followed, leader) => name.clone(),
            _ => return 0,
        };
        let own = match outcome {
            Ok(Answer::Asset(asset)) => {
                let own = asset.under(*name, follower.key.generation);
                Ok(Answer::Asset(self.table.admit(own, None)))
            }
            Ok(answer) => Ok(answer.clone()),
            Err(error) => Err(Box::new(about(error, || follower.what()))),
        };
        let state = follower.state.lock();
        match &state.phase {
            Phase::Follows(followed, _) if Arc::ptr_eq(followed, leader) => {
                self.end(follower, state, own, tally, wakers)
            }
            // It ended meanwhile by itself.
            _ => 0,
        }
    }

    /// Ends the wait of a ticket that is dropped.
    pub(super) fn cancel(&self, entry: &Arc<Entry>, slot: u32) {
        let mut state = entry.state.lock();
        let Some(waiter) = state.leave(slot) else { return };
        self.counts.ended(waiter.priority, waiter.origin, Tally::Cancelled);
        drop(self.deadlines.remove(waiter.deadline, waiter.sequence));
        self.abandon_unless_wanted(entry, state);
        drop(waiter);
    }

    /// Ends the wait of a waiter whose deadline passed. `false` when it does not wait any more.
    pub(super) fn expire_one(&self, due: Due) -> bool {
        let mut state = due.entry.state.lock();
        let Some(waiter) = state.expire(due.slot, due.sequence, due.after) else { return false };
        self.counts.ended(waiter.priority, waiter.origin, Tally::Expired);
        self.abandon_unless_wanted(&due.entry, state);
        if let Some(waker) = waiter.waker {
            waker.wake();
        }
        true
    }

    /// One follower less for the entry that leads it.
    fn release(&self, leader: &Arc<Entry>) {
        let mut state = leader.state.lock();
        if !state.is_open() {
            return;
        }
        let mut ended = Vec::new();
        if let Some(lead) = &mut state.lead {
            lead.following -= 1;
            if lead.followers.len() > 2 * lead.following as usize + 16 {
                let all = std::mem::take(&mut lead.followers);
                (lead.followers, ended) = all.into_iter().partition(|follower| follower.state.lock().is_open());
            }
        }
        self.abandon_unless_wanted(leader, state);
        drop(ended);
    }

    /// Ends an open entry that nobody waits for any more.
    fn abandon_unless_wanted(&self, entry: &Arc<Entry>, mut state: MutexGuard<'_, State>) {
        if state.is_wanted() || !state.is_open() {
            return;
        }
        let before = std::mem::replace(&mut state.phase, Phase::Gone);
        let live = state.live.take();
        let lead = state.lead.take();
        drop(state);
        drop(live);
        self.forget(entry, lead.as_ref().map(|lead| lead.content));
        drop(lead);
        match before {
            Phase::Queued => self.inbox.died(),
            Phase::Leased => self.inbox.change(Change::Cancelled { key: entry.key }),
            Phase::Follows(leader, _) => self.release(&leader),
            Phase::Done(_) | Phase::Gone => {}
        }
    }

    /// Takes an ended entry out of the maps, unless another has its place already.
    fn forget(&self, entry: &Arc<Entry>, content: Option<ContentHash>) {
        self.entries.remove_if(&entry.key, |_, found| Arc::ptr_eq(found, entry));
        if let Some(content) = content {
            self.contents.remove_if(&(content, entry.key.want), |_, found| Arc::ptr_eq(found, entry));
        }
    }
}

/// The same error about another asset, where it names one.
fn about(error: &Error, asset: impl Fn() -> String) -> Error {
    let mut error = error.clone();
    match &mut error {
        Error::NotFound { what, .. }
        | Error::TooLarge { what, .. }
        | Error::Pinned { what, .. }
        | Error::Deadline { what, .. }
        | Error::Quarantined { what, .. } => *what = asset(),
        _ => {}
    }
    error
}
