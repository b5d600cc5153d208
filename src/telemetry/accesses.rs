//! Who asked for what, when, and how it was answered: noted by whoever is answered, read by those who learn from it.
//!
//! Nobody listens at first, and a hit then pays for one look at a flag. While somebody does ([`Accesses::tap`]), each
//! thread notes its accesses in a ring of its own: no lock, no message, no wait for whoever listens (invariant 1), and no
//! allocation but that of the ring, once in a thread's life. Each listener reads at its own pace ([`Tap::drain`]); one
//! that falls more than a ring behind is told how many it missed.
//!
//! A trace file of them is written by [`TraceWriter`] and read by [`TraceReader`]; docs/trace.md is its specification.
//!
//! Time is noted as the clock's ticks, which cost less than the time of day, and becomes microseconds when it is read.

mod format;
mod reader;
mod ring;
mod writer;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use self::format::{Coding, TraceEnd, TracedAsset};
pub use self::reader::TraceReader;
use self::ring::{Ring, Words};
pub use self::writer::TraceWriter;
use super::shards::{self, COMMON, SHARDS};
use crate::ids::{AssetId, Origin, Priority};

/// How an access was answered, or what became of a prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// From memory.
    Hit = 0,
    /// By a load that somebody else had begun.
    Joined = 1,
    /// By a load of its own.
    Loaded = 2,
    /// By a stream in pieces: it is not resident.
    Streamed = 3,
    /// With an error.
    Failed = 4,
    /// Not an access: somebody asked for what had been prefetched.
    PrefetchUsed = 5,
    /// Not an access: what had been prefetched was evicted, or changed, before anybody asked for it.
    PrefetchWasted = 6,
    /// Not an access: what was predicted was not loaded, for want of room or of time.
    PrefetchDropped = 7,
}

impl Level {
    /// Every level, in the order of their numbers.
    pub const ALL: [Level; 8] = [
        Level::Hit,
        Level::Joined,
        Level::Loaded,
        Level::Streamed,
        Level::Failed,
        Level::PrefetchUsed,
        Level::PrefetchWasted,
        Level::PrefetchDropped,
    ];

    /// Whether somebody asked for the asset; the others say what became of a prefetch.
    pub fn is_access(self) -> bool {
        (self as u8) < Level::PrefetchUsed as u8
    }

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Hit => "hit",
            Level::Joined => "joined",
            Level::Loaded => "loaded",
            Level::Streamed => "streamed",
            Level::Failed => "failed",
            Level::PrefetchUsed => "prefetch used",
            Level::PrefetchWasted => "prefetch wasted",
            Level::PrefetchDropped => "prefetch dropped",
        }
    }
}

/// Something was asked for and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The asset.
    pub id: AssetId,
    /// Whether it was asked for as it is stored: that is resident beside the asset itself, and charged apart.
    pub stored: bool,
    /// When it was answered: microseconds since the listener began to listen.
    pub at_us: u64,
    /// Its bytes in memory, 0 where they are not known. At most 2^48 - 1.
    pub weight: u64,
    /// How it was answered.
    pub level: Level,
    /// How urgent it was.
    pub priority: Priority,
    /// Who asked.
    pub origin: Origin,
    /// Microseconds from the request to the answer, at most 2^32 - 1; 0 for a hit.
    pub latency_us: u32,
}

impl Access {
    /// The id under which it is, or would be, resident.
    pub fn resident_id(&self) -> AssetId {
        if self.stored { self.id.stored() } else { self.id }
    }
}

/// One moment, by the clock and by its ticks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock's time.
    pub at: Instant,
    /// Its ticks: [`crate::platform::clock::Clock::ticks`].
    pub ticks: u64,
}

