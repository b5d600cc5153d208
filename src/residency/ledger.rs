//! Every load that is not answered yet. It belongs to no actor, so that whichever of them dies, nothing is lost
//! (invariants 4 and 5).
//!
//! An **entry** is one piece of work: a [`Key`]. Everyone who wants it waits at the same entry with a [`Ticket`]. The
//! right to work on it is a [`Lease`], of which there is one at a time: the dispatcher takes leases from the inbox, they
//! travel with the work through the stages, and whoever drops one, for whatever reason, gives the entry back to the
//! inbox. An entry ends once: with an answer, or when the last one who waits lets go.
//!
//! ```text
//! join ─→ queued (inbox) ─take_ready→ leased ─answer→ done
//!            ↑                          │  └─merge→ follows another entry of the same content
//!            └────── dropped lease ─────┘
//! ```
//!
//! Locks, in the order in which they may be held together: a shard of `entries` or `contents`, the entry that leads,
//! an entry that follows it, then one of the leaves (deadlines, strikes). Never the other way round, and never while
//! anything foreign runs: wakers, callbacks, and drops that may call back happen when all of them are released.

mod deadlines;
mod entry;
mod finish;
mod inbox;
mod lease;
mod look;
mod merge;
mod stats;
mod strikes;
mod ticket;
mod wakers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use dashmap::{DashMap, Entry as Place};
use parking_lot::Mutex;
use tracing::Span;

use self::deadlines::Deadlines;
use self::entry::{Entry, Phase, State, Waiter};
use self::inbox::Inbox;
use self::stats::Counts;
use self::strikes::Strikes;
use super::asset::Asset;
use super::content::Chunk;
use super::generations::Live;
use super::table::ResidentTable;
use crate::bundle::{AssetRecord, Placement};
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation, Hashing, Origin, Priority};
use crate::policy::schedule::Hints;

pub use self::inbox::{Change, OnReady};
pub use self::lease::{Lease, Working};
pub use self::look::OpenWork;
pub use self::merge::Merge;
pub use self::stats::LedgerStats;
pub use self::ticket::Ticket;
pub use self::wakers::Wakers;

/// What is asked for of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// All of it, resident: [`Answer::Asset`].
    Resident,
    /// All of it as it is stored, resident under [`AssetId::stored`]: [`Answer::Asset`].
    Stored,
    /// What the table of contents says of it: [`Answer::Record`].
    Record,
    /// A piece of it: [`Answer::Piece`].
    Piece {
        /// The first byte.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
}

/// One piece of work. Requests with the same key share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The generation it is asked of.
    pub generation: Generation,
    /// The asset.
    pub id: AssetId,
    /// What of it.
    pub want: Want,
}

/// Where an asset is, as the table of contents has it.
#[derive(Clone, Debug)]
pub struct Located {
    /// The asset.
    pub record: AssetRecord,
    /// Its pieces.
    pub placement: Placement,
    /// Whether it uses anything, which may be worth asking for ahead.
    pub has_dependencies: bool,
}

/// What a request is answered with. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// For [`Want::Resident`] and [`Want::Stored`].
    Asset(Asset),
    /// For [`Want::Record`].
    Record(Arc<Located>),
    /// For [`Want::Piece`].
    Piece(Chunk),
}

/// How a request is made.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How urgent. The most urgent of those who wait for the same work counts.
    pub priority: Priority,
    /// Whether nobody named the priority: then it follows the distance from the viewers, as long as nobody who waits for
    /// the same did.
    pub by_distance: bool,
    /// Who asks.
    pub origin: Origin,
    /// When it is too late.
    pub deadline: Option<Instant>,
    /// The time now.
    pub now: Instant,
    /// The span of the request. The first one's goes with the work.
    pub span: Span,
    /// The path, for errors; without it they name the id.
    pub path: Option<AssetPath>,
    /// On which NUMA node it is to be in memory, by its place; `None` where that does not matter. The first one's counts.
    pub place: Option<u8>,
    /// What is known about how urgent it is within its lane. The first one's counts.
    pub hints: Option<Box<Hints>>,
}

impl Ask {
    /// A request of medium priority from the user, without a deadline.
    pub fn new(now: Instant) -> Ask {
        Ask {
            priority: Priority::default(),
            by_distance: false,
            origin: Origin::default(),
            deadline: None,
            now,
            span: Span::none(),
            path: None,
            place: None,
            hints: None,
        }
    }
}

/// Whether a request started work or joined work that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It is the first: the dispatcher will find it in the inbox.
    First,
    /// Someone waits for the same already.
    Merged,
}

