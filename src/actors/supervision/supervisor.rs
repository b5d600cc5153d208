//! Role: starts its children in order, starts again what ends abnormally, stops them in reverse order.
//!
//! Owns: one slot per child with its restart log. Receives: [`SupervisorMessage`] and its children's ends.
//! Sends: nothing to actors; publishes their addresses, their status and events.
//! On restart: everything is rebuilt from the declared tree; the children of a dead supervisor are ended with it.
//! Bounds: the declared children; a restart log never holds more than its intensity allows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::start;
use super::tree::{ChildSpec, Exhausted, Restart, Strategy, SupervisorSpec};
use crate::actors::{ActorState, Shared};
use crate::event::Event;
use crate::messages::SupervisorMessage;
use crate::policy::restart::{self, Decision};

/// The actor. Its configuration is the declaration it carries out.
pub struct Supervisor(pub &'static SupervisorSpec);

/// What it needs to start its children.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

/// The children now.
pub struct State {
    shared: Arc<Shared>,
    /// In starting order; a child of which there is one per node has one slot per node.
    slots: Vec<Slot>,
    /// Restarts of the children that share the supervisor's window.
    log: VecDeque<Instant>,
    /// Counts restarts, so that a delayed start of an older one is recognised.
    attempt: u64,
}

struct Slot {
    spec: &'static ChildSpec,
    node: usize,
    name: String,
    cell: Option<ActorCell>,
    /// The end of this child is intended: it is not a failure.
    stopping: bool,
    parked: bool,
    /// Restarts of a child that is parked on its own when it ends too often.
    log: VecDeque<Instant>,
    /// The restart that is due to start it; older delayed starts are ignored.
    attempt: u64,
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut slots = Vec::new();
        for spec in self.0.children {
            if !start::wanted(spec.child, &args.shared) {
                continue;
            }
            let nodes = if spec.per_node { args.shared.drivers.len() } else { 1 };
            for node in 0..nodes {
                let name = if spec.per_node { format!("{}[{node}]", spec.name) } else { spec.name.to_owned() };
                let (stopping, parked, cell) = (false, false, None);
                slots.push(Slot { spec, node, name, cell, stopping, parked, log: VecDeque::new(), attempt: 0 });
            }
        }
        let mut state = State { shared: args.shared, slots, log: VecDeque::new(), attempt: 0 };
        for index in 0..state.slots.len() {
            state.start(index, &myself).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Start { index, attempt } => self.start_due(index, attempt, &myself, state).await,
            SupervisorMessage::Revive { name } => self.revive(&name, &myself, state).await,
            SupervisorMessage::Shutdown { reply } => {
                state.stop_from(0).await;
                // Whoever asked may have stopped waiting; the children are stopped all the same.
                drop(reply.send(()));
                myself.stop(None);
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, normal, cause) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, false, error.to_string()),
            // A kill arrives here too, with or without the last state and with a reason. Only a stop without a reason,
            // and of course one that was asked for here, is a normal end.
            SupervisionEvent::ActorTerminated(cell, last, reason) => {
                let normal = last.is_some() && reason.is_none();
                (cell, normal, reason.unwrap_or_else(|| "stopped or cancelled".into()))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let ended = |slot: &Slot| slot.cell.as_ref().is_some_and(|live| live.get_id() == cell.get_id());
        let Some(index) = state.slots.iter().position(ended) else { return Ok(()) };
        state.withdraw(index);
        let slot = &state.slots[index];
        if slot.stopping {
            return Ok(());
        }
        if normal && slot.spec.restart == Restart::Transient {
            state.shared.roster.set(&slot.name, ActorState::Stopped);
            return Ok(());
        }
        self.failed(index, cause, &myself, state).await
    }
}

impl Supervisor {
    /// A child ended without being asked to, or could not be started.
    async fn failed(
        &self,
        index: usize,
        cause: String,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = state.shared.clock.now();
        let random = state.shared.random.next_u64();
        let slot = &mut state.slots[index];
        let parkable = slot.spec.exhausted == Exhausted::Park;
        let log = if parkable { &mut slot.log } else { &mut state.log };
        match restart::decide(log, now, self.0.intensity) {
            Decision::GiveUp if parkable => {
                state.park(index, cause);
                Ok(())
            }
            Decision::GiveUp => {
                let name = &state.slots[index].name;
                tracing::error!(actor = %name, %cause, supervisor = self.0.name, "restart window used up");
                Err(format!("{name} ended too often: {cause}").into())
            }
            Decision::Restart { after } => {
                let wait = restart::jitter(after, random);
                let slot = &state.slots[index];
                let restarts = state.shared.roster.restarting(&slot.name, &cause);
                let span = tracing::info_span!("restart", actor = %slot.name, restarts);
                span.in_scope(|| tracing::warn!(%cause, wait_us = wait.as_micros() as u64, "restarting"));
                state.shared.events.send(Event::ActorRestarted { actor: slot.name.clone(), cause, restarts });
                if self.0.strategy == Strategy::RestForOne {
                    state.stop_from(index + 1).await;
                }
                state.attempt += 1;
                let attempt = state.attempt;
                // The others that wait for a start of their own are left to it, unless this one starts them as well.
                let started_with = match self.0.strategy {
                    Strategy::OneForOne => &mut state.slots[index..=index],
                    Strategy::RestForOne => &mut state.slots[index..],
                };
                for slot in started_with {
                    slot.attempt = attempt;
                }
                self.start_after(wait, index, attempt, myself, state).await
            }
        }
    }

    async fn start_after(
        &self,
        wait: Duration,
        index: usize,
        attempt: u64,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if wait.is_zero() {
            return Box::pin(self.start_due(index, attempt, myself, state)).await;
        }
        myself.send_after(wait, move || SupervisorMessage::Start { index, attempt });
        Ok(())
    }

    /// Starts the child and, under rest-for-one, those after it that were stopped with it.
    async fn start_due(
        &self,
        index: usize,
        attempt: u64,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let last = match self.0.strategy {
            Strategy::OneForOne => index + 1,
            Strategy::RestForOne => state.slots.len(),
        };
        for index in index..last.min(state.slots.len()) {
            let slot = &state.slots[index];
            if slot.cell.is_some() || slot.parked || slot.attempt != attempt {
                continue;
            }
            if let Err(error) = state.start(index, myself).await {
                return self.failed(index, error.to_string(), myself, state).await;
            }
        }
        Ok(())
    }

    async fn revive(
        &self,
        name: &str,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let parked = |slot: &Slot| slot.parked && slot.name == name;
        let Some(index) = state.slots.iter().position(parked) else { return Ok(()) };
        let slot = &mut state.slots[index];
        slot.parked = false;
        slot.log.clear();
        state.shared.events.send(Event::Revived { part: name.to_owned() });
        match state.start(index, myself).await {
            Ok(()) => Ok(()),
            Err(error) => self.failed(index, error.to_string(), myself, state).await,
        }
    }
}

impl State {
    async fn start(&mut self, index: usize, myself: &ActorRef<SupervisorMessage>) -> Result<(), ActorProcessingErr> {
        let slot = &mut self.slots[index];
        let cell = start::start(slot.spec, slot.node, &self.shared, myself.get_cell()).await?;
        self.shared.roster.up(&slot.name, cell.clone(), myself.clone());
        slot.cell = Some(cell);
        slot.stopping = false;
        // What waited for this stage goes on.
        self.shared.stage_up();
        Ok(())
    }

    fn withdraw(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.cell = None;
        start::withdraw(slot.spec.child, slot.node, &self.shared);
        if slot.stopping {
            self.shared.roster.set(&slot.name, ActorState::Stopped);
        }
    }

    fn park(&mut self, index: usize, cause: String) {
        let slot = &mut self.slots[index];
        slot.parked = true;
        self.shared.roster.parked(&slot.name, &cause);
        tracing::error!(part = %slot.name, %cause, "parked: it ended too often; serving goes on without it");
        self.shared.events.send(Event::Degraded { part: slot.name.clone(), cause });
    }

    /// Stops the children from `first` on, the last one first. What does not stop in its time is killed.
    async fn stop_from(&mut self, first: usize) {
        for index in (first..self.slots.len()).rev() {
            let slot = &mut self.slots[index];
            let Some(cell) = slot.cell.clone() else { continue };
            slot.stopping = true;
            if slot.spec.supervises.is_some() {
                let inner: ActorRef<SupervisorMessage> = cell.clone().into();
                // Past its deadline it is killed below, and its children with it.
                let stopped = inner.call(|reply| SupervisorMessage::Shutdown { reply }, Some(slot.spec.shutdown)).await;
                if !matches!(stopped, Ok(ractor::rpc::CallResult::Success(()))) {
                    tracing::warn!(actor = %slot.name, "did not stop in time");
                }
            }
            if cell.stop_and_wait(None, Some(slot.spec.shutdown)).await.is_err() {
                // It may have ended by itself meanwhile, which comes to the same.
                drop(cell.kill_and_wait(Some(slot.spec.shutdown)).await);
            }
            self.withdraw(index);
        }
    }
}
