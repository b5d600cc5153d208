//! Role: makes contents resident, answers who waits for them, publishes generations.
//!
//! Owns: nothing that must survive; it alone admits to the table and publishes. Receives: [`CacheManagerMessage`].
//! Sends: `Loaded` and `Published` to the predictor, `Residents` to the evictor; answers leases.
//! On restart: kept: the table, the generations, the ledger; rebuilt: nothing; lost: queued messages, whose leases go
//! back by their drop and whose publications the rebuilder repeats. Bounds: contents by the budget they are charged to.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{ResidentNote, Shared};
use crate::messages::work::caught;
use crate::messages::{CacheManagerMessage, EvictorMessage, Filled, Finished, Loaded, PredictorMessage, Publication};
use crate::residency::{Answer, Asset, Name, Wakers};

/// Answers after which those who wait for them are woken at the latest.
const ANSWERS_AT_ONCE: usize = 256;
/// Notes after which the evictor takes them in, though it has nothing to evict.
const RESIDENTS_MAX: usize = 4096;
/// Dependencies are looked for while at most one in this many places of the read queue is asked for.
const PREDICT_BELOW: usize = 4;

/// The actor.
pub struct CacheManager;

/// What it is given, and all that it keeps.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

impl Actor for CacheManager {
    type Msg = CacheManagerMessage;
    type State = Args;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<Args, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Args,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CacheManagerMessage::Finished(batch) => state.finished(batch),
            CacheManagerMessage::Publish(publication, reply) => {
                state.publish(*publication);
                // Whoever asked may have been restarted; it sees the generation published and asks no more.
                drop(reply.send(()));
            }
        }
        Ok(())
    }
}

impl Args {
    fn finished(&self, batch: Vec<Finished>) {
        let mut loaded = Vec::new();
        let mut residents = Vec::with_capacity(batch.len());
        self.shared.table.advance_tick();
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
        self.note(residents);
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
                lease.answer_with(Ok(Answer::Piece(chunk)), wakers);
                return;
            }
        };
        let record = &located.record;
        let weight = content.weight_bytes();
        // The table knows what changed since, should a publication have overtaken this load.
        let asset = self.shared.table.admit(Asset::new(Name::from(record), key.generation, content), None);
        residents.push((record.id, Some((weight, record.kind))));
        if located.has_dependencies && self.has_time_to_predict() {
            loaded.push(Loaded { live: Arc::clone(lease.live()), id: key.id });
        }
        tracing::trace!(path = %record.path, weight, "resident");
        lease.answer_with(Ok(Answer::Asset(asset)), wakers);
    }

    /// What may be wanted later is looked for while the engines have places left: never while requests queue for them.
    fn has_time_to_predict(&self) -> bool {
        let config = &self.shared.config;
        config.prefetch_dependencies && self.shared.ledger.open() <= config.queue_depth / PREDICT_BELOW
    }

    /// Leaves word for the evictor, and wakes it only when much has come together.
    fn note(&self, mut residents: Vec<ResidentNote>) {
        let mut noted = self.shared.residents.lock();
        if noted.is_empty() {
            *noted = residents
        } else {
            noted.append(&mut residents)
        }
        let many = noted.len() >= RESIDENTS_MAX;
        if many && self.shared.roster.is_parked("evictor") {
            // Nobody takes it in. An evictor that comes back looks at the table.
            noted.clear();
        }
        drop(noted);
        if many {
            self.shared.addresses.evictor.hint(EvictorMessage::Residents);
        }
    }

    fn publish(&self, publication: Publication) {
        let Publication { bundle, changes } = publication;
        if bundle.generation() <= self.shared.table.current() {
            return;
        }
        let resident = |asset: &Asset| (asset.content().weight_bytes(), asset.kind());
        let mut residents: Vec<ResidentNote> =
            changes.iter().map(|(id, asset)| (*id, asset.as_ref().map(resident))).collect();
        // A stored form that is resident is of the old content.
        let forms = changes.iter().filter_map(|(id, _)| self.shared.table.candidate(id.stored()));
        residents.extend(forms.map(|form| (form.id, None)));
        let live = self.shared.generations.prepare(bundle);
        if !self.shared.table.publish(&live, &changes) {
            self.shared.generations.discard(&live);
            return;
        }
        self.shared.table.retire(self.shared.generations.oldest_live());
        self.shared.table.let_go_of_ended(self.shared.generations.oldest_wanted());
        self.shared.followers.published(live.generation());
        self.shared.metrics.reloads.one();
        self.note(residents);
        self.shared.addresses.predictor.hint(PredictorMessage::Published(live));
    }
}
