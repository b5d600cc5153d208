//! Role: decides which loads are read next, merges their frames into reads, and keeps the engines busy.
//!
//! Owns: four lanes of located loads, the loads that wait for memory, the planned reads. Receives: [`DispatcherMessage`].
//! Sends: `LookUp` and `Read` to the I/O workers, `MakeRoom` to the evictor, `Finished` to the cache manager for content that
//! is in memory already. On restart: kept: every request, in the ledger; rebuilt: the lanes, as the ledger hands out
//! the leases that their drop gave back; lost: the order of arrival among equals.
//! Bounds: leases by the lanes' bound, the rest stays in the ledger; reads by one permit each and the I/O reserve; planned reads by a multiple of those.

mod changes;
mod lookups;
mod memory;
mod plan;
mod reads;
mod target;
mod viewers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::error::Result;
use crate::ids::{AssetKind, Origin, Priority};
use crate::limits;
use crate::messages::work::{Credits, Room};
use crate::messages::{CacheManagerMessage, DispatcherMessage, Finished, Prefetch};
use crate::platform::cgroup;
use crate::policy::pressure::admits_speculation;
use crate::policy::schedule::{Lanes, LowRoom};
use crate::residency::{Ask, Key, Lease, Located, Want};

/// How often deadlines are looked at while any request has one or waits for memory.
const TICK: Duration = Duration::from_millis(5);
/// How long evictions have before those are refused who may not wait for memory.
const EVICTION_TURN: Duration = Duration::from_millis(50);
/// Leases that are taken from the ledger, and looked up, at once.
const LOOKUP_BATCH: usize = 128;
/// The same of low priority while somebody more urgent asks: what is being looked up stands before what comes next.
const LOOKUP_BATCH_LOW: usize = 16;
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
/// The score of what nobody but the predictor asked for: behind everything of its lane that somebody did.
const SPECULATIVE_SCORE: f32 = -1e9;

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
    /// Room with each device for reads of low priority.
    rooms: Vec<Arc<Room>>,
    /// How much of it there is now.
    low_room: LowRoom,
    /// Reads are held back by the bandwidth: until it is worth trying again.
    held: Option<Duration>,
    /// A message about that is on its way.
    holding: bool,
    /// Places for flights, of urgent loads and of others.
    flights: [Arc<Credits>; 2],
    /// Memory that this process may use.
    memory_bytes: u64,
    /// What it takes to put the lanes in order anew.
    rescoring: viewers::Rescoring,
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
    /// What it is scored by, once there is a viewer. Apart, since most have none.
    known: Option<Box<viewers::Known>>,
    /// When it was taken from the ledger.
    since: Instant,
    /// The earliest deadline of those who wait for it.
    deadline: Option<Instant>,
    /// Where it stood within its lane.
    score: f32,
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
        let room = || {
            let address = address.clone();
            Room::new(Box::new(move || address.hint(DispatcherMessage::Credit)))
        };
        let rooms = shared.drivers.iter().map(|_| room()).collect();
        let low_room = LowRoom::new(shared.config.queue_depth, limits::READ_BYTES_LOW_MAX as u64);
        let lookups = credits(LOOKUPS_MAX * shared.drivers.len());
        let flights = [credits(FLIGHTS_MAX), credits(FLIGHTS_MAX)];
        let credits: Vec<_> = shared.drivers.iter().map(|_| credits(shared.config.queue_depth)).collect();
        // What an earlier one was told may be lost with it.
        drop(myself.send_message(DispatcherMessage::ViewersMoved));
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
            rooms,
            low_room,
            held: None,
            holding: false,
            flights,
            memory_bytes: cgroup::usable_memory_bytes(),
            rescoring: viewers::Rescoring::default(),
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
            DispatcherMessage::ViewersMoved => state.viewers_moved(&myself),
            DispatcherMessage::Tokens => {
                state.holding = false;
                state.pump();
            }
            DispatcherMessage::Tick => state.tick(),
        }
        state.keep_ticking(&myself);
        state.tell_queues();
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
        self.take_changes();
        self.pump();
    }

    fn enqueue(&mut self, lease: Lease, located: Arc<Located>, since: Instant) {
        let key = lease.key();
        let (mut pending, priority, score) = self.place_of(lease, located, since);
        pending.score = self.own_score(&pending, since).unwrap_or(score);
        self.wanted.push(priority, pending.score, key, pending);
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
            let planned = self.plan_reads();
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

    /// Which lanes may plan reads: those before which not enough is planned, and, while a load waits for the total
    /// budget, those that are more urgent than it: nothing behind it may take the memory that comes free.
    fn may_plan(&self) -> [bool; 4] {
        let waiting = self.waiting.iter().filter(|waiting| waiting.kind.is_none());
        let waiting = waiting.map(|waiting| waiting.pending.lease.priority()).min();
        let (planned, ahead) = (self.planned_by_lane(), self.plan_ahead());
        Priority::ALL.map(|priority| {
            let before: usize = planned[..=priority as usize].iter().sum();
            before < ahead && waiting.is_none_or(|waiting| priority < waiting)
        })
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
        let mut open = self.may_plan();
        while frames.len() < self.plan_ahead() {
            let Some((key, mut pending, score)) = self.wanted.pop_scored(open) else { break };
            pending.score = score;
            let low = Priority::Low as usize;
            if pending.lease.is_speculative() && open[low] && self.wanted.len() > self.wanted.lane_len(Priority::Low) {
                // It is its lane's turn, but what nobody asked for is never ahead of what somebody did.
                self.wanted.push(Priority::Low, SPECULATIVE_SCORE, key, pending);
                open[low] = false;
                continue;
            }
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
                Err(back) => {
                    let (pending, shortfall) = *back;
                    self.wait_for_memory(pending, &shortfall);
                    open = self.may_plan();
                }
            }
        }
        self.finished(empty);
        self.queue_reads(frames);
        moved
    }

    fn prefetch(&mut self, wishes: Vec<Prefetch>) {
        // Nothing is fetched ahead while a load waits for memory. A full cache makes room for it as for any other load.
        if !self.waiting.is_empty() {
            return;
        }
        let (now, level) = (self.shared.clock.now(), self.shared.budget.level());
        for Prefetch { live, id, proven } in wishes {
            if !admits_speculation(level, proven) || self.shared.table.candidate(id).is_some() {
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
        if self.shared.ledger.next_deadline().is_some() {
            self.near_deadlines(now);
        }
        self.waiting.retain(|waiting| waiting.pending.lease.is_wanted());
        let retried = self.retry_waiting();
        let stuck = self.starved.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        if !self.waiting.is_empty() && stuck >= self.shared.config.memory_wait {
            // What is queued behind comes to wait now, and finds that it has waited as long.
            for waiting in std::mem::take(&mut self.waiting) {
                self.give_up_waiting(waiting, stuck);
            }
            return self.pump();
        }
        if stuck >= EVICTION_TURN {
            self.refuse_least_urgent();
        }
        if let Some(shortfall) = retried.filter(|_| !self.waiting.is_empty()) {
            // Less came free than was hoped for, or the wish was lost with an evictor.
            self.ask_for_room(&shortfall);
        }
        self.pump();
    }

    fn tell_queues(&self) {
        let planned = self.planned_by_lane();
        let waiting = Priority::ALL.map(|priority| self.wanted.lane_len(priority) + planned[priority as usize]);
        self.shared.metrics.priorities.queued(waiting);
    }

    fn keep_ticking(&mut self, myself: &ActorRef<DispatcherMessage>) {
        // Whoever comes to wait while nobody does begins a wait of its own.
        if self.waiting.is_empty() {
            self.starved = None;
        } else {
            self.starved.get_or_insert(self.shared.clock.now());
        }
        if let Some(wait) = self.held.take()
            && !self.holding
        {
            self.holding = true;
            myself.send_after(wait, || DispatcherMessage::Tokens);
        }
        if !self.ticking && (!self.waiting.is_empty() || self.shared.ledger.next_deadline().is_some()) {
            self.ticking = true;
            myself.send_after(TICK, || DispatcherMessage::Tick);
        }
    }
}
