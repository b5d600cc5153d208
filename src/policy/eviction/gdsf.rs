//! GDSF: what is small, often used and dear to load again stays; the rest ages.
//!
//! Source: Cherkasova: "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Laboratories
//! 1998. An asset's priority is `L + frequency * cost / size`; the lowest goes, and its priority is `L` from then on, so that
//! what is not used any more is overtaken in the end. The cost is what loading it again would take. Good by objects, and
//! poor by bytes, since what is large goes first.
//!
//! A hit changes nothing here: when an asset comes up, the uses since are counted, and it goes back to where it belongs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::seen::LastLook;
use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionPolicy;
use crate::ids::{AssetId, AssetKind, Hashing};

/// Stale entries that a heap may hold before it is worth a rebuild.
const STALE_MIN: usize = 64;

/// See the module's words.
#[derive(Debug, Default)]
pub struct Gdsf {
    /// One per kind, so that a kind's budget never has to look at the others.
    heaps: [Heap; AssetKind::ALL.len()],
    known: HashMap<AssetId, Known, Hashing>,
    /// `L`.
    inflation: f64,
    numbers: u64,
}

#[derive(Debug, Default)]
struct Heap {
    entries: BinaryHeap<Reverse<Entry>>,
    /// Entries that are not stale.
    live: usize,
}

/// Ordered by priority, then by the order in which they were put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The bits of a number that is not negative: they have its order.
    priority: u64,
    /// Tells the valid entry of an id from earlier ones.
    number: u64,
    id: AssetId,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    kind: AssetKind,
    number: u64,
    /// Priority without `L`, for one use.
    value: f32,
    uses: u32,
    look: LastLook,
    priority: f64,
}

impl Gdsf {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The heap whose first is the lowest of those asked for.
    fn lowest(&self, kind: Option<AssetKind>) -> Option<usize> {
        let heaps = self.heaps.iter().enumerate().filter(|(index, _)| kind.is_none_or(|kind| kind as usize == *index));
        let tops = heaps.filter_map(|(index, heap)| heap.entries.peek().map(|Reverse(entry)| (*entry, index)));
        tops.min().map(|(_, index)| index)
    }

    /// Its priority as of now, and an entry with it that makes the one before stale.
    fn rank(&mut self, id: AssetId, inflation: f64) -> Option<(usize, Entry)> {
        self.numbers += 1;
        let known = self.known.get_mut(&id)?;
        known.number = self.numbers;
        known.priority = inflation + f64::from(known.uses) * f64::from(known.value);
        Some((known.kind as usize, Entry { priority: known.priority.to_bits(), number: known.number, id }))
    }

    fn forget(&mut self, id: AssetId) -> Option<Known> {
        let known = self.known.remove(&id)?;
        let heap = &mut self.heaps[known.kind as usize];
        heap.live -= 1;
        if heap.entries.len() > 2 * heap.live + STALE_MIN {
            let all = &self.known;
            heap.entries.retain(|Reverse(entry)| valid(all, entry));
        }
        Some(known)
    }
}

fn valid(known: &HashMap<AssetId, Known, Hashing>, entry: &Entry) -> bool {
    known.get(&entry.id).is_some_and(|known| known.number == entry.number)
}

