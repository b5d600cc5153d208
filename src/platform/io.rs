//! Reads at positions, many at once, behind one driver for every engine.
//!
//! A [`Driver`] owns a thread, the runtime on it, the ring or the helper threads, and every buffer in flight. The actor
//! that uses it may be killed and started again: it attaches itself anew and nothing is lost (invariant 15).
//!
//! Three engines stand behind it: `io_uring` on Linux and `iocp` on Windows, where a probe finds them working, and
//! `positioned` reads on a few threads, which also serve sources that have no file of the operating system under them.

mod account;
#[cfg(target_os = "linux")]
mod depth;
mod engine;
#[cfg(windows)]
mod iocp;
mod op;
mod plan;
mod positioned;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(target_os = "linux")]
mod wait;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::{Builder, Handle};

use self::account::Account;
use self::engine::Engine as ReadEngine;
use self::op::Op;
pub use self::op::{Access, ReadDone, ReadOp, SEGMENTS_MAX, WriteAction, WriteOp, is_cancelled};
use self::positioned::Positioned;
use super::affinity::CpuSet;
use super::memory::{BufferPool, Heap};
use super::threads::{Pool, Threads, join_from_outside};
use crate::config::Engine;
use crate::error::{Error, Result};
use crate::limits;

/// Threads that read for the positioned engine unless others are asked for; fewer when the depth is less.
/// `cargo bench --bench engine -- threads` shows what other numbers give.
const POSITIONED_THREADS: usize = 16;
/// Threads that read for the other engines what these cannot read.
const HELPER_THREADS: usize = 2;

/// How a driver is started.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The name of its thread; helper threads add to it.
    pub name: String,
    /// Where its thread runs. Helper threads run there too, unless it is a single processor.
    pub cpus: CpuSet,
    /// Reads in flight at most, 1 to [`limits::READS_IN_FLIGHT_MAX`].
    pub depth: usize,
    /// Which engine.
    pub engine: Engine,
    /// Memory to read into, which the ring registers as far as it may.
    pub pool: Option<Arc<BufferPool>>,
    /// Memory that many reads end up in, which the ring registers after the pool, as it is made ready, as far as it may.
    pub heap: Option<Arc<Heap>>,
    /// Whether to have fewer operations with the device than `depth` where more gain nothing.
    pub adaptive_depth: bool,
    /// Threads of the positioned engine; 0 for 16. Never more than `depth`.
    pub threads: usize,
    /// Lets a thread of the kernel take submissions without a system call; it takes a whole processor while there are
    /// any, and for this long after the last. `None`: no such thread.
    pub sqpoll: Option<Duration>,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            name: "flyloft-io".to_owned(),
            cpus: CpuSet::any(),
            depth: 64,
            engine: Engine::Auto,
            pool: None,
            heap: None,
            adaptive_depth: false,
            threads: 0,
            sqpoll: None,
        }
    }
}

/// What a driver has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DriverStats {
    /// Reads accepted.
    pub submitted: u64,
    /// Reads ended, failed ones included.
    pub completed: u64,
    /// Reads that ended with an error.
    pub failed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// System calls that handed reads to the ring; 0 for the positioned engine.
    pub batches: u64,
    /// Times that the thread slept until something happened.
    pub sleeps: u64,
    /// Reads continued after a short one, or tried again after an interruption.
    pub continued: u64,
    /// Reads done by threads: all of the positioned engine, the exceptions of the ring.
    pub positioned: u64,
    /// Times that the sink panicked. What it was given then is gone, the driver goes on.
    pub sink_panics: u64,
    /// Reads past the page cache.
    pub direct: u64,
    /// Reads that should have been and went through it: the file system or the buffer did not allow it.
    pub not_direct: u64,
    /// Transfers to or from memory that the ring has registered.
    pub fixed: u64,
    /// Times that the thread looked a moment longer before it slept.
    pub polls: u64,
    /// Times that something came while it looked.
    pub poll_hits: u64,
    /// Times that the kernel kept completions aside because their queue was full. None of them was lost.
    pub overflows: u64,
    /// Operations that may be with the device at once, now; 0 for the positioned engine.
    pub depth_now: u64,
}

