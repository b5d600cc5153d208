//! Warming: loading what will be asked for before it is, in the background, as far as there is room.
//!
//! A warming goes behind every real request (low priority), loads nothing that would need an eviction, and stops at its
//! budget, when it is cancelled, or when the runtime stops.

mod journal;
mod keeper;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

pub use self::keeper::WarmStats;
pub(super) use self::keeper::Warmth;
use super::{Runtime, Snapshot};
use crate::actors::Shared;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ids::{AssetId, AssetPath, Origin, Priority};
use crate::residency::{Ask, Key, Want};

/// The name of the journal of accesses in a store.
pub const STORE_JOURNAL: &str = "accesses";

/// Assets that one warming goes through at most.
const ASSETS_MAX: usize = 1 << 20;
/// Of what may be resident, in percent: what is beyond stays free for what is asked for.
const ROOM_PERCENT: u64 = 90;
/// How often the predictor is asked again that was busy.
const TRIES: usize = 1000;

/// What is to be warmed.
#[derive(Clone, Debug)]
pub struct Warming {
    source: Source,
    budget_bytes: Option<u64>,
    at_once: Option<usize>,
}

#[derive(Clone, Debug)]
enum Source {
    Sequential(Vec<String>),
    Dependencies(Vec<String>),
    Historical,
    Predicted,
}

impl Warming {
    fn of(source: Source) -> Warming {
        Warming { source, budget_bytes: None, at_once: None }
    }

    /// Every asset whose path begins with one of these, in the order of paths; `[""]` is all.
    pub fn sequential<P: AsRef<str>>(prefixes: impl IntoIterator<Item = P>) -> Warming {
        Warming::of(Source::Sequential(prefixes.into_iter().map(|prefix| prefix.as_ref().to_owned()).collect()))
    }

    /// These assets and everything that they use, directly or not, the nearest first.
    pub fn dependencies<P: AsRef<str>>(hints: impl IntoIterator<Item = P>) -> Warming {
        Warming::of(Source::Dependencies(hints.into_iter().map(|hint| hint.as_ref().to_owned()).collect()))
    }

    /// What the last runs asked for, in their order, as far as it is likely at this time of the day and of the week. Needs
    /// [`crate::config::WarmConfig::history`].
    pub fn historical() -> Warming {
        Warming::of(Source::Historical)
    }

    /// What the predictor has learned is used most.
    pub fn predicted() -> Warming {
        Warming::of(Source::Predicted)
    }

    /// Bytes that it loads at most. Default [`crate::config::WarmConfig::percent`] of what may be resident.
    pub fn budget_bytes(mut self, bytes: u64) -> Warming {
        self.budget_bytes = Some(bytes);
        self
    }

    /// Loads that it has under way at once, at least one. Default [`crate::config::WarmConfig::at_once`].
    pub fn at_once(mut self, loads: usize) -> Warming {
        self.at_once = Some(loads.max(1));
        self
    }
}

/// How far a warming is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WarmProgress {
    /// Assets that were gone through: loaded, or resident already.
    pub assets: u64,
    /// Of so many; 0 while they are being looked for.
    pub of_assets: u64,
    /// Bytes of what was gone through.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
}

/// Why a warming ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum WarmEnd {
    /// All of it was gone through.
    Done = 1,
    /// The next asset was beyond its budget.
    Budget = 2,
    /// The next asset would have needed the room of others.
    Room = 3,
    /// It was cancelled, or the runtime stopped.
    Cancelled = 4,
}

/// What a warming did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WarmReport {
    /// Why it ended.
    pub end: WarmEnd,
    /// How far it came.
    pub progress: WarmProgress,
    /// Assets that it loaded.
    pub loaded: u64,
    /// Bytes of them.
    pub loaded_bytes: u64,
    /// Assets that could not be loaded. A load of one says why.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
}

/// A warming that is under way: a future of its report. Dropping it cancels what is not loaded yet.
#[must_use = "dropping it cancels the warming"]
pub struct Warm {
    state: Arc<Under>,
    /// Its end is the signal, too.
    cancel: watch::Sender<bool>,
    report: oneshot::Receiver<WarmReport>,
}

impl Warm {
    /// How far it is.
    pub fn progress(&self) -> WarmProgress {
        self.state.progress()
    }

