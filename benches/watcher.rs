//! What watching a tree takes: the time until everything is watched, memory per folder and per file, and what is told when
//! every file is written once.
//!
//! ```sh
//! cargo bench --bench watcher [-- FILES]
//! ```
//! Two trees of as many files, one with fifty to a folder and one with five: memory goes by folders, not by files. What
//! is measured is the growth of this process's own resident memory (RssAnon of the kernel); the kernel's own, about a
//! kilobyte for each folder and the inode that it keeps in memory for it, is not in it.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use flyloft::platform::watch::{EventSink, Everything, OsWatch, RawEvent, RawKind, Watch};
use support::{count, head, resident_own_bytes, row};

/// How long nothing is told before everything was.
const QUIET: Duration = Duration::from_secs(2);

fn main() {
    let files = support::args().first().and_then(|first| first.parse().ok()).unwrap_or(50_000);
    head(&[
        "files",
        "folders",
        "watched after",
        "memory",
        "per folder",
        "per file",
        "events, each file written",
        "per file",
        "told after",
        "memory then",
        "ended after",
    ]);
    for in_folder in [50, 5] {
        measure(files, in_folder);
    }
}

fn measure(files: usize, in_folder: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tree");
    let folders = make(&root, files, in_folder);
    let before = resident_own_bytes();
    let (tell, told) = channel();
    let sink: EventSink = Box::new(move |events| drop(tell.send(events)));
    let began = Instant::now();
    let guard = OsWatch::default().watch(&root, &[], Arc::new(Everything), sink).expect("it is watched");
    let watched = began.elapsed();
    let grown = resident_own_bytes().saturating_sub(before);
    let began = Instant::now();
    let writer = {
        let root = root.clone();
        // Taken while they come: what waits is the watcher's alone.
        std::thread::spawn(move || {
            for number in 0..files {
                fs::write(path(&root, number, in_folder), b"2").expect("it is written");
            }
        })
    };
    let (events, last, lost) = drain(&told, began);
    writer.join().expect("all are written");
    let then = resident_own_bytes().saturating_sub(before);
    let began = Instant::now();
    drop(guard);
    let ended = began.elapsed();
    let per = |bytes: u64, by: usize| format!("{} B", count(bytes as f64 / by as f64));
    row(&[
        count(files as f64),
        count(folders as f64),
        format!("{:.1} ms", watched.as_secs_f64() * 1e3),
        format!("{:.1} MB", grown as f64 / 1e6),
        per(grown, folders),
        per(grown, files),
        format!("{}{}", count(events as f64), if lost { ", then a look at everything" } else { "" }),
        format!("{:.2}", events as f64 / files as f64),
        format!("{:.2} s", last.as_secs_f64()),
        format!("{:.1} MB", then as f64 / 1e6),
        format!("{:.1} ms", ended.as_secs_f64() * 1e3),
    ]);
}

fn path(root: &Path, number: usize, in_folder: usize) -> std::path::PathBuf {
    let folder = number / in_folder;
    root.join(format!("part{:03}/folder{folder:06}/file{number:06}.txt", folder / 100))
}

/// Answers how many folders it made.
fn make(root: &Path, files: usize, in_folder: usize) -> usize {
    for number in 0..files {
        let path = path(root, number, in_folder);
        if number.is_multiple_of(in_folder) {
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        }
        fs::write(path, b"1").expect("it is written");
    }
    let folders = files.div_ceil(in_folder);
    1 + folders + folders.div_ceil(100)
}

/// Takes events until no more come: how many there were, when the last one came, and whether some were lost.
fn drain(told: &Receiver<Vec<RawEvent>>, began: Instant) -> (usize, Duration, bool) {
    let (mut events, mut last, mut lost) = (0, Duration::ZERO, false);
    while let Ok(batch) = told.recv_timeout(QUIET) {
        events += batch.len();
        last = began.elapsed();
        lost |= batch.iter().any(|event| matches!(event.kind, RawKind::Overflow(_)));
    }
    (events, last, lost)
}
