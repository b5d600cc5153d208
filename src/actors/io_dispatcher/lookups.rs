//! Leases on their way into the lanes: taken from the ledger as far as the lanes have room, looked up by the I/O workers,
//! merged by content.

use super::{LANE_MAX, LOOKUP_BATCH, LOOKUP_BATCH_LOW, State};
use crate::error::Error;
use crate::ids::Priority;
use crate::messages::{Filled, Finished, IoWorkerMessage, Lookup};
use crate::residency::{Merge, Name, Want};

impl State {
    /// Takes leases from the ledger, each lane's as far as it has room, and has them looked up. Whether there were any.
    pub(super) fn take_leases(&mut self) -> bool {
        let mut any = false;
        let now = self.shared.clock.now();
        for priority in Priority::ALL {
            loop {
                let yields = priority == Priority::Low && self.low_room.yields(now);
                let batch = if yields { LOOKUP_BATCH_LOW } else { LOOKUP_BATCH };
                let room = LANE_MAX.saturating_sub(self.wanted.lane_len(priority)).min(batch);
                if room == 0 {
                    break;
                }
                // One that comes back says so by `Credit`.
                let Some(permit) = self.lookups.take() else { return any };
                let leases = self.shared.ledger.take_ready_of(priority, room);
                if leases.is_empty() {
                    break;
                }
                any = true;
                if priority < Priority::Low {
                    self.low_room.urgent(now);
                }
                let is_last = leases.len() < room;
                self.turn = (self.turn + 1) % self.shared.addresses.io_workers.len();
                // A worker that has just died: its message comes back and is dropped, the ledger has the leases again.
                let look_up = IoWorkerMessage::LookUp(leases, permit, now);
                if self.shared.addresses.io_workers[self.turn].cast(look_up).is_err() {
                    return false;
                }
                if is_last {
                    break;
                }
            }
        }
        any
    }

    pub(super) fn looked_up(&mut self, found: Vec<Lookup>) {
        let mut present = Vec::new();
        for Lookup { lease, located, since } in found {
            let located = match located {
                Ok(located) => located,
                Err(error) => {
                    lease.answer(Err(error));
                    continue;
                }
            };
            if !matches!(lease.key().want, Want::Resident | Want::Stored) {
                self.enqueue(lease, located, since);
                continue;
            }
            let hash = located.record.content;
            if let Some(content) = self.shared.table.content(&hash) {
                present.push(Finished { lease, located, filled: Filled::Content(content) });
                continue;
            }
            let largest = self.shared.budget.admissible_bytes_for(lease.priority(), located.record.kind);
            if located.record.len > largest {
                let what = located.record.path.to_string();
                lease.answer(Err(Error::TooLarge { what, needed_bytes: located.record.len, limit_bytes: largest }));
                continue;
            }
            match self.shared.ledger.merge(lease, hash, Name::from(&located.record)) {
                Merge::Lead(lease) => self.enqueue(lease, located, since),
                Merge::Follows => {}
            }
        }
        self.finished(present);
        self.pump();
    }
}
