//! `cat`: one asset's bytes.

use std::path::PathBuf;

use clap::Args;
use flyloft::{Runtime, limits};

use crate::failure::{Answer, Result};
use crate::open;
use crate::output::Output;

/// Write an asset's bytes to standard output
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// The asset
    path: String,
}

pub fn run(call: &Call) -> Result<Answer> {
    // Asked first, so that what is wrong with the file or the path costs nothing and names both.
    open::asset(&open::bundle(&call.file)?, &call.path)?;
    open::block_on(async {
        let builder = Runtime::builder().bundle(&call.file).budget_bytes(limits::BUDGET_BYTES_MIN);
        let runtime = builder.start().await?;
        let mut chunks = runtime.open(&call.path).await?.chunks(0..u64::MAX);
        let mut output = Output::new();
        while let Some(chunk) = chunks.next().await {
            output.raw(&chunk?)?;
        }
        output.finish()?;
        Ok(Answer::Yes)
    })
}
