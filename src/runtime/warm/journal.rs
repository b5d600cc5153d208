//! What the last runs asked for, in order, and at what time of the day and of the week. A small file beside the store.
//!
//! It is a hint: one that is damaged is begun anew. Times are of the day as UTC has it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::ids::{AssetId, Hashing};

/// The first bytes of the file; then the first 8 bytes of BLAKE3 of the rest, then the entries.
const MAGIC: &[u8; 8] = b"FLYWARM1";
const HEADER_BYTES: usize = 16;
/// Assets that are remembered at most.
pub(super) const ENTRIES_MAX: usize = 1 << 16;
/// An entry takes at most so many bytes: a file that is longer than all of them is none.
const ENTRY_BYTES_MAX: usize = 32;
/// Parts of a day, each of three hours.
const PARTS: usize = 8;
/// What is at least a quarter as likely as the likeliest is warmed in the order of its use; the rest follows.
const LIKELY_SHARE: f32 = 0.25;

/// What is remembered of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: u64,
    /// Its place among the first uses of the last run that used it.
    place: u32,
    /// The runs that used it: the lowest bit is this one's.
    runs: u8,
    /// How many runs used it in each part of the day, and on each day of the week.
    parts: [u8; PARTS],
    days: [u8; 7],
}

/// When something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct When {
    part: usize,
    day: usize,
}

impl When {
    fn of(wall: SystemTime) -> When {
        let seconds = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        When { part: rest as usize / (86_400 / PARTS), day: days as usize % 7 }
    }
}

/// The journal of a runtime.
#[derive(Default)]
pub(super) struct Journal {
    entries: HashMap<AssetId, Entry, Hashing>,
    /// First uses in this run.
    used: u32,
    /// Whether there is something to save.
    changed: bool,
}

impl Journal {
    /// Reads what the runs before left, and begins a run.
    pub(super) fn begin(bytes: &[u8]) -> Option<Journal> {
        let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
        let (magic, sum) = header.split_at(MAGIC.len());
        if magic != MAGIC || sum != checksum(body) || body.len() > ENTRIES_MAX * ENTRY_BYTES_MAX {
            return None;
        }
        let entries: Vec<Entry> = postcard::from_bytes(body).ok()?;
        let begun = |entry: Entry| Entry { runs: entry.runs << 1, ..entry };
        // What none of the last runs used is forgotten.
        let entries = entries.into_iter().map(begun).filter(|entry| entry.runs != 0).take(ENTRIES_MAX);
        Some(Journal { entries: entries.map(|entry| (AssetId(entry.id), entry)).collect(), used: 0, changed: false })
    }

    /// An asset was asked for.
    pub(super) fn used(&mut self, id: AssetId, wall: SystemTime) {
        let full = self.entries.len() >= ENTRIES_MAX;
        let fresh = || Entry { id: id.0, place: 0, runs: 0, parts: [0; PARTS], days: [0; 7] };
        let entry = match self.entries.get_mut(&id) {
            Some(entry) => entry,
            None if full => return,
            None => self.entries.entry(id).or_insert_with(fresh),
        };
        if entry.runs & 1 == 1 {
            return;
        }
        let When { part, day } = When::of(wall);
        entry.runs |= 1;
        entry.place = self.used;
        entry.parts[part] = entry.parts[part].saturating_add(1);
        entry.days[day] = entry.days[day].saturating_add(1);
        self.used += 1;
        self.changed = true;
    }

    /// What to save, if anything changed since the last time.
    pub(super) fn save(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        let body = postcard::to_stdvec(&entries).ok()?;
        Some([&MAGIC[..], &checksum(&body), &body].concat())
    }

    /// It could not be saved: to be tried again.
    pub(super) fn keep(&mut self) {
        self.changed = true;
    }

