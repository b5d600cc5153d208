//! The operating system's watcher, and a thread that makes its events dependable.

mod folders;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind, RemoveKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher};

use super::{EventSink, RawEvent, RawKind, Scope, Watch, WatchGuard, dead};
use crate::platform::affinity::CpuSet;
use crate::platform::threads::{OsThreads, Threads, join_from_outside};

/// Events that may wait for the sink; more are an overflow.
const WAITING_MAX: usize = 16 << 10;
/// Events given to the sink at once, at most.
const BATCH_MAX: usize = 1024;
/// How often the root is looked at by itself, since a folder far above it may be moved without a word.
const ROOT_CHECK: Duration = Duration::from_secs(2);
/// After how many of these looks it is tried again to watch what could not be watched.
const BLIND_CHECKS: u32 = 15;

/// How long the end of a rename is waited for after its start was told.
const OTHER_END: Duration = Duration::from_micros(500);
const LEAVES: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));

/// The operating system's watcher.
#[derive(Clone)]
pub struct OsWatch {
    threads: Arc<dyn Threads>,
    root_check: Duration,
    watches_max: Option<usize>,
}

impl OsWatch {
    /// A watcher whose thread comes from `threads`.
    pub fn new(threads: Arc<dyn Threads>) -> Self {
        Self { threads, root_check: ROOT_CHECK, watches_max: None }
    }

    /// Watches at most that many folders, where each needs a watch of its own (Linux), as if the operating system had no
    /// more: the rest is left to other programs of this user. Default as many as the operating system gives.
    pub fn with_watches_max(mut self, watches: usize) -> Self {
        self.watches_max = Some(watches);
        self
    }
}

impl Default for OsWatch {
    fn default() -> Self {
        Self::new(Arc::new(OsThreads))
    }
}

impl Watch for OsWatch {
    fn watch(
        &self,
        root: &Path,
        beside: &[PathBuf],
        scope: Arc<dyn Scope>,
        sink: EventSink,
    ) -> io::Result<Box<dyn WatchGuard>> {
        let root = std::path::absolute(root)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let (tell, told) = sync_channel(WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let mut watching = Watching {
            watcher: None,
            refused: None,
            tell: tell.clone(),
            root,
            beside: beside.to_vec(),
            scope,
            place: None,
            gone_said: false,
            blind: Blindness::default(),
            watches_max: self.watches_max.unwrap_or(usize::MAX),
            watched: HashSet::new(),
            sink,
            shared,
        };
        watching.renew();
        watching.settle_root().map_err(|error| to_io(&error))?;
        let shared = Arc::clone(&watching.shared);
        let root_check = self.root_check;
        let body = Box::new(move || watching.run(&told, root_check));
        let thread = self.threads.spawn("flyloft-watch", &CpuSet::any(), body)?;
        Ok(Box::new(Guard { tell, shared, thread: Mutex::new(Some(thread)) }))
    }
}

enum Message {
    Event(notify::Result<Event>),
    /// Something is in [`Shared`].
    Look,
}

#[derive(Default)]
struct Shared {
    /// An event found no room.
    lost: AtomicBool,
    /// The scope wants something else.
    rescope: AtomicBool,
    stop: AtomicBool,
}

struct Guard {
    tell: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WatchGuard for Guard {
    fn rescope(&self) {
        self.shared.rescope.store(true, Ordering::SeqCst);
        // As below.
        let _ = self.tell.try_send(Message::Look);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Only to wake the thread; if there is no room it is awake.
        let _ = self.tell.try_send(Message::Look);
        if let Some(thread) = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            join_from_outside(thread);
        }
    }
}

/// Where the root stands and which folder that is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Without links: the name under which the operating system reports it.
    real: PathBuf,
    /// Device and inode, or what stands for them.
    identity: (u64, u64),
}

/// Whether changes may happen unseen, and what was said about it.
#[derive(Debug, Default)]
struct Blindness {
    /// Why, as it stands now.
    why: Option<String>,
    /// What was told last.
    told: Option<String>,
    /// Looks at the root since it was last tried to watch everything.
    looks: u32,
}

