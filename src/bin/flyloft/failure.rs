//! How a command ends.

use std::fmt::Display;
use std::io::{self, Write};

use flyloft::Error;

/// What a command that could be carried out found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, sound, the same: status 0.
    Yes,
    /// Corrupt, missing, different: status 1.
    No,
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// Whoever read the output is gone: nothing more to say.
    Closed,
    /// What is unusable was shown already, in more than a line.
    Shown,
    /// One line for standard error.
    Told {
        /// Whether the answer is simply no (status 1) rather than the call or the input unusable (status 2).
        no: bool,
        /// What, where, what to do.
        line: String,
    },
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The call or the input is unusable.
    pub fn unusable(line: impl Display) -> Self {
        Self::Told { no: false, line: line.to_string() }
    }

    /// The answer is no.
    pub fn no(line: impl Display) -> Self {
        Self::Told { no: true, line: line.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told { no: error.is_no(), line: error.to_string() }
    }
}

/// Says one line on standard error. One that cannot be said has nobody to hear it.
pub fn tell(line: &str) {
    drop(writeln!(io::stderr(), "flyloft: {line}"));
}
