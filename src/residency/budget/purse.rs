//! One amount with a limit that nothing is taken beyond.
//!
//! One word decides: what is free. Taking is a compare-and-swap that leaves at least as much as is to be kept, giving
//! back is an addition, and another limit is an addition or a subtraction as well. A limit that is lowered below what is
//! taken leaves less than nothing free: nothing more is taken until enough came back. Because the limit is not a second
//! word that a taker read a moment before, no take can slip through beside a limit that is being lowered.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Limits above this are none.
const MOST: u64 = i64::MAX as u64;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Purse {
    free: AtomicI64,
    /// What is taken, added after it is and subtracted before it comes back: at most what is.
    charged: AtomicU64,
    /// What was set last; of use to whoever looks, not to whoever takes.
    limit: AtomicU64,
}

impl Purse {
    pub(super) fn new(limit: u64) -> Self {
        Self { free: AtomicI64::new(signed(limit)), charged: AtomicU64::new(0), limit: AtomicU64::new(limit) }
    }

    /// Takes `bytes` if they are there and `keep` more stay; else says how many bytes are missing.
    pub(super) fn take(&self, bytes: u64, keep: u64) -> Result<(), u64> {
        let mut free = self.free.load(Ordering::SeqCst);
        loop {
            if let Some(missing) = missing(free, bytes, keep) {
                return Err(missing);
            }
            // It fits, so it is no more than is free.
            let after = free - signed(bytes);
            match self.free.compare_exchange_weak(free, after, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => free = now,
            }
        }
        self.charged.fetch_add(bytes, Ordering::SeqCst);
        Ok(())
    }

    /// How many bytes are missing to take `bytes` now; `None` when they are there.
    pub(super) fn missing(&self, bytes: u64, keep: u64) -> Option<u64> {
        missing(self.free.load(Ordering::SeqCst), bytes, keep)
    }

    /// Gives back what was taken.
    pub(super) fn give(&self, bytes: u64) {
        let before = self.charged.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more was given back than was taken");
        self.free.fetch_add(signed(bytes), Ordering::SeqCst);
    }

    /// Another limit, from here on. One caller at a time.
    pub(super) fn set_limit(&self, limit: u64) {
        let before = self.limit.swap(limit, Ordering::SeqCst);
        self.free.fetch_add(signed(limit) - signed(before), Ordering::SeqCst);
    }

    /// What is taken now, at most.
    pub(super) fn now(&self) -> u64 {
        self.charged.load(Ordering::SeqCst)
    }

    /// What may be taken in all.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::SeqCst)
    }
}

fn signed(bytes: u64) -> i64 {
    bytes.min(MOST) as i64
}

fn missing(free: i64, bytes: u64, keep: u64) -> Option<u64> {
    let missing = (i128::from(bytes) + i128::from(keep) - i128::from(free)).max(0);
    (missing > 0 && bytes > 0).then(|| u64::try_from(missing).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_gives_what_the_limit_leaves_whatever_the_limit_was_before(
            steps in proptest::collection::vec((0u8..4, 0u64..200, 0u64..40), 1..80),
        ) {
            let purse = Purse::new(100);
            let (mut limit, mut taken): (u64, Vec<u64>) = (100, Vec::new());
            for (step, bytes, keep) in steps {
                let sum: u64 = taken.iter().sum();
                match step {
                    0 => {
                        limit = bytes;
                        purse.set_limit(limit);
                    }
                    1 if !taken.is_empty() => purse.give(taken.swap_remove(bytes as usize % taken.len())),
                    _ => {
                        let expected = match (sum + bytes + keep).saturating_sub(limit) {
                            missing if missing > 0 && bytes > 0 => Err(missing),
                            _ => Ok(()),
                        };
                        prop_assert_eq!(purse.missing(bytes, keep), expected.err());
                        prop_assert_eq!(purse.take(bytes, keep), expected);
                        taken.extend(expected.is_ok().then_some(bytes));
                    }
                }
                prop_assert_eq!((purse.now(), purse.limit()), (taken.iter().sum(), limit));
            }
        }
    }

    #[test]
    fn nothing_is_taken_beside_a_limit_that_was_lowered() {
        // Threads take and give back while the limit goes down and up; after each time that it went down and came true,
        // nothing above it is ever seen.
        const LIMITS: [u64; 2] = [1000, 400];
        let purse = Purse::new(LIMITS[0]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (purse, stop) = (&purse, &stop);
                scope.spawn(move || {
                    let mut random = thread + 1;
                    while !stop.load(Ordering::Relaxed) {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let bytes = (random >> 33) % 300;
                        if purse.take(bytes, 0).is_ok() {
                            purse.give(bytes);
                        }
                    }
                });
            }
            for _ in 0..2000 {
                purse.set_limit(LIMITS[1]);
                // What was taken before comes back, and from then on it is at most the limit.
                while purse.free.load(Ordering::SeqCst) < 0 {
                    std::thread::yield_now();
                }
                for _ in 0..20 {
                    assert!(purse.now() <= LIMITS[1]);
                    assert!(purse.free.load(Ordering::SeqCst) >= 0, "someone took what was not there");
                }
                purse.set_limit(LIMITS[0]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!((purse.now(), purse.free.load(Ordering::SeqCst)), (0, 1000));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let purse = Purse::new(u64::MAX);
        purse.take(1 << 62, 0).unwrap();
        assert_eq!(purse.take(u64::MAX, 0).unwrap_err(), u64::MAX - (MOST - (1 << 62)));
        purse.set_limit(0);
        assert_eq!(purse.missing(1, 0), Some((1 << 62) + 1));
        purse.give(1 << 62);
        purse.set_limit(u64::MAX);
        assert_eq!(purse.missing(MOST, 0), None);
    }
}
