//! What is resident, by id and generation. The hit path is here.
//!
//! Invariant 1: a hit takes no lock, sends no message, allocates nothing and never waits for a writer. It reads the
//! current number, the slots and one cell, and stores at most its tick; hits on different assets share no line that
//! either writes.
//!
//! How publishing is one store (invariant 3): each version knows the generations it is good for, from its birth up to
//! but not including its death. A new version is put in before anyone reads its generation's number; the old one gets
//! its death set, which is in the future for everyone as well. Then the current number is stored.
//!
//! Why a stale table of slots does no harm: growth copies references to the same versions, so a reader that still
//! holds the old slots sees every death; what it cannot see is newer versions, and that is only a miss.
//!
//! Writers take one mutex. Memory is never freed under it.

mod admission;
mod slots;
mod version;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use self::slots::Slots;
use self::version::{Step, is_held};
use super::asset::Asset;
use super::content::Content;
use super::generations::Generations;
use super::hold::{self, Grace, Hold, Linked, Readers, Replaced, Swap};
use crate::ids::{AssetId, AssetKind, ContentHash, Generation, Hashing};
use crate::policy::eviction::Usage;

pub(super) use self::version::Node;

/// What the evictor needs to know of a resident version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which asset.
    pub id: AssetId,
    /// What its content is charged, in bytes, with the values beside it that nobody holds.
    pub weight: u64,
    /// Its kind.
    pub kind: AssetKind,
    /// What its hits left.
    pub usage: Usage,
    /// Whether someone holds a handle to it. Evicting it would free nothing.
    pub pinned: bool,
}

/// How much is resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Versions in the table, those of older generations included.
    pub versions: usize,
    /// Ids that have a version.
    pub assets: usize,
    /// Contents in memory, in the table or held by handles alone.
    pub contents: usize,
}

/// What is resident, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableTally {
    /// What readers see and nobody has a handle to, with the values beside it that nobody holds.
    pub cached: u64,
    /// What readers see and somebody has a handle to.
    pub held: u64,
    /// What only older generations have.
    pub ended: u64,
    /// Of that, what nobody has a handle to.
    pub ended_unheld: u64,
}

/// The table of resident assets. See the module's words.
pub struct ResidentTable {
    generations: Arc<Generations>,
    readers: Readers,
    slots: Swap<Slots>,
    /// What a hit stores as its time of use. Advanced by [`ResidentTable::advance_tick`].
    tick: AtomicU32,
    writer: Mutex<Writer>,
    /// Content that is still in memory under any name.
    contents: DashMap<ContentHash, Weak<Content>, Hashing>,
    /// What was taken out while a thread was stopped in the middle of a look-up.
    late: Mutex<Vec<(Grace, Gone)>>,
}

/// What was taken out of the table and may still be seen by readers.
#[derive(Default)]
struct Gone {
    versions: Vec<Asset>,
    slots: Option<Replaced<Slots>>,
}

/// Shows that the writers' mutex is held: nothing that is linked is unlinked by others.
struct Writing(());

impl Hold for Writing {}

/// What only writers use, under their mutex.
struct Writer {
    versions: usize,
    assets: usize,
    /// Slots of the current table that have a key, those without versions included.
    slots_used: usize,
    /// For each id that changed in a generation after the oldest live one: which ones, in order. An asset loaded for
    /// an older generation learns from it when its version ends.
    changes: HashMap<AssetId, Vec<Generation>, Hashing>,
    /// The ids of `changes`, by generation.
    changed: BTreeMap<Generation, Vec<AssetId>>,
    /// No generation before this one is live: nothing is admitted for it.
    oldest: Generation,
    /// What ended up to here, and was wanted by nobody then, was let go of.
    let_go: Generation,
    /// The number of contents at which dead entries are looked for.
    sweep_at: usize,
}

/// How many turns of other threads are waited for a thread that stands still in the middle of a look-up: when the memory
/// is needed, and when it is not.
const PATIENCE: (usize, usize) = (10_000, 10);
/// Contents below which dead entries are not looked for.
const SWEEP_MIN: usize = 1024;

impl ResidentTable {
    /// An empty table over these generations. `seed` is to be random: it keeps whoever chooses the ids from choosing
    /// where they go.
    pub fn new(generations: &Arc<Generations>, seed: u64) -> ResidentTable {
        ResidentTable {
            generations: Arc::clone(generations),
            readers: Readers::new(),
            slots: Swap::new(Slots::with_room_for(0, seed)),
            tick: AtomicU32::new(0),
            writer: Mutex::new(Writer {
                versions: 0,
                assets: 0,
                slots_used: 0,
                changes: HashMap::default(),
                changed: BTreeMap::new(),
                oldest: Generation(0),
                let_go: Generation(0),
                sweep_at: SWEEP_MIN,
            }),
            contents: DashMap::default(),
            late: Mutex::default(),
        }
    }

    /// The generations whose number it goes by.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// The generation that readers see.
    pub fn current(&self) -> Generation {
        self.generations.number()
    }

