//! What a policy and an error message may see of the table. Nothing here takes a lock.

use super::version::Version;
use super::{Candidate, ResidentTable};
use crate::ids::{AssetId, AssetKind, AssetPath};
use crate::policy::eviction::View;

impl ResidentTable {
    /// Calls `visit` with every version in the table, in no order. Takes no lock.
    pub fn for_each(&self, mut visit: impl FnMut(Candidate)) {
        self.visit(|version| visit(version.candidate()));
    }

    /// The newest version of `id`, as the evictor sees it.
    pub fn candidate(&self, id: AssetId) -> Option<Candidate> {
        let slots = self.slots.load();
        let newest = slots.cell(id)?.load();
        newest.as_deref().map(Version::candidate)
    }

    /// The `count` largest assets that someone holds, the largest first: for the error of a load that waits in vain.
    pub fn largest_pinned(&self, count: usize) -> Vec<(AssetPath, u64)> {
        let mut held = Vec::new();
        self.visit(|version| {
            if version.asset.is_held() {
                held.push((version.asset.path().clone(), version.weight()));
            }
        });
        held.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        held.truncate(count);
        held
    }

    /// Every version, as the evictor sees it: for a policy that starts anew.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut all = Vec::new();
        self.for_each(|candidate| all.push(candidate));
        all
    }

    fn visit(&self, mut visit: impl FnMut(&Version)) {
        let slots = self.slots.load_full();
        for cell in slots.cells() {
            let mut next = cell.load_full();
            while let Some(version) = next {
                visit(&version);
                next = version.older.load_full();
            }
        }
    }
}

impl View for ResidentTable {
    fn last_used(&self, id: AssetId) -> Option<u32> {
        self.candidate(id).map(|candidate| candidate.last_used)
    }

    fn weight(&self, id: AssetId) -> Option<(u64, AssetKind)> {
        self.candidate(id).map(|candidate| (candidate.weight, candidate.kind))
    }

    fn pinned(&self, id: AssetId) -> bool {
        self.candidate(id).is_some_and(|candidate| candidate.pinned)
    }
}
