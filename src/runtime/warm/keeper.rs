//! What became of what was warmed, and what is remembered for the next start: a thread that listens while there is
//! anything to learn.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use super::journal::Journal;
use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::ids::{AssetId, Hashing, Origin};
use crate::platform::affinity::CpuSet;
use crate::platform::fs::FileSystem;
use crate::runtime::record::listen;
use crate::telemetry::accesses::{Access, Level};
use crate::telemetry::{Counter, Histogram, Quantiles, Tap};

/// Warmed assets whose use is waited for, at most.
const WAITED_MAX: usize = 1 << 16;
/// How often it is looked for what was evicted.
const LOOK: Duration = Duration::from_secs(1);
/// How often the journal is saved.
const SAVE: Duration = Duration::from_secs(60);

/// What warming came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WarmStats {
    /// Warmings that were begun.
    pub runs: u64,
    /// Assets that they loaded.
    pub assets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Of those, assets that somebody asked for.
    pub used: u64,
    /// Bytes of them.
    pub used_bytes: u64,
    /// Assets that were evicted, or changed, before anybody asked for them.
    pub wasted: u64,
    /// Bytes of them.
    pub wasted_bytes: u64,
    /// Assets that are resident and that nobody asked for so far.
    pub waiting: u64,
    /// Of those whose end is known, the share that was used; `None` while there are none.
    pub precision: Option<f64>,
    /// From the load to the first use.
    pub lead: Quantiles,
}

/// What a runtime knows of its warmings.
#[derive(Default)]
pub(in crate::runtime) struct Warmth {
    pub(super) runs: Counter,
    assets: Counter,
    bytes: Counter,
    used: Counter,
    used_bytes: Counter,
    wasted: Counter,
    wasted_bytes: Counter,
    lead: Histogram,
    /// What was warmed and not asked for yet: when, and its bytes.
    waiting: Mutex<HashMap<AssetId, (Instant, u64), Hashing>>,
    /// Warmings under way.
    active: AtomicU64,
    journal: Option<Kept>,
    keeper: Mutex<Option<Keeper>>,
}

/// The journal and where it is kept.
struct Kept {
    fs: Arc<dyn FileSystem>,
    file: PathBuf,
    journal: Mutex<Journal>,
}

/// The thread that listens.
struct Keeper {
    stop: Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// A warming that is under way.
pub(super) struct Active(Arc<Warmth>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Release);
    }
}

impl Warmth {
    /// With the journal in `file`, where one is kept.
    pub(in crate::runtime) fn new(fs: Arc<dyn FileSystem>, file: Option<PathBuf>) -> Arc<Warmth> {
        let journal = file.map(|file| {
            let journal = match fs.read(&file) {
                Ok(bytes) => Journal::begin(&bytes).unwrap_or_else(|| {
                    tracing::warn!(file = %file.display(), "the journal of accesses is damaged; a new one is begun");
                    Journal::default()
                }),
                // There is none yet, or it cannot be read, which its saving will tell.
                Err(_) => Journal::default(),
            };
            Kept { fs, file, journal: Mutex::new(journal) }
        });
        Arc::new(Warmth { journal, ..Warmth::default() })
    }

    /// Whether accesses are remembered.
    pub(in crate::runtime) fn remembers(&self) -> bool {
        self.journal.is_some()
    }

    /// What earlier runs asked for; `None` where that is not remembered.
    pub(super) fn likely(&self, shared: &Shared) -> Option<Vec<AssetId>> {
        self.journal.as_ref().map(|kept| kept.journal.lock().likely(shared.clock.wall()))
    }

