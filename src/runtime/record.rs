//! Writing down what is asked for, on a thread of its own.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use tokio::sync::oneshot;

use super::Runtime;
use crate::actors::Shared;
use crate::bundle::{Bundle, Codec};
use crate::error::{Error, Result};
use crate::ids::AssetKind;
use crate::platform::affinity::CpuSet;
use crate::telemetry::accesses::{Access, Coding, TraceEnd, TraceWriter, TracedAsset};
use crate::telemetry::{Moment, Tap};

/// How long accesses wait at most until they are read; and at least, so that reading costs little.
const WAIT: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));
/// At this many accesses at a time it is read as often as that allows.
const MANY: u32 = 1024;
/// How long what was read may be in memory alone.
const FLUSH: Duration = Duration::from_secs(1);

/// A recording that runs: what is asked for is written to its file. It ends when this is dropped, or with the runtime.
#[must_use = "dropping it ends the recording"]
pub struct Recording {
    /// Its end is the signal.
    stop: Sender<()>,
    told: oneshot::Receiver<Result<RecordingReport>>,
}

/// What a recording wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordingReport {
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Accesses in it.
    pub accesses: u64,
    /// Accesses that came too fast to be written.
    pub missed: u64,
}

impl Recording {
    /// Ends the recording, and waits until all of it is written.
    ///
    /// # Errors
    /// [`Error::Io`] when the file could not be written; what was written before is a trace that was cut off.
    pub async fn finish(self) -> Result<RecordingReport> {
        drop(self.stop);
        self.told.await.unwrap_or(Err(Error::ShutDown))
    }
}

impl Runtime {
    /// Writes a trace of what is asked for from now on to `file`, in place of what is there: see docs/trace.md. Meanwhile
    /// an access costs some nanoseconds more. Several recordings may run at once.
    ///
    /// ```no_run
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let recording = runtime.record("day.flytrace")?;
    /// let _page = runtime.load("pages/index.html").await?;
    /// let report = recording.finish().await?;
    /// println!("{} accesses, {} missed", report.accesses, report.missed);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written or the thread cannot be started; [`Error::ShutDown`] after a
    /// shutdown.
    pub fn record(&self, file: impl AsRef<Path>) -> Result<Recording> {
        let shared = Arc::clone(self.shared());
        if shared.is_stopping() {
            return Err(Error::ShutDown);
        }
        let path = file.as_ref().to_owned();
        let failed = |error| Error::io("write", &path, error);
        let since = shared.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let file = Counted { file: File::create(&path).map_err(failed)?, bytes: 0 };
        let writer = TraceWriter::new(file, wall_us).map_err(failed)?;
        let (stop, stopped) = bounded(0);
        let (tell, told) = oneshot::channel();
        // It listens before this returns: nothing that is asked for after it is left out.
        let tap = shared.accesses.tap(shared.moment());
        let (name, threads) = ("flyloft-trace", Arc::clone(&shared.threads));
        let run = move || {
            let written = write(&shared, tap, writer, &stopped).map_err(|error| Error::io("write", &path, error));
            let report =
                written.map(|(bytes, accesses, missed)| RecordingReport { file: path, bytes, accesses, missed });
            if let Err(error) = &report {
                tracing::error!(%error, "the recording of accesses ended");
            }
            // Whoever began it may not want to know.
            let _ = tell.send(report);
        };
        threads
            .spawn(name, &CpuSet::any(), Box::new(run))
            .map_err(|error| Error::io("start the thread", name, error))?;
        Ok(Recording { stop, told })
    }
}

/// Writes until it is asked to stop; gives the bytes, the accesses and how many were missed.
fn write(
    shared: &Shared,
    mut tap: Tap,
    mut writer: TraceWriter<Counted>,
    stopped: &Receiver<()>,
) -> io::Result<(u64, u64, u64)> {
    let mut flushed = shared.clock.now();
    listen(shared, stopped, |now| {
        let (mut count, mut failed) = (0, Ok(()));
        tap.drain(now, |access| {
            count += 1;
            if failed.is_ok() {
                failed = writer.access(access, || describe(shared, access));
            }
        });
        if now.at.saturating_duration_since(flushed) >= FLUSH {
            flushed = now.at;
            failed = failed.and_then(|()| writer.flush());
        }
        failed.map(|()| count)
    })?;
    let (file, end) = writer.finish(tap.missed())?;
    match end {
        TraceEnd::Whole { accesses, missed } => Ok((file.bytes, accesses, missed)),
        TraceEnd::Cut { .. } => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Calls `read`, which says how many accesses it found, until `stopped` is closed or the runtime stops, and once after:
/// the more it finds the sooner again.
pub(super) fn listen<E>(
    shared: &Shared,
    stopped: &Receiver<()>,
    mut read: impl FnMut(Moment) -> Result<u32, E>,
) -> Result<(), E> {
    let mut wait = WAIT.1;
    loop {
        let last = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) || shared.is_stopping();
        let found = read(shared.moment())?;
        if last {
            return Ok(());
        }
        wait = (WAIT.1 / (1 + found / (MANY / 16))).clamp(WAIT.0, WAIT.1);
    }
}

/// What the trace says of an asset. It may have to be read from the disk, once for each.
fn describe(shared: &Shared, access: &Access) -> TracedAsset {
    let live = shared.generations.current();
    let unknown = TracedAsset {
        id: access.id,
        stored: access.stored,
        path: None,
        bytes: access.weight,
        kind: AssetKind::Other,
        coding: None,
    };
    named(live.bundle(), access).unwrap_or(unknown)
}

/// `None` for what is not there, or cannot be read: a load of it says why.
fn named(bundle: &Bundle, access: &Access) -> Option<TracedAsset> {
    let record = bundle.asset(access.id).ok()??;
    let coding = match access.stored {
        true => Some(Coding::Stored),
        false => {
            let placement = bundle.placement(&record.content, 0..1).ok()??;
            placement.pieces.first().map(|piece| match piece.frame.codec {
                Codec::Store => Coding::Stored,
                Codec::Lz4 => Coding::Lz4,
                Codec::Zstd => Coding::Zstd,
            })
        }
    };
    let bytes = if access.stored { access.weight } else { record.len };
    Some(TracedAsset {
        id: access.id,
        stored: access.stored,
        path: Some(record.path),
        bytes,
        kind: record.kind,
        coding,
    })
}

/// A file that knows how much was written to it.
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
