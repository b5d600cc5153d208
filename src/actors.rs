//! The actors, and what they share: everything that outlives any one of them.
//!
//! An actor's file names its role, what it owns, what it receives and sends, what a restart keeps, rebuilds and
//! loses, and its bounds. No actor knows another: it knows addresses by message type, and the parts in [`Shared`].
//!
//! Invariant: nothing in [`Shared`] belongs to an actor. A request lives in the ledger, bytes in the resident table,
//! a read in flight in its driver, a generation in the workshop. An actor may die at any message.

pub mod cache_manager;
mod decoding;
pub mod decompressor;
mod eviction;
pub mod evictor;
pub mod file_watcher;
pub mod io_dispatcher;
pub mod io_worker;
mod learned;
mod outside;
pub mod predictor;
mod pressure;
mod publishing;
pub mod rebuilder;
pub mod roster;
pub mod supervision;
mod watch_ahead;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use eviction::EvictionChoice;
pub use learned::Learned;
pub use outside::{OutsideMemory, OutsideReport, watch_outside};
pub use pressure::{Told, pressure_changed};
pub use roster::{ActorReport, ActorState, Roster};
pub use watch_ahead::WatchAhead;

use crate::build::Workshop;
use crate::bundle::{Bundle, PreparedTables};
use crate::config::{AssetNode, RuntimeConfig};
use crate::error::Result;
use crate::event::{BuildFailure, Event};
use crate::ids::{AssetId, AssetKind, AssetPath, Origin, Priority};
use crate::messages::work::ReadToken;
use crate::messages::{Address, CacheManagerMessage, DecompressorMessage, DispatcherMessage, EvictorMessage};
use crate::messages::{FileWatcherMessage, IoWorkerMessage, PredictorMessage, RebuilderMessage, Rollback, Staged};
use crate::platform::clock::Clock;
use crate::platform::io::Driver;
use crate::platform::numa::Nodes;
use crate::platform::random::Random;
use crate::platform::threads::{Pool, Threads};
use crate::platform::watch::Watch;
use crate::policy::bandwidth::Bandwidth;
use crate::policy::eviction::Admitted;
use crate::residency::surroundings::Surroundings;
use crate::residency::{
    Asset, Budget, Followers, Generations, History, Holders, Ledger, Locks, Reaper, ResidentTable, Values,
};
use crate::telemetry::{Accesses, Events, Level, Metrics, Moment, Noted, Reloads};

/// Where each actor can be reached. Published by the supervisors.
#[derive(Clone)]
pub struct Addresses {
    /// The I/O dispatcher.
    pub dispatcher: Address<DispatcherMessage>,
    /// The I/O workers, by node.
    pub io_workers: Vec<Address<IoWorkerMessage>>,
    /// The decompressor.
    pub decompressor: Address<DecompressorMessage>,
    /// The cache manager.
    pub cache_manager: Address<CacheManagerMessage>,
    /// The evictor.
    pub evictor: Address<EvictorMessage>,
    /// The predictor.
    pub predictor: Address<PredictorMessage>,
    /// The rebuilder.
    pub rebuilder: Address<RebuilderMessage>,
    /// The file watcher.
    pub file_watcher: Address<FileWatcherMessage>,
}

impl Addresses {
    /// Addresses at which nobody answers yet, for `nodes` I/O workers.
    pub fn new(nodes: usize) -> Self {
        Self {
            dispatcher: Address::default(),
            io_workers: (0..nodes).map(|_| Address::default()).collect(),
            decompressor: Address::default(),
            cache_manager: Address::default(),
            evictor: Address::default(),
            predictor: Address::default(),
            rebuilder: Address::default(),
            file_watcher: Address::default(),
        }
    }
}

