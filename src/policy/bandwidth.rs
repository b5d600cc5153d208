//! How much may be read now: a token bucket for each priority, and a rate that follows the time of frames.
//!
//! Each bucket fills with its priority's share of the rate, up to a burst. A read pays from the bucket of its priority,
//! and then from the buckets of less urgent priorities that have nothing to read at the moment, the least urgent first. It
//! may go when what it can pay with is all of its price, or a burst; what is lacking is a debt of its own bucket, so that
//! a read larger than a burst goes, too, and its priority waits the longer after it. So in any time `t` no more is read
//! than `rate * t`, a burst, and one read of each priority.
//!
//! The rate backs off multiplicatively and recovers additively (after Chiu and Jain, "Analysis of the increase and
//! decrease algorithms", 1989): frames that take more than 10 % too long lower it, frames with 10 % to spare raise it,
//! if more than 80 % of it was used: what nobody uses says nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::BandwidthConfig;
use crate::ids::Priority;

/// What a bucket holds at most: its share of this time.
const BURST: Duration = Duration::from_millis(50);
/// What a bucket holds at least: a read.
const BURST_BYTES_MIN: f64 = (128 << 10) as f64;
/// Frames are judged over this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Of the rate, when frames take too long.
const BACK_OFF: f64 = 0.7;
/// Bytes per second more, when they do not.
const STEP: f64 = 20_000_000.0;
/// How far from the target a mean frame must be to count.
const TOLERANCE: f64 = 0.1;
/// Of the rate, above which it was used well enough to be raised.
const USED: f64 = 0.8;
/// Nobody waits longer than this before looking again: the rate may have been changed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The buckets and the rate.
#[derive(Debug)]
pub struct Bandwidth {
    config: BandwidthConfig,
    /// Bytes per second; `None` for no limit.
    rate: Option<f64>,
    /// Bytes that each priority may read now; below zero it is in debt.
    tokens: [f64; 4],
    /// When they were filled last.
    filled: Option<Instant>,
    frames: Option<Window>,
    sent: [u64; 4],
    throttled: Duration,
    throttled_since: Option<Instant>,
}

/// Frames since a moment.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    frames: u32,
    time: Duration,
    /// Bytes that had been sent at the start.
    sent: u64,
}

/// What was read, and how fast it may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthReport {
    /// Bytes per second at most now; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// Bytes sent to be read so far, by priority.
    pub sent_bytes: BTreeMap<Priority, u64>,
    /// How long reads were held back by the limit, in microseconds.
    pub throttled_us: u64,
}

impl Bandwidth {
    /// Full buckets under a valid configuration.
    pub fn new(config: BandwidthConfig) -> Self {
        let mut bandwidth = Self {
            config,
            rate: None,
            tokens: [0.0; 4],
            filled: None,
            frames: None,
            sent: [0; 4],
            throttled: Duration::ZERO,
            throttled_since: None,
        };
        bandwidth.set(config);
        bandwidth
    }