    /// The asset in the current generation, if it is resident. A hit, or a miss; never waits.
    #[inline]
    pub fn get(&self, id: AssetId) -> Option<Asset> {
        self.get_at(id, self.current())
    }

    /// The asset in `generation`, if it is resident.
    #[inline]
    pub fn get_at(&self, id: AssetId, generation: Generation) -> Option<Asset> {
        self.readers
            .look(|section| self.find(section, id, generation).map(|found| self.used(found)).map(Asset::counted))
    }

    /// Uses the asset in the current generation, as [`ResidentTable::read_at`] does.
    #[inline]
    pub fn read<R>(&self, id: AssetId, with: impl FnOnce(&Asset) -> R) -> Option<R> {
        self.read_at(id, self.current(), with)
    }

    /// Uses the asset in `generation` without a handle of one's own. It counts no reference, so threads that hit the
    /// same asset share nothing that either writes. The asset may be evicted meanwhile; its memory, and no other, stays
    /// until `with` returns. Within `with` further assets may be used: those are counted.
    #[inline]
    pub fn read_at<R>(&self, id: AssetId, generation: Generation, with: impl FnOnce(&Asset) -> R) -> Option<R> {
        self.readers.read(|section| self.find(section, id, generation).map(|found| self.used(found)), with)
    }

    /// As [`ResidentTable::get`], without counting as a use.
    pub fn peek(&self, id: AssetId) -> Option<Asset> {
        self.peek_at(id, self.current())
    }

    /// As [`ResidentTable::get_at`], without counting as a use.
    pub fn peek_at(&self, id: AssetId, generation: Generation) -> Option<Asset> {
        self.readers.look(|section| self.find(section, id, generation).map(Asset::counted))
    }

