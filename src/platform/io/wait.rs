//! Whether to look a moment longer before sleeping.
//!
//! Falling asleep and being woken costs a few microseconds of processor time. When the next completion usually comes
//! sooner than that, looking for it is cheaper; looking for as long as a sleep costs is never more than twice the cost
//! of the better choice (the ski rental problem).

use std::time::Duration;

use crate::platform::clock::Clock;

/// About what a sleep and the waking cost, and so the longest look.
const LOOK_MAX: Duration = Duration::from_micros(4);
/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 16;
/// A new wait counts as this part of the average.
const WEIGHT: u32 = 8;

/// How long waits have been lately.
#[derive(Debug)]
pub(super) struct Patience {
    /// The moving average of how long it took until something happened.
    wait: Duration,
}

impl Default for Patience {
    /// Sleeps first: an idle engine costs nothing.
    fn default() -> Self {
        Self { wait: Duration::from_millis(1) }
    }
}

impl Patience {
    /// Whether the next event is likely to come before a sleep would pay.
    pub(super) fn is_worth_it(&self) -> bool {
        self.wait <= LOOK_MAX
    }

    /// Looks until `news` says that something has happened, for as long as a sleep costs. Whether it did.
    pub(super) fn look(&mut self, clock: &dyn Clock, mut news: impl FnMut() -> bool) -> bool {
        let start = clock.now();
        loop {
            for _ in 0..LOOKS {
                if news() {
                    self.waited(clock.now().saturating_duration_since(start));
                    return true;
                }
                std::hint::spin_loop();
            }
            if clock.now().saturating_duration_since(start) >= LOOK_MAX {
                return false;
            }
        }
    }

    /// Notes a wait that was slept.
    pub(super) fn slept(&mut self, waited: Duration) {
        self.waited(waited);
    }

    fn waited(&mut self, waited: Duration) {
        // One long idle time must not hide that the load is back for long.
        let waited = waited.min(LOOK_MAX * 4);
        self.wait = (self.wait * (WEIGHT - 1) + waited) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock::ManualClock;

    #[test]
    fn it_looks_under_load_and_sleeps_when_idle() {
        let clock = ManualClock::new();
        let mut patience = Patience::default();
        assert!(!patience.is_worth_it(), "nothing is known yet");
        (0..100).for_each(|_| patience.slept(Duration::from_micros(2)));
        assert!(patience.is_worth_it());
        let mut looks = 0;
        let news = || {
            looks += 1;
            clock.advance(Duration::from_nanos(100));
            looks == 20
        };
        assert!(patience.look(&clock, news) && patience.is_worth_it());
        let nothing = || {
            clock.advance(Duration::from_nanos(100));
            false
        };
        let before = clock.now();
        assert!(!patience.look(&clock, nothing), "it gives up");
        assert!(clock.now() - before < LOOK_MAX * 2);
        (0..100).for_each(|_| patience.slept(Duration::from_secs(1)));
        assert!(!patience.is_worth_it());
        (0..20).for_each(|_| patience.slept(Duration::from_micros(1)));
        assert!(patience.is_worth_it(), "it comes back soon");
    }
}
