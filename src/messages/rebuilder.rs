//! What the rebuilder is told.
//!
//! Senders: the file watcher (`Changed`, `Rescan`), its own offloaded jobs (`Built`, `Committed`), the runtime (`Rollback`). A lost change set is found again by the rescan that every start makes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::build::Built;
use crate::bundle::Bundle;
use crate::error::Result;
use crate::ids::{AssetId, Generation};
use crate::residency::{Asset, Live};

/// To the rebuilder.
pub enum RebuilderMessage {
    /// A settled change set.
    Changed(ChangeSet),
    /// Look at the whole tree: events were lost, or the watcher has just started.
    Rescan {
        /// Why; `None` for the look that follows every start of the watcher.
        why: Option<String>,
    },
    /// A build job has ended; what came of it is in [`Staged`].
    Built,
    /// Look again at files that somebody was writing.
    LookAgain,
    /// A generation is to be gone back to; which is in [`Rollback`].
    Rollback,
    /// It has been quiet for a while: compact the store, if nothing was published since.
    Idle {
        /// How many generations had been published.
        published: u64,
    },
    /// A generation is durable, or why not.
    Committed {
        /// Which.
        generation: Generation,
        /// How long it took, in microseconds.
        commit_us: u64,
        /// Whether it is.
        result: Result<()>,
    },
}

/// Files that changed together.
#[derive(Debug)]
pub struct ChangeSet {
    /// Absolute paths of files and folders.
    pub paths: BTreeSet<PathBuf>,
    /// When the first event came.
    pub first: Instant,
    /// When the set was settled.
    pub settled: Instant,
}

/// A generation to publish.
pub struct Publication {
    /// The bundle that holds it.
    pub bundle: Bundle,
    /// Every asset that differs, with its new version where it is to be resident at once.
    pub changes: Vec<(AssetId, Option<Asset>)>,
    /// When readers first saw it, and what they saw before.
    pub shown: OnceLock<(Instant, Generation)>,
}

/// A wish to go back to an earlier generation, kept outside the rebuilder until a build takes it.
pub struct Rollback {
    /// That generation.
    pub to: Arc<Live>,
    /// Who is answered, with the new generation, once readers see it.
    pub reply: oneshot::Sender<Result<Generation>>,
}

/// What a build job led to, kept outside the rebuilder until it is published.
pub struct Staged {
    /// What was built, or why not.
    pub built: Result<Built>,
    /// What is to be published, if anything differs.
    pub publication: Option<Arc<Publication>>,
    /// When its steps ended.
    pub times: StagedTimes,
    /// Why the whole tree was looked at, if events were lost.
    pub rescanned: Option<String>,
    /// Who is answered, if it is a rollback.
    pub reply: Option<oneshot::Sender<Result<Generation>>>,
    /// The span of this reload.
    pub span: tracing::Span,
}

/// When the steps of a reload ended.
#[derive(Clone, Copy, Debug)]
pub struct StagedTimes {
    /// When the first event of the change set came.
    pub first: Instant,
    /// When the set was settled.
    pub settled: Instant,
    /// When its build began.
    pub began: Instant,
    /// When it was staged.
    pub staged: Instant,
    /// When what was resident had its new versions.
    pub resident: Instant,
}
