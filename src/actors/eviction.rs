//! Carrying out what an eviction policy decides: for the evictor, and for whoever needs room while it is parked.

use std::fmt;

use parking_lot::Mutex;

use super::Shared;
use crate::bundle::Placement;
use crate::config::EvictionConfig;
use crate::ids::{AssetId, AssetKind, Priority};
use crate::messages::DispatcherMessage;
use crate::policy::eviction::{self, Admitted, Eviction, PolicyReport, Removal, Usage};
use crate::residency::Candidate;
use crate::residency::surroundings::Viewed;
use crate::telemetry::Rates;

/// Choices at most for one wish: a victim may be held by someone the moment it is to go, and frees nothing then.
const ROUNDS_MAX: usize = 4;
/// The codec's number that is taken for what is not known: most of what is worth it is compressed so.
const CODEC_USUAL: usize = crate::bundle::Codec::Zstd as usize;

/// Which policy is in use, and what it last said of itself. It outlives the evictor, which owns the policy.
pub struct EvictionChoice {
    config: Mutex<EvictionConfig>,
    report: Mutex<PolicyReport>,
}

impl EvictionChoice {
    /// The policy of a validated configuration.
    pub fn new(config: EvictionConfig) -> Self {
        let report = eviction::build(&config).report();
        Self { config: Mutex::new(config), report: Mutex::new(report) }
    }

    /// The choice now.
    pub fn config(&self) -> EvictionConfig {
        *self.config.lock()
    }

    /// Another choice, a validated one.
    pub fn set(&self, config: EvictionConfig) {
        *self.config.lock() = config;
    }

    /// What the policy last said of itself.
    pub fn report(&self) -> PolicyReport {
        self.report.lock().clone()
    }

    /// What the policy says of itself now.
    pub fn reported(&self, report: PolicyReport) {
        *self.report.lock() = report;
    }
}

/// Why something is evicted.
#[derive(Clone, Copy, Debug)]
pub enum Reason {
    /// A load needs room in the budget, or in that of its kind.
    Room(Option<AssetKind>),
    /// The pressure is high.
    Pressure,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(None) => f.write_str("the budget is full"),
            Self::Room(Some(kind)) => write!(f, "the budget of {kind} is full"),
            Self::Pressure => f.write_str("the pressure is high"),
        }
    }
}

/// Evicts without an evictor, while that is parked: a policy built for this once from the table.
pub fn make_room(shared: &Shared, bytes: u64, kind: Option<AssetKind>) {
    evict(shared, policy_of(shared).as_mut(), bytes, Reason::Room(kind));
}

/// About how long loading this again takes: its reads, and the decoding of its frames. Frames that follow each other in the
/// file are one read.
pub fn reload_cost_us(rates: &Rates, placement: &Placement) -> f32 {
    let (mut cost_us, mut read_bytes, mut end, mut last) = (0.0, 0, None, None);
    for piece in &placement.pieces {
        let frame = &piece.frame;
        // A frame that several pieces are of is read and decoded once.
        if last.replace(frame.number) == Some(frame.number) {
            continue;
        }
        if end != Some(frame.offset) && read_bytes > 0 {
            cost_us += rates.read_us(std::mem::take(&mut read_bytes));
        }
        read_bytes += u64::from(frame.stored_len);
        end = Some(frame.offset + u64::from(frame.stored_len));
        cost_us += frame.decoded_len as f32 * rates.decode_us_per_byte[frame.codec as usize];
    }
    cost_us + rates.read_us(read_bytes)
}

/// The same where nothing is known but the bytes.
pub fn cost_of_bytes_us(rates: &Rates, bytes: u64) -> f32 {
    rates.read_us(bytes) + bytes as f32 * rates.decode_us_per_byte[CODEC_USUAL]
}

/// The policy that is chosen, and that knows what is resident now.
pub fn policy_of(shared: &Shared) -> Box<dyn Eviction> {
    let mut policy = eviction::build(&shared.eviction.config());
    let rates = shared.metrics.costs.rates();
    let mut resident = shared.table.candidates();
    resident.sort_unstable_by_key(|candidate| (candidate.usage.tick(), candidate.id));
    for Candidate { id, weight, kind, usage, .. } in resident {
        let (tick, cost_us, priority) = (usage.tick(), cost_of_bytes_us(&rates, weight), Priority::Medium);
        policy.admitted(&Admitted { id, weight, kind, tick, cost_us, priority, speculative: false });
    }
    policy
}

