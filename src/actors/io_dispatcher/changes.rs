//! Requests that became more urgent, or that nobody waits for any more, wherever their load is by now: in the lanes, waiting
//! for memory, or planned. What is with the device already is let be: a later, more urgent one reads it again.

use std::time::{Duration, Instant};

use super::{Pending, SPECULATIVE_SCORE, State};
use crate::policy::schedule::{Hints, Weights, score};
use crate::residency::Change;

/// A deadline this near counts before every other reason for an order within a lane.
const NEAR: Duration = Duration::from_millis(100);
/// What it counts more than the scores that are made of hints.
const NEAR_SCORE: f32 = 1e9;

impl State {
    /// A later, more urgent joiner lifts the load that is queued for it; one that nobody waits for leaves the queue.
    pub(super) fn take_changes(&mut self) {
        let mut elsewhere = false;
        for change in self.shared.ledger.changes() {
            match change {
                Change::Raised { key, priority } if self.wanted.get(&key).is_some() => {
                    self.wanted.raise(&key, priority, f32::NEG_INFINITY);
                }
                Change::Raised { .. } => elsewhere = true,
                Change::Cancelled { key } => elsewhere |= self.wanted.remove(&key).is_none(),
            }
        }
        if elsewhere {
            self.look_at_planned();
            self.waiting.retain(|waiting| waiting.pending.lease.is_wanted());
            self.waiting.make_contiguous().sort_by_key(|waiting| waiting.pending.lease.priority());
        }
    }

    /// Raises planned reads to the urgency that their loads have by now, and drops those that nobody waits for.
    fn look_at_planned(&mut self) {
        for reads in &mut self.reads {
            let mut changed = Vec::new();
            for (number, planned) in reads.entries() {
                let urgency = planned.urgency();
                if urgency.is_none_or(|urgency| reads.priority(number).is_some_and(|before| urgency < before)) {
                    changed.push((*number, urgency));
                }
            }
            for (number, urgency) in changed {
                match urgency {
                    Some(priority) => drop(reads.raise(&number, priority, f32::NEG_INFINITY)),
                    None => {
                        reads.remove(&number);
                        self.shared.metrics.reads_dropped.one();
                    }
                }
            }
        }
    }

    /// Where a load stands within its lane for reasons of its own; `None` where it goes by the places.
    pub(super) fn own_score(&self, pending: &Pending, now: Instant) -> Option<f32> {
        own_score(pending, &self.shared.config.schedule.weights, now)
    }

    /// Moves loads ahead whose deadlines have come near.
    pub(super) fn near_deadlines(&mut self, now: Instant) {
        let near = |(key, pending): (&_, &Pending)| Some((*key, deadline_score(pending.deadline, now)?));
        let near: Vec<_> = self.wanted.entries().filter_map(near).collect();
        for (key, score) in near {
            if let Some(priority) = self.wanted.priority(&key) {
                self.wanted.raise(&key, priority, score);
            }
        }
    }
}

/// A near deadline counts first. What nobody but the predictor asked for is behind everything of its lane, and a request that
/// says what it knows goes by that.
pub(super) fn own_score(pending: &Pending, weights: &Weights, now: Instant) -> Option<f32> {
    let near = deadline_score(pending.deadline, now);
    let speculative = || pending.lease.is_speculative().then_some(SPECULATIVE_SCORE);
    let hinted = || {
        let hints = pending.lease.hints()?;
        let size_bytes = hints.size_bytes.or(Some(pending.located.record.len));
        Some(score(&Hints { size_bytes, ..*hints }, weights))
    };
    near.or_else(speculative).or_else(hinted)
}

/// The score of a load whose deadline is near, the nearer the higher; none of one that has time.
fn deadline_score(deadline: Option<Instant>, now: Instant) -> Option<f32> {
    let left = deadline?.saturating_duration_since(now);
    (left <= NEAR).then(|| NEAR_SCORE * (2.0 - left.as_secs_f32() / NEAR.as_secs_f32()))
}
