//! What happened to requests, counted exactly: each one is opened once and ended once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Joined;
use crate::error::{Error, Result};
use crate::ids::{Origin, Priority};

/// The numbers of a ledger. When nothing is in motion,
/// `joined = open + answered + failed + cancelled + expired + quarantined + closed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStats {
    /// Requests that are not answered yet.
    pub open: u64,
    /// The open ones, by the priority they were made with.
    pub open_by_priority: BTreeMap<Priority, u64>,
    /// Requests from the program or its clients, since the start.
    pub joined_by_user: u64,
    /// Requests from the predictor, since the start.
    pub joined_by_predictor: u64,
    /// Requests from the runtime itself, since the start.
    pub joined_by_system: u64,
    /// Requests accepted, since the start.
    pub joined: u64,
    /// Those of them that joined work which was open already.
    pub merged: u64,
    /// Entries that followed another of the same content.
    pub followed: u64,
    /// Requests answered with what they asked for.
    pub answered: u64,
    /// Requests answered with an error of their own.
    pub failed: u64,
    /// Requests that were dropped.
    pub cancelled: u64,
    /// Requests whose deadline passed.
    pub expired: u64,
    /// Requests answered with [`Error::Quarantined`].
    pub quarantined: u64,
    /// Requests answered because the runtime failed or shut down.
    pub closed: u64,
    /// Items that are quarantined now.
    pub in_quarantine: u64,
    /// Times that a lease was given back instead of answered.
    pub given_back: u64,
    /// Requests refused at the limit.
    pub refused: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    Answered,
    Failed,
    Cancelled,
    Expired,
    Quarantined,
    Closed,
}

const TALLIES: usize = 6;
const ORIGINS: usize = 3;

/// The counters behind [`LedgerStats`].
#[derive(Default)]
pub(super) struct Counts {
    open: AtomicU64,
    by_priority: [AtomicU64; Priority::ALL.len()],
    by_origin: [AtomicU64; ORIGINS],
    merged: AtomicU64,
    followed: AtomicU64,
    ended: [AtomicU64; TALLIES],
    given_back: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Takes one of the open places.
    pub(super) fn open(&self, limit: usize) -> Result<()> {
        let within = |open: u64| (open < limit as u64).then_some(open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(()),
            Err(_) => {
                add(&self.refused);
                Err(Error::QueueFull { limit })
            }
        }
    }

    /// Gives an open place back that was not used.
    pub(super) fn unopen(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn open_now(&self) -> usize {
        self.open.load(Ordering::Relaxed) as usize
    }

    pub(super) fn joined(&self, priority: Priority, origin: Origin, joined: Joined) {
        add(&self.by_priority[priority as usize]);
        add(&self.by_origin[origin as usize]);
        if joined == Joined::Merged {
            add(&self.merged);
        }
    }

    pub(super) fn ended(&self, priority: Priority, _origin: Origin, tally: Tally) {
        add(&self.ended[tally as usize]);
        self.by_priority[priority as usize].fetch_sub(1, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn given_back(&self) {
        add(&self.given_back);
    }

    pub(super) fn followed(&self) {
        add(&self.followed);
    }

    pub(super) fn snapshot(&self, in_quarantine: u64) -> LedgerStats {
        let origin = |origin: Origin| get(&self.by_origin[origin as usize]);
        let ended = |tally: Tally| get(&self.ended[tally as usize]);
        let by_priority = Priority::ALL.map(|priority| (priority, get(&self.by_priority[priority as usize])));
        LedgerStats {
            open: get(&self.open),
            open_by_priority: by_priority.into(),
            joined_by_user: origin(Origin::User),
            joined_by_predictor: origin(Origin::Predictor),
            joined_by_system: origin(Origin::System),
            joined: self.by_origin.iter().map(get).sum(),
            merged: get(&self.merged),
            followed: get(&self.followed),
            answered: ended(Tally::Answered),
            failed: ended(Tally::Failed),
            cancelled: ended(Tally::Cancelled),
            expired: ended(Tally::Expired),
            quarantined: ended(Tally::Quarantined),
            closed: ended(Tally::Closed),
            in_quarantine,
            given_back: get(&self.given_back),
            refused: get(&self.refused),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
