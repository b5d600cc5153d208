//! The policies that can be replayed, by name.

use std::fmt;
use std::str::FromStr;

use crate::policy::eviction::{Eviction, Lru};

/// An eviction policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The least recently used first.
    Lru,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 1] = [Policy::Lru];

    /// As `--policies` names it.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Lru => "lru",
        }
    }

    pub(super) fn build(self) -> Box<dyn Eviction> {
        match self {
            Policy::Lru => Box::new(Lru::new()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|policy| policy.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|policy| policy.name()).collect();
            format!("'{text}' is no eviction policy; known are {}", names.join(", "))
        })
    }
}
