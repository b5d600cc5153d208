//! A number for each thread, so that what threads write on the hit path stands apart.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many numbers there are: one bit of a word for each.
pub(super) const SHARDS: usize = u64::BITS as usize;
/// The number of threads that came when all others had an owner, or that are being torn down.
pub(super) const COMMON: usize = SHARDS - 1;

/// That of a thread which has not asked yet.
const UNKNOWN: usize = usize::MAX;

/// A bit for each number that a thread has.
static TAKEN: AtomicU64 = AtomicU64::new(1 << COMMON);

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Gives the thread's number back when the thread ends.
    static LEAVE: Leave = const { Leave };
}

struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        let own = OWN.replace(COMMON);
        if own < COMMON {
            // Release: the next owner goes on from what this one wrote.
            TAKEN.fetch_and(!(1 << own), Ordering::Release);
        }
    }
}

/// This thread's number. Below [`COMMON`] no other thread has it, until this one ends; what it wrote by then is seen by the
/// next.
#[inline]
pub(super) fn own() -> usize {
    let own = OWN.get();
    if own == UNKNOWN { take() } else { own }
}

/// Gives this thread a number of its own, if there is one.
#[cold]
fn take() -> usize {
    OWN.set(COMMON);
    if LEAVE.try_with(|_| ()).is_err() {
        return COMMON;
    }
    let lowest_free = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
    if let Ok(before) = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest_free) {
        OWN.set(before.trailing_ones() as usize);
    }
    OWN.get()
}
