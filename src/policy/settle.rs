//! When a change set is complete, so that an edit shows at once and a checkout is one generation.
//!
//! The first finished write after quiet settles its set at once. While events keep coming a set stays open until
//! [`SettleConfig::quiet`] passed without one, or [`SettleConfig::open_max`] in all. A write that is not finished
//! waits for its quiet window. While a version control's lock stands over the tree the set stays open, for
//! [`SettleConfig::lock_max`] at most from when the lock was first seen, so that a lock left behind by a crash
//! holds nothing for longer than that.

use std::time::Instant;

use crate::config::SettleConfig;

/// Whether the open set may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// No set is open.
    Idle,
    /// Ask again at this time, or after the next event.
    Wait(Instant),
    /// The set is complete: [`Settle::take`] it.
    Ready,
}

/// Which file an event was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    /// Named by the caller with a number of its choice.
    Named(u64),
    /// Not named: any write that was begun is taken to be the one that is finished next.
    Unnamed,
}

/// A set that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The first event.
    since: Instant,
    /// Whether that came after quiet, so that one finished write may settle the set at once.
    after_quiet: bool,
    /// The one file that all events were about so far; `None` once there were several.
    file: Option<File>,
    /// Whether the last event of that file was a finished write.
    finished: bool,
}

/// The debounce of one watched tree.
#[derive(Clone, Debug)]
pub struct Settle {
    config: SettleConfig,
    open: Option<Open>,
    /// The last event, also after its set was taken: quiet is counted from it.
    last: Option<Instant>,
    /// When the version control's lock was first seen; `None` when it does not stand.
    locked: Option<Instant>,
}

impl Settle {
    /// No set is open, and it is quiet.
    pub fn new(config: SettleConfig) -> Self {
        Self { config, open: None, last: None, locked: None }
    }

    /// An event about a file that is not named. `finished` says that it completes a write: a close after writing,
    /// a rename, a removal. A second event after a finished one keeps the set open.
    pub fn event(&mut self, now: Instant, finished: bool) {
        self.take_in(now, File::Unnamed, finished);
    }

    /// An event about the file that the caller knows by `file`, such as a hash of its path. Several events about the
    /// same file do not keep a set from settling at once, and a write of one file does not finish that of another.
    pub fn event_of(&mut self, now: Instant, file: u64, finished: bool) {
        self.take_in(now, File::Named(file), finished);
    }

