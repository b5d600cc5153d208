//! One version of a resident asset: which generations it is good for, and when it was used last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::Candidate;
use crate::ids::Generation;
use crate::residency::asset::Asset;

/// The death of a version that stands.
pub(super) const NEVER: u64 = u64::MAX;

/// A version; the newest of an asset leads to the older ones. Birth, death and use are shared by every table of slots
/// that ever led here.
pub(super) struct Version {
    /// The first generation it is good for. Only ever lowered, and only over generations without a change of it.
    birth: AtomicU64,
    /// The first generation it is no longer good for. Set once, before anyone can read that generation's number.
    death: AtomicU64,
    last_used: AtomicU32,
    pub(super) asset: Asset,
    /// Versions that were born earlier. Changed only under the writers' mutex.
    pub(super) older: ArcSwapOption<Version>,
}

/// Where a reader of some generation goes from a version.
pub(super) enum Step {
    /// This is it.
    Here,
    /// It was born later; an older one may fit.
    Older,
    /// It had died by then, and so had all older ones.
    Nowhere,
}

impl Version {
    pub(super) fn new(asset: Asset, birth: Generation, death: Option<Generation>, tick: u32) -> Version {
        Version {
            birth: AtomicU64::new(birth.0),
            death: AtomicU64::new(death.map_or(NEVER, |death| death.0)),
            last_used: AtomicU32::new(tick),
            asset,
            older: ArcSwapOption::empty(),
        }
    }

    pub(super) fn look(&self, generation: Generation) -> Step {
        if generation.0 < self.birth.load(Ordering::Acquire) {
            Step::Older
        } else if generation.0 < self.death.load(Ordering::Acquire) {
            Step::Here
        } else {
            Step::Nowhere
        }
    }

    /// Notes a use. Does not write when the tick is the same, so that a hot asset's line stays shared.
    pub(super) fn touch(&self, tick: u32) {
        if self.last_used.load(Ordering::Relaxed) != tick {
            self.last_used.store(tick, Ordering::Relaxed);
        }
    }

    pub(super) fn birth(&self) -> Generation {
        Generation(self.birth.load(Ordering::Acquire))
    }

    pub(super) fn death(&self) -> Generation {
        Generation(self.death.load(Ordering::Acquire))
    }

    pub(super) fn set_birth(&self, birth: Generation) {
        self.birth.store(birth.0, Ordering::Release);
    }

    pub(super) fn set_death(&self, death: Generation) {
        self.death.store(death.0, Ordering::Release);
    }

    pub(super) fn weight(&self) -> u64 {
        self.asset.content().weight_bytes()
    }

    pub(super) fn candidate(&self) -> Candidate {
        Candidate {
            id: self.asset.id(),
            weight: self.weight(),
            kind: self.asset.kind(),
            last_used: self.last_used.load(Ordering::Relaxed),
            pinned: self.asset.is_held(),
        }
    }
}

impl Drop for Version {
    /// Lists are short, but their length is not bounded: they are taken apart in a loop, not by recursion.
    fn drop(&mut self) {
        let mut next = self.older.swap(None);
        while let Some(version) = next {
            next = Arc::into_inner(version).and_then(|version| version.older.swap(None));
        }
    }
}
