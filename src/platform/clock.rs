//! Time as an argument: the only place that asks the operating system what time it is.

mod ticks;

use std::fmt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// Tells the time. Implementers never go backwards in [`Clock::now`].
pub trait Clock: Send + Sync {
    /// A monotonic instant, for durations and deadlines.
    fn now(&self) -> Instant;

    /// The wall clock, for what is shown or compared with the times of files.
    fn wall(&self) -> SystemTime;

    /// A count that grows evenly with [`Clock::now`], for what is noted so often that asking for the time would cost too
    /// much. How fast it grows, and from where, is for whoever reads it to find out: by comparing two moments.
    fn ticks(&self) -> u64;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    #[inline]
    fn ticks(&self) -> u64 {
        ticks::now()
    }
}

/// Nanoseconds of the monotonic clock since this was first asked.
fn nanoseconds() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let since = now.saturating_duration_since(*FIRST.get_or_init(|| now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that moves only when told to: the simulated twin of [`SystemClock`].
///
/// ```
/// use std::time::Duration;
/// use flyloft::platform::clock::{Clock, ManualClock};
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3));
/// assert_eq!(clock.now() - before, Duration::from_secs(3));
/// ```
pub struct ManualClock {
    start: Instant,
    wall_start: SystemTime,
    passed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock whose wall time starts 1,000,000,000 s after the epoch, the same in every run.
    pub fn new() -> Self {
        let wall_start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        Self { start: Instant::now(), wall_start, passed: Mutex::new(Duration::ZERO) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.passed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("passed", &*self.lock()).finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + *self.lock()
    }

    fn wall(&self) -> SystemTime {
        self.wall_start + *self.lock()
    }

    fn ticks(&self) -> u64 {
        u64::try_from(self.lock().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_it_is_advanced() {
        let clock = ManualClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        assert_eq!((clock.now(), clock.wall()), (now, wall));
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now() - now, Duration::from_millis(5));
        assert_eq!(clock.wall().duration_since(wall).unwrap(), Duration::from_millis(5));
    }

    #[test]
    fn ticks_grow_evenly_with_the_time() {
        let (clock, start) = (SystemClock, (SystemClock.now(), SystemClock.ticks()));
        let after = |micros: u64| {
            while clock.now() - start.0 < Duration::from_micros(micros) {}
            let (at, ticks) = (clock.now(), clock.ticks());
            (ticks - start.1) as f64 / (at - start.0).as_secs_f64()
        };
        let (early, late) = (after(20_000), after(60_000));
        // A thread that is stopped between the two looks makes them differ, which is no fault of the clock.
        assert!(early > 0.0 && (early / late - 1.0).abs() < 0.5, "{early} {late}");
        let clock = ManualClock::new();
        clock.advance(Duration::from_micros(3));
        assert_eq!(clock.ticks(), 3000);
    }

    #[test]
    fn the_system_clock_does_not_go_backwards() {
        let before = SystemClock.now();
        assert!(SystemClock.now() >= before);
    }
}
