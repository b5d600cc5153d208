//! The one engine that turns a tree into generations: for packing, and for serving a directory while it changes.

mod apply;
mod delta;
mod make;
mod rollback;
mod stage;
mod tree;

pub(super) use self::tree::names_hash;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::rollback::Held;
use self::tree::Tree;
use super::actions::{ActionCache, ActionCacheOptions};
use super::arena::{ArenaStats, Arenas};
use super::config::Ignoring;
use super::contents::ContentReader;
use super::frames::{Dictionaries, Encoders};
use super::scan::Exclude;
use super::transform::TransformRegistry;
use super::why::{Why, Whys};
use super::workshop::ADDRESS_FILE;
use super::{parallel, stats};
use crate::bundle::{Bundle, BundleWriter, Committer, Params, is_abandoned};
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::event::{BuildFailure, ChangedAsset, ReloadTimings};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};
use crate::platform::clock::Clock;
use crate::platform::fs::{FileSystem, WriterLock, is_locked};
use crate::storage::WriteAt;

/// How to build.
#[derive(Clone)]
pub struct BuildOptions {
    /// The layout of a bundle that is made anew. Default [`Layout::Access`].
    pub layout: Layout,
    /// Threads that read, transform and encode; 0 for one per core. Default 0. The result does not depend on it.
    pub threads: usize,
    /// `false`, the default: a file that does not build refuses the whole build, and nothing is written. `true`: it
    /// keeps its last good version, the failure is reported, and it is tried again when it changes.
    pub tolerant: bool,
    /// The transforms that `flyloft.toml` may name. Default the built-in ones.
    pub registry: Arc<TransformRegistry>,
    /// Bytes of source files kept in memory between reading and encoding; others are read twice. Default 64 MiB: a
    /// second read from the page cache costs less than memory that was not used before.
    pub cache_bytes: u64,
    /// Bytes of what transforms made that are kept in memory until they are written; beyond, they wait in a file beside the
    /// bundle. Default 256 MiB. Together with `cache_bytes`, 256 MiB of large sources and what each thread is at, this is
    /// what a build holds in memory of a tree, whatever its size.
    pub outputs_bytes: u64,
    /// The places of assets that are to lie together, the first at the front: [`super::AccessOrder::places`]. Others
    /// follow in the order of their dependencies. Only for what is laid out anew. Default none.
    pub order: Option<Arc<HashMap<AssetId, u32>>>,
    /// Where what transforms made is kept by what they made it from, so that going back to an earlier state of the tree,
    /// or another tree, need not make it again. Default none.
    pub actions: Option<ActionCacheOptions>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            layout: Layout::default(),
            threads: 0,
            tolerant: false,
            registry: Arc::new(TransformRegistry::with_builtins()),
            cache_bytes: 64 << 20,
            outputs_bytes: 256 << 20,
            order: None,
            actions: None,
        }
    }
}

impl BuildOptions {
    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => parallel::cores(),
            threads => threads.min(parallel::THREADS_MAX),
        }
    }
}

/// Is told how far long work is. Called from the thread that does it, often: it must be cheap.
pub trait Progress: Sync {
    /// `done` of `total` bytes or files; `what` is a verb: "read", "pack", "check".
    fn step(&self, done: u64, total: u64, what: &str);
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&self, _done: u64, _total: u64, _what: &str) {}
}

/// The outcome of a scan or an update.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The staged generation, readable but not durable; `None` when nothing differs.
    pub bundle: Option<Bundle>,
    /// The generation that it was built upon, and that `changed` differs from; `None` when there was none.
    pub base: Option<Generation>,
    /// Assets whose content or execute bit differs, in path order.
    pub changed: Vec<ChangedAsset>,
    /// Everything that does not build now, in path order, not only what failed this time.
    pub failures: Vec<BuildFailure>,
    /// Files that somebody was writing: their last good versions stay until they are looked at again.
    pub unfinished: BTreeSet<PathBuf>,
    /// What failed before and builds again.
    pub healed: Vec<AssetPath>,
    /// Dependencies on nothing, links that are not followed: of the files that were read this time. What a scan finds
    /// again is told once.
    pub warnings: Vec<String>,
    /// Bytes of what transforms made that had to wait in a file.
    pub spilled_bytes: u64,
    /// What arenas held while it was built.
    pub arenas: ArenaStats,
    /// Where the time went: the steps that are the builder's.
    pub timings: ReloadTimings,
}

/// Is shown new contents while their bytes are in memory, so that they need not be read and decoded again.
pub trait Keeper: Send + Sync {
    /// `changed` is what differs from the generation before; `bytes` gives the new content of one of them, where it is
    /// in memory. Called once in a build that changes something; what is kept is for nobody to see before the
    /// generation is.
    fn keep<'b>(&self, changed: &[ChangedAsset], bytes: &dyn Fn(&ContentHash) -> Option<&'b [u8]>);
}

