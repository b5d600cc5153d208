//! Who took handles and snapshots, for whoever wonders why memory does not come free. Only where it is asked for: a
//! backtrace costs some microseconds.

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use super::asset::Asset;
use super::table::ResidentTable;
use crate::ids::{AssetId, AssetPath, ContentHash, Generation, Hashing};

/// Who took it last are remembered, so many of them.
const TAKERS_MAX: usize = 4;
/// Contents of which takers are remembered, at most, before those that are gone are forgotten.
const KNOWN_MAX: usize = 1 << 16;

/// Somebody who holds something of a generation that readers no longer see, or held it at a shutdown.
#[derive(Clone, Debug, Serialize)]
pub struct Holder {
    /// The generation that it was taken from.
    pub generation: Generation,
    /// The asset; `None` for a snapshot.
    pub path: Option<AssetPath>,
    /// Bytes that it keeps in memory by itself; a snapshot keeps none.
    pub bytes: u64,
    /// How long ago it was taken last, in seconds.
    pub held_seconds: f64,
    /// How often it was taken.
    pub taken: u64,
    /// Those who took it last: the span they were in, and their backtrace.
    pub takers: Vec<String>,
}

/// What is held and for how long, in one line.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}, {} bytes,", self.bytes)?,
            None => f.write_str("a snapshot")?,
        }
        write!(f, " of generation {}, for {:.1} s", self.generation, self.held_seconds)
    }
}

/// What is remembered.
#[derive(Default)]
pub struct Holders {
    assets: Mutex<HashMap<(AssetId, ContentHash), Taken, Hashing>>,
    snapshots: Mutex<HashMap<u64, (Generation, Instant, String)>>,
    next: AtomicU64,
}

struct Taken {
    path: AssetPath,
    generation: Generation,
    last: Instant,
    times: u64,
    takers: Vec<String>,
}

/// A snapshot that is remembered for as long as this is there.
pub struct Holding {
    holders: Arc<Holders>,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holders.snapshots.lock().remove(&self.number);
    }
}

/// The caller's span and backtrace.
fn taker() -> String {
    let span = tracing::Span::current();
    let name = span.metadata().map_or("no span", |metadata| metadata.name());
    format!("in {name}\n{}", Backtrace::force_capture())
}

impl Holders {
    /// Somebody takes a handle to this asset.
    #[cold]
    pub fn took(&self, asset: &Asset, table: &ResidentTable, now: Instant) {
        let taker = taker();
        let mut assets = self.assets.lock();
        if assets.len() >= KNOWN_MAX {
            assets.retain(|(_, hash), _| table.content(hash).is_some());
        }
        let taken = assets.entry((asset.id(), asset.hash())).or_insert_with(|| Taken {
            path: asset.path().clone(),
            generation: asset.generation(),
            last: now,
            times: 0,
            takers: Vec::new(),
        });
        (taken.last, taken.times) = (now, taken.times + 1);
        if taken.takers.len() == TAKERS_MAX {
            taken.takers.remove(0);
        }
        taken.takers.push(taker);
    }

    /// Somebody takes a snapshot of this generation.
    pub fn snapped(self: &Arc<Self>, generation: Generation, now: Instant) -> Holding {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.snapshots.lock().insert(number, (generation, now, taker()));
        Holding { holders: Arc::clone(self), number }
    }

    /// Who holds what, the longest first: of generations before the one that readers see, or of all.
    pub fn report(&self, table: &ResidentTable, retired_alone: bool, now: Instant) -> Vec<Holder> {
        let current = table.current();
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        let snapshots = self.snapshots.lock();
        let of_snapshot = |(generation, then, taker): &(Generation, Instant, String)| Holder {
            generation: *generation,
            path: None,
            bytes: 0,
            held_seconds: since(*then),
            taken: 1,
            takers: vec![taker.clone()],
        };
        let wanted = snapshots.values().filter(|(generation, ..)| !retired_alone || *generation < current);
        let mut all: Vec<Holder> = wanted.map(of_snapshot).collect();
        drop(snapshots);
        let mut assets = self.assets.lock();
        assets.retain(|(id, hash), taken| {
            let Some(content) = table.content(hash) else { return false };
            let shown = table.peek(*id).filter(|shown| shown.hash() == *hash);
            let is_current = shown.is_some();
            // What is only in the table, and in our own hand for this look, is nobody's.
            drop(shown);
            let is_held = !is_current || table.candidate(*id).is_some_and(|version| version.pinned);
            if is_held && !(retired_alone && is_current) {
                all.push(Holder {
                    generation: taken.generation,
                    path: Some(taken.path.clone()),
                    bytes: content.weight_bytes(),
                    held_seconds: since(taken.last),
                    taken: taken.times,
                    takers: taken.takers.clone(),
                });
            }
            true
        });
        drop(assets);
        all.sort_by(|a, b| b.held_seconds.total_cmp(&a.held_seconds));
        all
    }
}
