//! The queue of entries that wait for the dispatcher, outside any actor: what a dead dispatcher leaves is here, or
//! comes back here with its leases.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::Key;
use super::entry::{Entry, Phase};
use crate::ids::Priority;

/// Called when the inbox is no longer empty, or something changed about what is leased.
pub type OnReady = Box<dyn Fn() + Send + Sync>;

/// What changed about leased work. A hint: it may come late, and is left out under extreme load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It became more urgent.
    Raised {
        /// Which.
        key: Key,
        /// How urgent it is now.
        priority: Priority,
    },
    /// Nobody waits for it any more.
    Cancelled {
        /// Which.
        key: Key,
    },
}

/// One in this many is taken from the least urgent lane, so that none starves.
const PATIENT_SHARE: u32 = 64;
/// Changes kept for a dispatcher that does not look.
const CHANGES_MAX: usize = 1 << 16;
/// Places that an empty lane keeps allocated.
const LANE_KEPT: usize = 4096;
/// Ended entries that may stay in the queue before it is swept.
const DEAD_MAX: usize = 1024;

/// The queue.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    changes: Mutex<Vec<Change>>,
    ready: ArcSwapOption<OnReady>,
}

#[derive(Default)]
struct Queue {
    lanes: [VecDeque<Arc<Entry>>; 4],
    /// Entries in the lanes that ended or were taken from another lane.
    dead: usize,
    pops: u32,
    /// For each lane, whether the callback was called since the lane was last seen empty.
    announced: [bool; 4],
}

impl Queue {
    fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// Counts every lane that holds something as announced; whether one of them was not.
    fn announce_all(&mut self) -> bool {
        let mut announce = false;
        for (lane, announced) in self.lanes.iter().zip(&mut self.announced) {
            announce |= !lane.is_empty() && !std::mem::replace(announced, true);
        }
        announce
    }
}

impl Inbox {
    /// Queues an entry by its priority.
    pub(super) fn push(&self, entry: Arc<Entry>) {
        let lane = entry.priority() as usize;
        let mut queue = self.queue.lock();
        queue.lanes[lane].push_back(entry);
        let announce = !std::mem::replace(&mut queue.announced[lane], true);
        drop(queue);
        if announce {
            self.announce();
        }
    }

    /// Queues an entry once more, in the lane of its raised priority. The place it had finds it taken, later.
    pub(super) fn push_again(&self, entry: Arc<Entry>) {
        self.push(entry);
        self.died();
    }

    /// Takes the next entry. `None` when there is none: the next push announces itself again.
    pub(super) fn pop(&self) -> Option<Arc<Entry>> {
        let mut queue = self.queue.lock();
        queue.pops = queue.pops.wrapping_add(1);
        let patient = queue.pops.is_multiple_of(PATIENT_SHARE);
        let mut lanes = queue.lanes.iter_mut();
        let lane = if patient { lanes.rfind(|lane| !lane.is_empty()) } else { lanes.find(|lane| !lane.is_empty()) };
        let popped = lane.and_then(VecDeque::pop_front);
        if popped.is_none() {
            queue.announced = [false; 4];
            for lane in queue.lanes.iter_mut().filter(|lane| lane.capacity() > LANE_KEPT) {
                *lane = VecDeque::new();
            }
        }
        popped
    }

    /// Takes the next entry of one lane. `None` when it has none: the next push to it announces itself again.
    pub(super) fn pop_of(&self, priority: Priority) -> Option<Arc<Entry>> {
        let lane = priority as usize;
        let mut queue = self.queue.lock();
        let popped = queue.lanes[lane].pop_front();
        if popped.is_none() {
            queue.announced[lane] = false;
            if queue.lanes[lane].capacity() > LANE_KEPT {
                queue.lanes[lane] = VecDeque::new();
            }
        }
        popped
    }

    /// What was popped had ended.
    pub(super) fn popped_dead(&self) {
        let mut queue = self.queue.lock();
        queue.dead = queue.dead.saturating_sub(1);
    }

    /// An entry that may be in the queue ended. Sweeps the queue when most of it has.
    pub(super) fn died(&self) {
        let mut queue = self.queue.lock();
        queue.dead += 1;
        if queue.dead <= DEAD_MAX || queue.dead * 2 <= queue.len() {
            return;
        }
        queue.dead = 0;
        let lanes = std::mem::take(&mut queue.lanes);
        drop(queue);
        // Looked at without the queue's lock. What is pushed meanwhile goes behind.
        let mut kept = lanes;
        let mut swept: Vec<VecDeque<Arc<Entry>>> = Vec::new();
        for lane in &mut kept {
            let (queued, ended) = lane.drain(..).partition(|entry| matches!(entry.state.lock().phase, Phase::Queued));
            *lane = queued;
            swept.push(ended);
        }
        let mut queue = self.queue.lock();
        for (lane, mut kept) in queue.lanes.iter_mut().zip(kept) {
            kept.append(lane);
            *lane = kept;
        }
        let announce = queue.announce_all();
        drop(queue);
        if announce {
            self.announce();
        }
    }

    /// Places that are taken, those of ended entries included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.lock().len()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let lanes = std::mem::take(&mut self.queue.lock().lanes);
        drop(lanes);
    }

    /// Notes a change.
    pub(super) fn change(&self, change: Change) {
        let mut changes = self.changes.lock();
        let first = changes.is_empty();
        if changes.len() < CHANGES_MAX {
            changes.push(change);
        }
        drop(changes);
        if first {
            self.announce();
        }
    }

    /// Takes the changes.
    pub(super) fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock())
    }

    /// Sets the callback, and calls it if something waits.
    pub(super) fn on_ready(&self, ready: OnReady) {
        self.ready.store(Some(Arc::new(ready)));
        let mut queue = self.queue.lock();
        queue.announced = [false; 4];
        let waits = queue.announce_all();
        drop(queue);
        if waits || !self.changes.lock().is_empty() {
            self.announce();
        }
    }

    fn announce(&self) {
        if let Some(ready) = &*self.ready.load() {
            ready();
        }
    }
}
