//! Role: turns file system events into change sets.
//!
//! Owns: the operating system's watch, the open change set, the times at which the tree is looked at where events are not
//! to be had. Receives: [`FileWatcherMessage`]. Sends: `Changed` and `Rescan` to the rebuilder; looks for version
//! controls' locks on the workshop's threads. On restart: rebuilt: the watch; lost: the open set and events while it was
//! down, which the rescan that follows every start finds by their results. Bounds: an open set names each path once, and
//! one that grows past 50,000 becomes a rescan; 1,024 unfinished writes are looked at again by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use super::watch_ahead::TreeScope;
use crate::build::Workshop;
use crate::event::Event;
use crate::messages::{ChangeSet, FileWatcherMessage, RebuilderMessage};
use crate::platform::version_control::Locks;
use crate::platform::watch::{RawEvent, RawKind, WatchGuard};
use crate::policy::settle::{Change, Settle, Settled};

/// Paths in one change set; more are found faster by looking at the whole tree.
const PATHS_MAX: usize = 50_000;
/// When a write that was not seen to finish is looked at again: whoever closes a file that was opened without a name, or
/// on a file system that does not say so, is not heard.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];
/// Writes that are looked at again; with more, the whole tree is.
const AGAIN_MAX: usize = 1024;
/// How soon it is tried again to look at the tree while a version control's lock stands.
const LOCK_CHECK: Duration = Duration::from_millis(100);
/// The lane of the build pool that looks for locks: behind builds.
const LOCK_LANE: u8 = 1;

/// The actor.
pub struct FileWatcher;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
    /// The tree to watch.
    pub workshop: Arc<Workshop>,
}

/// The open set.
pub struct State {
    shared: Arc<Shared>,
    workshop: Arc<Workshop>,
    locks: Arc<Locks>,
    /// Keeps the watch alive.
    guard: Box<dyn WatchGuard>,
    settle: Settle,
    paths: BTreeSet<PathBuf>,
    /// Of these, the files whose write was not seen to finish.
    begun: BTreeSet<PathBuf>,
    /// The set became too large, or events were lost: look at everything instead.
    rescan: Option<String>,
    /// Files whose write was not finished when their set was handed over: when to look again, and how often that was
    /// done.
    again: BTreeMap<PathBuf, (Instant, usize)>,
    /// Whether the operating system leaves changes untold, so that the tree is looked at from time to time.
    blind: bool,
    /// When the whole tree is looked at next without having been told of anything.
    look: Option<Instant>,
    /// Numbers the timers: an older one is ignored.
    timer: u64,
    /// When the newest timer rings, while it has not.
    alarm: Option<Instant>,
}

impl Actor for FileWatcher {
    type Msg = FileWatcherMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let Args { shared, workshop } = args;
        let root = workshop.root();
        let locks = Arc::new(Locks::of(root));
        let ahead = shared.watch_ahead.lock().take();
        *shared.blind.lock() = None;
        let (guard, complete) = match ahead {
            Some(ahead) => ahead.hand_over(myself.clone(), &workshop),
            None => {
                let to = myself.clone();
                let sink = move |events| {
                    // A watcher that has ended is started again, and looks at everything.
                    drop(to.send_message(FileWatcherMessage::Events(events)));
                };
                let scope = Arc::new(TreeScope(Arc::clone(&workshop)));
                (shared.watch.watch(root, locks.beside(), scope, Box::new(sink))?, false)
            }
        };
        let to = myself.clone();
        workshop.on_ignoring(move || drop(to.send_message(FileWatcherMessage::IgnoringChanged)));
        let now = shared.clock.now();
        let mut settle = Settle::new(shared.config.settle);
        for (place, stands) in locks.standing() {
            settle.lock(now, number(place), stands);
        }
        let mut state = State {
            guard,
            settle,
            locks,
            paths: BTreeSet::new(),
            begun: BTreeSet::new(),
            rescan: None,
            again: BTreeMap::new(),
            blind: false,
            look: None,
            timer: 0,
            alarm: None,
            shared,
            workshop,
        };
        state.look = state.period().map(|period| now + period);
        if !complete {
            // What changed before the watch stood is found by looking.
            state.shared.addresses.rebuilder.hint(RebuilderMessage::Rescan { why: None });
        }
        state.poll(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FileWatcherMessage::Events(events) => state.events(events),
            FileWatcherMessage::IgnoringChanged => state.guard.rescope(),
            FileWatcherMessage::Poll { timer } if timer == state.timer => state.alarm = None,
            FileWatcherMessage::Poll { .. } => return Ok(()),
            FileWatcherMessage::Locks(places) => state.look_unless_locked(places),
        }
        state.poll(&myself);
        Ok(())
    }
}

