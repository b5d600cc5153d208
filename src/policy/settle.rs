//! When a change set is complete, so that an edit shows at once and a checkout is one generation.
//!
//! The first finished write after quiet settles its set at once. While events keep coming a set stays open until
//! [`SettleConfig::quiet`] passed without one, or [`SettleConfig::open_max`] in all. A write that is not finished, and a
//! name that stands for nothing now, wait [`SettleConfig::unfinished`], at most [`SettleConfig::unfinished_max`]: the
//! rest of the write, or another file of that name, is about to come. A file that was not there before waits
//! [`SettleConfig::fresh`] when it is written: it may be a temporary that is about to be renamed, and that rename then
//! settles the set at once. While a version control's lock stands over the tree the set stays open, for
//! [`SettleConfig::lock_max`] at most from when the lock was first seen, so that a lock left behind by a crash
//! holds nothing for longer than that.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::config::SettleConfig;

/// How long after it was made a file is still taken to be what somebody may rename.
const YOUNG: Duration = Duration::from_secs(2);
/// Young files that are remembered; more are made by no editor.
const YOUNG_MAX: usize = 4096;
/// Locks that are remembered.
const LOCKS_MAX: usize = 1024;

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

/// What happened to a file, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new; whoever made it may not be done.
    Created,
    /// A write began, or goes on.
    Begun,
    /// A write is complete: a close after writing, a rename from elsewhere.
    Finished,
    /// The name stands for nothing now.
    Gone,
    /// Something that is complete in itself and no write: attributes, folders.
    Other,
}

/// A set that is open.
#[derive(Clone, Debug)]
struct Open {
    /// The first event.
    since: Instant,
    /// Whether that came after quiet, so that one finished write may settle the set at once.
    after_quiet: bool,
    /// The one file that all events were about so far; `None` once there were several.
    file: Option<u64>,
    /// Whether the last event was a finished write.
    finished: bool,
    /// Files whose last event leaves something to be expected.
    unfinished: HashSet<u64>,
}

/// The debounce of one watched tree. Files and locks are known by numbers of the caller's choice, such as hashes of their
/// paths.
#[derive(Clone, Debug)]
pub struct Settle {
    config: SettleConfig,
    open: Option<Open>,
    /// The last event, also after its set was taken: quiet is counted from it.
    last: Option<Instant>,
    /// Version controls' locks that stand, by when they were first seen.
    locks: HashMap<u64, Instant>,
    /// When files were made that are young.
    young: HashMap<u64, Instant>,
    /// When those that are no longer young were last dropped, with all of them looked at.
    counted: Option<Instant>,
}

impl Settle {
    /// No set is open, and it is quiet.
    pub fn new(config: SettleConfig) -> Self {
        Self { config, open: None, last: None, locks: HashMap::new(), young: HashMap::new(), counted: None }
    }

    /// Something happened to `file`. Several events about the same file do not keep a set from settling at once, and a
    /// write of one file does not finish that of another.
    pub fn event(&mut self, now: Instant, file: u64, change: Change) {
        let awaited = self.open.as_ref().is_some_and(|open| open.unfinished.contains(&file));
        let unfinished = match change {
            Change::Created | Change::Begun => true,
            Change::Finished => false,
            // Nobody waits for another temporary of that name.
            Change::Gone => !self.is_young(now, file),
            Change::Other => awaited,
        };
        match change {
            // One that takes the place of another is what was waited for.
            Change::Created if !awaited => self.is_born(now, file),
            Change::Gone => drop(self.young.remove(&file)),
            _ => {}
        }
        let open = self.open_set(now, file);
        open.file = open.file.filter(|only| *only == file);
        open.finished = change == Change::Finished;
        if unfinished {
            open.unfinished.insert(file);
        } else {
            open.unfinished.remove(&file);
        }
    }