struct Watching {
    /// `None` when the operating system refused it, for the reason in `refused`.
    watcher: Option<RecommendedWatcher>,
    refused: Option<String>,
    /// Where the operating system's events go.
    tell: SyncSender<Message>,
    /// As given, made absolute: the name under which it is reported to the sink.
    root: PathBuf,
    /// Folders outside that are watched by themselves.
    beside: Vec<PathBuf>,
    scope: Arc<dyn Scope>,
    /// What is watched now.
    place: Option<Place>,
    gone_said: bool,
    blind: Blindness,
    watches_max: usize,
    /// What is watched, counted only where that is limited.
    watched: HashSet<PathBuf>,
    sink: EventSink,
    shared: Arc<Shared>,
}

impl Watching {
    fn run(mut self, told: &Receiver<Message>, root_check: Duration) {
        let mut out = Vec::new();
        self.tell_blindness(&mut out);
        self.give(out);
        loop {
            let first = match told.recv_timeout(root_check) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // Not while this end keeps a sender.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let timed_out = first.is_none();
            let mut look_at_root = timed_out;
            let mut out = Vec::new();
            let mut next = first;
            for _ in 0..BATCH_MAX {
                let Some(message) = next else { break };
                // The other end of a rename follows at once, if it is ours too: both are told as one.
                let leaves = matches!(&message, Message::Event(Ok(event)) if event.kind == LEAVES);
                match message {
                    Message::Event(event) => look_at_root |= self.translate(event, &mut out),
                    Message::Look => {}
                }
                next = if leaves { told.recv_timeout(OTHER_END).ok() } else { told.try_recv().ok() };
            }
            if self.shared.lost.swap(false, Ordering::SeqCst) {
                out.push(self.about_root(RawKind::Overflow("events came faster than they were taken".to_owned())));
            }
            if self.shared.stop.load(Ordering::SeqCst) {
                return;
            }
            if look_at_root {
                self.look_at_root(&mut out);
            }
            if self.shared.rescope.swap(false, Ordering::SeqCst) {
                self.watch_again();
                out.push(self.about_root(RawKind::Attributes));
            }
            if timed_out {
                self.look_for_sight();
            }
            self.watch_announced(&out);
            self.tell_blindness(&mut out);
            self.give(out);
        }
    }

