//! What a runtime says of itself.

use std::time::Duration;

use serde::Serialize;

use super::{LeakReport, RecordingReport, WarmStats};
use crate::actors::{ActorReport, OutsideReport, Shared};
use crate::bundle::TablesReport;
use crate::error::Result;
use crate::event::BuildFailure;
use crate::ids::Generation;
use crate::platform::io::{Driver, DriverStats};
use crate::platform::threads::{Pool, PoolStats};
use crate::policy::bandwidth::BandwidthReport;
use crate::policy::eviction::PolicyReport;
pub use crate::policy::prediction::{ExpertStats, PredictionStats};
use crate::residency::{BudgetStats, LedgerStats, LockStats, ValueStats};
use crate::telemetry::MetricsReport;

/// Whether a runtime works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Health {
    /// It works; a part may be parked.
    Running = 0,
    /// It gave up; `Runtime::restart` brings it back.
    Failed = 1,
    /// It is being shut down.
    Stopping = 2,
    /// It is shut down.
    Stopped = 3,
}

impl Health {
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Failed,
            2 => Self::Stopping,
            _ => Self::Stopped,
        }
    }
}

/// What runs, what failed, what is served.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Whether it works.
    pub health: Health,
    /// Why it failed, while it is failed.
    pub cause: Option<String>,
    /// What is served: a folder or a bundle file.
    pub source: String,
    /// The folder of the store, when a folder is served.
    pub store: Option<String>,
    /// The generation that readers see.
    pub generation: Generation,
    /// Assets in it.
    pub assets: u64,
    /// Generations that somebody holds.
    pub live_generations: usize,
    /// What was done ahead about the tables of contents.
    pub tables: TablesReport,
    /// Who holds generations that readers no longer see, where that is remembered: the longest first, without backtraces.
    pub holders: Vec<String>,
    /// What there is of memory outside of the budget.
    pub memory: OutsideReport,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// The read engine of each node, and why it is not io_uring where it is not.
    pub engines: Vec<EngineStatus>,
    /// Every actor.
    pub actors: Vec<ActorReport>,
    /// Why changes of the tree may go untold, while the operating system does not tell of all of them, and what is done
    /// instead.
    pub blind: Option<String>,
    /// Source files that do not build now.
    pub failures: Vec<BuildFailure>,
}

/// One node's read engine, and the threads that decode what it reads.
#[derive(Clone, Debug, Serialize)]
pub struct EngineStatus {
    /// The operating system's number of the node.
    pub node: usize,
    /// "io_uring" or "positioned".
    pub engine: &'static str,
    /// Why it is not the other.
    pub note: Option<String>,
    /// Reads with it now.
    pub in_flight: usize,
    /// Its counters.
    pub stats: DriverStats,
    /// The threads that decode there.
    pub decoding: PoolStats,
}

impl Status {
    pub(super) fn of(shared: &Shared, health: Health, cause: Option<String>, source: &str, uptime: Duration) -> Self {
        let live = shared.generations.current();
        let engine = |(place, (driver, decoders)): (usize, (&std::sync::Arc<Driver<_>>, &Pool))| EngineStatus {
            node: shared.nodes.number(place).unwrap_or(0),
            engine: driver.engine(),
            note: driver.engine_note(),
            in_flight: driver.in_flight(),
            stats: driver.stats(),
            decoding: decoders.stats(),
        };
        Self {
            health,
            cause,
            source: source.to_owned(),
            store: shared.workshop.as_ref().map(|workshop| workshop.store().display().to_string()),
            generation: live.generation(),
            assets: live.bundle().info().assets,
            live_generations: shared.generations.live_count(),
            tables: shared.tables.lock().report().clone(),
            holders: shared.holder_lines(),
            memory: shared.outside_report(),
            uptime_seconds: uptime.as_secs_f64(),
            engines: shared.drivers.iter().zip(&shared.decoders).enumerate().map(engine).collect(),
            actors: shared.roster.report(),
            blind: shared.blind.lock().clone(),
            failures: shared.failures.lock().values().cloned().collect(),
        }
    }
}

/// Counters, budgets, queues and latencies.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Hits, misses, reads, evictions, latencies.
    pub metrics: MetricsReport,
    /// What memory is charged.
    pub budget: BudgetStats,
    /// Open requests, and how earlier ones ended.
    pub ledger: LedgerStats,
    /// What was read by priority, and how fast it may be.
    pub bandwidth: BandwidthReport,
    /// Decoded values.
    pub values: ValueStats,
    /// What was loaded ahead, and what became of it.
    pub warming: WarmStats,
    /// What is locked in memory.
    pub locks: LockStats,
    /// Assets that are resident.
    pub resident: usize,
    /// The eviction policy, and what it last said of itself.
    pub eviction: PolicyReport,
    /// What prediction is worth.
    pub prediction: PredictionStats,
}

impl Stats {
    pub(super) fn of(shared: &Shared, warming: WarmStats) -> Self {
        Self {
            warming,
            metrics: shared.metrics.report(),
            budget: shared.budget.snapshot(),
            ledger: shared.ledger.stats(),
            bandwidth: shared.bandwidth.lock().report(shared.clock.now()),
            values: shared.values.stats(),
            locks: shared.locks.stats(),
            resident: shared.table.stats().assets,
            eviction: shared.eviction.report(),
            prediction: shared.learned.stats(),
        }
    }
}

/// How a shutdown went.
#[derive(Debug)]
pub struct ShutdownReport {
    /// Requests that were open when it began and were answered.
    pub answered: u64,
    /// Requests that were answered with `ShutDown` at the deadline.
    pub abandoned: u64,
    /// Whether every request was answered before the deadline.
    pub in_time: bool,
    /// How long it took.
    pub took: Duration,
    /// Whether the newest generation is durable.
    pub committed: Result<()>,
    /// What was recorded, where that was asked for with the start.
    pub recorded: Option<Result<RecordingReport>>,
    /// What was not given back, where that is asked for ([`crate::config::DebugConfig::leaks`]).
    pub leaks: Option<LeakReport>,
}
