//! `watch`: a tree rebuilt as it changes, a line for each generation, and a command run after each.

mod command;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flyloft::config::{RuntimeConfig, SettleConfig};
use flyloft::serve::Listener;
use flyloft::{Event, Generation, Runtime};
use serde::Serialize;
use tokio::sync::watch;

use self::command::{Ended, Runner};
use crate::announced::Announced;
use crate::failure::{Answer, Failure, Result};
use crate::live::{self, Building, say};
use crate::output::Output;
use crate::{mistakes, open, size};

/// Rebuild a folder as it changes and say each generation in a line; run a command after each
#[derive(Args)]
#[command(after_long_help = ENVIRONMENT)]
pub struct Call {
    /// The folder
    folder: PathBuf,
    /// Run this in a shell for every generation, and once at the start; changes during a run lead to one more after it
    #[arg(short, long, value_name = "CMD")]
    exec: Option<String>,
    /// Do not run the command before something changes
    #[arg(long, requires = "exec")]
    postpone: bool,
    /// One JSON document a line: every event, and every end of the command
    #[arg(long)]
    json: bool,
    /// How quiet it must be before a change set is complete, such as 5ms, while changes keep coming
    #[arg(long, value_parser = size::parse_span, value_name = "TIME")]
    settle: Option<Duration>,
    /// Where the page and `flyloft explain` find it; port 0 takes any that is free
    #[arg(short, long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Memory to use at most, such as 512MiB
    #[arg(short, long, value_parser = size::parse, default_value = "512MiB")]
    budget: u64,
    #[command(flatten)]
    building: Building,
}

const ENVIRONMENT: &str = "\
The command runs in `sh -c` (`cmd /C` on Windows), never twice at once, with nothing on its standard input, and with
  FLYLOFT_GENERATION     the generation that is current
  FLYLOFT_CHANGED        what changed since the run before, one path a line, at most 30,000 bytes
  FLYLOFT_CHANGED_TOTAL  how many that were; empty, like the list, when anything may have changed: at the start
  FLYLOFT_ROOT           the folder
  FLYLOFT_STORE          the store; its tree.loft is the bundle
With --json what it writes goes to standard error. When the program is stopped, the command is, too.";

/// What is said first.
#[derive(Serialize)]
#[serde(tag = "type", rename = "watching", rename_all = "snake_case")]
struct Watching {
    folder: String,
    store: Option<String>,
    url: String,
    generation: Generation,
    assets: u64,
}

pub fn run(call: &Call) -> Result<Answer> {
    if !call.folder.is_dir() {
        let folder = call.folder.display();
        return Err(Failure::unusable(format_args!("{folder}: it is not a folder; only a folder is watched")));
    }
    open::block_on(watch(call))
}

async fn watch(call: &Call) -> Result<Answer> {
    let asked_to_stop = live::stop_signal()?;
    let listener = Listener::bind(&call.listen).await?;
    let runtime = live::start(&call.folder, &call.building, config(call)).await?;
    let address = listener.address();
    let announced = Announced::leave(runtime.status().store.as_deref(), address);
    let (stop, mut stopping) = watch::channel(false);
    let until = async move {
        // An error means that nobody can ask for it any more.
        drop(stopping.wait_for(|stopping| *stopping).await);
    };
    let served = tokio::spawn(listener.serve(runtime.clone(), until));
    let followed = follow(call, &runtime, address, asked_to_stop).await;
    drop(announced);
    stop.send_replace(true);
    // It ends by itself, within a bounded time.
    drop(served.await);
    let stopped = live::stop(&runtime).await;
    followed?;
    stopped?;
    Ok(Answer::Yes)
}

fn config(call: &Call) -> RuntimeConfig {
    let mut settle = SettleConfig::default();
    if let Some(quiet) = call.settle {
        settle.quiet = quiet;
        settle.open_max = settle.open_max.max(quiet);
    }
    RuntimeConfig { budget_bytes: call.budget, watch: true, settle, ..RuntimeConfig::default() }
}

/// Says what happens and runs the command, until the program is asked to stop or nobody reads what it says.
async fn follow(
    call: &Call,
    runtime: &Runtime,
    address: SocketAddr,
    asked_to_stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut events = runtime.events();
    let status = runtime.status();
    let watching = Watching {
        folder: call.folder.display().to_string(),
        store: status.store.clone(),
        url: format!("http://{address}/"),
        generation: status.generation,
        assets: status.assets,
    };
    begin(call, &watching)?;
    for failure in status.failures {
        report(call, runtime, &Event::BuildFailed(failure))?;
    }
    let mut runner = call.exec.as_deref().map(|command| Runner::new(command, runtime, call.json));
    if let Some(runner) = runner.as_mut().filter(|_| !call.postpone) {
        runner.everything(status.generation);
        runner.start()?;
    }
    let mut asked_to_stop = std::pin::pin!(asked_to_stop);
    let followed = loop {
        tokio::select! {
            biased;
            () = &mut asked_to_stop => break Ok(()),
            ended = ended(&mut runner) => {
                if let Err(failure) = tell(call, &ended) {
                    break Err(failure);
                }
            }
            event = events.recv() => {
                let Some(event) = event else { break Ok(()) };
                if let Err(failure) = report(call, runtime, &event) {
                    break Err(failure);
                }
                match (&event, &mut runner) {
                    (Event::Published(published), Some(runner)) => runner.changed(published),
                    (Event::Lagged { .. }, Some(runner)) => runner.everything(runtime.status().generation),
                    _ => {}
                }
            }
        }
        if let Some(runner) = &mut runner
            && let Err(failure) = runner.start()
        {
            break Err(failure);
        }
    };
    if let Some(runner) = runner
        && let Some(ended) = runner.stop().await
        && followed.is_ok()
    {
        tell(call, &ended)?;
    }
    followed
}

async fn ended(runner: &mut Option<Runner>) -> Ended {
    match runner {
        Some(runner) => runner.ended().await,
        None => std::future::pending().await,
    }
}

fn begin(call: &Call, watching: &Watching) -> Result<()> {
    if call.json {
        return document(watching);
    }
    let Watching { folder, store, url, generation, assets } = watching;
    say(format_args!("watching {folder}: generation {generation}, {}", size::counted(*assets, "asset")))?;
    say(format_args!("store {}; page {url}", store.as_deref().unwrap_or("none")))
}

fn report(call: &Call, runtime: &Runtime, event: &Event) -> Result<()> {
    if matches!(event, Event::Committed { .. }) {
        // It was told when it was published.
        return Ok(());
    }
    if call.json {
        return document(event);
    }
    live::line(event, runtime, true).map_or(Ok(()), say)?;
    mistakes::shows_of(event, &call.folder, call.building.allow_commands);
    Ok(())
}

fn tell(call: &Call, ended: &Ended) -> Result<()> {
    if call.json { document(ended) } else { say(ended) }
}

/// One JSON document on a line of its own.
fn document(value: &impl Serialize) -> Result<()> {
    let mut output = Output::new();
    output.json_line(value)?;
    output.finish()
}
