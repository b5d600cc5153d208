//! A watch that stands before the tree is looked at for the first time, so that it need not be looked at a second time
//! when the watcher starts.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::ActorRef;

use crate::build::Workshop;
use crate::build::config::Ignoring;
use crate::messages::FileWatcherMessage;
use crate::platform::version_control::{Locks, concern};
use crate::platform::watch::{RawEvent, Scope, Watch, WatchGuard};

/// Events that are kept until the watcher starts; more are lost, and it looks at everything.
const WAITING_MAX: usize = 50_000;

/// What matters of a tree: what is not ignored, and locks.
pub(super) struct TreeScope(pub(super) Arc<Workshop>);

impl Scope for TreeScope {
    fn wants(&self, inside: &Path, is_dir: bool) -> bool {
        match concern(inside, is_dir) {
            None => !self.0.is_of_no_interest(inside, is_dir),
            Some((_, false)) => false,
            Some((above, true)) => above.as_os_str().is_empty() || !self.0.is_of_no_interest(&above, true),
        }
    }
}

/// A watch without its watcher.
pub struct WatchAhead {
    guard: Box<dyn WatchGuard>,
    to: Arc<Mutex<To>>,
    /// What was ignored when it began.
    ignoring: Arc<Ignoring>,
}

/// Where events go.
enum To {
    /// To whoever comes.
    Waiting(Vec<RawEvent>),
    /// They were too many.
    Lost,
    /// To the watcher.
    Watcher(ActorRef<FileWatcherMessage>),
}

impl WatchAhead {
    /// Watches the workshop's tree. `None` when it cannot be watched now: the watcher says why.
    pub fn begin(watch: &dyn Watch, workshop: &Arc<Workshop>) -> Option<Self> {
        let to = Arc::new(Mutex::new(To::Waiting(Vec::new())));
        let ignoring = workshop.ignoring();
        let sink = {
            let to = Arc::clone(&to);
            move |events: Vec<RawEvent>| to.lock().take(events)
        };
        let scope = Arc::new(TreeScope(Arc::clone(workshop)));
        let locks = Locks::of(workshop.root());
        let guard = watch.watch(workshop.root(), locks.beside(), scope, Box::new(sink)).ok()?;
        Some(Self { guard, to, ignoring })
    }

    /// Sends what was told so far, and all that follows, to the watcher. Answers whether nothing was lost.
    pub(super) fn hand_over(
        self,
        watcher: ActorRef<FileWatcherMessage>,
        workshop: &Workshop,
    ) -> (Box<dyn WatchGuard>, bool) {
        if *self.ignoring != *workshop.ignoring() {
            // The first look at the tree found other patterns than the watch began with.
            self.guard.rescope();
        }
        let mut to = self.to.lock();
        let before = std::mem::replace(&mut *to, To::Watcher(watcher));
        let complete = match before {
            To::Waiting(events) => {
                // Before anything that follows, since the sink waits for the lock.
                to.take(events);
                true
            }
            To::Lost | To::Watcher(_) => false,
        };
        drop(to);
        (self.guard, complete)
    }
}

impl To {
    fn take(&mut self, mut events: Vec<RawEvent>) {
        match self {
            Self::Waiting(waiting) if waiting.len() + events.len() <= WAITING_MAX => waiting.append(&mut events),
            Self::Waiting(_) => *self = Self::Lost,
            Self::Lost => {}
            // A watcher that has ended is started again, and looks at everything.
            Self::Watcher(watcher) if !events.is_empty() => {
                drop(watcher.send_message(FileWatcherMessage::Events(events)));
            }
            Self::Watcher(_) => {}
        }
    }
}
