//! `serve`: a tree or a bundle over HTTP, reloaded as it changes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flyloft::event::Published;
use flyloft::serve::Listener;
use flyloft::{Event, Runtime};

use crate::failure::{Answer, Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::{open, size};

/// How long open requests may take once the program is asked to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Changed assets that a line names.
const NAMED_MAX: usize = 3;

/// Serve a folder or a bundle over HTTP
#[derive(Args)]
pub struct Call {
    /// The folder, or the bundle
    source: PathBuf,
    /// Watch the folder and reload what changes
    #[arg(short, long)]
    watch: bool,
    /// Where to listen; port 0 takes any that is free
    #[arg(short, long, default_value = "127.0.0.1:7070")]
    listen: String,
    /// Memory to use at most, such as 512MiB
    #[arg(short, long, value_parser = size::parse, default_value = "512MiB")]
    budget: u64,
    /// The folder that keeps what is built from a served folder [default: one in your cache folder]
    #[arg(short, long)]
    store: Option<PathBuf>,
}

pub fn run(call: &Call) -> Result<Answer> {
    open::block_on(serve(call))
}

async fn serve(call: &Call) -> Result<Answer> {
    let asked_to_stop = stop_signal()?;
    // Before anything is built: a port that is in use is known at once.
    let listener = Listener::bind(&call.listen).await?;
    let runtime = start(call).await?;
    let mut events = runtime.events();
    let status = runtime.status();
    say(format_args!("serving {} at http://{}/", call.source.display(), listener.address()))?;
    say(match &status.store {
        Some(store) => format!("store {store}"),
        None => "store none: a bundle is served as it is".to_owned(),
    })?;
    for failure in &status.failures {
        report(&Event::BuildFailed(failure.clone()));
    }
    let reporter = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            report(&event);
        }
    });
    let served = listener.serve(runtime.clone(), asked_to_stop).await;
    reporter.abort();
    let stopped = runtime.shutdown(STOP_WITHIN).await;
    served?;
    stopped.committed?;
    if !stopped.in_time {
        let abandoned = size::counted(stopped.abandoned, "request");
        return Err(Failure::no(format_args!("{abandoned} could not be answered within {STOP_WITHIN:?} of stopping")));
    }
    Ok(Answer::Yes)
}

async fn start(call: &Call) -> Result<Runtime> {
    let mut builder = Runtime::builder().budget_bytes(call.budget).watch(call.watch);
    if call.source.is_dir() {
        let bar = std::sync::Arc::new(Bar::new());
        builder = builder.directory(&call.source).progress(std::sync::Arc::clone(&bar) as _);
        if let Some(store) = &call.store {
            builder = builder.store(store);
        }
        let started = builder.start().await;
        bar.clear();
        return Ok(started?);
    }
    if call.store.is_some() {
        return Err(Failure::unusable("--store: a bundle is served as it is; leave it out or serve a folder"));
    }
    Ok(builder.bundle(&call.source).start().await?)
}

/// Resolves at Ctrl-C or a request to terminate. Listened for from here on, so that none is missed meanwhile.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
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
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        // Without a handler the system ends the process itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

fn say(line: impl std::fmt::Display) -> Result<()> {
    let mut output = Output::new();
    output.line(line)?;
    output.finish()
}

/// One line per event. A reader that went away does not stop the server.
fn report(event: &Event) {
    if let Some(line) = line(event) {
        drop(say(line));
    }
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Published(published) => reloaded(published),
        Event::BuildFailed(failure) => {
            let line = failure.line.map_or(String::new(), |line| format!(":{line}"));
            let (path, step, cause) = (&failure.path, &failure.transform, &failure.cause);
            format!("failed: {path}{line}: {step}: {cause}; its last good version is served")
        }
        Event::DecodeFailed(failure) => {
            format!("{}: not decoded as {}: {}", failure.path, failure.type_name, failure.cause)
        }
        Event::Healed { path } => format!("healed: {path} builds again"),
        Event::Warning { what } => format!("warning: {what}"),
        Event::Rescanned { why } => format!("looked at the whole tree again: {why}"),
        Event::ActorRestarted { actor, cause, restarts } => format!("restarted {actor} (restart {restarts}): {cause}"),
        Event::Degraded { part, cause } => format!("degraded: {part} is parked: {cause}"),
        Event::Revived { part } => format!("revived {part}"),
        Event::Failed { cause } => format!("failed: {cause}"),
        Event::Lagged { missed } => format!("{missed} events came too fast to be shown"),
        _ => return None,
    })
}

fn reloaded(published: &Published) -> String {
    let Published { generation, changed, timings, .. } = published;
    let us = timings.total_us();
    let name = |change: &flyloft::event::ChangedAsset| {
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
    let took = size::span(Duration::from_micros(us));
    format!("generation {generation}: {} in {took}", names.join(", "))
}
