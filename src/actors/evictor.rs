//! Role: makes room: picks victims by policy, never a pinned one, and unlinks them.
//!
//! Owns: the eviction policy. Receives: [`EvictorMessage`]. Sends: `RoomMade` to the dispatcher.
//! On restart: kept: the resident table; rebuilt: the policy, from the table; lost: nothing but the policy's memory of
//! order beyond what the table's time stamps say. Bounds: the policy holds one entry per resident asset.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{Shared, eviction};
use crate::messages::EvictorMessage;
use crate::policy::eviction::Eviction;

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
            EvictorMessage::Admitted(batch) => {
                let tick = state.shared.table.tick();
                for (id, weight, kind) in batch {
                    state.policy.admitted(id, weight, kind, tick);
                }
            }
            EvictorMessage::Removed(ids) => ids.into_iter().for_each(|id| state.policy.removed(id)),
            EvictorMessage::MakeRoom { bytes, kind } => {
                eviction::evict(&state.shared, state.policy.as_mut(), bytes, kind)
            }
        }
        Ok(())
    }
}
