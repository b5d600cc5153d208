//! Carrying out what an eviction policy decides: for the evictor, and for whoever needs room while it is parked.

use super::Shared;
use crate::ids::{AssetId, AssetKind, Priority};
use crate::messages::DispatcherMessage;
use crate::policy::eviction::{Admitted, Eviction, Lru, Removal};
use crate::residency::Candidate;
use crate::residency::surroundings::Viewed;

/// Choices at most for one wish: a victim may be held by someone the moment it is to go, and frees nothing then.
const ROUNDS_MAX: usize = 4;

/// Evicts without an evictor, while that is parked: a policy built for this once from the table.
pub fn make_room(shared: &Shared, bytes: u64, kind: Option<AssetKind>) {
    evict(shared, policy_of(shared).as_mut(), bytes, kind);
}

/// About how long loading this many bytes again takes: a read's latency, and a gigabyte in a second.
pub fn reload_cost_us(bytes: u64) -> f32 {
    100.0 + bytes as f32 / 1000.0
}

/// A policy that knows what is resident now.
pub fn policy_of(shared: &Shared) -> Box<dyn Eviction> {
    let mut policy = Lru::new();
    let mut resident = shared.table.candidates();
    resident.sort_unstable_by_key(|candidate| (candidate.usage.tick(), candidate.id));
    for Candidate { id, weight, kind, usage, .. } in resident {
        let (tick, cost_us, priority) = (usage.tick(), reload_cost_us(weight), Priority::Medium);
        policy.admitted(&Admitted { id, weight, kind, tick, cost_us, priority, speculative: false });
    }
    Box::new(policy)
}

/// Lets `policy` choose, unlinks what it chose, and says so.
pub fn evict(shared: &Shared, policy: &mut dyn Eviction, bytes: u64, kind: Option<AssetKind>) {
    let (mut unlinked, mut count) = (0, 0);
    let view = Viewed::new(&shared.table, &shared.surroundings);
    for _ in 0..ROUNDS_MAX {
        let mut victims: Vec<AssetId> = Vec::new();
        policy.choose(bytes.saturating_sub(unlinked), kind, &view, &mut victims);
        unlinked += shared.table.evict_all(&victims);
        shared.history.evicted(&victims, shared.clock.now(), bytes, kind);
        victims.iter().for_each(|id| policy.removed(*id, Removal::Evicted, None));
        count += victims.len();
        if victims.is_empty() || unlinked >= bytes {
            break;
        }
    }
    if unlinked < bytes {
        // What nobody uses of what is pinned, or is not in the table any more.
        unlinked += shared.values.let_go(bytes - unlinked, kind);
    }
    shared.metrics.evictions.add(count as u64);
    shared.metrics.evicted_bytes.add(unlinked);
    tracing::debug!(victims = count, unlinked, asked = bytes, "evicted");
    if unlinked > 0 {
        // A dispatcher that is down tries again by itself when it is up.
        shared.addresses.dispatcher.hint(DispatcherMessage::Evicted);
    }
}
