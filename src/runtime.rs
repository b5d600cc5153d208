//! What a program holds: the runtime, its snapshots, its loads.
//!
//! Everything here is a thin face over the resident table (hits) and the ledger (misses). Its futures are not tied to
//! an executor: they wake by the waker they were polled with.

mod bandwidth;
mod budget;
mod callback;
mod debugging;
mod eviction;
pub mod explain;
mod load;
mod lock;
mod many;
mod prediction;
mod profile;
mod reader;
mod record;
mod report;
mod rollback;
mod snapshot;
mod status;
mod typed;
mod viewer;
mod warm;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ractor::{Actor, ActorRef};

pub use crate::actors::{ActorReport, ActorState};
pub use budget::BudgetChange;
pub use callback::ReloadCallback;
pub use debugging::LeakReport;
pub use explain::Explanation;
pub use load::{Load, Request};
pub use lock::Lock;
pub use many::{Completions, LoadMany};
pub use profile::{MemoryProfile, Stages};
pub use reader::{AssetReader, Chunks};
pub use record::{Recording, RecordingReport};
pub use snapshot::Snapshot;
pub use status::{EngineStatus, ExpertStats, Health, PredictionStats, ShutdownReport, Stats, Status};
pub use typed::{Decode, DecodeContext, DecodeError, Json, LoadAs, Postcard, Typed};
pub use viewer::{Viewer, ViewerState};
use warm::Warmth;
pub use warm::{STORE_JOURNAL, Warm, WarmEnd, WarmProgress, WarmReport, WarmStats, Warming};
pub use watched::{Newest, Watched};

use crate::actors::Shared;
use crate::actors::supervision::supervisor::{self, Supervisor};
use crate::actors::supervision::tree::TREE;
use crate::builder::RuntimeBuilder;
use crate::error::{Error, Result};
use crate::event::{Event, Published};
use crate::ids::{AssetId, AssetPath, Origin, Priority};
use crate::messages::SupervisorMessage;
use crate::platform::affinity::CpuSet;
use crate::platform::fs::FileSystem;
use crate::platform::threads::{Core, Pool};
use crate::residency::Asset;
use crate::telemetry::Subscription;

/// How often an orderly shutdown looks whether every open request is answered.
const DRAIN_LOOK: Duration = Duration::from_millis(2);

/// A running Flyloft. Cheap to clone; the actors stop when the last clone is dropped, or by [`Runtime::shutdown`].
///
/// ```no_run
/// # async fn example() -> flyloft::Result<()> {
/// let runtime = flyloft::Runtime::builder().directory("assets").watch(true).start().await?;
/// let page = runtime.load("pages/index.html").await?;
/// println!("{} bytes of {}", page.len(), page.path());
/// runtime.shutdown(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// What a runtime is started over.
pub(crate) struct Opened {
    /// A folder or a bundle file, for people.
    pub(crate) source: String,
    /// Where accesses are recorded from the start on.
    pub(crate) trace: Option<PathBuf>,
    /// Where it is remembered what is asked for.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) fs: Arc<dyn FileSystem>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    /// The thread of the actors; the root's task ends with it.
    core: Core,
    root: Mutex<Option<ActorRef<SupervisorMessage>>>,
    /// The recording that was asked for with the start, until the shutdown.
    recording: Mutex<Option<Recording>>,
    /// What became of what was loaded ahead, and what is remembered for the next start.
    warmth: Arc<Warmth>,
    health: AtomicU8,
    /// Why it failed, while it is failed.
    cause: Mutex<Option<String>>,
    source: String,
    started: Instant,
}

impl Runtime {
    /// Configures a runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(crate) async fn launch(shared: Arc<Shared>, core: Core, opened: Opened) -> Result<Self> {
        let started = shared.clock.now();
        let Opened { source, trace, fs, journal } = opened;
        let warmth = Warmth::new(fs, journal);
        let (root, cause, recording) = (Mutex::new(None), Mutex::new(None), Mutex::new(None));
        let health = AtomicU8::new(Health::Running as u8);
        let inner = Arc::new(Inner { shared, core, root, recording, warmth, health, cause, source, started });
        inner.start_root().await?;
        let runtime = Self { inner };
        if runtime.inner.warmth.remembers() {
            runtime.inner.warmth.listen(runtime.shared())?;
        }
        if let Some(file) = trace {
            *runtime.inner.recording.lock() = Some(runtime.record(file)?);
        }
        Ok(runtime)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The asset, if it is resident in the current generation: no lock, no allocation, no waiting. The path is hashed
    /// once; [`Runtime::get_id`] spares that, too. `None` also for what does not exist and for what is no path.
    ///
    /// The handle keeps the bytes in memory for as long as it is held. To only look at them, [`Runtime::with`] costs
    /// less.
    ///
    /// ```
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let wall = match runtime.get("textures/wall.png") {
    ///     Some(wall) => wall,
    ///     None => runtime.load("textures/wall.png").await?,
    /// };
    /// assert_eq!(wall.path().as_str(), "textures/wall.png");
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, path: impl AsRef<str>) -> Option<Asset> {
        self.get_id(AssetId::of_path(path.as_ref()))
    }