    fn take_in(&mut self, now: Instant, file: File, finished: bool) {
        let quiet = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.config.quiet);
        self.last = Some(now);
        match &mut self.open {
            None => self.open = Some(Open { since: now, after_quiet: quiet, file: Some(file), finished }),
            Some(open) => {
                let second_write = file == File::Unnamed && open.finished;
                if open.file != Some(file) || second_write {
                    open.file = None;
                }
                open.finished = finished;
            }
        }
    }

    /// Whether the version control's lock stands now. Call it for each change, and at the start.
    pub fn lock(&mut self, now: Instant, held: bool) {
        self.locked = match (held, self.locked) {
            (false, _) => None,
            (true, Some(since)) => Some(since),
            (true, None) => Some(now),
        };
    }

    /// Whether a set is open, and whether it may be taken at `now`.
    pub fn poll(&self, now: Instant) -> Settled {
        let (Some(open), Some(last)) = (self.open, self.last) else { return Settled::Idle };
        if let Some(until) = self.locked.map(|since| since + self.config.lock_max)
            && now < until
        {
            return Settled::Wait(until);
        }
        if open.after_quiet && open.finished && open.file.is_some() {
            return Settled::Ready;
        }
        let until = (last + self.config.quiet).min(open.since + self.config.open_max);
        if now < until { Settled::Wait(until) } else { Settled::Ready }
    }

    /// Closes the open set and returns the time of its first event; `None` when none is open. Whether it is ready is
    /// the caller's to ask.
    pub fn take(&mut self) -> Option<Instant> {
        self.open.take().map(|open| open.since)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn settle() -> Settle {
        Settle::new(SettleConfig::default())
    }

    #[test]
    fn the_first_finished_write_after_quiet_settles_at_once() {
        let (mut settle, start) = (settle(), Instant::now());
        assert_eq!(settle.poll(start), Settled::Idle);
        settle.event(start, true);
        assert_eq!(settle.poll(start), Settled::Ready);
        assert_eq!(settle.take(), Some(start));
        assert_eq!((settle.poll(start), settle.take()), (Settled::Idle, None));
    }

    #[test]
    fn a_write_that_is_begun_and_finished_after_quiet_settles_when_it_is_finished() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, false);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(5)));
        settle.event(start + ms(3), false);
        settle.event(start + ms(4), true);
        assert_eq!(settle.poll(start + ms(4)), Settled::Ready);
    }

    #[test]
    fn a_write_that_is_not_finished_waits_its_quiet_window() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, false);
        assert_eq!(settle.poll(start + ms(4)), Settled::Wait(start + ms(5)));
        assert_eq!(settle.poll(start + ms(5)), Settled::Ready);
    }

    #[test]
    fn while_events_keep_coming_the_set_stays_open_for_a_hundred_milliseconds_in_all() {
        let (mut settle, start) = (settle(), Instant::now());
        for step in 0..25 {
            let now = start + ms(step * 4);
            settle.event_of(now, step, true);
            if step > 0 {
                let until = (now + ms(5)).min(start + ms(100));
                assert_eq!(settle.poll(now), Settled::Wait(until), "{step}");
            }
        }
        assert_eq!(settle.poll(start + ms(100)), Settled::Ready);
    }

    #[test]
    fn a_finished_write_soon_after_another_waits_for_quiet() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, true);
        settle.take();
        settle.event(start + ms(2), true);
        assert_eq!(settle.poll(start + ms(2)), Settled::Wait(start + ms(7)));
        settle.take();
        settle.event(start + ms(7), true);
        assert_eq!(settle.poll(start + ms(7)), Settled::Ready, "5 ms are quiet");
    }

    #[test]
    fn a_write_of_one_file_does_not_finish_that_of_another() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event_of(start, 1, false);
        settle.event_of(start, 2, true);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(5)));
    }

    #[test]
    fn further_events_about_the_same_file_do_not_keep_it_open() {
        let (mut settle, start) = (settle(), Instant::now());
        for finished in [false, false, true, true] {
            settle.event_of(start, 1, finished);
        }
        assert_eq!(settle.poll(start), Settled::Ready);
    }

    #[test]
    fn a_lock_holds_the_set_open_until_it_goes_or_for_a_bounded_time() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.lock(start, true);
        assert_eq!(settle.poll(start), Settled::Idle);
        settle.event(start + ms(1), true);
        assert_eq!(settle.poll(start + ms(500)), Settled::Wait(start + ms(2000)));
        let mut released = settle.clone();
        released.lock(start + ms(500), false);
        assert_eq!(released.poll(start + ms(500)), Settled::Ready);
        settle.lock(start + ms(1500), true);
        assert_eq!(settle.poll(start + ms(2000)), Settled::Ready, "seeing it again does not extend it");
        settle.take();
        settle.event(start + ms(9000), true);
        assert_eq!(settle.poll(start + ms(9000)), Settled::Ready, "a lock left behind holds nothing");
    }

    /// The design's words, over the whole history of the open set.
    struct Model {
        events: Vec<(u64, u64, bool)>,
        last_before: Option<u64>,
        locked: Option<u64>,
    }

    impl Model {
        fn poll(&self, now: u64) -> Option<bool> {
            let (first, last) = (self.events.first()?.0, self.events.last()?.0);
            if self.locked.is_some_and(|since| now < since + 2000) {
                return Some(false);
            }
            let after_quiet = self.last_before.is_none_or(|before| first >= before + 5);
            let files: BTreeSet<u64> = self.events.iter().map(|event| event.1).collect();
            let finished = self.events.last().is_some_and(|event| event.2);
            let at_once = after_quiet && files.len() == 1 && finished;
            Some(at_once || now >= last + 5 || now >= first + 100)
        }
    }

    proptest! {
        #[test]
        fn settle_does_what_the_design_says(
            steps in prop::collection::vec((0u64..8, 0u8..10, 0u64..3, any::<bool>()), 1..200),
        ) {
            let (mut settle, start) = (settle(), Instant::now());
            let mut model = Model { events: Vec::new(), last_before: None, locked: None };
            let mut now = 0;
            for (gap, what, file, flag) in steps {
                now += if what == 9 { gap * 300 } else { gap };
                let at = start + ms(now);
                match what {
                    0 => {
                        settle.lock(at, flag);
                        model.locked = if flag { model.locked.or(Some(now)) } else { None };
                    }
                    _ => {
                        settle.event_of(at, file, flag);
                        model.events.push((now, file, flag));
                    }
                }
                match (settle.poll(at), model.poll(now)) {
                    (Settled::Idle, None) => {}
                    (Settled::Wait(until), Some(false)) => {
                        prop_assert!(until > at);
                        // At the time given it is ready, or there is a later time, never none.
                        prop_assert!(settle.poll(until) != Settled::Idle);
                    }
                    (Settled::Ready, Some(true)) => {
                        prop_assert_eq!(settle.take(), Some(start + ms(model.events[0].0)));
                        model.last_before = model.events.last().map(|event| event.0);
                        model.events.clear();
                    }
                    other => prop_assert!(false, "{:?} at {}", other, now),
                }
            }
        }
    }
}