    /// The version of `id` that `generation` sees. Its steps are bounded by the longest probe and by the generations
    /// that are live.
    #[inline]
    fn find<'h>(&self, hold: &'h impl Hold, id: AssetId, generation: Generation) -> Option<Linked<'h, Node>> {
        let mut version = self.slots.load(hold).cell(id)?.load(hold)?;
        loop {
            match version.look(generation) {
                Step::Here => return Some(version),
                Step::Nowhere => return None,
                Step::Older => version = version.older.load(hold)?,
            }
        }
    }

    #[inline]
    fn used<'h>(&self, found: Linked<'h, Node>) -> Linked<'h, Node> {
        found.touch(self.tick.load(Ordering::Relaxed));
        found
    }

    /// The tick of now.
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Lets a tick pass; gives the new one. Hits are told apart in time by ticks.
    pub fn advance_tick(&self) -> u32 {
        self.advance_ticks(1)
    }

    /// Lets so many ticks pass: as many as there were requests, so that times between uses are in requests.
    pub fn advance_ticks(&self, ticks: u32) -> u32 {
        self.free_late();
        self.tick.fetch_add(ticks, Ordering::Relaxed).wrapping_add(ticks)
    }

    /// Content with this hash that is still in memory under any name, in the table or in someone's hand.
    pub fn content(&self, hash: &ContentHash) -> Option<Arc<Content>> {
        self.contents.get(hash)?.upgrade()
    }

    /// Takes the versions of `id` that nobody has a handle to out of the table. Gives the bytes that come free with
    /// them. Does not wait for readers: what one is using right now comes free when it ends its use.
    pub fn evict(&self, id: AssetId) -> u64 {
        self.evict_all(&[id])
    }

    /// As [`ResidentTable::evict`], for many at once, which costs less than one after another.
    pub fn evict_all(&self, ids: &[AssetId]) -> u64 {
        let mut gone = Gone::default();
        self.writing(|writing, writer| {
            for id in ids {
                self.unlink(writing, writer, *id, |version| !is_held(version), &mut gone);
            }
        });
        self.let_go(gone, PATIENCE.0)
    }

    /// Takes out every version that no generation from `oldest_live` on can see, and forgets what changed before it.
    /// Gives the bytes that come free with them.
    pub fn retire(&self, oldest_live: Generation) -> u64 {
        let mut gone = Gone::default();
        self.writing(|writing, writer| {
            writer.oldest = writer.oldest.max(oldest_live);
            while let Some(entry) = writer.changed.first_entry()
                && *entry.key() <= oldest_live
            {
                for id in entry.remove() {
                    for id in [id, id.stored()] {
                        self.unlink(writing, writer, id, |version| version.death() <= oldest_live, &mut gone);
                    }
                    if let Some(changes) = writer.changes.get_mut(&id) {
                        changes.retain(|change| *change > oldest_live);
                        if changes.is_empty() {
                            writer.changes.remove(&id);
                        }
                    }
                }
            }
        });
        self.let_go(gone, PATIENCE.1)
    }

    /// Takes out what ended up to `wanted` and nobody has a handle to: of generations that are kept and that nobody reads.
    /// It is loaded again when somebody does. Gives the bytes that come free.
    pub fn let_go_of_ended(&self, wanted: Generation) -> u64 {
        self.let_go_of_those_ended(wanted, false)
    }

    /// As [`ResidentTable::let_go_of_ended`], of what somebody had a handle to when it was tried before as well.
    pub fn let_go_of_all_ended(&self, wanted: Generation) -> u64 {
        self.let_go_of_those_ended(wanted, true)
    }

    fn let_go_of_those_ended(&self, wanted: Generation, again: bool) -> u64 {
        let mut gone = Gone::default();
        self.writing(|writing, writer| {
            let from = if again { Generation(0) } else { writer.let_go.next() };
            if wanted < from {
                return;
            }
            writer.let_go = writer.let_go.max(wanted);
            let ids: Vec<AssetId> = writer.changed.range(from..=wanted).flat_map(|(_, ids)| ids).copied().collect();
            for id in ids {
                for id in [id, id.stored()] {
                    let ended = |version: Linked<'_, Node>| version.death() <= wanted && !is_held(version);
                    self.unlink(writing, writer, id, ended, &mut gone);
                }
            }
        });
        self.let_go(gone, PATIENCE.1)
    }

    /// Takes everything that nobody holds out of the table. Gives the bytes that come free.
    pub fn clear(&self) -> u64 {
        let mut ids = Vec::new();
        self.for_each(|candidate| ids.push(candidate.id));
        self.evict_all(&ids)
    }

    /// How much is resident.
    pub fn stats(&self) -> TableStats {
        let writer = self.writer.lock();
        let (versions, assets) = (writer.versions, writer.assets);
        drop(writer);
        TableStats { versions, assets, contents: self.contents.len() }
    }

    /// Runs `work` under the writers' mutex.
    fn writing<R>(&self, work: impl FnOnce(&Writing, &mut Writer) -> R) -> R {
        let mut writer = self.writer.lock();
        work(&Writing(()), &mut writer)
    }

    /// Takes the versions of `id` that `which` names out of its list. What is taken out is freed by the caller, after
    /// it let go of the mutex.
    fn unlink(
        &self,
        writing: &Writing,
        writer: &mut Writer,
        id: AssetId,
        which: impl Fn(Linked<'_, Node>) -> bool,
        gone: &mut Gone,
    ) {
        let Some(cell) = self.slots.load(writing).cell(id) else { return };
        let mut previous: Option<Linked<'_, Node>> = None;
        let mut next = cell.load(writing);
        while let Some(version) = next {
            next = version.older.load(writing);
            if which(version) {
                let link = previous.map_or(cell, |previous| &previous.get().older);
                // It leads there: the mutex is held since that was read.
                gone.versions.extend(link.unlink(version, next).map(Asset::from_node));
                writer.versions -= 1;
                if previous.is_none() && next.is_none() {
                    writer.assets -= 1;
                }
            } else {
                previous = Some(version);
            }
        }
    }

    /// Drops what was taken out, as soon as nobody can see it: when the sections that may have found it ended, for
    /// which it waits `yields` turns of other threads, or else at a later call. Gives the bytes that came free.
    fn let_go(&self, gone: Gone, yields: usize) -> u64 {
        let late = self.free_late();
        if gone.versions.is_empty() && gone.slots.is_none() {
            return late;
        }
        let mut grace = self.readers.grace();
        if grace.wait(yields) {
            return late + self.free(gone);
        }
        self.late.lock().push((grace, gone));
        late
    }

    /// Frees what nobody can see any more.
    fn free(&self, gone: Gone) -> u64 {
        let known = |asset: &Asset| (asset.hash(), asset.content().evictable_bytes());
        let contents: Vec<(ContentHash, u64)> = gone.versions.iter().map(known).collect();
        hold::let_go(gone.versions);
        drop(gone.slots);
        let mut freed = 0;
        for (hash, weight) in contents {
            // The entry is removed only while its content is dead, so that a new content of that hash stays.
            if self.contents.remove_if(&hash, |_, content| content.strong_count() == 0).is_some() {
                freed += weight;
            }
        }
        freed
    }

    /// Frees what could not be freed when it was taken out, since somebody stood still reading it, as far as it can be now.
    /// Gives the bytes that came free.
    pub fn free_late(&self) -> u64 {
        let mut late = self.late.lock();
        if late.is_empty() {
            return 0;
        }
        let over: Vec<(Grace, Gone)> = late.extract_if(.., |(grace, _)| grace.is_over()).collect();
        drop(late);
        over.into_iter().map(|(_, gone)| self.free(gone)).sum()
    }
}

impl Drop for ResidentTable {
    /// Nobody reads a table that is being dropped: what it has is given back at once.
    fn drop(&mut self) {
        let mut gone = Gone::default();
        let ids: Vec<AssetId> = self.candidates().into_iter().map(|candidate| candidate.id).collect();
        self.writing(|writing, writer| {
            for id in ids {
                self.unlink(writing, writer, id, |_| true, &mut gone);
            }
        });
        drop(gone);
        self.late.get_mut().clear();
    }
}

impl fmt::Debug for ResidentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResidentTable(generation {}, {:?})", self.current(), self.stats())
    }
}

#[cfg(test)]
mod tests;
