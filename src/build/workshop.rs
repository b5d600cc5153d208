//! The builder of one tree, where it outlives the actor that drives it: a rebuilder that dies does not lose the
//! bundle's lock, nor what the builder knows of the tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Built, CompactReport, Keeper, NoProgress, Progress, TreeBuilder};
use crate::bundle::{Bundle, Committer};
use crate::error::Result;
use crate::limits;
use crate::platform::threads::Pool;

type Open = Box<dyn Fn() -> Result<TreeBuilder> + Send + Sync>;
type Compact = Box<dyn Fn() -> Result<CompactReport> + Send + Sync>;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Look at the whole tree rather than at `paths`.
    pub everything: bool,
    /// Absolute paths that changed.
    pub paths: BTreeSet<PathBuf>,
}

/// The builder of one tree and the threads it works on.
pub struct Workshop {
    root: PathBuf,
    store: PathBuf,
    open: Open,
    /// Makes the bundle's file as a fresh pack would, while no builder holds it.
    compact: Compact,
    /// `None` when a panic or a failed write left it in doubt: it is opened again from what is on disk.
    builder: Mutex<Option<TreeBuilder>>,
    pool: Arc<Pool>,
}

impl Workshop {
    /// Opens the builder with `open`, which is called again when a panic left it in doubt.
    ///
    /// # Errors
    /// Whatever `open` returns.
    pub fn new(root: &Path, store: &Path, pool: Arc<Pool>, open: Open, compact: Compact) -> Result<Self> {
        let builder = Mutex::new(Some(open()?));
        Ok(Self { root: root.to_owned(), store: store.to_owned(), open, compact, builder, pool })
    }

    /// The tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The store's folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The threads that [`Workshop::build`] and commits are to be called on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Builds and stages what `task` names. Blocks: for the build's threads only.
    ///
    /// # Errors
    /// What the builder returns. The next task should then look at everything.
    pub fn build(&self, task: &Task, progress: &dyn Progress) -> Result<Built> {
        self.build_shown(task, progress, None)
    }

    /// As [`Workshop::build`], and shows what is new to `keeper`.
    ///
    /// # Errors
    /// As [`Workshop::build`].
    pub fn build_shown(&self, task: &Task, progress: &dyn Progress, keeper: Option<Arc<dyn Keeper>>) -> Result<Built> {
        let mut slot = self.builder.lock();
        // Taken out while it works: should it panic, the slot stays empty.
        let mut builder = match slot.take() {
            Some(builder) => builder,
            None => (self.open)()?,
        };
        builder.show_to(keeper);
        let built = if task.everything { builder.scan(progress) } else { builder.update(&task.paths) };
        builder.show_to(None);
        *slot = builder.is_sound().then_some(builder);
        built
    }

    /// Builds quietly.
    ///
    /// # Errors
    /// As [`Workshop::build`].
    pub fn build_quietly(&self, task: &Task) -> Result<Built> {
        self.build(task, &NoProgress)
    }

    /// The newest staged generation, and what makes it durable.
    pub fn newest(&self) -> Option<(Bundle, Committer)> {
        let slot = self.builder.lock();
        let builder = slot.as_ref()?;
        Some((builder.bundle()?.clone(), builder.committer()))
    }

    /// Makes `bundle`, and everything staged before it, durable. Blocks.
    ///
    /// # Errors
    /// What the storage says. Readers keep what they see; the next commit tries again.
    pub fn commit(&self, bundle: &Bundle) -> Result<()> {
        let committer = self.builder.lock().as_ref().map(TreeBuilder::committer);
        // The numbers that the next edits will have are reserved by the way.
        committer.map_or(Ok(()), |committer| committer.commit_reserving(bundle, limits::GENERATIONS_RESERVED))
    }

    /// Remembers what the source files looked like, for a quick next start. Blocks.
    ///
    /// # Errors
    /// What the file system says. Nothing is lost: the next start reads more files.
    pub fn save_stats(&self) -> Result<()> {
        self.builder.lock().as_mut().map_or(Ok(()), TreeBuilder::save_stats)
    }

    /// Whether the bundle holds more dead bytes than live ones.
    pub fn wants_compaction(&self) -> bool {
        self.builder.lock().as_ref().is_some_and(TreeBuilder::wants_compaction)
    }

    /// Compacts the bundle and looks at the whole tree again; what comes of it is a generation of the new file, which
    /// differs from the one before only where the tree does. Readers keep the file they have open. Blocks.
    ///
    /// # Errors
    /// Those of committing, compacting and building. The bundle is as it was when compacting failed.
    pub fn compact(&self) -> Result<Built> {
        let mut slot = self.builder.lock();
        let newest = slot.as_ref().and_then(|builder| builder.bundle().cloned());
        if let Some(builder) = slot.take() {
            newest.as_ref().map_or(Ok(()), |newest| builder.committer().commit(newest))?;
        }
        let compacted = (self.compact)();
        let mut builder = (self.open)()?;
        let report = compacted?;
        tracing::info!(before = report.before_bytes, after = report.after_bytes, "compacted");
        let mut built = builder.scan(&NoProgress)?;
        // The file is another, so that there is a generation to publish also when no asset differs.
        built.bundle = builder.bundle().cloned();
        // Compacting changed no asset.
        built.base = newest.as_ref().map(Bundle::generation).or(built.base);
        *slot = Some(builder);
        Ok(built)
    }

    /// Lets go of the builder, and with it of the bundle's lock.
    pub fn close(&self) {
        *self.builder.lock() = None;
    }
}
