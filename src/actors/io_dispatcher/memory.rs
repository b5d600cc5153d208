//! Loads that wait for memory: they are tried again, in their order, when some comes free, until they have waited too long.

use std::collections::VecDeque;
use std::time::Duration;

use super::{EVICT_AHEAD_PART, Pending, State, Waiting};
use crate::error::Error;
use crate::ids::{AssetKind, Priority};
use crate::policy::pressure::may_wait;
use crate::residency::Shortfall;

/// The lane of the least urgent.
const LOW_ALONE: [bool; 4] = [false, false, false, true];

impl State {
    pub(super) fn wait_for_memory(&mut self, pending: Pending, shortfall: &Shortfall) {
        if self.waiting.is_empty() {
            self.shared.metrics.memory_waits.one();
        }
        // Those who wait already have asked for who is behind them too, and the tick asks again.
        let asked = |waiting: &Waiting| waiting.kind.is_none() || waiting.kind == shortfall.kind;
        if !self.waiting.iter().any(asked) {
            self.ask_for_room(shortfall);
        }
        self.starved.get_or_insert(self.shared.clock.now());
        // Behind those that are as urgent.
        let priority = pending.lease.priority();
        let at = self.waiting.iter().take_while(|waiting| waiting.pending.lease.priority() <= priority).count();
        self.waiting.insert(at, Waiting { pending, kind: shortfall.kind });
    }

    pub(super) fn ask_for_room(&self, shortfall: &Shortfall) {
        // Room for those behind it as well, rather than one turn of the evictor for each.
        let behind = self.waiting.iter().map(|waiting| &waiting.pending).chain(self.wanted.items());
        let behind = behind.filter(|pending| shortfall.kind.is_none_or(|kind| pending.located.record.kind == kind));
        let behind: u64 = behind.map(|pending| pending.located.placement.piece_bytes()).sum();
        let ahead = behind.min(self.shared.budget.used().1 / EVICT_AHEAD_PART);
        let bytes = shortfall.missing_bytes.max(1) + ahead;
        self.shared.make_room(bytes, shortfall.kind);
    }

    /// Memory may have come free: those who waited for it are tried again, in their order. Returns what the first of
    /// those that still wait lacks.
    pub(super) fn retry_waiting(&mut self) -> Option<Shortfall> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return None;
        }
        let mut lacking = None;
        let home = self.least_busy();
        let mut frames = Vec::new();
        let mut empty = Vec::new();
        let mut still: VecDeque<Waiting> = VecDeque::new();
        for entry in waiting {
            if !entry.pending.lease.is_wanted() {
                continue;
            }
            let behind = |kind: Option<AssetKind>| still.iter().any(|first| first.kind.is_none() || first.kind == kind);
            if behind(entry.kind) {
                still.push_back(entry);
                continue;
            }
            let place = &self.flights[usize::from(entry.pending.lease.priority() > Priority::High)];
            let Some(permit) = place.take() else {
                still.push_back(entry);
                continue;
            };
            match self.board(entry.pending, permit, home, &mut frames) {
                Ok(done) => {
                    // Somebody who waited has got some: who still waits, waits anew.
                    self.starved = None;
                    empty.extend(done);
                }
                Err(back) => {
                    let (pending, shortfall) = *back;
                    still.push_back(Waiting { pending, kind: shortfall.kind });
                    lacking.get_or_insert(shortfall);
                }
            }
        }
        self.waiting = still;
        self.finished(empty);
        self.queue_reads(frames);
        self.pump();
        lacking
    }

    /// Refuses the least urgent of those that evictions left no room for, while memory is so short that they may not wait.
    pub(super) fn refuse_least_urgent(&mut self) {
        let level = self.shared.budget.level();
        if may_wait(level, Priority::Low) || self.waiting.is_empty() {
            return;
        }
        let least_urgent = |waiting: &Waiting| !may_wait(level, waiting.pending.lease.priority());
        let (refused, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(least_urgent);
        self.waiting = others;
        let mut refused: Vec<Pending> = refused.into_iter().map(|waiting| waiting.pending).collect();
        // Those that are queued wait behind who waits for memory.
        while let Some((_, pending)) = self.wanted.pop_of(LOW_ALONE) {
            refused.push(pending);
        }
        for pending in refused {
            let record = &pending.located.record;
            let (used_bytes, budget_bytes) = self.shared.budget.used();
            let (what, needed_bytes) = (record.path.to_string(), record.len);
            let error = Error::Pressure { what, level, needed_bytes, used_bytes, budget_bytes };
            pending.lease.answer(Err(error));
        }
    }

    pub(super) fn give_up_waiting(&self, entry: Waiting, waited: Duration) {
        let record = &entry.pending.located.record;
        let sizes = self.shared.budget.sizes();
        let of_kind = entry.kind.and_then(|kind| sizes.kinds.get(&kind).copied());
        let budget_bytes = of_kind.unwrap_or_else(|| sizes.resident());
        let error = Error::Pinned {
            what: record.path.to_string(),
            needed_bytes: record.len,
            budget_bytes,
            waited,
            pinned: self.shared.table.largest_pinned(8),
        };
        entry.pending.lease.answer(Err(error));
    }
}
