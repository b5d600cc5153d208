//! When who is too late: sorted by deadline, so that looking costs what is due and not what is open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::Entry;

/// Deadlines are spread over this many maps, so that joining does not queue for one lock.
const SHARDS: usize = 16;

/// A waiter with a deadline.
pub(super) struct Due {
    pub(super) entry: Arc<Entry>,
    pub(super) slot: u32,
    pub(super) sequence: u64,
    /// The time it was given.
    pub(super) after: Duration,
}

/// By deadline and the waiter's number: the entry, its slot, and the time it was given in nanoseconds.
type Shard = BTreeMap<(Instant, u64), (Arc<Entry>, u32, u64)>;

/// Every open deadline. A leaf in the order of locks: nothing else is locked while a shard is.
#[derive(Default)]
pub(super) struct Deadlines([Mutex<Shard>; SHARDS]);

impl Deadlines {
    /// Adds the deadline of a waiter, if it has one.
    pub(super) fn add(
        &self,
        entry: &Arc<Entry>,
        slot: u32,
        deadline: Option<Instant>,
        sequence: u64,
        after: Option<Duration>,
    ) {
        if let (Some(deadline), Some(after)) = (deadline, after) {
            let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
            self.shard(sequence).lock().insert((deadline, sequence), (Arc::clone(entry), slot, after));
        }
    }

    /// Removes the deadline of a waiter that does not wait any more. The entry comes back, so that it is not dropped
    /// under a lock.
    pub(super) fn remove(&self, deadline: Option<Instant>, sequence: u64) -> Option<Arc<Entry>> {
        let removed = self.shard(sequence).lock().remove(&(deadline?, sequence));
        removed.map(|(entry, ..)| entry)
    }

    /// Removes what is due and gives it to `each`, with no lock held.
    pub(super) fn due(&self, now: Instant, mut each: impl FnMut(Due)) {
        for shard in &self.0 {
            let mut shard = shard.lock();
            if shard.first_key_value().is_none_or(|((first, _), _)| *first > now) {
                continue;
            }
            // A waiter's number is never the greatest one, so this is past everything that is due now.
            let later = shard.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut *shard, later);
            drop(shard);
            for ((_, sequence), (entry, slot, after)) in due {
                each(Due { entry, slot, sequence, after: Duration::from_nanos(after) });
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(|shard| shard.lock().first_key_value().map(|((first, _), _)| *first)).min()
    }

    fn shard(&self, sequence: u64) -> &Mutex<Shard> {
        &self.0[sequence as usize % SHARDS]
    }
}