    /// Another valid configuration from now on. What was counted stays.
    pub fn set(&mut self, config: BandwidthConfig) {
        self.config = config;
        let begin = config.bytes_per_second.or(config.adaptive.then_some(config.max_bytes_per_second));
        self.rate = begin.map(|bytes| bytes as f64);
        self.tokens = std::array::from_fn(|lane| self.burst(lane));
        (self.filled, self.frames) = (None, None);
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Pays for a read. `waits`: which priorities have something to read, this one aside; their buckets are their own.
    ///
    /// # Errors
    /// How long to wait before it is worth trying again.
    pub fn charge(&mut self, priority: Priority, bytes: u64, waits: [bool; 4], now: Instant) -> Result<(), Duration> {
        self.ready(priority, bytes, waits, now)?;
        let lane = priority as usize;
        if self.rate.is_some() {
            let payers = payers(lane, waits);
            let mut left = bytes as f64;
            let own = self.tokens[lane].clamp(0.0, left);
            self.tokens[lane] -= own;
            left -= own;
            for at in payers.into_iter().filter(|at| *at != lane) {
                let part = self.tokens[at].clamp(0.0, left);
                self.tokens[at] -= part;
                left -= part;
            }
            self.tokens[lane] -= left;
        }
        self.sent[lane] += bytes;
        self.resumed(now);
        Ok(())
    }

    /// Whether [`Bandwidth::charge`] would let the read go now.
    ///
    /// # Errors
    /// As [`Bandwidth::charge`].
    pub fn ready(&mut self, priority: Priority, bytes: u64, waits: [bool; 4], now: Instant) -> Result<(), Duration> {
        if self.rate.is_none() {
            return Ok(());
        }
        self.fill(now);
        let lane = priority as usize;
        let payers = payers(lane, waits);
        let others = payers.iter().filter(|at| **at != lane).map(|at| self.tokens[*at].max(0.0));
        let have = self.tokens[lane] + others.sum::<f64>();
        let enough = (bytes as f64).min(self.burst(lane));
        if have < enough {
            self.throttled_since.get_or_insert(now);
            return Err(self.wait(enough - have, &payers));
        }
        Ok(())
    }

    /// Nothing is held back any more, be it that it went or that nobody wants it.
    pub fn resumed(&mut self, now: Instant) {
        if let Some(since) = self.throttled_since.take() {
            self.throttled += now.saturating_duration_since(since);
        }
    }

    /// A frame took `dt`. Whether the rate is another one now.
    pub fn frame(&mut self, dt: Duration, now: Instant) -> bool {
        let Some(rate) = self.rate.filter(|_| self.config.adaptive) else { return false };
        let sent = self.sent.iter().sum();
        let fresh = Window { start: now.checked_sub(dt).unwrap_or(now), frames: 0, time: Duration::ZERO, sent };
        let mut window = *self.frames.get_or_insert(fresh);
        if now.saturating_duration_since(window.start) > 4 * WINDOW + dt {
            // Nobody drew for a while: what was sent then says nothing of the frames now.
            window = fresh;
        }
        window.frames += 1;
        window.time += dt;
        let passed = now.saturating_duration_since(window.start);
        if passed < WINDOW {
            self.frames = Some(window);
            return false;
        }
        self.frames = Some(Window { start: now, frames: 0, time: Duration::ZERO, sent });
        let mean = window.time.as_secs_f64() / f64::from(window.frames);
        let target = self.config.target_frame.as_secs_f64();
        let used = (sent - window.sent) as f64 / passed.as_secs_f64();
        let (least, most) = (self.config.min_bytes_per_second as f64, self.config.max_bytes_per_second as f64);
        let next = if mean > target * (1.0 + TOLERANCE) {
            rate * BACK_OFF
        } else if mean < target * (1.0 - TOLERANCE) && used > rate * USED {
            rate + STEP
        } else {
            rate
        };
        let next = next.clamp(least, most);
        self.rate = Some(next);
        for lane in 0..4 {
            self.tokens[lane] = self.tokens[lane].min(self.burst(lane));
        }
        next != rate
    }

    /// What was read, and how fast it may be.
    pub fn report(&self, now: Instant) -> BandwidthReport {
        let held = self.throttled_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        BandwidthReport {
            bytes_per_second: self.rate.map(|rate| rate as u64),
            sent_bytes: Priority::ALL.into_iter().zip(self.sent).collect(),
            throttled_us: u64::try_from((self.throttled + held).as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled)).as_secs_f64();
        self.filled = Some(now.max(self.filled.unwrap_or(now)));
        for lane in 0..4 {
            self.tokens[lane] = (self.tokens[lane] + self.per_second(lane) * passed).min(self.burst(lane));
        }
    }

    fn per_second(&self, lane: usize) -> f64 {
        self.rate.unwrap_or(0.0) * self.config.shares.fractions()[lane]
    }

    fn burst(&self, lane: usize) -> f64 {
        (self.per_second(lane) * BURST.as_secs_f64()).max(BURST_BYTES_MIN)
    }

    /// How long it takes those who pay to have this much more.
    fn wait(&self, lacking: f64, payers: &[usize]) -> Duration {
        let per_second: f64 = payers.iter().map(|at| self.per_second(*at)).sum();
        Duration::try_from_secs_f64(lacking / per_second).unwrap_or(WAIT_MAX).clamp(Duration::from_millis(1), WAIT_MAX)
    }
}

/// Whose tokens a lane may use: its own, and those of less urgent lanes that have nothing to read, these first.
fn payers(lane: usize, waits: [bool; 4]) -> Vec<usize> {
    (0..4).rev().filter(|other| *other == lane || (*other > lane && !waits[*other])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::SharesConfig;

    const MB: u64 = 1_000_000;

    fn limited(bytes: u64) -> Bandwidth {
        Bandwidth::new(BandwidthConfig { bytes_per_second: Some(bytes), ..BandwidthConfig::default() })
    }

    fn adaptive() -> Bandwidth {
        Bandwidth::new(BandwidthConfig { adaptive: true, ..BandwidthConfig::default() })
    }

    /// Bytes that each of `lanes` reads in `seconds` when it always has something to read, in reads of 64 KiB.
    fn read_for(bandwidth: &mut Bandwidth, lanes: &[Priority], seconds: u64, start: Instant) -> [u64; 4] {
        let before = bandwidth.sent;
        let waits = Priority::ALL.map(|lane| lanes.contains(&lane));
        for ms in 0..seconds * 1000 {
            let now = start + Duration::from_millis(ms);
            for lane in lanes {
                while bandwidth.charge(*lane, 64 << 10, waits, now).is_ok() {}
            }
        }
        std::array::from_fn(|lane| bandwidth.sent[lane] - before[lane])
    }

    #[test]
    fn each_priority_has_its_share_when_all_have_work() {
        let sent = read_for(&mut limited(100 * MB), &Priority::ALL, 10, Instant::now());
        for (sent, percent) in sent.into_iter().zip([40, 30, 20, 10]) {
            let share = MB * 1000 * percent / 100;
            assert!(sent.abs_diff(share) < share / 50, "{sent} of {share}");
        }
    }

    #[test]
    fn a_priority_takes_what_less_urgent_ones_leave_and_never_what_more_urgent_ones_do() {
        for (lane, percent) in Priority::ALL.into_iter().zip([100, 60, 30, 10]) {
            let sent = read_for(&mut limited(100 * MB), &[lane], 10, Instant::now())[lane as usize];
            let share = MB * 1000 * percent / 100;
            assert!(sent.abs_diff(share) < share / 50, "{} {sent} of {share}", lane.name());
        }
    }

    #[test]
    fn the_critical_share_is_there_after_any_amount_of_other_work() {
        let (mut bandwidth, start) = (limited(100 * MB), Instant::now());
        read_for(&mut bandwidth, &Priority::ALL[1..], 5, start);
        let now = start + Duration::from_secs(5);
        let waits = [false, true, true, true];
        assert_eq!(bandwidth.charge(Priority::Critical, MB, waits, now), Ok(()));
        assert!(bandwidth.charge(Priority::Low, 10 * MB, waits, now).is_err());
    }

    #[test]
    fn a_read_larger_than_a_burst_goes_and_is_paid_for_afterwards() {
        let (mut bandwidth, start) = (limited(10 * MB), Instant::now());
        let alone = [false; 4];
        assert_eq!(bandwidth.charge(Priority::Low, MB, alone, start), Ok(()));
        let wait = bandwidth.charge(Priority::Low, 1, alone, start).unwrap_err();
        assert!(wait > Duration::from_millis(50), "{wait:?}");
        assert!(bandwidth.charge(Priority::Low, 1, alone, start + Duration::from_millis(800)).is_err());
        assert!(bandwidth.charge(Priority::Low, 1, alone, start + Duration::from_millis(900)).is_ok());
        assert!(bandwidth.report(start + Duration::from_secs(1)).throttled_us >= 800_000);
    }

    #[test]
    fn without_a_limit_everything_goes_and_is_counted() {
        let mut bandwidth = Bandwidth::new(BandwidthConfig::default());
        assert_eq!(bandwidth.charge(Priority::Low, u64::MAX >> 1, [true; 4], Instant::now()), Ok(()));
        let report = bandwidth.report(Instant::now());
        assert_eq!((report.bytes_per_second, report.throttled_us), (None, 0));
        assert_eq!(report.sent_bytes[&Priority::Low], u64::MAX >> 1);
    }

    /// Draws frames of `frame` for `seconds`, reading as much as it may when `busy`.
    fn draw(bandwidth: &mut Bandwidth, frame: Duration, seconds: f64, busy: bool, now: &mut Instant) {
        let end = *now + Duration::from_secs_f64(seconds);
        while *now < end {
            *now += frame;
            while busy && bandwidth.charge(Priority::Critical, 256 << 10, [false; 4], *now).is_ok() {}
            bandwidth.frame(frame, *now);
        }
    }

    #[test]
    fn slow_frames_lower_the_rate_by_a_factor_and_good_ones_raise_it_by_steps() {
        let (mut bandwidth, mut now) = (adaptive(), Instant::now());
        let rate = |bandwidth: &Bandwidth| bandwidth.rate.unwrap();
        draw(&mut bandwidth, Duration::from_millis(25), 3.2, true, &mut now);
        assert!((rate(&bandwidth) - 1e9 * 0.343).abs() < 1e6, "{}", rate(&bandwidth));
        draw(&mut bandwidth, Duration::from_millis(25), 30.0, true, &mut now);
        assert_eq!(rate(&bandwidth), 10e6, "never below the least");
        draw(&mut bandwidth, Duration::from_micros(16_700), 5.0, true, &mut now);
        assert_eq!(rate(&bandwidth), 10e6, "on target nothing changes");
        draw(&mut bandwidth, Duration::from_millis(10), 5.2, true, &mut now);
        assert_eq!(rate(&bandwidth), 110e6);
        draw(&mut bandwidth, Duration::from_millis(10), 5.0, false, &mut now);
        assert_eq!(rate(&bandwidth), 110e6, "what is not used is not raised");
        draw(&mut bandwidth, Duration::from_millis(10), 100.0, true, &mut now);
        assert_eq!(rate(&bandwidth), 1e9, "never above the most");
    }

    #[test]
    fn frames_change_nothing_that_is_not_to_adapt() {
        let (mut bandwidth, mut now) = (limited(100 * MB), Instant::now());
        draw(&mut bandwidth, Duration::from_millis(100), 10.0, true, &mut now);
        assert_eq!(bandwidth.report(now).bytes_per_second, Some(100 * MB));
    }

    proptest! {
        /// Whatever is asked for in whatever order: no more than the rate, a burst and one read of each priority goes;
        /// each priority that always asks gets its share; and no priority takes of a more urgent one's.
        #[test]
        fn no_more_goes_than_the_rate_and_no_less_urgent_one_takes_a_more_urgent_share(
            asks in prop::collection::vec((0usize..4, 1u64..2_000_000, 0u64..20), 1..600),
            rate in 1u64..400,
        ) {
            let rate = rate * MB;
            let (mut bandwidth, start) = (limited(rate), Instant::now());
            let mut now = start;
            let mut largest = [0u64; 4];
            let fractions = SharesConfig::default().fractions();
            for (lane, bytes, ms) in asks {
                now += Duration::from_millis(ms);
                let before = bandwidth.tokens;
                if bandwidth.charge(Priority::ALL[lane], bytes, [true, true, false, false], now).is_ok() {
                    largest[lane] = largest[lane].max(bytes);
                }
                for (now, before) in bandwidth.tokens.iter().zip(before).take(lane) {
                    prop_assert!(*now >= before, "{lane} took from a more urgent one");
                }
                let seconds = (now - start).as_secs_f64();
                for lane in 0..4 {
                    // At most its own share and those of the less urgent ones.
                    let share: f64 = fractions[lane..].iter().sum();
                    let bursts: f64 = (lane..4).map(|lane| bandwidth.burst(lane)).sum();
                    let most = share * rate as f64 * seconds + bursts + largest[lane] as f64;
                    let sent: u64 = bandwidth.sent[lane];
                    prop_assert!(sent as f64 <= most + 1.0, "lane {lane}: {sent} of {most}");
                }
                let all: u64 = bandwidth.sent.iter().sum();
                let bursts: f64 = (0..4).map(|lane| bandwidth.burst(lane)).sum();
                let most = rate as f64 * seconds + bursts + largest.iter().sum::<u64>() as f64;
                prop_assert!(all as f64 <= most + 1.0, "{all} of {most}");
            }
        }
    }
}
