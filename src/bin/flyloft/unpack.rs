//! `unpack`: the tree again.

use std::path::PathBuf;

use clap::Args;
use flyloft::build;
use flyloft::platform::fs::OsFileSystem;

use crate::failure::{Answer, Result};
use crate::output::Output;
use crate::{open, size};

/// Write a bundle's tree into a folder
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// The folder to write into; it is made, or must be empty
    #[arg(short, long)]
    output: PathBuf,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle(&call.file)?;
    let report = build::unpack(&OsFileSystem, &bundle, &call.output)?;
    let mut output = Output::new();
    let (files, bytes) = (size::counted(report.files, "file"), size::bytes(report.bytes));
    let (generation, folder) = (bundle.generation(), call.output.display());
    output.line(format_args!("{folder}: {files}, {bytes}, as generation {generation} has them"))?;
    if report.labelled > 0 {
        let labelled = size::counted(report.labelled, "asset");
        output.line(format_args!("{labelled} made beside files left out; `flyloft cat` writes one"))?;
    }
    output.finish()?;
    Ok(Answer::Yes)
}
