//! What the file watcher is told. Senders: the operating system's watch (`Events`), its own timer (`Poll`).
//! Lost events are made good by the rescan that follows every start of the watcher.

use crate::platform::watch::RawEvent;

/// To the file watcher.
pub enum FileWatcherMessage {
    /// What happened to files, oldest first.
    Events(Vec<RawEvent>),
    /// The time at which the open change set may be settled has come.
    Poll {
        /// The timer's number; an older one is ignored.
        timer: u64,
    },
}