    /// What earlier runs used, as it is likely to be used now: what is likely, in the order of its first use, then the
    /// rest, the likeliest first.
    pub(super) fn likely(&self, wall: SystemTime) -> Vec<AssetId> {
        let when = When::of(wall);
        // Uses of this run are no reason to load what was just asked for.
        let before = self.entries.values().filter(|entry| entry.runs & !1 != 0);
        let mut all: Vec<(f32, &Entry)> = before.map(|entry| (entry.likelihood(when), entry)).collect();
        let most = all.iter().map(|(likelihood, _)| *likelihood).fold(0.0, f32::max);
        let is_likely = |likelihood: f32| likelihood >= most * LIKELY_SHARE;
        all.sort_unstable_by(|(one, a), (other, b)| {
            let by_place = (a.place, a.id).cmp(&(b.place, b.id));
            match (is_likely(*one), is_likely(*other)) {
                (true, true) => by_place,
                (false, false) => other.total_cmp(one).then(by_place),
                (one, other) => other.cmp(&one),
            }
        });
        all.into_iter().map(|(_, entry)| AssetId(entry.id)).collect()
    }
}

impl Entry {
    /// How likely it is used by a run at this time: each run counts half of the next, more where runs at this time of the
    /// day, or on this day of the week, used it more often than at others.
    fn likelihood(&self, when: When) -> f32 {
        let recent: f32 = (1..8).filter(|run| self.runs >> run & 1 == 1).map(|run| 0.5f32.powi(run)).sum();
        recent * share(&self.parts, when.part) * share(&self.days, when.day)
    }
}

/// 1 where a part has as many as each would have if all had the same; at most 2, and at least a half.
fn share(counts: &[u8], at: usize) -> f32 {
    let sum: f32 = counts.iter().map(|count| f32::from(*count)).sum();
    if sum == 0.0 { 1.0 } else { (f32::from(counts[at]) * counts.len() as f32 / sum).clamp(0.5, 2.0) }
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(body).as_bytes()[..8]);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(hours * HOUR)
    }

    /// Journals a run after the one that left `before`.
    fn run(before: Option<Vec<u8>>, ids: &[u64], hours: u64) -> Option<Vec<u8>> {
        let mut journal = before.map_or_else(Journal::default, |bytes| Journal::begin(&bytes).unwrap());
        ids.iter().for_each(|id| journal.used(AssetId(*id), at(hours)));
        journal.save()
    }

    fn likely(bytes: &[u8], hours: u64) -> Vec<u64> {
        Journal::begin(bytes).unwrap().likely(at(hours)).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_last_run_comes_back_in_the_order_of_its_first_uses() {
        let saved = run(None, &[5, 3, 5, 9, 3, 1], 10).unwrap();
        assert_eq!(likely(&saved, 10), [5, 3, 9, 1]);
    }

    #[test]
    fn what_many_runs_used_comes_before_what_one_used_long_ago_and_that_is_forgotten_in_the_end() {
        let mut saved = run(None, &[7, 1, 2], 10);
        for _ in 0..4 {
            saved = run(saved, &[2, 1], 10);
        }
        let saved = saved.unwrap();
        assert_eq!(likely(&saved, 10), [2, 1, 7]);
        let mut later = Some(saved);
        for _ in 0..4 {
            later = run(later, &[1], 10);
        }
        assert_eq!(likely(&later.unwrap(), 10), [1, 2]);
    }

    #[test]
    fn what_is_used_in_the_morning_is_likelier_in_the_morning() {
        let mut saved = None;
        for day in 0..3 {
            saved = run(saved, &[1], day * 24 + 7);
            saved = run(saved, &[2], day * 24 + 19);
        }
        let saved = saved.unwrap();
        // The likeliest first, where one of the two is not likely at all.
        assert_eq!(likely(&saved, 7 * 24 + 7)[0], 1);
        assert_eq!(likely(&saved, 7 * 24 + 19)[0], 2);
    }

    #[test]
    fn a_run_that_asks_for_nothing_leaves_what_was_there() {
        let saved = run(None, &[1], 1).unwrap();
        assert_eq!(Journal::begin(&saved).unwrap().save(), None);
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_no_journal(ids in prop::collection::vec(any::<u64>(), 1..50), at in any::<usize>(), flip in 1u8..) {
            let mut saved = run(None, &ids, 3).unwrap();
            prop_assert!(Journal::begin(&saved[..at % saved.len()]).is_none());
            let at = at % saved.len();
            saved[at] ^= flip;
            prop_assert!(Journal::begin(&saved).is_none());
        }
    }
}
