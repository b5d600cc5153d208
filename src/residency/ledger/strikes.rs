//! What failed how often: an item that breaks a stage again and again is quarantined (invariant 6), also when those
//! who ask for it come and go. It is held against one content under one id, so an edit heals it.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::{DashMap, Entry as Place};

use super::{Key, Want};
use crate::error::Error;
use crate::ids::{AssetId, ContentHash, Generation, Hashing};
use crate::limits;

/// Items remembered. Past it a new one counts only while its entry is open.
const ITEMS_MAX: usize = 1 << 16;

struct Item {
    attempts: u32,
    cause: String,
    /// The generation of the last attempt: the content is the same in it, known or not.
    generation: Generation,
    /// The content, if an attempt got so far.
    content: Option<ContentHash>,
}

/// The items that failed and have not succeeded since.
#[derive(Default)]
pub(super) struct Strikes {
    items: DashMap<(AssetId, Want), Item, Hashing>,
    /// The number of items: mostly 0, and then nothing is looked up.
    count: AtomicUsize,
}

impl Strikes {
    /// The error of a request for what is quarantined in its generation.
    pub(super) fn refusal(&self, key: &Key, what: impl FnOnce() -> String) -> Option<Error> {
        self.refuse(key, |item| item.generation == key.generation, what)
    }

    /// The error of a request whose content is quarantined.
    pub(super) fn refusal_of(&self, key: &Key, content: &ContentHash, what: impl FnOnce() -> String) -> Option<Error> {
        self.refuse(key, |item| item.content.as_ref() == Some(content), what)
    }

    fn refuse(&self, key: &Key, same: impl FnOnce(&Item) -> bool, what: impl FnOnce() -> String) -> Option<Error> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let item = self.items.get(&(key.id, key.want))?;
        (item.attempts >= limits::ATTEMPTS_MAX && same(&item)).then(|| Error::Quarantined {
            what: what(),
            attempts: item.attempts,
            cause: item.cause.clone(),
        })
    }

    /// Failed attempts at this key so far.
    pub(super) fn so_far(&self, key: &Key) -> u32 {
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let item = self.items.get(&(key.id, key.want));
        item.filter(|item| item.generation == key.generation).map_or(0, |item| item.attempts)
    }

    /// Counts a failed attempt; gives how many there are now. `so_far` is what its entry knows of.
    pub(super) fn strike(&self, key: &Key, content: Option<ContentHash>, so_far: u32, cause: &str) -> u32 {
        let full = self.count.load(Ordering::Relaxed) >= ITEMS_MAX;
        match self.items.entry((key.id, key.want)) {
            Place::Occupied(mut place) => {
                let item = place.get_mut();
                let same_generation = item.generation == key.generation;
                if !same_generation && (content.is_none() || item.content != content) {
                    item.attempts = 0;
                    item.content = None;
                }
                item.attempts = item.attempts.max(so_far) + 1;
                item.generation = key.generation;
                item.content = content.or(item.content);
                item.cause = cause.into();
                item.attempts
            }
            Place::Vacant(_) if full => so_far + 1,
            Place::Vacant(place) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                let (generation, cause) = (key.generation, cause.into());
                place.insert(Item { attempts: so_far + 1, cause, generation, content });
                so_far + 1
            }
        }
    }

    /// Forgets what is held against a key, since it succeeded.
    pub(super) fn pardon(&self, key: &Key) {
        if self.count.load(Ordering::Relaxed) > 0 && self.items.remove(&(key.id, key.want)).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.items.retain(|_, _| {
            self.count.fetch_sub(1, Ordering::Relaxed);
            false
        });
    }

    /// How many are quarantined.
    pub(super) fn quarantined(&self) -> u64 {
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.items.iter().filter(|item| item.attempts >= limits::ATTEMPTS_MAX).count() as u64
    }
}
