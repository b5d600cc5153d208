//! One version of a resident asset: its bytes and its name, which generations it is good for, when it was used last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Candidate;
use crate::ids::Generation;
use crate::policy::eviction::Usage;
use crate::residency::asset::Name;
use crate::residency::content::Content;
use crate::residency::hold::{Linked, Place, Shown, SteadyBytes};

/// The death of a version that stands.
pub(super) const NEVER: u64 = u64::MAX;

/// What a handle and the table both lead to. In the table the newest version of an asset leads to the older ones.
///
/// It is what a hit reads and, with its count, one cache line; what a hit does not read is behind it.
#[repr(C)]
pub(in crate::residency) struct Node {
    /// The first generation it is good for. Only ever lowered, and only over generations without a change of it.
    birth: AtomicU64,
    /// The first generation it is no longer good for. Set once, before anyone can read that generation's number.
    death: AtomicU64,
    /// What hits leave: a [`Usage`].
    usage: AtomicU64,
    rest: Shown<Box<Rest>>,
    /// Versions that were born earlier. Changed only under the writers' mutex. Of no meaning once it is unlinked.
    pub(super) older: Place<Node>,
}

/// What a hit does not read.
pub(in crate::residency) struct Rest {
    content: Arc<Content>,
    name: Name,
    generation: Generation,
    /// Whether it is or ever was in a table.
    linked: AtomicBool,
}

impl SteadyBytes for Box<Rest> {
    fn bytes(&self) -> &[u8] {
        self.content.bytes()
    }
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

impl Node {
    pub(in crate::residency) fn new(name: Name, generation: Generation, content: Arc<Content>) -> Node {
        Node {
            birth: AtomicU64::new(generation.0),
            death: AtomicU64::new(NEVER),
            usage: AtomicU64::new(0),
            rest: Shown::new(Box::new(Rest { content, name, generation, linked: AtomicBool::new(false) })),
            older: Place::default(),
        }
    }

    /// The bytes.
    #[inline]
    pub(in crate::residency) fn bytes(&self) -> &[u8] {
        self.rest.bytes()
    }

    pub(in crate::residency) fn content(&self) -> &Arc<Content> {
        &self.rest.owner().content
    }

    pub(in crate::residency) fn name(&self) -> &Name {
        &self.rest.owner().name
    }

    /// The generation it was made for.
    pub(in crate::residency) fn generation(&self) -> Generation {
        self.rest.owner().generation
    }

    /// Whether the caller is the first who wants to link it.
    pub(super) fn claim(&self) -> bool {
        !self.rest.owner().linked.swap(true, Ordering::AcqRel)
    }

    #[inline]
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
    #[inline]
    pub(super) fn touch(&self, tick: u32) {
        let usage = self.usage();
        if usage.tick() != tick {
            // Two threads at once: one of the two uses is counted.
            self.usage.store(usage.used(tick).to_bits(), Ordering::Relaxed);
        }
    }

    /// It is in the table from `tick` on.
    pub(super) fn admit(&self, tick: u32) {
        self.usage.store(Usage::new(tick).to_bits(), Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::from_bits(self.usage.load(Ordering::Relaxed))
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

    /// What comes free with it.
    pub(super) fn weight(&self) -> u64 {
        self.content().evictable_bytes()
    }
}

/// Whether someone besides the table has a handle to it.
pub(super) fn is_held(version: Linked<'_, Node>) -> bool {
    version.count() > 1
}

/// A version as the evictor sees it.
pub(super) fn candidate(version: Linked<'_, Node>) -> Candidate {
    Candidate {
        id: version.name().id,
        weight: version.weight(),
        kind: version.name().kind,
        usage: version.usage(),
        pinned: is_held(version),
    }
}
