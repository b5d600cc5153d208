//! When a child is started again, how long after, and when its supervisor gives up.
//!
//! The window is that of OTP's `supervisor:add_restart`: a pure function of (log, now, period).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The first step of the backoff that is not zero.
const BACKOFF_FIRST: Duration = Duration::from_millis(1);
/// The longest that a restart waits, before jitter.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How many restarts a supervisor allows within how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within the period.
    pub restarts: u32,
    /// The length of the sliding window.
    pub period: Duration,
}

/// What a supervisor does about a child that ended abnormally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again.
    Restart {
        /// The plain backoff step. Spread it with [`jitter`] before waiting.
        after: Duration,
    },
    /// The window is used up.
    GiveUp,
}

/// Records an abnormal end at `now` in `log` and decides.
///
/// As in OTP, `restarts` ends within `period` are answered with a restart and the next one gives up; an end that is
/// exactly `period` old still counts. The log keeps at most `restarts + 1` entries, the newest last; whoever revives
/// a child that was given up starts with an empty log.
///
/// ```
/// use std::collections::VecDeque;
/// use std::time::{Duration, Instant};
/// use flyloft::policy::restart::{Decision, Intensity, decide};
/// let (mut log, now) = (VecDeque::new(), Instant::now());
/// let intensity = Intensity { restarts: 1, period: Duration::from_secs(60) };
/// assert_eq!(decide(&mut log, now, intensity), Decision::Restart { after: Duration::ZERO });
/// assert_eq!(decide(&mut log, now, intensity), Decision::GiveUp);
/// ```
pub fn decide(log: &mut VecDeque<Instant>, now: Instant, intensity: Intensity) -> Decision {
    log.retain(|end| now.saturating_duration_since(*end) <= intensity.period);
    log.push_back(now);
    let allowed = usize::try_from(intensity.restarts).unwrap_or(usize::MAX);
    if log.len() <= allowed {
        return Decision::Restart { after: step(u32::try_from(log.len() - 1).unwrap_or(u32::MAX)) };
    }
    while log.len() > allowed.saturating_add(1) {
        log.pop_front();
    }
    Decision::GiveUp
}

/// The plain backoff before the restart that follows `consecutive` others: 0 ms first, then 1 ms doubling to 1 s.
pub fn step(consecutive: u32) -> Duration {
    match consecutive.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => BACKOFF_MAX.min(BACKOFF_FIRST.saturating_mul(1 << doublings.min(20))),
    }
}

/// Spreads a wait over half of it to all of it, by a random number, so that what failed together does not come back
/// together. Zero stays zero.
pub fn jitter(wait: Duration, random: u64) -> Duration {
    let half = wait / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    wait - Duration::from_nanos(if nanos == 0 { 0 } else { random % (nanos + 1) })
}

/// [`step`], spread by [`jitter`].
pub fn backoff(consecutive: u32, random: u64) -> Duration {
    jitter(step(consecutive), random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn intensity(restarts: u32, seconds: u64) -> Intensity {
        Intensity { restarts, period: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_allowed_restarts_within_the_period_are_given_and_the_next_one_gives_up() {
        let (mut log, start) = (VecDeque::new(), Instant::now());
        for second in 0..3 {
            let decision = decide(&mut log, start + Duration::from_secs(second), intensity(3, 60));
            assert!(matches!(decision, Decision::Restart { .. }), "{second}");
        }
        assert_eq!(decide(&mut log, start + Duration::from_secs(3), intensity(3, 60)), Decision::GiveUp);
    }

    #[test]
    fn an_end_exactly_one_period_old_still_counts_and_an_older_one_does_not() {
        let (mut log, start) = (VecDeque::new(), Instant::now());
        decide(&mut log, start, intensity(1, 10));
        assert_eq!(decide(&mut log.clone(), start + Duration::from_secs(10), intensity(1, 10)), Decision::GiveUp);
        let later = start + Duration::from_secs(10) + Duration::from_nanos(1);
        assert!(matches!(decide(&mut log, later, intensity(1, 10)), Decision::Restart { .. }));
    }

    #[test]
    fn an_intensity_of_zero_never_restarts() {
        assert_eq!(decide(&mut VecDeque::new(), Instant::now(), intensity(0, 60)), Decision::GiveUp);
    }

    #[test]
    fn the_backoff_starts_at_once_and_doubles_to_a_second() {
        let millis: Vec<u128> = (0..14).map(|consecutive| step(consecutive).as_millis()).collect();
        assert_eq!(millis, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000]);
        assert_eq!(step(u32::MAX), BACKOFF_MAX);
    }

    /// OTP's own words: the ends not older than the threshold, and the new one, are counted.
    fn model(ends: &[u64], period: u64) -> usize {
        let now = *ends.last().expect("there is a newest end");
        ends.iter().filter(|end| **end + period >= now).count()
    }

    proptest! {
        #[test]
        fn the_window_does_what_otp_does(
            gaps in prop::collection::vec(0u64..20, 1..60),
            restarts in 0u32..6,
            period in 0u64..40,
        ) {
            let (mut log, start, mut ends) = (VecDeque::new(), Instant::now(), Vec::new());
            let mut at = 0;
            for gap in gaps {
                at += gap;
                ends.push(at);
                let decision = decide(&mut log, start + Duration::from_secs(at), intensity(restarts, period));
                let gives_up = model(&ends, period) > restarts as usize;
                prop_assert_eq!(decision == Decision::GiveUp, gives_up);
                prop_assert!(log.len() <= restarts as usize + 1);
            }
        }

        #[test]
        fn jitter_stays_between_half_and_all(wait_us in 0u64..2_000_000, random: u64) {
            let wait = Duration::from_micros(wait_us);
            let spread = jitter(wait, random);
            prop_assert!(spread <= wait && spread >= wait / 2);
        }
    }
}
