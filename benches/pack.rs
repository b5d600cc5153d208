//! Packing beside `tar | zstd -3`: time and size, for each folder given.
//!
//! ```text
//! cargo bench --bench pack -- FOLDER...
//! ```
//!
//! Each figure is the median of five warm runs on all cores. `pack` ends with a flush to the disk, `tar | zstd` does
//! not. "again" packs the unchanged tree into its bundle, "one file" after one file was touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flyloft::build::{BuildOptions, NoProgress, PackReport, pack};
use flyloft::config::Layout;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;

const RUNS: usize = 5;

fn main() {
    let folders: Vec<PathBuf> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(Into::into).collect();
    if folders.is_empty() {
        println!("usage: cargo bench --bench pack -- FOLDER...");
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary folder");
    println!("{:<24} {:<22} {:>9} {:>13} {:>10} {:>10}", "tree", "what", "seconds", "bytes", "time", "size");
    for folder in folders {
        let name = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.display().to_string());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let row = |what: &str, took: Duration, bytes: u64, base: Option<(Duration, u64)>| {
            let ratio = |value: f64| format!("{value:.3}x");
            let (time, size) = base.map_or((String::new(), String::new()), |(base_took, base_bytes)| {
                let time = ratio(took.as_secs_f64() / base_took.as_secs_f64());
                (time, ratio(bytes as f64 / base_bytes as f64))
            });
            println!("{name:<24} {what:<22} {:>9.3} {bytes:>13} {time:>10} {size:>10}", took.as_secs_f64());
        };
        let archive = scratch.path().join("archive.tar.zst");
        let tar = median(|| {
            let script =
                format!("tar -C '{}' -cf - . | zstd -q -3 -T{cores} > '{}'", folder.display(), archive.display());
            let done = Command::new("sh").arg("-c").arg(script).status().expect("sh, tar and zstd run");
            assert!(done.success(), "tar | zstd failed");
            fs::metadata(&archive).expect("the archive is there").len()
        });
        row("tar | zstd -3", tar.0, tar.1, None);
        for layout in [Layout::Access, Layout::Dense] {
            let out = scratch.path().join("out.loft");
            let fresh = median(|| {
                let _ = fs::remove_file(&out);
                packed(&folder, &out, layout).file_bytes
            });
            row(&format!("pack {}", layout.name()), fresh.0, fresh.1, Some(tar));
            if layout == Layout::Access {
                let again = median(|| {
                    let report = packed(&folder, &out, layout);
                    assert!(report.unchanged, "an unchanged tree was packed again");
                    report.appended_bytes
                });
                row("pack access, again", again.0, again.1, None);
            }
            fs::remove_file(&out).expect("the bundle is there");
        }
    }
}

fn packed(folder: &Path, out: &Path, layout: Layout) -> PackReport {
    let options = BuildOptions { layout, ..BuildOptions::default() };
    let report = pack(Arc::new(OsFileSystem), Arc::new(SystemClock), folder, out, options, &NoProgress);
    report.unwrap_or_else(|error| panic!("{error}"))
}

/// The median time of several runs after one that warms the page cache, and the bytes of the last.
fn median(mut run: impl FnMut() -> u64) -> (Duration, u64) {
    let mut bytes = run();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            bytes = run();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[RUNS / 2], bytes)
}