/// What is noted of an access.
#[derive(Clone, Copy, Debug)]
pub struct Noted {
    /// The asset.
    pub id: AssetId,
    /// Whether as it is stored.
    pub stored: bool,
    /// The clock's ticks when it was answered.
    pub ticks: u64,
    /// Its bytes in memory; what is above 2^48 - 1 is cut to it.
    pub weight: u64,
    /// How it was answered.
    pub level: Level,
    /// How urgent it was.
    pub priority: Priority,
    /// Who asked.
    pub origin: Origin,
    /// Microseconds from the request to the answer.
    pub latency_us: u32,
}

const WEIGHT_BITS: u32 = 48;
const WEIGHT_MAX: u64 = (1 << WEIGHT_BITS) - 1;

impl Noted {
    #[inline]
    fn to_words(self) -> Words {
        let rest =
            self.level as u64 | (self.priority as u64) << 4 | (self.origin as u64) << 6 | u64::from(self.stored) << 8;
        let weight = self.weight.min(WEIGHT_MAX);
        [self.id.0, self.ticks, weight | rest << WEIGHT_BITS, u64::from(self.latency_us)]
    }

    fn from_words([id, ticks, weight, latency]: Words) -> Noted {
        let rest = weight >> WEIGHT_BITS;
        // Only what `to_words` made is ever read: nothing is out of range.
        Noted {
            id: AssetId(id),
            stored: rest >> 8 & 1 == 1,
            ticks,
            weight: weight & WEIGHT_MAX,
            level: Level::ALL[rest as usize & 7],
            priority: Priority::ALL[rest as usize >> 4 & 3],
            origin: [Origin::User, Origin::Predictor, Origin::System][(rest as usize >> 6 & 3).min(2)],
            latency_us: latency as u32,
        }
    }
}

/// The accesses of a runtime.
pub struct Accesses {
    /// Who listens.
    taps: AtomicUsize,
    /// What each thread noted. A ring is made when its thread first notes something.
    rings: [OnceLock<Box<Ring>>; SHARDS],
    /// One at a time of the threads without a ring of their own.
    common: Mutex<()>,
    /// What those threads could not note, since another one was at it.
    refused: AtomicU64,
}

impl Default for Accesses {
    fn default() -> Self {
        let rings = std::array::from_fn(|_| OnceLock::new());
        Self { taps: AtomicUsize::new(0), rings, common: Mutex::new(()), refused: AtomicU64::new(0) }
    }
}