/// The table of all open requests. See the module's words.
pub struct Ledger {
    entries: DashMap<Key, Arc<Entry>, Hashing>,
    /// The entry that does the work for a content, once a merge named it.
    contents: DashMap<(ContentHash, Want), Arc<Entry>, Hashing>,
    inbox: Inbox,
    deadlines: Deadlines,
    strikes: Strikes,
    counts: Counts,
    /// Tells waiters apart.
    sequence: AtomicU64,
    open_max: usize,
    /// When the first request of all was made: entries count their age from there.
    began: OnceLock<Instant>,
    /// Why nothing is accepted, while it is closed. Set before the sweep of `close`, read under a shard's lock.
    closed: ArcSwapOption<Error>,
    /// One close or reopen at a time.
    closing: Mutex<()>,
    /// Where the assets of followers are made resident.
    table: Arc<ResidentTable>,
}

impl Ledger {
    /// A ledger for at most `open_max` open requests. When entries are merged by content, `table` gets the asset of
    /// each one that follows.
    pub fn new(table: Arc<ResidentTable>, open_max: usize) -> Arc<Ledger> {
        Arc::new(Ledger {
            entries: DashMap::default(),
            contents: DashMap::default(),
            inbox: Inbox::default(),
            deadlines: Deadlines::default(),
            strikes: Strikes::default(),
            counts: Counts::default(),
            sequence: AtomicU64::new(0),
            open_max,
            began: OnceLock::new(),
            closed: ArcSwapOption::empty(),
            closing: Mutex::new(()),
            table,
        })
    }

    /// Makes a request: joins the work that is open for `key`, or starts it. `live` is the generation of the key.
    ///
    /// # Errors
    /// Nothing is owed then: [`Error::QueueFull`] at the limit, [`Error::Quarantined`] for what broke a stage too
    /// often, and while the ledger is closed what it was closed with.
    pub fn join(self: &Arc<Self>, live: &Arc<Live>, key: Key, ask: Ask) -> Result<(Ticket, Joined)> {
        debug_assert_eq!(key.generation, live.generation(), "a key goes with its generation");
        if let Some(error) = self.strikes.refusal(&key, || what(ask.path.as_ref(), key.id)) {
            return Err(error);
        }
        self.counts.open(self.open_max)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let Ask { priority, by_distance, origin, deadline, now, .. } = ask;
        let waiter = Waiter { sequence, priority, origin, deadline, waker: None };
        let after = deadline.map(|deadline| deadline.saturating_duration_since(now));
        // What a done entry leaves in the map is dropped after the shard is released.
        let mut replaced = None;
        let place = self.entries.entry(key);
        if let Some(error) = &*self.closed.load() {
            drop(place);
            self.counts.unopen();
            return Err(Error::clone(error));
        }
        if let Place::Occupied(occupied) = &place {
            let entry = Arc::clone(occupied.get());
            let mut state = entry.state.lock();
            if state.is_open() {
                // Counted before anyone can answer it, so that its end is never counted first.
                self.counts.joined(priority, origin, Joined::Merged);
                let slot = state.wait(waiter);
                entry.asked_by(origin);
                self.deadlines.add(&entry, slot, deadline, sequence, after);
                drop(state);
                drop(place);
                self.raise(&entry, priority, by_distance);
                return Ok((Ticket::new(Arc::clone(self), entry, slot), Joined::Merged));
            }
        }
        let state = State::new(Arc::clone(live), self.strikes.so_far(&key));
        let entry = Arc::new(Entry::new(key, ask, self.stamp(now), state));
        self.counts.joined(priority, origin, Joined::First);
        let slot = entry.state.lock().wait(waiter);
        self.deadlines.add(&entry, slot, deadline, sequence, after);
        match place {
            Place::Occupied(mut occupied) => replaced = Some(occupied.insert(Arc::clone(&entry))),
            Place::Vacant(vacant) => drop(vacant.insert(Arc::clone(&entry))),
        }
        drop(replaced);
        self.inbox.push(Arc::clone(&entry));
        Ok((Ticket::new(Arc::clone(self), entry, slot), Joined::First))
    }

    /// As [`Ledger::join`], for a request that nobody waits for: a prefetch. It is not cancelled; a deadline ends it.
    ///
    /// # Errors
    /// As [`Ledger::join`].
    pub fn join_unattended(self: &Arc<Self>, live: &Arc<Live>, key: Key, ask: Ask) -> Result<Joined> {
        let (ticket, joined) = self.join(live, key, ask)?;
        ticket.detach();
        Ok(joined)
    }

    /// Takes up to `max` entries from the inbox, the most urgent first, though now and then a patient one. Fewer than
    /// `max` means that the inbox is empty, and that the next arrival calls [`Ledger::on_ready`]'s callback again. A
    /// new dispatcher starts with this, since the call before may have died with the old one.
    pub fn take_ready(self: &Arc<Self>, max: usize) -> Vec<Lease> {
        self.take(max, || self.inbox.pop())
    }