impl State {
    fn events(&mut self, events: Vec<RawEvent>) {
        let now = self.shared.clock.now();
        for event in events {
            // Git renames its lock to what it guards.
            if let RawKind::Moved { from } = &event.kind
                && self.locks.is_lock(self.workshop.root(), from)
            {
                self.settle.lock(now, number(from), false);
            }
            match &event.kind {
                RawKind::Overflow(why) => self.lost(why.clone(), now),
                RawKind::Blind(why) => self.blind(why, now),
                RawKind::Sighted => self.sighted(),
                RawKind::RootGone => self.root_gone(),
                kind if self.locks.is_lock(self.workshop.root(), &event.path) => {
                    let gone = matches!(kind, RawKind::Removed | RawKind::MovedFrom);
                    self.settle.lock(now, number(&event.path), !gone);
                }
                // Something else beside a lock that stands outside the tree.
                _ if !event.path.starts_with(self.workshop.root()) => {}
                _ => self.change(event, now),
            }
            if self.paths.len() > PATHS_MAX {
                self.lost(format!("more than {PATHS_MAX} paths changed at once"), now);
            }
        }
    }

    fn change(&mut self, event: RawEvent, now: Instant) {
        let RawEvent { path, kind, is_dir } = event;
        let (id, is_dir) = (number(&path), is_dir == Some(true));
        let change = match kind {
            RawKind::Moved { from } => {
                match is_dir {
                    true => self.settle.event(now, number(&from), Change::Gone),
                    false => self.settle.renamed(now, number(&from), id),
                }
                self.begun.remove(&from);
                self.again.remove(&from);
                self.add(from);
                if is_dir { Change::Other } else { Change::Finished }
            }
            RawKind::Removed | RawKind::MovedFrom => Change::Gone,
            RawKind::Attributes => Change::Other,
            _ if is_dir => Change::Other,
            RawKind::Created => Change::Created,
            RawKind::Modified => Change::Begun,
            RawKind::Finished | RawKind::MovedTo => Change::Finished,
            // Told apart by the caller.
            RawKind::Overflow(_) | RawKind::Blind(_) | RawKind::Sighted | RawKind::RootGone => return,
        };
        self.settle.event(now, id, change);
        match change {
            Change::Created | Change::Begun if self.rescan.is_none() => drop(self.begun.insert(path.clone())),
            Change::Finished | Change::Gone => {
                self.begun.remove(&path);
                self.again.remove(&path);
            }
            _ => {}
        }
        self.add(path);
    }

    fn add(&mut self, path: PathBuf) {
        // Everything is looked at anyway.
        if self.rescan.is_none() {
            self.paths.insert(path);
        }
    }

    fn lost(&mut self, why: String, now: Instant) {
        self.rescan.get_or_insert(why);
        self.paths.clear();
        self.begun.clear();
        self.settle.everything(now);
    }

    /// How often the tree is looked at, if it is.
    fn period(&self) -> Option<Duration> {
        let config = &self.shared.config.poll;
        config.period.filter(|_| self.blind || config.always)
    }

    fn blind(&mut self, why: &str, now: Instant) {
        self.blind = true;
        self.look = self.period().map(|period| now + period);
        let instead = match self.period() {
            Some(period) => format!("the whole tree is looked at every {period:?}"),
            None => "changes may be missed, since poll.period is none".to_owned(),
        };
        let why = format!("{why}; {instead}");
        *self.shared.blind.lock() = Some(why.clone());
        let what = format!("{}: {why}", self.workshop.root().display());
        tracing::warn!("{what}");
        self.shared.events.send(Event::Warning { what });
        self.lost(why, now);
    }

