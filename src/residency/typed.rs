//! Values that were decoded from contents, kept beside their bytes, each decoded once for all who want it.
//!
//! A value is found through the content that it was made of: a hit follows two pointers and takes no lock. The content
//! holds the value for as long as it is in memory itself, unless room is needed and nobody uses the value; whoever has a
//! handle to a value keeps it longer than its bytes. The charge for a value ends when the value is freed (invariant 7).
//!
//! [`Values`] knows which values there are and which are being made. It knows of a value only for as long as somebody
//! holds it, so nothing is kept in memory by being known here.

use std::any::{Any, TypeId};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::budget::Charge;
use super::content::Content;
use crate::error::{Error, Result};
use crate::ids::{AssetKind, ContentHash, Hashing};
use crate::limits;

/// A value of whatever type.
pub type AnyValue = Arc<dyn Any + Send + Sync>;

/// What came of making a value.
pub type Outcome = Result<AnyValue>;

/// A decoded value with its charge, which ends after it.
pub struct Value<T: Send + Sync + 'static> {
    /// Taken out only when it is dropped.
    value: Option<T>,
    charge: Charge,
}

impl<T: Send + Sync + 'static> Value<T> {
    /// The value, under `charge`.
    pub fn new(value: T, charge: Charge) -> Arc<Self> {
        Arc::new(Self { value: Some(value), charge })
    }

    /// What it is charged, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.charge.bytes()
    }
}

impl<T: Send + Sync + 'static> Deref for Value<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send + Sync + 'static> Drop for Value<T> {
    /// What is large is freed by the reaper, as large bytes are.
    fn drop(&mut self) {
        let (Some(value), charge) = (self.value.take(), self.charge.take()) else { return };
        let budget = Arc::clone(charge.budget());
        budget.bin.throw_value(value, charge);
    }
}

/// The values beside one content, one for each type: a list that only grows, of slots that are emptied for room.
#[derive(Default)]
pub(super) struct Beside(OnceLock<Box<Slot>>);

struct Slot {
    of: TypeId,
    kept: ArcSwapOption<Kept>,
    next: Beside,
}

struct Kept {
    value: AnyValue,
    kind: AssetKind,
    weight: u64,
    last_used: AtomicU32,
}

impl Kept {
    /// Whether nobody else holds it.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.value) == 1
    }
}

impl Beside {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(self.0.get(), |slot| slot.next.0.get()).map(|slot| &**slot)
    }

    /// The value of this type, if there is one; `tick` is when it is used.
    #[inline]
    pub(super) fn get<T: Send + Sync + 'static>(&self, tick: u32) -> Option<Arc<Value<T>>> {
        let of = TypeId::of::<Value<T>>();
        let slot = self.slots().find(|slot| slot.of == of)?;
        let kept = slot.kept.load();
        let kept = kept.as_deref()?;
        if kept.last_used.load(Ordering::Relaxed) != tick {
            kept.last_used.store(tick, Ordering::Relaxed);
        }
        Arc::clone(&kept.value).downcast().ok()
    }

    fn keep(&self, of: TypeId, kept: Kept) {
        let mut kept = Some(Arc::new(kept));
        let mut list = self;
        loop {
            let slot = list
                .0
                .get_or_init(|| Box::new(Slot { of, kept: ArcSwapOption::new(kept.take()), next: Self::default() }));
            match kept {
                // It was put into a slot of its own.
                None => return,
                Some(_) if slot.of == of => return slot.kept.store(kept),
                Some(_) => list = &slot.next,
            }
        }
    }

    /// Bytes that come free with the content: those of values that nobody else holds.
    pub(super) fn idle_bytes(&self) -> u64 {
        let idle =
            |slot: &Slot| slot.kept.load().as_deref().filter(|kept| kept.is_idle()).map_or(0, |kept| kept.weight);
        self.slots().map(idle).sum()
    }

    /// The values that nobody else holds: when each was used last, its kind and its weight.
    fn idle(&self) -> impl Iterator<Item = (u32, AssetKind, u64)> {
        let known = |kept: &Kept| (kept.last_used.load(Ordering::Relaxed), kept.kind, kept.weight);
        self.slots().filter_map(move |slot| slot.kept.load().as_deref().filter(|kept| kept.is_idle()).map(known))
    }

    /// Lets go of values of this kind that nobody else holds and that were not used after `tick`. Gives their bytes.
    fn let_go(&self, kind: Option<AssetKind>, tick: u32) -> u64 {
        let mut freed = 0;
        for slot in self.slots() {
            let kept = slot.kept.load_full();
            let Some(kept) = kept.filter(|kept| kept.is_idle() && kind.is_none_or(|kind| kept.kind == kind)) else {
                continue;
            };
            if kept.last_used.load(Ordering::Relaxed) != tick {
                continue;
            }
            // Whoever took it meanwhile keeps it; it is known for as long as that.
            slot.kept.store(None);
            freed += kept.weight;
        }
        freed
    }
}