    /// A warming begins: from here on it is seen what is asked for.
    pub(super) fn begin(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Active> {
        self.active.fetch_add(1, Ordering::Acquire);
        let active = Active(Arc::clone(self));
        self.listen(shared)?;
        self.runs.one();
        Ok(active)
    }

    /// Starts the thread unless it runs.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be started.
    pub(in crate::runtime) fn listen(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        let mut keeper = self.keeper.lock();
        if keeper.is_some() {
            return Ok(());
        }
        let (stop, stopped) = bounded(0);
        let (tell, ended) = oneshot::channel();
        let tap = shared.accesses.tap(shared.moment());
        let (own, shared) = (Arc::clone(self), Arc::clone(shared));
        let (name, threads) = ("flyloft-warm", Arc::clone(&shared.threads));
        let run = move || {
            own.run(&shared, tap, &stopped);
            // Nobody may wait for it.
            let _ = tell.send(());
        };
        threads
            .spawn(name, &CpuSet::any(), Box::new(run))
            .map_err(|error| Error::io("start the thread", name, error))?;
        *keeper = Some(Keeper { stop, ended });
        Ok(())
    }

    /// Ends the thread, and waits until what it knows is saved.
    pub(in crate::runtime) async fn stop(&self) {
        let keeper = self.keeper.lock().take();
        if let Some(Keeper { stop, ended }) = keeper {
            drop(stop);
            // It ends in any case.
            let _ = ended.await;
        }
    }

    fn run(&self, shared: &Shared, mut tap: Tap, stopped: &Receiver<()>) {
        let (mut looked, mut saved) = (shared.clock.now(), shared.clock.now());
        let began = looked;
        // It ends the one way or the other.
        let _ = listen(shared, stopped, |now| {
            let mut found = 0;
            let wall = shared.clock.wall();
            tap.drain(now, |access| {
                found += 1;
                self.accessed(access, began + Duration::from_micros(access.at_us), wall);
            });
            if now.at.saturating_duration_since(looked) >= LOOK {
                looked = now.at;
                self.look(shared);
            }
            if now.at.saturating_duration_since(saved) >= SAVE {
                saved = now.at;
                self.save();
            }
            if self.is_idle() { Err(()) } else { Ok(found) }
        });
        self.save();
    }

    /// Whether there is nothing more to learn; then the thread is forgotten, and the next warming starts another one.
    fn is_idle(&self) -> bool {
        let mut keeper = self.keeper.lock();
        let idle = self.journal.is_none() && self.active.load(Ordering::Acquire) == 0 && self.waiting.lock().is_empty();
        if idle {
            drop(keeper.take());
        }
        idle
    }

    fn accessed(&self, access: &Access, at: Instant, wall: std::time::SystemTime) {
        if !access.level.is_access() || access.level == Level::Failed || access.origin != Origin::User {
            return;
        }
        if let Some(kept) = &self.journal {
            kept.journal.lock().used(access.id, wall);
        }
        let waited = self.waiting.lock().remove(&access.id);
        if let Some((since, bytes)) = waited {
            // What had to be loaded after all was evicted, or asked for before it was there.
            let (count, sum) = match access.level {
                Level::Hit => (&self.used, &self.used_bytes),
                _ => (&self.wasted, &self.wasted_bytes),
            };
            count.one();
            sum.add(bytes);
            if access.level == Level::Hit {
                self.lead.record(at.saturating_duration_since(since));
            }
        }
    }

    /// Looks what was evicted, or changed, before anybody asked for it.
    fn look(&self, shared: &Shared) {
        self.waiting.lock().retain(|id, (_, bytes)| {
            let resident = shared.table.candidate(*id).is_some();
            if !resident {
                self.wasted.one();
                self.wasted_bytes.add(*bytes);
            }
            resident
        });
    }

    fn save(&self) {
        let Some(kept) = &self.journal else { return };
        let Some(bytes) = kept.journal.lock().save() else { return };
        if let Err(error) = kept.fs.write_atomic(&kept.file, &bytes) {
            tracing::warn!(file = %kept.file.display(), %error, "the journal of accesses is not saved");
            kept.journal.lock().keep();
        }
    }

    /// An asset was warmed.
    pub(super) fn warmed(&self, id: AssetId, bytes: u64, at: Instant) {
        self.assets.one();
        self.bytes.add(bytes);
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITED_MAX {
            waiting.insert(id, (at, bytes));
        }
    }

    /// What it came to so far.
    pub(in crate::runtime) fn stats(&self) -> WarmStats {
        let (used, wasted) = (self.used.get(), self.wasted.get());
        WarmStats {
            runs: self.runs.get(),
            assets: self.assets.get(),
            bytes: self.bytes.get(),
            used,
            used_bytes: self.used_bytes.get(),
            wasted,
            wasted_bytes: self.wasted_bytes.get(),
            waiting: self.waiting.lock().len() as u64,
            precision: (used + wasted > 0).then(|| used as f64 / (used + wasted) as f64),
            lead: self.lead.quantiles(),
        }
    }
}
