//! What a program may have watched while it looks for a fault of its own: all off, and free, by default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DebugConfig {
    /// Whether it is remembered who took snapshots and handles: the tracing span and a backtrace, some 10 µs for each.
    /// [`crate::Runtime::holders`] says who keeps retired generations in memory. Default `false`.
    pub holders: bool,
    /// What is retired and held for longer than this is warned of, while `holders` is on. Default 10 s.
    pub warn_after: Duration,
    /// Whether buffers that go back to a pool are overwritten, and looked at when they are lent again: somebody who wrote
    /// to one meanwhile is found out. Default `false`.
    pub poison: bool,
    /// Whether a shutdown says what was not given back: snapshots, handles, bytes; with `holders` also by whom. Default
    /// `false`.
    pub leaks: bool,
}

impl Default for DebugConfig {
    fn default() -> Self {
        Self { holders: false, warn_after: Duration::from_secs(10), poison: false, leaks: false }
    }
}

impl DebugConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if !(Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&self.warn_after) {
            return Err(Error::config("debug.warn_after", "it is not within 1 ms to a day"));
        }
        Ok(())
    }
}
