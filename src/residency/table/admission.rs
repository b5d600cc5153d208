//! How versions come into the table: one at a time when a load ends, many at once when a generation is published.

use std::sync::Arc;

use super::slots::Slots;
use super::version::{NEVER, Node};
use super::{Gone, PATIENCE, ResidentTable, SWEEP_MIN, Writer, Writing};
use crate::ids::{AssetId, Generation};
use crate::residency::asset::Asset;
use crate::residency::content::Content;
use crate::residency::generations::Live;
use crate::residency::hold::{Linked, Replaced};

impl ResidentTable {
    /// Makes a loaded asset resident for its generation and on until it changed, and gives what the table has for it:
    /// the same bytes may be there already, and then that handle comes back and `asset` should be let go.
    ///
    /// A load that was overtaken by a publication does no harm: the table knows what changed since, for as long as
    /// the generation is live, and lets the version die there (or at `death`, if that is earlier). An asset of a
    /// generation that is not live any more, or not yet published, comes back without being made resident.
    pub fn admit(&self, asset: Asset, death: Option<Generation>) -> Asset {
        self.remember(asset.content());
        let asset = Self::unlinked(asset);
        let (admitted, replaced) = self.writing(|writing, writer| self.admit_locked(writing, writer, asset, death));
        self.let_go(Gone { slots: replaced, ..Gone::default() }, PATIENCE.1);
        admitted
    }

    /// What there is to be let go of, once the mutex is, are the slots that were replaced.
    fn admit_locked(
        &self,
        writing: &Writing,
        writer: &mut Writer,
        asset: Asset,
        death: Option<Generation>,
    ) -> (Asset, Option<Replaced<Slots>>) {
        let generation = asset.generation();
        let changing = changing(&asset);
        let death = writer.death_after(changing, generation, death);
        let live = writer.oldest <= generation && generation <= self.current();
        if !live || death.is_some_and(|death| death <= generation || death <= writer.oldest) {
            return (asset, None);
        }
        for version in self.versions(writing, asset.id()) {
            let covers = version.birth() <= generation && generation < version.death();
            let same = version.content().hash() == asset.hash();
            if covers {
                debug_assert!(same, "one generation has two contents of {}", asset.path());
                return (if same { Asset::counted(version) } else { asset }, None);
            }
            // Nothing changed from this generation to its birth, since both end at the same change.
            let joins =
                generation < version.birth() && version.death().0 == death.map_or(NEVER, |death| death.0) && same;
            if joins {
                version.set_birth(generation);
                return (Asset::counted(version), None);
            }
        }
        if let Some(death) = death {
            let ids = writer.changed.entry(death).or_default();
            if !ids.contains(&changing) {
                ids.push(changing);
            }
        }
        let replaced = self.link(writing, writer, asset.clone(), death);
        (asset, replaced)
    }

    /// The asset itself if it was never in a table, else one like it: a version is linked once in its life.
    fn unlinked(asset: Asset) -> Asset {
        if asset.node().claim() {
            return asset;
        }
        let other = asset.under(asset.name().clone(), asset.generation());
        other.node().claim();
        other
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
        let mut replaced = Vec::new();
        let shown = self.writing(|writing, writer| {
            if generation <= self.current() {
                return None;
            }
            for (id, asset) in changes {
                for version in self.versions(writing, *id).chain(self.versions(writing, id.stored())) {
                    if version.death() > generation {
                        version.set_death(generation);
                    }
                }
                if let Some(asset) = asset {
                    debug_assert!(asset.id() == *id && asset.generation() == generation);
                    replaced.extend(self.link(writing, writer, Self::unlinked(asset.clone()), None));
                }
                let log = writer.changes.entry(*id).or_default();
                if log.last() != Some(&generation) {
                    log.push(generation);
                    writer.changed.entry(generation).or_default().push(*id);
                }
            }
            // The mutex is held on, so that no load is admitted between the last death and the number.
            Some(self.generations.show(live))
        });
        for slots in replaced {
            self.let_go(Gone { slots: Some(slots), ..Gone::default() }, PATIENCE.1);
        }
        shown.is_some()
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
    fn versions<'h>(&self, writing: &'h Writing, id: AssetId) -> impl Iterator<Item = Linked<'h, Node>> {
        let newest = self.slots.load(writing).cell(id).and_then(|cell| cell.load(writing));
        std::iter::successors(newest, |version| version.older.load(writing))
    }

    /// Puts `asset`, which was never linked, into the list of its id, in the order of births. Gives the slots that were
    /// replaced for it, to be let go of without the mutex.
    fn link(
        &self,
        writing: &Writing,
        writer: &mut Writer,
        asset: Asset,
        death: Option<Generation>,
    ) -> Option<Replaced<Slots>> {
        let id = asset.id();
        asset.node().admit(self.tick());
        if let Some(death) = death {
            asset.node().set_death(death);
        }
        let version = Linked::new(writing, asset.into_node());
        let slots = self.slots.load(writing);
        writer.versions += 1;
        if let Some(cell) = slots.cell(id) {
            let newer = self.versions(writing, id).take_while(|other| other.birth() > version.birth()).last();
            let link = newer.map_or(cell, |newer| &newer.get().older);
            let older = link.load(writing);
            writer.assets += usize::from(newer.is_none() && older.is_none());
            version.older.store(older);
            link.store(Some(version));
            return None;
        }
        writer.assets += 1;
        writer.slots_used += 1;
        if writer.slots_used <= slots.len() / 4 * 3 && slots.insert(version) {
            return None;
        }
        // Full of slots that are in use or were, or a probe got long: a new table, with a new seed.
        let mut room = writer.assets;
        let mut seed = slots.next_seed();
        loop {
            let next = Slots::with_room_for(room, seed);
            seed = next.next_seed();
            let carried = slots.cells().filter_map(|cell| cell.load(writing));
            let mut all = carried.chain([version]);
            if all.all(|version| next.insert(version)) {
                writer.slots_used = writer.assets;
                return Some(self.slots.swap(next));
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
