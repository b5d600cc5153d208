//! The order in which requests are read: four lanes, by score within a lane, first come first among equals.
//!
//! A more urgent lane goes first, but a lane that has something to do gets at least one pop in about
//! [`Lanes::SHARE`], so that prefetches are slow under load and never stuck. Within a lane every [`Lanes::PATIENT`]th pop
//! takes what has waited longest, whatever its score: a stream of better ones can't keep it for ever.

mod room;
mod score;
mod simd;

use std::cmp::{Ordering, Reverse};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::Hash;

use crate::ids::{Hashing, Priority};

pub use crate::config::{LaneDistances, Weights};
pub use room::LowRoom;
pub use score::{Hints, score};
pub use simd::{Batch, Eye, Features, Scored, score_all, score_all_plain};

/// Four lanes of items, each known by a key.
///
/// `K` is what the item is asked for by: a sequence number, or the key of its request. Raising and removing leave a
/// stale entry in a heap, which is dropped when it surfaces or when stale ones are the majority; every operation is
/// O(log n) amortised.
///
/// ```
/// use flyloft::Priority;
/// use flyloft::policy::schedule::Lanes;
/// let mut lanes = Lanes::new();
/// lanes.push(Priority::Low, 0.0, 1, "later");
/// lanes.push(Priority::High, 0.0, 2, "next");
/// lanes.raise(&1, Priority::Critical, 0.0);
/// assert_eq!(lanes.pop(), Some((1, "later")));
/// assert_eq!(lanes.pop(), Some((2, "next")));
/// ```
#[derive(Debug)]
pub struct Lanes<T, K = u64> {
    lanes: [Lane<K>; 4],
    items: HashMap<K, Slot<T>, Hashing>,
    /// Arrivals so far: the order among equal scores.
    arrivals: u64,
    /// Entries pushed to any heap so far: tells the valid entry of a key from stale ones.
    stamps: u64,
}

#[derive(Debug)]
struct Lane<K> {
    heap: BinaryHeap<Queued<K>>,
    /// Items in this lane: the heap's entries that are not stale.
    live: usize,
    /// The same items by their arrival.
    oldest: BTreeMap<u64, K>,
    /// Pops of this lane.
    pops: u32,
    /// Pops that went to another lane while this one had something to do.
    passed: u32,
}

#[derive(Debug)]
struct Slot<T> {
    item: T,
    priority: Priority,
    score: f32,
    arrival: u64,
    stamp: u64,
}

#[derive(Debug)]
struct Queued<K> {
    score: f32,
    arrival: Reverse<u64>,
    stamp: u64,
    key: K,
}

impl<K> Ord for Queued<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| self.arrival.cmp(&other.arrival))
    }
}

impl<K> PartialOrd for Queued<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Queued<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K> Eq for Queued<K> {}

impl<T, K: Eq + Hash + Clone> Default for Lanes<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, K: Eq + Hash + Clone> Lanes<T, K> {
    /// A lane that has something to do is passed over by at most this many pops, less one, before it is served.
    /// When several lanes are due at once the one that waits longest goes first, so none waits for more than
    /// `SHARE + 2`.
    pub const SHARE: u32 = 64;
    /// One pop of a lane in this many takes the item that came first.
    pub const PATIENT: u32 = 16;
    /// Stale entries that a heap may hold before it is worth a rebuild.
    const STALE_MIN: usize = 64;

