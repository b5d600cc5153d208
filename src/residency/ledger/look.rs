//! What somebody who asks may know of an open request. Nothing is changed by looking.

use std::time::{Duration, Instant};

use super::entry::Phase;
use super::{Key, Ledger};
use crate::error::Error;
use crate::ids::{ContentHash, Priority};

/// Work that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWork {
    /// How urgent it is: the lane that it is in.
    pub priority: Priority,
    /// How long it has been open.
    pub waiting: Duration,
    /// Requests that wait for it.
    pub waiters: u32,
    /// Attempts that failed.
    pub strikes: u32,
    /// Whether it has left the ledger's inbox.
    pub started: bool,
    /// The stage that has it in hand, where one says so.
    pub in_hand: Option<&'static str>,
    /// Whether the work is done under another name of the same content.
    pub follows: bool,
}

impl Ledger {
    /// The open work for `key`, if there is any.
    pub fn look(&self, key: &Key, now: Instant) -> Option<OpenWork> {
        let entry = std::sync::Arc::clone(&*self.entries.get(key)?);
        let state = entry.state.lock();
        state.is_open().then(|| OpenWork {
            priority: entry.priority(),
            waiting: self.age(entry.since_ms, now),
            waiters: state.waiting(),
            strikes: state.strikes,
            started: !matches!(state.phase, Phase::Queued),
            in_hand: state.in_hand,
            follows: matches!(state.phase, Phase::Follows(..)),
        })
    }

    /// Why a request for `key`, which is of `content`, would be refused: attempts so far and the last cause.
    pub fn quarantine(&self, key: &Key, content: Option<&ContentHash>) -> Option<(u32, String)> {
        let refused = self.strikes.refusal(key, String::new);
        let refused = refused.or_else(|| self.strikes.refusal_of(key, content?, String::new));
        match refused {
            Some(Error::Quarantined { attempts, cause, .. }) => Some((attempts, cause)),
            _ => None,
        }
    }

    /// Milliseconds since the first request of all, as far as 32 bits count them: an entry has room for no more.
    pub(super) fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(*self.began.get_or_init(|| now)).as_millis() as u32
    }

    pub(super) fn age(&self, since_ms: u32, now: Instant) -> Duration {
        Duration::from_millis(u64::from(self.stamp(now).wrapping_sub(since_ms)))
    }
}
