//! The transform that changes nothing: what every asset gets that no rule names, and how a later rule undoes one.

use super::{Context, Input, NoParameters, Output, Transform};
use crate::error::Result;

/// `identity`: the source bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Identity {
    /// Its name.
    pub const NAME: &'static str = "identity";
}

impl Transform for Identity {
    type Parameters = NoParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn cached(&self) -> bool {
        false
    }

    fn run(&self, input: Input<'_>, _: &NoParameters, _context: &mut dyn Context) -> Result<Output> {
        Ok(input.bytes.to_vec().into())
    }
}
