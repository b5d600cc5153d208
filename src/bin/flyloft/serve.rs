//! `serve`: a tree or a bundle over HTTP, reloaded as it changes.

mod warming;

use std::path::{Path, PathBuf};

use clap::Args;
use flyloft::config::RuntimeConfig;
use flyloft::serve::Listener;
use flyloft::{Event, Runtime};

use crate::announced::Announced;
use crate::failure::{Answer, Result};
use crate::live::{self, Building, say};
use crate::{mistakes, open, size};

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
    /// Memory to use at most, such as 512MiB [default: what the folder's flyloft.toml says, or 512MiB]
    #[arg(short, long, value_parser = size::parse)]
    budget: Option<u64>,
    /// Record what is asked for, when, and how it is answered, in this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Load ahead, into free memory: historical (what the last runs asked for), predicted, sequential[=PREFIX] or
    /// dependencies=PATH; may be given several times
    #[arg(long, value_name = "WHAT", value_parser = warming::parse)]
    warm: Vec<warming::Warm>,
    #[command(flatten)]
    building: Building,
}

pub fn run(call: &Call) -> Result<Answer> {
    open::block_on(serve(call))
}

async fn serve(call: &Call) -> Result<Answer> {
    let asked_to_stop = live::stop_signal()?;
    // Before anything is built: a port that is in use is known at once.
    let listener = Listener::bind(&call.listen).await?;
    let mut config = live::settings(&call.source).over(RuntimeConfig { watch: call.watch, ..RuntimeConfig::default() });
    config.budget_bytes = call.budget.unwrap_or(config.budget_bytes);
    config.warm = warming::config(&call.warm, &call.source, config.warm);
    let runtime = live::start(&call.source, &call.building, config).await?;
    let recording = call.trace.as_ref().map(|file| runtime.record(file)).transpose()?;
    let mut events = runtime.events();
    let status = runtime.status();
    say(format_args!("serving {} at http://{}/", call.source.display(), listener.address()))?;
    say(match &status.store {
        Some(store) => format!("store {store}"),
        None => "store none: a bundle is served as it is".to_owned(),
    })?;
    let announced = Announced::leave(status.store.as_deref(), listener.address());
    let allow_commands = call.building.allow_commands;
    for failure in &status.failures {
        report(&Event::BuildFailed(failure.clone()), &runtime, &call.source, allow_commands);
    }
    let (source, reported) = (call.source.clone(), runtime.clone());
    let reporter = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            report(&event, &reported, &source, allow_commands);
        }
    });
    // For as long as they are held.
    let warmings = call.warm.iter().map(|warm| runtime.warm(warm.warming())).collect::<flyloft::Result<Vec<_>>>()?;
    let served = listener.serve(runtime.clone(), asked_to_stop).await;
    drop(announced);
    drop(warmings);
    reporter.abort();
    let recorded = match recording {
        Some(recording) => Some(recording.finish().await),
        None => None,
    };
    let stopped = live::stop(&runtime).await;
    served?;
    stopped?;
    if let Some(recorded) = recorded.transpose()? {
        say(live::recorded(&recorded))?;
    }
    Ok(Answer::Yes)
}

/// One line per event. A reader that went away does not stop the server.
fn report(event: &Event, runtime: &Runtime, source: &Path, allow_commands: bool) {
    if let Some(line) = live::line(event, runtime, false) {
        drop(say(line));
    }
    mistakes::shows_of(event, source, allow_commands);
}
