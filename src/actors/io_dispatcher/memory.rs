//! Loads that wait for memory: they are tried again, in their order, when some comes free, until they have waited too long.

use std::collections::VecDeque;
use std::time::Duration;

use super::{EVICT_AHEAD_PART, Pending, State, Waiting};
use crate::error::Error;
use crate::ids::{AssetKind, Priority};
use crate::residency::Shortfall;

impl State {
    pub(super) fn wait_for_memory(&mut self, pending: Pending, shortfall: &Shortfall) {
        if self.waiting.is_empty() {
            self.shared.metrics.memory_waits.one();
        }
        self.ask_for_room(shortfall);
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
        let ahead = behind.min(self.shared.config.resident_bytes_max() / EVICT_AHEAD_PART);
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
                Ok(done) => empty.extend(done),
                Err((pending, shortfall)) => {
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

    pub(super) fn give_up_waiting(&self, entry: Waiting, waited: Duration) {
        let record = &entry.pending.located.record;
        let budget_bytes = match entry.kind {
            Some(kind) => self.shared.config.kind_budget_bytes.get(&kind).copied().unwrap_or_default(),
            None => self.shared.config.resident_bytes_max(),
        };
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