    /// Four empty lanes.
    pub fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane {
                heap: BinaryHeap::new(),
                live: 0,
                oldest: BTreeMap::new(),
                pops: 0,
                passed: 0,
            }),
            items: HashMap::default(),
            arrivals: 0,
            stamps: 0,
        }
    }

    /// Queues `item`. The highest score of a lane goes first; not-a-number counts as the lowest. If `key` is queued
    /// already the new item takes its place at the more urgent of both positions, and the old item is handed back.
    pub fn push(&mut self, priority: Priority, score: f32, key: K, item: T) -> Option<T> {
        let score = ordered(score);
        if let Some(slot) = self.items.get_mut(&key) {
            let old = std::mem::replace(&mut slot.item, item);
            self.raise(&key, priority, score);
            return Some(old);
        }
        let (arrival, stamp) = (self.arrivals, self.stamps);
        self.arrivals += 1;
        self.stamps += 1;
        self.items.insert(key.clone(), Slot { item, priority, score, arrival, stamp });
        let lane = &mut self.lanes[priority as usize];
        lane.live += 1;
        lane.oldest.insert(arrival, key.clone());
        lane.heap.push(Queued { score, arrival: Reverse(arrival), stamp, key });
        None
    }

    /// Takes the most urgent item: of the most urgent lane, unless a lower one is due its share; of a lane the
    /// highest score; of equals the first that came.
    pub fn pop(&mut self) -> Option<(K, T)> {
        self.pop_of([true; 4])
    }

    /// [`Lanes::pop`] of the lanes that are `open`, by priority. Those that are not are not passed over by it: they are
    /// held back for a reason of their own.
    pub fn pop_of(&mut self, open: [bool; 4]) -> Option<(K, T)> {
        self.pop_scored(open).map(|(key, item, _)| (key, item))
    }

    /// [`Lanes::pop_of`], with the score that the item had.
    pub fn pop_scored(&mut self, open: [bool; 4]) -> Option<(K, T, f32)> {
        let chosen = self.choose(open)?;
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(index, _)| open[*index]) {
            let waits = index != chosen && lane.live > 0;
            lane.passed = if waits { lane.passed + 1 } else { 0 };
        }
        self.pop_lane(chosen)
    }

    fn choose(&self, open: [bool; 4]) -> Option<usize> {
        let waiting = || (0..4).filter(|index| open[*index] && self.lanes[*index].live > 0);
        let due = waiting().filter(|index| self.lanes[*index].passed >= Self::SHARE - 1);
        due.max_by_key(|index| (self.lanes[*index].passed, Reverse(*index))).or_else(|| waiting().next())
    }

    fn pop_lane(&mut self, index: usize) -> Option<(K, T, f32)> {
        let lane = &mut self.lanes[index];
        lane.pops = lane.pops.wrapping_add(1);
        if lane.pops.is_multiple_of(Self::PATIENT)
            && let Some((_, key)) = lane.oldest.first_key_value()
        {
            let key = key.clone();
            let score = self.items.get(&key).map_or(0.0, |slot| slot.score);
            return self.remove(&key).map(|item| (key, item, score));
        }
        while let Some(queued) = self.lanes[index].heap.pop() {
            if let Entry::Occupied(entry) = self.items.entry(queued.key)
                && entry.get().stamp == queued.stamp
            {
                let (key, slot) = entry.remove_entry();
                self.lanes[index].live -= 1;
                self.lanes[index].oldest.remove(&slot.arrival);
                return Some((key, slot.item, slot.score));
            }
        }
        None
    }

    /// Makes a queued item more urgent: it moves to the more urgent of its lane and `priority`, with the higher of
    /// its score and `score`, and keeps its place among equals. Returns whether it moved.
    pub fn raise(&mut self, key: &K, priority: Priority, score: f32) -> bool {
        let Some(slot) = self.items.get(key) else { return false };
        let raised = (slot.priority.min(priority), highest(slot.score, ordered(score)));
        self.place(key, raised.0, raised.1)
    }

    /// Puts a queued item into exactly this lane, with this score, less urgent ones included. It keeps its place among
    /// equals. Returns whether it moved.
    pub fn place(&mut self, key: &K, priority: Priority, score: f32) -> bool {
        let score = ordered(score);
        let Some(slot) = self.items.get_mut(key) else { return false };
        if slot.priority == priority && slot.score.total_cmp(&score).is_eq() {
            return false;
        }
        let from = slot.priority;
        (slot.priority, slot.score, slot.stamp) = (priority, score, self.stamps);
        self.stamps += 1;
        let arrival = slot.arrival;
        let queued = Queued { score, arrival: Reverse(arrival), stamp: slot.stamp, key: key.clone() };
        self.lanes[from as usize].live -= 1;
        self.lanes[from as usize].oldest.remove(&arrival);
        let lane = &mut self.lanes[priority as usize];
        lane.oldest.insert(arrival, key.clone());
        lane.live += 1;
        lane.heap.push(queued);
        self.sweep(from);
        self.sweep(priority);
        true
    }

    /// Takes out a queued item.
    pub fn remove(&mut self, key: &K) -> Option<T> {
        let slot = self.items.remove(key)?;
        self.lanes[slot.priority as usize].live -= 1;
        self.lanes[slot.priority as usize].oldest.remove(&slot.arrival);
        self.sweep(slot.priority);
        Some(slot.item)
    }

    /// Scores every queued item anew, as when the viewer moved. Lanes and arrivals stay. O(n).
    pub fn rescore(&mut self, mut score: impl FnMut(&K, &T) -> f32) {
        for lane in &mut self.lanes {
            let mut entries = std::mem::take(&mut lane.heap).into_vec();
            entries.retain_mut(|queued| {
                let Some(slot) = self.items.get_mut(&queued.key) else { return false };
                if slot.stamp != queued.stamp {
                    return false;
                }
                slot.score = ordered(score(&queued.key, &slot.item));
                queued.score = slot.score;
                true
            });
            lane.heap = BinaryHeap::from(entries);
        }
    }

    /// Puts every queued item into the lane and at the score that `place` gives for it, in the order of
    /// [`Lanes::items`], as when the viewer moved: less urgent lanes included. Arrivals stay. O(n), and O(log n) for each that changes its
    /// lane.
    pub fn rearrange(&mut self, mut place: impl FnMut(&K, &T) -> (Priority, f32)) {
        let mut heaps: [Vec<Queued<K>>; 4] = std::array::from_fn(|_| Vec::new());
        for (lane, heap) in self.lanes.iter_mut().zip(&mut heaps) {
            *heap = std::mem::take(&mut lane.heap).into_vec();
            heap.clear();
        }
        for (key, slot) in &mut self.items {
            let (priority, score) = place(key, &slot.item);
            if priority != slot.priority {
                self.lanes[slot.priority as usize].oldest.remove(&slot.arrival);
                self.lanes[priority as usize].oldest.insert(slot.arrival, key.clone());
            }
            (slot.priority, slot.score) = (priority, ordered(score));
            let (score, arrival, stamp, key) = (slot.score, Reverse(slot.arrival), slot.stamp, key.clone());
            heaps[priority as usize].push(Queued { score, arrival, stamp, key });
        }
        for (lane, heap) in self.lanes.iter_mut().zip(heaps) {
            lane.live = heap.len();
            lane.heap = BinaryHeap::from(heap);
        }
    }

    /// The queued item of `key`.
    pub fn get(&self, key: &K) -> Option<&T> {
        self.items.get(key).map(|slot| &slot.item)
    }

    /// The lane of the queued item of `key`.
    pub fn priority(&self, key: &K) -> Option<Priority> {
        self.items.get(key).map(|slot| slot.priority)
    }

    /// Items queued in one lane.
    pub fn lane_len(&self, priority: Priority) -> usize {
        self.lanes[priority as usize].live
    }

    /// Items queued in all lanes.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What is queued, with its key, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = (&K, &T)> {
        self.items.iter().map(|(key, slot)| (key, &slot.item))
    }

    /// What is queued, in no particular order.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.items.values().map(|slot| &slot.item)
    }

    /// [`Lanes::items`], to be changed.
    pub fn items_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.values_mut().map(|slot| &mut slot.item)
    }

    /// Takes out everything, in no particular order.
    pub fn drain(&mut self) -> Vec<(K, T)> {
        for lane in &mut self.lanes {
            lane.heap.clear();
            lane.oldest.clear();
            (lane.live, lane.passed) = (0, 0);
        }
        self.items.drain().map(|(key, slot)| (key, slot.item)).collect()
    }

    /// Drops the stale entries of a lane when they are the majority.
    fn sweep(&mut self, priority: Priority) {
        let lane = &mut self.lanes[priority as usize];
        if lane.heap.len() > 2 * lane.live + Self::STALE_MIN {
            let items = &self.items;
            lane.heap.retain(|queued| items.get(&queued.key).is_some_and(|slot| slot.stamp == queued.stamp));
        }
    }
}

