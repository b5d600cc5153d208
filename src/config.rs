//! Every value that a program may set, its default, and what makes it unusable.

mod bandwidth;
mod budget;
mod debug;
mod eviction;
mod place;
mod prediction;
mod schedule;
mod settings;
mod spatial;
mod warm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::budget::BudgetConfig;
pub use self::debug::DebugConfig;
use crate::error::{Error, Result};
use crate::ids::AssetKind;
use crate::limits;

pub use bandwidth::{BANDWIDTH_MAX, BANDWIDTH_MIN, BandwidthConfig, SharesConfig};
pub use eviction::{EvictionConfig, EvictionObjective, EvictionPolicy, EvictionWeights};
pub use place::{LEVELS_MAX, Level, METRES_MAX, PLACES_MAX, Place};
pub use prediction::{ExpertsConfig, Observe, PredictionConfig};
pub use schedule::{LaneDistances, ScheduleConfig, Weights};
pub use settings::RuntimeSettings;
pub use spatial::SpatialConfig;
pub use warm::WarmConfig;

/// How bytes are laid out in a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Frames of at most 64 KiB decoded: quick to reach one asset. The default.
    #[default]
    Access,
    /// Frames of up to 1 MiB: smallest to ship.
    Dense,
}

impl Layout {
    /// The largest decoded frame, in bytes.
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Access => limits::FRAME_ACCESS_BYTES_MAX,
            Self::Dense => limits::FRAME_BYTES_MAX,
        }
    }

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Dense => "dense",
        }
    }
}

/// Which read engine the I/O workers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// io_uring on Linux and a completion port on Windows where a probe finds them working, positioned reads elsewhere.
    /// The default.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Overlapped reads, completed through an I/O completion port (Windows), or an error.
    Iocp,
    /// Positioned reads on threads: portable.
    Positioned,
}

/// How I/O workers are pinned to the processors of their NUMA node. On a machine with several nodes the threads that
/// decode are pinned to their node's whole set, unless nothing is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pinning {
    /// To one core where the node has cores to spare (four or more), else to the node's set. The default.
    #[default]
    Auto,
    /// To one core.
    Core,
    /// To the node's whole set.
    Node,
    /// Not at all.
    Off,
}

/// Which NUMA node's memory a loaded asset is put in, on a machine with several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssetNode {
    /// The one whose I/O worker has the least to do. The default.
    #[default]
    Any,
    /// The one that the asking thread runs on when it asks; of several threads that ask for the same, the first one's.
    Asker,
}

/// What is checked on a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// The stored bytes of each frame, against the authenticated table of contents. The default.
    #[default]
    Frames,
    /// The content hash of the decoded bytes as well.
    Content,
}

/// Which reads go past the operating system's page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectIo {
    /// Those of bundles larger than half of the memory that this process may use. Of a smaller one the page cache keeps
    /// what it may, so that an asset which was evicted comes back at the cost of a copy. The default.
    #[default]
    Auto,
    /// All, where the file system takes them.
    Always,
    /// None.
    Never,
}

/// How bundles are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoConfig {
    /// Which reads go past the page cache. Default [`DirectIo::Auto`].
    pub direct: DirectIo,
    /// The same for assets of a kind; a kind that is not named follows `direct`. Default none.
    pub kind_direct: BTreeMap<AssetKind, DirectIo>,
    /// Whether fewer reads than `queue_depth` are kept with the device where more gain nothing: urgent reads then wait
    /// behind fewer others. Default `true`.
    pub adaptive_depth: bool,
    /// Lets a thread of the kernel take submissions without a system call. It keeps a processor busy while there are
    /// any and for this long after the last, 1 ms to 60 s. Default `None`: no such thread.
    pub sqpoll: Option<Duration>,
    /// Bytes of the pool that compressed frames are read into, for each I/O worker, at most the I/O reserve; locked in
    /// memory as far as the limit allows. Default 8 MiB.
    pub pool_bytes: u64,
}

impl Default for IoConfig {
    fn default() -> Self {
        let (direct, kind_direct) = (DirectIo::default(), BTreeMap::new());
        Self { direct, kind_direct, adaptive_depth: true, sqpoll: None, pool_bytes: limits::IO_POOL_BYTES }
    }
}

