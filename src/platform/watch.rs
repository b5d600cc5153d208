//! What changes under a folder, as the operating system tells it.
//!
//! What is known to go wrong beneath is put right or said here: a folder is announced only once it is watched itself,
//! so that whoever then scans it misses nothing; a queue that overflowed is an [`RawKind::Overflow`]; a root that is
//! moved away and made again is watched again; where the operating system cannot tell of everything there is a
//! [`RawKind::Blind`]. Links are not followed, except the root itself.

mod dead;
mod os;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::os::OsWatch;

/// Something happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// The path, below the root as it was given (made absolute); the root itself for [`RawKind::Overflow`] and
    /// [`RawKind::RootGone`].
    pub path: PathBuf,
    /// What happened.
    pub kind: RawKind,
    /// Whether it is a folder, where that is known.
    pub is_dir: Option<bool>,
}

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// It is new. The content of a new folder may go unmentioned: it is to be scanned.
    Created,
    /// Its bytes changed; whoever changes them may not be done.
    Modified,
    /// Its attributes changed: times, permissions.
    Attributes,
    /// Whoever wrote to it has closed it.
    Finished,
    /// It is gone.
    Removed,
    /// It was moved away, as far as is known to outside the root.
    MovedFrom,
    /// It was moved here, as far as is known from outside the root. A folder is to be scanned.
    MovedTo,
    /// It was moved here from another place below the root. A folder is to be scanned.
    Moved {
        /// Where it was.
        from: PathBuf,
    },
    /// Events were lost, or cannot be had; the whole root is to be scanned. Says why.
    Overflow(String),
    /// From now on changes may happen that are not told of; the root is to be looked at from time to time. Says why.
    Blind(String),
    /// That is over: everything is told of again. Comes with an [`RawKind::Overflow`].
    Sighted,
    /// The root no longer stands at its path. When it does again, an [`RawKind::Overflow`] follows.
    RootGone,
}

/// What of a tree is worth watching. Asked by the watcher's threads, for every event.
pub trait Scope: Send + Sync {
    /// Whether it matters what happens at `inside`, a path relative to the root. A folder for which it does not is not
    /// watched, nor what is below it, as far as the operating system allows that.
    fn wants(&self, inside: &Path, is_dir: bool) -> bool;
}

/// All of a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything;

impl Scope for Everything {
    fn wants(&self, _inside: &Path, _is_dir: bool) -> bool {
        true
    }
}

/// Ends the watching when it is dropped. After that the sink is not called again.
pub trait WatchGuard: Send + Sync {
    /// The scope wants something else than before. What is to be watched is watched soon after, and then the root itself
    /// is told as [`RawKind::Attributes`]: look at it again.
    fn rescope(&self);
}

/// Where events go, in batches, on a thread of the watcher's.
pub type EventSink = Box<dyn Fn(Vec<RawEvent>) + Send + Sync>;

/// Watches folders.
pub trait Watch: Send + Sync {
    /// Tells `sink` of everything that `scope` wants below the folder `root` from now on, and of what happens to names
    /// directly in the folders `beside`. Scan after this returned: what changes meanwhile is told. Where the operating
    /// system has no more watches, the first thing that is told is [`RawKind::Blind`].
    ///
    /// # Errors
    /// What the operating system says: `NotFound`, `NotADirectory`.
    fn watch(
        &self,
        root: &Path,
        beside: &[PathBuf],
        scope: Arc<dyn Scope>,
        sink: EventSink,
    ) -> io::Result<Box<dyn WatchGuard>>;
}

impl fmt::Debug for dyn WatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchGuard")
    }
}