/// Not-a-number goes last.
fn ordered(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

fn highest(left: f32, right: f32) -> f32 {
    if left.total_cmp(&right).is_lt() { right } else { left }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lanes_then_scores_then_first_come() {
        let mut lanes = Lanes::new();
        let pushes = [(Priority::Low, 9.0), (Priority::High, 1.0), (Priority::High, 2.0), (Priority::High, 1.0)];
        for (key, (priority, score)) in pushes.into_iter().enumerate() {
            assert!(lanes.push(priority, score, key, ()).is_none());
        }
        lanes.push(Priority::High, f32::NAN, 9, ());
        let order: Vec<usize> = std::iter::from_fn(|| lanes.pop()).map(|(key, ())| key).collect();
        assert_eq!(order, [2, 1, 3, 9, 0]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_key_that_is_pushed_again_keeps_the_more_urgent_place_and_hands_the_old_item_back() {
        let mut lanes = Lanes::new();
        lanes.push(Priority::High, 1.0, 'a', 1);
        assert_eq!(lanes.push(Priority::Low, 5.0, 'a', 2), Some(1));
        assert_eq!((lanes.len(), lanes.priority(&'a')), (1, Some(Priority::High)));
        assert_eq!(lanes.pop(), Some(('a', 2)));
    }

    #[test]
    fn a_low_lane_gets_its_share_however_much_is_urgent() {
        let mut lanes: Lanes<(), u64> = Lanes::new();
        for key in 0..1000 {
            lanes.push(Priority::Critical, 0.0, key, ());
        }
        for (index, priority) in Priority::ALL[1..].iter().enumerate() {
            for key in 0..4 {
                lanes.push(*priority, 0.0, 10_000 * (index as u64 + 1) + key, ());
            }
        }
        let served: Vec<u64> = std::iter::from_fn(|| lanes.pop()).map(|(key, ())| key / 10_000).take(260).collect();
        for lane in 1..4 {
            let pops: Vec<usize> =
                served.iter().enumerate().filter(|(_, at)| **at == lane).map(|(index, _)| index).collect();
            assert_eq!(pops.len(), 4, "lane {lane}");
            assert!(pops[0] < 66 && pops.windows(2).all(|two| two[1] - two[0] <= 66), "{pops:?}");
        }
    }

    #[test]
    fn raising_and_removing_again_and_again_leaves_no_heap_of_stale_entries() {
        let mut lanes = Lanes::new();
        for key in 0..100_000u64 {
            lanes.push(Priority::Low, 0.0, key, ());
            if key % 2 == 0 {
                lanes.raise(&key, Priority::High, key as f32);
            }
            lanes.remove(&key);
        }
        assert!(lanes.lanes.iter().all(|lane| lane.heap.len() <= Lanes::<(), u64>::STALE_MIN + 2));
    }

    #[test]
    fn scores_made_anew_order_what_is_queued() {
        let mut lanes = Lanes::new();
        for key in 0..10u64 {
            lanes.push(Priority::Medium, key as f32, key, ());
        }
        lanes.remove(&3);
        lanes.raise(&4, Priority::High, 0.0);
        lanes.rescore(|key, ()| -(*key as f32));
        let order: Vec<u64> = std::iter::from_fn(|| lanes.pop()).map(|(key, ())| key).collect();
        assert_eq!(order, [4, 0, 1, 2, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_came_first_is_not_passed_over_for_ever_by_better_ones() {
        let mut lanes: Lanes<(), u64> = Lanes::new();
        lanes.push(Priority::High, 0.0, 0, ());
        let mut pops = 0;
        for key in 1.. {
            lanes.push(Priority::High, 1.0, key, ());
            pops += 1;
            if lanes.pop().unwrap().0 == 0 {
                break;
            }
        }
        assert_eq!(pops, Lanes::<(), u64>::PATIENT);
    }

    /// Whatever comes, and however urgent, what is queued is popped within a bound that depends only on what was queued
    /// before it: its lane gets one pop in `SHARE + 2`, and one of those in `PATIENT` takes the oldest.
    #[test]
    fn everything_is_popped_within_a_bound() {
        let mut lanes: Lanes<(), u64> = Lanes::new();
        let before = 5;
        (0..before).for_each(|key| _ = lanes.push(Priority::Low, 9.0, key, ()));
        lanes.push(Priority::Low, f32::NEG_INFINITY, before, ());
        let bound = u64::from((Lanes::<(), u64>::SHARE + 2) * Lanes::<(), u64>::PATIENT) * (before + 1);
        let popped = (before + 1..).step_by(4).take(bound as usize).take_while(|key| {
            for (lane, priority) in Priority::ALL.into_iter().enumerate() {
                lanes.push(priority, 5.0, key + lane as u64, ());
            }
            lanes.pop().is_some_and(|(key, ())| key != before)
        });
        assert!((popped.count() as u64) < bound);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64, usize, i8),
        Pop,
        Raise(u64, usize, i8),
        Place(u64, usize, i8),
        Remove(u64),
        Rescore,
        Rearrange,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..40, 0usize..4, any::<i8>()).prop_map(|(key, lane, score)| Step::Push(key, lane, score)),
            3 => Just(Step::Pop),
            2 => (0u64..40, 0usize..4, any::<i8>()).prop_map(|(key, lane, score)| Step::Raise(key, lane, score)),
            2 => (0u64..40, 0usize..4, any::<i8>()).prop_map(|(key, lane, score)| Step::Place(key, lane, score)),
            1 => (0u64..40).prop_map(Step::Remove),
            1 => Just(Step::Rescore),
            1 => Just(Step::Rearrange),
        ]
    }

    /// A plain list: (key, lane, score, arrival), and per lane how often it was passed over and popped.
    #[derive(Default)]
    struct Model {
        all: Vec<(u64, usize, i8, usize)>,
        arrivals: usize,
        passed: [u32; 4],
        pops: [u32; 4],
    }

    impl Model {
        fn pop(&mut self) -> Option<u64> {
            let has = |lane: &usize| self.all.iter().any(|item| item.1 == *lane);
            let due = (0..4).filter(has).filter(|lane| self.passed[*lane] >= 63);
            let lane = due.min_by_key(|lane| (Reverse(self.passed[*lane]), *lane)).or((0..4).find(has))?;
            for other in 0..4 {
                self.passed[other] = if other != lane && has(&other) { self.passed[other] + 1 } else { 0 };
            }
            let best = self.all.iter().enumerate().filter(|(_, item)| item.1 == lane);
            self.pops[lane] += 1;
            let patient = self.pops[lane].is_multiple_of(16);
            let index = best.min_by_key(|(_, item)| (Reverse(if patient { 0 } else { item.2 }), item.3))?.0;
            Some(self.all.remove(index).0)
        }

        fn raise(&mut self, key: u64, lane: usize, score: i8) -> bool {
            let Some(item) = self.all.iter_mut().find(|item| item.0 == key) else { return false };
            let before = *item;
            (item.1, item.2) = (item.1.min(lane), item.2.max(score));
            *item != before
        }
    }

    proptest! {
        #[test]
        fn lanes_do_what_a_sorted_list_does(steps in prop::collection::vec(step(), 1..400)) {
            let (mut lanes, mut model): (Lanes<u64>, Model) = (Lanes::new(), Model::default());
            for step in steps {
                match step {
                    Step::Push(key, lane, score) => {
                        let old = lanes.push(Priority::ALL[lane], f32::from(score), key, key);
                        let known = model.all.iter().any(|item| item.0 == key);
                        prop_assert_eq!(old.is_some(), known);
                        if known {
                            model.raise(key, lane, score);
                        } else {
                            model.all.push((key, lane, score, model.arrivals));
                            model.arrivals += 1;
                        }
                    }
                    Step::Pop => prop_assert_eq!(lanes.pop().map(|popped| popped.0), model.pop()),
                    Step::Raise(key, lane, score) => {
                        let moved = lanes.raise(&key, Priority::ALL[lane], f32::from(score));
                        prop_assert_eq!(moved, model.raise(key, lane, score));
                    }
                    Step::Place(key, lane, score) => {
                        lanes.place(&key, Priority::ALL[lane], f32::from(score));
                        let place = model.all.iter_mut().find(|item| item.0 == key);
                        place.into_iter().for_each(|item| (item.1, item.2) = (lane, score));
                    }
                    Step::Remove(key) => {
                        let known = model.all.iter().position(|item| item.0 == key).map(|index| model.all.remove(index));
                        prop_assert_eq!(lanes.remove(&key).is_some(), known.is_some());
                    }
                    Step::Rescore => {
                        lanes.rescore(|key, _| (*key % 7) as f32);
                        model.all.iter_mut().for_each(|item| item.2 = (item.0 % 7) as i8);
                    }
                    Step::Rearrange => {
                        lanes.rearrange(|key, _| (Priority::ALL[(*key % 4) as usize], (*key % 5) as f32));
                        let place = |item: &mut (u64, usize, i8, usize)| {
                            (item.1, item.2) = ((item.0 % 4) as usize, (item.0 % 5) as i8);
                        };
                        model.all.iter_mut().for_each(place);
                    }
                }
                prop_assert_eq!(lanes.len(), model.all.len());
                for (lane, priority) in Priority::ALL.into_iter().enumerate() {
                    prop_assert_eq!(lanes.lane_len(priority), model.all.iter().filter(|item| item.1 == lane).count());
                }
            }
            let mut rest: Vec<u64> = lanes.drain().into_iter().map(|(key, _)| key).collect();
            rest.sort_unstable();
            let mut expected: Vec<u64> = model.all.iter().map(|item| item.0).collect();
            expected.sort_unstable();
            prop_assert_eq!(rest, expected);
        }
    }
}
