//! How much is loaded ahead of anybody's asking, and whether what is asked for is remembered for the next start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most loads of one warming that may be under way at once.
const AT_ONCE_MAX: usize = 256;

/// Warming: loading what will be asked for before it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarmConfig {
    /// Whether it is remembered what is asked for, in which order and at what time, for `Warming::historical` at the next
    /// start. An access then costs some nanoseconds more. Default `false`.
    pub history: bool,
    /// The file that remembers it; `None` for one in the store of the served tree. A served bundle has no store: name one.
    /// Default `None`.
    pub journal: Option<PathBuf>,
    /// Of what may be resident, in percent: as much a warming may load unless it says otherwise, 1 to 100. Default 50.
    pub percent: u8,
    /// Loads that a warming has under way at once unless it says otherwise, 1 to 256. Default 8.
    pub at_once: usize,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self { history: false, journal: None, percent: 50, at_once: 8 }
    }
}

impl WarmConfig {
    /// Where accesses are remembered, if they are: `name` in the store where no file is named.
    ///
    /// # Errors
    /// [`Error::Config`] where there is neither.
    pub fn file(&self, store: Option<&Path>, name: &str) -> Result<Option<PathBuf>> {
        match (&self.journal, store) {
            _ if !self.history => Ok(None),
            (Some(file), _) => Ok(Some(file.clone())),
            (None, Some(store)) => Ok(Some(store.join(name))),
            (None, None) => Err(Error::config("warm.journal", "a bundle has no store: name the file to remember in")),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if !(1..=100).contains(&self.percent) {
            return Err(Error::config("warm.percent", format!("{} is not within 1 to 100", self.percent)));
        }
        if !(1..=AT_ONCE_MAX).contains(&self.at_once) {
            return Err(Error::config("warm.at_once", format!("{} is not within 1 to {AT_ONCE_MAX}", self.at_once)));
        }
        Ok(())
    }
}
