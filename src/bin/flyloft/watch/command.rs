//! The command of `watch --exec`: one run at a time, and what changed meanwhile in one more after it.

use std::collections::BTreeSet;
use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use flyloft::event::Published;
use flyloft::platform::clock::{Clock, SystemClock};
use flyloft::platform::process::{End, end_group};
use flyloft::{AssetPath, Generation, Runtime};
use serde::Serialize;
use tokio::process::{Child, Command};

use crate::failure::{Failure, Result};
use crate::live::STOP_WITHIN;
use crate::size;

/// Bytes of the list of changes that a run is given. An environment variable holds 32,767 characters on Windows, and
/// 131,072 bytes on Linux.
const LIST_BYTES_MAX: usize = 30_000;
/// Changed paths that are remembered for the next run; past it, anything may have changed.
const PATHS_MAX: usize = 1 << 16;

/// Runs the command.
pub struct Runner {
    command: String,
    root: String,
    store: String,
    /// Whether standard output is for documents alone.
    apart: bool,
    running: Option<Running>,
    next: Option<Next>,
}

struct Running {
    child: Child,
    generation: Generation,
    since: Instant,
}

/// What the next run is for.
struct Next {
    generation: Generation,
    /// `None` when anything may have changed.
    changed: Option<BTreeSet<AssetPath>>,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "command_ended")]
pub struct Ended {
    /// The generation that it was started for.
    generation: Generation,
    /// Its exit status, where it ended by itself.
    status: Option<i32>,
    /// The signal that ended it.
    signal: Option<i32>,
    took_us: u64,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { generation, status, signal, took_us } = self;
        match (status, signal) {
            (Some(0), _) => write!(f, "command done")?,
            (Some(status), _) => write!(f, "command failed: status {status}")?,
            (None, Some(signal)) => write!(f, "command ended by signal {signal}")?,
            (None, None) => write!(f, "command ended")?,
        }
        write!(f, ", generation {generation}, {}", size::span(Duration::from_micros(*took_us)))
    }
}

impl Runner {
    /// A runner that has not run it yet. What it writes goes to standard error when `apart`.
    pub fn new(command: &str, runtime: &Runtime, apart: bool) -> Self {
        let status = runtime.status();
        let (root, store) = (status.source, status.store.unwrap_or_default());
        // The command may go to another folder: the paths hold wherever it is.
        let absolute = |path: String| std::path::absolute(&path).map_or(path, |path| path.display().to_string());
        let (root, store) = (absolute(root), absolute(store));
        Self { command: command.to_owned(), root, store, apart, running: None, next: None }
    }

    /// Wants a run for a generation.
    pub fn changed(&mut self, published: &Published) {
        let next =
            self.next.get_or_insert_with(|| Next { generation: published.generation, changed: Some(BTreeSet::new()) });
        next.generation = published.generation;
        if let Some(changed) = &mut next.changed {
            changed.extend(published.changed.iter().map(|change| change.path.clone()));
            if changed.len() > PATHS_MAX {
                next.changed = None;
            }
        }
    }

    /// Wants a run for whatever changed.
    pub fn everything(&mut self, generation: Generation) {
        self.next = Some(Next { generation, changed: None });
    }

    /// Starts the run that is wanted, unless one goes on.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let Some(next) = self.next.take() else { return Ok(()) };
        let (list, total) = match &next.changed {
            Some(changed) => (list(changed), changed.len().to_string()),
            None => Default::default(),
        };
        let mut command = shell(&self.command);
        command
            .env("FLYLOFT_GENERATION", next.generation.to_string())
            .env("FLYLOFT_CHANGED", list)
            .env("FLYLOFT_CHANGED_TOTAL", total)
            .env("FLYLOFT_ROOT", &self.root)
            .env("FLYLOFT_STORE", &self.store)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.apart {
            command.stdout(std::io::stderr());
        }
        // A group of its own: what is to end with it is told apart from this program.
        #[cfg(unix)]
        command.process_group(0);
        let refused = |error| Failure::unusable(format_args!("--exec: the shell cannot be started: {error}"));
        let child = command.spawn().map_err(refused)?;
        self.running = Some(Running { child, generation: next.generation, since: SystemClock.now() });
        Ok(())
    }

    /// Resolves when the run that goes on has ended; never while there is none.
    pub async fn ended(&mut self) -> Ended {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let status = running.child.wait().await;
        let ended = running.ended(status.ok());
        self.running = None;
        ended
    }

    /// Ends the run that goes on, if one does: it is asked to, and made to when it takes too long.
    pub async fn stop(mut self) -> Option<Ended> {
        let running = self.running.as_mut()?;
        let Some(leader) = running.child.id() else { return Some(self.ended().await) };
        if end_group(leader, End::Asked).is_err() {
            // There are no groups here. One that ended meanwhile is refused, and that is as well.
            drop(running.child.start_kill());
        }
        if let Ok(status) = tokio::time::timeout(STOP_WITHIN, running.child.wait()).await {
            return Some(running.ended(status.ok()));
        }
        drop(end_group(leader, End::Made));
        drop(running.child.start_kill());
        Some(self.ended().await)
    }
}

impl Running {
    fn ended(&self, status: Option<ExitStatus>) -> Ended {
        #[cfg(unix)]
        let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
        #[cfg(not(unix))]
        let signal = None;
        let took = SystemClock.now().saturating_duration_since(self.since);
        Ended {
            generation: self.generation,
            status: status.and_then(|status| status.code()),
            signal,
            took_us: took.as_micros() as u64,
        }
    }
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command);
    shell
}

/// As it is written: this shell has its own rules for quotes, and they are the user's.
#[cfg(windows)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").raw_arg(command);
    shell
}

/// One path a line, as many as fit.
fn list(changed: &BTreeSet<AssetPath>) -> String {
    let mut list = String::new();
    for path in changed {
        if list.len() + 1 + path.as_str().len() > LIST_BYTES_MAX {
            break;
        }
        if !list.is_empty() {
            list.push('\n');
        }
        list.push_str(path.as_str());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_changes_is_cut_at_a_whole_path() {
        let path = |number: usize| AssetPath::new(&format!("{}/{number:05}", "x".repeat(94))).unwrap();
        let few: BTreeSet<AssetPath> = (0..2).map(path).collect();
        assert_eq!(list(&few).lines().collect::<Vec<_>>(), [path(0).as_str(), path(1).as_str()]);
        let many = list(&(0..1000).map(path).collect());
        assert!(many.len() <= LIST_BYTES_MAX && many.len() > LIST_BYTES_MAX - 200, "{}", many.len());
        assert!(many.lines().all(|line| line.len() == 100));
        assert_eq!(list(&BTreeSet::new()), "");
    }

    #[test]
    fn an_end_is_told_as_what_it_was() {
        let check = |status, signal, expected: &str| {
            let ended = Ended { generation: Generation(7), status, signal, took_us: 1500 };
            assert_eq!(ended.to_string(), expected);
        };
        check(Some(0), None, "command done, generation 7, 1.5 ms");
        check(Some(2), None, "command failed: status 2, generation 7, 1.5 ms");
        check(None, Some(15), "command ended by signal 15, generation 7, 1.5 ms");
    }
}
