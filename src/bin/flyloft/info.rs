//! `info`: a bundle's figures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use flyloft::bundle::{Bundle, BundleInfo};
use flyloft::{AssetKind, Generation};
use serde::Serialize;

use crate::failure::{Answer, Result};
use crate::output::Output;
use crate::{open, size};

/// Show a bundle's sizes, ratios and generation
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// What each kind of asset and each compression takes as well
    #[arg(short, long)]
    long: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    format: String,
    layout: &'static str,
    uuid: String,
    generation: Generation,
    reserved: Generation,
    assets: u64,
    folders: u64,
    contents: u64,
    frames: u64,
    dictionaries: u16,
    content_bytes: u64,
    live_bytes: u64,
    padding_bytes: u64,
    toc_bytes: u64,
    file_bytes: u64,
    dead_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<BTreeMap<AssetKind, Share>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codecs: Option<BTreeMap<&'static str, Frames>>,
}

#[derive(Default, Serialize)]
struct Share {
    assets: u64,
    bytes: u64,
}

#[derive(Default, Serialize)]
struct Frames {
    frames: u64,
    decoded_bytes: u64,
    stored_bytes: u64,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle(&call.file)?;
    let report = report(&bundle, call.long)?;
    let mut output = Output::new();
    if call.json {
        output.json(&report)?;
    } else {
        print(&report, &mut output)?;
    }
    output.finish()?;
    Ok(Answer::Yes)
}

fn report(bundle: &Bundle, long: bool) -> Result<Report<'_>> {
    let info: &BundleInfo = bundle.info();
    let (mut kinds, mut codecs) = (None, None);
    if long {
        let shares: &mut BTreeMap<AssetKind, Share> = kinds.insert(BTreeMap::new());
        for record in bundle.assets() {
            let record = record?;
            let share = shares.entry(record.kind).or_default();
            share.assets += 1;
            share.bytes += record.len;
        }
        let all: &mut BTreeMap<&'static str, Frames> = codecs.insert(BTreeMap::new());
        for frame in bundle.frames() {
            let frame = frame?;
            let frames = all.entry(frame.codec.name()).or_default();
            frames.frames += 1;
            frames.decoded_bytes += u64::from(frame.decoded_len);
            frames.stored_bytes += u64::from(frame.stored_len);
        }
    }
    Ok(Report {
        file: &info.file,
        format: format!("{}.{}", info.format.0, info.format.1),
        layout: info.layout.name(),
        uuid: info.uuid.iter().map(|byte| format!("{byte:02x}")).collect(),
        generation: info.generation,
        reserved: info.reserved,
        assets: info.assets,
        folders: info.folders,
        contents: info.contents,
        frames: info.frames,
        dictionaries: info.dictionaries,
        content_bytes: info.content_bytes,
        live_bytes: info.live_bytes,
        padding_bytes: info.padding_bytes,
        toc_bytes: info.toc_bytes,
        file_bytes: info.file_bytes,
        dead_bytes: info.dead_bytes,
        kinds,
        codecs,
    })
}

fn print(report: &Report<'_>, output: &mut Output) -> Result<()> {
    let mut field = |name: &str, value: String| output.line(format_args!("{name:<12}{value}"));
    field("file", report.file.to_owned())?;
    field("format", format!("{}, layout {}, uuid {}", report.format, report.layout, report.uuid))?;
    let reserved = if report.reserved > report.generation {
        format!(" (numbers to {} are reserved)", report.reserved)
    } else {
        String::new()
    };
    field("generation", format!("{}{reserved}", report.generation))?;
    let folders = size::counted(report.folders, "folder");
    field("assets", format!("{} in {folders}", size::count(report.assets)))?;
    let contents = size::bytes(report.content_bytes);
    field("contents", format!("{} different ones, {contents}", size::count(report.contents)))?;
    let dictionaries = match report.dictionaries {
        0 => String::new(),
        some => format!(", {} dictionar{}", some, if some == 1 { "y" } else { "ies" }),
    };
    let (live, ratio) = (size::bytes(report.live_bytes), size::share(report.live_bytes, report.content_bytes));
    field("frames", format!("{}, {live}, {ratio} of the contents{dictionaries}", size::count(report.frames)))?;
    let each = report.toc_bytes / report.assets.max(1);
    field("table", format!("{}, {each} bytes per asset", size::bytes(report.toc_bytes)))?;
    let dead = match report.dead_bytes {
        0 => String::new(),
        dead => format!(
            ", {} of it dead ({}); `flyloft compact` gives that back",
            size::bytes(dead),
            size::share(dead, report.file_bytes)
        ),
    };
    field("size", format!("{} ({} bytes){dead}", size::bytes(report.file_bytes), size::count(report.file_bytes)))?;
    for (kind, share) in report.kinds.iter().flatten() {
        field(kind.name(), format!("{}, {}", size::counted(share.assets, "asset"), size::bytes(share.bytes)))?;
    }
    for (codec, frames) in report.codecs.iter().flatten() {
        let (decoded, stored) = (size::bytes(frames.decoded_bytes), size::bytes(frames.stored_bytes));
        field(codec, format!("{}, {decoded} as {stored}", size::counted(frames.frames, "frame")))?;
    }
    Ok(())
}
