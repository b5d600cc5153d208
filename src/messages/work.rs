//! What travels through the read path: flights, frames, reads, permits.
//!
//! A flight is one content on its way into memory. Every piece of its work holds it; when the last piece is dropped
//! before the content is complete, the flight's lease is dropped with it and the ledger asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::bundle::{Codec, FrameRef};
use crate::error::{Error, Result};
use crate::ids::Priority;
use crate::messages::{Filled, Finished};
use crate::residency::{Chunk, ContentBuilder, IoCharge, Lease, Live, Located, Want};

/// One content, or a piece of one, on its way into memory.
pub struct Flight {
    /// The request; taken by whatever ends the flight.
    lease: Mutex<Option<Lease>>,
    /// What was asked for and where it is.
    pub located: Arc<Located>,
    /// The final memory, charged.
    pub target: ContentBuilder,
    /// The place among the flights; its return wakes who waits for one.
    _permit: Permit,
}

impl Flight {
    /// A flight for `lease` into `target`, in the place of `permit`.
    pub fn new(lease: Lease, located: Arc<Located>, target: ContentBuilder, permit: Permit) -> Arc<Self> {
        Arc::new(Self { lease: Mutex::new(Some(lease)), located, target, _permit: permit })
    }

    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.lease.lock().as_ref().is_some_and(Lease::is_wanted)
    }

    /// How urgent it is by now; `None` when nobody waits for it any more.
    pub fn urgency(&self) -> Option<Priority> {
        self.lease.lock().as_ref().filter(|lease| lease.is_wanted()).map(Lease::priority)
    }

    /// How urgent it is now, and in which generation it was asked for; `None` when it has ended.
    pub fn route(&self) -> Option<(Arc<Live>, Priority)> {
        self.lease.lock().as_ref().map(|lease| (Arc::clone(lease.live()), lease.priority()))
    }

    /// Ends the flight with an error, which answers everybody who waits.
    pub fn fail(&self, error: Error) {
        let lease = self.lease.lock().take();
        if let Some(lease) = lease {
            lease.answer(Err(error));
        }
    }

    /// Work on this very flight panicked: it counts against it, and the ledger asks again or quarantines it.
    pub fn broke(&self, cause: String) {
        let lease = self.lease.lock().take();
        if let Some(lease) = lease {
            lease.fail_item(cause);
        }
    }

    /// Ends the flight, once, when every byte of it is in place.
    pub fn finish(&self) -> Option<Finished> {
        let content = self.target.finish(self.located.record.content)?;
        let lease = self.lease.lock().take()?;
        let filled = match lease.key().want {
            Want::Piece { offset, .. } => Filled::Piece(Chunk::new(offset, content)),
            Want::Resident | Want::Stored | Want::Record => Filled::Content(content),
        };
        Some(Finished { lease, located: Arc::clone(&self.located), filled })
    }
}

/// A part of a decoded frame that a flight wants, and where it goes.
pub struct Part {
    /// The flight.
    pub flight: Arc<Flight>,
    /// First byte within the decoded frame.
    pub from: usize,
    /// Bytes.
    pub len: usize,
    /// First byte within the flight's memory.
    pub to: usize,
}

impl Part {
    /// Whether it is all of `frame`.
    pub fn is_whole(&self, frame: &FrameRef) -> bool {
        self.from == 0 && self.len == frame.decoded_len as usize
    }
}

/// Everyone who waits for one frame on its way: it is read and decoded once for all of them, also for those who come
/// while it is queued or with the kernel. Closed when its decoding begins.
pub struct Waits {
    /// The most urgent of them.
    priority: AtomicU8,
    /// `None` once it is closed.
    parts: Mutex<Option<Vec<Part>>>,
}

impl Waits {
    /// The first who waits.
    pub fn new(part: Part, priority: Priority) -> Arc<Self> {
        Arc::new(Self { priority: AtomicU8::new(priority as u8), parts: Mutex::new(Some(vec![part])) })
    }