impl IoConfig {
    /// Whether an asset of this kind is read past the page cache, from a bundle of `file_bytes` by a process that may use
    /// `memory_bytes` of memory.
    pub fn is_direct(&self, kind: AssetKind, file_bytes: u64, memory_bytes: u64) -> bool {
        match self.kind_direct.get(&kind).copied().unwrap_or(self.direct) {
            DirectIo::Always => true,
            DirectIo::Never => false,
            DirectIo::Auto => file_bytes > memory_bytes / 2,
        }
    }
}

/// What is done about mapped tables of contents before somebody reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TablesConfig {
    /// Whether a bundle of at most [`limits::POPULATE_BYTES_MAX`], or else its tables alone, are in memory before the
    /// start returns: the first look-ups then wait for no disk. Default `false`.
    pub populate: bool,
    /// Whether the tables are kept in memory (`mlock`), as far as the limit on locked memory allows;
    /// [`crate::runtime::Status::tables`] says how far that was. Default `false`.
    pub lock: bool,
}

/// When a change set is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettleConfig {
    /// While events keep coming the set stays open until this much quiet. Default 5 ms.
    pub quiet: Duration,
    /// The longest that a set stays open. Default 100 ms.
    pub open_max: Duration,
    /// How long a file that was not there before waits for more when it is written, since it may be a temporary that is
    /// about to be renamed. Default 1 ms.
    pub fresh: Duration,
    /// How long a write that is not finished waits for more of it, and a name that stands for nothing for a file that
    /// takes its place. Default 20 ms.
    pub unfinished: Duration,
    /// The longest that these hold a set open. Default 100 ms.
    pub unfinished_max: Duration,
    /// The longest that a version control's lock holds a set open. Default 2 s.
    pub lock_max: Duration,
}

impl Default for SettleConfig {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(5),
            open_max: Duration::from_millis(100),
            fresh: Duration::from_millis(1),
            unfinished: Duration::from_millis(20),
            unfinished_max: Duration::from_millis(100),
            lock_max: Duration::from_secs(2),
        }
    }
}

/// Whether a watched tree is also looked at from time to time. Looking costs what finding out about every file of the
/// tree costs, and nothing is read or published unless something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PollConfig {
    /// How often the tree is looked at where the operating system does not tell of all changes: on file systems that
    /// others may change, and where it has no more watches. `None`: never. Default 2 s.
    pub period: Option<Duration>,
    /// Whether it is looked at that often also where the operating system tells of everything. Default `false`.
    pub always: bool,
}

impl Default for PollConfig {
    fn default() -> Self {
        Self { period: Some(Duration::from_secs(2)), always: false }
    }
}