impl Accesses {
    /// Whether anybody listens.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.taps.load(Ordering::Relaxed) != 0
    }

    /// Notes an access, for those who listen. Never waits.
    #[inline]
    pub fn note(&self, noted: &Noted) {
        let own = shards::own();
        let ring = self.rings[own].get_or_init(|| Box::new(Ring::new()));
        if own < COMMON {
            ring.push(noted.to_words());
        } else if let Some(_only) = self.common.try_lock() {
            ring.push(noted.to_words());
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Listens from now on.
    pub fn tap(self: &Arc<Self>, now: Moment) -> Tap {
        let places = std::array::from_fn(|shard| self.rings[shard].get().map_or(0, |ring| ring.written()));
        let refused = self.refused.load(Ordering::Relaxed);
        self.taps.fetch_add(1, Ordering::Relaxed);
        Tap { accesses: Arc::clone(self), places, began: now, refused, missed: 0, found: Vec::new(), order: Vec::new() }
    }
}

/// A place to listen at. Until it is dropped accesses are noted.
pub struct Tap {
    accesses: Arc<Accesses>,
    /// What was read of each ring.
    places: [u64; SHARDS],
    began: Moment,
    /// What had been refused when it was read last.
    refused: u64,
    missed: u64,
    found: Vec<Words>,
    order: Vec<Access>,
}

impl Tap {
    /// Gives every access that was noted since the last call to `each`, in the order of their times. An access of another
    /// thread that is noted late, by a thread that was stopped in the middle, may come with the next call.
    pub fn drain(&mut self, now: Moment, mut each: impl FnMut(&Access)) {
        self.look(now);
        self.order.iter().for_each(&mut each);
        self.order.clear();
    }

    /// Accesses that came too fast to be read: as many as were noted and not given to anybody.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn look(&mut self, now: Moment) {
        for (ring, place) in self.accesses.rings.iter().zip(&mut self.places) {
            if let Some(ring) = ring.get() {
                self.missed += ring.read(place, &mut self.found);
            }
        }
        let refused = self.accesses.refused.load(Ordering::Relaxed);
        self.missed += refused - self.refused;
        self.refused = refused;
        let us_per_tick = self.us_per_tick(now);
        for words in self.found.drain(..) {
            let Noted { id, stored, ticks, weight, level, priority, origin, latency_us } = Noted::from_words(words);
            let at_us = (ticks.saturating_sub(self.began.ticks) as f64 * us_per_tick) as u64;
            self.order.push(Access { id, stored, at_us, weight, level, priority, origin, latency_us });
        }
        // Stable: what a thread did in one microsecond stays in its order.
        self.order.sort_by_key(|access| access.at_us);
    }

    /// The clock's rate since it began: the longer that is ago, the more exact.
    fn us_per_tick(&self, now: Moment) -> f64 {
        let (at, ticks) = (now.at.saturating_duration_since(self.began.at), now.ticks.saturating_sub(self.began.ticks));
        if ticks == 0 { 0.0 } else { at.as_secs_f64() * 1e6 / ticks as f64 }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accesses.taps.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn noted(id: u64, ticks: u64) -> Noted {
        Noted {
            id: AssetId(id),
            stored: id % 2 == 1,
            ticks,
            weight: id << 40,
            level: Level::ALL[id as usize % 8],
            priority: Priority::ALL[id as usize % 4],
            origin: [Origin::User, Origin::Predictor, Origin::System][id as usize % 3],
            latency_us: id as u32 * 1000,
        }
    }

    fn moment(began: Instant, ticks: u64) -> Moment {
        Moment { at: began + Duration::from_micros(ticks / 4), ticks }
    }

    #[test]
    fn accesses_come_whole_in_the_order_of_their_times_to_everybody_who_listens() {
        let (accesses, began) = (Arc::<Accesses>::default(), Instant::now());
        assert!(!accesses.is_on());
        let mut first = accesses.tap(moment(began, 400));
        accesses.note(&noted(1, 800));
        let mut second = accesses.tap(moment(began, 800));
        std::thread::scope(|scope| {
            scope.spawn(|| accesses.note(&noted(3, 4000))).join().unwrap();
            scope.spawn(|| accesses.note(&noted(2, 1600))).join().unwrap();
        });
        let mut seen = Vec::new();
        first.drain(moment(began, 40_000), |access| seen.push(*access));
        let ids: Vec<(u64, u64)> = seen.iter().map(|access| (access.id.0, access.at_us)).collect();
        assert_eq!(ids, [(1, 100), (2, 300), (3, 900)]);
        let last = seen[2];
        assert_eq!((last.level, last.priority, last.origin), (Level::Streamed, Priority::Low, Origin::User));
        assert_eq!((last.weight, last.latency_us, last.stored), (3 << 40, 3000, true));
        assert_eq!(last.resident_id(), AssetId(3).stored());
        let mut count = 0;
        second.drain(moment(began, 40_000), |_| count += 1);
        assert_eq!((count, first.missed(), second.missed()), (2, 0, 0));
        drop(first);
        assert!(accesses.is_on());
        drop(second);
        assert!(!accesses.is_on());
    }

    #[test]
    fn what_comes_too_fast_is_counted() {
        let (accesses, began) = (Arc::<Accesses>::default(), Instant::now());
        let mut tap = accesses.tap(moment(began, 0));
        for at in 0..ring::RECORDS as u64 + 5 {
            accesses.note(&noted(1, at));
        }
        let mut seen = 0;
        tap.drain(moment(began, 1 << 20), |_| seen += 1);
        assert_eq!((seen, tap.missed()), (ring::RECORDS, 5));
    }
}