    fn give(&mut self, out: Vec<RawEvent>) {
        if out.is_empty() {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| (self.sink)(out))).is_err() {
            tracing::error!(root = %self.root.display(), "the taker of watch events panicked");
            self.shared.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Adds what `event` means below the root. Whether it may mean that the root is another one now.
    fn translate(&self, event: notify::Result<Event>, out: &mut Vec<RawEvent>) -> bool {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                out.push(self.about_root(RawKind::Overflow(to_io(&error).to_string())));
                return true;
            }
        };
        if event.flag() == Some(Flag::Rescan) {
            let why = "the operating system's queue of events overflowed".to_owned();
            out.push(self.about_root(RawKind::Overflow(why)));
            return true;
        }
        let look_at_root = event.paths.iter().any(|path| self.is_root_or_above(path));
        let mut push = |path: &Path, kind: RawKind, is_dir: Option<bool>| {
            if let Some(known) = self.known_as(path) {
                let is_dir = is_dir.or_else(|| is_dir_now(&known.0, &kind));
                if !self.is_wanted(&known, is_dir) {
                    return;
                }
                let event = RawEvent { path: known.0, kind, is_dir };
                // A large file is written in many pieces: saying so once is enough.
                if out.last() != Some(&event) {
                    out.push(event);
                }
            }
        };
        match (event.kind, event.paths.as_slice()) {
            (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), [from, to]) => {
                // Both ends were told already, one by one, unless they are in another batch, or one is not ours.
                let is_dir = is_dir_now(to, &RawKind::MovedTo);
                let ours = |path| self.known_as(path).filter(|known| self.is_wanted(known, is_dir));
                let (Some((from, _)), Some((to, _))) = (ours(from), ours(to)) else { return look_at_root };
                let ends = |event: &RawEvent| match event.kind {
                    RawKind::MovedFrom => event.path == from,
                    RawKind::MovedTo => event.path == to,
                    _ => false,
                };
                let tail = out.split_off(out.len().saturating_sub(2));
                out.extend(tail.into_iter().filter(|event| !ends(event)));
                out.push(RawEvent { path: to, kind: RawKind::Moved { from }, is_dir });
            }
            (EventKind::Modify(ModifyKind::Name(mode)), paths) => {
                for path in paths {
                    let to = match mode {
                        RenameMode::To => true,
                        RenameMode::From => false,
                        _ => fs::symlink_metadata(path).is_ok(),
                    };
                    push(path, if to { RawKind::MovedTo } else { RawKind::MovedFrom }, None);
                }
            }
            (kind, paths) => {
                let (kind, is_dir) = match kind {
                    EventKind::Create(CreateKind::Folder) => (RawKind::Created, Some(true)),
                    EventKind::Create(CreateKind::File) => (RawKind::Created, Some(false)),
                    EventKind::Create(_) => (RawKind::Created, None),
                    EventKind::Remove(RemoveKind::Folder) => (RawKind::Removed, Some(true)),
                    EventKind::Remove(RemoveKind::File) => (RawKind::Removed, Some(false)),
                    EventKind::Remove(_) => (RawKind::Removed, None),
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => (RawKind::Finished, Some(false)),
                    EventKind::Access(_) => return look_at_root,
                    EventKind::Modify(ModifyKind::Metadata(_)) => (RawKind::Attributes, None),
                    _ => (RawKind::Modified, None),
                };
                paths.iter().for_each(|path| push(path, kind.clone(), is_dir));
            }
        }
        look_at_root
    }

    /// The path as the sink knows it, and the part of it below the root unless it is in a folder beside; `None` for the
    /// root itself, and what is in neither.
    fn known_as(&self, path: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
        let place = self.place.as_ref();
        if let Some(rest) = place.and_then(|place| path.strip_prefix(&place.real).ok()) {
            return (!rest.as_os_str().is_empty()).then(|| (self.root.join(rest), Some(rest.to_owned())));
        }
        let beside = path.parent().is_some_and(|folder| self.beside.iter().any(|beside| beside == folder));
        beside.then(|| (path.to_owned(), None))
    }

    /// What is not known to be a folder is judged as a file: fewer patterns are about that.
    fn is_wanted(&self, (_, inside): &(PathBuf, Option<PathBuf>), is_dir: Option<bool>) -> bool {
        inside.as_ref().is_none_or(|inside| self.scope.wants(inside, is_dir == Some(true)))
    }

    fn is_root_or_above(&self, path: &Path) -> bool {
        self.root.starts_with(path) || self.place.as_ref().is_none_or(|place| place.real.starts_with(path))
    }

    fn about_root(&self, kind: RawKind) -> RawEvent {
        RawEvent { path: self.root.clone(), kind, is_dir: Some(true) }
    }

    /// Says that the root is gone, or watches the one that stands there now.
    fn look_at_root(&mut self, out: &mut Vec<RawEvent>) {
        let found = self.find_root();
        if found.is_some() && found == self.place {
            return;
        }
        if !std::mem::replace(&mut self.gone_said, true) {
            out.push(self.about_root(RawKind::RootGone));
        }
        match self.settle_root() {
            Ok(()) => {
                self.gone_said = false;
                let why = "another folder stands at the root's path now".to_owned();
                out.push(self.about_root(RawKind::Overflow(why)));
            }
            // Gone, or going while it was being watched: the next look tells.
            Err(error) => tracing::debug!(root = %self.root.display(), %error, "the root cannot be watched now"),
        }
    }

    fn find_root(&self) -> Option<Place> {
        let real = fs::canonicalize(&self.root).ok()?;
        let metadata = fs::metadata(&real).ok().filter(fs::Metadata::is_dir)?;
        Some(Place { identity: identity(&metadata), real })
    }
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    let made = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    (0, made.map_or(0, |time| time.as_nanos() as u64))
}

/// What stands at a path that something was moved to or made at.
fn is_dir_now(path: &Path, kind: &RawKind) -> Option<bool> {
    match kind {
        RawKind::Created | RawKind::MovedTo => fs::symlink_metadata(path).ok().map(|metadata| metadata.is_dir()),
        _ => None,
    }
}

/// Opening and reading files is reported too, by the thousand while a tree is scanned: dropped before it takes room.
fn is_noise(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => event.flag().is_none(),
        _ => false,
    }
}

fn to_io(error: &notify::Error) -> io::Error {
    match &error.kind {
        ErrorKind::Io(cause) => io::Error::new(cause.kind(), error.to_string()),
        ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        ErrorKind::MaxFilesWatch => io::Error::new(
            io::ErrorKind::QuotaExceeded,
            "the limit on watched folders is reached; raise fs.inotify.max_user_watches",
        ),
        _ => io::Error::other(error.to_string()),
    }
}

// What Linux tells, event by event; elsewhere tests/reload.rs says that changes arrive.
#[cfg(all(test, target_os = "linux"))]
mod tests;
