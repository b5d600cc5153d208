//! The builder of one tree, where it outlives the actor that drives it: a rebuilder that dies does not lose the
//! bundle's lock, nor what the builder knows of the tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::builder::Held;
use super::config::Ignoring;
use super::why::{Why, Whys};
use super::{Built, CompactReport, Keeper, NoProgress, Progress, TreeBuilder};
use crate::bundle::{Bundle, Committer};
use crate::error::Result;
use crate::ids::AssetPath;
use crate::limits;
use crate::platform::threads::Pool;

type Open = Box<dyn Fn() -> Result<TreeBuilder> + Send + Sync>;
type Changed = Box<dyn Fn() + Send + Sync>;
type Compact = Box<dyn Fn() -> Result<CompactReport> + Send + Sync>;

/// In a store: where a program that serves it leaves its address.
pub const ADDRESS_FILE: &str = "serving.json";

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
    /// What was gone back from, for the builder that is opened next.
    held: Mutex<Held>,
    /// Of the builder that was opened last.
    whys: Mutex<Arc<Whys>>,
    pool: Arc<Pool>,
    /// What of the tree is ignored, as the last build found it.
    ignoring: ArcSwap<Ignoring>,
    /// Who is told when that changes.
    ignoring_changed: Mutex<Option<Changed>>,
}

impl Workshop {
    /// Opens the builder with `open`, which is called again when a panic left it in doubt.
    ///
    /// # Errors
    /// Whatever `open` returns.
    pub fn new(root: &Path, store: &Path, pool: Arc<Pool>, open: Open, compact: Compact) -> Result<Self> {
        let builder = open()?;
        let ignoring = ArcSwap::new(Arc::clone(builder.ignoring()));
        let whys = Mutex::new(builder.whys());
        Ok(Self {
            root: root.to_owned(),
            store: store.to_owned(),
            open,
            compact,
            builder: Mutex::new(Some(builder)),
            held: Mutex::default(),
            whys,
            pool,
            ignoring,
            ignoring_changed: Mutex::new(None),
        })
    }

    fn opened(&self) -> Result<TreeBuilder> {
        let mut builder = (self.open)()?;
        builder.hold(self.held.lock().clone());
        *self.whys.lock() = builder.whys();
        Ok(builder)
    }

    /// Why the asset was built the last time in this run, as far as it is remembered. Never waits for a build.
    pub fn why(&self, path: &AssetPath) -> Option<Why> {
        let whys = Arc::clone(&self.whys.lock());
        whys.get(path)
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
        self.work(|builder| {
            builder.show_to(keeper);
            let built = if task.everything { builder.scan(progress) } else { builder.update(&task.paths) };
            builder.show_to(None);
            built
        })
    }

    /// Stages a generation with the tree of `to`, an earlier one of this bundle; readers see `published`. Files of the
    /// tree count again when they change. Blocks.
    ///
    /// # Errors
    /// [`crate::Error::NotRetained`] when the bundle was compacted since; those of writing.
    pub fn rollback(&self, published: &Bundle, to: &Bundle) -> Result<Built> {
        self.work(|builder| builder.rollback(published, to))
    }

    fn work(&self, work: impl FnOnce(&mut TreeBuilder) -> Result<Built>) -> Result<Built> {
        let mut slot = self.builder.lock();
        // Taken out while it works: should it panic, the slot stays empty.
        let mut builder = match slot.take() {
            Some(builder) => builder,
            None => self.opened()?,
        };
        let built = work(&mut builder);
        self.held.lock().clone_from(builder.held());
        self.ignores(&builder);
        *slot = builder.is_sound().then_some(builder);
        built
    }

    fn ignores(&self, builder: &TreeBuilder) {
        if **self.ignoring.load() != **builder.ignoring() {
            self.ignoring.store(Arc::clone(builder.ignoring()));
            if let Some(changed) = &*self.ignoring_changed.lock() {
                changed();
            }
        }
    }

    /// What of the tree is ignored, as the last build found it.
    pub fn ignoring(&self) -> Arc<Ignoring> {
        self.ignoring.load_full()
    }

    /// Whether this is our own or a version control's, or is ignored: `inside` is relative to the tree.
    pub fn is_of_no_interest(&self, inside: &Path, is_folder: bool) -> bool {
        self.ignoring.load().is_of_no_interest(inside, is_folder)
    }

    /// Who is told from now on when something else is ignored than before. Called from the build's threads, while the
    /// builder is locked: it must not build.
    pub fn on_ignoring(&self, changed: impl Fn() + Send + Sync + 'static) {
        *self.ignoring_changed.lock() = Some(Box::new(changed));
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

    /// Whether the bundle holds more dead bytes than live ones; so many times more, while some of them are of
    /// generations that are `retained` and cannot be gone back to when it is compacted.
    pub fn wants_compaction(&self, retained: bool) -> bool {
        let times = if retained { limits::COMPACT_RETAINED_TIMES } else { 1 };
        self.builder.lock().as_ref().is_some_and(|builder| builder.wants_compaction(times))
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
        let mut builder = self.opened()?;
        let report = compacted?;
        tracing::info!(before = report.before_bytes, after = report.after_bytes, "compacted");
        let mut built = builder.scan(&NoProgress)?;
        // The file is another, so that there is a generation to publish also when no asset differs.
        built.bundle = builder.bundle().cloned();
        // Compacting changed no asset.
        built.base = newest.as_ref().map(Bundle::generation).or(built.base);
        self.held.lock().clone_from(builder.held());
        self.ignores(&builder);
        *slot = Some(builder);
        Ok(built)
    }

    /// Lets go of the builder, and with it of the bundle's lock.
    pub fn close(&self) {
        *self.builder.lock() = None;
    }
}
