//! `verify`: every hash.

use std::path::PathBuf;

use clap::Args;
use flyloft::bundle::Finding;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Answer, Result};
use crate::output::Output;
use crate::{open, size};

/// Check every hash in a bundle and name what is damaged; status 1 when something is
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    sound: bool,
    assets: u64,
    contents: u64,
    content_bytes: u64,
    frames: u64,
    pages: u64,
    findings: Vec<Value>,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle(&call.file)?;
    let mut output = Output::new();
    let mut findings = Vec::new();
    let mut written = Ok(());
    let verified = bundle.verify(&mut |finding| {
        if call.json {
            findings.push(describe(&finding));
        } else if written.is_ok() {
            written = output.line(&finding);
        }
    })?;
    written?;
    let sound = verified.findings == 0;
    if call.json {
        output.json(&Report {
            file: bundle.info().file.clone(),
            sound,
            assets: verified.assets,
            contents: verified.contents,
            content_bytes: verified.content_bytes,
            frames: verified.frames,
            pages: verified.pages,
            findings,
        })?;
    } else {
        let file = &bundle.info().file;
        let assets = size::counted(verified.assets, "asset");
        let frames = size::counted(verified.frames, "frame");
        let bytes = size::bytes(verified.content_bytes);
        output.line(match verified.findings {
            0 => format!("{file}: sound: {assets}, {bytes}, {frames} and every page match their hashes"),
            findings => format!("{file}: damaged: {} above; pack it again", size::counted(findings, "finding")),
        })?;
    }
    output.finish()?;
    Ok(if sound { Answer::Yes } else { Answer::No })
}

fn describe(finding: &Finding) -> Value {
    let line = finding.to_string();
    match finding {
        Finding::Frame { number, offset, .. } => json!({ "frame": number, "offset": offset, "line": line }),
        Finding::Page { offset, table, .. } => json!({ "page": table, "offset": offset, "line": line }),
        Finding::Asset { path, content, .. } => json!({ "asset": path, "hash": content, "line": line }),
        Finding::Superblock { offset, .. } => json!({ "superblock": offset, "line": line }),
        _ => json!({ "line": line }),
    }
}
