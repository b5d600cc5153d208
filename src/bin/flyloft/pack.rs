//! `pack`: from a tree to a bundle.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use flyloft::AssetId;
use flyloft::build::{self, AccessOrder, ActionCacheOptions, BuildOptions, PackReport};
use flyloft::config::Layout;
use flyloft::event::BuildFailure;
use flyloft::platform::clock::{Clock, SystemClock};
use flyloft::platform::fs::OsFileSystem;
use flyloft::telemetry::accesses::TraceEnd;
use serde::Serialize;

use crate::failure::{self, Answer, Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::{mistakes, open, size};

/// Warnings that are shown one by one.
const WARNINGS_SHOWN: usize = 10;

/// Build a bundle from a folder, or bring an existing one up to date
#[derive(Args)]
pub struct Call {
    /// The folder
    dir: PathBuf,
    /// The bundle
    #[arg(short, long)]
    output: PathBuf,
    /// How a new bundle is laid out: quick to reach one asset, or smallest to ship
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// Lay a new bundle out by what was asked for together in this trace; may be given several times
    #[arg(long, value_name = "TRACE")]
    order_by: Vec<PathBuf>,
    /// A folder that keeps what transforms made, for other packings and machines too
    #[arg(long, value_name = "DIR")]
    action_cache: Option<PathBuf>,
    /// Let the folder's flyloft.toml run programs on this machine, as you: only where you trust it
    #[arg(long)]
    allow_commands: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    Access,
    Dense,
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    layout: &'static str,
    generation: flyloft::Generation,
    unchanged: bool,
    assets: u64,
    source_bytes: u64,
    file_bytes: u64,
    appended_bytes: u64,
    /// Put into the arenas of the build, and the most that these held.
    arena_bytes: u64,
    arena_peak_bytes: u64,
    seconds: f64,
    warnings: &'a [String],
}

pub fn run(call: &Call) -> Result<Answer> {
    let clock = SystemClock;
    let began = clock.now();
    let layout = layout(call);
    let actions = call.action_cache.as_ref().map(ActionCacheOptions::new);
    let registry = Arc::new(open::registry(call.allow_commands));
    let order = order(call)?;
    let options = BuildOptions { layout, actions, registry, order, ..BuildOptions::default() };
    let bar = Bar::new();
    let packed = build::pack(Arc::new(OsFileSystem), Arc::new(clock), &call.dir, &call.output, options, &bar);
    bar.clear();
    let report = packed.map_err(|error| mistakes::failure(error, &call.dir, call.allow_commands))?;
    if let [first, rest @ ..] = report.failures.as_slice() {
        return Err(refused(first, rest.len()));
    }
    let took = elapsed(&clock, began);
    let mut output = Output::new();
    if call.json {
        output.json(&Report {
            file: call.output.display().to_string(),
            layout: layout.name(),
            generation: report.generation,
            unchanged: report.unchanged,
            assets: report.assets,
            source_bytes: report.source_bytes,
            file_bytes: report.file_bytes,
            appended_bytes: report.appended_bytes,
            arena_bytes: report.arenas.used_bytes,
            arena_peak_bytes: report.arenas.peak_bytes,
            seconds: took.as_secs_f64(),
            warnings: &report.warnings,
        })?;
    } else {
        warn(&report.warnings);
        output.line(summary(call, &report, took))?;
    }
    output.finish()?;
    Ok(Answer::Yes)
}

/// Where assets are to lie by the traces that were given.
fn order(call: &Call) -> Result<Option<Arc<HashMap<AssetId, u32>>>> {
    if call.order_by.is_empty() {
        return Ok(None);
    }
    if call.output.exists() {
        let why = "what a bundle holds stays where it lies; remove it or name another to lay it out anew";
        return Err(Failure::unusable(format_args!("{}: --order-by: {why}", call.output.display())));
    }
    let mut order = AccessOrder::default();
    for trace in &call.order_by {
        let mut reader = open::trace(trace)?;
        order.learn(&mut reader)?;
        if let Some(end @ TraceEnd::Cut { .. }) = reader.end() {
            failure::tell(&format!("warning: {}: {end}", trace.display()));
        }
    }
    if order.assets() == 0 {
        return Err(Failure::unusable(format_args!("--order-by: nothing was asked for in these traces")));
    }
    Ok(Some(Arc::new(order.places())))
}

/// The layout that was asked for; else the one that the bundle has; else the default.
fn layout(call: &Call) -> Layout {
    match call.layout {
        Some(LayoutName::Access) => Layout::Access,
        Some(LayoutName::Dense) => Layout::Dense,
        None => match open::bundle(&call.output) {
            Ok(bundle) => bundle.info().layout,
            // What is wrong with it is for the packer to say.
            Err(_) => Layout::default(),
        },
    }
}

fn elapsed(clock: &SystemClock, began: Instant) -> Duration {
    clock.now().saturating_duration_since(began)
}

fn refused(first: &BuildFailure, others: usize) -> Failure {
    let others = match others {
        0 => String::new(),
        _ => format!(" (and {others} more)"),
    };
    Failure::no(format_args!("{first}{others}; nothing was written"))
}

fn warn(warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        failure::tell(&format!("warning: {warning}"));
    }
    if warnings.len() > WARNINGS_SHOWN {
        let more = warnings.len() - WARNINGS_SHOWN;
        failure::tell(&format!("warning: {more} more such; `--json` lists them all"));
    }
}

fn summary(call: &Call, report: &PackReport, took: Duration) -> String {
    let (file, assets) = (call.output.display(), size::counted(report.assets, "asset"));
    let (source, whole) = (size::bytes(report.source_bytes), size::bytes(report.file_bytes));
    let (generation, took) = (report.generation, size::span(took));
    if report.unchanged {
        return format!("{file}: unchanged: {assets}, generation {generation}, {whole}, {took}");
    }
    let appended = if report.appended_bytes < report.file_bytes {
        format!(", {} appended", size::bytes(report.appended_bytes))
    } else {
        String::new()
    };
    // Of a tree of a few bytes a ratio says nothing.
    let share = match report.file_bytes < report.source_bytes {
        true => format!(" ({})", size::share(report.file_bytes, report.source_bytes)),
        false => String::new(),
    };
    format!("{file}: generation {generation}: {assets}, {source} as {whole}{share}{appended}, {took}")
}
