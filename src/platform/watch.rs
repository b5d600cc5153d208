//! What changes under a folder, as the operating system tells it.
//!
//! What is known to go wrong beneath is put right or said here: a folder is announced only once it is watched itself,
//! so that whoever then scans it misses nothing; a queue that overflowed is an [`RawKind::Overflow`]; a root that is
//! moved away and made again is watched again. Links are not followed, except the root itself.

mod os;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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
    /// Its bytes or attributes changed; whoever changes them may not be done.
    Modified,
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
    /// The root no longer stands at its path. When it does again, an [`RawKind::Overflow`] follows.
    RootGone,
}

impl RawKind {
    /// Whether the change is complete in itself, so that nobody needs to wait for more of it.
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished | Self::Removed | Self::MovedFrom | Self::MovedTo | Self::Moved { .. })
    }
}

/// Ends the watching when it is dropped. After that the sink is not called again.
pub trait WatchGuard: Send + Sync {}

/// Where events go, in batches, on a thread of the watcher's.
pub type EventSink = Box<dyn Fn(Vec<RawEvent>) + Send + Sync>;

/// Watches folders.
pub trait Watch: Send + Sync {
    /// Tells `sink` of everything that happens below the folder `root` from now on. Scan after this returned: what
    /// changes meanwhile is told.
    ///
    /// # Errors
    /// What the operating system says: `NotFound`, `NotADirectory`, or that it has no more watches.
    fn watch(&self, root: &Path, sink: EventSink) -> io::Result<Box<dyn WatchGuard>>;
}

impl fmt::Debug for dyn WatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchGuard")
    }
}
