//! Named threads that run jobs from four lanes.
//!
//! The queue has no bound of its own: its users hold a permit for each job (invariant 11). A job that panics is caught
//! and counted, and its thread goes on (invariant 14).

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde::Serialize;

use super::{CpuSet, Threads, join_from_outside};
use crate::error::{Error, Result};

/// How many lanes a pool has; lane 0 is the most urgent.
pub const LANES: usize = 4;

/// One job in this many is taken from the least urgent lane that has one, so that no lane starves.
const FAIR_EVERY: u64 = 64;

/// Work for a thread of a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a pool is doing and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// Threads.
    pub threads: usize,
    /// Jobs that wait, per lane.
    pub queued: [usize; LANES],
    /// Jobs that run now.
    pub running: usize,
    /// Jobs that have ended, panicked ones included.
    pub finished: u64,
    /// Jobs that panicked.
    pub panicked: u64,
}

/// A fixed number of threads that run jobs, the most urgent lane first.
///
/// Dropping it is [`Pool::stop`].
pub struct Pool {
    shared: Arc<Shared>,
    count: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    lanes: [VecDeque<Job>; LANES],
    /// Jobs taken so far, to know whose turn it is.
    taken: u64,
    /// Threads that wait for a job and that nobody has woken yet.
    idle: usize,
    closed: bool,
    stats: PoolStats,
}

impl Pool {
    /// Starts `count` threads named `name-0`, `name-1` and so on, each of which may run on all of `cpus`.
    ///
    /// # Errors
    /// [`Error::Config`] when `count` is 0; [`Error::Io`] when a thread cannot be started (those started are joined).
    pub fn new(name: &str, count: usize, cpus: &CpuSet, threads: &dyn Threads) -> Result<Self> {
        if count == 0 {
            return Err(Error::config(name, "a pool needs at least one thread"));
        }
        let pool = Self { shared: Arc::default(), count, threads: Mutex::default() };
        for number in 0..count {
            let shared = Arc::clone(&pool.shared);
            let name = format!("{name}-{number}");
            let thread = threads
                .spawn(&name, cpus, Box::new(move || shared.run()))
                .map_err(|error| Error::io("start the thread", &name, error))?;
            pool.threads().push(thread);
        }
        pool.shared.lock().stats.threads = count;
        Ok(pool)
    }

    /// Queues `job`; lanes above 3 count as 3. Jobs of one lane begin in the order they were queued. After
    /// [`Pool::stop`] the job is dropped.
    pub fn submit(&self, lane: u8, job: Job) {
        self.submit_all([(lane, job)]);
    }

    /// Queues jobs, each with its lane, and wakes as many threads as there are jobs for. Whichever thread is free takes
    /// the next one: the most urgent of all, not of its own, so there is nothing to be stolen from another.
    pub fn submit_all(&self, jobs: impl IntoIterator<Item = (u8, Job)>) {
        let mut jobs = jobs.into_iter();
        let mut state = self.shared.lock();
        let mut queued = 0;
        while !state.closed
            && let Some((lane, job)) = jobs.next()
        {
            state.lanes[usize::from(lane).min(LANES - 1)].push_back(job);
            queued += 1;
        }
        let wake = queued.min(state.idle);
        state.idle -= wake;
        drop(state);
        for _ in 0..wake {
            self.shared.work.notify_one();
        }
        // Outside the mutex: dropping what a closed pool refuses may run anything.
        drop(jobs);
    }

