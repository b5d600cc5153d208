//! Configures a runtime and starts it: probes the machine, opens or builds the bundle, starts engines and actors.

mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use self::workers::Machine;
use crate::actors::{
    self, Addresses, EvictionChoice, Faults, Learned, OutsideMemory, Roster, Shared, Told, WatchAhead,
};
use crate::build::transform::{Transform, TransformRegistry};
use crate::build::{self, ActionCacheOptions, BuildOptions, Built, NoProgress, Progress, Task, TreeBuilder, Workshop};
use crate::bundle::Bundle;
use crate::config::{
    BandwidthConfig, BudgetConfig, DebugConfig, Engine, EvictionConfig, Integrity, PredictionConfig, RuntimeConfig,
    ScheduleConfig, SpatialConfig, WarmConfig,
};
use crate::error::{Error, Result};
use crate::event::BuildFailure;
use crate::ids::AssetId;
use crate::messages::{DispatcherMessage, PredictorMessage};
use crate::platform::affinity::CpuSet;
use crate::platform::clock::{Clock, SystemClock};
use crate::platform::fs::{FileSystem, OsFileSystem};
use crate::platform::memory;
use crate::platform::pressure::{MemorySource, SystemMemory};
use crate::platform::random::{Random, SystemRandom};
use crate::platform::threads::{Core, OsThreads, Pool, Threads};
use crate::platform::topology::Topology;
use crate::platform::watch::{OsWatch, Watch};
use crate::policy::bandwidth::Bandwidth;
use crate::residency::surroundings::Looker;
use crate::residency::{Followers, Generations, History, Ledger, Locks, Reaper, ResidentTable, Sizes};
use crate::runtime::{self, Runtime, STORE_JOURNAL};
use crate::telemetry::{Events, Metrics, Reloads};

/// The name of the bundle in a store.
pub const STORE_BUNDLE: &str = "tree.loft";
/// The name of the remembered stats in a store.
pub const STORE_STATS: &str = "stats";
/// The name of the action cache in a store.
pub const STORE_ACTIONS: &str = "actions";

/// The lane of the build pool on which memory is given back: the least urgent one.
const GIVE_BACK_LANE: u8 = 1;

enum Source {
    Directory(PathBuf),
    Bundle(PathBuf),
}

/// What comes of opening a directory.
type Opened = (Bundle, Arc<Workshop>, Built, Option<WatchAhead>);

/// Configures a [`Runtime`]. Every setting has a default; only the source must be named.
pub struct RuntimeBuilder {
    source: Option<Source>,
    config: RuntimeConfig,
    registry: TransformRegistry,
    /// The first transform that was refused: told when it starts.
    refused: Option<Error>,
    progress: Option<Arc<dyn Progress + Send>>,
    faults: Option<Arc<dyn Faults>>,
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    threads: Arc<dyn Threads>,
    watch: Arc<dyn Watch>,
    topology: Option<Topology>,
    trace: Option<PathBuf>,
    memory: Arc<dyn MemorySource>,
}

impl Default for RuntimeBuilder {
    fn default() -> Self {
        Self {
            source: None,
            config: RuntimeConfig::default(),
            registry: TransformRegistry::with_builtins(),
            refused: None,
            progress: None,
            faults: None,
            fs: Arc::new(OsFileSystem),
            clock: Arc::new(SystemClock),
            random: Arc::<SystemRandom>::default(),
            threads: Arc::new(OsThreads),
            watch: Arc::<OsWatch>::default(),
            topology: None,
            trace: None,
            memory: Arc::<SystemMemory>::default(),
        }
    }
}

impl RuntimeBuilder {
    /// Serves the tree under `root`, through a store of its own.
    pub fn directory(mut self, root: impl AsRef<Path>) -> Self {
        self.source = Some(Source::Directory(root.as_ref().to_owned()));
        self
    }

    /// Serves a bundle file. Its newest complete generation when it is opened is the one that is served.
    pub fn bundle(mut self, file: impl AsRef<Path>) -> Self {
        self.source = Some(Source::Bundle(file.as_ref().to_owned()));
        self
    }

