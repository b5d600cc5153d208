//! The caches of the field, each as large as its budget and asked the same.
//!
//! A request is a look-up; on a miss the object is inserted with its weight. What is larger than the budget is inserted
//! nowhere, as the runtime does. Each has one shard: shards part the budget, which costs hits. A value is its weight.

use flyloft::simulate::Object;

use crate::table::{Make, Subject};

/// Each with what tables call it.
pub const PEERS: [(&str, Make); 5] = [
    ("moka", |budget, _| Box::new(Moka::new(budget))),
    ("mini-moka", |budget, _| Box::new(MiniMoka::new(budget))),
    ("quick_cache", |budget, objects| Box::new(QuickCache::new(budget, objects))),
    ("foyer S3-FIFO", |budget, _| Box::new(Foyer::new(budget, foyer::S3FifoConfig::default()))),
    ("foyer (LRU, its default)", |budget, _| Box::new(Foyer::new(budget, foyer::LruConfig::default()))),
];

/// moka's `sync::Cache`. Its maintenance is forced after each operation: it would be late otherwise, and over its budget.
struct Moka(moka::sync::Cache<u32, u32>);

impl Moka {
    fn new(budget: u64) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(budget).weigher(|_, weight| *weight).build())
    }
}

impl Subject for Moka {
    fn request(&mut self, place: u32, object: &Object) -> bool {
        let hit = self.0.get(&place).is_some();
        if !hit {
            self.0.insert(place, weight(object));
        }
        self.0.run_pending_tasks();
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.0.weighted_size()
    }
}

/// mini-moka's `unsync::Cache`, which maintains itself with each operation.
struct MiniMoka(mini_moka::unsync::Cache<u32, u32>);

impl MiniMoka {
    fn new(budget: u64) -> Self {
        Self(mini_moka::unsync::Cache::builder().max_capacity(budget).weigher(|_, weight| *weight).build())
    }
}

impl Subject for MiniMoka {
    fn request(&mut self, place: u32, object: &Object) -> bool {
        let hit = self.0.get(&place).is_some();
        if !hit {
            self.0.insert(place, weight(object));
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.0.weighted_size()
    }
}

#[derive(Clone)]
struct Weigh;

impl quick_cache::Weighter<u32, u32> for Weigh {
    fn weight(&self, _: &u32, weight: &u32) -> u64 {
        u64::from(*weight)
    }
}

struct QuickCache(quick_cache::sync::Cache<u32, u32, Weigh>);

impl QuickCache {
    fn new(budget: u64, objects: usize) -> Self {
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(objects)
            .weight_capacity(budget)
            .shards(1)
            .build()
            .expect("every option that it needs is given");
        let (hashing, lifecycle) = (quick_cache::DefaultHashBuilder::default(), Default::default());
        Self(quick_cache::sync::Cache::with_options(options, Weigh, hashing, lifecycle))
    }
}

impl Subject for QuickCache {
    fn request(&mut self, place: u32, object: &Object) -> bool {
        let hit = self.0.get(&place).is_some();
        if !hit {
            self.0.insert(place, weight(object));
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.0.weight()
    }
}

struct Foyer(foyer::Cache<u32, u32>);

impl Foyer {
    fn new(budget: u64, eviction: impl Into<foyer::EvictionConfig>) -> Self {
        let builder = foyer::CacheBuilder::new(budget as usize).with_shards(1).with_eviction_config(eviction);
        Self(builder.with_weighter(|_, weight| *weight as usize).build())
    }
}

impl Subject for Foyer {
    fn request(&mut self, place: u32, object: &Object) -> bool {
        let hit = self.0.get(&place).is_some();
        if !hit {
            self.0.insert(place, weight(object));
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.0.usage() as u64
    }
}

fn weight(object: &Object) -> u32 {
    u32::try_from(object.size).unwrap_or(u32::MAX)
}
