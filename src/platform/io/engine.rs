//! What stands behind a driver: one trait, so that a platform's own way of reading is one more file.

use std::sync::Arc;

use super::op::Op;

/// Says of an operation's token whether it is one to cancel.
pub(super) type Which<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// Does operations. It owns their buffers until it has completed them (invariant 15).
pub(super) trait Engine<T>: Send + Sync {
    /// Its name in status and reports.
    fn name(&self) -> &'static str;

    /// Takes operations that the account has admitted, on any thread, without waiting. Each must be given to
    /// [`Account::complete`](super::account::Account::complete) exactly once, whatever happens to it.
    fn start(&self, ops: Vec<Op<T>>);

    /// Tries to end the operations that `which` means, on any thread, without waiting. They complete as ever: with the
    /// error of a cancelled one, or as if nothing had happened where it was too late.
    fn cancel(&self, which: Which<T>);

    /// Ends its helper threads. Called once, when everything has completed.
    fn stop(&self);
}

/// Asks `which` about a token. One that panics means no.
pub(super) fn is_meant<T>(which: &Which<T>, token: &T) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| which(token))).unwrap_or(false)
}
