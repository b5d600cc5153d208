//! What `serve` and `watch` share: starting a runtime, saying what happens, being asked to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flyloft::build::config::{FILE_NAME, TreeConfig};
use flyloft::config::{RuntimeConfig, RuntimeSettings};
use flyloft::event::{ChangedAsset, PressureLevel, Published};
use flyloft::runtime::RecordingReport;
use flyloft::{AssetPath, Event, Runtime};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::{open, size};

/// How long open requests may take once the program is asked to stop.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Changed assets that a line names.
const NAMED_MAX: usize = 3;

/// How a folder is built.
#[derive(Args)]
pub struct Building {
    /// The folder that keeps what is built from a folder [default: one in your cache folder]
    #[arg(short, long)]
    store: Option<PathBuf>,
    /// A folder that keeps what transforms made, for other folders and machines too [default: one in the store]
    #[arg(long, value_name = "DIR")]
    action_cache: Option<PathBuf>,
    /// Let the folder's flyloft.toml run programs on this machine, as you: only where you trust it
    #[arg(long)]
    pub allow_commands: bool,
}

/// Starts a runtime over a folder or a bundle, with progress on a terminal.
pub async fn start(source: &Path, building: &Building, config: RuntimeConfig) -> Result<Runtime> {
    let Building { store, action_cache, allow_commands } = building;
    if source.is_dir() {
        let (store, action_cache, allow_commands) = (store.clone(), action_cache.clone(), *allow_commands);
        let config = RuntimeConfig { store, action_cache, allow_commands, ..config };
        let bar = Arc::new(Bar::new());
        let started = Runtime::builder().config(config).directory(source).progress(Arc::clone(&bar) as _).start().await;
        bar.clear();
        return Ok(started?);
    }
    let given = [
        ("--store", store.is_some()),
        ("--action-cache", action_cache.is_some()),
        ("--allow-commands", *allow_commands),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        let why = "a bundle is served as it is; leave it out or serve a folder";
        return Err(Failure::unusable(format_args!("{option}: {why}")));
    }
    Ok(Runtime::builder().config(config).bundle(source).start().await?)
}

/// What `[runtime]` of the folder's flyloft.toml sets. What is wrong with the file the build says, with its place.
pub fn settings(source: &Path) -> RuntimeSettings {
    let Ok(text) = std::fs::read_to_string(source.join(FILE_NAME)) else { return RuntimeSettings::default() };
    TreeConfig::parse(&text, &open::registry(true))
        .map_or_else(|_| RuntimeSettings::default(), |config| config.runtime().clone())
}

/// Stops the runtime in order: every open request is answered, the newest generation is durable.
pub async fn stop(runtime: &Runtime) -> Result<()> {
    let stopped = runtime.shutdown(STOP_WITHIN).await;
    stopped.committed?;
    if !stopped.in_time {
        let abandoned = size::counted(stopped.abandoned, "request");
        return Err(Failure::no(format_args!("{abandoned} could not be answered within {STOP_WITHIN:?} of stopping")));
    }
    Ok(())
}

/// Resolves at Ctrl-C or a request to terminate. Listened for from here on, so that none is missed meanwhile.
#[cfg(unix)]
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).map_err(|error| Failure::unusable(format_args!("signals: cannot listen: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        // Without a handler the system ends the process itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

/// What a recording came to, in one line.
pub fn recorded(report: &RecordingReport) -> String {
    let RecordingReport { file, bytes, accesses, missed } = report;
    let missed = match missed {
        0 => String::new(),
        missed => format!(", {} came too fast", size::count(*missed)),
    };
    format!("trace {}: {} accesses in {}{missed}", file.display(), size::count(*accesses), size::bytes(*bytes))
}

/// Says one line on standard output, at once.
pub fn say(line: impl std::fmt::Display) -> Result<()> {
    let mut output = Output::new();
    output.line(line)?;
    output.finish()
}

/// What an event of `runtime` is in one line; a publication with or without where its time went.
pub fn line(event: &Event, runtime: &Runtime, timings: bool) -> Option<String> {
    Some(match event {
        Event::Published(published) if timings => reloaded_in_steps(published),
        Event::Published(published) => reloaded(published),
        Event::BuildFailed(failure) => {
            let served = |path: AssetPath| matches!(runtime.snapshot().bundle().find(&path), Ok(Some(_)));
            let stands = match AssetPath::new(&failure.path).map(served) {
                Ok(true) => "; its last good version is served",
                Ok(false) => "; it never built",
                // The tree as a whole.
                Err(_) => "; what was good is served",
            };
            format!("failed: {failure}{stands}")
        }
        Event::DecodeFailed(failure) => {
            format!("{}: not decoded as {}: {}", failure.path, failure.type_name, failure.cause)
        }
        Event::Healed { path } => format!("healed: {path} builds again"),
        Event::Warning { what } => format!("warning: {what}"),
        Event::Warming { assets, bytes } => {
            format!("warming {} of {}", size::counted(*assets, "asset"), size::bytes(*bytes))
        }
        Event::Warmed { end, assets, bytes } => {
            format!("warmed {} of {}: {end}", size::counted(*assets, "asset"), size::bytes(*bytes))
        }
        Event::Rescanned { why } => format!("looked at the whole tree again: {why}"),
        Event::ActorRestarted { actor, cause, restarts } => format!("restarted {actor} (restart {restarts}): {cause}"),
        Event::Degraded { part, cause } => format!("degraded: {part} is parked: {cause}"),
        Event::Revived { part } => format!("revived {part}"),
        Event::Pressure { to: to @ PressureLevel::Critical, used_bytes, total_bytes, cause, .. } => {
            format!(
                "memory pressure is {to}: {} of {}, by {cause}",
                size::bytes(*used_bytes),
                size::bytes(*total_bytes)
            )
        }
        Event::Budget { from_bytes, to_bytes, cause } => {
            format!("the budget is {} instead of {}: {cause}", size::bytes(*to_bytes), size::bytes(*from_bytes))
        }
        Event::Failed { cause } => format!("failed: {cause}"),
        Event::Lagged { missed } => format!("{missed} events came too fast to be shown"),
        _ => return None,
    })
}

fn reloaded(published: &Published) -> String {
    format!("generation {}: {} in {}", published.generation, names(&published.changed), whole(published))
}

/// With each step in milliseconds, so that lines compare at a glance.
fn reloaded_in_steps(published: &Published) -> String {
    let Published { generation, changed, timings, .. } = published;
    let ms = |us: u64| us as f64 / 1e3;
    format!(
        "generation {generation}: {} changed in {} (ms: settle {:.1}, build {:.1}, stage {:.1}, publish {:.1}): {}",
        size::count(changed.len() as u64),
        whole(published),
        ms(timings.settle_us),
        ms(timings.build_us),
        ms(timings.stage_us),
        ms(timings.publish_us),
        names(changed)
    )
}

fn whole(published: &Published) -> String {
    let timings = &published.timings;
    let us = timings.total_us();
    size::span(Duration::from_micros(us))
}

fn names(changed: &[ChangedAsset]) -> String {
    let name = |change: &ChangedAsset| {
        let sign = match (&change.old, &change.new) {
            (None, _) => "+",
            (_, None) => "-",
            _ => "",
        };
        format!("{sign}{}", change.path)
    };
    let mut names: Vec<String> = changed.iter().take(NAMED_MAX).map(name).collect();
    if changed.len() > NAMED_MAX {
        names.push(format!("{} more", size::count((changed.len() - NAMED_MAX) as u64)));
    }
    names.join(", ")
}
