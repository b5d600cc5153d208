//! How many operations to have with the device at once: as few as keep its full rate.
//!
//! Beyond some depth a device does no more per second, and each operation only waits longer, an urgent one that comes
//! late among them: rate times latency is what is with the device. So the depth is tried a step lower every now and then, while there is more to do than it allows;
//! where the rate stays the lower one is kept, where it falls the former comes back. A step higher must raise the rate.

use std::time::{Duration, Instant};

/// Operations below which the depth is never lowered.
const DEPTH_MIN: usize = 16;
/// How long the rate is measured for one decision, at least.
const WINDOW: Duration = Duration::from_millis(20);
/// Operations that one measurement needs.
const WINDOW_OPS: usize = 256;
/// Windows at an accepted depth before the next try.
const HOLD: u32 = 8;
/// Windows after a try that failed.
const HOLD_LONG: u32 = 64;
/// Bytes that cost a device about as much as one more operation.
const BYTES_PER_OP: u64 = 64 << 10;

/// The depth in use.
#[derive(Debug)]
pub(super) struct Depth {
    most: usize,
    now: usize,
    adapts: bool,
    window: Option<Window>,
    /// The best rate that was seen lately at the depth in use, in units per second.
    best: f64,
    phase: Phase,
    /// Whether the last try was a higher depth.
    upwards: bool,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    ops: usize,
    bytes: u64,
    /// Completions of the depth before still come in: the first window after a change is not judged.
    settling: bool,
}

#[derive(Debug)]
enum Phase {
    /// Windows to go before the next try.
    Hold(u32),
    /// The depth to come back to.
    Try(usize),
}

impl Depth {
    pub(super) fn new(most: usize, adapts: bool) -> Self {
        let (adapts, phase) = (adapts && most > DEPTH_MIN, Phase::Hold(HOLD));
        Self { most, now: most, adapts, window: None, best: 0.0, phase, upwards: true }
    }

    /// Operations that may be with the device.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Notes what has completed by `now`. `saturated`: there was as much to do as the depth allows.
    pub(super) fn note(&mut self, now: Instant, ops: usize, bytes: u64, saturated: bool) {
        if !self.adapts {
            return;
        }
        if !saturated {
            // Nobody waits behind the depth: nothing to learn, and a rate that says nothing.
            self.window = None;
            return;
        }
        let window = self.window.get_or_insert(Window { start: now, ops: 0, bytes: 0, settling: false });
        window.ops += ops;
        window.bytes += bytes;
        let passed = now.saturating_duration_since(window.start);
        if window.ops < WINDOW_OPS || passed < WINDOW {
            return;
        }
        let rate = (window.ops as f64 + (window.bytes / BYTES_PER_OP) as f64) / passed.as_secs_f64();
        let settled = !window.settling;
        self.window = Some(Window { start: now, ops: 0, bytes: 0, settling: false });
        if settled {
            self.judge(rate);
        }
    }

    fn judge(&mut self, rate: f64) {
        match self.phase {
            Phase::Try(before) if rate >= self.best * if self.now < before { 0.97 } else { 1.03 } => {
                self.best = self.best.max(rate);
                self.phase = Phase::Hold(HOLD);
            }
            Phase::Try(before) => {
                self.change(before);
                self.phase = Phase::Hold(HOLD_LONG);
            }
            Phase::Hold(_) if rate < self.best * 0.85 && self.now < self.most => {
                // The device or the load is another one now.
                self.best = rate;
                self.change((self.now * 2).min(self.most));
                self.phase = Phase::Hold(HOLD);
            }
            Phase::Hold(left) => {
                // The best is forgotten slowly, so that a lucky window does not count for ever.
                self.best = rate.max(self.best * 0.98 + rate * 0.02);
                self.phase = Phase::Hold(left.saturating_sub(1));
                if left == 0 {
                    self.upwards = !self.upwards;
                    let lower = (self.now * 3 / 4).max(DEPTH_MIN);
                    let next = if self.upwards { (self.now * 4 / 3).min(self.most) } else { lower };
                    self.phase = if next == self.now { Phase::Hold(0) } else { Phase::Try(self.now) };
                    self.change(next);
                }
            }
        }
    }

    fn change(&mut self, depth: usize) {
        self.now = depth;
        if let Some(window) = &mut self.window {
            window.settling = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs against a device that does `per_second` at most and takes `service` for one operation alone.
    fn settle(depth: &mut Depth, now: &mut Instant, per_second: f64, service: Duration) {
        for _ in 0..20_000 {
            let rate = (depth.now() as f64 / service.as_secs_f64()).min(per_second);
            *now += Duration::from_millis(5);
            depth.note(*now, (rate * 0.005) as usize, (rate * 0.005) as u64 * 4096, true);
        }
    }

    #[test]
    fn it_sinks_to_what_the_device_needs_and_rises_when_it_needs_more() {
        let (mut depth, mut now) = (Depth::new(128, true), Instant::now());
        // Twenty-five at once are enough for this one.
        settle(&mut depth, &mut now, 100_000.0, Duration::from_micros(250));
        assert!((22..=40).contains(&depth.now()), "{}", depth.now());
        settle(&mut depth, &mut now, 400_000.0, Duration::from_micros(300));
        assert!(depth.now() >= 100, "{}", depth.now());
    }

    #[test]
    fn it_never_sinks_where_every_place_counts_nor_when_it_shall_not() {
        let (mut depth, mut now) = (Depth::new(64, true), Instant::now());
        settle(&mut depth, &mut now, f64::INFINITY, Duration::from_micros(900));
        assert!(depth.now() >= 48, "{}", depth.now());
        let mut fixed = Depth::new(64, false);
        settle(&mut fixed, &mut now, 1000.0, Duration::from_micros(250));
        assert_eq!(fixed.now(), 64);
    }

    #[test]
    fn a_load_that_does_not_fill_it_changes_nothing() {
        let mut depth = Depth::new(64, true);
        let start = Instant::now();
        (0..10_000).for_each(|tick| depth.note(start + Duration::from_millis(tick), 1000, 0, false));
        assert_eq!(depth.now(), 64);
    }
}
