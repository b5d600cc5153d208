//! What is predicted, by whom, and how sure of it someone must be.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which accesses predictions are learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observe {
    /// Those that had to load, and the first use of what was prefetched: hits cost nothing more. The default.
    #[default]
    Misses,
    /// All: every access is recorded, which costs some nanoseconds each.
    All,
}

/// Which experts guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExpertsConfig {
    /// What an asset uses. `prefetch_dependencies` must be on as well. Default `true`.
    pub dependency: bool,
    /// The next in path order. Default `true`.
    pub sequential: bool,
    /// Every so many in path order. Default `true`.
    pub strided: bool,
    /// What was used about the same time. Default `true`.
    pub clustered: bool,
    /// What followed the last few. Default `true`.
    pub pattern: bool,
    /// What a viewer comes to. Default `true`.
    pub spatial: bool,
    /// What a small network makes of the others' guesses. Default `true`.
    pub neural: bool,
}

impl Default for ExpertsConfig {
    fn default() -> Self {
        Self {
            dependency: true,
            sequential: true,
            strided: true,
            clustered: true,
            pattern: true,
            spatial: true,
            neural: true,
        }
    }
}

impl ExpertsConfig {
    /// Nobody.
    pub fn none() -> Self {
        Self {
            dependency: false,
            sequential: false,
            strided: false,
            clustered: false,
            pattern: false,
            spatial: false,
            neural: false,
        }
    }
}

/// How assets are predicted. Nothing is prefetched ahead of a more urgent request, but for the turn that keeps a lane from
/// starving, and whoever guesses badly is not believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictionConfig {
    /// Whether anything is predicted. Default `true`.
    pub enabled: bool,
    /// Who guesses.
    pub experts: ExpertsConfig,
    /// The share of prefetches that are to be used, 0.05 to 0.99. Below it less is prefetched, and not as far ahead.
    /// Default 0.5.
    pub target_precision: f32,
    /// The share of guesses like one that must have come true before it is prefetched, at first; 0.05 to 0.99. It moves
    /// so that the target is held. Default 0.7.
    pub threshold: f32,
    /// How far ahead is guessed at most, 1 to 10. Default 10.
    pub distance: u8,
    /// Larger assets are not prefetched. Default 16 MiB.
    pub largest_bytes: u64,
    /// The share of the budget that prefetches may be under way for at once, above 0 and at most 0.5. Default 0.1.
    pub in_flight_share: f32,
    /// What is learned from. Default [`Observe::Misses`].
    pub observe: Observe,
    /// The folder that what was learned is kept in; `None` for the store of a served directory, and none for a bundle
    /// file. Default `None`.
    pub models: Option<PathBuf>,
    /// How often what was learned is written, besides at shutdown; 1 s to a day. Default 5 minutes.
    pub save_every: Duration,
}

impl Default for PredictionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            experts: ExpertsConfig::default(),
            target_precision: 0.5,
            threshold: 0.7,
            distance: 10,
            largest_bytes: 16 << 20,
            in_flight_share: 0.1,
            observe: Observe::default(),
            models: None,
            save_every: Duration::from_secs(300),
        }
    }
}

impl PredictionConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        // A value that is no number is within nothing.
        let within = |field: &str, value: f32, least: f32, most: f32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(field, format!("{value} is not within {least} to {most}")))
            }
        };
        within("prediction.target_precision", self.target_precision, 0.05, 0.99)?;
        within("prediction.threshold", self.threshold, 0.05, 0.99)?;
        within("prediction.in_flight_share", self.in_flight_share, f32::MIN_POSITIVE, 0.5)?;
        if !(1..=10).contains(&self.distance) {
            return Err(Error::config("prediction.distance", format!("{} is not within 1 to 10", self.distance)));
        }
        if self.largest_bytes == 0 {
            return Err(Error::config("prediction.largest_bytes", "it is zero: nothing could be prefetched"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&self.save_every) {
            return Err(Error::config("prediction.save_every", "it is not within 1 s to a day"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_bad_value_is_refused_by_name() {
        PredictionConfig::default().validate().unwrap();
        let check = |field: &str, change: fn(&mut PredictionConfig)| {
            let mut config = PredictionConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("prediction.{field}")), "{error}");
        };
        check("target_precision", |config| config.target_precision = f32::NAN);
        check("target_precision", |config| config.target_precision = -0.5);
        check("threshold", |config| config.threshold = 1.0);
        check("in_flight_share", |config| config.in_flight_share = 0.0);
        check("in_flight_share", |config| config.in_flight_share = f32::INFINITY);
        check("distance", |config| config.distance = 0);
        check("distance", |config| config.distance = 11);
        check("largest_bytes", |config| config.largest_bytes = 0);
        check("save_every", |config| config.save_every = Duration::ZERO);
    }
}
