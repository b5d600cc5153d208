//! What makes room when the budget is full.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which eviction policy names the victims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvictionPolicy {
    /// What is least likely to be asked for again soon, learned while it runs. The default.
    #[default]
    Adaptive,
    /// The least recently used first.
    Lru,
    /// S3-FIFO: a small first queue sees through what is asked for once.
    #[serde(rename = "s3-fifo")]
    S3Fifo,
    /// SIEVE: a hand that goes over one queue.
    Sieve,
    /// W-TinyLFU: behind a window only what is asked for more often than what it replaces.
    TinyLfu,
    /// GDSF: what is small, often used and dear to load again stays. Good by objects, poor by bytes.
    Gdsf,
    /// A score of age, frequency, size, priority, distance and cost, as [`EvictionConfig::weights`] says.
    Weighted,
}

impl EvictionPolicy {
    /// Every policy.
    pub const ALL: [EvictionPolicy; 7] =
        [Self::Adaptive, Self::Lru, Self::S3Fifo, Self::Sieve, Self::TinyLfu, Self::Gdsf, Self::Weighted];

    /// The name, as in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Lru => "lru",
            Self::S3Fifo => "s3-fifo",
            Self::Sieve => "sieve",
            Self::TinyLfu => "tiny-lfu",
            Self::Gdsf => "gdsf",
            Self::Weighted => "weighted",
        }
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EvictionPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::config("eviction.policy", format!("there is no policy {name:?}; there are {known}"))
        })
    }
}

/// What [`EvictionPolicy::Adaptive`] makes the most of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvictionObjective {
    /// Requests answered from memory, whatever their size.
    Objects,
    /// Both. The default.
    #[default]
    Balanced,
    /// Bytes answered from memory.
    Bytes,
}

impl fmt::Display for EvictionObjective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Objects => "objects",
            Self::Balanced => "balanced",
            Self::Bytes => "bytes",
        })
    }
}

impl FromStr for EvictionObjective {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "objects" => Ok(Self::Objects),
            "balanced" => Ok(Self::Balanced),
            "bytes" => Ok(Self::Bytes),
            _ => {
                let why = format!("{text:?} is no objective; known are objects, balanced, bytes");
                Err(Error::config("eviction.objective", why))
            }
        }
    }
}

/// How much each property of an asset counts for [`EvictionPolicy::Weighted`]. A property's weight is the power that it
/// has in the product: with 0 it does not count, with 2 a doubling of it counts as two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvictionWeights {
    /// The time since the last use, in requests: the longer, the sooner it goes. Default 1.
    pub age: f32,
    /// How often it was used: the more often, the later it goes. Default 1.
    pub frequency: f32,
    /// The bytes it is charged: the more, the sooner it goes. Default 0.5.
    pub size: f32,
    /// How urgent the request was that it was loaded for; a step counts as two doublings. Default 1.
    pub priority: f32,
    /// How far it is from the nearest viewer: the farther, the sooner it goes. Default 1.
    pub distance: f32,
    /// What loading it again would take: the more, the later it goes. Default 0.5.
    pub cost: f32,
}

impl Default for EvictionWeights {
    fn default() -> Self {
        Self { age: 1.0, frequency: 1.0, size: 0.5, priority: 1.0, distance: 1.0, cost: 0.5 }
    }
}

/// The largest weight of a property.
const WEIGHT_MAX: f32 = 1000.0;

impl EvictionWeights {
    /// Checks every weight.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first that is not a number, negative or above 1000, or of all when none of
    /// them counts.
    pub fn validate(&self) -> Result<()> {
        let Self { age, frequency, size, priority, distance, cost } = *self;
        let all = [
            ("age", age),
            ("frequency", frequency),
            ("size", size),
            ("priority", priority),
            ("distance", distance),
            ("cost", cost),
        ];
        for (name, weight) in all {
            if !(0.0..=WEIGHT_MAX).contains(&weight) {
                let why = format!("{weight} is not within 0 to {WEIGHT_MAX}");
                return Err(Error::config(format!("eviction.weights.{name}"), why));
            }
        }
        if all.iter().all(|(_, weight)| *weight == 0.0) {
            return Err(Error::config("eviction.weights", "all are 0: nothing would tell one asset from another"));
        }
        Ok(())
    }
}

/// What makes room when the budget is full. When it is made is the budget's: see [`super::BudgetConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvictionConfig {
    /// Which policy names the victims. Default [`EvictionPolicy::Adaptive`].
    pub policy: EvictionPolicy,
    /// What [`EvictionPolicy::Adaptive`] makes the most of; the other policies do not look at it. Default
    /// [`EvictionObjective::Balanced`].
    pub objective: EvictionObjective,
    /// What counts for [`EvictionPolicy::Weighted`]; the other policies do not look at it.
    pub weights: EvictionWeights,
}

impl EvictionConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        self.weights.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_value_is_refused_by_name() {
        EvictionConfig::default().validate().unwrap();
        let check = |field: &str, change: fn(&mut EvictionConfig)| {
            let mut config = EvictionConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check("eviction.weights.age", |config| config.weights.age = f32::NAN);
        check("eviction.weights.frequency", |config| config.weights.frequency = -1.0);
        check("eviction.weights.size", |config| config.weights.size = f32::INFINITY);
        check("eviction.weights.priority", |config| config.weights.priority = -0.1);
        check("eviction.weights.distance", |config| config.weights.distance = f32::NEG_INFINITY);
        check("eviction.weights.cost", |config| config.weights.cost = 1e9);
        check("eviction.weights: all are 0", |config| {
            let none = 0.0;
            config.weights =
                EvictionWeights { age: none, frequency: none, size: none, priority: none, distance: none, cost: none };
        });
    }

    #[test]
    fn a_policy_is_found_by_its_name_and_a_wrong_name_is_told_the_right_ones() {
        for policy in EvictionPolicy::ALL {
            assert_eq!(policy.name().parse::<EvictionPolicy>().unwrap(), policy);
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        }
        let error = "clock".parse::<EvictionPolicy>().unwrap_err().to_string();
        assert!(EvictionPolicy::ALL.iter().all(|policy| error.contains(policy.name())), "{error}");
    }
}
