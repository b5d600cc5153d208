//! Loads on board, their frames planned as reads, and reads on their way to the workers.

use std::sync::Arc;

use super::{Pending, State, plan, target};
use crate::bundle::{Codec, Placement};
use crate::ids::{AssetKind, Priority};
use crate::limits;
use crate::messages::work::{Flight, Part, Permit, ReadToken};
use crate::messages::{Finished, IoWorkerMessage};
use crate::platform::io::{Access, ReadOp};
use crate::policy::schedule::LowRoom;
use crate::residency::{Content, Live, Shortfall};

impl State {
    /// Charges a load, allocates its final memory, on its own node or else at `home`, and adds the frames it needs to
    /// `frames`. One that needs none is complete at once and comes back.
    pub(super) fn board(
        &mut self,
        pending: Pending,
        permit: Permit,
        home: u8,
        frames: &mut Vec<plan::Wanted>,
    ) -> Result<Option<Finished>, Box<(Pending, Shortfall)>> {
        let placement = &pending.located.placement;
        let (kind, len) = (pending.located.record.kind, placement.piece_bytes());
        let urgency = pending.lease.priority();
        let most = self.shared.budget.admissible_bytes_for(urgency, kind);
        let in_blocks = takes_blocks(placement, len) && Content::in_blocks(len) <= most;
        let bytes = if in_blocks { Content::in_blocks(len) } else { len };
        let place = pending.lease.place().filter(|place| usize::from(*place) < self.reads.len()).unwrap_or(home);
        let charge = match self.shared.budget.charge_or_wait_for(urgency, kind, bytes) {
            Ok(charge) => charge.at(place),
            Err(shortfall) => return Err(Box::new((pending, shortfall))),
        };
        let build = if in_blocks { Content::build_in_blocks } else { Content::build };
        let Ok(target) = build(len as usize, charge) else {
            // The operating system has no memory for it, though the budget has: the same as a full budget.
            return Err(Box::new((pending, Shortfall { missing_bytes: bytes, kind: None })));
        };
        let (since, score) = (pending.since, pending.score);
        let (live, priority) = (Arc::clone(pending.lease.live()), pending.lease.priority());
        let access = self.access(&live, kind);
        let flight = Flight::new(pending.lease, pending.located, target, permit);
        if bytes == 0 {
            return Ok(flight.finish());
        }
        let mut to = 0;
        for piece in &flight.located.placement.pieces {
            let (from, len) = (piece.from as usize, piece.len as usize);
            let part = Part { flight: Arc::clone(&flight), from, len, to };
            let frame = piece.frame;
            let wanted = plan::Wanted { live: Arc::clone(&live), priority, access, place, frame, part, since, score };
            let raise = |read, priority| self.reads.iter_mut().any(|reads| reads.raise(&read, priority, 0.0));
            match self.under_way.join(wanted, raise) {
                Ok(()) => self.shared.metrics.frames_joined.one(),
                Err(wanted) => frames.push(*wanted),
            }
            to += len;
        }
        Ok(None)
    }

    /// Whether assets of this kind are read past the page cache.
    fn access(&self, live: &Live, kind: AssetKind) -> Access {
        let file_bytes = live.bundle().info().file_bytes;
        let is_direct = self.shared.config.io.is_direct(kind, file_bytes, self.memory_bytes);
        if is_direct { Access::Direct } else { Access::Cached }
    }

    pub(super) fn queue_reads(&mut self, frames: Vec<plan::Wanted>) {
        for planned in plan::merge(frames) {
            self.sequence += 1;
            self.under_way.note(&planned, self.sequence);
            self.reads[usize::from(planned.place)].push(planned.priority, planned.score, self.sequence, planned);
        }
    }

    /// The next read for a node's worker, of the open lanes: its own, else one whose own worker has no room for it.
    fn next_read(&mut self, node: usize, open: [bool; 4]) -> Option<(u64, plan::Planned)> {
        let own = self.reads[node].pop_of(open);
        if own.is_some() || self.reads.len() == 1 {
            return own;
        }
        let full = |place: &usize| self.credits[*place].used() >= self.credits[*place].limit();
        (0..self.reads.len()).filter(full).find_map(|place| self.reads[place].pop_of(open))
    }

