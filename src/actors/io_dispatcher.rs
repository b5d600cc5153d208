//! Role: decides which loads are read next, merges their frames into reads, and keeps the engines busy.
//!
//! Owns: four lanes of located loads, the loads that wait for memory, the planned reads. Receives: [`DispatcherMessage`].
//! Sends: `LookUp` and `Read` to the I/O workers, `MakeRoom` to the evictor, `Finished` to the cache manager for content that
//! is in memory already. On restart: kept: every request, in the ledger; rebuilt: the lanes, as the ledger hands out
//! the leases that their drop gave back; lost: the order of arrival among equals.
//! Bounds: leases by the lanes' bound, the rest stays in the ledger; reads by one permit each and the I/O reserve; planned reads by a multiple of those.

mod plan;
mod target;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::bundle::{Codec, Placement};
use crate::error::{Error, Result};
use crate::ids::{AssetKind, Origin, Priority};
use crate::limits;
use crate::messages::work::{Credits, Flight, Part, Permit, ReadToken};
use crate::messages::{CacheManagerMessage, DispatcherMessage, Filled, Finished, IoWorkerMessage, Lookup, Prefetch};
use crate::platform::cgroup;
use crate::platform::io::{Access, ReadOp};
use crate::policy::schedule::Lanes;
use crate::residency::{Ask, Change, Content, Key, Lease, Live, Located, Merge, Name, Shortfall, Want};

/// How often deadlines are looked at while any request has one or waits for memory.
const TICK: Duration = Duration::from_millis(5);
/// Leases that are taken from the ledger, and looked up, at once.
const LOOKUP_BATCH: usize = 128;
/// Batches that are being looked up at once, per I/O worker: few, so that an urgent request waits for few of them.
const LOOKUPS_MAX: usize = 2;
/// Located loads that wait in each lane, and those that are being looked up come on top. The others wait in the ledger,
/// where they take less memory and can still be raised and let go of.
const LANE_MAX: usize = 1024;
/// Contents on their way into memory at once, urgent ones and others each. Small ones that share a frame take no read
/// of their own, which is why the reads alone do not bound them.
const FLIGHTS_MAX: usize = 8192;
/// At most this part of the resident budget is evicted for loads that are queued behind the one that lacks memory.
const EVICT_AHEAD_PART: u64 = 16;
/// Of the resident budget, in percent: above it nothing is prefetched.
const PREFETCH_BELOW_PERCENT: u64 = 85;

/// The actor.
pub struct IoDispatcher;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// What waits for what.
pub struct State {
    shared: Arc<Shared>,
    /// Located loads that wait for their turn and their memory.
    wanted: Lanes<Pending, Key>,
    /// The load that is next but has no memory yet, and those passed over since only their kind's budget is full.
    waiting: VecDeque<Waiting>,
    /// Since when loads have waited for memory without any of them getting some. Whoever comes to wait meanwhile is as
    /// stuck as the first, and has waited as long.
    starved: Option<Instant>,
    /// Reads that wait for a permit and for buffer memory, for each node's worker.
    reads: Vec<Lanes<plan::Planned>>,
    /// Frames that are planned or on their way, for those who want them too.
    under_way: plan::UnderWay,
    /// Places in each worker's queue.
    credits: Vec<Arc<Credits>>,
    /// Batches of look-ups that are under way.
    lookups: Arc<Credits>,
    /// Places for flights, of urgent loads and of others.
    flights: [Arc<Credits>; 2],
    /// Memory that this process may use.
    memory_bytes: u64,
    /// Numbers the items of the lanes.
    sequence: u64,
    /// Which worker is asked next.
    turn: usize,
    /// A tick is on its way.
    ticking: bool,
}

struct Pending {
    lease: Lease,
    located: Arc<Located>,
}

struct Waiting {
    pending: Pending,
    kind: Option<AssetKind>,
}

