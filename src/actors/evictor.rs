//! Role: makes room: picks victims by policy, never a pinned one, and unlinks them.
//!
//! Owns: the eviction policy. Receives: [`EvictorMessage`]. Sends: `Evicted` to the dispatcher, `RelieveOn` to itself.
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
/// How long it is waited for what was evicted to come free, how often before the next step, and how often in vain.
const WAIT: Duration = Duration::from_millis(1);
const WAITS_MAX: u32 = 8;
const WAITS_IN_VAIN_MAX: u32 = 100;
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
    /// While pressure is being relieved.
    relief: Option<Relief>,
    /// When the policy was asked what it knows.
    reported: Option<Instant>,
}

impl Actor for Evictor {
    type Msg = EvictorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        // What an earlier one was told may be lost with it. Without a surplus it is done at once.
        args.shared.budget.relieved();
        drop(myself.send_message(EvictorMessage::Relieve));
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
            EvictorMessage::Relieve if state.relief.is_some() => {}
            EvictorMessage::Relieve => {
                state.relief = Some(Relief::new());
                state.relieve(&myself);
            }
            EvictorMessage::RelieveOn => state.relieve(&myself),
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

    /// The next step against pressure, which waits behind what else there is to do.
    fn relieve(&mut self, myself: &ActorRef<EvictorMessage>) {
        let Some(mut relief) = self.relief.take() else { return };
        // What is on its way to be freed needs nobody else to go.
        let budget = &self.shared.budget;
        let surplus = budget.surplus_bytes().saturating_sub(budget.waiting_to_be_freed());
        match relief.next(surplus) {
            Next::Done => return budget.relieved(),
            Next::Wait => drop(myself.send_after(WAIT, || EvictorMessage::RelieveOn)),
            Next::Evict(bytes) => {
                self.take_in();
                relief.freed = eviction::evict(&self.shared, self.policy.as_mut(), bytes, eviction::Reason::Pressure);
                // It stands in this actor's own queue: it cannot be down.
                drop(myself.cast(EvictorMessage::RelieveOn));
            }
        }
        self.relief = Some(relief);
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

/// How pressure is being relieved.
#[derive(Clone, Copy, Debug)]
struct Relief {
    /// Bytes to evict in one step.
    step: u64,
    /// The surplus before the last step.
    surplus: u64,
    /// What came of it.
    freed: u64,
    /// How often it was waited since.
    waits: u32,
}

/// What is done next against pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: there is no surplus, or nothing that could go.
    Done,
    Wait,
    Evict(u64),
}

impl Relief {
    fn new() -> Self {
        Self { step: STEP_BYTES.0, surplus: 0, freed: 0, waits: 0 }
    }

    /// What is evicted may come free only later, when nobody reads it any more: as long as nothing shows of it, it is
    /// waited a little. When loads took what came free, the next step is twice as large; when others made room, too, half
    /// as large.
    fn next(&mut self, surplus: u64) -> Next {
        if surplus == 0 {
            return Next::Done;
        }
        if self.surplus > 0 {
            let fell = self.surplus.saturating_sub(surplus);
            if fell < self.step.min(self.surplus) / 2 {
                self.waits += 1;
                if self.freed == 0 && self.waits > WAITS_IN_VAIN_MAX {
                    return Next::Done;
                }
                if !self.waits.is_multiple_of(WAITS_MAX) {
                    return Next::Wait;
                }
                self.step = self.step.saturating_mul(2);
            } else {
                self.waits = 0;
                if fell > self.step {
                    self.step /= 2;
                }
            }
        }
        self.step = self.step.clamp(STEP_BYTES.0, STEP_BYTES.1);
        self.surplus = surplus;
        Next::Evict(self.step.min(surplus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_loads() {
        let (least, most) = STEP_BYTES;
        assert_eq!(Relief::new().next(0), Next::Done);
        assert_eq!(Relief::new().next(10), Next::Evict(10));
        let mut relief = Relief { freed: least, ..Relief::new() };
        assert_eq!(relief.next(100 * most), Next::Evict(least));
        for _ in 1..WAITS_MAX {
            assert_eq!(relief.next(100 * most), Next::Wait, "it may still come free");
        }
        assert_eq!(relief.next(100 * most), Next::Evict(2 * least), "loads outran it");
        assert_eq!(relief.next(100 * most - 2 * least), Next::Evict(2 * least));
        assert_eq!(relief.next(99 * most), Next::Evict(least), "others made room, too");
        assert_eq!(relief.next(0), Next::Done);
    }

    #[test]
    fn where_nothing_can_go_it_is_given_up() {
        let mut relief = Relief::new();
        let steps = (0..1000).take_while(|_| relief.next(5) != Next::Done).count();
        assert!((10..200).contains(&steps), "{steps}");
    }
}