/// How many values there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueStats {
    /// Values in memory.
    pub values: usize,
    /// Values that are being made, or wait for room.
    pub making: usize,
    /// Contents that failed so often, for one type, that they are refused until they change.
    pub quarantined: usize,
}

type Key = (ContentHash, TypeId);
type Sender = Arc<watch::Sender<Option<Outcome>>>;

struct Known {
    value: Weak<dyn Any + Send + Sync>,
    kind: AssetKind,
    weight: u64,
    content: Weak<Content>,
    flight: Option<Sender>,
    attempts: u32,
    cause: String,
}

impl Default for Known {
    fn default() -> Self {
        let value: Weak<()> = Weak::new();
        Self {
            value,
            kind: AssetKind::Other,
            weight: 0,
            content: Weak::new(),
            flight: None,
            attempts: 0,
            cause: String::new(),
        }
    }
}

impl Known {
    fn is_needed(&self) -> bool {
        self.flight.is_some() || self.attempts > 0 || self.value.strong_count() > 0
    }
}

/// Entries below which nothing is swept.
const SWEEP_MIN: usize = 1024;
/// Most entries that are remembered for nothing but that they failed.
const FAILED_MAX: usize = 1 << 16;

/// Which values there are, which are being made, and what failed to be made.
pub struct Values {
    known: DashMap<Key, Known, Hashing>,
    room: Notify,
    sweep_at: AtomicUsize,
}

impl Default for Values {
    fn default() -> Self {
        Self { known: DashMap::default(), room: Notify::new(), sweep_at: AtomicUsize::new(SWEEP_MIN) }
    }
}

/// What there is of a value when somebody wants it.
pub enum Wanted {
    /// It is there.
    There(AnyValue),
    /// Somebody makes it.
    Made(Waiting),
    /// Nobody makes it: whoever has this is to.
    Make(Waiting, Flight),
    /// It failed too often: attempts, and the last cause.
    Refused(u32, String),
}

/// One who waits for a value. Dropping it cancels the making, unless others wait too.
pub struct Waiting(watch::Receiver<Option<Outcome>>);

impl Waiting {
    /// What came of it; `None` when whoever made it is gone.
    pub async fn outcome(mut self) -> Option<Outcome> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The right, and the duty, to make a value. Dropped unfinished, those who wait are told so.
pub struct Flight {
    values: Arc<Values>,
    key: Key,
    sender: Sender,
}

impl Values {
    /// Asks for the value of this type that is made of `content`, at `tick`. What there is already is kept beside it.
    pub fn want<T: Send + Sync + 'static>(self: &Arc<Self>, content: &Arc<Content>, tick: u32) -> Wanted {
        self.sweep();
        let key = (content.hash(), TypeId::of::<Value<T>>());
        let mut known = self.known.entry(key).or_default();
        if let Some(value) = known.value.upgrade() {
            let (kind, weight) = (known.kind, known.weight);
            known.content = Arc::downgrade(content);
            drop(known);
            let last_used = AtomicU32::new(tick);
            content.beside().keep(key.1, Kept { value: Arc::clone(&value), kind, weight, last_used });
            return Wanted::There(value);
        }
        if known.attempts >= limits::ATTEMPTS_MAX {
            return Wanted::Refused(known.attempts, known.cause.clone());
        }
        if let Some(flight) = &known.flight {
            return Wanted::Made(Waiting(flight.subscribe()));
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        known.flight = Some(Arc::clone(&sender));
        Wanted::Make(Waiting(receiver), Flight { values: Arc::clone(self), key, sender })
    }

