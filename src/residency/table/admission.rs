//! How versions come into the table: one at a time when a load ends, many at once when a generation is published.

use std::sync::Arc;

use super::slots::Slots;
use super::version::{NEVER, Version};
use super::{ResidentTable, SWEEP_MIN, Writer};
use crate::ids::{AssetId, Generation};
use crate::residency::asset::Asset;
use crate::residency::content::Content;
use crate::residency::generations::Live;

impl ResidentTable {
    /// Makes a loaded asset resident for its generation and on until it changed, and gives what the table has for it:
    /// the same bytes may be there already, and then that handle comes back and `asset` should be let go.
    ///
    /// A load that was overtaken by a publication does no harm: the table knows what changed since, for as long as
    /// the generation is live, and lets the version die there (or at `death`, if that is earlier). An asset of a
    /// generation that is not live any more, or not yet published, comes back without being made resident.
    pub fn admit(&self, asset: Asset, death: Option<Generation>) -> Asset {
        let generation = asset.generation();
        let changing = changing(&asset);
        self.remember(asset.content());
        let mut writer = self.writer.lock();
        let death = writer.death_after(changing, generation, death);
        let live = writer.oldest <= generation && generation <= self.current();
        if !live || death.is_some_and(|death| death <= generation || death <= writer.oldest) {
            return asset;
        }
        for version in self.versions(asset.id()) {
            let covers = version.birth() <= generation && generation < version.death();
            if covers {
                let same = version.asset.hash() == asset.hash();
                debug_assert!(same, "one generation has two contents of {}", asset.path());
                return if same { version.asset.clone() } else { asset };
            }
            // Nothing changed from this generation to its birth, since both end at the same change.
            let joins = generation < version.birth()
                && version.death().0 == death.map_or(NEVER, |death| death.0)
                && version.asset.hash() == asset.hash();
            if joins {
                version.set_birth(generation);
                return version.asset.clone();
            }
        }
        if let Some(death) = death {
            let ids = writer.changed.entry(death).or_default();
            if !ids.contains(&changing) {
                ids.push(changing);
            }
        }
        let version = Version::new(asset.clone(), generation, death, self.tick());
        let stale = self.link(&mut writer, Arc::new(version));
        drop(writer);
        drop(stale);
        asset
    }

    /// Publishes `live`: in one store, readers go from the generation they see to this one.
    ///
    /// `changes` names every asset that differs between the two, with its new version where that is to be resident
    /// at once; an asset that is gone has none. `false`, and nothing happens, when `live` is not newer than what
    /// readers see or was not prepared by [`super::Generations::prepare`].
    pub fn publish(&self, live: &Arc<Live>, changes: &[(AssetId, Option<Asset>)]) -> bool {
        let generation = live.generation();
        for (_, asset) in changes {
            if let Some(asset) = asset {
                self.remember(asset.content());
            }
        }
        // Asked before the mutex is taken: letting go of a list of generations may call back.
        if !self.generations.is_prepared(live) {
            return false;
        }
        let mut stale = Vec::new();
        let mut writer = self.writer.lock();
        if generation <= self.current() {
            return false;
        }
        for (id, asset) in changes {
            for version in self.versions(*id).chain(self.versions(id.stored())) {
                if version.death() > generation {
                    version.set_death(generation);
                }
            }
            if let Some(asset) = asset {
                debug_assert!(asset.id() == *id && asset.generation() == generation);
                let version = Version::new(asset.clone(), generation, None, self.tick());
                stale.extend(self.link(&mut writer, Arc::new(version)));
            }
            let log = writer.changes.entry(*id).or_default();
            if log.last() != Some(&generation) {
                log.push(generation);
                writer.changed.entry(generation).or_default().push(*id);
            }
        }
        // The mutex is held on, so that no load is admitted between the last death and the number.
        let shown = self.generations.show(live);
        drop(writer);
        drop(shown);
        drop(stale);
        true
    }

    /// Notes that `content` is in memory, so that a load of the same bytes under another name finds it.
    fn remember(&self, content: &Arc<Content>) {
        let known = self.contents.get(&content.hash()).is_some_and(|known| known.strong_count() > 0);
        if !known {
            self.contents.insert(content.hash(), Arc::downgrade(content));
            self.sweep();
        }
    }

    /// Forgets contents that are gone, when there are twice as many entries as after the last time.
    fn sweep(&self) {
        let mut writer = self.writer.lock();
        if self.contents.len() >= writer.sweep_at {
            self.contents.retain(|_, content| content.strong_count() > 0);
            writer.sweep_at = (self.contents.len() * 2).max(SWEEP_MIN);
        }
    }

    /// The versions of `id`, the newest first.
    pub(super) fn versions(&self, id: AssetId) -> impl Iterator<Item = Arc<Version>> {
        let newest = self.slots.load().cell(id).and_then(|cell| cell.load_full());
        std::iter::successors(newest, |version| version.older.load_full())
    }

    /// Puts `version` into its asset's list, in the order of births. Gives the slots it replaced, to be dropped
    /// outside the mutex.
    fn link(&self, writer: &mut Writer, version: Arc<Version>) -> Option<Arc<Slots>> {
        let id = version.asset.id();
        let slots = self.slots.load_full();
        if let Some(cell) = slots.cell(id) {
            let newer = self.versions(id).take_while(|other| other.birth() > version.birth()).last();
            let link = newer.as_ref().map_or(cell, |newer| &newer.older);
            let older = link.load_full();
            writer.assets += usize::from(newer.is_none() && older.is_none());
            writer.versions += 1;
            version.older.store(older);
            link.store(Some(version));
            return None;
        }
        writer.assets += 1;
        writer.versions += 1;
        writer.slots_used += 1;
        if writer.slots_used <= slots.len() / 4 * 3 && slots.insert(id, Arc::clone(&version)) {
            return None;
        }
        // Full of slots that are in use or were, or a probe got long: a new table, with a new seed.
        let mut room = writer.assets;
        let mut seed = slots.next_seed();
        loop {
            let next = Slots::with_room_for(room, seed);
            seed = next.next_seed();
            let carried = slots.cells().filter_map(|cell| cell.load_full());
            let mut all = carried.chain([Arc::clone(&version)]);
            if all.all(|version| next.insert(version.asset.id(), version)) {
                writer.slots_used = writer.assets;
                return Some(self.slots.swap(Arc::new(next)));
            }
            room = room.saturating_add(room / 2).max(1);
        }
    }
}

/// The id that a change of `asset` is known by: the stored form of an asset changes with the asset.
fn changing(asset: &Asset) -> AssetId {
    let own = asset.path().id();
    if asset.id() == own.stored() { own } else { asset.id() }
}

impl Writer {
    /// When a version of `id` that is of `generation` ends: at the first change after it, or at `given`.
    fn death_after(&self, id: AssetId, generation: Generation, given: Option<Generation>) -> Option<Generation> {
        let changes = self.changes.get(&id).map_or(&[][..], |changes| changes);
        let known = changes.iter().copied().find(|change| *change > generation);
        match (known, given) {
            (Some(known), Some(given)) => Some(known.min(given)),
            (known, given) => known.or(given),
        }
    }
}
