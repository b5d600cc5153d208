//! `doctor`: this machine, honestly.

use std::path::PathBuf;

use clap::Args;
use flyloft::platform::capabilities::Capabilities;

use crate::failure::{Answer, Result};
use crate::output::Output;

/// Show what this machine offers, what it lacks, and what the lack costs
#[derive(Args)]
pub struct Call {
    /// The folder that bundles are to be in: its file system is looked at
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(call: &Call) -> Result<Answer> {
    let capabilities = Capabilities::probe_with(&call.folder);
    let mut output = Output::new();
    if call.json {
        output.json(&capabilities)?;
    } else {
        output.raw(capabilities.to_string().as_bytes())?;
        let missing = capabilities.items.iter().filter(|item| !item.ok).count();
        output.line(match missing {
            0 => "everything that Flyloft can use is here".to_owned(),
            _ => format!("{missing} could be better; nothing here keeps Flyloft from working"),
        })?;
    }
    output.finish()?;
    Ok(Answer::Yes)
}