    /// [`Runtime::get`] by id, without hashing the path again.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let wall = flyloft::AssetId::of_path("textures/wall.png");
    /// for _frame in 0..60 {
    ///     let bytes = runtime.get_id(wall).map_or(0, |asset| asset.len());
    ///     println!("{bytes} bytes");
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn get_id(&self, id: AssetId) -> Option<Asset> {
        let found = self.shared().table.get(id);
        if let Some(asset) = &found {
            self.shared().hit(id, false, asset, ANY);
        }
        found
    }

    /// Uses the bytes of the asset, if it is resident in the current generation, and gives what `with` makes of them.
    /// By id or by path; a path is hashed once.
    ///
    /// Cheaper than [`Runtime::get`], above all where several threads use the same asset: it takes no lock, allocates
    /// nothing, never waits, and counts no reference, so the threads share nothing that either writes. The asset is not
    /// pinned: it may be evicted or replaced meanwhile, but its memory stays as it is, and charged, until `with`
    /// returns. Within `with` other assets may be used in the same way.
    ///
    /// ```
    /// use flyloft::AssetId;
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let page = AssetId::of_path("pages/index.html");
    /// let lines = runtime.with(page, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    /// assert_eq!(lines, runtime.with("pages/index.html", |bytes| bytes.split(|byte| *byte == b'\n').count() - 1));
    /// # }
    /// ```
    #[inline]
    pub fn with<R>(&self, asset: impl Into<AssetId>, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let (shared, id) = (self.shared(), asset.into());
        shared.table.read(id, |asset| {
            shared.hit(id, false, asset, ANY);
            with(asset)
        })
    }

    /// Loads the asset at medium priority, in the generation that is current now. Answered at once when resident.
    /// Dropping the future cancels the load, unless someone else waits for it too.
    pub fn load(&self, path: impl AsRef<str>) -> Load {
        self.request(path).send()
    }

    /// Loads the asset at medium priority and decodes it: once for each content, whoever asks. Answered at once when the
    /// value is there. Dropping the future cancels it, unless someone else waits for it too.
    ///
    /// ```
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let page = runtime.load_as::<String>("pages/index.html").await?;
    /// println!("{} lines of generation {}", page.lines().count(), page.generation());
    /// # Ok(())
    /// # }
    /// ```
    pub fn load_as<T: Decode>(&self, path: impl AsRef<str>) -> LoadAs<T> {
        match self.get_as(path.as_ref()) {
            Some(typed) => LoadAs::ready(typed),
            None => LoadAs::after(Arc::clone(self.shared()), self.load(path)),
        }
    }

    /// The decoded asset, if it is resident in the current generation and was decoded as this type: no lock, no
    /// allocation, no waiting.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let title = runtime.get_as::<serde_json::Value>("site.json").map(|site| site["title"].to_string());
    /// # }
    /// ```
    #[inline]
    pub fn get_as<T: Decode>(&self, path: impl AsRef<str>) -> Option<Typed<T>> {
        typed::resident(self.shared(), AssetId::of_path(path.as_ref()), self.shared().table.current())
    }

    /// The decoded asset, followed: what it gives is always the newest good one.
    ///
    /// # Errors
    /// Those of [`Runtime::load_as`], when there is no good one to begin with.
    pub async fn watched<T: Decode>(&self, path: impl AsRef<str>) -> Result<Watched<T>> {
        Watched::new(Arc::clone(self.shared()), AssetPath::new(path.as_ref())?).await
    }

    /// Has `call` called for each publication from now on, one after the other, on a thread of its own, until what this
    /// gives is dropped. A panic of it is caught. One that falls far behind is told of several publications as of one.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let callback = runtime.on_reload(|published| {
    ///     for asset in &published.changed {
    ///         println!("{} in generation {}", asset.path, published.generation);
    ///     }
    /// })?;
    /// # drop(callback);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] when the thread cannot be started.
    pub fn on_reload(&self, call: impl Fn(&Published) + Send + Sync + 'static) -> Result<ReloadCallback> {
        callback::start(self.shared(), Box::new(call))
    }

