//! Which resident assets make room. One policy per file.

pub mod lru;

use crate::ids::{AssetId, AssetKind};

pub use lru::Lru;

/// What a policy may ask about what is resident now.
pub trait View {
    /// The tick of the last hit; `None` when it is not resident.
    fn last_used(&self, id: AssetId) -> Option<u32>;
    /// The bytes it is charged, and to which kind; `None` when it is not resident.
    fn weight(&self, id: AssetId) -> Option<(u64, AssetKind)>;
    /// Whether someone holds it, so that evicting it would free nothing.
    fn pinned(&self, id: AssetId) -> bool;
}

/// An eviction policy: it is told what comes and goes, and names victims.
///
/// Callers guarantee: `admitted` once an asset is resident, `removed` once it is not, for whatever reason; ticks of
/// one asset never go back. A policy guarantees: it names only what it was told of and the view still has, never what
/// is pinned, none twice in one call; it removes nothing itself, so a victim that could not be evicted after all is
/// still known to it.
pub trait Eviction: Send {
    /// An asset became resident at `tick`, or its weight changed.
    fn admitted(&mut self, id: AssetId, weight: u64, kind: AssetKind, tick: u32);
    /// An asset is no longer resident.
    fn removed(&mut self, id: AssetId);
    /// Appends victims of at least `want_bytes` together, of one kind if `kind` is given; fewer when there are not
    /// enough that are not pinned.
    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>);
}
