//! Role: makes contents resident and answers who waits for them.
//!
//! Owns: nothing that must survive but the count of requests up to the last batch, which begins anew; it alone admits what was loaded to the table. Receives: [`CacheManagerMessage`].
//! Sends: `Loaded` to the predictor, `Residents` to the evictor; answers leases. On restart: kept: the table, the
//! generations, the ledger; rebuilt: nothing; lost: queued messages, whose leases go back by their drop. Bounds: contents
//! by the budget they are charged to.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{ResidentNote, Shared, eviction};
use crate::messages::work::caught;
use crate::messages::{CacheManagerMessage, Filled, Finished, Loaded, PredictorMessage};
use crate::policy::eviction::Admitted;
use crate::residency::{Answer, Asset, Name, Wakers};

/// Answers after which those who wait for them are woken at the latest.
const ANSWERS_AT_ONCE: usize = 256;
/// Ticks that pass at once at most, so that one that stood still for long is not taken for one of the future.
const TICKS_MAX: u64 = 1 << 28;
/// Dependencies are looked for while at most one in this many places of the read queue is asked for.
const PREDICT_BELOW: usize = 4;

/// The actor.
pub struct CacheManager;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// What it keeps.
pub struct State {
    shared: Arc<Shared>,
    /// Requests up to the last batch.
    requests: u64,
}

impl Actor for CacheManager {
    type Msg = CacheManagerMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let requests = requests(&args.shared);
        Ok(State { shared: args.shared, requests })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CacheManagerMessage::Finished(batch) => state.finished(batch),
        }
        Ok(())
    }
}

/// Requests so far: hits and misses.
fn requests(shared: &Shared) -> u64 {
    shared.metrics.hits.get() + shared.metrics.misses.get()
}

impl State {
    fn finished(&mut self, batch: Vec<Finished>) {
        let mut loaded = Vec::new();
        let mut residents = Vec::with_capacity(batch.len());
        // The clock of the policies counts requests, and goes on by one at least: a load that nobody counts is told from
        // the one before, too.
        let requests = requests(&self.shared);
        let since = requests.wrapping_sub(std::mem::replace(&mut self.requests, requests));
        self.shared.table.advance_ticks(since.clamp(1, TICKS_MAX) as u32);
        // Who is answered is woken after the batch, or after a part of a large one.
        let mut wakers = Wakers::new();
        for (number, finished) in batch.into_iter().enumerate() {
            if number % ANSWERS_AT_ONCE == ANSWERS_AT_ONCE - 1 {
                wakers = Wakers::new();
            }
            let span = finished.lease.span();
            let _entered = span.enter();
            let working = finished.lease.begin("cache_manager");
            match caught(|| self.shared.reached("cache_manager", &finished.located.record.path)) {
                Err(cause) => {
                    self.shared.metrics.item_panics.one();
                    finished.lease.fail_item(cause);
                }
                Ok(()) => {
                    working.done();
                    self.admit(finished, &mut loaded, &mut residents, &mut wakers);
                }
            }
        }
        if residents.iter().any(|(_, admitted)| admitted.is_some_and(|admitted| admitted.speculative)) {
            // A use in the tick of its admission leaves no trace, and the predictor is to see the first use.
            self.shared.table.advance_tick();
        }
        self.shared.note_residents(residents);
        drop(wakers);
        if !loaded.is_empty() {
            self.shared.addresses.predictor.hint(PredictorMessage::Loaded(loaded));
        }
    }

    fn admit(
        &self,
        finished: Finished,
        loaded: &mut Vec<Loaded>,
        residents: &mut Vec<ResidentNote>,
        wakers: &mut Wakers,
    ) {
        let Finished { lease, located, filled } = finished;
        let key = lease.key();
        let content = match filled {
            Filled::Content(content) => content,
            Filled::Piece(chunk) => {
                self.shared.metrics.priorities.of(lease.priority()).completions.one();
                lease.answer_with(Ok(Answer::Piece(chunk)), wakers);
                return;
            }
        };
        let record = &located.record;
        let weight = content.weight_bytes();
        // The table knows what changed since, should a publication have overtaken this load.
        let asset = self.shared.table.admit(Asset::new(Name::from(record), key.generation, content), None);
        self.shared.locks.refresh(asset.id(), &self.shared.table);
        let admitted = Admitted {
            id: record.id,
            weight,
            kind: record.kind,
            tick: self.shared.table.tick(),
            cost_us: eviction::reload_cost_us(&self.shared.metrics.costs.rates(), &located.placement),
            priority: lease.priority(),
            speculative: lease.is_speculative(),
        };
        residents.push((record.id, Some(admitted)));
        if self.has_time_to_predict() {
            loaded.push(Loaded {
                live: Arc::clone(lease.live()),
                id: record.id,
                bytes: weight,
                kind: record.kind,
                has_dependencies: located.has_dependencies,
                speculative: lease.is_speculative(),
            });
        }
        tracing::trace!(path = %record.path, weight, "resident");
        self.shared.metrics.priorities.of(lease.priority()).completions.one();
        lease.answer_with(Ok(Answer::Asset(asset)), wakers);
    }

    /// What may be wanted later is looked for while the engines have places left: never while requests queue for them.
    fn has_time_to_predict(&self) -> bool {
        let config = &self.shared.config;
        config.prediction.enabled && self.shared.ledger.open() <= config.queue_depth / PREDICT_BELOW
    }
}