    /// A file was renamed. A young one was a temporary: it and what it became count as one file. Otherwise the old name
    /// stands for nothing now, and the new one may be that of a backup that goes again.
    pub fn renamed(&mut self, now: Instant, from: u64, to: u64) {
        if self.is_young(now, from) {
            self.young.remove(&from);
            let open = self.open_set(now, to);
            open.file = open.file.map(|only| if only == from { to } else { only });
            open.unfinished.remove(&from);
            self.young.remove(&to);
        } else {
            self.event(now, from, Change::Gone);
            self.is_born(now, to);
        }
        self.event(now, to, Change::Finished);
    }

    /// More happened than is told file by file: the set holds everything, and waits for quiet.
    pub fn everything(&mut self, now: Instant) {
        let open = self.open_set(now, 0);
        open.file = None;
        open.finished = false;
        open.unfinished.clear();
    }

    fn open_set(&mut self, now: Instant, file: u64) -> &mut Open {
        let after_quiet = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.config.quiet);
        self.last = Some(now);
        self.open.get_or_insert_with(|| Open {
            since: now,
            after_quiet,
            file: Some(file),
            finished: false,
            unfinished: HashSet::new(),
        })
    }

    fn is_born(&mut self, now: Instant, file: u64) {
        if self.young.len() >= YOUNG_MAX && self.counted.is_none_or(|last| now.saturating_duration_since(last) >= YOUNG)
        {
            self.counted = Some(now);
            self.young.retain(|_, made| now.saturating_duration_since(*made) < YOUNG);
        }
        if self.young.len() < YOUNG_MAX {
            self.young.insert(file, now);
        }
    }

    fn is_young(&self, now: Instant, file: u64) -> bool {
        self.young.get(&file).is_some_and(|made| now.saturating_duration_since(*made) < YOUNG)
    }

    /// Whether a version control's lock stands now. Call it for each change, and at the start.
    pub fn lock(&mut self, now: Instant, lock: u64, held: bool) {
        if !held {
            self.locks.remove(&lock);
        } else if self.locks.len() < LOCKS_MAX {
            self.locks.entry(lock).or_insert(now);
        }
    }

    /// Until when a lock holds the set open, if one does.
    pub fn locked_until(&self, now: Instant) -> Option<Instant> {
        self.locks.values().map(|since| *since + self.config.lock_max).max().filter(|until| now < *until)
    }

    /// Whether a set is open, and whether it may be taken at `now`.
    pub fn poll(&self, now: Instant) -> Settled {
        let (Some(open), Some(last)) = (&self.open, self.last) else { return Settled::Idle };
        if let Some(until) = self.locked_until(now) {
            return Settled::Wait(until);
        }
        let alone = open.file.filter(|_| open.after_quiet && open.finished && open.unfinished.is_empty());
        let (window, most) = match alone {
            Some(file) if self.is_young(last, file) => (self.config.fresh, self.config.open_max),
            Some(_) => return Settled::Ready,
            None if open.unfinished.is_empty() => (self.config.quiet, self.config.open_max),
            None => (self.config.unfinished, self.config.unfinished_max),
        };
        let until = (last + window).min(open.since + most);
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
        settle.event(start, 1, Change::Finished);
        assert_eq!(settle.poll(start), Settled::Ready);
        assert_eq!(settle.take(), Some(start));
        assert_eq!((settle.poll(start), settle.take()), (Settled::Idle, None));
    }

    #[test]
    fn a_write_that_is_begun_and_finished_after_quiet_settles_when_it_is_finished() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Begun);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(20)));
        settle.event(start + ms(3), 1, Change::Begun);
        settle.event(start + ms(4), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(4)), Settled::Ready);
    }

    #[test]
    fn a_write_that_is_not_finished_waits_its_quiet_window_but_not_for_ever() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Begun);
        assert_eq!(settle.poll(start + ms(19)), Settled::Wait(start + ms(20)));
        assert_eq!(settle.poll(start + ms(20)), Settled::Ready);
        for step in 1..10 {
            settle.event(start + ms(step * 10), 1, Change::Begun);
            assert_eq!(settle.poll(start + ms(step * 10)), Settled::Wait(start + ms((step * 10 + 20).min(100))));
        }
        assert_eq!(settle.poll(start + ms(100)), Settled::Ready);
    }

    #[test]
    fn a_name_that_stands_for_nothing_waits_for_the_file_that_takes_its_place() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Gone);
        assert_eq!(settle.poll(start + ms(19)), Settled::Wait(start + ms(20)));
        // As an editor does that moves the old file out of the way and writes a new one.
        settle.take();
        let start = start + ms(100);
        settle.renamed(start, 1, 2);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(20)));
        settle.event(start + ms(15), 1, Change::Created);
        settle.event(start + ms(30), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(30)), Settled::Wait(start + ms(35)), "two files: it waits for quiet");
        settle.event(start + ms(31), 2, Change::Gone);
        assert_eq!(settle.poll(start + ms(31)), Settled::Wait(start + ms(36)), "nobody waits for another backup");
        settle.take();
        // And again, at once: what took its place is no temporary.
        settle.renamed(start + ms(50), 1, 2);
        assert_eq!(settle.poll(start + ms(50)), Settled::Wait(start + ms(70)));
    }

    #[test]
    fn a_new_file_waits_a_moment_and_the_rename_of_a_temporary_does_not() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Created);
        settle.event(start, 1, Change::Finished);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(1)));
        settle.renamed(start, 1, 2);
        assert_eq!(settle.poll(start), Settled::Ready);
        settle.take();
        // The same with a temporary that took long enough to be seen by itself.
        let start = start + ms(50);
        settle.event(start, 3, Change::Created);
        settle.event(start, 3, Change::Finished);
        assert_eq!(settle.poll(start + ms(1)), Settled::Ready);
        settle.take();
        settle.renamed(start + ms(30), 3, 2);
        assert_eq!(settle.poll(start + ms(30)), Settled::Ready);
        settle.take();
        // An old file that is renamed leaves a hole.
        settle.renamed(start + ms(60), 2, 4);
        assert_eq!(settle.poll(start + ms(60)), Settled::Wait(start + ms(80)));
    }

    #[test]
    fn while_events_keep_coming_the_set_stays_open_for_a_hundred_milliseconds_in_all() {
        let (mut settle, start) = (settle(), Instant::now());
        for step in 0..25 {
            let now = start + ms(step * 4);
            settle.event(now, step, Change::Finished);
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
        settle.event(start, 1, Change::Finished);
        settle.take();
        settle.event(start + ms(2), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(2)), Settled::Wait(start + ms(7)));
        settle.take();
        settle.event(start + ms(7), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(7)), Settled::Ready, "5 ms are quiet");
    }

    #[test]
    fn a_write_of_one_file_does_not_finish_that_of_another() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Begun);
        settle.event(start, 2, Change::Finished);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(20)));
        settle.event(start, 1, Change::Finished);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(5)));
    }

    #[test]
    fn further_events_about_the_same_file_do_not_keep_it_open() {
        let (mut settle, start) = (settle(), Instant::now());
        for change in [Change::Begun, Change::Begun, Change::Finished, Change::Finished] {
            settle.event(start, 1, change);
        }
        assert_eq!(settle.poll(start), Settled::Ready);
    }

    #[test]
    fn when_everything_may_have_changed_it_waits_for_quiet() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.event(start, 1, Change::Begun);
        settle.everything(start);
        assert_eq!(settle.poll(start), Settled::Wait(start + ms(5)));
        settle.event(start + ms(1), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(1)), Settled::Wait(start + ms(6)));
    }

    #[test]
    fn a_lock_holds_the_set_open_until_it_goes_or_for_a_bounded_time() {
        let (mut settle, start) = (settle(), Instant::now());
        settle.lock(start, 7, true);
        assert_eq!(settle.poll(start), Settled::Idle);
        settle.event(start + ms(1), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(500)), Settled::Wait(start + ms(2000)));
        let mut released = settle.clone();
        released.lock(start + ms(500), 7, false);
        assert_eq!(released.poll(start + ms(500)), Settled::Ready);
        settle.lock(start + ms(1500), 7, true);
        assert_eq!(settle.poll(start + ms(2000)), Settled::Ready, "seeing it again does not extend it");
        settle.take();
        settle.event(start + ms(9000), 1, Change::Finished);
        assert_eq!(settle.poll(start + ms(9000)), Settled::Ready, "a lock left behind holds nothing");
        settle.lock(start + ms(9000), 8, true);
        assert_eq!(settle.poll(start + ms(9000)), Settled::Wait(start + ms(11_000)), "another one does");
    }

    #[test]
    fn what_is_remembered_of_young_files_and_locks_is_bounded() {
        let (mut settle, start) = (settle(), Instant::now());
        for number in 0..10_000 {
            settle.event(start, number, Change::Created);
            settle.lock(start, number, true);
        }
        assert_eq!((settle.young.len(), settle.locks.len()), (YOUNG_MAX, LOCKS_MAX));
        settle.take();
        settle.event(start + YOUNG, 10_000, Change::Created);
        assert_eq!(settle.young.len(), 1);
    }

    /// The design's words, over the whole history of the open set.
    struct Model {
        /// With whether it is the end of a young file.
        events: Vec<(u64, u64, Change, bool)>,
        last_before: Option<u64>,
        locked: Option<u64>,
        /// Files that were made, and when.
        made: HashMap<u64, u64>,
    }

    impl Model {
        fn poll(&self, now: u64) -> Option<bool> {
            let (first, last) = (self.events.first()?.0, self.events.last()?.0);
            if self.locked.is_some_and(|since| now < since + 2000) {
                return Some(false);
            }
            let after_quiet = self.last_before.is_none_or(|before| first >= before + 5);
            let files: BTreeSet<u64> = self.events.iter().map(|event| event.1).collect();
            let waits = |file: &u64| {
                let mut writes = self.events.iter().rev().filter(|event| event.1 == *file && event.2 != Change::Other);
                writes.next().is_some_and(|event| event.2 != Change::Finished && !event.3)
            };
            let finished = self.events.last().is_some_and(|event| event.2 == Change::Finished);
            let expecting = files.iter().any(waits);
            if after_quiet && files.len() == 1 && finished {
                let young = files.first().and_then(|file| self.made.get(file)).is_some_and(|made| last < made + 2000);
                return Some(!young || now > last || first + 100 <= now);
            }
            let (window, most) = if expecting { (20, 100) } else { (5, 100) };
            Some(now >= last + window || now >= first + most)
        }
    }

    proptest! {
        #[test]
        fn settle_does_what_the_design_says(
            steps in prop::collection::vec((0u64..8, 0u8..12, 0u64..3, 0u8..5), 1..200),
        ) {
            let (mut settle, start) = (settle(), Instant::now());
            let mut model = Model { events: Vec::new(), last_before: None, locked: None, made: HashMap::new() };
            let mut now = 0;
            for (gap, what, file, which) in steps {
                now += if what >= 9 { gap * 30 * u64::from(what - 8) } else { gap };
                let at = start + ms(now);
                match what {
                    0 => {
                        settle.lock(at, 9, which % 2 == 0);
                        model.locked = if which % 2 == 0 { model.locked.or(Some(now)) } else { None };
                    }
                    _ => {
                        let all = [Change::Created, Change::Begun, Change::Finished, Change::Gone, Change::Other];
                        let change = all[usize::from(which)];
                        settle.event(at, file, change);
                        let young = model.made.get(&file).is_some_and(|made| now < made + 2000);
                        let mut writes =
                            model.events.iter().rev().filter(|event| event.1 == file && event.2 != Change::Other);
                        let replaces = writes.next().is_some_and(|event| event.2 != Change::Finished && !event.3);
                        model.events.push((now, file, change, change == Change::Gone && young));
                        match change {
                            Change::Created if replaces => {}
                            Change::Created => drop(model.made.insert(file, now)),
                            Change::Gone => drop(model.made.remove(&file)),
                            _ => {}
                        }
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