    /// Cancels what is not loaded yet. What was loaded stays.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}

impl Future for Warm {
    type Output = WarmReport;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<WarmReport> {
        // The actors' thread went away, and with it the warming.
        let report = Pin::new(&mut self.report).poll(context);
        report.map(|report| report.unwrap_or_else(|_| self.state.report(WarmEnd::Cancelled, Duration::ZERO)))
    }
}

/// What those who work on a warming share.
#[derive(Default)]
struct Under {
    wanted: std::sync::OnceLock<Vec<(AssetId, u64)>>,
    next: AtomicUsize,
    of_bytes: AtomicU64,
    assets: AtomicU64,
    bytes: AtomicU64,
    /// Bytes that were asked for, and of them those that are not there yet.
    asked_bytes: AtomicU64,
    open_bytes: AtomicU64,
    loaded: AtomicU64,
    loaded_bytes: AtomicU64,
    failed: AtomicU64,
    /// Why it ends, once somebody knows.
    end: AtomicU8,
}

impl Under {
    fn progress(&self) -> WarmProgress {
        WarmProgress {
            assets: self.assets.load(Ordering::Relaxed),
            of_assets: self.wanted.get().map_or(0, Vec::len) as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
            of_bytes: self.of_bytes.load(Ordering::Relaxed),
        }
    }

    fn report(&self, otherwise: WarmEnd, took: Duration) -> WarmReport {
        let ends = [WarmEnd::Done, WarmEnd::Budget, WarmEnd::Room, WarmEnd::Cancelled];
        let end = self.end.load(Ordering::Relaxed);
        WarmReport {
            end: ends.into_iter().find(|known| *known as u8 == end).unwrap_or(otherwise),
            progress: self.progress(),
            loaded: self.loaded.load(Ordering::Relaxed),
            loaded_bytes: self.loaded_bytes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            took,
        }
    }

    /// The first reason counts.
    fn end(&self, why: WarmEnd) {
        let _ = self.end.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn passed(&self, bytes: u64) {
        self.assets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Runtime {
    /// Loads ahead, in the background, what will be asked for: behind every real request, and only into memory that is
    /// free.
    ///
    /// ```no_run
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// use flyloft::runtime::Warming;
    /// let warm = runtime.warm(Warming::sequential(["textures/"]).budget_bytes(64 << 20))?;
    /// println!("{:?}", warm.progress());
    /// let report = warm.await;
    /// println!("{} assets in {:?}", report.loaded, report.took);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for what the last runs asked for where that is not remembered; [`Error::InvalidPath`] for a hint
    /// that is no path; [`Error::ShutDown`] after a shutdown.
    pub fn warm(&self, warming: Warming) -> Result<Warm> {
        let (shared, warmth) = (Arc::clone(self.shared()), Arc::clone(&self.inner.warmth));
        if shared.is_stopping() {
            return Err(Error::ShutDown);
        }
        match &warming.source {
            Source::Historical if !warmth.remembers() => {
                return Err(Error::config("warm.history", "it is off: what the last runs asked for is not known"));
            }
            Source::Dependencies(hints) => {
                hints.iter().try_for_each(|hint| AssetPath::new(hint).map(drop))?;
            }
            _ => {}
        }
        let active = warmth.begin(&shared)?;
        let state = Arc::<Under>::default();
        let (cancel, cancelled) = watch::channel(false);
        let (tell, report) = oneshot::channel();
        let work = Work { shared: Arc::clone(&shared), warmth, state: Arc::clone(&state), cancelled };
        shared.handle.spawn(async move {
            let began = work.shared.clock.now();
            work.run(warming).await;
            let took = work.shared.clock.now().saturating_duration_since(began);
            let report = work.state.report(WarmEnd::Done, took);
            let WarmReport { end, loaded, loaded_bytes, .. } = report;
            work.shared.events.send(Event::Warmed { end: end.name().to_owned(), assets: loaded, bytes: loaded_bytes });
            drop(active);
            // Whoever began it may have gone.
            let _ = tell.send(report);
        });
        Ok(Warm { state, cancel, report })
    }
}

impl WarmEnd {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            WarmEnd::Done => "done",
            WarmEnd::Budget => "its budget is used up",
            WarmEnd::Room => "there is no more room",
            WarmEnd::Cancelled => "cancelled",
        }
    }
}

/// A warming at work.
#[derive(Clone)]
struct Work {
    shared: Arc<Shared>,
    warmth: Arc<Warmth>,
    state: Arc<Under>,
    cancelled: watch::Receiver<bool>,
}

impl Work {
    async fn run(&self, warming: Warming) {
        let shared = &self.shared;
        let snapshot = Snapshot::new(Arc::clone(shared), shared.generations.current());
        let mut cancelled = self.cancelled.clone();
        let wanted = tokio::select! {
            wanted = self.wanted(&snapshot, warming.source) => wanted,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return self.state.end(WarmEnd::Cancelled),
        };
        drop(snapshot);
        let wanted = wanted.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is to be warmed cannot be told");
            self.state.failed.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        let bytes: u64 = wanted.iter().map(|(_, bytes)| *bytes).sum();
        self.state.of_bytes.store(bytes, Ordering::Relaxed);
        shared.events.send(Event::Warming { assets: wanted.len() as u64, bytes });
        let at_once = warming.at_once.unwrap_or(shared.config.warm.at_once).min(wanted.len());
        let share = shared.budget.used().1 / 100 * u64::from(shared.config.warm.percent);
        let budget = warming.budget_bytes.unwrap_or(share);
        self.state.wanted.get_or_init(|| wanted);
        let workers: Vec<_> = (0..at_once).map(|_| shared.handle.spawn(self.clone().work(budget))).collect();
        for worker in workers {
            // It ends in any case.
            drop(worker.await);
        }
    }

