//! A program's own code, run at each reload, on a thread of its own.

use std::sync::Arc;

use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::event::Published;
use crate::messages::work::caught;
use crate::platform::affinity::CpuSet;
use crate::telemetry::ReloadQueue;

/// A callback of [`crate::Runtime::on_reload`], for as long as it is held. When it is dropped no further call begins; one
/// that runs goes on to its end.
#[must_use = "dropping it removes the callback"]
pub struct ReloadCallback(Arc<ReloadQueue>);

impl Drop for ReloadCallback {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(super) fn start(shared: &Shared, call: Box<dyn Fn(&Published) + Send + Sync>) -> Result<ReloadCallback> {
    let queue = shared.reloads.queue();
    let waiting = Arc::clone(&queue);
    let run = move || {
        while let Some(published) = waiting.next() {
            if let Err(cause) = caught(|| call(&published)) {
                tracing::error!(generation = %published.generation, cause, "a reload's callback panicked");
            }
        }
    };
    // It ends when the queue is closed: by this guard, or with the runtime.
    let name = "flyloft-reload";
    let thread = shared.threads.spawn(name, &CpuSet::any(), Box::new(run));
    thread.map_err(|error| Error::io("start the thread", name, error))?;
    if shared.is_stopping() {
        queue.close();
    }
    Ok(ReloadCallback(queue))
}
