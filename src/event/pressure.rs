//! How short memory is: a value that events, errors and every part of a runtime speak of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of a budget is tied up: in somebody's hand, on its way, locked, or retired and held. What could be evicted at
/// once does not count, so that a full cache is no pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PressureLevel {
    /// Below 70 %, as all of these unless another percentage is set: nothing to do.
    #[default]
    Normal = 0,
    /// From 70 %: nothing is loaded ahead of need without evidence that it helps.
    Elevated = 1,
    /// From 85 %: less is loaded ahead of need.
    High = 2,
    /// From 95 %: nothing is loaded ahead of need; what is least urgent waits for nothing, and is refused where it does not fit.
    Critical = 3,
}

impl PressureLevel {
    /// All of them, the least first.
    pub const ALL: [PressureLevel; 4] = [Self::Normal, Self::Elevated, Self::High, Self::Critical];

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level with this number; the last one for what is no level's.
    pub fn from_number(number: u8) -> Self {
        Self::ALL[usize::from(number).min(Self::ALL.len() - 1)]
    }
}

impl fmt::Display for PressureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What made the pressure what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum PressureCause {
    /// What is charged rose, or fell.
    Use,
    /// A program changed the budget.
    Budget,
    /// The machine, or a limit on this process, lets it have less, or more again.
    Outside {
        /// Who said so, and what.
        what: String,
    },
}

impl fmt::Display for PressureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Use => f.write_str("use"),
            Self::Budget => f.write_str("a changed budget"),
            Self::Outside { what } => f.write_str(what),
        }
    }
}
