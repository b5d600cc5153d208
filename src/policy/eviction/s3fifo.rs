//! S3-FIFO: three queues, of which the small first one sees through what is asked for once.
//!
//! Source: Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023. Weighed in bytes:
//! the small queue has a tenth of them. What is used twice while it is in the small queue goes on to the main one; what
//! is not is a victim, and its name is remembered; what comes back while it is, begins in the main queue. There the
//! oldest goes to the newest end again as long as it was used, up to three times for as many uses.
//!
//! Hits leave no trace here: the uses of an asset are read when it is the oldest of its queue.

use super::ghosts::Ghosts;
use super::lists::{At, Lists};
use super::seen::LastLook;
use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionPolicy;
use crate::ids::{AssetId, AssetKind};

const SMALL: usize = 0;
const MAIN: usize = 1;
/// The small queue's part of the bytes is one in so many.
const SMALL_PART: u64 = 10;
/// Uses in the small queue from which on an asset is worth the main one.
const USES_TO_STAY: u32 = 2;
/// Uses that count in the main queue.
const USES_MAX: u32 = 3;

/// See the module's words.
#[derive(Debug, Default)]
pub struct S3Fifo {
    lists: Lists<Entry, 2>,
    ghosts: Ghosts,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    look: LastLook,
    /// Uses that it was not yet given a turn for.
    uses: u8,
}

impl S3Fifo {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next to be looked at: of the small queue while that has more than its part.
    fn next(&self, kind: Option<AssetKind>) -> Option<At> {
        let (small, main) = (self.lists.bytes(SMALL, kind), self.lists.bytes(MAIN, kind));
        let first = if small.saturating_mul(SMALL_PART) >= small.saturating_add(main) { SMALL } else { MAIN };
        self.lists.oldest(first, kind).or_else(|| self.lists.oldest(SMALL + MAIN - first, kind))
    }
}

impl Eviction for S3Fifo {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, weight, kind, tick, .. } = *asset;
        let entry = Entry { look: LastLook::new(tick), uses: 0 };
        if let Some(at) = self.lists.find(id) {
            if self.lists.kind(at) == kind {
                self.lists.data(at).look = entry.look;
                self.lists.set_weight(at, weight);
                return;
            }
            self.lists.remove(id);
        }
        let segment = if self.ghosts.take(id) { MAIN } else { SMALL };
        self.lists.insert(id, segment, kind, weight, entry);
    }

    fn removed(&mut self, id: AssetId, why: Removal, _last: Option<Usage>) {
        let segment = self.lists.remove(id);
        if why == Removal::Evicted && segment == Some(SMALL) {
            self.ghosts.insert(id, self.lists.len());
        }
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        let mut freed_bytes = 0u64;
        let (mut named, mut held) = (Vec::new(), Vec::new());
        while freed_bytes < want_bytes
            && let Some(at) = self.next(kind)
        {
            let (id, segment) = (self.lists.id(at), self.lists.segment(at));
            let Some(seen) = view.look(id) else {
                self.lists.remove(id);
                continue;
            };
            self.lists.set_weight(at, seen.weight);
            let entry = self.lists.data(at);
            let uses = (u32::from(entry.uses) + entry.look.uses_until(seen.usage)).min(USES_MAX);
            entry.uses = uses as u8;
            if seen.pinned {
                self.lists.unlink(at);
                held.push(at);
            } else if segment == SMALL && uses >= USES_TO_STAY {
                entry.uses = 0;
                self.lists.move_to(at, MAIN);
            } else if segment == MAIN && uses > 0 {
                entry.uses -= 1;
                self.lists.move_to(at, MAIN);
            } else {
                self.lists.unlink(at);
                named.push(at);
                into.push(id);
                freed_bytes = freed_bytes.saturating_add(seen.weight);
            }
        }
        named.into_iter().rev().for_each(|at| self.lists.link_oldest(at));
        // What is held is used, and not looked at again before its turn comes.
        for at in held {
            let segment = self.lists.segment(at);
            self.lists.link_newest(at, segment);
        }
    }

    fn report(&self) -> PolicyReport {
        let [small, main] = [SMALL, MAIN].map(|segment| self.lists.bytes(segment, None) as f64);
        PolicyReport {
            name: EvictionPolicy::S3Fifo.name().to_owned(),
            residents: self.lists.len(),
            ghosts: self.ghosts.len(),
            memory_bytes: self.lists.memory_bytes() + self.ghosts.memory_bytes(),
            figures: vec![("small queue, bytes".into(), small), ("main queue, bytes".into(), main)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{KIND, World, conforms, hits};
    use super::*;

    conforms!(S3Fifo::new());

    #[test]
    fn what_is_used_once_goes_before_what_is_used_twice_and_comes_back_into_the_main_queue() {
        let (mut policy, mut world) = (S3Fifo::new(), World::default());
        for id in 0..10 {
            world.admit(&mut policy, id, 10, KIND);
        }
        for _ in 0..2 {
            world.tick += 1;
            assert!(world.hit(0) && world.hit(2));
        }
        world.tick += 1;
        assert!(world.hit(1));
        assert_eq!(world.evict(&mut policy, 20, None), [1, 3], "one use is not enough");
        world.admit(&mut policy, 1, 10, KIND);
        assert_eq!(policy.ghosts.len(), 1);
        // 0, 2 and 1 are in the main queue now; the small one has more than its tenth.
        assert_eq!(world.evict(&mut policy, 60, None), [4, 5, 6, 7, 8, 9]);
        assert_eq!(world.choose(&mut policy, 30, None), [0, 2, 1]);
    }

    #[test]
    fn a_scan_leaves_what_is_used_alone() {
        // 50 that are used again and again, and 20,000 that come once.
        let often = (0..60_000u64).map(|n| if n % 3 == 0 { 1_000_000 + n } else { n / 3 % 50 });
        let hits = hits(&mut S3Fifo::new(), 100, often);
        assert!(hits > 39_000, "{hits} of 40,000");
    }
}