/// The configuration of a runtime. Every field has a default; [`RuntimeConfig::validate`] names the field it refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// Bytes of memory charged at most: resident, in flight, retired. Default 512 MiB.
    pub budget_bytes: u64,
    /// Bytes charged at most per kind; a kind that is not named is bounded by the total alone. Default none.
    pub kind_budget_bytes: BTreeMap<AssetKind, u64>,
    /// How the budget is shared, and what happens as it fills.
    #[serde(default)]
    pub budget: BudgetConfig,
    /// What is watched to find a fault of the program.
    #[serde(default)]
    pub debug: DebugConfig,
    /// The read engine. Default [`Engine::Auto`].
    pub engine: Engine,
    /// How I/O workers are pinned. Default [`Pinning::Auto`].
    pub pinning: Pinning,
    /// Processors for I/O workers: each worker runs on those of its node that are named, whatever `pinning` would choose.
    /// Default none.
    pub io_cpus: Vec<usize>,
    /// Which NUMA node's memory assets are put in, where a request does not say. Default [`AssetNode::Any`].
    pub asset_node: AssetNode,
    /// Reads that one I/O worker keeps with the kernel, 1 to 1024. Default 64.
    pub queue_depth: usize,
    /// How bundles are read.
    pub io: IoConfig,
    /// Threads that decode; 0 for one per core, at most 64. Every NUMA node has its share of them, at least one.
    /// Default 0.
    pub decode_threads: usize,
    /// Threads that build; 0 for one per core, at most 64. Default 0.
    pub build_threads: usize,
    /// What is checked on a load. Default [`Integrity::Frames`].
    pub integrity: Integrity,
    /// Whether tables of contents are mapped; `false` reads pages, for files that others may truncate. Default `true`.
    pub mapping: bool,
    /// What is done ahead about mapped tables. Default nothing.
    pub tables: TablesConfig,
    /// How long a load waits for memory that is pinned. Default 5 s.
    pub memory_wait: Duration,
    /// The deadline of a request that names none; `None` waits as long as it takes. Default `None`.
    pub deadline: Option<Duration>,
    /// Whether the dependencies of a loaded asset are prefetched at low priority. Default `true`.
    pub prefetch_dependencies: bool,
    /// How assets are predicted.
    #[serde(default)]
    pub prediction: PredictionConfig,
    /// What is loaded ahead, and what is remembered for the next start.
    #[serde(default)]
    pub warm: WarmConfig,
    /// Whether a source directory is watched and reloaded. Default `false`.
    pub watch: bool,
    /// When a change set is complete.
    pub settle: SettleConfig,
    /// Whether the flyloft.toml of a source directory may run programs, by the transform `command`: as whoever runs
    /// this, with all that they may do. Otherwise a rule that would is an error. Default `false`.
    #[serde(default)]
    pub allow_commands: bool,
    /// How many generations stay loadable besides the one that readers see, and can be gone back to; at most 256. What is
    /// resident of them alone is evicted as anything else is. Default 0.
    #[serde(default)]
    pub retain_generations: usize,
    /// How long a publication waits for values that a program watches to be decoded; those that take longer are replaced
    /// after it. At most 10 s. Default 20 ms.
    #[serde(default = "watched_wait")]
    pub watched_wait: Duration,
    /// Whether a watched directory is also looked at from time to time.
    #[serde(default)]
    pub poll: PollConfig,
    /// The layout of a store's bundle. Default [`Layout::Access`].
    pub layout: Layout,
    /// The folder of the served tree's store; `None` for one in the user's cache folder. Default `None`.
    pub store: Option<PathBuf>,
    /// The folder of the action cache, which other trees and machines may share; `None` for one in the store. Default
    /// `None`.
    pub action_cache: Option<PathBuf>,
    /// Bytes kept in the action cache at most, about; 0 for no such cache, else at least 1 MiB. Default 1 GiB.
    pub action_cache_bytes: u64,
    /// Requests that may be open at once. Default and bound 4,194,304.
    pub open_requests_max: usize,
    /// What makes room when the budget is full.
    #[serde(default)]
    pub eviction: EvictionConfig,
    /// The order in which loads that wait are read.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// What is asked for ahead of viewers.
    #[serde(default)]
    pub spatial: SpatialConfig,
    /// How much is read per second. Default without a limit.
    #[serde(default)]
    pub bandwidth: BandwidthConfig,
}

fn watched_wait() -> Duration {
    Duration::from_millis(20)
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            budget_bytes: 512 << 20,
            kind_budget_bytes: BTreeMap::new(),
            budget: BudgetConfig::default(),
            debug: DebugConfig::default(),
            engine: Engine::default(),
            pinning: Pinning::default(),
            io_cpus: Vec::new(),
            asset_node: AssetNode::default(),
            queue_depth: 64,
            io: IoConfig::default(),
            decode_threads: 0,
            build_threads: 0,
            integrity: Integrity::default(),
            mapping: true,
            tables: TablesConfig::default(),
            memory_wait: Duration::from_secs(5),
            deadline: None,
            prefetch_dependencies: true,
            prediction: PredictionConfig::default(),
            warm: WarmConfig::default(),
            watch: false,
            settle: SettleConfig::default(),
            allow_commands: false,
            retain_generations: 0,
            watched_wait: watched_wait(),
            poll: PollConfig::default(),
            layout: Layout::default(),
            store: None,
            action_cache: None,
            action_cache_bytes: 1 << 30,
            open_requests_max: limits::OPEN_REQUESTS_MAX,
            eviction: EvictionConfig::default(),
            schedule: ScheduleConfig::default(),
            spatial: SpatialConfig::default(),
            bandwidth: BandwidthConfig::default(),
        }
    }
}

/// The part of a budget that is for compressed buffers in flight and decoding scratch: an eighth of it, at least 4 MiB
/// and at most 32 MiB. The rest may be resident.
pub fn io_reserve_bytes(budget_bytes: u64) -> u64 {
    (budget_bytes / 8).clamp(limits::IO_RESERVE_BYTES_MIN, limits::IO_RESERVE_BYTES_MAX)
}

impl RuntimeConfig {
    /// The part of the budget for what is on its way: see [`io_reserve_bytes`].
    pub fn io_reserve_bytes(&self) -> u64 {
        io_reserve_bytes(self.budget_bytes)
    }

