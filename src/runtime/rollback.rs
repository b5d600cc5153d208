//! Earlier generations: which are kept, reading one, and going back to one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Health, Inner, Runtime, Snapshot};
use crate::error::{Error, Result};
use crate::ids::Generation;
use crate::messages::{RebuilderMessage, Rollback};

/// How often a rollback that is not answered looks whether somebody is there to do it.
const LOOK: Duration = Duration::from_millis(100);
/// How long a rollback may take.
const ROLLBACK_MAX: Duration = Duration::from_secs(60);
/// The part that does it, and the part that this is of.
const PARTS: [&str; 2] = ["rebuilder", "reload"];

impl Runtime {
    /// The generations that can be read: those that are kept, and the one that readers see, which is the last.
    pub fn generations(&self) -> Vec<Generation> {
        self.shared().generations.kept()
    }

    /// Holds an earlier generation that is kept: see [`crate::RuntimeBuilder::retain_generations`]. It is read as the
    /// current one is; what is not resident of it is loaded.
    ///
    /// # Errors
    /// [`Error::NotRetained`] when it is not kept, or is still to come.
    pub fn snapshot_of(&self, generation: Generation) -> Result<Snapshot> {
        match self.shared().generations.at(generation) {
            Some(live) => Ok(Snapshot::new(Arc::clone(self.shared()), live)),
            None => {
                let kept: Vec<String> = self.generations().iter().map(Generation::to_string).collect();
                Err(Error::NotRetained { generation, why: format!("kept are {}", kept.join(", ")) })
            }
        }
    }

    /// Publishes a new generation with the tree of an earlier one that is kept, and gives its number: all of it in one
    /// step, as any reload, with what was resident resident. Going back to the current generation changes nothing.
    ///
    /// The source tree stays as it is, so that it is no longer what is served. A file that was gone back from counts again
    /// when it changes, however often the tree is looked at until then. After a restart the tree is served as it
    /// is. Dropping the future does not stop it.
    ///
    /// A store that was compacted since has nothing to go back to: it is not, while generations are kept, before its dead
    /// bytes exceed the live ones [`crate::limits::COMPACT_RETAINED_TIMES`] times.
    ///
    /// ```
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// if let [.., before, _current] = runtime.generations()[..] {
    ///     let generation = runtime.rollback(before).await?;
    ///     println!("generation {generation} is what {before} was");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotRetained`] when it is not kept, or the store was compacted since; [`Error::Unsupported`] when a bundle
    /// file is served; those of writing; [`Error::Failed`], [`Error::Deadline`] or [`Error::ShutDown`] when nobody can do it.
    pub async fn rollback(&self, generation: Generation) -> Result<Generation> {
        let to = Arc::clone(&self.snapshot_of(generation)?.live);
        if self.shared().workshop.is_none() {
            let why = "a bundle file is served as it is; go back in the directory that it was packed from";
            return Err(Error::Unsupported { what: "a rollback".into(), why: why.into() });
        }
        let (reply, told) = oneshot::channel();
        self.shared().rollbacks.lock().push_back(Rollback { to, reply });
        self.shared().addresses.rebuilder.hint(RebuilderMessage::Rollback);
        let waiting = self.inner.shared.handle.spawn(answer(Arc::clone(&self.inner), generation, told));
        // It ends early only with the thread that it waits on.
        waiting.await.unwrap_or(Err(Error::ShutDown))
    }
}

/// Waits for the answer, as long as there is somebody to give it.
async fn answer(
    inner: Arc<Inner>,
    generation: Generation,
    mut told: oneshot::Receiver<Result<Generation>>,
) -> Result<Generation> {
    let clock = Arc::clone(&inner.shared.clock);
    let began = clock.now();
    loop {
        match timeout(LOOK, &mut told).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) if inner.shared.is_stopping() => return Err(Error::ShutDown),
            Ok(Err(_)) => return Err(Error::Failed { cause: "the rollback was given up".into() }),
            Err(_) => {}
        }
        let shared = &inner.shared;
        let parked = PARTS.iter().find(|part| shared.roster.is_parked(part));
        let in_time = clock.now().saturating_duration_since(began) < ROLLBACK_MAX;
        let refusal = match (inner.health(), parked) {
            (Health::Running, None) if in_time => None,
            (Health::Running, None) => {
                Some(Error::Deadline { what: format!("generation {generation}"), after: ROLLBACK_MAX })
            }
            (Health::Running, Some(part)) => {
                Some(Error::Failed { cause: format!("{part} is parked; Runtime::revive brings it back") })
            }
            (Health::Failed, _) => Some(Error::Failed { cause: inner.cause.lock().clone().unwrap_or_default() }),
            (Health::Stopping | Health::Stopped, _) => Some(Error::ShutDown),
        };
        if let Some(refusal) = refusal {
            told.close();
            // Answered in the last moment, or not at all: nobody takes up a wish that nobody waits for.
            shared.rollbacks.lock().retain(|wish| !wish.reply.is_closed());
            return told.try_recv().unwrap_or(Err(refusal));
        }
        // The rebuilder may have been killed with the hint.
        shared.addresses.rebuilder.hint(RebuilderMessage::Rollback);
    }
}
