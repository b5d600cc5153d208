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

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;

use self::slots::Slots;
use self::version::{Step, Version};
use super::asset::Asset;
use super::content::Content;
use super::generations::Generations;
use crate::ids::{AssetId, AssetKind, ContentHash, Generation};

/// What the evictor needs to know of a resident version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which asset.
    pub id: AssetId,
    /// What its content is charged, in bytes.
    pub weight: u64,
    /// Its kind.
    pub kind: AssetKind,
    /// The tick of its last hit.
    pub last_used: u32,
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

/// The table of resident assets. See the module's words.
pub struct ResidentTable {
    generations: Arc<Generations>,
    slots: ArcSwap<Slots>,
    /// What a hit stores as its time of use. Advanced by [`ResidentTable::advance_tick`].
    tick: AtomicU32,
    writer: Mutex<Writer>,
    /// Content that is still in memory under any name.
    contents: DashMap<ContentHash, Weak<Content>>,
}

/// What only writers use, under their mutex.
struct Writer {
    versions: usize,
    assets: usize,
    /// Slots of the current table that have a key, those without versions included.
    slots_used: usize,
    /// For each id that changed in a generation after the oldest live one: which ones, in order. An asset loaded for
    /// an older generation learns from it when its version ends.
    changes: HashMap<AssetId, Vec<Generation>>,
    /// The ids of `changes`, by generation.
    changed: BTreeMap<Generation, Vec<AssetId>>,
    /// No generation before this one is live: nothing is admitted for it.
    oldest: Generation,
    /// The number of contents at which dead entries are looked for.
    sweep_at: usize,
}

/// Contents below which dead entries are not looked for.
const SWEEP_MIN: usize = 1024;

impl ResidentTable {
    /// An empty table over these generations. `seed` is to be random: it keeps whoever chooses the ids from choosing
    /// where they go.
    pub fn new(generations: &Arc<Generations>, seed: u64) -> ResidentTable {
        ResidentTable {
            generations: Arc::clone(generations),
            slots: ArcSwap::from_pointee(Slots::with_room_for(0, seed)),
            tick: AtomicU32::new(0),
            writer: Mutex::new(Writer {
                versions: 0,
                assets: 0,
                slots_used: 0,
                changes: HashMap::new(),
                changed: BTreeMap::new(),
                oldest: Generation(0),
                sweep_at: SWEEP_MIN,
            }),
            contents: DashMap::new(),
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
    pub fn get(&self, id: AssetId) -> Option<Asset> {
        self.get_at(id, self.current())
    }

    /// The asset in `generation`, if it is resident.
    pub fn get_at(&self, id: AssetId, generation: Generation) -> Option<Asset> {
        self.read_at(id, generation, Asset::clone)
    }

    /// Uses the asset in `generation` without a handle of one's own: cheaper than [`ResidentTable::get_at`] where
    /// several threads hit the same asset, since it counts no reference. The asset may be evicted meanwhile; its
    /// memory stays until `with` returns.
    pub fn read_at<R>(&self, id: AssetId, generation: Generation, with: impl FnOnce(&Asset) -> R) -> Option<R> {
        let slots = self.slots.load();
        let newest = slots.cell(id)?.load();
        let mut version: &Version = newest.as_deref()?;
        let mut older;
        loop {
            match version.look(generation) {
                Step::Here => {
                    version.touch(self.tick.load(Ordering::Relaxed));
                    return Some(with(&version.asset));
                }
                Step::Nowhere => return None,
                Step::Older => {
                    older = version.older.load_full();
                    version = older.as_deref()?;
                }
            }
        }
    }

    /// As [`ResidentTable::get`], without counting as a use.
    pub fn peek(&self, id: AssetId) -> Option<Asset> {
        let generation = self.current();
        self.versions(id).find(|version| matches!(version.look(generation), Step::Here)).map(|v| v.asset.clone())
    }

    /// The tick of now.
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Lets a tick pass; gives the new one. Hits are told apart in time by ticks.
    pub fn advance_tick(&self) -> u32 {
        self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Content with this hash that is still in memory under any name, in the table or in someone's hand.
    pub fn content(&self, hash: &ContentHash) -> Option<Arc<Content>> {
        self.contents.get(hash)?.upgrade()
    }

    /// Takes the versions of `id` that nobody holds out of the table. Gives the bytes that come free with them.
    /// Does not wait for readers: one that is looking at a version right now ends its use of it first.
    pub fn evict(&self, id: AssetId) -> u64 {
        let mut gone = Vec::new();
        let mut writer = self.writer.lock();
        self.unlink(&mut writer, id, |version| !version.asset.is_held(), &mut gone);
        drop(writer);
        self.let_go(gone)
    }

    /// Takes out every version that no generation from `oldest_live` on can see, and forgets what changed before it.
    /// Gives the bytes that come free with them.
    pub fn retire(&self, oldest_live: Generation) -> u64 {
        let mut gone = Vec::new();
        let mut writer = self.writer.lock();
        writer.oldest = writer.oldest.max(oldest_live);
        while let Some(entry) = writer.changed.first_entry()
            && *entry.key() <= oldest_live
        {
            for id in entry.remove() {
                for id in [id, id.stored()] {
                    self.unlink(&mut writer, id, |version| version.death() <= oldest_live, &mut gone);
                }
                if let Some(changes) = writer.changes.get_mut(&id) {
                    changes.retain(|change| *change > oldest_live);
                    if changes.is_empty() {
                        writer.changes.remove(&id);
                    }
                }
            }
        }
        drop(writer);
        self.let_go(gone)
    }

    /// Takes everything that nobody holds out of the table. Gives the bytes that come free.
    pub fn clear(&self) -> u64 {
        let mut ids = Vec::new();
        self.for_each(|candidate| ids.push(candidate.id));
        ids.dedup();
        ids.into_iter().map(|id| self.evict(id)).sum()
    }

    /// How much is resident.
    pub fn stats(&self) -> TableStats {
        let writer = self.writer.lock();
        let (versions, assets) = (writer.versions, writer.assets);
        drop(writer);
        TableStats { versions, assets, contents: self.contents.len() }
    }

    /// Takes the versions of `id` that `which` names out of its list. What is taken out is freed by the caller, after
    /// it let go of the mutex.
    fn unlink(&self, writer: &mut Writer, id: AssetId, which: impl Fn(&Version) -> bool, gone: &mut Vec<Arc<Version>>) {
        let slots = self.slots.load();
        let Some(cell) = slots.cell(id) else { return };
        let mut previous: Option<Arc<Version>> = None;
        let mut next = cell.load_full();
        while let Some(version) = next {
            next = version.older.load_full();
            if which(&version) {
                let link = previous.as_ref().map_or(cell, |previous| &previous.older);
                link.store(next.clone());
                writer.versions -= 1;
                if previous.is_none() && next.is_none() {
                    writer.assets -= 1;
                }
                gone.push(version);
            } else {
                previous = Some(version);
            }
        }
    }

    /// Drops versions that were taken out; gives the bytes that came free.
    fn let_go(&self, gone: Vec<Arc<Version>>) -> u64 {
        let mut freed = 0;
        for version in gone {
            let hash = version.asset.hash();
            let weight = version.weight();
            drop(version);
            // The entry is removed only while its content is dead, so that a new content of that hash stays.
            if self.contents.remove_if(&hash, |_, content| content.strong_count() == 0).is_some() {
                freed += weight;
            }
        }
        freed
    }
}

impl fmt::Debug for ResidentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResidentTable(generation {}, {:?})", self.current(), self.stats())
    }
}

#[cfg(test)]
mod tests;
