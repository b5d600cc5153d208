//! What each actor is doing, for status pages and fault drills. No decision is taken from it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::messages::SupervisorMessage;

/// How an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorState {
    /// Working.
    Up,
    /// Ended abnormally; being started again.
    Restarting,
    /// Ended too often; parked until it is revived.
    Degraded,
    /// Stopped on purpose.
    Stopped,
}

/// One actor, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// Its name in the tree.
    pub name: String,
    /// How it is.
    pub state: ActorState,
    /// Restarts since the runtime started.
    pub restarts: u64,
    /// How it ended last, if it ever did.
    pub last_cause: Option<String>,
}

#[derive(Default)]
struct Entry {
    state: Option<ActorState>,
    restarts: u64,
    last_cause: Option<String>,
    cell: Option<ActorCell>,
    supervisor: Option<ActorRef<SupervisorMessage>>,
}

/// Every actor of a runtime by name.
#[derive(Default)]
pub struct Roster {
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Roster {
    /// The actors in name order.
    pub fn report(&self) -> Vec<ActorReport> {
        let entries = self.entries.lock();
        let report = |(name, entry): (&String, &Entry)| ActorReport {
            name: name.clone(),
            state: entry.state.unwrap_or(ActorState::Stopped),
            restarts: entry.restarts,
            last_cause: entry.last_cause.clone(),
        };
        entries.iter().map(report).collect()
    }

    /// Kills an actor, as a fault drill. Its supervisor restarts it.
    ///
    /// # Errors
    /// [`Error::NotFound`]-like [`Error::Config`] naming the actors that exist.
    pub fn kill(&self, name: &str) -> Result<()> {
        let entries = self.entries.lock();
        match entries.get(name).and_then(|entry| entry.cell.as_ref()) {
            Some(cell) => {
                cell.kill();
                Ok(())
            }
            None => Err(unknown(name, &entries)),
        }
    }

    /// Starts a parked part again.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such actor.
    pub fn revive(&self, name: &str) -> Result<()> {
        let entries = self.entries.lock();
        let Some(supervisor) = entries.get(name).and_then(|entry| entry.supervisor.as_ref()) else {
            return Err(unknown(name, &entries));
        };
        // A supervisor that is just ending starts its children anew by itself.
        drop(supervisor.send_message(SupervisorMessage::Revive { name: name.to_owned() }));
        Ok(())
    }

    /// Whether a part is parked.
    pub fn is_parked(&self, name: &str) -> bool {
        self.entries.lock().get(name).is_some_and(|entry| entry.state == Some(ActorState::Degraded))
    }

    pub(crate) fn up(&self, name: &str, cell: ActorCell, supervisor: ActorRef<SupervisorMessage>) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.state = Some(ActorState::Up);
        entry.cell = Some(cell);
        entry.supervisor = Some(supervisor);
    }

    pub(crate) fn set(&self, name: &str, state: ActorState) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.state = Some(state);
        entry.cell = None;
    }

    /// Counts a restart and returns how many there were.
    pub(crate) fn restarting(&self, name: &str, cause: &str) -> u64 {
        let mut entries = self.entries.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.state = Some(ActorState::Restarting);
        entry.cell = None;
        entry.restarts += 1;
        entry.last_cause = Some(cause.to_owned());
        entry.restarts
    }

    pub(crate) fn parked(&self, name: &str, cause: &str) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.state = Some(ActorState::Degraded);
        entry.cell = None;
        entry.last_cause = Some(cause.to_owned());
    }
}

fn unknown(name: &str, entries: &BTreeMap<String, Entry>) -> Error {
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    Error::config("actor", format!("'{name}' is not running; there are {}", names.join(", ")))
}
