//! Assets that a program wants in memory whether or not it has a handle to them.
//!
//! A lock holds the version of its asset that readers see: a handle like any other, which keeps it from being evicted.
//! When another version is published it lets go of the old one and takes the new one, at once if that is resident, else
//! when it is loaded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::asset::Asset;
use super::table::ResidentTable;
use crate::ids::{AssetId, Hashing};

/// How much is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStats {
    /// Assets that are locked.
    pub assets: usize,
    /// Of them, those that are in memory now.
    pub resident: usize,
    /// What those are charged, in bytes.
    pub bytes: u64,
}

/// The locked assets.
#[derive(Default)]
pub struct Locks {
    /// How many there are, to be looked at without the mutex.
    count: AtomicUsize,
    locked: Mutex<HashMap<AssetId, Locked, Hashing>>,
}

#[derive(Default)]
struct Locked {
    /// Locks of it.
    times: usize,
    held: Option<Asset>,
}

impl Locks {
    /// One more lock of this asset, which holds what is resident of it.
    pub fn add(&self, id: AssetId, table: &ResidentTable) {
        let mut locked = self.locked.lock();
        let entry = locked.entry(id).or_default();
        entry.times += 1;
        let before = std::mem::replace(&mut entry.held, table.peek(id));
        self.count.store(locked.len(), Ordering::SeqCst);
        drop(locked);
        // What comes free may wake somebody.
        drop(before);
    }

    /// One lock of this asset less.
    pub fn remove(&self, id: AssetId) {
        let mut locked = self.locked.lock();
        let Some(entry) = locked.get_mut(&id) else { return };
        entry.times -= 1;
        let gone = if entry.times == 0 { locked.remove(&id) } else { None };
        self.count.store(locked.len(), Ordering::SeqCst);
        drop(locked);
        drop(gone);
    }

    /// A version of this asset may have become resident, or have been replaced. Whether it is locked, and not resident.
    pub fn refresh(&self, id: AssetId, table: &ResidentTable) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut locked = self.locked.lock();
        let Some(entry) = locked.get_mut(&id) else { return false };
        let before = std::mem::replace(&mut entry.held, table.peek(id));
        let is_missing = entry.held.is_none();
        drop(locked);
        drop(before);
        is_missing
    }

    /// How much is locked.
    pub fn stats(&self) -> LockStats {
        let locked = self.locked.lock();
        let held = locked.values().filter_map(|entry| entry.held.as_ref());
        let (resident, bytes) =
            held.fold((0, 0), |(count, bytes), asset| (count + 1, bytes + asset.content().weight_bytes()));
        LockStats { assets: locked.len(), resident, bytes }
    }

    /// Lets go of everything: nothing is to be kept any more.
    pub fn clear(&self) {
        let gone: Vec<Asset> = self.locked.lock().values_mut().filter_map(|entry| entry.held.take()).collect();
        drop(gone);
    }
}