/// Lets `policy` choose, unlinks what it chose, and says so. Gives the bytes that came free.
pub fn evict(shared: &Shared, policy: &mut dyn Eviction, bytes: u64, reason: Reason) -> u64 {
    let kind = if let Reason::Room(kind) = reason { kind } else { None };
    // What could not be freed when it was taken out, since somebody stood still reading it, may be by now.
    let (mut unlinked, mut count) = (shared.table.free_late(), 0);
    let view = Viewed::new(&shared.table, &shared.surroundings);
    for _ in 0..ROUNDS_MAX {
        let mut victims: Vec<AssetId> = Vec::new();
        policy.choose(bytes.saturating_sub(unlinked), kind, &view, &mut victims);
        if victims.is_empty() {
            break;
        }
        // Read before they go, since nobody knows afterwards.
        let last: Vec<Option<Usage>> = victims.iter().map(|id| Some(shared.table.candidate(*id)?.usage)).collect();
        log(shared, &victims, reason);
        unlinked += shared.table.evict_all(&victims);
        shared.history.evicted(&victims, shared.clock.now(), bytes, kind);
        for (id, last) in victims.iter().zip(last) {
            // One that somebody took meanwhile is still there, and still known to the policy.
            if shared.table.candidate(*id).is_none() {
                policy.removed(*id, Removal::Evicted, last);
                count += 1;
            }
        }
        if unlinked >= bytes {
            break;
        }
    }
    if unlinked < bytes {
        // What nobody uses of what is pinned, or is not in the table any more.
        unlinked += shared.values.let_go(bytes - unlinked, kind);
    }
    shared.metrics.evictions.add(count);
    shared.metrics.evicted_bytes.add(unlinked);
    tracing::debug!(victims = count, unlinked, asked = bytes, %reason, "evicted");
    if unlinked > 0 {
        // A dispatcher that is down tries again by itself when it is up.
        shared.addresses.dispatcher.hint(DispatcherMessage::Evicted);
    }
    unlinked
}

/// Each victim, for whoever asks: `flyloft::evict=debug`.
fn log(shared: &Shared, victims: &[AssetId], reason: Reason) {
    if tracing::enabled!(target: "flyloft::evict", tracing::Level::DEBUG) {
        for id in victims {
            let candidate = shared.table.candidate(*id);
            let (weight, uses) = candidate.map_or((0, 0), |candidate| (candidate.weight, candidate.usage.uses()));
            tracing::debug!(target: "flyloft::evict", %id, weight, uses, %reason, "victim");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Codec, FrameRef, Piece};
    use crate::ids::ContentHash;

    fn piece(number: u32, offset: u64, stored_len: u32, decoded_len: u32, codec: Codec) -> Piece {
        let frame =
            FrameRef { number, offset, stored_len, decoded_len, codec, dictionary: 0, stored_hash: Default::default() };
        Piece { frame, from: 0, len: decoded_len }
    }

    #[test]
    fn a_reload_costs_its_reads_and_what_its_codec_takes() {
        let rates = Rates { read_latency_us: 100.0, read_us_per_byte: 0.001, decode_us_per_byte: [0.001, 0.01, 0.1] };
        let cost = |pieces: Vec<Piece>| {
            reload_cost_us(&rates, &Placement { content: ContentHash::of(b""), len: 0, start: 0, pieces })
        };
        let stored = cost(vec![piece(1, 0, 1000, 1000, Codec::Store)]);
        let packed = cost(vec![piece(1, 0, 500, 1000, Codec::Zstd)]);
        assert_eq!((stored, packed), (101.0, 200.0));
        let together = [piece(1, 0, 500, 1000, Codec::Lz4), piece(2, 500, 500, 1000, Codec::Lz4)];
        let apart = [piece(1, 0, 500, 1000, Codec::Lz4), piece(2, 9000, 500, 1000, Codec::Lz4)];
        assert_eq!((cost(together.to_vec()), cost(apart.to_vec())), (120.0, 220.0));
        let twice = [piece(1, 0, 500, 1000, Codec::Lz4), piece(1, 0, 500, 1000, Codec::Lz4)];
        assert_eq!(cost(twice.to_vec()), 110.0);
    }
}
