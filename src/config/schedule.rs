//! In which order loads that wait are read: the weights of a score, and the lanes by distance.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::Priority;

/// How much each thing that is known about a request counts within its lane.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Of `1 / (distance + 1)`. Default 1.
    pub distance: f32,
    /// Of the view, at least 0. Default 0.5.
    pub view: f32,
    /// Of `1 / (size in MB + 1)`. Default 0.25.
    pub size: f32,
    /// Of the time waited, full at 5 s. Default 0.5.
    pub waited: f32,
    /// Of the coarseness. Default 0.25.
    pub coarseness: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { distance: 1.0, view: 0.5, size: 0.25, waited: 0.5, coarseness: 0.25 }
    }
}

/// The largest weight: sums of such stay exact enough to be compared.
const WEIGHT_MAX: f32 = 1e6;

impl Weights {
    /// Checks every weight; `area` begins the name of the one that is refused: `schedule.weights.size`.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first that is negative, not a number, or above a million.
    pub fn validate(&self, area: &str) -> Result<()> {
        let Self { distance, view, size, waited, coarseness } = *self;
        let all =
            [("distance", distance), ("view", view), ("size", size), ("waited", waited), ("coarseness", coarseness)];
        for (name, weight) in all {
            if !(0.0..=WEIGHT_MAX).contains(&weight) {
                let why = format!("{weight} is not a weight: it must be a number within 0 to {WEIGHT_MAX}");
                return Err(Error::config(format!("{area}.{name}"), why));
            }
        }
        Ok(())
    }
}

/// The distances, in metres, up to which a request belongs in each lane.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneDistances {
    /// Critical up to here. Default 10.
    pub critical_m: f32,
    /// High up to here. Default 50.
    pub high_m: f32,
    /// Medium up to here, low beyond. Default 100.
    pub medium_m: f32,
}

impl Default for LaneDistances {
    fn default() -> Self {
        Self { critical_m: 10.0, high_m: 50.0, medium_m: 100.0 }
    }
}

impl LaneDistances {
    /// The lane of something this far away. Not-a-number is far.
    pub fn lane(&self, distance_m: f32) -> Priority {
        if distance_m <= self.critical_m {
            Priority::Critical
        } else if distance_m <= self.high_m {
            Priority::High
        } else if distance_m <= self.medium_m {
            Priority::Medium
        } else {
            Priority::Low
        }
    }

    /// Checks that they are numbers, not negative, and ascend; `area` begins the name of the one that is refused.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first that cannot be used.
    pub fn validate(&self, area: &str) -> Result<()> {
        let mut least = 0.0;
        for (name, metres) in [("critical_m", self.critical_m), ("high_m", self.high_m), ("medium_m", self.medium_m)] {
            if !metres.is_finite() || metres < least {
                let why = format!(
                    "{metres} is not a distance of at least {least}: each lane reaches as far as the one before"
                );
                return Err(Error::config(format!("{area}.{name}"), why));
            }
            least = metres;
        }
        Ok(())
    }
}

/// The order in which loads that wait are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// How much each hint counts within a lane.
    pub weights: Weights,
    /// Which lane a request is in that names no priority, by the distance from the nearest viewer to its asset's place.
    pub distances: LaneDistances,
}

impl ScheduleConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        self.weights.validate("schedule.weights")?;
        self.distances.validate("schedule.distances")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &str, change: fn(&mut ScheduleConfig)) {
        let mut config = ScheduleConfig::default();
        config.validate().unwrap();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }

    #[test]
    fn a_weight_or_distance_that_cannot_be_used_is_refused_by_name() {
        check("schedule.weights.distance", |config| config.weights.distance = f32::NAN);
        check("schedule.weights.view", |config| config.weights.view = -0.5);
        check("schedule.weights.size", |config| config.weights.size = f32::INFINITY);
        check("schedule.weights.waited", |config| config.weights.waited = -1.0);
        check("schedule.weights.coarseness", |config| config.weights.coarseness = 2e6);
        check("schedule.distances.critical_m", |config| config.distances.critical_m = -1.0);
        check("schedule.distances.high_m", |config| config.distances.high_m = 5.0);
        check("schedule.distances.medium_m", |config| config.distances.medium_m = f32::NAN);
    }

    #[test]
    fn lanes_by_distance() {
        let lanes = LaneDistances::default();
        let names: Vec<_> = [0.0, 10.0, 11.0, 51.0, 101.0, f32::NAN].map(|metres| lanes.lane(metres).name()).into();
        assert_eq!(names, ["critical", "critical", "high", "medium", "low", "low"]);
    }
}