    /// How many threads it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Drops the jobs that have not begun (what they hold comes back through its own `Drop`), waits for the jobs that
    /// run, and joins the threads. Called by one of its own jobs it does not wait for that one. A second call does
    /// nothing.
    pub fn stop(&self) {
        let dropped = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.lanes)
        };
        self.shared.work.notify_all();
        // Outside the mutex: dropping a job may run anything, even another submit.
        drop(dropped);
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            join_from_outside(thread);
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Nothing that may panic runs under this mutex.
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What it is doing now.
    pub fn stats(&self) -> PoolStats {
        let state = self.shared.lock();
        let mut stats = state.stats;
        for (lane, jobs) in state.lanes.iter().enumerate() {
            stats.queued[lane] = jobs.len();
        }
        stats
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs under this mutex.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The body of one thread.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take() {
                state.stats.running += 1;
                drop(state);
                let panicked = catch_unwind(AssertUnwindSafe(job)).is_err();
                state = self.lock();
                state.stats.running -= 1;
                state.stats.finished += 1;
                state.stats.panicked += u64::from(panicked);
            } else if state.closed {
                return;
            } else {
                // Whoever wakes a thread takes it off this count; one that wakes by itself leaves it too high, which
                // costs a needless wake-up.
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Job> {
        let fair = self.taken % FAIR_EVERY == FAIR_EVERY - 1;
        let has_job = |lane: &usize| !self.lanes[*lane].is_empty();
        let lane = if fair { (0..LANES).rev().find(has_job) } else { (0..LANES).find(has_job) }?;
        self.taken += 1;
        self.lanes[lane].pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::threads::OsThreads;
    use std::sync::mpsc;

    fn pool(count: usize) -> Pool {
        Pool::new("pool-test", count, &CpuSet::any(), &OsThreads).unwrap()
    }

    /// Occupies one thread until the returned sender is dropped; returns once the thread is occupied.
    fn occupy(pool: &Pool) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        pool.submit(
            0,
            Box::new(move || {
                tell.send(()).unwrap();
                let _ = released.recv();
            }),
        );
        told.recv().unwrap();
        release
    }

    #[test]
    fn urgent_lanes_run_first_and_no_lane_starves() {
        let pool = pool(1);
        let gate = occupy(&pool);
        let (tell, told) = mpsc::channel();
        for job in 0..200_u32 {
            let tell = tell.clone();
            pool.submit(0, Box::new(move || tell.send((0, job)).unwrap()));
        }
        for lane in [3_u8, 2, 9] {
            let tell = tell.clone();
            pool.submit(lane, Box::new(move || tell.send((lane, 0)).unwrap()));
        }
        assert_eq!(pool.stats().queued, [200, 0, 1, 2]);
        drop((tell, gate));
        let order: Vec<_> = told.iter().collect();
        assert_eq!(order.len(), 203);
        assert!(order.iter().position(|job| job.0 == 3).unwrap() < 64, "the last lane got its turn");
        let urgent: Vec<u32> = order.iter().filter(|job| job.0 == 0).map(|job| job.1).collect();
        assert!(urgent.is_sorted(), "a lane keeps its order");
    }

    #[test]
    fn a_panicking_job_is_counted_and_its_thread_goes_on() {
        let pool = pool(1);
        pool.submit(0, Box::new(|| panic!("on purpose")));
        let (tell, told) = mpsc::channel();
        pool.submit(0, Box::new(move || tell.send(()).unwrap()));
        told.recv().unwrap();
        assert_eq!(pool.stats().panicked, 1);
        assert_eq!(pool.stats().threads, 1);
    }

    #[test]
    fn dropping_a_pool_drops_what_waits_and_joins_what_runs() {
        let pool = pool(1);
        let gate = occupy(&pool);
        let lease = Arc::new(());
        let held = Arc::clone(&lease);
        let (tell, told) = mpsc::channel::<()>();
        pool.submit(
            0,
            Box::new(move || {
                drop(held);
                let _ = tell.send(());
            }),
        );
        let dropper = std::thread::spawn(move || drop(pool));
        // The waiting job is dropped, not run, while the first one still occupies the thread.
        assert!(told.recv().is_err());
        assert_eq!(Arc::strong_count(&lease), 1);
        drop(gate);
        dropper.join().unwrap();
    }

    #[test]
    fn a_pool_dropped_by_its_own_job_does_not_wait_for_itself() {
        let pool = Arc::new(pool(2));
        let (tell, told) = mpsc::channel();
        let own = Arc::clone(&pool);
        let gate = occupy(&pool);
        pool.submit(
            0,
            Box::new(move || {
                drop(own);
                tell.send(()).unwrap();
            }),
        );
        drop(gate);
        drop(pool);
        told.recv().unwrap();
    }

    #[test]
    fn a_pool_of_no_threads_is_refused() {
        assert!(matches!(Pool::new("decode", 0, &CpuSet::any(), &OsThreads), Err(Error::Config { .. })));
    }
}
