//! Role: makes room: picks victims by policy, never a pinned one, and unlinks them.
//!
//! Owns: the eviction policy. Receives: [`EvictorMessage`]. Sends: `Evicted` to the dispatcher.
//! On restart: kept: the resident table; rebuilt: the policy, from the table; lost: nothing but the policy's memory of
//! order beyond what the table's time stamps say. Bounds: the policy holds one entry per resident asset.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{Shared, eviction};
use crate::messages::EvictorMessage;
use crate::policy::eviction::{Eviction, Removal};

/// The actor.
pub struct Evictor;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// The policy.
pub struct State {
    shared: Arc<Shared>,
    policy: Box<dyn Eviction>,
}

impl Actor for Evictor {
    type Msg = EvictorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        // What is noted up to here is in the table.
        drop(std::mem::take(&mut *args.shared.residents.lock()));
        let policy = eviction::policy_of(&args.shared);
        Ok(State { shared: args.shared, policy })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EvictorMessage::Residents => state.take_in(),
            EvictorMessage::MakeRoom { bytes, kind } => {
                state.take_in();
                eviction::evict(&state.shared, state.policy.as_mut(), bytes, kind)
            }
        }
        Ok(())
    }
}

impl State {
    /// Tells the policy what became resident, or ceased to be, since the last time.
    fn take_in(&mut self) {
        let notes = std::mem::take(&mut *self.shared.residents.lock());
        for (id, resident) in notes {
            match resident {
                Some(admitted) => self.policy.admitted(&admitted),
                None => self.policy.removed(id, Removal::Gone, None),
            }
        }
    }
}
