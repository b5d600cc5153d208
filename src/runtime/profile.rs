//! Where memory is: by stage, by kind, by size, and what of it is waste.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Runtime;
use crate::actors::OutsideReport;
use crate::event::PressureLevel;
use crate::ids::AssetKind;
use crate::platform::memory::{self, Faults, HeapStats, PoolStats};
use crate::residency::{LockStats, SizeClass};

/// Assets that are looked at for a profile; of more, about as many, spread over all.
const LOOKED_AT_MAX: usize = 50_000;

/// Where memory is. Cheap enough to be asked for once in a second; of more than 50,000 resident assets about as many are
/// looked at, and what is said of the stages is an estimate then.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryProfile {
    /// All of the budget, in bytes.
    pub budget_bytes: u64,
    /// How much of it is tied up.
    pub level: PressureLevel,
    /// Bytes charged now, and the most that ever were.
    pub current_bytes: u64,
    /// The most bytes that were charged at once.
    pub peak_bytes: u64,
    /// Bytes charged since the start.
    pub allocated_bytes: u64,
    /// Bytes given back since the start.
    pub freed_bytes: u64,
    /// Charges by size, in powers of two.
    pub sizes: Vec<SizeClass>,
    /// Bytes charged, by kind.
    pub by_kind: BTreeMap<AssetKind, u64>,
    /// Bytes charged, by what they are for.
    pub stages: Stages,
    /// What is locked in memory.
    pub locks: LockStats,
    /// The heap that contents are taken from, of all nodes together.
    pub heap: Option<HeapStats>,
    /// The part of the heap's memory that is in nobody's use, from 0 to 1: gaps between blocks that are lent.
    pub heap_waste: f64,
    /// The pool of each read engine.
    pub pools: Vec<PoolStats>,
    /// Physical memory of this process now, in bytes, where the system says.
    pub resident_set_bytes: Option<u64>,
    /// The most physical memory that it ever had.
    pub resident_set_peak_bytes: Option<u64>,
    /// Page faults of this process since its start, where the system says.
    pub faults: Option<Faults>,
    /// What there is of memory outside of the budget.
    pub outside: OutsideReport,
}

/// Bytes charged, by what they are for. All but `in_flight_compressed` and `tables` add up to what is charged for contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stages {
    /// Stored bytes on their way, and scratch of decoding: of the reserve.
    pub in_flight_compressed: u64,
    /// Memory that contents are being read or decoded into, and whatever else is charged and in no other stage: contents
    /// that were evicted while somebody held them, for one.
    pub in_flight_decoded: u64,
    /// Contents that readers see and nobody holds: evicted when room is needed.
    pub cached: u64,
    /// Contents that readers see and somebody holds.
    pub held: u64,
    /// Contents of older generations.
    pub retired: u64,
    /// Decoded values.
    pub values: u64,
    /// Contents that wait to be freed.
    pub waiting_to_be_freed: u64,
    /// Tables of contents that are kept in memory: not charged.
    pub tables: u64,
}

impl Runtime {
    /// Where memory is now.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let profile = runtime.memory_profile();
    /// println!("{} of {} bytes, {} of them cached", profile.current_bytes, profile.budget_bytes, profile.stages.cached);
    /// # }
    /// ```
    pub fn memory_profile(&self) -> MemoryProfile {
        let shared = self.shared();
        let table = shared.table.tally(LOOKED_AT_MAX);
        let budget = shared.budget.snapshot();
        let (allocated_bytes, freed_bytes) = shared.budget.totals();
        let (values, waiting) = (shared.values.bytes(), shared.budget.waiting_to_be_freed());
        let known = table.cached + table.held + table.ended + values + waiting;
        let stages = Stages {
            in_flight_compressed: budget.charged_io,
            in_flight_decoded: budget.charged.saturating_sub(known),
            cached: table.cached,
            held: table.held,
            retired: table.ended,
            values,
            waiting_to_be_freed: waiting,
            tables: shared.tables.lock().report().locked_bytes,
        };
        let resident = memory::resident_set_bytes();
        let waste = |heap: &HeapStats| 1.0 - heap.lent_bytes as f64 / heap.reached_bytes.max(1) as f64;
        MemoryProfile {
            budget_bytes: budget.total,
            level: budget.level,
            current_bytes: budget.charged + budget.charged_io,
            peak_bytes: budget.peak,
            allocated_bytes,
            freed_bytes,
            sizes: shared.budget.size_classes(),
            by_kind: budget.by_kind,
            stages,
            locks: shared.locks.stats(),
            heap_waste: budget.heap.as_ref().filter(|heap| heap.reached_bytes > 0).map_or(0.0, waste).max(0.0),
            heap: budget.heap,
            pools: shared.drivers.iter().filter_map(|driver| driver.pool()).map(|pool| pool.stats()).collect(),
            resident_set_bytes: resident.map(|set| set.now_bytes),
            resident_set_peak_bytes: resident.map(|set| set.peak_bytes),
            faults: memory::faults(),
            outside: shared.outside_report(),
        }
    }
}
