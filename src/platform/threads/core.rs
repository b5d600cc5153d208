//! One thread with a runtime of its own, for what must stay on one thread.

use std::fmt;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::{CpuSet, Threads, join_from_outside};
use crate::error::{Error, Result};

/// A thread that runs a single-threaded tokio runtime until it is stopped.
///
/// Tasks are spawned onto it through [`Core::handle`]; a task that panics ends alone. Stopping drops every task at the
/// await it stands at.
pub struct Core {
    handle: Handle,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Core {
    /// Starts the thread `name`, which may run on `pin` alone.
    ///
    /// # Errors
    /// [`Error::Io`] when the thread or its runtime cannot be started.
    pub fn start(name: &str, pin: &CpuSet, threads: &dyn Threads) -> Result<Self> {
        let (tell_handle, handle) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let body = Box::new(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell_handle.send(Err(error))),
            };
            if tell_handle.send(Ok(runtime.handle().clone())).is_ok() {
                // Ends when told, or when the handle is gone without a word.
                let _ = runtime.block_on(stopped);
            }
            runtime.shutdown_background();
        });
        let cannot = |error| Error::io("start the thread", name, error);
        let thread = threads.spawn(name, pin, body).map_err(cannot)?;
        let handle = handle.recv().map_err(|_| cannot(std::io::Error::other("it ended at once")))?.map_err(cannot)?;
        Ok(Self { handle, running: Mutex::new(Some((stop, thread))) })
    }

    /// The runtime's handle; spawning onto it after [`Core::stop`] does nothing.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Drops every task and joins the thread. Called on that very thread it returns at once, and the thread ends by
    /// itself. A second call does nothing.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some((stop, thread)) = running {
            let _ = stop.send(());
            join_from_outside(thread);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("handle", &self.handle).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::threads::OsThreads;
    use std::sync::Arc;

    #[test]
    fn tasks_run_on_the_named_thread_and_stop_drops_them() {
        let core = Core::start("core-test", &CpuSet::any(), &OsThreads).unwrap();
        let (tell, told) = mpsc::channel();
        let lease = Arc::new(());
        let held = Arc::clone(&lease);
        core.handle().spawn(async move {
            tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
            std::future::pending::<()>().await;
            drop(held);
        });
        assert_eq!(told.recv().unwrap().as_deref(), Some("core-test"));
        core.stop();
        assert_eq!(Arc::strong_count(&lease), 1, "the task was dropped before stop returned");
        core.stop();
    }

    #[test]
    fn a_core_stopped_by_its_own_task_ends() {
        let core = Arc::new(Core::start("core-test", &CpuSet::any(), &OsThreads).unwrap());
        let (tell, told) = mpsc::channel();
        let own = Arc::clone(&core);
        core.handle().spawn(async move {
            own.stop();
            tell.send(()).unwrap();
        });
        told.recv().unwrap();
    }
}
