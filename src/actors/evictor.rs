//! Role: makes room: picks victims by policy, never a pinned one, and unlinks them.
//!
//! Owns: the eviction policy. Receives: [`EvictorMessage`]. Sends: `Evicted` to the dispatcher, `Relieve` to itself.
//! On restart: kept: the resident table, which policy is chosen; rebuilt: the policy, from the table; lost: nothing but the
//! policy's memory of order beyond what the table's time stamps say. Bounds: the policy holds one entry per resident asset,
//! and a bounded number of those that are gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{Shared, eviction};
use crate::messages::EvictorMessage;
use crate::policy::eviction::{Eviction, Removal};

/// What is evicted in one step against pressure, in bytes: at first, and at most. Between two steps other wishes are heard.
const STEP_BYTES: (u64, u64) = (256 << 10, 16 << 20);
/// How often the policy is asked what it knows, at most.
const REPORT_EVERY: Duration = Duration::from_millis(50);

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
    /// While pressure is being relieved: the bytes of the next step, and the surplus before the last one.
    relief: Option<(u64, u64)>,
    /// When the policy was asked what it knows.
    reported: Option<Instant>,
}

impl Actor for Evictor {
    type Msg = EvictorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let policy = build(&args.shared);
        Ok(State { shared: args.shared, policy, relief: None, reported: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EvictorMessage::Residents => state.take_in(),
            EvictorMessage::MakeRoom { bytes, kind } => {
                state.take_in();
                eviction::evict(&state.shared, state.policy.as_mut(), bytes, eviction::Reason::Room(kind));
            }
            EvictorMessage::Relieve => state.relieve(&myself),
            EvictorMessage::Switch => {
                state.policy = build(&state.shared);
                state.reported = None;
            }
        }
        state.report();
        Ok(())
    }
}

/// The chosen policy, knowing what is resident.
fn build(shared: &Shared) -> Box<dyn Eviction> {
    // What is noted up to here is in the table.
    drop(std::mem::take(&mut *shared.residents.lock()));
    eviction::policy_of(shared)
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

    /// One step against pressure; the next one waits behind what else there is to do.
    fn relieve(&mut self, myself: &ActorRef<EvictorMessage>) {
        let surplus = self.shared.budget.surplus_bytes();
        let Some(step) = next_step(surplus, self.relief) else {
            self.relief = None;
            return;
        };
        self.take_in();
        let freed = eviction::evict(&self.shared, self.policy.as_mut(), step, eviction::Reason::Pressure);
        // Where nothing can go, because it is held, a step later would find the same.
        self.relief = (freed > 0).then_some((step, surplus));
        if self.relief.is_some() {
            // It stands in this actor's own queue: it cannot be down.
            drop(myself.cast(EvictorMessage::Relieve));
        }
    }

    /// Leaves for others what the policy knows, now and then.
    fn report(&mut self) {
        let now = self.shared.clock.now();
        if self.reported.is_none_or(|last| now.saturating_duration_since(last) >= REPORT_EVERY) {
            self.reported = Some(now);
            self.shared.eviction.reported(self.policy.report());
        }
    }
}

/// How many bytes to evict next: twice as many as before when the surplus did not fall, since loads came faster; half as
/// many when it fell by more than a step. `None` when there is no surplus.
fn next_step(surplus: u64, before: Option<(u64, u64)>) -> Option<u64> {
    let step = match before {
        None => STEP_BYTES.0,
        Some((step, surplus_before)) if surplus >= surplus_before => step.saturating_mul(2),
        Some((step, surplus_before)) if surplus_before - surplus > step => step / 2,
        Some((step, _)) => step,
    };
    (surplus > 0).then(|| step.clamp(STEP_BYTES.0, STEP_BYTES.1).min(surplus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_loads() {
        let (least, most) = STEP_BYTES;
        assert_eq!(next_step(0, Some((least, 5))), None);
        assert_eq!(next_step(10, None), Some(10));
        assert_eq!(next_step(100 * most, None), Some(least));
        assert_eq!(next_step(100 * most, Some((least, 99 * most))), Some(2 * least), "loads outran it");
        assert_eq!(next_step(100 * most, Some((most, 99 * most))), Some(most));
        assert_eq!(next_step(50 * least, Some((4 * least, 53 * least))), Some(4 * least));
        assert_eq!(next_step(50 * least, Some((4 * least, 60 * least))), Some(2 * least), "others made room, too");
    }
}