    /// Replaces the whole configuration.
    pub fn config(mut self, config: RuntimeConfig) -> Self {
        self.config = config;
        self
    }

    /// Bytes of memory charged at most. Default 512 MiB.
    pub fn budget_bytes(mut self, bytes: u64) -> Self {
        self.config.budget_bytes = bytes;
        self
    }

    /// How the budget is shared, and what happens as it fills. Default [`BudgetConfig::default`].
    pub fn budget(mut self, budget: BudgetConfig) -> Self {
        self.config.budget = budget;
        self
    }

    /// What is watched to find a fault of the program. Default nothing.
    pub fn debug(mut self, debug: DebugConfig) -> Self {
        self.config.debug = debug;
        self
    }

    /// Whether a directory is watched and reloaded. Default no.
    pub fn watch(mut self, watch: bool) -> Self {
        self.config.watch = watch;
        self
    }

    /// How many generations stay loadable besides the one that readers see, for [`Runtime::snapshot_of`] and
    /// [`Runtime::rollback`]. Default none.
    pub fn retain_generations(mut self, generations: usize) -> Self {
        self.config.retain_generations = generations;
        self
    }

    /// The folder of the store. Default: one for the tree in the user's cache folder.
    pub fn store(mut self, folder: impl AsRef<Path>) -> Self {
        self.config.store = Some(folder.as_ref().to_owned());
        self
    }

    /// The folder of the action cache, which other trees and machines may share. Default: one in the store.
    pub fn action_cache(mut self, folder: impl AsRef<Path>) -> Self {
        self.config.action_cache = Some(folder.as_ref().to_owned());
        self
    }

    /// The order in which loads that wait are read: weights, and lanes by distance.
    pub fn schedule(mut self, schedule: ScheduleConfig) -> Self {
        self.config.schedule = schedule;
        self
    }

    /// What is asked for ahead of viewers.
    pub fn spatial(mut self, spatial: SpatialConfig) -> Self {
        self.config.spatial = spatial;
        self
    }

