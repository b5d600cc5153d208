//! Debug mode: who holds what, and what was not given back.

use std::sync::Arc;

use serde::Serialize;

use super::Runtime;
use crate::actors::Shared;
use crate::ids::AssetPath;
use crate::residency::Holder;

/// Pinned assets that a report of leaks names.
const NAMED_MAX: usize = 64;

/// What a shutdown found not given back.
#[derive(Clone, Debug, Serialize)]
pub struct LeakReport {
    /// Bytes that are still charged and that no eviction gives back.
    pub tied_bytes: u64,
    /// Bytes of the reserve that are still charged.
    pub io_bytes: u64,
    /// Generations that somebody holds besides the one that readers see and those that are kept.
    pub generations: usize,
    /// The largest assets that somebody has a handle to, and their bytes.
    pub pinned: Vec<(AssetPath, u64)>,
    /// Who holds what, where that is remembered ([`crate::config::DebugConfig::holders`]).
    pub holders: Vec<Holder>,
    /// Buffers that somebody wrote to after they went back to a pool ([`crate::config::DebugConfig::poison`]).
    pub damaged_buffers: u64,
}

impl LeakReport {
    pub(super) fn of(shared: &Shared) -> Self {
        let budget = shared.budget.snapshot();
        let evictable = shared.table.evictable_bytes(usize::MAX);
        let now = shared.clock.now();
        let kept = shared.generations.kept().len();
        Self {
            tied_bytes: budget.charged.saturating_sub(evictable),
            io_bytes: budget.charged_io,
            generations: shared.generations.live_count().saturating_sub(kept),
            pinned: shared.table.largest_pinned(NAMED_MAX),
            holders: shared.holders.iter().flat_map(|known| known.report(&shared.table, false, now)).collect(),
            damaged_buffers: shared.damaged_buffers(),
        }
    }

    /// Whether everything was given back.
    pub fn is_clean(&self) -> bool {
        self.tied_bytes == 0 && self.io_bytes == 0 && self.generations == 0 && self.damaged_buffers == 0
    }
}

impl Shared {
    /// Who holds what is retired, a line for each.
    pub(super) fn holder_lines(&self) -> Vec<String> {
        let now = self.clock.now();
        let all = self.holders.iter().flat_map(|known| known.report(&self.table, true, now));
        all.take(NAMED_MAX).map(|holder| holder.to_string()).collect()
    }

    /// Buffers that were written to after they went back to a pool, as far as that is looked for.
    pub(super) fn damaged_buffers(&self) -> u64 {
        self.drivers.iter().filter_map(|driver| driver.pool()).map(|pool| pool.stats().damaged).sum()
    }
}

impl Runtime {
    /// Who holds snapshots and handles of generations that readers no longer see, the longest first; nobody unless
    /// [`crate::config::DebugConfig::holders`] is on.
    pub fn holders(&self) -> Vec<Holder> {
        let shared: &Arc<Shared> = self.shared();
        let now = shared.clock.now();
        shared.holders.iter().flat_map(|known| known.report(&shared.table, true, now)).collect()
    }
}
