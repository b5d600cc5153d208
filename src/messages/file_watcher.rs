//! What the file watcher is told. Senders: the operating system's watch (`Events`), the workshop (`IgnoringChanged`), its
//! own timer (`Poll`) and offloaded job (`Locks`). Lost events are made good by the rescan that follows every start of the
//! watcher.

use std::path::PathBuf;

use crate::platform::watch::RawEvent;

/// To the file watcher.
pub enum FileWatcherMessage {
    /// What happened to files, oldest first.
    Events(Vec<RawEvent>),
    /// Something else is ignored than before.
    IgnoringChanged,
    /// It is time to see what is due.
    Poll {
        /// The timer's number; an older one is ignored.
        timer: u64,
    },
    /// The places of version controls' locks, with whether one stands there: asked for before the tree is looked at.
    Locks(Vec<(PathBuf, bool)>),
}