/// Builds generations of one tree into one bundle. Owns the bundle's writer and the lock that makes it the only one.
///
/// [`TreeBuilder::scan`] brings the bundle up to the whole tree; after it [`TreeBuilder::update`] does the same for
/// paths that changed, at a cost that does not depend on the size of the tree. Both only stage; the caller commits.
pub struct TreeBuilder {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    root: PathBuf,
    real_root: PathBuf,
    stats_path: Option<PathBuf>,
    spill_path: PathBuf,
    options: BuildOptions,
    threads: usize,
    exclude: Exclude,
    /// What of the tree is ignored, by the last scan of all of it.
    ignoring: Arc<Ignoring>,
    writer: BundleWriter,
    /// For the next build; while one runs it has them.
    arenas: Arenas,
    encoders: Encoders,
    dictionaries: Dictionaries,
    /// Reads back what small updates wrote.
    checker: Option<ContentReader>,
    tree: Tree,
    /// Who is shown the new contents of the next build.
    keeper: Option<Arc<dyn Keeper>>,
    whys: Arc<Whys>,
    actions: Option<ActionCache>,
    /// What was written did not read back: the staged generation must not be built upon.
    broken: Option<Error>,
    /// Held for as long as the writer lives; declared after it, so that it goes after it.
    _lock: WriterLock,
}

impl TreeBuilder {
    /// Opens or creates the bundle for the tree at `root`, as its only writer. `stats` is the file that remembers
    /// what source files looked like; without one every file is read at the first scan.
    ///
    /// # Errors
    /// [`Error::Io`] when the tree's folder or the bundle cannot be opened, [`Error::Locked`] when another writer has
    /// it, [`Error::Config`] when a strict build asks for another layout than the bundle has, and those of
    /// [`Bundle::open`].
    pub fn open(
        fs: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        root: &Path,
        bundle: &Path,
        stats: Option<&Path>,
        options: BuildOptions,
    ) -> Result<Self> {
        Self::open_beside(fs, clock, root, bundle, stats, None, options)
    }

    /// Like [`TreeBuilder::open`]; `beside` is a file that is not packed either.
    pub(super) fn open_beside(
        fs: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        root: &Path,
        bundle: &Path,
        stats: Option<&Path>,
        beside: Option<&Path>,
        options: BuildOptions,
    ) -> Result<Self> {
        let real_root = fs.canonicalize(root).map_err(|error| Error::io("open the folder", root, error))?;
        fs.read_dir(root).map_err(|error| Error::io("list", root, error))?;
        let (mut storage, mut lock) = open_writer(&*fs, bundle, true)?;
        let abandoned = || is_abandoned(&*storage).map_err(|error| Error::io("look at", bundle, error));
        if options.tolerant && abandoned()? {
            // A crash before the first superblock was complete.
            fs.remove_file(bundle).map_err(|error| Error::io("remove", bundle, error))?;
            drop((storage, lock));
            (storage, lock) = open_writer(&*fs, bundle, true)?;
        }
        let writer = open_bundle(storage, options.layout)?;
        if writer.layout() != options.layout && !options.tolerant {
            let has = writer.layout().name();
            let why = format!("{} has the layout {has}; ask for {has}, or pack into a new file", bundle.display());
            return Err(Error::config("layout", why));
        }
        let address = stats.map(|stats| stats.with_file_name(ADDRESS_FILE));
        let kept = options.actions.as_ref().map(|actions| &*actions.folder);
        let own = [Some(bundle), stats, beside, address.as_deref(), kept];
        let exclude = Exclude::new(&*fs, &real_root, own.into_iter().flatten());
        let actions = options.actions.as_ref();
        let actions = actions.map(|actions| ActionCache::new(Arc::clone(&fs), Arc::clone(&clock), actions));
        let mut tree = Tree::default();
        if let Some(stats) = stats
            && let Ok(bytes) = fs.read(stats)
        {
            tree.remembered = stats::from_bytes(&bytes).into_iter().collect();
        }
        // Somebody waits for what a tree that is served becomes.
        let (threads, ahead) = (options.threads(), options.tolerant);
        Ok(Self {
            fs,
            clock,
            root: root.to_owned(),
            real_root,
            stats_path: stats.map(Path::to_owned),
            spill_path: spill_path(bundle),
            threads,
            options,
            ignoring: Arc::new(Ignoring::new(Default::default(), exclude.clone())),
            exclude,
            arenas: if ahead { Arenas::ahead(threads) } else { Arenas::default() },
            encoders: Encoders::new(writer.layout()),
            writer,
            dictionaries: Dictionaries::default(),
            checker: None,
            tree,
            keeper: None,
            whys: Arc::default(),
            actions,
            broken: None,
            _lock: lock,
        })
    }

    /// The newest staged generation; after opening, the committed one.
    pub fn bundle(&self) -> Option<&Bundle> {
        self.writer.bundle()
    }

    /// Why the asset was built the last time since this builder was opened; `None` when it was not, or that was in the
    /// build that made the bundle, or too many others were since.
    pub fn why(&self, path: &AssetPath) -> Option<Why> {
        self.whys.get(path)
    }