impl Actor for IoDispatcher {
    type Msg = DispatcherMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let shared = args.shared;
        let address = shared.addresses.dispatcher.clone();
        let credits = |limit| {
            let address = address.clone();
            Credits::new(limit, Box::new(move || address.hint(DispatcherMessage::Credit)))
        };
        let lookups = credits(LOOKUPS_MAX * shared.drivers.len());
        let flights = [credits(FLIGHTS_MAX), credits(FLIGHTS_MAX)];
        let credits: Vec<_> = shared.drivers.iter().map(|_| credits(shared.config.queue_depth)).collect();
        // What an earlier dispatcher held is in the ledger's inbox again, and nobody may be left to say so.
        drop(myself.send_message(DispatcherMessage::Ready));
        Ok(State {
            shared,
            wanted: Lanes::new(),
            waiting: VecDeque::new(),
            starved: None,
            reads: credits.iter().map(|_| Lanes::new()).collect(),
            under_way: plan::UnderWay::default(),
            credits,
            lookups,
            flights,
            memory_bytes: cgroup::usable_memory_bytes(),
            sequence: 0,
            turn: 0,
            ticking: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DispatcherMessage::Ready => state.take_ready(),
            DispatcherMessage::LookedUp(found) => state.looked_up(found),
            DispatcherMessage::RoomMade => drop(state.retry_waiting()),
            DispatcherMessage::Evicted => {
                if let Some(shortfall) = state.retry_waiting() {
                    // Others were faster.
                    state.ask_for_room(&shortfall);
                }
            }
            DispatcherMessage::Credit => state.pump(),
            DispatcherMessage::Prefetch(wishes) => state.prefetch(wishes),
            DispatcherMessage::Tick => state.tick(),
        }
        state.keep_ticking(&myself);
        Ok(())
    }
}

impl State {
    /// Whether every stage that a load goes through is up. What is held back meanwhile goes on when the supervisor
    /// says that a stage came up.
    fn is_path_up(&self) -> bool {
        let addresses = &self.shared.addresses;
        addresses.io_workers.iter().all(|worker| worker.is_up())
            && addresses.decompressor.is_up()
            && addresses.cache_manager.is_up()
    }

    /// Takes new requests, and work that was given back, from the ledger.
    fn take_ready(&mut self) {
        if !self.is_path_up() {
            return;
        }
        for change in self.shared.ledger.changes() {
            self.change(change);
        }
        self.pump();
    }

