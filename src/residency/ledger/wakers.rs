//! Who is to be woken once a batch of answers is in place.

use std::fmt;
use std::task::Waker;

/// Wakers of those who were answered. Dropping it wakes them all, also while a panic unwinds: an answer that is in
/// place is never left unseen. Waking a sleeping thread costs more than answering a hundred of its requests, so that
/// one wake-up after a batch is worth the wait for its end.
#[derive(Default)]
#[must_use = "dropping it wakes everyone in it"]
pub struct Wakers(Vec<Waker>);

impl Wakers {
    /// Nobody yet.
    pub fn new() -> Wakers {
        Wakers::default()
    }

    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wakers({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn everyone_is_woken_once_when_it_is_dropped_even_by_a_panic() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let mut wakers = Wakers::new();
        wakers.add(Some(Waker::from(Arc::clone(&count))));
        wakers.add(None);
        wakers.add(Some(Waker::from(Arc::clone(&count))));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _wakers = wakers;
            std::panic::panic_any("drill");
        }));
        assert!(unwound.is_err());
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
