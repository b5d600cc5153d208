//! Role: makes contents resident, answers who waits for them, publishes generations.
//!
//! Owns: nothing that must survive; it alone admits to the table and publishes. Receives: [`CacheManagerMessage`].
//! Sends: `Loaded` and `Published` to the predictor, `Admitted` and `Removed` to the evictor; answers leases.
//! On restart: kept: the table, the generations, the ledger; rebuilt: nothing; lost: queued messages, whose leases go
//! back by their drop and whose publications the rebuilder repeats. Bounds: contents by the budget they are charged to.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::ids::{AssetId, AssetKind};
use crate::messages::work::caught;
use crate::messages::{CacheManagerMessage, EvictorMessage, Filled, Finished, Loaded, PredictorMessage, Publication};
use crate::residency::{Answer, Asset, Name};

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
        let mut loaded = Vec::with_capacity(batch.len());
        let mut admitted = Vec::with_capacity(batch.len());
        self.shared.table.advance_tick();
        for finished in batch {
            let span = finished.lease.span().clone();
            let _entered = span.enter();
            let working = finished.lease.begin("cache_manager");
            match caught(|| self.shared.reached("cache_manager", &finished.located.record.path)) {
                Err(cause) => {
                    self.shared.metrics.item_panics.one();
                    finished.lease.fail_item(cause);
                }
                Ok(()) => {
                    working.done();
                    self.admit(finished, &mut loaded, &mut admitted);
                }
            }
        }
        if !admitted.is_empty() {
            self.shared.addresses.evictor.hint(EvictorMessage::Admitted(admitted));
        }
        if !loaded.is_empty() && self.shared.config.prefetch_dependencies {
            self.shared.addresses.predictor.hint(PredictorMessage::Loaded(loaded));
        }
    }

    fn admit(&self, finished: Finished, loaded: &mut Vec<Loaded>, admitted: &mut Vec<(AssetId, u64, AssetKind)>) {
        let Finished { lease, located, filled } = finished;
        let key = lease.key();
        let content = match filled {
            Filled::Content(content) => content,
            Filled::Piece(chunk) => {
                lease.answer(Ok(Answer::Piece(chunk)));
                return;
            }
        };
        let record = &located.record;
        let weight = content.len() as u64;
        // The table knows what changed since, should a publication have overtaken this load.
        let asset = self.shared.table.admit(Asset::new(Name::from(record), key.generation, content), None);
        admitted.push((record.id, weight, record.kind));
        if !located.dependencies.is_empty() {
            let dependencies = located.dependencies.clone();
            loaded.push(Loaded { live: Arc::clone(lease.live()), id: key.id, dependencies });
        }
        tracing::trace!(path = %record.path, weight, "resident");
        lease.answer(Ok(Answer::Asset(asset)));
    }

    fn publish(&self, publication: Publication) {
        let Publication { bundle, changes } = publication;
        if bundle.generation() <= self.shared.table.current() {
            return;
        }
        let mut admitted = Vec::new();
        let mut removed = Vec::new();
        for (id, asset) in &changes {
            match asset {
                Some(asset) => admitted.push((*id, asset.len() as u64, asset.kind())),
                None => removed.push(*id),
            }
            // Its stored form, if that is resident, is of the old content.
            removed.extend(self.shared.table.candidate(id.stored()).map(|stored| stored.id));
        }
        let live = self.shared.generations.prepare(bundle);
        if !self.shared.table.publish(&live, &changes) {
            self.shared.generations.discard(&live);
            return;
        }
        self.shared.table.retire(self.shared.generations.oldest_live());
        self.shared.metrics.reloads.one();
        self.shared.addresses.evictor.hint(EvictorMessage::Removed(removed));
        self.shared.addresses.evictor.hint(EvictorMessage::Admitted(admitted));
        self.shared.addresses.predictor.hint(PredictorMessage::Published(live));
    }
}
