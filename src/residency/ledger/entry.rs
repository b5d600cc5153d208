//! One piece of work and those who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Span;

use super::{Answer, Ask, Key};
use crate::error::Error;
use crate::ids::{AssetPath, ContentHash, Origin, Priority};
use crate::policy::schedule::Hints;
use crate::residency::asset::Name;
use crate::residency::generations::Live;

/// Marks a priority that follows the distance.
const BY_DISTANCE: u8 = 0x80;

/// How an entry ended. The error is boxed, since entries are many and errors few.
pub(super) type Outcome = Result<Answer, Box<Error>>;

/// One piece of work.
pub(super) struct Entry {
    pub(super) key: Key,
    /// The span of the first request. Apart, since there is one only while somebody traces.
    pub(super) span: Option<Box<Span>>,
    pub(super) path: Option<AssetPath>,
    /// The node of the first request, where one was asked for.
    pub(super) place: Option<u8>,
    /// What the first request knew about its urgency within a lane. Apart, since few say.
    pub(super) hints: Option<Box<Hints>>,
    /// The most urgent priority asked for so far, only ever raised; with [`BY_DISTANCE`] while nobody named one, and then
    /// it follows the viewers, down as well.
    priority: AtomicU8,
    /// Set once anyone but the predictor has asked for it.
    is_asked: AtomicBool,
    /// When it was opened, by [`super::Ledger`]'s stamp: it fills what alignment leaves of the line before.
    pub(super) since_ms: u32,
    pub(super) state: Mutex<State>,
}

/// Where an entry is.
pub(super) enum Phase {
    /// In the inbox, or on its way there. Nobody has the lease.
    Queued,
    /// A lease of the state's epoch is out.
    Leased,
    /// Another entry does the work, for this name.
    Follows(Arc<Entry>, Box<Name>),
    /// Answered. Boxed, since most of an entry's life is before.
    Done(Box<Outcome>),
    /// Nobody waited any more.
    Gone,
}

/// What changes about an entry.
pub(super) struct State {
    pub(super) phase: Phase,
    /// The generation; let go when the entry ends.
    pub(super) live: Option<Arc<Live>>,
    /// What it leads, once its content is known and nobody else leads that.
    pub(super) lead: Option<Box<Lead>>,
    /// Counts leases. A lease of another epoch is stale.
    pub(super) epoch: u32,
    /// Attempts that failed so far.
    pub(super) strikes: u32,
    /// The stage that has the work in hand.
    pub(super) in_hand: Option<&'static str>,
    /// How many of `slots` wait.
    waiting: u32,
    slots: Slots,
}

/// What an entry leads.
pub(super) struct Lead {
    pub(super) content: ContentHash,
    /// Entries that follow it, some of which may have ended.
    pub(super) followers: Vec<Arc<Entry>>,
    /// How many of them have not.
    pub(super) following: u32,
}

/// Someone who waits.
pub(super) struct Waiter {
    pub(super) sequence: u64,
    pub(super) priority: Priority,
    pub(super) origin: Origin,
    pub(super) deadline: Option<Instant>,
    pub(super) waker: Option<Waker>,
}

/// The place of one ticket.
enum Slot {
    /// Nobody's; the next free one.
    Free(u32),
    Waits(Waiter),
    /// Its deadline passed after this long.
    Expired(Duration),
    /// Answered with the entry.
    Answered,
}

/// The slots of an entry; the first without an allocation, since most entries have one waiter.
struct Slots {
    first: Slot,
    more: Vec<Slot>,
    /// The first free slot.
    free: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// What a ticket finds.
pub(super) enum Found {
    Waits,
    Expired(Duration),
    Outcome(Outcome),
}

impl Entry {
    pub(super) fn new(key: Key, ask: Ask, since_ms: u32, state: State) -> Entry {
        let Ask { priority, by_distance, origin, span, path, place, hints, .. } = ask;
        let span = (!span.is_disabled()).then(|| Box::new(span));
        let priority = AtomicU8::new(marked(priority, by_distance));
        let is_asked = AtomicBool::new(origin != Origin::Predictor);
        Entry { key, span, path, place, hints, priority, is_asked, since_ms, state: Mutex::new(state) }
    }

    /// The most urgent priority asked for.
    pub(super) fn priority(&self) -> Priority {
        Priority::ALL[usize::from(self.priority.load(Ordering::Relaxed) & !BY_DISTANCE)]
    }

    /// Whether its priority follows the distance, since nobody named one.
    pub(super) fn is_by_distance(&self) -> bool {
        self.priority.load(Ordering::Relaxed) & BY_DISTANCE != 0
    }

    /// Notes a request of `priority`, which somebody named unless it is `by_distance`. Whether that changed anything, and
    /// if so whether it is more urgent than all before.
    pub(super) fn raise(&self, priority: Priority, by_distance: bool) -> Option<bool> {
        let change = |old: u8| {
            let least = (old & !BY_DISTANCE).min(priority as u8);
            let mark = if by_distance { old & BY_DISTANCE } else { 0 };
            Some(least | mark).filter(|new| *new != old)
        };
        let old = self.priority.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).ok()?;
        Some(old & !BY_DISTANCE > priority as u8)
    }

