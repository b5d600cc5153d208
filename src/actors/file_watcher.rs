//! Role: turns file system events into change sets.
//!
//! Owns: the operating system's watch, the open change set. Receives: [`FileWatcherMessage`]. Sends: `Changed` and
//! `Rescan` to the rebuilder. On restart: rebuilt: the watch; lost: the open set and events while it was down, which the
//! rescan that follows every start finds by their results. Bounds: an open set names each path once, and one that grows
//! past 50,000 becomes a rescan.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::build::Workshop;
use crate::event::Event;
use crate::messages::{ChangeSet, FileWatcherMessage, RebuilderMessage};
use crate::platform::watch::{RawEvent, RawKind, WatchGuard};
use crate::policy::settle::{Settle, Settled};

/// Paths in one change set; more are found faster by looking at the whole tree.
const PATHS_MAX: usize = 50_000;
/// What a version control holds while it rewrites the tree.
const LOCKS: [&str; 3] = [".git/index.lock", ".hg/wlock", ".jj/working_copy/working_copy.lock"];

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
    root: PathBuf,
    /// Keeps the watch alive.
    _guard: Box<dyn WatchGuard>,
    settle: Settle,
    paths: BTreeSet<PathBuf>,
    /// The set became too large, or events were lost: look at everything instead.
    rescan: Option<String>,
    /// Numbers the timers: an older one is ignored.
    timer: u64,
}

impl Actor for FileWatcher {
    type Msg = FileWatcherMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let settle = Settle::new(args.shared.config.settle);
        let root = args.workshop.root().to_owned();
        let paths = BTreeSet::new();
        let to = myself.clone();
        let sink = move |events| {
            // A watcher that has ended is started again, and looks at everything.
            drop(to.send_message(FileWatcherMessage::Events(events)));
        };
        let guard = args.shared.watch.watch(&root, Box::new(sink))?;
        let mut state = State { shared: args.shared, root, _guard: guard, settle, paths, rescan: None, timer: 0 };
        for lock in LOCKS {
            let held = state.root.join(lock).exists();
            if held {
                state.settle.lock(state.shared.clock.now(), true);
            }
        }
        // What changed before the watch stood is found by looking.
        state.shared.addresses.rebuilder.hint(RebuilderMessage::Rescan { why: None });
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FileWatcherMessage::Events(events) => state.events(events, &myself),
            FileWatcherMessage::Poll { timer } if timer == state.timer => state.poll(&myself),
            FileWatcherMessage::Poll { .. } => {}
        }
        Ok(())
    }
}

impl State {
    fn events(&mut self, events: Vec<RawEvent>, myself: &ActorRef<FileWatcherMessage>) {
        let now = self.shared.clock.now();
        for event in events {
            match &event.kind {
                RawKind::Overflow(why) => self.lost(why.clone(), now),
                RawKind::RootGone => self.root_gone(),
                _ if self.is_lock(&event.path) => {
                    let gone = matches!(event.kind, RawKind::Removed | RawKind::MovedFrom);
                    self.settle.lock(now, !gone);
                }
                _ if self.is_version_control(&event.path) => {}
                kind => {
                    let finished = kind.is_finished() || event.is_dir == Some(true);
                    self.settle.event_of(now, number(&event.path), finished);
                    if let RawKind::Moved { from } = kind {
                        self.paths.insert(from.clone());
                    }
                    self.paths.insert(event.path);
                }
            }
        }
        if self.paths.len() > PATHS_MAX {
            self.lost(format!("more than {PATHS_MAX} paths changed at once"), now);
        }
        self.poll(myself);
    }

    fn lost(&mut self, why: String, now: std::time::Instant) {
        self.rescan.get_or_insert(why);
        self.paths.clear();
        self.settle.event(now, false);
    }

    /// The watch follows the path: when a folder stands there again it says so by an overflow.
    fn root_gone(&self) {
        let what = format!("{}: moved or removed; what was published stays until it is back", self.root.display());
        tracing::warn!("{what}");
        self.shared.events.send(Event::Warning { what });
    }

    /// Hands the set over if it is complete, or asks to be woken when it may be.
    fn poll(&mut self, myself: &ActorRef<FileWatcherMessage>) {
        let now = self.shared.clock.now();
        self.timer += 1;
        let timer = self.timer;
        match self.settle.poll(now) {
            Settled::Idle => {}
            Settled::Wait(until) => {
                myself.send_after(until.saturating_duration_since(now), move || FileWatcherMessage::Poll { timer });
            }
            Settled::Ready => {
                let first = self.settle.take().unwrap_or(now);
                let paths = std::mem::take(&mut self.paths);
                let message = match self.rescan.take() {
                    Some(why) => RebuilderMessage::Rescan { why: Some(why) },
                    None => RebuilderMessage::Changed(ChangeSet { paths, first, settled: now }),
                };
                // A rebuilder that is down takes this actor with it, and both start with a look at everything.
                self.shared.addresses.rebuilder.hint(message);
            }
        }
    }

    fn is_lock(&self, path: &Path) -> bool {
        LOCKS.iter().any(|lock| path.ends_with(lock))
    }

    fn is_version_control(&self, path: &Path) -> bool {
        let inner = path.strip_prefix(&self.root).unwrap_or(path);
        let folders = [".git", ".hg", ".jj", ".svn"];
        inner.iter().any(|part| folders.iter().any(|folder| part == *folder))
    }
}

fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
