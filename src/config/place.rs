//! Where assets are in the program's world, so that what a viewer comes near to can be read first, or ahead.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::AssetId;

/// Places of one tree at most.
pub const PLACES_MAX: usize = 1 << 20;
/// Levels of detail of one place at most, besides the asset itself.
pub const LEVELS_MAX: usize = 15;
/// The largest coordinate, distance and radius: a million kilometres. Squares of it stay exact enough.
pub const METRES_MAX: f32 = 1e9;

/// An asset that stands for another one from some distance on: a coarser level of detail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// From this distance on, in metres.
    pub distance_m: f32,
    /// The asset.
    pub asset: AssetId,
}

/// Where an asset is. One asset may have several places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Its centre, in metres.
    pub at: [f32; 3],
    /// How far it reaches around that. Default 0.
    pub radius_m: f32,
    /// How much it matters that it is there in time, from 0 to 1: predictions of it score so much. Default 1.
    pub importance: f32,
    /// What is shown instead of it farther away, by ascending distance. Default nothing: the asset itself at any
    /// distance.
    pub levels: Vec<Level>,
}

impl Default for Place {
    fn default() -> Self {
        Self { at: [0.0; 3], radius_m: 0.0, importance: 1.0, levels: Vec::new() }
    }
}

impl Place {
    /// A place that is a point.
    pub fn at(at: [f32; 3]) -> Self {
        Self { at, ..Self::default() }
    }

    /// How far it reaches around its centre.
    pub fn radius_m(mut self, radius_m: f32) -> Self {
        self.radius_m = radius_m;
        self
    }

    /// How much it matters, from 0 to 1.
    pub fn importance(mut self, importance: f32) -> Self {
        self.importance = importance;
        self
    }

    /// `asset` is shown instead from this distance on; the nearer levels come first.
    pub fn level(mut self, distance_m: f32, asset: impl Into<AssetId>) -> Self {
        self.levels.push(Level { distance_m, asset: asset.into() });
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used: `place.at`.
    pub fn validate(&self) -> Result<()> {
        self.fault().map_or(Ok(()), |(field, why)| Err(Error::config(format!("place.{field}"), why)))
    }

    /// The first field that cannot be used, and why.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(metres) = self.at.iter().find(|metres| metres.is_nan() || metres.abs() > METRES_MAX) {
            return Some(("at", format!("{metres} is not a coordinate within {METRES_MAX} metres of the origin")));
        }
        if !(0.0..=METRES_MAX).contains(&self.radius_m) {
            return Some(("radius", format!("{} is not a radius within 0 to {METRES_MAX} metres", self.radius_m)));
        }
        if !(0.0..=1.0).contains(&self.importance) {
            return Some(("importance", format!("{} is not within 0 to 1", self.importance)));
        }
        if self.levels.len() > LEVELS_MAX {
            return Some(("levels", format!("there are {}; at most {LEVELS_MAX}", self.levels.len())));
        }
        let mut least = 0.0;
        for Level { distance_m, .. } in &self.levels {
            if !(*distance_m > least && *distance_m <= METRES_MAX) {
                let why =
                    format!("{distance_m} is not a distance above {least}: levels are in the order of their distances");
                return Some(("levels", why));
            }
            least = *distance_m;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_is_refused_by_name() {
        let good = Place::at([1.0, -2.0, 3.0]).radius_m(4.0).level(10.0, "far.glb").level(20.0, "farther.glb");
        good.validate().unwrap();
        let check = |field: &str, place: Place| {
            let error = place.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("place.{field}")), "{error}");
        };
        check("at", Place::at([f32::NAN, 0.0, 0.0]));
        check("at", Place::at([0.0, f32::INFINITY, 0.0]));
        check("radius", good.clone().radius_m(-1.0));
        check("radius", good.clone().radius_m(f32::NAN));
        check("importance", good.clone().importance(1.5));
        check("levels", good.clone().level(20.0, "no farther.glb"));
        check("levels", good.clone().level(f32::NAN, "nowhere.glb"));
        check("levels", (1..20).fold(good, |place, at| place.level(20.0 + at as f32, "many.glb")));
    }
}
