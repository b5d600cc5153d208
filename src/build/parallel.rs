//! Work on many items by a few threads, the results in the order of the items.
//!
//! Threads are scoped: none outlives the call, and a call with little to do starts none at all, since an edit of one
//! file must not pay for threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::error::Result;

/// Locks, also after another holder panicked: what these mutexes guard is valid after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads for a build at most.
pub(super) const THREADS_MAX: usize = 64;

/// Threads for work that computes where nobody says how many: one for each core.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// Calls `work` for each item on up to `threads` threads; each thread has a state of its own, made by `state`.
pub(super) fn map<T: Sync, S, R: Send>(
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &T) -> R + Sync,
) -> Vec<R> {
    map_all(threads.min(items.len().div_ceil(ITEMS_PER_THREAD_MIN)), items, state, work)
}

/// Like [`map`], also where each thread has few items: for those that may take long.
pub(super) fn map_all<T: Sync, S, R: Send>(
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(items.len()).max(1);
    if threads == 1 {
        let mut state = state();
        return items.iter().enumerate().map(|(index, item)| work(&mut state, index, item)).collect();
    }
    // Items are taken in small runs, so that what is slow to do does not leave the other threads idle at the end.
    let run = (items.len() / (threads * 64)).clamp(1, 256);
    let next = AtomicUsize::new(0);
    let parts: Mutex<BTreeMap<usize, Vec<R>>> = Mutex::new(BTreeMap::new());
    let body = || {
        let mut state = state();
        loop {
            let from = next.fetch_add(run, Ordering::Relaxed);
            let Some(taken) = items.get(from..items.len().min(from + run)).filter(|taken| !taken.is_empty()) else {
                return;
            };
            let done = taken.iter().enumerate().map(|(at, item)| work(&mut state, from + at, item)).collect();
            lock(&parts).insert(from, done);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(body);
        }
        body();
    });
    let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut results = Vec::with_capacity(items.len());
    parts.into_values().for_each(|part| results.extend(part));
    results
}

/// Like [`map`], but `take` gets each result on this thread, in the order of the items, while others are worked on.
pub(super) fn map_taken<T: Sync, S, R: Send>(
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
    mut take: impl FnMut(&T, R),
) {
    let threads = threads.min(items.len().div_ceil(ITEMS_PER_THREAD_MIN)).max(1);
    if threads == 1 {
        let mut state = state();
        return items.iter().for_each(|item| take(item, work(&mut state, item)));
    }
    let runs: Vec<&[T]> = items.chunks((items.len() / (threads * 64)).clamp(1, 256)).collect();
    let next = AtomicUsize::new(0);
    let body = |done: mpsc::SyncSender<(usize, Vec<R>)>| {
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(number) else { return };
            let results = run.iter().map(|item| work(&mut state, item)).collect();
            if done.send((number, results)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let (done, results) = mpsc::sync_channel(threads * 8);
        for _ in 0..threads {
            let done = done.clone();
            scope.spawn(|| body(done));
        }
        drop(done);
        let (mut waiting, mut taken) = (BTreeMap::new(), 0);
        for (number, results) in results {
            waiting.insert(number, results);
            while let Some(results) = waiting.remove(&taken) {
                runs[taken].iter().zip(results).for_each(|(item, result)| take(item, result));
                taken += 1;
            }
        }
    });
}

/// Like [`map`], for few items that each take long: one at a time to each thread.
pub(super) fn map_each<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    let keep = |_, result| {
        results.push(result);
        Ok(())
    };
    let done =
        ordered(threads.min(items.len()), items.len(), items.len(), || (), |(), number| work(&items[number]), keep);
    debug_assert!(done.is_ok(), "keeping never fails");
    results
}

