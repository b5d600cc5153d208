//! `ls`: what is inside.

use std::path::PathBuf;

use clap::Args;
use flyloft::bundle::{AssetRecord, Bundle};
use flyloft::{AssetKind, ContentHash, Generation};
use serde::Serialize;

use crate::failure::{Answer, Failure, Result};
use crate::output::Output;
use crate::{open, size};

/// List the assets in a bundle
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// Only the assets below this folder, or this asset
    path: Option<String>,
    /// Sizes, what they take in the file, kinds and hashes as well
    #[arg(short, long)]
    long: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Head<'a> {
    file: &'a str,
    generation: Generation,
}

#[derive(Serialize)]
struct Row {
    path: String,
    /// As text: a number of 64 bits does not survive every JSON reader.
    id: String,
    kind: AssetKind,
    bytes: u64,
    /// Its share of the frames it lies in.
    stored_bytes: u64,
    hash: ContentHash,
    executable: bool,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle(&call.file)?;
    let below = call.path.as_deref().unwrap_or("").trim_matches('/');
    let wanted = |record: &flyloft::Result<AssetRecord>| {
        record.as_ref().map_or(true, |record| {
            let rest = record.path.as_str().strip_prefix(below);
            below.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let mut records = bundle.assets().filter(wanted).peekable();
    if records.peek().is_none() && !below.is_empty() {
        return Err(Failure::no(format_args!("{}: nothing in it is named '{below}'", call.file.display())));
    }
    let mut output = Output::new();
    if call.json {
        let info = bundle.info();
        let head = Head { file: &info.file, generation: info.generation };
        output.json_rows(&head, "assets", records.map(|record| row(&bundle, &record?)))?;
    } else {
        for record in records {
            let record = record?;
            if call.long {
                output.line(long(&row(&bundle, &record)?))?;
            } else {
                output.line(&record.path)?;
            }
        }
    }
    output.finish()?;
    Ok(Answer::Yes)
}

fn row(bundle: &Bundle, record: &AssetRecord) -> flyloft::Result<Row> {
    let placement = bundle.placement(&record.content, 0..u64::MAX)?;
    let stored = |piece: &flyloft::bundle::Piece| {
        let (stored, decoded) = (u64::from(piece.frame.stored_len), u64::from(piece.frame.decoded_len.max(1)));
        (u64::from(piece.len) * stored).div_ceil(decoded)
    };
    Ok(Row {
        path: record.path.to_string(),
        id: record.id.to_string(),
        kind: record.kind,
        bytes: record.len,
        stored_bytes: placement.map_or(0, |placement| placement.pieces.iter().map(stored).sum()),
        hash: record.content,
        executable: record.executable,
    })
}

fn long(row: &Row) -> String {
    let executable = if row.executable { 'x' } else { '-' };
    let (bytes, stored) = (size::count(row.bytes), size::count(row.stored_bytes));
    format!("{bytes:>15} {stored:>15} {:<8} {executable} {}  {}", row.kind.name(), row.hash.short(), row.path)
}
