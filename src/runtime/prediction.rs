//! What a program tells the predictor of itself.

use super::Runtime;
use crate::error::{Error, Result};
use crate::messages::PredictorMessage;
use crate::policy::prediction::FEATURES_MAX;

impl Runtime {
    /// Tells what the program knows of itself and what may have to do with what it asks for next, from now on: a level, a
    /// speed, whether a door is open. At most 32 numbers, always in the same places; the network among the experts learns
    /// what they mean. What it has learned belongs to those places.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let (level, speed, is_indoors) = (3.0, 12.5, 1.0);
    /// runtime.set_features(&[level, speed, is_indoors])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] that names the feature that is no finite number, or says that there are too many.
    pub fn set_features(&self, features: &[f32]) -> Result<()> {
        if features.len() > FEATURES_MAX {
            return Err(Error::config("features", format!("{} are more than {FEATURES_MAX}", features.len())));
        }
        if let Some(place) = features.iter().position(|feature| !feature.is_finite()) {
            return Err(Error::config(
                format!("features[{place}]"),
                format!("{} is no finite number", features[place]),
            ));
        }
        let shared = self.shared();
        shared.learned.set_features(features);
        shared.addresses.predictor.hint(PredictorMessage::Moved);
        Ok(())
    }
}
