//! Role: asks ahead for what will be wanted next; here, the dependencies of what was loaded.
//!
//! Owns: the prediction policy. Receives: [`PredictorMessage`]. Sends: `Prefetch` to the dispatcher.
//! On restart: kept: nothing; rebuilt: an empty policy; lost: what it had predicted lately, so that it may predict it
//! again, which costs a look-up. Bounds: the policy remembers a bounded number of predictions.

mod viewers;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::error::Result;
use crate::ids::Priority;
use crate::messages::{DispatcherMessage, Loaded, PredictorMessage, Prefetch, Uses};
use crate::policy::prediction::{self, DependencyPrediction, Prediction};
use crate::residency::surroundings::Looker;

/// The actor.
pub struct Predictor;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// The policy.
pub struct State {
    shared: Arc<Shared>,
    policy: Box<dyn Prediction>,
    /// What is asked for ahead of viewers.
    ahead: viewers::Ahead,
}

impl Actor for Predictor {
    type Msg = PredictorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let shared = args.shared;
        let ahead = viewers::Ahead::new(shared.config.spatial);
        // What an earlier one was told may be lost with it.
        shared.surroundings.looks(Looker::Prediction);
        Ok(State { shared, policy: Box::new(DependencyPrediction::default()), ahead })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PredictorMessage::Loaded(batch) => state.look_up(batch),
            PredictorMessage::Uses(batch) => state.predict(batch),
            PredictorMessage::Moved => state.viewers_moved(&myself),
            PredictorMessage::Published(_) => state.policy = Box::new(DependencyPrediction::default()),
        }
        Ok(())
    }
}

impl State {
    /// Looks up what was loaded uses, on a decoding thread that has nothing more urgent to do: the tables may have to
    /// be paged in.
    fn look_up(&self, batch: Vec<Loaded>) {
        let shared = Arc::clone(&self.shared);
        let job = move || {
            let uses = |Loaded { live, id }| {
                // What cannot be read is not predicted; a load of it says why.
                let dependencies = live.bundle().dependency_ids(id).unwrap_or_default();
                Uses { live, id, dependencies }
            };
            let uses: Vec<_> = batch.into_iter().map(uses).collect();
            shared.addresses.predictor.hint(PredictorMessage::Uses(uses));
        };
        self.shared.decoders_here().submit(Priority::Low as u8, Box::new(job));
    }

    fn predict(&mut self, batch: Vec<Uses>) {
        let Some(live) = batch.last().map(|uses| Arc::clone(&uses.live)) else { return };
        let seen = |uses: Uses| prediction::Loaded { id: uses.id, dependencies: uses.dependencies };
        let seen: Vec<_> = batch.into_iter().map(seen).collect();
        let mut wanted = Vec::new();
        self.policy.loaded(&seen, &mut wanted);
        wanted.retain(|id| self.shared.table.candidate(*id).is_none());
        if wanted.is_empty() {
            return;
        }
        let wish = |id| Prefetch { live: Arc::clone(&live), id };
        // A wish that is lost costs nothing but the wait it would have saved.
        self.shared.addresses.dispatcher.hint(DispatcherMessage::Prefetch(wanted.into_iter().map(wish).collect()));
    }
}