/// Calls `main` on this thread, and meanwhile `work` for the numbers below `count`, in order, on other threads, as far
/// as they come. Answers what both brought, the latter in no order.
pub(super) fn beside<S, R: Send, M>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> R + Sync,
    main: impl FnOnce() -> M,
) -> (M, Vec<(usize, R)>) {
    /// Ends the work, also when `main` panics: the scope waits for it.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (over, next, done) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let body = || {
        let mut state = state();
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let result = work(&mut state, number);
            lock(&done).push((number, result));
        }
    };
    let main = std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 1..threads {
            scope.spawn(body);
        }
        main()
    });
    (main, done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Fewer items than this are not worth another thread.
const ITEMS_PER_THREAD_MIN: usize = 4;

/// Calls `work` for each number below `count` on up to `threads` threads, and `take` with every result in order, one
/// call at a time, on whichever thread made the result that was missing: nobody is woken to take one. At most `ahead`
/// results wait to be taken. The first error of `take` ends the work.
///
/// # Errors
/// The error of `take`.
pub(super) fn ordered<S, R: Send>(
    threads: usize,
    count: usize,
    ahead: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> R + Sync,
    mut take: impl FnMut(usize, R) -> Result<()> + Send,
) -> Result<()> {
    if threads <= 1 || count <= 1 {
        let mut state = state();
        return (0..count).try_for_each(|number| take(number, work(&mut state, number)));
    }
    let shared = Mutex::new(Taking {
        done: BTreeMap::new(),
        taken: 0,
        is_taking: false,
        waiting: 0,
        stopped: false,
        outcome: Ok(()),
    });
    let (room, take) = (Condvar::new(), Mutex::new(take));
    let next = AtomicUsize::new(0);
    let body = || {
        let _stop = StopOnPanic(&shared, &room);
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let mut guard = lock(&shared);
            while number >= guard.taken + ahead.max(1) && !guard.stopped {
                guard.waiting += 1;
                guard = room.wait(guard).unwrap_or_else(PoisonError::into_inner);
                guard.waiting -= 1;
            }
            if guard.stopped {
                return;
            }
            drop(guard);
            let result = work(&mut state, number);
            let mut guard = lock(&shared);
            guard.done.insert(number, result);
            if guard.is_taking {
                // Whoever is at it looks once more, under the lock, before it ends.
                continue;
            }
            guard.is_taking = true;
            while !guard.stopped
                && let number = guard.taken
                && let Some(result) = guard.done.remove(&number)
            {
                drop(guard);
                let outcome = lock(&take)(number, result);
                guard = lock(&shared);
                guard.taken = number + 1;
                if outcome.is_err() {
                    guard.outcome = outcome;
                    guard.stopped = true;
                }
                if guard.waiting > 0 {
                    room.notify_all();
                }
            }
            guard.is_taking = false;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(body);
        }
        body();
    });
    shared.into_inner().unwrap_or_else(PoisonError::into_inner).outcome
}

/// What the threads of [`ordered`] share.
struct Taking<R> {
    /// Made, and not yet taken.
    done: BTreeMap<usize, R>,
    /// The number to be taken next.
    taken: usize,
    is_taking: bool,
    /// Threads that wait for room.
    waiting: usize,
    stopped: bool,
    outcome: Result<()>,
}

/// Nobody waits for what never comes; the scope passes the panic on.
struct StopOnPanic<'a, R>(&'a Mutex<Taking<R>>, &'a Condvar);

impl<R> Drop for StopOnPanic<'_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.0).stopped = true;
            self.1.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_the_order_of_the_items_however_many_threads() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [1, 2, 7] {
            let doubled = map(threads, &items, || (), |(), _, item| item * 2);
            assert!(doubled.iter().enumerate().all(|(at, value)| *value == at * 2));
            let mut taken = Vec::new();
            map_taken(threads, &items, || (), |(), item| item * 3, |item, value| taken.push((*item, value)));
            assert!(taken.len() == 1000 && taken.iter().enumerate().all(|(at, value)| *value == (at, at * 3)));
            let mut taken = Vec::new();
            ordered(
                threads,
                1000,
                3,
                || (),
                |(), number| number * 2,
                |number, value| {
                    assert_eq!(number * 2, value);
                    taken.push(value);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(taken.len(), 1000);
        }
        assert!(map(4, &[0; 0], || (), |(), _, item: &i32| *item).is_empty());
    }

    #[test]
    fn work_beside_ends_with_what_it_is_beside() {
        let begun = AtomicBool::new(false);
        let work = |(): &mut (), number: usize| {
            begun.store(true, Ordering::Relaxed);
            number * 2
        };
        let main = || {
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            "main"
        };
        let (main, mut done) = beside(3, usize::MAX, || (), work, main);
        done.sort_unstable();
        assert_eq!(main, "main");
        assert!(!done.is_empty() && done.iter().enumerate().all(|(at, result)| *result == (at, at * 2)));
        let (main, done) = beside(1, 5, || (), work, || 7);
        assert_eq!((main, done.len()), (7, 0));
    }

    #[test]
    fn the_first_error_of_the_taker_ends_the_work() {
        let done = AtomicUsize::new(0);
        let work = |(): &mut (), number| {
            done.fetch_add(1, Ordering::Relaxed);
            number
        };
        let take = |number, _| if number == 5 { Err(Error::ShutDown) } else { Ok(()) };
        assert!(ordered(3, 100_000, 4, || (), work, take).is_err());
        assert!(done.load(Ordering::Relaxed) < 100);
    }
}
