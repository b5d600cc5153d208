//! `compact`: gives dead bytes back.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flyloft::build;
use flyloft::platform::fs::OsFileSystem;

use crate::failure::{Answer, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::{open, size};

/// Drop what no generation uses any more; readers keep the file they opened
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
}

pub fn run(call: &Call) -> Result<Answer> {
    // Looked at first, for what it is: a folder, something else, damaged.
    drop(open::bundle(&call.file)?);
    let bar = Bar::new();
    let report = build::compact(Arc::new(OsFileSystem), &call.file, &bar)?;
    bar.clear();
    let mut output = Output::new();
    let (before, after) = (size::bytes(report.before_bytes), size::bytes(report.after_bytes));
    let (file, generation) = (call.file.display(), report.generation);
    output.line(format_args!("{file}: generation {generation}: {before} before, {after} now"))?;
    output.finish()?;
    Ok(Answer::Yes)
}