    /// Sends planned reads as far as permits, the I/O reserve and the bandwidth go, in batches. Returns whether any was
    /// sent.
    pub(super) fn send_reads(&mut self) -> bool {
        let mut any = false;
        let now = self.shared.clock.now();
        for node in 0..self.credits.len() {
            let mut batch = Vec::new();
            // Lanes that are held back, by the bandwidth or by the room of low reads, are left for the next time.
            let mut open = [true; 4];
            while batch.len() < limits::READ_BATCH_MAX {
                let Some(permit) = self.credits[node].take() else { break };
                let Some((number, planned)) = self.next_read(node, open) else { break };
                if planned.urgency().is_none() {
                    self.shared.metrics.reads_dropped.one();
                    continue;
                }
                let (priority, bytes) = (planned.priority_now(), planned.len as u64);
                let lane = priority as usize;
                let room = if priority == Priority::Low {
                    let room = self.rooms[node].take(LowRoom::units(bytes), self.low_room.limit(now));
                    if room.is_none() {
                        self.put_back(number, planned);
                        open[lane] = false;
                        continue;
                    }
                    room
                } else {
                    None
                };
                // Before any memory is taken: what is given back at once would wake whoever waits for some.
                let waits = self.planned_by_lane().map(|planned| planned > 0);
                let ready = self.shared.bandwidth.lock().ready(priority, bytes, waits, now);
                if let Err(wait) = ready {
                    self.put_back(number, planned);
                    self.held = Some(self.held.map_or(wait, |held| held.min(wait)));
                    open[lane] = false;
                    continue;
                }
                // When the reserve is used up, its next release is announced by `Credit` as well.
                let Some(memory) = self.shared.budget.charge_io_or_wait(planned.memory_bytes()) else {
                    self.put_back(number, planned);
                    break;
                };
                let charged = self.shared.bandwidth.lock().charge(priority, bytes, waits, now);
                if let Err(wait) = charged {
                    self.put_back(number, planned);
                    self.held = Some(self.held.map_or(wait, |held| held.min(wait)));
                    open[lane] = false;
                    continue;
                }
                let buffer = match target::target(&planned, self.shared.drivers[node].pool()) {
                    Ok(buffer) => buffer,
                    Err(error) => {
                        planned.fail(&error);
                        continue;
                    }
                };
                let waited = now.saturating_duration_since(planned.since);
                self.shared.metrics.priorities.of(priority).queue_latency.record(waited);
                self.shared.metrics.frames.add(planned.frames.len() as u64);
                let source = Arc::clone(planned.live.bundle().storage());
                let plan::Planned { offset, len, frames, access, live, .. } = planned;
                let token = ReadToken { frames, live, memory, permit, room, since: self.shared.clock.now() };
                batch.push(ReadOp { source, offset, buffer, len, access, limit: None, token });
            }
            if batch.is_empty() {
                continue;
            }
            any = true;
            if self.shared.addresses.io_workers[node].cast(IoWorkerMessage::Read(batch)).is_err() {
                // The worker has just died: the flights of this batch are in the ledger again.
                return false;
            }
        }
        let waits = self.planned_by_lane()[Priority::Low as usize] > 0;
        self.low_room.note(self.shared.metrics.read_bytes.get(), waits, now);
        if self.held.is_none() {
            self.shared.bandwidth.lock().resumed(now);
        }
        any
    }

    /// A read that cannot go yet is the first of its lane again, under the number by which its frames are known.
    fn put_back(&mut self, number: u64, planned: plan::Planned) {
        let reads = &mut self.reads[usize::from(planned.place)];
        reads.push(planned.priority_now(), f32::MAX, number, planned);
    }

    /// Reads that wait to be sent, by priority.
    pub(super) fn planned_by_lane(&self) -> [usize; 4] {
        Priority::ALL.map(|priority| self.reads.iter().map(|reads| reads.lane_len(priority)).sum())
    }
}

/// Whether a content is read into its own memory in whole blocks: all of it is stored as it is, from a block's start.
fn takes_blocks(placement: &Placement, len: u64) -> bool {
    let is_in_place = |piece: &crate::bundle::Piece| {
        piece.frame.codec == Codec::Store && piece.from == 0 && piece.len == piece.frame.decoded_len
    };
    let block = limits::BLOCK_BYTES as u64;
    let starts = placement.pieces.first().is_some_and(|piece| piece.frame.offset.is_multiple_of(block));
    starts && len >= block && placement.pieces.iter().all(is_in_place)
}