/// Called by each stage with the asset it is about to work on. A fault drill may panic in it: the panic is treated
/// exactly like one of the stage's own.
pub trait Faults: Send + Sync {
    /// `stage` is about to work on `path`.
    fn reached(&self, stage: &'static str, path: &AssetPath);
}

/// An asset became resident; without more, it ceased to be.
pub type ResidentNote = (AssetId, Option<Admitted>);

/// What outlives every actor.
pub struct Shared {
    /// The validated configuration.
    pub config: RuntimeConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: jitter.
    pub random: Arc<dyn Random>,
    /// What memory may be charged.
    pub budget: Arc<Budget>,
    /// What was told of how full that is.
    pub pressure: Told,
    /// What is known of memory outside of that.
    pub outside: OutsideMemory,
    /// How much may be read per second.
    pub bandwidth: Mutex<Bandwidth>,
    /// What was decoded from what is resident, by type.
    pub values: Arc<Values>,
    /// What is to stay in memory.
    pub locks: Locks,
    /// Who took handles and snapshots, in debug mode.
    pub holders: Option<Arc<Holders>>,
    /// Who follows an asset through reloads.
    pub followers: Followers,
    /// Publications on their way to callbacks.
    pub reloads: Reloads,
    /// The actors' thread, for tasks that are no actor's.
    pub handle: Handle,
    /// Where assets are, and who looks at them.
    pub surroundings: Arc<Surroundings>,
    /// Which eviction policy is in use, and what it said of itself.
    pub eviction: EvictionChoice,
    /// What is resident.
    pub table: Arc<ResidentTable>,
    /// The generations that somebody can still see.
    pub generations: Arc<Generations>,
    /// Every open request.
    pub ledger: Arc<Ledger>,
    /// What the predictor has learned.
    pub learned: Learned,
    /// What was evicted and what changed lately, for people.
    pub history: History,
    /// Frees large memory.
    pub reaper: Arc<Reaper>,
    /// The NUMA nodes. What there is one of on each stands in their order.
    pub nodes: Nodes,
    /// One read engine per NUMA node.
    pub drivers: Vec<Arc<Driver<ReadToken>>>,
    /// The decoder's threads on each NUMA node.
    pub decoders: Vec<Pool>,
    /// The build, if the source is a directory.
    pub workshop: Option<Arc<Workshop>>,
    /// What became resident, or ceased to be by publication, since the evictor last looked; in order.
    pub residents: Mutex<Vec<ResidentNote>>,
    /// What was done ahead about the tables of contents of the newest durable generation.
    pub tables: Mutex<PreparedTables>,
    /// What is built and not yet published, oldest first.
    pub staged: Mutex<VecDeque<Staged>>,
    /// Held by a build from its beginning until what came of it is in `staged`, also when the rebuilder that began it is
    /// gone: each builds on the one before, and is published after it.
    pub building: Mutex<()>,
    /// Generations that are to be gone back to, the first asked for first.
    pub rollbacks: Mutex<VecDeque<Rollback>>,
    /// A build failed half way: the next one looks at everything.
    pub incomplete: AtomicBool,
    /// How threads are started.
    pub threads: Arc<dyn Threads>,
    /// How a tree is watched.
    pub watch: Arc<dyn Watch>,
    /// A watch that stood before the first look at the tree, until the watcher takes it.
    pub watch_ahead: Mutex<Option<WatchAhead>>,
    /// Where the actors are.
    pub addresses: Addresses,
    /// What the actors are doing, for people.
    pub roster: Arc<Roster>,
    /// What happened, for subscribers.
    pub events: Events,
    /// Who asked for what, for those who learn from it.
    pub accesses: Arc<Accesses>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Why changes may go untold, while the operating system does not tell of all of them, and what is done instead.
    pub blind: Mutex<Option<String>>,
    /// Source files that do not build now.
    pub failures: Mutex<BTreeMap<String, BuildFailure>>,
    /// Fault drills.
    pub faults: Option<Arc<dyn Faults>>,
    /// Set when the runtime is stopping: ends are wanted.
    pub stopping: AtomicBool,
}

impl Shared {
    /// Counts a hit, and notes it if anybody listens. Part of the hit path.
    #[inline]
    pub fn hit(&self, id: AssetId, stored: bool, asset: &Asset, (priority, origin): (Priority, Origin)) {
        self.metrics.hits.one();
        if self.accesses.is_on() {
            self.note(Noted {
                id,
                stored,
                ticks: self.clock.ticks(),
                weight: asset.len() as u64,
                level: Level::Hit,
                priority,
                origin,
                latency_us: 0,
            });
        }
        if let Some(holders) = &self.holders {
            holders.took(asset, &self.table, self.clock.now());
        }
    }