/// Owns a thread, a runtime on it, an engine, and every buffer in flight.
///
/// Dropping it is [`Driver::stop`].
pub struct Driver<T: Send + 'static> {
    account: Arc<Account<T>>,
    engine: Arc<dyn ReadEngine<T>>,
    pool: Option<Arc<BufferPool>>,
    note: Option<String>,
    handle: Handle,
    thread_id: ThreadId,
    /// What `stop` joins.
    running: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread says once it runs.
struct Started<T: Send + 'static> {
    handle: Handle,
    engine: Arc<dyn ReadEngine<T>>,
    note: Option<String>,
}

/// Whether io_uring works for this process, by reading through a ring; or the reason why not.
///
/// # Errors
/// Why not, as one line.
pub fn probe_uring() -> std::result::Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        uring::probe()
    }
    #[cfg(not(target_os = "linux"))]
    Err("io_uring is an interface of Linux".to_owned())
}

impl<T: Send + 'static> Driver<T> {
    /// Starts the thread and the engine. [`Engine::Auto`] tries io_uring by reading through a ring, and falls back to
    /// positioned reads, and on Windows a completion port; [`Driver::engine_note`] says why when it is neither.
    ///
    /// # Errors
    /// [`Error::Config`] for a depth that cannot be used, [`Error::Unsupported`] when [`Engine::Uring`] is asked for
    /// and does not work, [`Error::Io`] when a thread cannot be started.
    pub fn start(config: DriverConfig, threads: &dyn Threads) -> Result<Arc<Self>> {
        #[cfg(windows)]
        let probe = iocp::probe;
        #[cfg(not(windows))]
        let probe = probe_uring;
        Self::start_probed(config, threads, probe)
    }

    /// [`Driver::start`], with the answer of the probe as an argument.
    fn start_probed(
        config: DriverConfig,
        threads: &dyn Threads,
        probe: impl FnOnce() -> std::result::Result<(), String>,
    ) -> Result<Arc<Self>> {
        if !(1..=limits::READS_IN_FLIGHT_MAX).contains(&config.depth) {
            let why = format!("{} is not within 1 to {}", config.depth, limits::READS_IN_FLIGHT_MAX);
            return Err(Error::config("depth", why));
        }
        let (own, foreign, what) = if cfg!(windows) {
            (Engine::Iocp, Engine::Uring, "an I/O completion port")
        } else {
            (Engine::Uring, Engine::Iocp, "io_uring")
        };
        if config.engine == foreign {
            let (what, system) =
                if cfg!(windows) { ("io_uring", "Linux") } else { ("an I/O completion port", "Windows") };
            return Err(Error::Unsupported { what: what.to_owned(), why: format!("it is an interface of {system}") });
        }
        let unusable = |why| Error::Unsupported { what: what.to_owned(), why };
        #[cfg_attr(not(windows), allow(unused_mut))]
        let mut verdict = if config.engine == Engine::Positioned { Ok(()) } else { probe() };
        if config.engine == own
            && let Err(why) = &verdict
        {
            return Err(unusable(why.clone()));
        }
        let try_own = config.engine != Engine::Positioned && verdict.is_ok();
        let account = Arc::new(Account::new(config.depth));
        let positioned = {
            let wanted = if config.threads == 0 { POSITIONED_THREADS } else { config.threads };
            let count = if try_own { HELPER_THREADS } else { wanted };
            let cpus = if config.cpus.len() == 1 { CpuSet::any() } else { config.cpus.clone() };
            let pool = Pool::new(&format!("{}-read", config.name), count.min(config.depth), &cpus, threads)?;
            Arc::new(Positioned::new(pool, Arc::clone(&account)))
        };

        #[cfg_attr(not(windows), allow(unused_mut))]
        let mut portable = Arc::clone(&positioned) as Arc<dyn ReadEngine<T>>;
        #[cfg(windows)]
        if try_own {
            let (account, positioned) = (Arc::clone(&account), Arc::clone(&positioned));
            match iocp::Iocp::start(&config.name, &config.cpus, threads, account, positioned) {
                Ok(engine) => portable = Arc::new(engine),
                Err(error) => verdict = Err(error.to_string()),
            }
        }
        let (tell, told) = mpsc::sync_channel(1);
        let body = {
            let (account, config, portable) = (Arc::clone(&account), config.clone(), Arc::clone(&portable));
            Box::new(move || body(&config, try_own, account, positioned, portable, &tell))
        };
        let cannot = |error| Error::io("start the I/O thread", &config.name, error);
        let thread =
            threads.spawn(&config.name, &config.cpus, body).map_err(cannot).inspect_err(|_| portable.stop())?;
        let thread_id = thread.thread().id();
        let ended = |_| cannot(io::Error::other("it ended at once"));
        let mut started = match told.recv().map_err(ended).and_then(|started| started.map_err(cannot)) {
            Ok(started) => started,
            Err(error) => {
                join_from_outside(thread);
                return Err(error);
            }
        };
        if let Err(why) = verdict {
            started.note = Some(why);
        }
        let Started { handle, engine, note } = started;
        let running = Mutex::new(Some(thread));
        let driver = Arc::new(Self { account, engine, pool: config.pool, note, handle, thread_id, running });
        match &driver.note {
            // The probe read through a ring, but a ring of this depth was refused.
            Some(why) if config.engine == own => Err(unusable(why.clone())),
            _ => Ok(driver),
        }
    }

    /// The runtime on the driver's thread. What is spawned there is dropped when the driver has stopped.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Hands reads to the engine, on any thread, without waiting: as many as `depth - in_flight` allows, in order. The
    /// rest comes back; all of it once the driver is stopping.
    ///
    /// Reads submitted in one call, and in calls before the thread gets to them, are one system call.
    pub fn submit(&self, ops: Vec<ReadOp<T>>) -> Vec<ReadOp<T>> {
        let (admitted, rest) = self.account.admit(ops);
        self.start_all(admitted);
        rest
    }

    /// [`Driver::submit`] for writes and flushes; they share the depth and the sink with the reads.
    pub fn submit_writes(&self, ops: Vec<WriteOp<T>>) -> Vec<WriteOp<T>> {
        let (admitted, rest) = self.account.admit(ops);
        self.start_all(admitted);
        rest
    }

    fn start_all(&self, admitted: Vec<Op<T>>) {
        if !admitted.is_empty() {
            self.engine.start(admitted);
        }
    }

    /// Tries to end the operations whose token `which` means, on any thread, without waiting. They complete as ever,
    /// and their buffers come back only then: with an error that [`is_cancelled`] knows, or as if nothing had happened
    /// where it was too late. `which` must not use the driver.
    pub fn cancel(&self, which: impl Fn(&T) -> bool + Send + Sync + 'static) {
        self.engine.cancel(Arc::new(which));
    }

    /// The memory to read into that it was started with.
    pub fn pool(&self) -> Option<&Arc<BufferPool>> {
        self.pool.as_ref()
    }

    /// Gives completions to `sink` from now on, in place of the one before. Those that came while none was attached
    /// come first. The sink is called on the engine's threads (or, for what was waiting, on this one), one call at a
    /// time; it must not block. It may submit, attach and detach.
    pub fn attach(&self, sink: Box<dyn Fn(Vec<ReadDone<T>>) + Send + Sync>) {
        self.account.attach(sink);
    }

    /// Keeps completions until a sink is attached. A call of the old sink that has begun on another thread goes on.
    pub fn detach(&self) {
        self.account.detach();
    }

    /// Reads that are with the engine. Completions that no sink has taken yet are not among them.
    pub fn in_flight(&self) -> usize {
        self.account.in_flight()
    }

    /// The engine in use: `io_uring`, `iocp` or `positioned`.
    pub fn engine(&self) -> &'static str {
        self.engine.name()
    }

    /// Why it is not the system's own, io_uring or a completion port, where that was wanted.
    pub fn engine_note(&self) -> Option<String> {
        self.note.clone()
    }

    /// What it has done.
    pub fn stats(&self) -> DriverStats {
        self.account.stats()
    }

    /// Refuses new reads, waits until everything in flight has completed and was given to the sink, and joins the
    /// threads. Completions without a sink are kept for the next one. A second call does nothing.
    ///
    /// On the driver's own thread, or within its sink, waiting would never end: there it returns at once, and the
    /// threads end by themselves when their last read is done.
    pub fn stop(&self) {
        let own_thread = std::thread::current().id() == self.thread_id;
        let waits = self.account.close() && !own_thread;
        let running = self.running().take();
        if waits {
            self.account.wait_idle();
            if let Some(thread) = running {
                join_from_outside(thread);
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: Send + 'static> Drop for Driver<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<T: Send + 'static> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Driver");
        out.field("engine", &self.engine()).field("note", &self.note).field("in_flight", &self.in_flight());
        out.finish_non_exhaustive()
    }
}

/// The driver's thread, from start to end.
fn body<T: Send + 'static>(
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))] config: &DriverConfig,
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))] try_uring: bool,
    account: Arc<Account<T>>,
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))] positioned: Arc<Positioned<T>>,
    portable: Arc<dyn ReadEngine<T>>,
    tell: &mpsc::SyncSender<io::Result<Started<T>>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error))),
    };
    // However this thread ends, nobody waits for it in vain.
    let _leave = account::Leave(&account);
    let handle = runtime.handle().clone();
    let mut note = None;
    #[cfg(target_os = "linux")]
    if try_uring {
        let entered = runtime.enter();
        match uring::Ring::new(config) {
            Ok(ring) => {
                drop(entered);
                let engine = Arc::new(uring::Uring::new(Arc::clone(&account), Arc::clone(&positioned)));
                let depth = depth::Depth::new(config.depth, config.adaptive_depth);
                if tell.send(Ok(Started { handle, engine: Arc::clone(&engine) as _, note })).is_ok() {
                    runtime.block_on(uring::run(ring, depth, &engine));
                }
                engine.stop();
                return runtime.shutdown_background();
            }
            Err(error) => note = Some(format!("a ring of depth {} was refused: {error}", config.depth)),
        }
    }
    if tell.send(Ok(Started { handle, engine: Arc::clone(&portable), note: note.take() })).is_ok() {
        runtime.block_on(async {
            while !account.is_finished() {
                account.woken().await;
            }
        });
    }
    portable.stop();
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::threads::OsThreads;

    fn config(engine: Engine) -> DriverConfig {
        DriverConfig { name: "io-test".into(), depth: 4, engine, ..DriverConfig::default() }
    }

    #[test]
    #[cfg(not(windows))]
    fn without_io_uring_auto_falls_back_and_says_why() {
        let missing = || Err("not permitted (EPERM)".to_owned());
        let driver = Driver::<()>::start_probed(config(Engine::Auto), &OsThreads, missing).unwrap();
        assert_eq!((driver.engine(), driver.engine_note().as_deref()), ("positioned", Some("not permitted (EPERM)")));
        let error = Driver::<()>::start_probed(config(Engine::Uring), &OsThreads, missing).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { why, .. } if why == "not permitted (EPERM)"), "{error}");
        let error = Driver::<()>::start_probed(config(Engine::Iocp), &OsThreads, || unreachable!()).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { why, .. } if why.contains("Windows")), "{error}");
        let forced = Driver::<()>::start_probed(config(Engine::Positioned), &OsThreads, || unreachable!()).unwrap();
        assert_eq!((forced.engine(), forced.engine_note()), ("positioned", None));
    }

    #[test]
    fn a_depth_that_cannot_be_used_is_refused() {
        for depth in [0, limits::READS_IN_FLIGHT_MAX + 1] {
            let error = Driver::<()>::start(DriverConfig { depth, ..config(Engine::Auto) }, &OsThreads).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{error}");
        }
    }
}
