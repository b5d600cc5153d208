//! Which resident assets make room. One policy per file.

pub mod adaptive;
#[cfg(test)]
mod conformance;
pub mod gdsf;
mod ghosts;
mod lists;
pub mod lru;
pub mod s3fifo;
mod seen;
pub mod sieve;
mod sketch;
pub mod tinylfu;
mod usage;
pub mod weighted;

use serde::{Deserialize, Serialize};

use crate::config::{EvictionConfig, EvictionPolicy};
use crate::ids::{AssetId, AssetKind, Priority};

pub use adaptive::Adaptive;
pub use gdsf::Gdsf;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;
pub use tinylfu::TinyLfu;
pub use usage::{Gap, Usage};
pub use weighted::Weighted;

/// An asset that became resident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admitted {
    /// Which.
    pub id: AssetId,
    /// The bytes it is charged.
    pub weight: u64,
    /// What it is charged to.
    pub kind: AssetKind,
    /// When.
    pub tick: u32,
    /// Microseconds that loading it again would take, as far as that is known; only ratios count.
    pub cost_us: f32,
    /// How urgent the request was that it was loaded for.
    pub priority: Priority,
    /// Whether nobody asked for it: it was predicted.
    pub speculative: bool,
}

/// What is known of a resident asset now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// What its hits left.
    pub usage: Usage,
    /// The bytes it is charged.
    pub weight: u64,
    /// What it is charged to.
    pub kind: AssetKind,
    /// Whether someone holds it, or it is locked: evicting it would free nothing, or is forbidden.
    pub pinned: bool,
    /// How far it is from the nearest viewer, in the program's units; `None` where it has no place or there is no viewer.
    pub distance: Option<f32>,
}

/// What a policy may ask about what is resident now.
pub trait View {
    /// The asset; `None` when it is not resident.
    fn look(&self, id: AssetId) -> Option<Seen>;
    /// The tick of now.
    fn tick(&self) -> u32;
}

/// Why an asset is no longer resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was chosen as a victim.
    Evicted,
    /// It was replaced, ended, or locked away: nothing that the policy did.
    Gone,
}

/// An eviction policy: it is told what comes and goes, and names victims.
///
/// Callers guarantee: `admitted` once an asset is resident, `removed` once it is not, for whatever reason; ticks of
/// one asset never go back. A policy guarantees: it names only what it was told of and the view still has, never what
/// is pinned, none twice in one call; it removes nothing itself, so a victim that could not be evicted after all is
/// still known to it.
pub trait Eviction: Send {
    /// An asset became resident, or its weight changed.
    fn admitted(&mut self, asset: &Admitted);
    /// An asset is no longer resident. `last` is what its hits had left, where that is known.
    fn removed(&mut self, id: AssetId, why: Removal, last: Option<Usage>);
    /// Appends victims of at least `want_bytes` together, of one kind if `kind` is given; fewer when there are not
    /// enough that are not pinned.
    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>);
    /// Whether `incoming` is worth the `victims` that [`Eviction::choose`] just named for it. When it is not, they stay, and
    /// it passes through without being kept: `admitted` is not called for it, and the policy has noted the request.
    fn keeps(&mut self, _incoming: &Admitted, _victims: &[AssetId], _view: &dyn View) -> bool {
        true
    }
    /// What it knows, and how it does.
    fn report(&self) -> PolicyReport;
}

/// What a policy knows, and how it does: for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Its name, as in a configuration.
    pub name: String,
    /// Assets that it knows as resident.
    pub residents: usize,
    /// Assets that are gone and that it remembers.
    pub ghosts: usize,
    /// Bytes of memory that it uses, about.
    pub memory_bytes: usize,
    /// What it goes by, with a name for each.
    pub figures: Vec<(String, f64)>,
}

/// What chance starts from in policies that sample: the same requests are decided the same.
const SEED: u64 = 0;

/// The policy that a configuration names, knowing nothing yet.
pub fn build(config: &EvictionConfig) -> Box<dyn Eviction> {
    match config.policy {
        EvictionPolicy::Adaptive => Box::new(Adaptive::new(config.objective, SEED)),
        EvictionPolicy::Lru => Box::new(Lru::new()),
        EvictionPolicy::S3Fifo => Box::new(S3Fifo::new()),
        EvictionPolicy::Sieve => Box::new(Sieve::new()),
        EvictionPolicy::TinyLfu => Box::new(TinyLfu::new()),
        EvictionPolicy::Gdsf => Box::new(Gdsf::new()),
        EvictionPolicy::Weighted => Box::new(Weighted::new(config.weights)),
    }
}