    /// A load with a priority, a deadline or dependencies.
    pub fn request(&self, path: impl AsRef<str>) -> Request {
        Request::new(self.shared(), path.as_ref(), None)
    }

    /// Loads many assets: all of them, any of them, or each as it comes.
    pub fn load_many<P: AsRef<str>>(&self, paths: impl IntoIterator<Item = P>) -> LoadMany {
        LoadMany::new(self.snapshot(), paths.into_iter().map(|path| path.as_ref().to_owned()).collect())
    }

    /// Asks for assets at low priority, for nobody in particular. What does not exist, or does not fit, is not loaded.
    pub fn prefetch<P: AsRef<str>>(&self, paths: impl IntoIterator<Item = P>) {
        let live = self.shared().generations.current();
        let wish = |path: P| {
            let id = AssetId::of_path(path.as_ref());
            crate::messages::Prefetch { live: Arc::clone(&live), id, proven: false }
        };
        let wishes = paths.into_iter().map(wish).collect();
        // A dispatcher that is down forgets the wish.
        self.shared().addresses.dispatcher.hint(crate::messages::DispatcherMessage::Prefetch(wishes));
    }

    /// Opens an asset to read it piece by piece in bounded memory, however large it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the current generation has no such asset; otherwise what a load may return.
    pub async fn open(&self, path: impl AsRef<str>) -> Result<AssetReader> {
        self.snapshot().open(path).await
    }

    /// Holds the current generation: what is read through it is of one consistent version of the tree.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(self.shared()), self.shared().generations.current())
    }

    /// Everything that happens from now on. A subscriber that falls behind is told how many events it missed.
    pub fn events(&self) -> Subscription {
        self.shared().events.subscribe()
    }

    /// Counters, budgets and latencies.
    pub fn stats(&self) -> Stats {
        Stats::of(self.shared(), self.inner.warmth.stats())
    }

    /// What runs, what failed, what is served.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let uptime = inner.shared.clock.now().saturating_duration_since(inner.started);
        Status::of(&inner.shared, inner.health(), inner.cause.lock().clone(), &inner.source, uptime)
    }

    /// Kills an actor, as a fault drill: its supervisor starts it again, and no request is lost.
    ///
    /// # Errors
    /// [`Error::Config`] that names the actors there are.
    pub fn kill(&self, actor: &str) -> Result<()> {
        self.shared().roster.kill(actor)
    }

    /// Starts a parked part again.
    ///
    /// # Errors
    /// [`Error::Config`] that names the actors there are.
    pub fn revive(&self, part: &str) -> Result<()> {
        self.shared().roster.revive(part)
    }

    /// Brings a failed runtime back: a new root with fresh restart windows. Does nothing to one that runs.
    ///
    /// # Errors
    /// [`Error::ShutDown`] after a shutdown; [`Error::Failed`] when the actors cannot be started.
    pub async fn restart(&self) -> Result<()> {
        match self.inner.health() {
            Health::Running => Ok(()),
            Health::Failed => {
                *self.inner.cause.lock() = None;
                self.inner.set_health(Health::Running);
                self.shared().ledger.reopen();
                let started = self.inner.start_root().await;
                if let Err(error) = &started {
                    self.inner.fail(error.to_string());
                }
                started
            }
            Health::Stopping | Health::Stopped => Err(Error::ShutDown),
        }
    }

    /// Stops taking requests, waits until the open ones are answered or `deadline` has passed, answers the rest with
    /// [`Error::ShutDown`], and stops every actor and thread. Handles and snapshots stay valid.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let inner = Arc::clone(&self.inner);
        let began = inner.shared.clock.now();
        // First of all: a runtime that stops records no more, and then this only waits for what was written.
        let recording = inner.recording.lock().take();
        inner.set_health(Health::Stopping);
        let open_at_first = inner.shared.ledger.stop_taking(Error::ShutDown);
        let (tell, told) = tokio::sync::oneshot::channel();
        let draining = Arc::clone(&inner);
        inner.core.handle().spawn(async move {
            while draining.shared.ledger.open() > 0 && draining.shared.clock.now() < began + deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            let abandoned = draining.shared.ledger.close(Error::ShutDown);
            draining.stop_root().await;
            // Whoever asked may have gone; the actors are stopped all the same.
            let _ = tell.send(abandoned);
        });
        // The thread cannot go away before it has told: only this shutdown stops it.
        let abandoned = told.await.unwrap_or(0);
        let finishing = Arc::clone(&inner);
        let (tell, told) = tokio::sync::oneshot::channel();
        let finish = move || drop(tell.send(finishing.stop_threads()));
        let committed = match inner.shared.threads.spawn("flyloft-stop", &CpuSet::any(), Box::new(finish)) {
            Ok(_) => told.await.unwrap_or(Ok(())),
            // Without a thread for it, it is done here.
            Err(_) => inner.stop_threads(),
        };
        inner.warmth.stop().await;
        let recorded = match recording {
            Some(recording) => Some(recording.finish().await),
            None => None,
        };
        inner.set_health(Health::Stopped);
        let took = inner.shared.clock.now().saturating_duration_since(began);
        let answered = open_at_first.saturating_sub(abandoned) as u64;
        let leaks = inner.shared.config.debug.leaks.then(|| LeakReport::of(&inner.shared));
        if let Some(leaks) = leaks.as_ref().filter(|leaks| !leaks.is_clean()) {
            let (bytes, generations) = (leaks.tied_bytes + leaks.io_bytes, leaks.generations);
            tracing::warn!(bytes, generations, holders = leaks.holders.len(), "not everything was given back");
        }
        let abandoned = abandoned as u64;
        ShutdownReport { answered, abandoned, in_time: abandoned == 0, took, committed, recorded, leaks }
    }
}

