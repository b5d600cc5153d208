//! SIEVE: one queue, over which a hand goes from the oldest to the newest; what was not used since it passed is a victim.
//!
//! Source: Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU: an Efficient Turn-Key Eviction Algorithm for
//! Web Caches", NSDI 2024. Nothing moves: what stays keeps its place, so that what is new is looked at by the hand soon
//! after it came, and what proved itself seldom.
//!
//! The visited bit of the paper is a hit since the last look here. Each kind has its queue and its hand; the hands go in
//! the order of queueing, so that for a choice over all kinds they are one.

use super::lists::{At, Lists};
use super::seen::LastLook;
use super::{Admitted, Eviction, PolicyReport, Removal, Usage, View};
use crate::config::EvictionPolicy;
use crate::ids::{AssetId, AssetKind};

/// After so many ends of the queue nothing is left in one choice: the first may come at once, the next clears every bit,
/// the last finds every one cleared.
const ROUNDS_MAX: usize = 3;

/// See the module's words.
#[derive(Debug, Default)]
pub struct Sieve {
    lists: Lists<Entry, 1>,
    hands: [Hand; AssetKind::ALL.len()],
    /// Counts the choices, to tell what was named in this one.
    choices: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    look: LastLook,
    /// The choice that named it last.
    named: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Hand {
    /// Before the oldest.
    #[default]
    Start,
    /// At this one.
    On(At),
    /// Behind the newest.
    End,
}

impl Sieve {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the hand of a kind is. A queue that was at its end and grew goes on with what is new only in the next round.
    fn hand(&mut self, kind: AssetKind) -> Option<At> {
        let hand = &mut self.hands[kind as usize];
        if let Hand::Start = hand {
            *hand = self.lists.oldest(0, Some(kind)).map_or(Hand::End, Hand::On);
        }
        match *hand {
            Hand::On(at) => Some(at),
            Hand::Start | Hand::End => None,
        }
    }

    /// The hand that is to move next, of those asked for.
    fn next(&mut self, kind: Option<AssetKind>) -> Option<At> {
        match kind {
            Some(kind) => self.hand(kind),
            None => {
                let hands = AssetKind::ALL.map(|kind| self.hand(kind));
                hands.into_iter().flatten().min_by_key(|at| self.lists.number(*at))
            }
        }
    }

    fn pass(&mut self, at: At) {
        let kind = self.lists.kind(at);
        self.hands[kind as usize] = self.lists.newer(at).map_or(Hand::End, Hand::On);
    }

    fn forget(&mut self, id: AssetId) {
        let Some(at) = self.lists.find(id) else { return };
        if matches!(self.hands[self.lists.kind(at) as usize], Hand::On(on) if on == at) {
            self.pass(at);
        }
        self.lists.remove(id);
    }
}

impl Eviction for Sieve {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, weight, kind, tick, .. } = *asset;
        if let Some(at) = self.lists.find(id) {
            if self.lists.kind(at) == kind {
                self.lists.data(at).look = LastLook::new(tick);
                self.lists.set_weight(at, weight);
                return;
            }
            self.forget(id);
        }
        self.lists.insert(id, 0, kind, weight, Entry { look: LastLook::new(tick), named: self.choices });
    }

    fn removed(&mut self, id: AssetId, _why: Removal, _last: Option<Usage>) {
        self.forget(id);
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        // 0 is never a choice in which something was named: what is new has the number of the choice before it.
        self.choices = self.choices.wrapping_add(1);
        let (mut freed_bytes, mut rounds) = (0u64, 0);
        while freed_bytes < want_bytes {
            let Some(at) = self.next(kind) else {
                rounds += 1;
                if rounds == ROUNDS_MAX {
                    break;
                }
                let again = self.hands.iter_mut().enumerate();
                again
                    .filter(|(of, _)| kind.is_none_or(|kind| kind as usize == *of))
                    .for_each(|(_, hand)| *hand = Hand::Start);
                continue;
            };
            self.pass(at);
            let (id, choice) = (self.lists.id(at), self.choices);
            let Some(seen) = view.look(id) else {
                self.lists.remove(id);
                continue;
            };
            let entry = self.lists.data(at);
            let visited = entry.look.uses_until(seen.usage) > 0;
            if !visited && !seen.pinned && entry.named != choice {
                entry.named = choice;
                into.push(id);
                freed_bytes = freed_bytes.saturating_add(seen.weight);
            }
        }
    }

    fn report(&self) -> PolicyReport {
        PolicyReport {
            name: EvictionPolicy::Sieve.name().to_owned(),
            residents: self.lists.len(),
            memory_bytes: self.lists.memory_bytes(),
            ..PolicyReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{KIND, World, conforms};
    use super::*;

    conforms!(Sieve::new());

    #[test]
    fn the_hand_goes_on_from_where_it_was_and_what_stays_keeps_its_place() {
        // The paper's figure 2, in its order: A B C D E F G, of which A, B and G were visited.
        let (mut policy, mut world) = (Sieve::new(), World::default());
        for id in 0..7 {
            world.admit(&mut policy, id, 10, KIND);
        }
        world.tick += 1;
        assert!([0, 1, 6].map(|id| world.hit(id)) == [true; 3]);
        assert_eq!(world.evict(&mut policy, 10, None), [2]);
        world.admit(&mut policy, 7, 10, KIND);
        world.tick += 1;
        world.hit(3);
        assert_eq!(world.evict(&mut policy, 10, None), [4], "3 was visited");
        assert_eq!(world.evict(&mut policy, 20, None), [5, 7], "6 was visited");
        assert_eq!(world.evict(&mut policy, 30, None), [0, 1, 3], "from the oldest again, all passed once");
    }

    #[test]
    fn a_kinds_hand_moves_alone_and_all_hands_together_are_one() {
        let (mut policy, mut world) = (Sieve::new(), World::default());
        for id in 0..9 {
            world.admit(&mut policy, id, 10, AssetKind::ALL[(id % 3) as usize]);
        }
        assert_eq!(world.evict(&mut policy, 10, Some(AssetKind::ALL[1])), [1]);
        assert_eq!(world.evict(&mut policy, 40, None), [0, 2, 3, 4]);
        world.tick += 1;
        world.hit(5);
        assert_eq!(world.evict(&mut policy, 30, None), [6, 7, 8]);
        assert_eq!(world.evict(&mut policy, 10, None), [5]);
    }
}
