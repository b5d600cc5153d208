//! Who is measured: each one's shortest way from an id to bytes that cannot go away while they are used.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use flyloft::{AssetId, Runtime, Snapshot};

pub type Value = Arc<[u8]>;

/// One who finds what is resident.
pub trait Subject: Sync {
    fn name(&self) -> &'static str;
    /// The result of `with` for the bytes of `id`, which is resident.
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize;
}

/// Ids are hashes already. Every peer is given this hasher, so that none pays for hashing twice.
#[derive(Clone, Default)]
pub struct Ids;

pub struct IdHasher(u64);

impl BuildHasher for Ids {
    type Hasher = IdHasher;
    fn build_hasher(&self) -> IdHasher {
        IdHasher(0)
    }
}

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are u64")
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// What no cache can be: a map that never changes, and a clone of what it finds.
pub struct BareMap(pub HashMap<u64, Value, Ids>);

impl Subject for BareMap {
    fn name(&self) -> &'static str {
        "bare HashMap, Arc clone"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(&self.0[&id].clone())
    }
}

/// A handle of Flyloft's.
pub struct Counted(pub Runtime);

impl Subject for Counted {
    fn name(&self) -> &'static str {
        "flyloft get_id"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(&self.0.get_id(AssetId(id)).expect("it is resident"))
    }
}

/// The same in a snapshot.
pub struct InSnapshot(pub Snapshot);

impl Subject for InSnapshot {
    fn name(&self) -> &'static str {
        "flyloft Snapshot::get_id"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(&self.0.get_id(AssetId(id)).expect("it is resident"))
    }
}

/// Flyloft's bytes without a handle.
pub struct Guard(pub Runtime);

impl Subject for Guard {
    fn name(&self) -> &'static str {
        "flyloft with"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        self.0.with(AssetId(id), with).expect("it is resident")
    }
}

pub struct QuickCache(pub quick_cache::sync::Cache<u64, Value, quick_cache::UnitWeighter, Ids>);

impl Subject for QuickCache {
    fn name(&self) -> &'static str {
        "quick_cache"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(&self.0.get(&id).expect("it is resident"))
    }
}

pub struct Moka(pub moka::sync::Cache<u64, Value, Ids>);

impl Subject for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(&self.0.get(&id).expect("it is resident"))
    }
}

/// Its entry is the handle: the value is not cloned.
pub struct Foyer(pub foyer::Cache<u64, Value, Ids>);

impl Subject for Foyer {
    fn name(&self) -> &'static str {
        "foyer"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        with(self.0.get(&id).expect("it is resident").value())
    }
}

pub struct DashMap(pub dashmap::DashMap<u64, Value, Ids>);

impl Subject for DashMap {
    fn name(&self) -> &'static str {
        "dashmap, Arc clone"
    }
    #[inline]
    fn hit(&self, id: u64, with: impl FnOnce(&[u8]) -> usize) -> usize {
        let value = Value::clone(&self.0.get(&id).expect("it is resident"));
        with(&value)
    }
}

/// All peers with the same entries. Each has room for twice as many, so that none evicts.
pub struct Peers {
    pub bare: BareMap,
    pub quick: QuickCache,
    pub moka: Moka,
    pub foyer: Foyer,
    pub dash: DashMap,
}

impl Peers {
    pub fn with(entries: &[(u64, Value)]) -> Peers {
        let room = entries.len() * 2;
        let peers = Peers {
            bare: BareMap(entries.iter().cloned().collect()),
            quick: QuickCache(quick_cache::sync::Cache::with(
                room,
                room as u64,
                quick_cache::UnitWeighter,
                Ids,
                Default::default(),
            )),
            moka: Moka(moka::sync::Cache::builder().max_capacity(room as u64).build_with_hasher(Ids)),
            foyer: Foyer(foyer::CacheBuilder::new(room).with_hash_builder(Ids).build()),
            dash: DashMap(dashmap::DashMap::with_capacity_and_hasher(room, Ids)),
        };
        for (id, value) in entries {
            peers.quick.0.insert(*id, Value::clone(value));
            peers.moka.0.insert(*id, Value::clone(value));
            peers.foyer.0.insert(*id, Value::clone(value));
            peers.dash.0.insert(*id, Value::clone(value));
        }
        peers.moka.0.run_pending_tasks();
        peers
    }
}
