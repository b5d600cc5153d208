//! The program `flyloft`: one file per command, and what they share.
//!
//! Exit status: 0 done; 1 the answer is no (corrupt, missing, differs); 2 the call or the input is unusable. An error is
//! one line on standard error: what, where, what to do. A reader that goes away early is not an error.

mod announced;
mod cat;
mod compact;
mod deps;
mod diff;
mod doctor;
mod explain;
mod failure;
mod info;
mod live;
mod load;
mod ls;
mod mistakes;
mod open;
mod output;
mod pack;
mod progress;
mod serve;
mod simulate;
mod size;
mod unpack;
mod verify;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use failure::{Answer, Failure};

/// Packs a tree of files into a bundle, serves it, streams it, and reloads what changes.
#[derive(Parser)]
#[command(name = "flyloft", version, max_term_width = 100)]
struct Call {
    #[command(subcommand)]
    command: Command,
    /// Say what happens inside, on standard error; twice for more. RUST_LOG chooses precisely.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Pack(pack::Call),
    Ls(ls::Call),
    Info(info::Call),
    Cat(cat::Call),
    Unpack(unpack::Call),
    Verify(verify::Call),
    Deps(deps::Call),
    Diff(diff::Call),
    Explain(explain::Call),
    Compact(compact::Call),
    Serve(serve::Call),
    Watch(watch::Call),
    Load(load::Call),
    Simulate(simulate::Call),
    Doctor(doctor::Call),
}

fn main() -> ExitCode {
    let call = match Call::try_parse() {
        Ok(call) => call,
        Err(error) => return misunderstood(&error),
    };
    trace(call.verbose);
    let ended = match call.command {
        Command::Pack(call) => pack::run(&call),
        Command::Ls(call) => ls::run(&call),
        Command::Info(call) => info::run(&call),
        Command::Cat(call) => cat::run(&call),
        Command::Unpack(call) => unpack::run(&call),
        Command::Verify(call) => verify::run(&call),
        Command::Deps(call) => deps::run(&call),
        Command::Diff(call) => diff::run(&call),
        Command::Explain(call) => explain::run(&call),
        Command::Compact(call) => compact::run(&call),
        Command::Serve(call) => serve::run(&call),
        Command::Watch(call) => watch::run(&call),
        Command::Load(call) => load::run(&call),
        Command::Simulate(call) => simulate::run(&call),
        Command::Doctor(call) => doctor::run(&call),
    };
    match ended {
        Ok(Answer::Yes) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(Failure::Shown) => ExitCode::from(2),
        Err(Failure::Told { no, line }) => {
            failure::tell(&line);
            ExitCode::from(if no { 1 } else { 2 })
        }
    }
}

/// Help and version as they are; a call that cannot be understood in one line.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away has read enough.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        failure::tell("no command is given; `flyloft --help` lists them");
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let said = text.split("\n\nUsage").next().unwrap_or(&text).split("\n\nFor more").next().unwrap_or(&text);
    let line = said.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    failure::tell(&format!("{line}; see `flyloft --help`"));
    ExitCode::from(2)
}

fn trace(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "flyloft=info,warn",
        2 => "flyloft=debug,info",
        _ => "flyloft=trace,debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // From the second on, each span says how long it took when it ends: requests, reloads, restarts.
    let spans = if verbose > 1 { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(spans).with_ansi(terminal);
    lines.with_writer(std::io::stderr).init();
}