    /// The read engine. Default: io_uring where a probe finds it working.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.config.engine = engine;
        self
    }

    /// Which assets make room when the budget is full.
    pub fn eviction(mut self, eviction: EvictionConfig) -> Self {
        self.config.eviction = eviction;
        self
    }

    /// How much is read per second. Default: as fast as the disk goes.
    pub fn bandwidth(mut self, bandwidth: BandwidthConfig) -> Self {
        self.config.bandwidth = bandwidth;
        self
    }

    /// What is checked on a load. Default: the stored bytes of every frame.
    pub fn integrity(mut self, integrity: Integrity) -> Self {
        self.config.integrity = integrity;
        self
    }

    /// How assets are predicted. Default [`PredictionConfig::default`].
    pub fn prediction(mut self, prediction: PredictionConfig) -> Self {
        self.config.prediction = prediction;
        self
    }

    /// What is loaded ahead, and what is remembered for the next start. Default [`WarmConfig::default`].
    pub fn warm(mut self, warm: WarmConfig) -> Self {
        self.config.warm = warm;
        self
    }

    /// Adds a transform of the program's own, to be chosen by name in flyloft.toml. One whose name is taken, or is none,
    /// is refused when the runtime starts.
    pub fn transform<T: Transform>(mut self, transform: T) -> Self {
        if let Err(error) = self.registry.register(transform) {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Whether the flyloft.toml of the directory may run programs as transforms: only for a tree that is trusted.
    /// Default no.
    pub fn allow_commands(mut self, allow: bool) -> Self {
        self.config.allow_commands = allow;
        self
    }

    /// Records what is asked for, from the start to the shutdown, in this file: as [`Runtime::record`]. Default no.
    pub fn trace(mut self, file: impl AsRef<Path>) -> Self {
        self.trace = Some(file.as_ref().to_owned());
        self
    }

    /// Who is told how the first build of a directory goes on. Default nobody.
    pub fn progress(mut self, progress: Arc<dyn Progress + Send>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// A fault drill: called by every stage with the asset it is about to work on. It may panic there.
    pub fn faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Another file system, for simulation.
    pub fn file_system(mut self, fs: Arc<dyn FileSystem>) -> Self {
        self.fs = fs;
        self
    }

    /// Another clock, for simulation.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Another source of randomness, for simulation.
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Another way to start threads, for simulation.
    pub fn threads(mut self, threads: Arc<dyn Threads>) -> Self {
        self.threads = threads;
        self
    }

    /// Another way to watch a tree, for simulation.
    pub fn watcher(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watch = watch;
        self
    }

    /// Another layout of nodes and processors than this machine says it has, for simulation. Threads are pinned by it,
    /// so its processors must be there; memory is bound to its nodes as far as they are.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// Another source of how much memory there is outside of the budget, for simulation.
    pub fn memory_source(mut self, memory: Arc<dyn MemorySource>) -> Self {
        self.memory = memory;
        self
    }

    /// Starts the runtime. The first build of a directory, and everything else that blocks, runs on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that cannot be used, with its field; otherwise what opening or building the source
    /// returned.
    pub async fn start(self) -> Result<Runtime> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let threads = Arc::clone(&self.threads);
        let open = move || drop(tell.send(self.prepare()));
        let spawned = threads.spawn("flyloft-start", &CpuSet::any(), Box::new(open));
        spawned.map_err(|error| Error::io("start the thread", "flyloft-start", error))?;
        let gone = || Error::Failed { cause: "the start-up thread panicked".into() };
        let (shared, core, opened) = told.await.map_err(|_| gone())??;
        Runtime::launch(shared, core, opened).await
    }

    /// [`RuntimeBuilder::start`] for programs without an async runtime.
    ///
    /// # Errors
    /// As [`RuntimeBuilder::start`].
    pub fn start_blocking(self) -> Result<Runtime> {
        let (shared, core, opened) = self.prepare()?;
        let handle = core.handle();
        handle.block_on(Runtime::launch(shared, core, opened))
    }

    fn prepare(mut self) -> Result<(Arc<Shared>, Core, runtime::Opened)> {
        self.config.validate()?;
        self.refused.take().map_or(Ok(()), Err)?;
        if cfg!(panic = "abort") {
            tracing::warn!(
                "built with panic = \"abort\": a panic ends the process, and supervision cannot restart anything"
            );
        }
        let machine = Machine::detect(self.topology.take());
        let threads = self.threads.as_ref();
        let count = |wanted: usize| machine.threads(wanted);
        let decoders = machine.decoders(&self.config, threads)?;
        let core = Core::start("flyloft-core", &CpuSet::any(), threads)?;
        let source = match &self.source {
            Some(source) => source,
            None => return Err(Error::config("source", "name a directory or a bundle to serve")),
        };
        let (bundle, workshop, built, ahead, name) = match source {
            Source::Bundle(file) => (self.open_bundle(file)?, None, None, None, file.display().to_string()),
            Source::Directory(root) => {
                let pool =
                    Arc::new(Pool::new("flyloft-build", count(self.config.build_threads), &CpuSet::any(), threads)?);
                let (bundle, workshop, built, ahead) = self.open_directory(root, pool)?;
                (bundle, Some(workshop), Some(built), ahead, root.display().to_string())
            }
        };
        let heaps = machine.heaps(&self.config);
        let drivers = machine.drivers(&self.config, &heaps, threads)?;
        let tables = bundle.prepare_tables(&self.config.tables)?;
        let store = workshop.as_ref().map(|workshop| workshop.store());
        let journal = self.config.warm.file(store, STORE_JOURNAL)?;
        let learned = Learned::open(&self.config, Arc::clone(&self.fs), store);
        let config = self.config;
        let budget = machine.budget(&config, heaps);
        let generations = Generations::new(bundle);
        generations.retain(config.retain_generations);
        let table = Arc::new(ResidentTable::new(&generations, self.random.next_u64()));
        let shared = Arc::new(Shared {
            reaper: Arc::new(
                Reaper::start(threads, &budget).map_err(|error| Error::io("start the thread", "reaper", error))?,
            ),
            ledger: Ledger::new(Arc::clone(&table), config.open_requests_max),
            bandwidth: Mutex::new(Bandwidth::new(config.bandwidth)),
            values: Arc::default(),
            outside: OutsideMemory::new(self.memory),
            pressure: Told::new(Sizes::of(&config), self.clock.now()),
            locks: Locks::default(),
            holders: config.debug.holders.then(Arc::default),
            followers: Followers::default(),
            reloads: Reloads::default(),
            handle: core.handle(),
            surroundings: Arc::default(),
            table,
            addresses: Addresses::new(drivers.len()),
            clock: self.clock,
            random: self.random,
            budget,
            generations,
            nodes: machine.nodes(),
            drivers,
            decoders,
            workshop,
            watch: self.watch,
            watch_ahead: Mutex::new(ahead),
            threads: self.threads,
            roster: Arc::new(Roster::default()),
            events: Events::default(),
            accesses: Arc::default(),
            metrics: Arc::new(Metrics::default()),
            blind: Mutex::default(),
            failures: Mutex::new(failures(built.as_ref())),
            staged: Mutex::default(),
            rollbacks: Mutex::default(),
            building: Mutex::default(),
            tables: Mutex::new(tables),
            residents: Mutex::default(),
            learned,
            history: History::default(),
            eviction: EvictionChoice::new(config.eviction),
            incomplete: AtomicBool::new(false),
            faults: self.faults,
            stopping: AtomicBool::new(false),
            config,
        });
        shared.tables_prepared();
        shared.take_places(shared.generations.current().bundle());
        if let Some(what) = shared.learned.refused() {
            tracing::warn!("{what}");
        }
        connect(&shared);
        if let Some(workshop) = &shared.workshop {
            // The first look at a large tree took much more than what stays of it.
            workshop.pool().submit(GIVE_BACK_LANE, Box::new(memory::give_back));
        }
        Ok((shared, core, runtime::Opened { source: name, trace: self.trace, journal, fs: self.fs }))
    }

    fn open_bundle(&self, file: &Path) -> Result<Bundle> {
        if self.config.watch {
            let why = "a bundle file is not watched; serve the directory that it was packed from";
            return Err(Error::config("watch", why));
        }
        let storage = self.fs.open(file).map_err(|error| Error::io("open", file, error))?;
        Bundle::open(storage, self.config.mapping)
    }

    /// Opens the tree's store and brings its bundle up to date. What does not build is reported, not fatal. It is
    /// watched before it is looked at.
    fn open_directory(&self, root: &Path, pool: Arc<Pool>) -> Result<Opened> {
        let absolute = self.fs.canonicalize(root).map_err(|error| Error::io("open", root, error))?;
        let store = match &self.config.store {
            Some(store) => store.clone(),
            None => default_store(&absolute)?,
        };
        self.fs.create_dir_all(&store).map_err(|error| Error::io("create", &store, error))?;
        let actions = (self.config.action_cache_bytes > 0).then(|| ActionCacheOptions {
            folder: self.config.action_cache.clone().unwrap_or_else(|| store.join(STORE_ACTIONS)),
            bytes_max: self.config.action_cache_bytes,
        });
        let mut registry = self.registry.clone();
        if self.config.allow_commands {
            registry.allow_commands();
        }
        let options = BuildOptions {
            actions,
            layout: self.config.layout,
            threads: self.config.build_threads,
            tolerant: true,
            registry: Arc::new(registry),
            ..BuildOptions::default()
        };
        let (fs, clock, tree) = (Arc::clone(&self.fs), Arc::clone(&self.clock), absolute.clone());
        let (bundle, stats) = (store.join(STORE_BUNDLE), store.join(STORE_STATS));
        let open = move || {
            let (fs, clock) = (Arc::clone(&fs), Arc::clone(&clock));
            TreeBuilder::open(fs, clock, &tree, &bundle, Some(&stats), options.clone())
        };
        let (fs, file) = (Arc::clone(&self.fs), store.join(STORE_BUNDLE));
        let compact = move || build::compact(Arc::clone(&fs), &file, &NoProgress);
        let workshop = Arc::new(Workshop::new(&absolute, &store, pool, Box::new(open), Box::new(compact))?);
        let ahead = if self.config.watch { WatchAhead::begin(&*self.watch, &workshop) } else { None };
        let everything = Task { everything: true, ..Task::default() };
        let built = match &self.progress {
            Some(progress) => workshop.build(&everything, progress.as_ref())?,
            None => workshop.build_quietly(&everything)?,
        };
        for what in &built.warnings {
            tracing::warn!("{what}");
        }
        for failure in &built.failures {
            tracing::warn!(path = failure.path, cause = failure.cause, "does not build");
        }
        let Some((bundle, _)) = workshop.newest() else {
            let path = root.display().to_string();
            return Err(Error::build(path, "scan", "the directory holds nothing that can be served"));
        };
        workshop.commit(&bundle)?;
        workshop.save_stats()?;
        // A file that was being written is looked at again by a watcher that looks at everything.
        let ahead = ahead.filter(|_| built.unfinished.is_empty());
        Ok((bundle, workshop, built, ahead))
    }
}

/// Who wakes whom when nobody sends a message: the ledger and the budget have no actor of their own.
fn connect(shared: &Arc<Shared>) {
    let dispatcher = shared.addresses.dispatcher.clone();
    shared.ledger.on_ready(Box::new(move || dispatcher.hint(DispatcherMessage::Ready)));
    let dispatcher = shared.addresses.dispatcher.clone();
    shared.budget.on_release(Box::new(move || dispatcher.hint(DispatcherMessage::RoomMade)));
    let dispatcher = shared.addresses.dispatcher.clone();
    shared.budget.on_io_release(Box::new(move || dispatcher.hint(DispatcherMessage::Credit)));
    let values = Arc::clone(&shared.values);
    shared.budget.on_value_release(Box::new(move || values.room_made()));
    let weak = Arc::downgrade(shared);
    shared.budget.on_pressure(Box::new(move || actors::pressure_changed(&weak)));
    let (dispatcher, predictor) = (shared.addresses.dispatcher.clone(), shared.addresses.predictor.clone());
    shared.surroundings.on_moved(Box::new(move |looker| match looker {
        Looker::Schedule => dispatcher.cast(DispatcherMessage::ViewersMoved).is_ok(),
        Looker::Prediction => predictor.cast(PredictorMessage::Moved).is_ok(),
    }));
    let weak = Arc::downgrade(shared);
    shared.budget.on_surplus(Box::new(move || {
        if let Some(shared) = weak.upgrade() {
            shared.relieve_budget();
        }
    }));
    actors::watch_outside(shared);
    // Versions that only an ended generation could see go when it ends.
    let (table, generations) = (Arc::downgrade(&shared.table), Arc::downgrade(&shared.generations));
    shared.generations.on_end(Box::new(move || {
        if let (Some(table), Some(generations)) = (table.upgrade(), generations.upgrade()) {
            table.retire(generations.oldest_live());
        }
    }));
}

fn failures(built: Option<&Built>) -> std::collections::BTreeMap<String, BuildFailure> {
    let failures = built.map(|built| built.failures.clone()).unwrap_or_default();
    failures.into_iter().map(|failure| (failure.path.clone(), failure)).collect()
}

/// The store of a tree that names none: a folder in the user's cache folder, by the tree's name and its path, which is
/// absolute and free of links.
///
/// # Errors
/// [`Error::Config`] when this user has no cache folder.
pub fn default_store(root: &Path) -> Result<PathBuf> {
    let why = "this user has no cache folder; name one with store";
    let cache = dirs::cache_dir().ok_or_else(|| Error::config("store", why))?;
    let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id = AssetId::of_path(&root.to_string_lossy());
    Ok(cache.join("flyloft").join(format!("{name}-{id}")))
}
