//! The way of operations to the thread that owns the ring.

use std::sync::{Mutex, MutexGuard};

use crate::platform::io::engine::Which;
use crate::platform::io::op::Op;

/// What is on its way.
pub(super) struct Inbox<T> {
    waiting: Mutex<Waiting<T>>,
}

pub(super) struct Waiting<T> {
    pub(super) ops: Vec<Op<T>>,
    pub(super) cancels: Vec<Which<T>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { ops: Vec::new(), cancels: Vec::new() }
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default() }
    }
}

impl<T> Inbox<T> {
    /// Adds to what waits; whoever does so wakes the driver's thread.
    pub(super) fn put(&self, ops: Vec<Op<T>>) {
        let waiting = &mut self.lock().ops;
        if waiting.is_empty() { *waiting = ops } else { waiting.extend(ops) }
    }

    /// Adds a wish to cancel; it means what was put before.
    pub(super) fn cancel(&self, which: Which<T>) {
        self.lock().cancels.push(which);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.ops.is_empty() && waiting.cancels.is_empty()
    }

    /// Everything that waits, in order.
    pub(super) fn take(&self) -> Waiting<T> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
