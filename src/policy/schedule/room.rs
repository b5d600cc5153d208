//! How much reading for low priority may be with a device at once: as much as it takes while nobody else asks, little
//! while somebody does.
//!
//! What is with the device stands before whatever comes next, so an urgent read waits for about that many bytes. A
//! few large reads are enough to keep a disk busy, and more only make the others wait. How few is found out: as few as
//! keep most of the rate that the device has shown.

use std::time::{Duration, Instant};

/// How long after the last more urgent request the room stays small.
const LINGER: Duration = Duration::from_millis(250);
/// What one operation takes beside its bytes: about what costs a device as much as one more operation.
const OP_UNITS: u64 = 64 << 10;
/// Reads that there is room for in the beginning, at least and at most, while somebody asks.
const FEW: u64 = 3;
const FEW_MIN: u64 = 2;
const FEW_MAX: u64 = 8;
/// How long the rate is measured for one decision.
const WINDOW: Duration = Duration::from_millis(25);
/// Of the best rate: below the first there is room for one more, above the second for one less.
const TOO_SLOW: f64 = 0.75;
const FAST: f64 = 0.92;
/// One more must raise the rate by this factor to stay; where it does not, something else is what takes the time.
const WORTH: f64 = 1.05;
/// Windows before it is tried again then.
const HOLD: u32 = 80;
/// What is left of the best rate after each window: the device or the load may have become another one.
const FORGET: f64 = 0.9999;

/// The room for low-priority reads.
#[derive(Clone, Copy, Debug)]
pub struct LowRoom {
    most: u64,
    /// What a large read takes.
    read: u64,
    /// Large reads that there is room for while somebody asks.
    few: u64,
    urgent: Option<Instant>,
    /// Bytes per second that the device has shown lately.
    best: f64,
    window: Option<Window>,
    /// The rate before the last try with one more, while it is not judged.
    tried: Option<f64>,
    /// Windows before the next try.
    hold: u32,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    /// Bytes that had been read at the start.
    bytes: u64,
    /// Whether others went first at the start.
    yields: bool,
}

impl LowRoom {
    /// What a read of `bytes` takes of the room.
    pub fn units(bytes: u64) -> u64 {
        bytes + OP_UNITS
    }

    /// Room for `reads` small reads while nobody else asks, and for a few of `bytes` while somebody does.
    pub fn new(reads: usize, bytes: u64) -> Self {
        let read = Self::units(bytes);
        let most = (reads as u64 * Self::units(0)).max(FEW * read);
        Self { most, read, few: FEW, urgent: None, best: 0.0, window: None, tried: None, hold: 0 }
    }

    /// A more urgent request came.
    pub fn urgent(&mut self, now: Instant) {
        self.urgent = Some(now);
    }

    /// Whether others go first now.
    pub fn yields(&self, now: Instant) -> bool {
        self.urgent.is_some_and(|urgent| now.saturating_duration_since(urgent) < LINGER)
    }

    /// The room now.
    pub fn limit(&self, now: Instant) -> u64 {
        if self.yields(now) { (self.few * self.read).min(self.most) } else { self.most }
    }

    /// Notes how many bytes have been read in all by `now`. `waits`: low reads wait for room, so that the rate is as high
    /// as the room allows.
    pub fn note(&mut self, bytes: u64, waits: bool, now: Instant) {
        let yields = self.yields(now);
        let fresh = Window { start: now, bytes, yields };
        if !waits {
            self.window = None;
            return;
        }
        let window = *self.window.get_or_insert(fresh);
        let passed = now.saturating_duration_since(window.start);
        if window.yields != yields {
            self.window = Some(fresh);
            return;
        }
        if passed < WINDOW {
            return;
        }
        self.window = Some(fresh);
        let rate = bytes.saturating_sub(window.bytes) as f64 / passed.as_secs_f64();
        self.best = rate.max(self.best * FORGET);
        if !yields {
            self.tried = None;
            return;
        }
        self.hold = self.hold.saturating_sub(1);
        if self.tried.take().is_some_and(|before| rate < before * WORTH) {
            self.few = (self.few - 1).max(FEW_MIN);
            self.hold = HOLD;
        } else if rate < self.best * TOO_SLOW && self.few < FEW_MAX && self.hold == 0 {
            self.few += 1;
            self.tried = Some(rate);
        } else if rate > self.best * FAST {
            self.few = (self.few - 1).max(FEW_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams on a device that does `most` bytes per second, and `each` for one read at a time.
    fn stream(room: &mut LowRoom, read: &mut u64, now: &mut Instant, most: f64, each: f64, urgent: bool) {
        for _ in 0..2000 {
            *now += Duration::from_millis(5);
            if urgent {
                room.urgent(*now);
            }
            let reads = room.limit(*now) / LowRoom::units(128 << 10);
            *read += ((reads as f64 * each).min(most) * 0.005) as u64;
            room.note(*read, true, *now);
        }
    }

    #[test]
    fn it_is_large_until_somebody_else_asks_and_again_when_nobody_has_for_a_while() {
        let (mut room, now) = (LowRoom::new(64, 128 << 10), Instant::now());
        let (all, few) = (64 * LowRoom::units(0), FEW * LowRoom::units(128 << 10));
        assert_eq!(room.limit(now), all);
        room.urgent(now);
        assert_eq!(room.limit(now), few);
        assert_eq!(room.limit(now + LINGER), all);
    }

    #[test]
    fn it_is_as_small_as_most_of_the_rate_allows() {
        let check = |most: f64, each: f64, expected: std::ops::RangeInclusive<u64>| {
            let (mut room, mut read, mut now) = (LowRoom::new(64, 128 << 10), 0, Instant::now());
            stream(&mut room, &mut read, &mut now, most, each, false);
            stream(&mut room, &mut read, &mut now, most, each, true);
            assert!(expected.contains(&room.few), "{most} {each}: {}", room.few);
        };
        check(1.6e9, 1.0e9, 2..=2);
        check(1.6e9, 0.45e9, 3..=3);
        check(6.0e9, 1.0e9, 5..=6);
        check(6.0e9, 0.1e9, 8..=8);
    }

    #[test]
    fn it_does_not_grow_where_more_reads_bring_no_more() {
        let (mut room, mut read, mut now) = (LowRoom::new(64, 128 << 10), 0, Instant::now());
        stream(&mut room, &mut read, &mut now, 1.6e9, 0.5e9, false);
        // The processors are busy with something else from now on.
        stream(&mut room, &mut read, &mut now, 0.4e9, 0.5e9, true);
        assert!(room.few <= FEW + 1, "{}", room.few);
    }
}
