//! Threads as an argument: who starts one names it and says where it may run.
//!
//! [`Pool`] runs jobs that block or compute, in four lanes; [`Core`] is one thread with a runtime for actors that must
//! stay on it.

mod core;
mod pool;

use std::io;
use std::thread::JoinHandle;

pub use self::core::Core;
pub use self::pool::{Job, LANES, Pool, PoolStats};
use super::affinity::{self, CpuSet};

/// Starts threads.
pub trait Threads: Send + Sync {
    /// Starts a thread named `name` that may run on `pin` alone and runs `body` once.
    ///
    /// A set that this process may not use at all is refused. When the operating system refuses to pin for another
    /// reason the thread runs where it is put, and a warning is logged: pinning is speed, not meaning.
    ///
    /// # Errors
    /// `InvalidInput` when no processor of `pin` may be used; otherwise what the operating system says.
    fn spawn(&self, name: &str, pin: &CpuSet, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;
}

/// The operating system's threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsThreads;

impl Threads for OsThreads {
    fn spawn(&self, name: &str, pin: &CpuSet, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        let allowed = affinity::allowed();
        if !pin.is_any() && !allowed.is_any() && !pin.cpus().any(|cpu| allowed.contains(cpu)) {
            let why = format!("thread '{name}': processors {pin} are offline or not allowed here; allowed: {allowed}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let pin = pin.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = affinity::pin_current(&pin) {
                tracing::warn!(cpus = %pin, %error, "thread not pinned");
            }
            body();
        })
    }
}

/// Runs `body` on a thread of its own whose stack has room for `stack_bytes`, and waits for it: for what goes deep by
/// itself, such as a parser that is not ours. A panic goes on in the caller.
///
/// # Errors
/// What the operating system says when it starts no such thread.
pub fn with_stack<R: Send>(stack_bytes: usize, body: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("fly-deep".to_owned()).stack_size(stack_bytes);
        match builder.spawn_scoped(scope, body)?.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Joins `thread` unless it is the calling thread, which would wait for itself for ever.
pub(super) fn join_from_outside(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // A thread that panicked has said so already; there is nothing left to do for it.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_has_its_name_and_its_processors() {
        let (tell, told) = mpsc::channel();
        let pin: CpuSet = affinity::allowed().cpus().take(1).collect();
        let body = Box::new(move || {
            let name = std::thread::current().name().map(str::to_owned);
            tell.send((name, affinity::allowed())).unwrap();
        });
        OsThreads.spawn("fly-test", &pin, body).unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap(), (Some("fly-test".to_owned()), pin));
    }

    #[test]
    fn what_goes_deep_has_the_stack_that_it_asks_for() {
        fn deep(depth: u32) -> u32 {
            let room = std::hint::black_box([depth; 256]);
            if depth == 0 { 0 } else { deep(depth - 1) + room[1] / depth }
        }
        assert_eq!(with_stack(64 << 20, || deep(8000)).unwrap(), 8000);
        let panic = std::panic::catch_unwind(|| with_stack(1 << 20, || assert!(deep(1) == 0, "told"))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"told"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_processor_that_may_not_be_used_is_refused_by_name() {
        let error = OsThreads.spawn("io-0", &CpuSet::one(8000), Box::new(|| ())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("io-0") && error.to_string().contains("8000"), "{error}");
    }
}
