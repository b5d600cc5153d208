//! Role: asks ahead for what will be wanted next, as far as its guesses have earned it.
//!
//! Owns: nothing that must survive; what it prefetched and does not know the end of. Receives: [`PredictorMessage`].
//! Sends: `Prefetch` to the dispatcher. On restart: kept: all that was learned; rebuilt: what is prefetched, from that, and
//! the order of assets; lost: batches that were queued. Bounds: prefetches by their share of the budget and their number.

mod told;
mod viewers;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::told::Told;
use self::world::Seen;
use super::Shared;
use crate::error::Result;
use crate::ids::{AssetId, AssetKind, Priority};
use crate::messages::{DispatcherMessage, Loaded, PredictorMessage, Prefetch, Uses};
use crate::policy::prediction::{Access, Ensemble, Outcome, Predicted};
use crate::policy::pressure::prefetch_distance;
use crate::residency::{Candidate, Order, Ordering};
use crate::telemetry::accesses::Level;

/// Steps from an asset to what it uses, what that uses, and so on.
const DEPTH_MAX: usize = 3;
/// Dependencies that are looked up of one asset.
const DEPENDENCIES_MAX: usize = 256;
/// Prefetches of which it is not known yet what came of them.
const WATCHED_MAX: usize = 16 << 10;
/// A prefetch that has not come after this long does not come.
const COMES_WITHIN: Duration = Duration::from_secs(10);
/// How often prefetches are looked at: at first, and when nothing happens for long.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// Accesses before the order of assets is made.
const ORDER_AFTER: u64 = 16;

/// The actor.
pub struct Predictor;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// What it prefetched, and what it knows of the assets.
pub struct State {
    shared: Arc<Shared>,
    order: Option<Arc<Order>>,
    /// An order is being made, or there is none to be had.
    ordering: bool,
    /// Prefetches that are neither used nor gone.
    watched: HashMap<AssetId, Watched>,
    /// Where all accesses are told, when they are.
    told: Option<Told>,
    /// Bytes of those that have not come yet.
    coming_bytes: u64,
    /// Loads that were told of.
    accesses: u64,
    began: Instant,
    saved: Instant,
    looked: Instant,
    /// When it last guessed since a viewer had moved.
    moved: Option<Instant>,
    /// A look is on its way, after this long.
    looking: bool,
    patience: Duration,
}

struct Watched {
    bytes: u64,
    since: Instant,
    has_come: bool,
}

impl Actor for Predictor {
    type Msg = PredictorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let shared = args.shared;
        shared.learned.recover();
        shared.learned.add(Box::new(viewers::expert(&shared)));
        // What an earlier one was told may be lost with it. This one cannot be down when it speaks to itself.
        drop(myself.send_message(PredictorMessage::Moved));
        let now = shared.clock.now();
        // What the one before had asked for is watched on.
        let open = shared.learned.work(|ensemble| ensemble.under_way()).unwrap_or_default();
        let told = Told::listen(&shared);
        let watched = open.into_iter().map(|id| (id, Watched { bytes: 0, since: now, has_come: false })).collect();
        Ok(State {
            shared,
            order: None,
            ordering: false,
            watched,
            told,
            coming_bytes: 0,
            accesses: 0,
            began: now,
            saved: now,
            looked: now,
            moved: None,
            looking: false,
            patience: LOOK.0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PredictorMessage::Loaded(batch) => state.loaded(batch),
            PredictorMessage::Uses(batch) => state.take_in(batch),
            PredictorMessage::Ordered(order) => state.ordered(order),
            PredictorMessage::Published(_) => {}
            PredictorMessage::Moved => state.viewers_moved(&myself),
            PredictorMessage::Look => {
                state.looking = false;
                state.look();
                state.take_in_told();
            }
        }
        state.keep_looking(&myself);
        Ok(())
    }
}

impl State {
    /// Looks up what was loaded uses, on a decoding thread that has nothing more urgent to do: the tables may have to
    /// be paged in.
    fn loaded(&mut self, batch: Vec<Loaded>) {
        if !batch.iter().any(|loaded| self.looks_up(loaded)) {
            let alone = |loaded| Uses { loaded, dependencies: Vec::new() };
            return self.take_in(batch.into_iter().map(alone).collect());
        }
        let shared = Arc::clone(&self.shared);
        let wanted: Vec<bool> = batch.iter().map(|loaded| self.looks_up(loaded)).collect();
        let job = move || {
            let uses = |(loaded, wanted): (Loaded, bool)| {
                let dependencies = if wanted { dependencies(&loaded) } else { Vec::new() };
                Uses { loaded, dependencies }
            };
            let uses: Vec<_> = batch.into_iter().zip(wanted).map(uses).collect();
            shared.addresses.predictor.hint(PredictorMessage::Uses(uses));
        };
        self.shared.decoders_here().submit(Priority::Low as u8, Box::new(job));
    }