    /// Takes leases from the ledger, each lane's as far as it has room, and has them looked up. Whether there were any.
    fn take_leases(&mut self) -> bool {
        let mut any = false;
        for priority in Priority::ALL {
            loop {
                let room = LANE_MAX.saturating_sub(self.wanted.lane_len(priority)).min(LOOKUP_BATCH);
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
                let is_last = leases.len() < room;
                self.turn = (self.turn + 1) % self.shared.addresses.io_workers.len();
                // A worker that has just died: its message comes back and is dropped, the ledger has the leases again.
                let look_up = IoWorkerMessage::LookUp(leases, permit);
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

    /// A later, more urgent joiner lifts the load that is queued for it; one that nobody waits for leaves the queue.
    fn change(&mut self, change: Change) {
        match change {
            Change::Raised { key, priority } => drop(self.wanted.raise(&key, priority, 0.0)),
            Change::Cancelled { key } => drop(self.wanted.remove(&key)),
        }
    }

    fn looked_up(&mut self, found: Vec<Lookup>) {
        let mut present = Vec::new();
        for Lookup { lease, located } in found {
            let located = match located {
                Ok(located) => located,
                Err(error) => {
                    lease.answer(Err(error));
                    continue;
                }
            };
            if !matches!(lease.key().want, Want::Resident | Want::Stored) {
                self.enqueue(lease, located);
                continue;
            }
            let hash = located.record.content;
            if let Some(content) = self.shared.table.content(&hash) {
                present.push(Finished { lease, located, filled: Filled::Content(content) });
                continue;
            }
            let largest = self.shared.config.resident_bytes_max();
            let largest = self
                .shared
                .config
                .kind_budget_bytes
                .get(&located.record.kind)
                .map_or(largest, |kind| largest.min(*kind));
            if located.record.len > largest {
                let what = located.record.path.to_string();
                lease.answer(Err(Error::TooLarge { what, needed_bytes: located.record.len, limit_bytes: largest }));
                continue;
            }
            match self.shared.ledger.merge(lease, hash, Name::from(&located.record)) {
                Merge::Lead(lease) => self.enqueue(lease, located),
                Merge::Follows => {}
            }
        }
        self.finished(present);
        self.pump();
    }

    fn enqueue(&mut self, lease: Lease, located: Arc<Located>) {
        let (key, priority) = (lease.key(), lease.priority());
        self.wanted.push(priority, 0.0, key, Pending { lease, located });
    }

    fn finished(&self, batch: Vec<Finished>) {
        if !batch.is_empty() {
            // A cache manager that is down: the leases go back to the ledger.
            drop(self.shared.addresses.cache_manager.cast(CacheManagerMessage::Finished(batch)));
        }
    }

    /// Sends what can be sent, plans what can be planned, until one of permits, buffer memory, budget or work runs out.
    fn pump(&mut self) {
        if !self.is_path_up() {
            return;
        }
        loop {
            self.take_leases();
            let sent = self.send_reads();
            let planned = self.planned() < self.plan_ahead() && self.plan_reads();
            if !sent && !planned {
                return;
            }
        }
    }

    /// Reads that are worth planning before the first of them has a permit: enough to merge, few enough that a
    /// critical load does not find all memory promised to others.
    fn plan_ahead(&self) -> usize {
        2 * self.credits.iter().map(|credits| credits.limit()).sum::<usize>()
    }

    /// Reads that wait for a permit.
    fn planned(&self) -> usize {
        self.reads.iter().map(Lanes::len).sum()
    }

    /// The place of the node whose worker has the least to do: neighbours are planned together, and go there together.
    fn least_busy(&self) -> u8 {
        if self.reads.len() == 1 {
            return 0;
        }
        let busy = |place: usize| self.credits[place].used() + self.reads[place].len();
        (0..=u8::MAX).take(self.reads.len()).min_by_key(|place| busy(usize::from(*place))).unwrap_or(0)
    }

    /// Takes loads in order of urgency, charges them, and plans their reads. Returns whether anything moved.
    fn plan_reads(&mut self) -> bool {
        let mut frames: Vec<plan::Wanted> = Vec::new();
        let mut empty = Vec::new();
        let mut moved = false;
        let home = self.least_busy();
        // While a load waits for the total budget, nothing behind it may take the memory that comes free.
        let blocked = |waiting: &VecDeque<Waiting>| waiting.iter().any(|waiting| waiting.kind.is_none());
        while frames.len() < self.plan_ahead() && !blocked(&self.waiting) {
            let Some((key, pending)) = self.wanted.pop() else { break };
            if !pending.lease.is_wanted() {
                moved = true;
                continue;
            }
            let Some(permit) = self.flights[usize::from(pending.lease.priority() > Priority::High)].take() else {
                // First in its lane; a place that comes back is announced by `Credit`.
                self.wanted.push(pending.lease.priority(), f32::MAX, key, pending);
                break;
            };
            moved = true;
            match self.board(pending, permit, home, &mut frames) {
                Ok(done) => empty.extend(done),
                Err((pending, shortfall)) => self.wait_for_memory(pending, &shortfall),
            }
        }
        self.finished(empty);
        self.queue_reads(frames);
        moved
    }

    /// Charges a load, allocates its final memory, on its own node or else at `home`, and adds the frames it needs to
    /// `frames`. One that needs none is complete at once and comes back.
    fn board(
        &mut self,
        pending: Pending,
        permit: Permit,
        home: u8,
        frames: &mut Vec<plan::Wanted>,
    ) -> Result<Option<Finished>, (Pending, Shortfall)> {
        let placement = &pending.located.placement;
        let (kind, len) = (pending.located.record.kind, placement.piece_bytes());
        let most = self.shared.budget.admissible_bytes(kind);
        let in_blocks = takes_blocks(placement, len) && Content::in_blocks(len) <= most;
        let bytes = if in_blocks { Content::in_blocks(len) } else { len };
        let place = pending.lease.place().filter(|place| usize::from(*place) < self.reads.len()).unwrap_or(home);
        let charge = match self.shared.budget.charge_or_wait(kind, bytes) {
            Ok(charge) => charge.at(place),
            Err(shortfall) => return Err((pending, shortfall)),
        };
        let build = if in_blocks { Content::build_in_blocks } else { Content::build };
        let Ok(target) = build(len as usize, charge) else {
            // The operating system has no memory for it, though the budget has: the same as a full budget.
            return Err((pending, Shortfall { missing_bytes: bytes, kind: None }));
        };
        if bytes > 0 {
            self.starved = None;
        }
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
            let wanted = plan::Wanted { live: Arc::clone(&live), priority, access, place, frame, part };
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

    fn wait_for_memory(&mut self, pending: Pending, shortfall: &Shortfall) {
        if self.waiting.is_empty() {
            self.shared.metrics.memory_waits.one();
        }
        self.ask_for_room(shortfall);
        self.starved.get_or_insert(self.shared.clock.now());
        self.waiting.push_back(Waiting { pending, kind: shortfall.kind });
    }

    fn ask_for_room(&self, shortfall: &Shortfall) {
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
    fn retry_waiting(&mut self) -> Option<Shortfall> {
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

    fn queue_reads(&mut self, frames: Vec<plan::Wanted>) {
        for planned in plan::merge(frames) {
            self.sequence += 1;
            self.under_way.note(&planned, self.sequence);
            self.reads[usize::from(planned.place)].push(planned.priority, 0.0, self.sequence, planned);
        }
    }

    /// The next read for a node's worker: its own, else one whose own worker has no room for it.
    fn next_read(&mut self, node: usize) -> Option<(u64, plan::Planned)> {
        let own = self.reads[node].pop();
        if own.is_some() || self.reads.len() == 1 {
            return own;
        }
        let full = |place: &usize| self.credits[*place].used() >= self.credits[*place].limit();
        (0..self.reads.len()).filter(full).find_map(|place| self.reads[place].pop())
    }

    /// Sends planned reads as far as permits and the I/O reserve go, in batches. Returns whether any was sent.
    fn send_reads(&mut self) -> bool {
        let mut any = false;
        for node in 0..self.credits.len() {
            let mut batch = Vec::new();
            while batch.len() < limits::READ_BATCH_MAX {
                let Some(permit) = self.credits[node].take() else { break };
                let Some((number, planned)) = self.next_read(node) else { break };
                // When the reserve is used up, its next release is announced by `Credit` as well.
                let Some(memory) = self.shared.budget.charge_io_or_wait(planned.memory_bytes()) else {
                    // First in its lane, under the number by which its frames are known.
                    let reads = &mut self.reads[usize::from(planned.place)];
                    reads.push(planned.priority_now(), f32::MAX, number, planned);
                    break;
                };
                let buffer = match target::target(&planned, self.shared.drivers[node].pool()) {
                    Ok(buffer) => buffer,
                    Err(error) => {
                        planned.fail(&error);
                        continue;
                    }
                };
                self.shared.metrics.frames.add(planned.frames.len() as u64);
                let source = Arc::clone(planned.live.bundle().storage());
                let plan::Planned { offset, len, frames, access, live, .. } = planned;
                let token = ReadToken { frames, live, memory, permit };
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
        any
    }

    fn prefetch(&mut self, wishes: Vec<Prefetch>) {
        let stats = self.shared.budget.snapshot();
        if !self.waiting.is_empty()
            || stats.charged > self.shared.config.resident_bytes_max() / 100 * PREFETCH_BELOW_PERCENT
        {
            return;
        }
        let now = self.shared.clock.now();
        for Prefetch { live, id } in wishes {
            if self.shared.table.candidate(id).is_some() {
                continue;
            }
            let key = Key { generation: live.generation(), id, want: Want::Resident };
            let ask = Ask { priority: Priority::Low, origin: Origin::Predictor, ..Ask::new(now) };
            // A full or closed ledger refuses; a wish may be refused.
            if self.shared.ledger.join_unattended(&live, key, ask).is_ok() {
                self.shared.metrics.prefetches.one();
            }
        }
    }

    fn tick(&mut self) {
        self.ticking = false;
        let now = self.shared.clock.now();
        self.shared.ledger.expire(now);
        self.waiting.retain(|waiting| waiting.pending.lease.is_wanted());
        let retried = self.retry_waiting();
        let stuck = self.starved.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        if !self.waiting.is_empty() && stuck >= self.shared.config.memory_wait {
            // What is queued behind comes to wait now, and finds that it has waited as long.
            for waiting in std::mem::take(&mut self.waiting) {
                self.give_up_waiting(waiting, stuck);
            }
        } else if let Some(shortfall) = retried {
            // Less came free than was hoped for, or the wish was lost with an evictor.
            self.ask_for_room(&shortfall);
        }
        self.pump();
    }

    fn give_up_waiting(&self, entry: Waiting, waited: Duration) {
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

    fn keep_ticking(&mut self, myself: &ActorRef<DispatcherMessage>) {
        if !self.ticking && (!self.waiting.is_empty() || self.shared.ledger.next_deadline().is_some()) {
            self.ticking = true;
            myself.send_after(TICK, || DispatcherMessage::Tick);
        }
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