impl Eviction for Gdsf {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, weight, kind, tick, cost_us, speculative, .. } = *asset;
        // What comes in again with another weight keeps its uses.
        let uses = self.forget(id).map_or(u32::from(!speculative), |known| known.uses);
        let cost = if cost_us.is_finite() { cost_us.max(1.0) } else { 1.0 };
        let value = cost / weight.max(1) as f32;
        let look = LastLook::new(tick);
        self.known.insert(id, Known { kind, number: 0, value, uses, look, priority: 0.0 });
        if let Some((heap, entry)) = self.rank(id, self.inflation) {
            self.heaps[heap].live += 1;
            self.heaps[heap].entries.push(Reverse(entry));
        }
    }

    fn removed(&mut self, id: AssetId, why: Removal, _last: Option<Usage>) {
        if let Some(known) = self.forget(id)
            && why == Removal::Evicted
        {
            self.inflation = self.inflation.max(known.priority);
        }
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        let mut freed_bytes = 0u64;
        // `L` as it will be when those named so far are gone.
        let mut inflation = self.inflation;
        let (mut named, mut held) = (Vec::new(), Vec::new());
        while freed_bytes < want_bytes
            && let Some(heap) = self.lowest(kind)
            && let Some(Reverse(entry)) = self.heaps[heap].entries.pop()
        {
            let Some(known) = self.known.get_mut(&entry.id).filter(|known| known.number == entry.number) else {
                continue;
            };
            let Some(seen) = view.look(entry.id) else {
                self.forget(entry.id);
                continue;
            };
            let uses = known.look.uses_until(seen.usage);
            known.uses = known.uses.saturating_add(uses);
            if seen.pinned {
                held.push(entry.id);
            } else if uses > 0 {
                if let Some((heap, entry)) = self.rank(entry.id, inflation) {
                    self.heaps[heap].entries.push(Reverse(entry));
                }
            } else {
                inflation = inflation.max(known.priority);
                named.push((heap, entry));
                into.push(entry.id);
                freed_bytes = freed_bytes.saturating_add(seen.weight);
            }
        }
        for (heap, entry) in named {
            self.heaps[heap].entries.push(Reverse(entry));
        }
        for id in held {
            // It is being used, and is not looked at again before its turn comes.
            if let Some((heap, entry)) = self.rank(id, inflation) {
                self.heaps[heap].entries.push(Reverse(entry));
            }
        }
    }

    fn report(&self) -> PolicyReport {
        let entries: usize = self.heaps.iter().map(|heap| heap.entries.capacity()).sum();
        PolicyReport {
            name: EvictionPolicy::Gdsf.name().to_owned(),
            residents: self.known.len(),
            ghosts: 0,
            memory_bytes: entries * size_of::<Entry>() + self.known.capacity() * (size_of::<(AssetId, Known)>() + 1),
            figures: vec![("inflation, microseconds a byte".into(), self.inflation)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{World, admitted, conforms};
    use super::*;

    conforms!(Gdsf::new());

    #[test]
    fn the_large_the_cheap_and_the_seldom_used_go_first() {
        let (mut policy, mut world) = (Gdsf::new(), World::default());
        for (id, weight, cost_us) in
            [(0, 100, 100.0), (1, 10, 100.0), (2, 100, 1000.0), (3, 50, 100.0), (4, 100, 100.0)]
        {
            world.admit_as(&mut policy, &Admitted { weight, cost_us, ..admitted(id) });
        }
        for _ in 0..2 {
            world.tick += 1;
            world.hit(4);
        }
        // Microseconds a byte times uses: 1, 10, 10, 2, and 3.
        assert_eq!(world.choose(&mut policy, 360, None), [0, 3, 4, 1, 2]);
    }

    #[test]
    fn what_is_not_used_any_more_is_overtaken() {
        let (mut policy, mut world) = (Gdsf::new(), World::default());
        world.admit_as(&mut policy, &Admitted { cost_us: 50.0, ..admitted(0) });
        for id in 1..20 {
            world.admit_as(&mut policy, &Admitted { cost_us: 10.0, ..admitted(id) });
            let gone = world.evict(&mut policy, 10, None);
            if gone == [0] {
                assert_eq!(id, 5, "each that went raised the others by one");
                return;
            }
            assert_eq!(gone, [id]);
        }
        panic!("it was never overtaken");
    }

    #[test]
    fn costs_that_are_no_numbers_count_as_the_least() {
        let (mut policy, mut world) = (Gdsf::new(), World::default());
        for (id, cost_us) in [(0, 5.0), (1, f32::NAN), (2, f32::INFINITY), (3, -1.0)] {
            world.admit_as(&mut policy, &Admitted { cost_us, ..admitted(id) });
        }
        assert_eq!(world.choose(&mut policy, 40, None), [1, 2, 3, 0]);
    }
}
