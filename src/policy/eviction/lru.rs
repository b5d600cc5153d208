//! The least recently used first.
//!
//! A hit writes nothing here: it stores a tick in the asset's own cell. An entry of the queue therefore may be older
//! than its asset's last use; when it surfaces it goes back to where it belongs. Ticks only grow, so the first entry
//! that surfaces with its true tick is the least recently used. Each hit costs at most one O(log n) step here, and
//! only if the asset comes up for eviction at all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionPolicy;
use crate::ids::{AssetId, AssetKind, Hashing};

/// Stale entries that a queue may hold before it is worth a rebuild.
const STALE_MIN: usize = 64;
/// Ticks of 32 bits until they begin anew.
const TURN: u64 = 1 << 32;

/// The least recently used asset is the first victim; among equals the first admitted.
#[derive(Debug, Default)]
pub struct Lru {
    /// One queue per kind, so that a kind's budget never has to look at the others.
    queues: [Queue; AssetKind::ALL.len()],
    known: HashMap<AssetId, Known, Hashing>,
    /// The newest tick seen, counted on past the wrap of 32 bits.
    newest: u64,
    admissions: u64,
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Entries that are not stale.
    live: usize,
}

/// Ordered by tick, then by admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tick: u64,
    admission: u64,
    id: AssetId,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    kind: AssetKind,
    /// Tells the valid entry of an id from those of earlier admissions.
    admission: u64,
}

impl Lru {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Assets known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no asset is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The entry that surfaces next of the queues asked for.
    fn oldest(&self, kind: Option<AssetKind>) -> Option<usize> {
        let tops = self.queues.iter().enumerate().filter(|(index, _)| kind.is_none_or(|kind| kind as usize == *index));
        tops.filter_map(|(index, queue)| queue.heap.peek().map(|Reverse(entry)| (*entry, index))).min().map(|top| top.1)
    }

    fn forget(&mut self, id: AssetId) {
        let Some(known) = self.known.remove(&id) else { return };
        let queue = &mut self.queues[known.kind as usize];
        queue.live -= 1;
        if queue.heap.len() > 2 * queue.live + STALE_MIN {
            let all = &self.known;
            queue.heap.retain(|Reverse(entry)| valid(all, entry));
        }
    }
}

fn valid(known: &HashMap<AssetId, Known, Hashing>, entry: &Entry) -> bool {
    known.get(&entry.id).is_some_and(|known| known.admission == entry.admission)
}

/// The tick `seen` counted on from `base`, which is not newer by more than half the circle; never before `base`.
fn counted_on(base: u64, seen: u32) -> u64 {
    let ahead = seen.wrapping_sub(base as u32);
    if ahead > u32::MAX / 2 { base } else { base + u64::from(ahead) }
}