    /// What was prefetched and nobody asked for does not predict anything.
    fn looks_up(&self, loaded: &Loaded) -> bool {
        loaded.has_dependencies && !loaded.speculative && self.shared.config.prefetch_dependencies
    }

    /// Learns from loads, and from the first uses of what was prefetched, in the order in which they happened.
    fn take_in(&mut self, batch: Vec<Uses>) {
        self.look();
        let now = self.shared.clock.now();
        let mut predicted = Vec::new();
        let shared = Arc::clone(&self.shared);
        let worked = shared.learned.work(|ensemble| {
            for Uses { loaded, dependencies } in &batch {
                if loaded.speculative {
                    continue;
                }
                self.accesses += 1;
                if let Some(late) = self.watched.remove(&loaded.id) {
                    self.coming_bytes = self.coming_bytes.saturating_sub(late.bytes);
                    told::note(&self.shared, loaded.id, Level::PrefetchUsed);
                }
                if let Some(told) = &mut self.told {
                    told.remember(loaded.id, dependencies);
                    continue;
                }
                let access = self.access(loaded.id, loaded.bytes, loaded.kind, false, now);
                let world = Seen { shared: &self.shared, order: self.order.as_deref(), uses: dependencies };
                ensemble.accessed(&access, &world, &mut predicted);
            }
        });
        if worked.is_some() {
            self.prefetch(predicted, now);
        }
        self.take_in_told();
        self.make_order(&batch);
        self.save_sometimes(now);
    }

    fn access(&self, id: AssetId, bytes: u64, kind: AssetKind, resident: bool, now: Instant) -> Access {
        let wall = self.shared.clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let wall_seconds = wall.unwrap_or_default().as_secs();
        Access { id, bytes, kind, resident, now: now.saturating_duration_since(self.began), wall_seconds }
    }

    /// Something that an expert knows of has moved.
    fn guess_again(&mut self) {
        let now = self.shared.clock.now();
        let mut predicted = Vec::new();
        let world = Seen { shared: &self.shared, order: self.order.as_deref(), uses: &[] };
        let since = now.saturating_duration_since(self.began);
        if self.shared.learned.work(|ensemble| ensemble.passed(since, &world, &mut predicted)).is_some() {
            self.prefetch(predicted, now);
        }
    }

    /// Asks for what is predicted, as far as the share of the budget for it goes.
    fn prefetch(&mut self, predicted: Vec<Predicted>, now: Instant) {
        if predicted.is_empty() {
            return;
        }
        let config = &self.shared.config;
        let most = (config.budget_bytes as f64 * f64::from(config.prediction.in_flight_share)) as u64;
        let live = self.shared.generations.current();
        let mut wishes = Vec::with_capacity(predicted.len());
        let mut refused = Vec::new();
        // Less far ahead while memory is short; the likeliest come first.
        let far = prefetch_distance(self.shared.pressure(), predicted.len());
        for (place, Predicted { id, bytes, .. }) in predicted.into_iter().enumerate() {
            let bytes = bytes.unwrap_or(0);
            if place >= far || self.coming_bytes + bytes > most || self.watched.len() >= WATCHED_MAX {
                refused.push(id);
                continue;
            }
            self.coming_bytes += bytes;
            self.watched.insert(id, Watched { bytes, since: now, has_come: false });
            // What the ensemble asks for has earned it.
            wishes.push(Prefetch { live: Arc::clone(&live), id, proven: true });
        }
        if !refused.is_empty() {
            let drop = |ensemble: &mut Ensemble| refused.iter().for_each(|id| ensemble.outcome(*id, Outcome::Dropped));
            self.shared.learned.work(drop);
        }
        self.patience = LOOK.0;
        // A wish that is lost costs nothing but the wait it would have saved.
        self.shared.addresses.dispatcher.hint(DispatcherMessage::Prefetch(wishes));
    }

