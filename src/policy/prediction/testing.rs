//! A world of numbers for the experts' tests.

use std::time::Duration;

use super::{Access, Expert, World};
use crate::ids::{AssetId, AssetKind};

/// So many assets, each its own rank.
pub struct Numbered(pub u64);

impl World for Numbered {
    fn rank(&self, id: AssetId) -> Option<u64> {
        Some(id.0)
    }
    fn at(&self, rank: u64) -> Option<AssetId> {
        (rank < self.0).then_some(AssetId(rank))
    }
    fn dependencies(&self, _id: AssetId, _into: &mut Vec<AssetId>) {}
    fn bytes(&self, _id: AssetId) -> Option<u64> {
        Some(1000)
    }
    fn is_resident(&self, _id: AssetId) -> bool {
        false
    }
}

pub fn access(id: u64) -> Access {
    Access {
        id: AssetId(id),
        bytes: 1000,
        kind: AssetKind::Other,
        resident: false,
        now: Duration::ZERO,
        wall_seconds: 0,
    }
}

/// What the expert guesses after an access.
pub fn guesses(expert: &mut dyn Expert, id: u64, world: &dyn World, distance: u8) -> Vec<u64> {
    let mut into = Vec::new();
    expert.accessed(&access(id), world, distance, &mut into);
    into.into_iter().map(|guess| guess.id.0).collect()
}
