//! The transform that changes nothing: what every asset gets that no rule names, and how a later rule undoes one.

use super::{Context, Input, Transform, only_parameters};
use crate::error::Result;

/// `identity`: the source bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Identity {
    /// Its name.
    pub const NAME: &'static str = "identity";
}

impl Transform for Identity {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn validate(&self, parameters: &toml::Table) -> Result<()> {
        only_parameters(Self::NAME, parameters, &[])
    }

    fn run(&self, input: Input<'_>, _context: &mut dyn Context) -> Result<Vec<u8>> {
        Ok(input.bytes.to_vec())
    }
}