    /// Notes an access, for those who listen.
    #[inline(never)]
    pub fn note(&self, noted: Noted) {
        self.accesses.note(&noted);
    }

    /// This moment, for those who listen.
    pub fn moment(&self) -> Moment {
        Moment { at: self.clock.now(), ticks: self.clock.ticks() }
    }

    /// A stage came up: whatever was held back for it may go on.
    pub fn stage_up(&self) {
        self.addresses.dispatcher.hint(DispatcherMessage::Ready);
    }

    /// Asks the evictor for room, of this kind when one is named; while it is parked, makes it here. Nobody says how
    /// much came of it but the budget.
    pub fn make_room(&self, bytes: u64, kind: Option<AssetKind>) {
        let make_room = EvictorMessage::MakeRoom { bytes, kind };
        if self.addresses.evictor.cast(make_room).is_err() && self.roster.is_parked("evictor") {
            // Serving goes on without the evictor: the oldest go, by the same policy, from a fresh start.
            eviction::make_room(self, bytes, kind);
        }
    }

    /// The lane of an asset by its distance from the nearest viewer, where there is one and the asset has a place.
    pub fn lane_of(&self, id: AssetId) -> Option<Priority> {
        self.surroundings.distance(id).map(|distance| self.config.schedule.distances.lane(distance))
    }

    /// How scarce memory is, for who may ask for less of it.
    pub fn pressure(&self) -> crate::policy::pressure::Level {
        self.budget.level()
    }

    /// By how much levels of detail come nearer under the pressure of now.
    pub fn nearer(&self) -> f32 {
        self.config.spatial.nearer(self.pressure() as u8)
    }

    /// Has what is above the budget's target evicted in the background; while the evictor is parked, does it here.
    pub fn relieve_budget(&self) {
        if self.addresses.evictor.cast(EvictorMessage::Relieve).is_err() && self.roster.is_parked("evictor") {
            eviction::make_room(self, self.budget.surplus_bytes(), None);
        }
    }

    /// Where an asset that the calling thread asks for is to be in memory, if that matters.
    pub fn place_for(&self, rule: AssetNode) -> Option<u8> {
        match rule {
            AssetNode::Any => None,
            AssetNode::Asker => self.nodes.current(),
        }
    }

    /// The decoder's threads next to the calling one: for look-ups that may have to wait for the disk.
    pub fn decoders_here(&self) -> &Pool {
        &self.decoders[usize::from(self.nodes.current().unwrap_or(0))]
    }

    /// Does for the tables of a new generation what is asked for, in place of those before. It may take as long as reading
    /// them.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the tables are.
    pub fn prepare_tables(&self, bundle: &Bundle) -> Result<()> {
        // The old locks go first: both at once may be more than the limit.
        let before = std::mem::take(&mut *self.tables.lock());
        drop(before);
        let prepared = bundle.prepare_tables(&self.config.tables)?;
        *self.tables.lock() = prepared;
        self.tables_prepared();
        Ok(())
    }

    /// Tells what could not be done about the tables.
    pub fn tables_prepared(&self) {
        if let Some(why) = &self.tables.lock().report().refused {
            let what = format!("the tables of contents are not prepared as asked for: {why}");
            tracing::warn!("{what}");
            self.events.send(Event::Warning { what });
        }
    }

    /// Runs the fault drill, if there is one.
    pub fn reached(&self, stage: &'static str, path: &AssetPath) {
        if let Some(faults) = &self.faults {
            faults.reached(stage, path);
        }
    }

    /// Whether the runtime is being stopped on purpose.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