    /// Gives it this priority, less urgent ones included, if it follows the distance. Whether it does.
    pub(super) fn follow_distance(&self, priority: Priority) -> bool {
        let change = |old: u8| (old & BY_DISTANCE != 0).then_some(marked(priority, true));
        self.priority.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }

    /// Whether nobody but the predictor has asked for it.
    pub(super) fn is_speculative(&self) -> bool {
        !self.is_asked.load(Ordering::Relaxed)
    }

    /// Somebody of this origin has asked for it too.
    pub(super) fn asked_by(&self, origin: Origin) {
        if origin != Origin::Predictor {
            self.is_asked.store(true, Ordering::Relaxed);
        }
    }

    /// What an error calls it.
    pub(super) fn what(&self) -> String {
        super::what(self.path.as_ref(), self.key.id)
    }
}

fn marked(priority: Priority, by_distance: bool) -> u8 {
    priority as u8 | if by_distance { BY_DISTANCE } else { 0 }
}

impl State {
    pub(super) fn new(live: Arc<Live>, strikes: u32) -> State {
        State {
            phase: Phase::Queued,
            live: Some(live),
            lead: None,
            epoch: 0,
            strikes,
            in_hand: None,
            waiting: 0,
            slots: Slots { first: Slot::Free(NONE), more: Vec::new(), free: 0 },
        }
    }

    /// Whether it has not ended.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Done(_) | Phase::Gone)
    }

    /// Whether the lease of `epoch` is the one that is out.
    pub(super) fn is_leased(&self, epoch: u32) -> bool {
        matches!(self.phase, Phase::Leased) && self.epoch == epoch
    }

    /// Whether anyone is owed an answer.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting > 0 || self.lead.as_ref().is_some_and(|lead| lead.following > 0)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The earliest deadline of anyone who waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let slots = std::iter::once(&self.slots.first).chain(&self.slots.more);
        let deadline = |slot: &Slot| match slot {
            Slot::Waits(waiter) => waiter.deadline,
            _ => None,
        };
        slots.filter_map(deadline).min()
    }

    /// Adds a waiter; gives its slot.
    pub(super) fn wait(&mut self, waiter: Waiter) -> u32 {
        self.waiting += 1;
        self.slots.add(Slot::Waits(waiter))
    }

    /// What the ticket of `slot` finds.
    pub(super) fn look(&self, slot: u32) -> Found {
        match (self.slots.get(slot), &self.phase) {
            (Some(Slot::Expired(after)), _) => Found::Expired(*after),
            (Some(Slot::Answered), Phase::Done(outcome)) => Found::Outcome(Outcome::clone(outcome)),
            _ => Found::Waits,
        }
    }

    /// The waiter of `slot`, while it waits.
    pub(super) fn waiter(&mut self, slot: u32) -> Option<&mut Waiter> {
        match self.slots.get_mut(slot) {
            Some(Slot::Waits(waiter)) => Some(waiter),
            _ => None,
        }
    }

    /// Frees a ticket's slot; gives its waiter if that was still waiting.
    pub(super) fn leave(&mut self, slot: u32) -> Option<Waiter> {
        let left = self.slots.free(slot)?;
        self.waiting -= 1;
        Some(left)
    }

    /// Ends the wait of `slot` if it is still that of the waiter `sequence`.
    pub(super) fn expire(&mut self, slot: u32, sequence: u64, after: Duration) -> Option<Waiter> {
        self.waiter(slot).filter(|waiter| waiter.sequence == sequence)?;
        let expired = self.slots.end(slot, Slot::Expired(after))?;
        self.waiting -= 1;
        Some(expired)
    }

    /// Ends the wait of everyone; gives them to `each`.
    pub(super) fn answer_all(&mut self, mut each: impl FnMut(Waiter)) {
        for slot in std::iter::once(&mut self.slots.first).chain(&mut self.slots.more) {
            if matches!(slot, Slot::Waits(_))
                && let Slot::Waits(waiter) = std::mem::replace(slot, Slot::Answered)
            {
                each(waiter);
            }
        }
        self.waiting = 0;
    }
}

impl Slots {
    fn get(&self, slot: u32) -> Option<&Slot> {
        if slot == 0 { Some(&self.first) } else { self.more.get(slot as usize - 1) }
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        if slot == 0 { Some(&mut self.first) } else { self.more.get_mut(slot as usize - 1) }
    }

    fn add(&mut self, taken: Slot) -> u32 {
        let slot = self.free;
        if slot == NONE {
            self.more.push(taken);
            return self.more.len() as u32;
        }
        if let Some(place) = self.get_mut(slot)
            && let Slot::Free(next) = std::mem::replace(place, taken)
        {
            self.free = next;
        }
        slot
    }

    fn end(&mut self, slot: u32, with: Slot) -> Option<Waiter> {
        match std::mem::replace(self.get_mut(slot)?, with) {
            Slot::Waits(waiter) => Some(waiter),
            _ => None,
        }
    }

    fn free(&mut self, slot: u32) -> Option<Waiter> {
        let next = self.free;
        self.free = slot;
        self.end(slot, Slot::Free(next))
    }
}
