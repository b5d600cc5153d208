//! Whether the times of a trace are in order.
//!
//! A log that is written when requests end has them a little out of order; it is replayed as it is written, and said. A
//! trace whose times go back by more than a thousandth of all its time is not sorted: what it would show is made up.

use super::super::trace::Gathering;
use crate::error::{Error, Result};

/// How far a time may go back, as a part of the trace's whole time.
const LATE_SHARE: f64 = 0.001;

/// The times seen so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    first: Option<f64>,
    newest: f64,
    late: u64,
    /// The time that went back farthest, what came before it, and where.
    worst: Option<(f64, f64, String)>,
}

impl Order {
    /// One more time; `place` says where it stands.
    pub fn see(&mut self, time: f64, place: impl FnOnce() -> String) {
        if self.first.is_none() || time >= self.newest {
            self.first.get_or_insert(time);
            self.newest = time;
            return;
        }
        self.late += 1;
        if self.worst.as_ref().is_none_or(|(late, newest, _)| self.newest - time > newest - late) {
            self.worst = Some((time, self.newest, place()));
        }
    }

    /// All were seen.
    pub fn finish(self, into: &mut Gathering) -> Result<()> {
        let Some((time, newest, place)) = self.worst else { return Ok(()) };
        if newest - time > LATE_SHARE * (self.newest - self.first.unwrap_or(self.newest)) {
            let why = format!("the time {time} comes after {newest}; sort the trace by time");
            return Err(Error::trace(into.name(), &place, why));
        }
        into.late(self.late);
        Ok(())
    }
}