    /// The overflow that comes with it has everything looked at once more.
    fn sighted(&mut self) {
        self.blind = false;
        *self.shared.blind.lock() = None;
        if self.period().is_none() {
            self.look = None;
        }
    }

    /// The watch follows the path: when a folder stands there again it says so by an overflow.
    fn root_gone(&self) {
        let root = self.workshop.root().display();
        let what = format!("{root}: moved or removed; what was published stays until it is back");
        tracing::warn!("{what}");
        self.shared.events.send(Event::Warning { what });
    }

    /// Hands over what is complete, looks at what is due, and asks to be woken when more may be.
    fn poll(&mut self, myself: &ActorRef<FileWatcherMessage>) {
        let now = self.shared.clock.now();
        let mut wake = match self.settle.poll(now) {
            Settled::Idle => None,
            Settled::Wait(until) => Some(until),
            Settled::Ready => {
                self.hand_over(now);
                None
            }
        };
        self.look_again(now);
        if self.look.is_some_and(|at| at <= now) {
            self.look = self.period().map(|period| now + period);
            self.ask_for_locks(myself);
        }
        // While a lock stands nobody looks again.
        let again = self.again.values().map(|(at, _)| *at).min();
        let again = again.map(|at| self.settle.locked_until(now).map_or(at, |until| at.max(until)));
        wake = wake.into_iter().chain(self.look).chain(again).min();
        let Some(wake) = wake else { return };
        // One that rings too early asks again; one that rings in time is enough.
        if self.alarm.is_none_or(|alarm| wake < alarm) {
            self.timer += 1;
            self.alarm = Some(wake);
            let timer = self.timer;
            myself.send_after(wake.saturating_duration_since(now), move || FileWatcherMessage::Poll { timer });
        }
    }

    fn hand_over(&mut self, now: Instant) {
        let first = self.settle.take().unwrap_or(now);
        for path in std::mem::take(&mut self.begun) {
            self.again.entry(path).or_insert((now + AGAIN[0], 0));
        }
        if self.again.len() > AGAIN_MAX {
            self.again.clear();
            let soon = now + AGAIN[1];
            self.look = Some(self.look.map_or(soon, |look| look.min(soon)));
        }
        let paths = std::mem::take(&mut self.paths);
        let message = match self.rescan.take() {
            Some(why) => RebuilderMessage::Rescan { why: Some(why) },
            None => RebuilderMessage::Changed(ChangeSet { paths, first, settled: now }),
        };
        // A rebuilder that is down takes this actor with it, and both start with a look at everything.
        self.shared.addresses.rebuilder.hint(message);
    }

    /// Has the files looked at again whose write was not seen to finish.
    fn look_again(&mut self, now: Instant) {
        if self.again.values().all(|(at, _)| *at > now) || self.settle.locked_until(now).is_some() {
            return;
        }
        let mut paths = BTreeSet::new();
        self.again.retain(|path, (at, times)| {
            if *at > now {
                return true;
            }
            paths.insert(path.clone());
            *times += 1;
            let next = AGAIN.get(*times);
            *at = next.map_or(now, |wait| now + *wait);
            next.is_some()
        });
        self.shared.addresses.rebuilder.hint(RebuilderMessage::Changed(ChangeSet { paths, first: now, settled: now }));
    }

    /// Where events do not tell of a file they do not tell of a lock either.
    fn ask_for_locks(&self, myself: &ActorRef<FileWatcherMessage>) {
        let (locks, to) = (Arc::clone(&self.locks), myself.clone());
        let look = move || {
            let places = locks.standing().map(|(place, stands)| (place.to_owned(), stands)).collect();
            drop(to.send_message(FileWatcherMessage::Locks(places)));
        };
        self.workshop.pool().submit(LOCK_LANE, Box::new(look));
    }

    fn look_unless_locked(&mut self, places: Vec<(PathBuf, bool)>) {
        let now = self.shared.clock.now();
        for (place, stands) in places {
            self.settle.lock(now, number(&place), stands);
        }
        if let Some(until) = self.settle.locked_until(now) {
            let soon = until.min(now + LOCK_CHECK);
            self.look = Some(self.look.map_or(soon, |look| look.min(soon)));
        } else {
            self.shared.addresses.rebuilder.hint(RebuilderMessage::Rescan { why: None });
        }
    }
}

fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