    /// Resolves when memory came free after it was called.
    pub fn room(&self) -> impl Future<Output = ()> + '_ {
        self.room.notified()
    }

    /// Memory came free.
    pub fn room_made(&self) {
        self.room.notify_waiters();
    }

    /// Lets go of values that nobody uses, the least recently used first, until so many bytes come free, of this kind
    /// when one is named. Gives how many did. For when no more bytes can be evicted: the values of what is evicted go
    /// with it.
    pub fn let_go(&self, bytes: u64, kind: Option<AssetKind>) -> u64 {
        let contents: Vec<Arc<Content>> = self.known.iter().filter_map(|known| known.content.upgrade()).collect();
        let mut idle: Vec<(u32, usize)> = Vec::new();
        for (at, content) in contents.iter().enumerate() {
            let of_kind = content.beside().idle().filter(|(_, is, _)| kind.is_none_or(|kind| *is == kind));
            idle.extend(of_kind.map(|(tick, ..)| (tick, at)));
        }
        idle.sort_unstable();
        let mut freed = 0;
        for (tick, at) in idle {
            if freed >= bytes {
                break;
            }
            freed += contents[at].beside().let_go(kind, tick);
        }
        freed
    }

    /// Bytes of values that are in memory and that somebody holds besides the contents they were made of.
    pub fn bytes(&self) -> u64 {
        self.known.iter().filter(|known| known.value.strong_count() > 1).map(|known| known.weight).sum()
    }

    /// How many there are.
    pub fn stats(&self) -> ValueStats {
        let mut stats = ValueStats::default();
        for known in self.known.iter() {
            stats.values += usize::from(known.value.strong_count() > 0);
            stats.making += usize::from(known.flight.is_some());
            stats.quarantined += usize::from(known.attempts >= limits::ATTEMPTS_MAX);
        }
        stats
    }

    /// Forgets what is gone, when there are twice as many entries as after the last time.
    fn sweep(&self) {
        if self.known.len() < self.sweep_at.load(Ordering::Relaxed) {
            return;
        }
        let mut failed = 0;
        self.known.retain(|_, known| {
            let only_failed = known.flight.is_none() && known.value.strong_count() == 0;
            failed += usize::from(only_failed && known.attempts > 0);
            known.is_needed() && (!only_failed || failed <= FAILED_MAX)
        });
        self.sweep_at.store((self.known.len() * 2).max(SWEEP_MIN), Ordering::Relaxed);
    }
}

impl Flight {
    /// Resolves when nobody waits any more, though somebody may again by the time it is looked at.
    pub async fn unwanted(&self) {
        self.sender.closed().await
    }

    /// Gives it up, if nobody waits.
    pub fn abandon(&self) -> bool {
        let Some(mut known) = self.values.known.get_mut(&self.key) else { return true };
        let unwanted = self.sender.receiver_count() == 0;
        if unwanted {
            known.flight = None;
        }
        unwanted
    }

    /// The value is made: it is kept beside `content`, and everyone who waits is answered.
    pub fn made<T: Send + Sync + 'static>(self, value: Arc<Value<T>>, content: &Arc<Content>, tick: u32) {
        let (kind, weight) = (value.charge.kind(), value.weight_bytes());
        let value: AnyValue = value;
        let last_used = AtomicU32::new(tick);
        content.beside().keep(self.key.1, Kept { value: Arc::clone(&value), kind, weight, last_used });
        {
            let mut known = self.values.known.entry(self.key).or_default();
            let content = Arc::downgrade(content);
            *known = Known { value: Arc::downgrade(&value), kind, weight, content, ..Known::default() };
        }
        self.sender.send_replace(Some(Ok(value)));
    }

    /// It failed. `counts` says whether the content is to blame.
    pub fn failed(self, error: Error, counts: bool) {
        if let Some(mut known) = self.values.known.get_mut(&self.key) {
            known.flight = None;
            if counts {
                known.attempts += 1;
                known.cause = error.to_string();
            }
        }
        self.sender.send_replace(Some(Err(error)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(mut known) = self.values.known.get_mut(&self.key)
            && known.flight.as_ref().is_some_and(|flight| Arc::ptr_eq(flight, &self.sender))
        {
            known.flight = None;
        }
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}