    /// Looks what became of the prefetches: those that came and were used since, or went, or never came.
    fn look(&mut self) {
        let now = self.shared.clock.now();
        if self.watched.is_empty() || now.saturating_duration_since(self.looked) < LOOK.0 / 2 {
            return;
        }
        self.looked = now;
        let table = &self.shared.table;
        let (mut used, mut over) = (BTreeMap::new(), Vec::new());
        for (id, watched) in &mut self.watched {
            match table.candidate(*id) {
                Some(candidate) => {
                    if !watched.has_come {
                        watched.has_come = true;
                        self.coming_bytes = self.coming_bytes.saturating_sub(std::mem::take(&mut watched.bytes));
                    }
                    if candidate.usage.uses() > 0 {
                        used.insert((candidate.usage.tick(), *id), candidate);
                    }
                }
                None if watched.has_come => over.push((*id, Outcome::Wasted)),
                None if now.saturating_duration_since(watched.since) > COMES_WITHIN => {
                    self.coming_bytes = self.coming_bytes.saturating_sub(std::mem::take(&mut watched.bytes));
                    over.push((*id, Outcome::Dropped));
                }
                None => {}
            }
        }
        if used.is_empty() && over.is_empty() {
            return;
        }
        self.patience = LOOK.0;
        let mut predicted = Vec::new();
        let worked = self.shared.learned.work(|ensemble| {
            for (id, outcome) in &over {
                ensemble.outcome(*id, *outcome);
                let is_waste = *outcome == Outcome::Wasted;
                told::note(&self.shared, *id, if is_waste { Level::PrefetchWasted } else { Level::PrefetchDropped });
            }
            used.keys().for_each(|(_, id)| told::note(&self.shared, *id, Level::PrefetchUsed));
            if self.told.is_some() {
                // That they were used is told there.
                return;
            }
            for ((_, id), Candidate { weight, kind, .. }) in &used {
                let world = Seen { shared: &self.shared, order: self.order.as_deref(), uses: &[] };
                let access = self.access(*id, *weight, *kind, true, now);
                ensemble.accessed(&access, &world, &mut predicted);
            }
        });
        if worked.is_none() {
            // Looked at again the next time.
            return;
        }
        over.iter().map(|(id, _)| id).chain(used.keys().map(|(_, id)| id)).for_each(|id| {
            self.watched.remove(id);
        });
        self.accesses += used.len() as u64;
        self.prefetch(predicted, now);
    }

    fn keep_looking(&mut self, myself: &ActorRef<PredictorMessage>) {
        if !self.looking && (!self.watched.is_empty() || self.told.is_some()) {
            self.looking = true;
            myself.send_after(self.patience, || PredictorMessage::Look);
            self.patience = (self.patience * 2).min(LOOK.1);
        }
    }

    /// Has the order of all assets made, once it may be of use and when there are assets that it does not know.
    fn make_order(&mut self, batch: &[Uses]) {
        if self.ordering || self.accesses < ORDER_AFTER {
            return;
        }
        let live = self.shared.generations.current();
        let is_known = |order: &Arc<Order>| {
            order.generation() == live.generation()
                || batch.iter().all(|uses| uses.loaded.speculative || order.rank(uses.loaded.id).is_some())
        };
        if self.order.as_ref().is_some_and(is_known) {
            return;
        }
        self.ordering = true;
        match Ordering::begin(&live) {
            Some(ordering) => go_on(Arc::clone(&self.shared), ordering),
            None => tracing::info!("too many assets to predict along their order"),
        }
    }

    fn ordered(&mut self, order: Option<Arc<Order>>) {
        // Tables that cannot be read are not read again and again.
        self.ordering = order.is_none();
        self.order = order.or(self.order.take());
    }

    /// Writes what was learned, now and then, on a thread that may wait for the disk.
    fn save_sometimes(&mut self, now: Instant) {
        if now.saturating_duration_since(self.saved) < self.shared.config.prediction.save_every {
            return;
        }
        self.saved = now;
        let shared = Arc::clone(&self.shared);
        let job = move || {
            if let Err(error) = shared.learned.save() {
                tracing::warn!(%error, "what was learned is not saved");
            }
        };
        self.shared.decoders_here().submit(Priority::Low as u8, Box::new(job));
    }
}

/// What an asset uses, what that uses, and so on; the nearest first.
fn dependencies(loaded: &Loaded) -> Vec<AssetId> {
    let bundle = loaded.live.bundle();
    let (mut all, mut seen) = (Vec::new(), HashSet::from([loaded.id]));
    let mut step = vec![loaded.id];
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for id in step {
            if all.len() + next.len() >= DEPENDENCIES_MAX {
                break;
            }
            // What cannot be read is not predicted; a load of it says why.
            let uses = bundle.dependency_ids(id).unwrap_or_default();
            next.extend(uses.into_iter().filter(|id| seen.insert(*id)));
        }
        all.extend(&next);
        step = next;
    }
    all.truncate(DEPENDENCIES_MAX);
    all
}

/// Reads a piece of the order, and then has the next one read: between them others have the thread.
fn go_on(shared: Arc<Shared>, mut ordering: Ordering) {
    let again = Arc::clone(&shared);
    let job = move || match ordering.go_on() {
        Ok(true) => go_on(shared, ordering),
        Ok(false) => {
            let order = Some(Arc::new(ordering.finish()));
            shared.addresses.predictor.hint(PredictorMessage::Ordered(order));
        }
        Err(error) => {
            tracing::warn!(%error, "the order of assets cannot be read");
            shared.addresses.predictor.hint(PredictorMessage::Ordered(None));
        }
    };
    again.decoders_here().submit(Priority::Low as u8, Box::new(job));
}
