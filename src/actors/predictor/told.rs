//! Every access, hits too, where the predictor is to learn from all: read where threads note them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Seen, State};
use crate::actors::Shared;
use crate::config::Observe;
use crate::ids::{AssetId, AssetKind, Origin, Priority};
use crate::telemetry::accesses::{Level, Noted, Tap};

/// Look-ups that are remembered until their access is read.
const USES_MAX: usize = 1024;
/// Accesses that are learned from at once: the newest.
const ACCESSES_MAX: usize = 4096;

/// A place to listen at, and what was looked up for accesses that are not read yet.
pub(super) struct Told {
    tap: Tap,
    uses: HashMap<AssetId, Vec<AssetId>>,
}

impl Told {
    /// Listens from now on, where that is asked for.
    pub(super) fn listen(shared: &Shared) -> Option<Self> {
        let prediction = &shared.config.prediction;
        let is_wanted = prediction.enabled && prediction.observe == Observe::All;
        is_wanted.then(|| Self { tap: shared.accesses.tap(shared.moment()), uses: HashMap::new() })
    }

    /// What an asset uses that was just loaded.
    pub(super) fn remember(&mut self, id: AssetId, uses: &[AssetId]) {
        if !uses.is_empty() && self.uses.len() < USES_MAX {
            self.uses.insert(id, uses.to_vec());
        }
    }
}

impl State {
    /// Learns from what threads have noted since the last time.
    pub(super) fn take_in_told(&mut self) {
        let Some(mut told) = self.told.take() else { return };
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let (mut accesses, mut predicted) = (Vec::new(), Vec::new());
        told.tap.drain(shared.moment(), |access| {
            let is_asked = access.level.is_access() && access.level != Level::Failed;
            if is_asked && access.origin != Origin::Predictor {
                accesses.push((access.resident_id(), access.weight, access.level == Level::Hit));
            }
        });
        // The rest of a burst is not learned from: others wait for this thread.
        let skipped = accesses.len().saturating_sub(ACCESSES_MAX);
        accesses.drain(..skipped);
        let worked = shared.learned.work(|ensemble| {
            for (id, weight, is_hit) in &accesses {
                let kind = shared.table.candidate(*id).map_or(AssetKind::Other, |candidate| candidate.kind);
                let access = self.access(*id, *weight, kind, *is_hit, now);
                let uses = told.uses.get(id).map_or(&[][..], |uses| uses);
                let world = Seen { shared: &shared, order: self.order.as_deref(), uses };
                ensemble.accessed(&access, &world, &mut predicted);
            }
        });
        told.uses.clear();
        self.told = Some(told);
        self.accesses += accesses.len() as u64;
        if skipped > 0 {
            self.patience = super::LOOK.0;
        }
        if worked.is_some() {
            self.prefetch(predicted, now);
        }
    }
}

/// Notes what became of a prefetch, for those who listen.
pub(super) fn note(shared: &Shared, id: AssetId, level: Level) {
    if shared.accesses.is_on() {
        let weight = shared.table.candidate(id).map_or(0, |candidate| candidate.weight);
        let (stored, ticks, priority, origin) = (false, shared.clock.ticks(), Priority::Low, Origin::Predictor);
        shared.note(Noted { id, stored, ticks, weight, level, priority, origin, latency_us: 0 });
    }
}