    /// [`Ledger::take_ready`] of one priority: for a dispatcher that holds as many of another as it wants to. Fewer than
    /// `max` means that there is none of this priority left, and that the next one calls the callback.
    pub fn take_ready_of(self: &Arc<Self>, priority: Priority, max: usize) -> Vec<Lease> {
        self.take(max, || self.inbox.pop_of(priority))
    }

    fn take(self: &Arc<Self>, max: usize, pop: impl Fn() -> Option<Arc<Entry>>) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < max {
            let Some(entry) = pop() else { break };
            let mut state = entry.state.lock();
            if matches!(state.phase, Phase::Queued)
                && let Some(live) = state.live.clone()
            {
                state.phase = Phase::Leased;
                state.epoch += 1;
                let (epoch, attempt) = (state.epoch, state.strikes + 1);
                drop(state);
                leases.push(Lease::new(Arc::clone(self), entry, live, epoch, attempt));
            } else {
                drop(state);
                self.inbox.popped_dead();
            }
        }
        leases
    }

    /// What became more urgent, or was let go by everyone, since the last call, of what was leased at the time. Hints:
    /// [`Lease::priority`] and [`Lease::is_wanted`] always tell the truth. The `on_ready` callback announces these too.
    pub fn changes(&self) -> Vec<Change> {
        self.inbox.changes()
    }

    /// Sets who is told when the inbox is no longer empty, or there are changes. It replaces the one before, and is
    /// called at once if something waits. It runs on whatever thread joins or gives back: it must be quick.
    pub fn on_ready(&self, ready: OnReady) {
        self.inbox.on_ready(ready);
    }

    /// Answers those whose deadline is not after `now`; gives how many.
    pub fn expire(&self, now: Instant) -> usize {
        let mut expired = 0;
        self.deadlines.due(now, |due| expired += usize::from(self.expire_one(due)));
        expired
    }

    /// The next deadline of anyone.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Answers every open request with `error` and accepts no more until [`Ledger::reopen`]; gives how many it
    /// answered. Leases that are out are harmless from here on.
    pub fn close(&self, error: Error) -> usize {
        let _closing = self.closing.lock();
        self.closed.store(Some(Arc::new(error.clone())));
        // A join that did not see the flag holds or held its shard before this loop looks at it.
        let open: Vec<Arc<Entry>> = self.entries.iter().map(|entry| Arc::clone(&entry)).collect();
        let answered = open.iter().map(|entry| self.close_one(entry, &error)).sum();
        self.inbox.clear();
        answered
    }

    /// Accepts no more requests, which get `error`, and lets the open ones run on: the first half of a shutdown. Gives
    /// how many are open.
    pub fn stop_taking(&self, error: Error) -> usize {
        let _closing = self.closing.lock();
        self.closed.store(Some(Arc::new(error)));
        self.open()
    }

    /// Accepts requests again.
    pub fn reopen(&self) {
        let _closing = self.closing.lock();
        self.closed.store(None);
    }

    /// Whether it accepts no requests.
    pub fn is_closed(&self) -> bool {
        self.closed.load().is_some()
    }

    /// Lets what is quarantined be tried again, as after a repair of the machine.
    pub fn forgive(&self) {
        self.strikes.clear();
    }

    /// What happened so far.
    pub fn stats(&self) -> LedgerStats {
        self.counts.snapshot(self.strikes.quarantined())
    }

    /// How many requests are open.
    pub fn open(&self) -> usize {
        self.counts.open_now()
    }

    /// Makes the work of `entry` at least as urgent as `priority`, which somebody named unless it is `by_distance`.
    fn raise(&self, entry: &Arc<Entry>, priority: Priority, by_distance: bool) {
        let mut entry = Arc::clone(entry);
        while let Some(is_raised) = entry.raise(priority, by_distance) {
            let state = entry.state.lock();
            let leader = match &state.phase {
                Phase::Queued | Phase::Leased if !is_raised => return,
                Phase::Queued => {
                    drop(state);
                    return self.inbox.push_again(entry);
                }
                Phase::Leased => {
                    drop(state);
                    return self.inbox.change(Change::Raised { key: entry.key, priority });
                }
                Phase::Follows(leader, _) => Arc::clone(leader),
                Phase::Done(_) | Phase::Gone => return,
            };
            drop(state);
            entry = leader;
        }
    }
}

/// What an error calls an asset: its path, or its id where the path is not known.
fn what(path: Option<&AssetPath>, id: AssetId) -> String {
    path.map_or_else(|| format!("asset {id}"), |path| path.to_string())
}

#[cfg(test)]
mod tests;