    /// One more.
    ///
    /// # Errors
    /// The part itself, when the decoding has begun.
    pub fn join(&self, part: Part, priority: Priority) -> std::result::Result<(), Part> {
        match &mut *self.parts.lock() {
            Some(parts) => parts.push(part),
            None => return Err(part),
        }
        self.priority.fetch_min(priority as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Everyone who waits. Nobody joins from here on.
    pub fn close(&self) -> Vec<Part> {
        self.parts.lock().take().unwrap_or_default()
    }

    /// How urgent it is now.
    pub fn priority(&self) -> Priority {
        Priority::ALL[usize::from(self.priority.load(Ordering::Relaxed))]
    }

    /// How urgent it is by now to those who wait and still want it, which it notes; `None` when nobody does.
    pub fn urgency(&self) -> Option<Priority> {
        let urgency = self.parts.lock().iter().flatten().filter_map(|part| part.flight.urgency()).min()?;
        self.priority.fetch_min(urgency as u8, Ordering::Relaxed);
        Some(urgency)
    }
}

/// One frame of a read.
pub struct FrameJob {
    /// The frame.
    pub frame: FrameRef,
    /// Its first stored byte within the read.
    pub at: usize,
    /// Who waits for it.
    pub waits: Arc<Waits>,
    /// A frame that is stored as it is, and that somebody wants whole, is read into that flight's own memory, from
    /// this byte of it on.
    pub in_place: Option<(Arc<Flight>, usize)>,
}

impl FrameJob {
    /// Bytes of scratch memory that its decoding may need.
    pub fn scratch_bytes(&self) -> u64 {
        let parts = self.waits.parts.lock();
        let is_direct = parts.iter().flatten().any(|part| part.is_whole(&self.frame));
        if is_direct || self.frame.codec == Codec::Store { 0 } else { u64::from(self.frame.decoded_len) }
    }
}

/// What travels with a read, through the kernel too. Fields are dropped in this order: the frames with their flights
/// first, then the memory's charge, then the permit, whose return wakes whoever waits for both.
pub struct ReadToken {
    /// The frames it brings, in file order.
    pub frames: Vec<FrameJob>,
    /// The file, for errors.
    pub live: Arc<Live>,
    /// The buffer's and the scratch memory's charge.
    pub memory: IoCharge,
    /// The place in the worker's queue.
    pub permit: Permit,
    /// The room among the patient reads with the device; given back when the read has completed.
    pub room: Option<RoomPermit>,
    /// When it was handed over.
    pub since: Instant,
}

impl ReadToken {
    /// The most urgent of its frames.
    pub fn priority(&self) -> Priority {
        self.frames.iter().map(|job| job.waits.priority()).min().unwrap_or_default()
    }
}

/// Ends every flight that waits for one of these frames with the same error.
pub fn fail_all(frames: &[FrameJob], error: &Error) {
    for part in frames.iter().flat_map(|job| job.waits.close()) {
        part.flight.fail(error.clone());
    }
}

/// Places in a bounded queue.
pub struct Credits {
    limit: usize,
    used: AtomicUsize,
    wanted: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Credits {
    /// `limit` places; `wake` is called when one comes back while somebody waits.
    pub fn new(limit: usize, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), wanted: AtomicBool::new(false), wake })
    }

    /// A place, or `None`; then `wake` is called as soon as there is one again.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        self.try_take().or_else(|| {
            // A place that came back between the first look and this store would wake nobody: look again after it.
            self.wanted.store(true, Ordering::SeqCst);
            self.try_take()
        })
    }

    fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let take = |used| (used < self.limit).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        Some(Permit { credits: Arc::clone(self) })
    }

    /// Places that are taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// All places.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// One place. Dropping it gives it back.
pub struct Permit {
    credits: Arc<Credits>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.credits.used.fetch_sub(1, Ordering::SeqCst);
        if self.credits.wanted.swap(false, Ordering::SeqCst) {
            (self.credits.wake)();
        }
    }
}

/// Room with a device for reads that let others go first. How much there is changes with who else reads.
pub struct Room {
    used: AtomicU64,
    wanted: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Room {
    /// None of it taken; `wake` is called when some comes back while somebody waits.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), wanted: AtomicBool::new(false), wake })
    }

    /// Room for `units`, if with them no more than `limit` is taken, or nothing is taken yet. Otherwise `wake` is called as
    /// soon as some comes back.
    pub fn take(self: &Arc<Self>, units: u64, limit: u64) -> Option<RoomPermit> {
        self.try_take(units, limit).or_else(|| {
            // What came back between the first look and this store would wake nobody: look again after it.
            self.wanted.store(true, Ordering::SeqCst);
            self.try_take(units, limit)
        })
    }

    fn try_take(self: &Arc<Self>, units: u64, limit: u64) -> Option<RoomPermit> {
        let take = |used| (used == 0 || used + units <= limit).then_some(used + units);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        Some(RoomPermit { room: Arc::clone(self), units })
    }

    /// What is taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }
}

/// A part of a [`Room`]. Dropping it gives it back.
pub struct RoomPermit {
    room: Arc<Room>,
    units: u64,
}

impl Drop for RoomPermit {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.units, Ordering::SeqCst);
        if self.room.wanted.swap(false, Ordering::SeqCst) {
            (self.room.wake)();
        }
    }
}

/// Runs `work` on one item and turns a panic into its cause, so that it counts against the item alone.
///
/// # Errors
/// The panic's message.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_that_comes_back_wakes_who_waits_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&woken);
        let credits = Credits::new(2, Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
        let first = credits.take().unwrap();
        let second = credits.take().unwrap();
        drop(first);
        assert_eq!(woken.load(Ordering::SeqCst), 0, "nobody waited");
        let third = credits.take().unwrap();
        assert!(credits.take().is_none());
        drop(second);
        drop(third);
        assert_eq!((woken.load(Ordering::SeqCst), credits.used()), (1, 0));
    }

    #[test]
    fn room_is_for_one_read_at_least_and_for_no_more_than_the_limit() {
        let woken = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&woken);
        let room = Room::new(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
        let large = room.take(100, 10).unwrap();
        assert!(room.take(1, 10).is_none());
        drop(large);
        assert_eq!((woken.load(Ordering::SeqCst), room.used()), (1, 0));
        let (first, second) = (room.take(5, 10).unwrap(), room.take(5, 10).unwrap());
        assert!(room.take(1, 10).is_none(), "it is full");
        assert!(room.take(1, 11).is_some(), "there is more of it now");
        drop((first, second));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn a_panic_becomes_its_cause() {
        assert_eq!(caught(|| 5), Ok(5));
        let error = caught(|| std::panic::panic_any("broken".to_owned()));
        assert_eq!(error, Err::<(), _>("broken".into()));
    }
}