    /// What [`TreeBuilder::why`] answers from, for who cannot wait for a build.
    pub(super) fn whys(&self) -> Arc<Whys> {
        Arc::clone(&self.whys)
    }

    /// What of the tree is ignored, by the last scan of all of it.
    pub fn ignoring(&self) -> &Arc<Ignoring> {
        &self.ignoring
    }

    /// Commits what is staged; may be used from another thread.
    pub fn committer(&self) -> Committer {
        self.writer.committer()
    }

    /// Whether dead bytes exceed live ones so many times.
    pub fn wants_compaction(&self, times: u64) -> bool {
        let exceed = |bundle: &Bundle| bundle.info().dead_bytes > bundle.info().live_bytes.saturating_mul(times);
        self.bundle().is_some_and(exceed)
    }

    /// Everything that does not build now, in path order.
    pub fn failures(&self) -> Vec<BuildFailure> {
        self.tree.failures.values().map(|failed| failed.failure.clone()).collect()
    }

    /// Brings the bundle up to the whole tree. Only what differs is staged; nothing when nothing does.
    ///
    /// # Errors
    /// When strict: the first failure, as [`Error::Build`]. Always: [`Error::Io`] when the tree's folder cannot be
    /// listed, and those of writing; then the generation before still stands and a later call tries again.
    pub fn scan(&mut self, progress: &dyn Progress) -> Result<Built> {
        self.check_sound()?;
        let started = self.clock.now();
        let delta = self.delta_of_tree(progress)?;
        self.apply(delta, started, progress)
    }

    /// Brings the bundle up to the files and folders at these absolute paths, what is below them, and what was built
    /// from them. The first call is a scan.
    ///
    /// # Errors
    /// Those of [`TreeBuilder::scan`].
    pub fn update(&mut self, changed: &BTreeSet<PathBuf>) -> Result<Built> {
        if !self.tree.scanned {
            return self.scan(&NoProgress);
        }
        self.check_sound()?;
        let started = self.clock.now();
        match self.delta_of_paths(changed)? {
            Some(delta) => self.apply(delta, started, &NoProgress),
            None => self.scan(&NoProgress),
        }
    }

    /// Shows the new contents of what is built next to `keeper`.
    pub fn show_to(&mut self, keeper: Option<Arc<dyn Keeper>>) {
        self.keeper = keeper;
    }

    /// A builder whose last generation did not read back builds nothing more; opening the bundle again goes back to
    /// the last committed generation.
    fn check_sound(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Whether it can still build; if not, opening the bundle anew goes back to the last committed generation.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none()
    }

    /// Takes out what is known of the tree, for who drops it while something else is waited for: a large one takes a
    /// while. The next thing to do is then a scan.
    pub(super) fn take_tree(&mut self) -> impl Send + use<> {
        std::mem::take(&mut self.tree)
    }

    /// Bytes of the source files, as they were read last.
    pub fn source_bytes(&self) -> u64 {
        self.tree.files.values().map(|known| known.stamp.len).sum()
    }

    /// Writes down what source files look like, so that the next scan need not read them, and removes from the action
    /// cache what is too much.
    ///
    /// # Errors
    /// [`Error::Io`]. Nothing is lost but time.
    pub fn save_stats(&mut self) -> Result<()> {
        if let Some(actions) = &self.actions {
            actions.trim();
        }
        let Some(path) = &self.stats_path else { return Ok(()) };
        if !self.tree.stats_differ {
            return Ok(());
        }
        let trusted = self.tree.files.iter().filter(|(_, known)| known.trusted);
        let remembered = trusted.map(|(path, known)| {
            let weak = known.weak.clone();
            (path.clone(), stats::Remembered { stamp: known.stamp, source: known.source, weak })
        });
        let Some(bytes) = stats::to_bytes(remembered.collect()) else { return Ok(()) };
        self.fs.write_atomic(path, &bytes).map_err(|error| Error::io("write", path, error))?;
        self.tree.stats_differ = false;
        Ok(())
    }
}

/// Opens a bundle's file as its only writer.
pub(super) fn open_writer(fs: &dyn FileSystem, path: &Path, create: bool) -> Result<(Arc<dyn WriteAt>, WriterLock)> {
    fs.open_writer(path, create).map_err(|error| {
        if is_locked(&error) { Error::Locked { path: path.to_owned() } } else { Error::io("open", path, error) }
    })
}

fn open_bundle(storage: Arc<dyn WriteAt>, layout: Layout) -> Result<BundleWriter> {
    match storage.len() {
        Ok(0) => BundleWriter::create(storage, Params::new(layout)),
        Ok(_) => BundleWriter::open(storage),
        Err(error) => Err(Error::io("look at", storage.name(), error)),
    }
}

/// A temporary file of the bundle: not packed, where it stands in the tree.
fn spill_path(bundle: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(bundle.file_name().unwrap_or_default());
    name.push(".spill.tmp");
    bundle.with_file_name(name)
}

/// Whether the operating system says that there is no such file.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
