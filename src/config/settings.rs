//! What `[runtime]` of a flyloft.toml sets: the part of a runtime's configuration that belongs to a tree rather than to
//! whoever serves it.

use serde::{Deserialize, Serialize};

use super::{EvictionConfig, PredictionConfig, RuntimeConfig};
use crate::error::Result;

/// Values for a runtime; what is not given leaves the configuration as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeSettings {
    /// [`RuntimeConfig::budget_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_bytes: Option<u64>,
    /// [`RuntimeConfig::eviction`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionConfig>,
    /// [`RuntimeConfig::prediction`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<PredictionConfig>,
    /// [`RuntimeConfig::prefetch_dependencies`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch_dependencies: Option<bool>,
}

impl RuntimeSettings {
    /// `config` with these values.
    #[must_use]
    pub fn over(&self, mut config: RuntimeConfig) -> RuntimeConfig {
        if let Some(budget_bytes) = self.budget_bytes {
            config.budget_bytes = budget_bytes;
        }
        if let Some(eviction) = &self.eviction {
            config.eviction = *eviction;
        }
        if let Some(prediction) = &self.prediction {
            config.prediction = prediction.clone();
        }
        if let Some(prefetch) = self.prefetch_dependencies {
            config.prefetch_dependencies = prefetch;
        }
        config
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the name of the first that cannot be used.
    pub fn validate(&self) -> Result<()> {
        self.over(RuntimeConfig::default()).validate()
    }
}
