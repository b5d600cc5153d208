//! What is asked for ahead of a viewer that moves through the places of assets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place::METRES_MAX;
use crate::error::{Error, Result};

/// How far ahead of viewers assets are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpatialConfig {
    /// Whether anything is asked for ahead of viewers. Default `true`; without viewers or places it costs nothing.
    pub enabled: bool,
    /// How far ahead in time, at most 10 s. Default 3 s.
    pub horizon: Duration,
    /// How near an asset's surface is when it is needed, in metres. Default 100.
    pub reach_m: f32,
    /// The least score that is asked for, within 0 to 1. Default 0.1.
    pub score_least: f32,
    /// Assets asked for at once, at most 4096. Default 256.
    pub candidates_max: usize,
    /// By how much each level of memory pressure brings coarser levels of detail nearer: at the second level of three
    /// with 1.5, an asset that has a coarser level from 90 m on is asked for in that from 40 m on. Within 1 to 4.
    /// Default 1.5; with 1 pressure changes nothing.
    pub coarser: f32,
}

impl Default for SpatialConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            horizon: Duration::from_secs(3),
            reach_m: 100.0,
            score_least: 0.1,
            candidates_max: 256,
            coarser: 1.5,
        }
    }
}

impl SpatialConfig {
    /// By how much the distances of levels of detail are divided at this level of pressure, from 0.
    pub fn nearer(&self, pressure: u8) -> f32 {
        self.coarser.powi(i32::from(pressure))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field: &str, why: String| Err(Error::config(format!("spatial.{field}"), why));
        if self.horizon > Duration::from_secs(10) {
            return refuse("horizon", format!("{:?} is longer than 10 s", self.horizon));
        }
        if !(0.0..=METRES_MAX).contains(&self.reach_m) {
            return refuse("reach_m", format!("{} is not a distance within 0 to {METRES_MAX} metres", self.reach_m));
        }
        if !(0.0..=1.0).contains(&self.score_least) {
            return refuse("score_least", format!("{} is not within 0 to 1", self.score_least));
        }
        if !(1..=4096).contains(&self.candidates_max) {
            return refuse("candidates_max", format!("{} is not within 1 to 4096", self.candidates_max));
        }
        if !(1.0..=4.0).contains(&self.coarser) {
            return refuse("coarser", format!("{} is not within 1 to 4", self.coarser));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_that_cannot_be_used_is_refused_by_name() {
        SpatialConfig::default().validate().unwrap();
        let check = |field: &str, change: fn(&mut SpatialConfig)| {
            let mut config = SpatialConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check("spatial.horizon", |config| config.horizon = Duration::from_millis(10_001));
        check("spatial.reach_m", |config| config.reach_m = f32::NAN);
        check("spatial.score_least", |config| config.score_least = -0.1);
        check("spatial.candidates_max", |config| config.candidates_max = 0);
        check("spatial.coarser", |config| config.coarser = 0.5);
    }
}