impl Inner {
    fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Acquire))
    }

    fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
        self.shared.stopping.store(matches!(health, Health::Stopping | Health::Stopped), Ordering::Release);
    }

    /// Starts the tree on the actors' thread, and somebody who notices when its root ends.
    async fn start_root(self: &Arc<Self>) -> Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let weak = Arc::downgrade(self);
        self.core.handle().spawn(async move {
            let spawned = Actor::spawn(None, Supervisor(&TREE), supervisor::Args { shared }).await;
            let (root, ended) = match spawned {
                Ok(spawned) => spawned,
                Err(error) => return drop(tell.send(Err(Error::Failed { cause: error.to_string() }))),
            };
            drop(tell.send(Ok(root)));
            // However it ended, it has ended.
            drop(ended.await);
            if let Some(inner) = weak.upgrade()
                && !inner.shared.is_stopping()
            {
                inner.fail("a part was restarted too often, and so was what supervises it".into());
            }
        });
        let gone = || Error::Failed { cause: "the actors' thread is gone".into() };
        *self.root.lock() = Some(told.await.map_err(|_| gone())??);
        Ok(())
    }

    /// The root gave up: every open request is answered with the cause, and the process lives.
    fn fail(&self, cause: String) {
        self.set_health(Health::Failed);
        *self.cause.lock() = Some(cause.clone());
        let answered = self.shared.ledger.close(Error::Failed { cause: cause.clone() });
        tracing::error!(%cause, answered, "the runtime has failed; Runtime::restart brings it back");
        self.shared.events.send(Event::Failed { cause });
    }

    async fn stop_root(&self) {
        let root = self.root.lock().take();
        if let Some(root) = root {
            let wait = Some(Duration::from_secs(5));
            // Past the deadline its thread is stopped, which ends it and its children.
            drop(root.call(|reply| SupervisorMessage::Shutdown { reply }, wait).await);
        }
    }

    /// Ends what is not an actor: engines with their reads in flight, pools, the actors' thread. Blocks.
    fn stop_threads(&self) -> Result<()> {
        for driver in &self.shared.drivers {
            driver.stop();
        }
        self.shared.decoders.iter().for_each(Pool::stop);
        let mut committed = Ok(());
        if let Err(error) = self.shared.learned.save() {
            tracing::warn!(%error, "what was learned is not saved");
        }
        if let Some(workshop) = &self.shared.workshop {
            workshop.pool().stop();
            if let Some((newest, _)) = workshop.newest() {
                committed = workshop.commit(&newest).and_then(|()| workshop.save_stats());
            }
            workshop.close();
        }
        self.core.stop();
        self.shared.followers.end();
        self.shared.reloads.close();
        self.shared.reaper.stop();
        committed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.health() == Health::Stopped {
            return;
        }
        // Nobody waits any more. What is in flight completes into nowhere, and the threads end.
        self.set_health(Health::Stopping);
        self.shared.ledger.close(Error::ShutDown);
        self.core.stop();
        if let Err(error) = self.stop_threads() {
            tracing::error!(%error, "the newest generation is not durable");
        }
    }
}

/// The priority of a load that names none.
pub(crate) const DEFAULT_PRIORITY: Priority = Priority::Medium;
/// How urgent a hit is, and whose, where nobody said.
const ANY: (Priority, Origin) = (DEFAULT_PRIORITY, Origin::User);