    /// What is to be warmed, and how large it is.
    async fn wanted(&self, snapshot: &Snapshot, source: Source) -> Result<Vec<(AssetId, u64)>> {
        let ids: Vec<AssetId> = match source {
            Source::Sequential(prefixes) => return snapshot.offload(move |bundle| below(bundle, &prefixes)).await,
            Source::Dependencies(hints) => {
                let mut ids = Vec::new();
                for hint in hints {
                    match snapshot.closure(&hint).await {
                        Ok(paths) => ids.extend(paths.iter().map(|path| AssetId::of_path(path))),
                        Err(Error::NotFound { .. }) => drop(self.state.failed.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => return Err(error),
                    }
                }
                ids
            }
            Source::Historical => self.warmth.likely(&self.shared).unwrap_or_default(),
            Source::Predicted => self.predicted().await,
        };
        let mut seen = HashSet::new();
        let sized = move |bundle: &crate::bundle::Bundle| {
            let mut wanted = Vec::new();
            for id in ids.into_iter().filter(|id| seen.insert(*id)).take(ASSETS_MAX) {
                // What is gone since is not warmed.
                wanted.extend(bundle.asset(id)?.map(|record| (id, record.len)));
            }
            Ok(wanted)
        };
        snapshot.offload(sized).await
    }

    async fn predicted(&self) -> Vec<AssetId> {
        for _ in 0..TRIES {
            if let Some(likely) = self.shared.learned.work(|ensemble| ensemble.likely(ASSETS_MAX)) {
                return likely;
            }
            tokio::task::yield_now().await;
        }
        Vec::new()
    }

    /// Loads one after the other, until there are no more or it is over.
    async fn work(self, budget: u64) {
        let (shared, state) = (&self.shared, &self.state);
        let mut cancelled = self.cancelled.clone();
        while state.end.load(Ordering::Relaxed) == 0 {
            let next = state.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(id, bytes)) = state.wanted.get().and_then(|wanted| wanted.get(next)) else { return };
            // Of a sender that is gone, nothing changes any more.
            if *cancelled.borrow() || cancelled.has_changed().is_err() || shared.is_stopping() {
                return state.end(WarmEnd::Cancelled);
            }
            if shared.table.candidate(id).is_some() {
                state.passed(bytes);
                continue;
            }
            if state.asked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > budget {
                return state.end(WarmEnd::Budget);
            }
            let (used, most) = shared.budget.used();
            if used + state.open_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > most / 100 * ROOM_PERCENT {
                return state.end(WarmEnd::Room);
            }
            tokio::select! {
                loaded = self.load(id) => match loaded {
                    Ok(()) => self.loaded(id, bytes),
                    Err(_) => drop(state.failed.fetch_add(1, Ordering::Relaxed)),
                },
                // Also when whoever began it let go: the load is dropped, and cancelled with it.
                _ = cancelled.wait_for(|cancelled| *cancelled) => return state.end(WarmEnd::Cancelled),
            }
            state.open_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    async fn load(&self, id: AssetId) -> Result<()> {
        let live = self.shared.generations.current();
        let key = Key { generation: live.generation(), id, want: Want::Resident };
        let (priority, origin) = (Priority::Low, Origin::System);
        let ask = Ask { priority, origin, ..Ask::new(self.shared.clock.now()) };
        let (ticket, _) = self.shared.ledger.join(&live, key, ask)?;
        drop(live);
        ticket.await.map(drop)
    }

    fn loaded(&self, id: AssetId, bytes: u64) {
        self.state.passed(bytes);
        self.state.loaded.fetch_add(1, Ordering::Relaxed);
        self.state.loaded_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.warmth.warmed(id, bytes, self.shared.clock.now());
    }
}

/// Every asset below one of these, in path order for each of them.
fn below(bundle: &crate::bundle::Bundle, prefixes: &[String]) -> Result<Vec<(AssetId, u64)>> {
    let (mut wanted, mut seen) = (Vec::new(), HashSet::new());
    for prefix in prefixes {
        for record in bundle.assets_from(prefix) {
            let record = record?;
            if !record.path.as_str().starts_with(prefix.as_str()) || wanted.len() >= ASSETS_MAX {
                break;
            }
            if seen.insert(record.id) {
                wanted.push((record.id, record.len));
            }
        }
    }
    Ok(wanted)
}