    /// Bytes of each I/O worker's pool: what is asked for, as far as the reserve of a small budget allows.
    pub fn io_pool_bytes(&self) -> u64 {
        self.io.pool_bytes.min(self.io_reserve_bytes())
    }

    /// The largest asset that may be resident.
    pub fn resident_bytes_max(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.io_reserve_bytes())
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if self.budget_bytes < limits::BUDGET_BYTES_MIN {
            return Err(Error::config(
                "budget_bytes",
                format!("{} is below the smallest budget of {} bytes", self.budget_bytes, limits::BUDGET_BYTES_MIN),
            ));
        }
        for (kind, bytes) in &self.kind_budget_bytes {
            if *bytes > self.budget_bytes {
                return Err(Error::config(
                    format!("kind_budget_bytes.{kind}"),
                    format!("{bytes} is above budget_bytes, {}", self.budget_bytes),
                ));
            }
            if *bytes == 0 {
                let why = "it is zero: nothing of this kind could be loaded";
                return Err(Error::config(format!("kind_budget_bytes.{kind}"), why));
            }
        }
        self.budget.validate(self.resident_bytes_max())?;
        self.debug.validate()?;
        let within = |field: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(field, format!("{value} is not within {least} to {most}")))
            }
        };
        within("queue_depth", self.queue_depth, 1, limits::READS_IN_FLIGHT_MAX)?;
        if !(limits::IO_POOL_BYTES_MIN..=limits::IO_RESERVE_BYTES_MAX).contains(&self.io.pool_bytes) {
            let (least, most) = (limits::IO_POOL_BYTES_MIN, limits::IO_RESERVE_BYTES_MAX);
            let why = format!("{} is not within {least} to {most}", self.io.pool_bytes);
            return Err(Error::config("io.pool_bytes", why));
        }
        if (1..limits::ACTION_CACHE_BYTES_MIN).contains(&self.action_cache_bytes) {
            let why = format!("{} is below {}; 0 is none", self.action_cache_bytes, limits::ACTION_CACHE_BYTES_MIN);
            return Err(Error::config("action_cache_bytes", why));
        }
        let sqpoll = Duration::from_millis(1)..=Duration::from_secs(60);
        if self.io.sqpoll.is_some_and(|idle| !sqpoll.contains(&idle)) {
            return Err(Error::config("io.sqpoll", "it is not within 1 ms to 60 s"));
        }
        within("decode_threads", self.decode_threads, 0, 64)?;
        within("build_threads", self.build_threads, 0, 64)?;
        within("open_requests_max", self.open_requests_max, 1, limits::OPEN_REQUESTS_MAX)?;
        for (field, wanted) in [("tables.populate", self.tables.populate), ("tables.lock", self.tables.lock)] {
            if wanted && !self.mapping {
                return Err(Error::config(
                    field,
                    "mapping is off: tables that are read page by page cannot be prepared",
                ));
            }
        }
        if self.settle.quiet > self.settle.open_max {
            return Err(Error::config("settle.quiet", "it is longer than settle.open_max"));
        }
        if self.settle.open_max > Duration::from_secs(60) {
            return Err(Error::config("settle.open_max", "it is longer than 60 s"));
        }
        if self.settle.fresh > self.settle.open_max {
            return Err(Error::config("settle.fresh", "it is longer than settle.open_max"));
        }
        if self.settle.unfinished > self.settle.unfinished_max {
            return Err(Error::config("settle.unfinished", "it is longer than settle.unfinished_max"));
        }
        if self.settle.unfinished_max > Duration::from_secs(60) {
            return Err(Error::config("settle.unfinished_max", "it is longer than 60 s"));
        }
        if self.settle.lock_max > Duration::from_secs(600) {
            return Err(Error::config("settle.lock_max", "it is longer than 600 s"));
        }
        within("retain_generations", self.retain_generations, 0, limits::GENERATIONS_RETAINED_MAX)?;
        if self.watched_wait > Duration::from_secs(10) {
            return Err(Error::config("watched_wait", "it is longer than 10 s"));
        }
        let period = Duration::from_millis(50)..=Duration::from_secs(86_400);
        if self.poll.period.is_some_and(|asked| !period.contains(&asked)) {
            return Err(Error::config("poll.period", "it is not within 50 ms to a day"));
        }
        if self.poll.always && self.poll.period.is_none() {
            return Err(Error::config("poll.always", "poll.period is none: say how often"));
        }
        self.prediction.validate()?;
        self.warm.validate()?;
        if self.memory_wait.is_zero() {
            return Err(Error::config("memory_wait", "it is zero: no load could ever wait for an eviction"));
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err(Error::config("deadline", "it is zero: no load could be answered"));
        }
        self.eviction.validate()?;
        self.schedule.validate()?;
        self.spatial.validate()?;
        self.bandwidth.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_bad_value_is_refused_by_name() {
        RuntimeConfig::default().validate().unwrap();
        let check = |field: &str, change: fn(&mut RuntimeConfig)| {
            let mut config = RuntimeConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check("budget_bytes", |config| config.budget_bytes = 4096);
        check("kind_budget_bytes.texture", |config| {
            config.kind_budget_bytes.insert(AssetKind::Texture, u64::MAX);
        });
        check("kind_budget_bytes.mesh", |config| {
            config.kind_budget_bytes.insert(AssetKind::Mesh, 0);
        });
        check("debug.warn_after", |config| config.debug.warn_after = Duration::ZERO);
        check("budget.critical_reserve_bytes", |config| config.budget.critical_reserve_bytes = config.budget_bytes);
        check("queue_depth", |config| config.queue_depth = 0);
        check("io.pool_bytes", |config| config.io.pool_bytes = 0);
        check("io.sqpoll", |config| config.io.sqpoll = Some(Duration::ZERO));
        check("decode_threads", |config| config.decode_threads = 65);
        check("build_threads", |config| config.build_threads = 65);
        check("open_requests_max", |config| config.open_requests_max = 0);
        check("tables.populate", |config| (config.mapping, config.tables.populate) = (false, true));
        check("tables.lock", |config| (config.mapping, config.tables.lock) = (false, true));
        check("settle.quiet", |config| config.settle.quiet = Duration::from_secs(1));
        check("settle.open_max", |config| config.settle.open_max = Duration::from_secs(61));
        check("settle.fresh", |config| config.settle.fresh = Duration::from_secs(1));
        check("settle.unfinished", |config| config.settle.unfinished = Duration::from_secs(1));
        check("settle.unfinished_max", |config| config.settle.unfinished_max = Duration::from_secs(61));
        check("poll.period", |config| config.poll.period = Some(Duration::ZERO));
        check("poll.always", |config| (config.poll.period, config.poll.always) = (None, true));
        check("settle.lock_max", |config| config.settle.lock_max = Duration::from_secs(601));
        check("action_cache_bytes", |config| config.action_cache_bytes = 1);
        check("retain_generations", |config| config.retain_generations = 257);
        check("watched_wait", |config| config.watched_wait = Duration::from_secs(11));
        check("warm.percent", |config| config.warm.percent = 0);
        check("warm.at_once", |config| config.warm.at_once = 257);
        check("prediction.distance", |config| config.prediction.distance = 0);
        check("memory_wait", |config| config.memory_wait = Duration::ZERO);
        check("deadline", |config| config.deadline = Some(Duration::ZERO));
        check("eviction.weights.age", |config| config.eviction.weights.age = f32::NAN);
        check("spatial.reach_m", |config| config.spatial.reach_m = -1.0);
        check("eviction.weights.age", |config| config.eviction.weights.age = f32::NAN);
        check("schedule.weights.view", |config| config.schedule.weights.view = -1.0);
        check("bandwidth.shares.low", |config| config.bandwidth.shares.low = 0);
    }

    #[test]
    fn direct_reads_are_for_bundles_that_the_cache_cannot_hold_and_a_kind_may_differ() {
        let mut io = IoConfig::default();
        let small = |io: &IoConfig| io.is_direct(AssetKind::Texture, 4 << 30, 8 << 30);
        assert!(!small(&io) && io.is_direct(AssetKind::Texture, (4 << 30) + 1, 8 << 30));
        io.kind_direct.insert(AssetKind::Texture, DirectIo::Always);
        assert!(small(&io) && !io.is_direct(AssetKind::Mesh, 0, 8 << 30));
        io.direct = DirectIo::Never;
        assert!(small(&io) && !io.is_direct(AssetKind::Mesh, u64::MAX, 8 << 30));
    }

    #[test]
    fn the_reserve_is_part_of_the_budget() {
        let mut config = RuntimeConfig::default();
        assert_eq!(config.io_reserve_bytes(), 32 << 20);
        config.budget_bytes = limits::BUDGET_BYTES_MIN;
        assert_eq!(config.io_reserve_bytes(), 4 << 20);
        assert_eq!(config.resident_bytes_max(), 4 << 20);
    }
}