impl Eviction for Lru {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, kind, tick, .. } = *asset;
        self.forget(id);
        // The first one says where the circle begins; a turn ahead, so that what is behind it stays above zero.
        self.newest = if self.admissions == 0 { TURN + u64::from(tick) } else { counted_on(self.newest, tick) };
        // An asset may be admitted with the tick of an earlier look at the clock.
        let behind = (self.newest as u32).wrapping_sub(tick);
        let tick = self.newest.saturating_sub(u64::from(behind));
        let entry = Entry { tick, admission: self.admissions, id };
        self.admissions += 1;
        self.known.insert(id, Known { kind, admission: entry.admission });
        let queue = &mut self.queues[kind as usize];
        queue.live += 1;
        queue.heap.push(Reverse(entry));
    }

    fn removed(&mut self, id: AssetId, _why: Removal, _last: Option<Usage>) {
        self.forget(id);
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        let mut freed_bytes = 0u64;
        // What was looked at and stays known goes back only at the end, so that nothing is looked at twice.
        let mut looked_at: Vec<(usize, Entry)> = Vec::new();
        let now = counted_on(self.newest, view.tick());
        while freed_bytes < want_bytes
            && let Some(index) = self.oldest(kind)
            && let Some(Reverse(entry)) = self.queues[index].heap.pop()
        {
            if !valid(&self.known, &entry) {
                continue;
            }
            let Some(seen) = view.look(entry.id) else {
                self.forget(entry.id);
                continue;
            };
            let tick = counted_on(entry.tick, seen.usage.tick());
            self.newest = self.newest.max(tick);
            if tick > entry.tick {
                self.queues[index].heap.push(Reverse(Entry { tick, ..entry }));
                continue;
            }
            if seen.pinned {
                looked_at.push((index, Entry { tick: tick.max(now), ..entry }));
                continue;
            }
            looked_at.push((index, entry));
            into.push(entry.id);
            freed_bytes = freed_bytes.saturating_add(seen.weight);
        }
        for (index, entry) in looked_at {
            self.queues[index].heap.push(Reverse(entry));
        }
    }

    fn report(&self) -> PolicyReport {
        let queued: usize = self.queues.iter().map(|queue| queue.heap.capacity()).sum();
        PolicyReport {
            name: EvictionPolicy::Lru.name().to_owned(),
            residents: self.known.len(),
            memory_bytes: queued * size_of::<Entry>() + self.known.capacity() * size_of::<(AssetId, Known)>(),
            ..PolicyReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::Seen;
    use super::super::conformance::conforms;
    use super::*;
    use crate::ids::Priority;

    /// What is resident: (last used, weight, kind, pinned).
    #[derive(Default)]
    struct Resident(BTreeMap<AssetId, (u32, u64, AssetKind, bool)>, u32);

    impl View for Resident {
        fn look(&self, id: AssetId) -> Option<Seen> {
            let (tick, weight, kind, pinned) = *self.0.get(&id)?;
            Some(Seen { usage: Usage::new(tick), weight, kind, pinned, distance: None })
        }
        fn tick(&self) -> u32 {
            self.1
        }
    }

    impl Resident {
        fn admit(&mut self, lru: &mut Lru, id: u64, tick: u32, weight: u64, kind: AssetKind) {
            self.0.insert(AssetId(id), (tick, weight, kind, false));
            let (priority, speculative) = (Priority::Medium, false);
            lru.admitted(&Admitted { id: AssetId(id), weight, kind, tick, cost_us: 1.0, priority, speculative });
        }
    }

    fn choose(lru: &mut Lru, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View) -> Vec<u64> {
        let mut chosen = Vec::new();
        lru.choose(want_bytes, kind, view, &mut chosen);
        chosen.into_iter().map(|id| id.0).collect()
    }

    fn gone(lru: &mut Lru, id: u64) {
        lru.removed(AssetId(id), Removal::Gone, None);
    }

    const KIND: AssetKind = AssetKind::Text;

    conforms!(Lru::new());

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_is_wanted() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        for id in 0..5 {
            resident.admit(&mut lru, id, id as u32, 10, KIND);
        }
        resident.0.get_mut(&AssetId(0)).unwrap().0 = 7;
        assert_eq!(choose(&mut lru, 15, None, &resident), [1, 2]);
        assert_eq!(choose(&mut lru, 1, None, &resident), [1], "choosing removes nothing");
        assert_eq!(choose(&mut lru, 0, None, &resident), [0; 0]);
        gone(&mut lru, 1);
        assert_eq!(choose(&mut lru, u64::MAX, None, &resident), [2, 3, 4, 0]);
    }

    #[test]
    fn what_is_pinned_or_of_another_kind_is_passed_over_and_not_forgotten() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        for id in 0..6 {
            resident.admit(&mut lru, id, 0, 10, if id % 2 == 0 { KIND } else { AssetKind::Mesh });
        }
        resident.0.get_mut(&AssetId(0)).unwrap().3 = true;
        assert_eq!(choose(&mut lru, 10, Some(KIND), &resident), [2]);
        assert_eq!(choose(&mut lru, 10, None, &resident), [1]);
        resident.0.get_mut(&AssetId(0)).unwrap().3 = false;
        assert_eq!(choose(&mut lru, 10, None, &resident), [0]);
        assert_eq!(choose(&mut lru, 10, Some(AssetKind::Audio), &resident), [0; 0]);
    }

    #[test]
    fn what_the_view_does_not_have_is_forgotten() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        resident.admit(&mut lru, 1, 0, 10, KIND);
        resident.0.clear();
        assert_eq!(choose(&mut lru, 10, None, &resident), [0; 0]);
        assert!(lru.is_empty());
    }

    #[test]
    fn ticks_that_wrap_keep_their_order() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        resident.admit(&mut lru, 1, u32::MAX - 1, 10, KIND);
        resident.admit(&mut lru, 2, 1, 10, KIND);
        resident.admit(&mut lru, 3, u32::MAX, 10, KIND);
        assert_eq!(choose(&mut lru, 30, None, &resident), [1, 3, 2]);
        resident.0.get_mut(&AssetId(1)).unwrap().0 = 5;
        assert_eq!(choose(&mut lru, 30, None, &resident), [3, 2, 1]);
    }

    #[test]
    fn a_first_tick_beyond_half_the_circle_does_not_hide_later_uses() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        resident.admit(&mut lru, 1, u32::MAX - 50, 10, KIND);
        resident.admit(&mut lru, 2, u32::MAX - 49, 10, KIND);
        resident.0.get_mut(&AssetId(1)).unwrap().0 = u32::MAX - 48;
        assert_eq!(choose(&mut lru, 10, None, &resident), [2]);
    }

    #[test]
    fn coming_and_going_leaves_no_heap_of_stale_entries() {
        let (mut lru, mut resident) = (Lru::new(), Resident::default());
        for id in 0..100_000 {
            resident.admit(&mut lru, id % 10, id as u32, 10, KIND);
            if id % 3 == 0 {
                gone(&mut lru, id % 10);
            }
        }
        assert!(lru.queues.iter().all(|queue| queue.heap.len() <= 2 * 10 + STALE_MIN + 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u64, u64, usize),
        Use(u64),
        Pin(u64, bool),
        Remove(u64),
        Choose(u64, Option<usize>, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..30, 0u64..50, 0usize..3).prop_map(|(id, weight, kind)| Step::Admit(id, weight, kind)),
            6 => (0u64..30).prop_map(Step::Use),
            2 => (0u64..30, any::<bool>()).prop_map(|(id, pinned)| Step::Pin(id, pinned)),
            1 => (0u64..30).prop_map(Step::Remove),
            3 => (0u64..300, prop::option::of(0usize..3), any::<bool>())
                .prop_map(|(bytes, kind, evict)| Step::Choose(bytes, kind, evict)),
        ]
    }

    proptest! {
        #[test]
        fn it_names_what_a_sorted_list_names(
            steps in prop::collection::vec(step(), 1..300),
            first_tick in prop_oneof![Just(0u32), Just(u32::MAX - 50)],
        ) {
            let (mut lru, mut resident) = (Lru::new(), Resident::default());
            // The list: when it was used last, counted on past the wrap, and in which order it was admitted.
            let mut list: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (now, step) in steps.into_iter().enumerate() {
                let now = now as u64;
                let tick = first_tick.wrapping_add(now as u32);
                resident.1 = tick;
                match step {
                    Step::Admit(id, weight, kind) => {
                        resident.admit(&mut lru, id, tick, weight, AssetKind::ALL[kind]);
                        list.insert(id, (now, now));
                    }
                    Step::Use(id) => {
                        if let (Some(asset), Some(used)) = (resident.0.get_mut(&AssetId(id)), list.get_mut(&id)) {
                            (asset.0, used.0) = (tick, now);
                        }
                    }
                    Step::Pin(id, pinned) => {
                        if let Some(asset) = resident.0.get_mut(&AssetId(id)) {
                            asset.3 = pinned;
                        }
                    }
                    Step::Remove(id) => {
                        resident.0.remove(&AssetId(id));
                        list.remove(&id);
                        gone(&mut lru, id);
                    }
                    Step::Choose(bytes, kind, evict) => {
                        let kind = kind.map(|kind| AssetKind::ALL[kind]);
                        let mut order: Vec<(&u64, &(u64, u64))> = list.iter().collect();
                        order.sort_by_key(|(_, used)| **used);
                        let (mut expected, mut freed, mut held) = (Vec::new(), 0, Vec::new());
                        for (id, _) in order {
                            let asset = resident.0[&AssetId(*id)];
                            if freed >= bytes || kind.is_some_and(|kind| kind != asset.2) {
                                continue;
                            }
                            if asset.3 {
                                held.push(*id);
                            } else {
                                expected.push(*id);
                                freed += asset.1;
                            }
                        }
                        // What is held when it comes up is used then.
                        for id in held {
                            list.get_mut(&id).unwrap().0 = now;
                        }
                        let chosen = choose(&mut lru, bytes, kind, &resident);
                        prop_assert_eq!(&chosen, &expected);
                        for id in chosen.into_iter().filter(|_| evict) {
                            resident.0.remove(&AssetId(id));
                            list.remove(&id);
                            gone(&mut lru, id);
                        }
                    }
                }
                prop_assert_eq!(lru.len(), list.len());
            }
        }
    }
}
