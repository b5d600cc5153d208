//! What the experts may ask of a running runtime. None of it reads the tables of contents, which may have to be paged in.

use crate::actors::Shared;
use crate::ids::AssetId;
use crate::policy::prediction::World;
use crate::residency::Order;

/// The world at one access.
pub(super) struct Seen<'s> {
    pub(super) shared: &'s Shared,
    pub(super) order: Option<&'s Order>,
    /// What the asset of the access uses, as it was looked up.
    pub(super) uses: &'s [AssetId],
}

impl World for Seen<'_> {
    fn rank(&self, id: AssetId) -> Option<u64> {
        self.order?.rank(id).map(u64::from)
    }

    fn at(&self, rank: u64) -> Option<AssetId> {
        self.order?.at(rank)
    }

    fn dependencies(&self, _id: AssetId, into: &mut Vec<AssetId>) {
        into.extend(self.uses);
    }

    fn bytes(&self, id: AssetId) -> Option<u64> {
        self.order?.bytes(id)
    }

    fn is_resident(&self, id: AssetId) -> bool {
        self.shared.table.candidate(id).is_some()
    }
}
