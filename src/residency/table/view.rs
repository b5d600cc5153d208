//! What a policy and an error message may see of the table. Nothing here takes a lock.

use std::sync::Arc;

use super::version::{Node, candidate, is_held};
use super::{Candidate, ResidentTable, TableTally};
use crate::ids::{AssetId, AssetPath};
use crate::policy::eviction::{Seen, View};
use crate::residency::hold::Linked;

impl ResidentTable {
    /// Calls `visit` with every version in the table, in no order. Takes no lock.
    pub fn for_each(&self, mut visit: impl FnMut(Candidate)) {
        // Foreign code runs outside the sections.
        let mut all = Vec::new();
        self.visit(|version| all.push(candidate(version)));
        all.into_iter().for_each(&mut visit);
    }

    /// The newest version of `id`, as the evictor sees it.
    pub fn candidate(&self, id: AssetId) -> Option<Candidate> {
        self.readers.look(|section| self.slots.load(section).cell(id)?.load(section).map(candidate))
    }

    /// The `count` largest assets that someone holds, the largest first: for the error of a load that waits in vain.
    pub fn largest_pinned(&self, count: usize) -> Vec<(AssetPath, u64)> {
        let mut held = Vec::new();
        self.visit(|version| {
            if is_held(version) {
                held.push((version.name().path.clone(), version.weight()));
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

    /// Bytes that would come free if everything that nobody holds were evicted: see [`ResidentTable::tally`].
    pub fn evictable_bytes(&self, most: usize) -> u64 {
        let tally = self.tally(most);
        tally.cached + tally.ended_unheld
    }

    /// What is in the table, in bytes. Of many versions about `most` are looked at, spread over all.
    pub fn tally(&self, most: usize) -> TableTally {
        let (mut tally, mut seen) = (TableTally::default(), 0usize);
        let current = self.current();
        let every = self.contents.len() / most.max(1) + 1;
        self.visit_some(every, |version| {
            seen += 1;
            // Names that share a content free it together.
            let bytes = version.weight() / Arc::strong_count(version.content()).max(1) as u64;
            let (is_held, has_ended) = (is_held(version), version.death() <= current);
            match (is_held, has_ended) {
                (false, false) => tally.cached += bytes,
                (true, false) => tally.held += bytes,
                (_, true) => tally.ended += bytes,
            }
            if has_ended && !is_held {
                tally.ended_unheld += bytes;
            }
        });
        let all = if every == 1 { seen } else { self.stats().versions.max(seen) } as u128;
        let scaled = |bytes: u64| u64::try_from(u128::from(bytes) * all / seen.max(1) as u128).unwrap_or(u64::MAX);
        TableTally {
            cached: scaled(tally.cached),
            held: scaled(tally.held),
            ended: scaled(tally.ended),
            ended_unheld: scaled(tally.ended_unheld),
        }
    }

    /// Calls `visit` with every version, some slots in one section. A table that grows meanwhile may be seen in part.
    fn visit(&self, visit: impl FnMut(Linked<'_, Node>)) {
        self.visit_some(1, visit);
    }

    /// As [`ResidentTable::visit`], of one run of slots in so many.
    fn visit_some(&self, every: usize, mut visit: impl FnMut(Linked<'_, Node>)) {
        let mut place = 0;
        let mut more = true;
        while more {
            more = self.readers.look(|section| {
                let slots = self.slots.load(section);
                for cell in slots.cells_of(place..place + SLOTS_AT_ONCE) {
                    let mut next = cell.load(section);
                    while let Some(version) = next {
                        visit(version);
                        next = version.get().older.load(section);
                    }
                }
                place += SLOTS_AT_ONCE * every;
                place < slots.len()
            });
        }
    }
}

/// How many slots a visit looks at in one section, which is to be short.
const SLOTS_AT_ONCE: usize = 64;

impl View for ResidentTable {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let Candidate { usage, weight, kind, pinned, .. } = self.candidate(id)?;
        Some(Seen { usage, weight, kind, pinned, distance: None })
    }

    fn tick(&self) -> u32 {
        ResidentTable::tick(self)
    }
}
