//! What one load takes besides time: allocations, allocated bytes, and what the runtime counts of its own (reads,
//! bytes read, decoded, copied).
//!
//! ```sh
//! cargo bench --bench allocations
//! ```
//! A counting allocator counts every thread, the caller's too: its future and its path are part of a load. Each load is
//! of an asset that is not resident; 32 are under way at once; the first tenth warms up. The last row is a hit.
//! Counts hardly differ from run to run; nothing is timed here.

mod support;

use std::alloc::System;
use std::path::Path;
use std::time::Duration;

use flyloft::Runtime;
use flyloft::config::Layout;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{Item, bundle, count, head, noise, row, warm_contents};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bytes of an asset, by its number and length.
type Content = fn(u64, usize) -> Vec<u8>;

const UNDER_WAY: usize = 32;
const BUDGET_BYTES: u64 = 1 << 30;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    head(&["a load of", "allocations", "reallocations", "bytes allocated", "what the runtime counted, per load"]);
    let cases: [(&str, usize, usize, Content); 4] = [
        ("4 KiB, stored", 8_000, 4 << 10, noise),
        ("1 MiB, stored", 200, 1 << 20, noise),
        ("16 KiB, compressed", 8_000, 16 << 10, text),
        ("1 MiB, compressed", 200, 1 << 20, text),
    ];
    for (what, assets, len, content) in cases {
        let file = folder.path().join("assets.loft");
        let item = |number| Item { path: name(number), bytes: content(number as u64, len) };
        bundle(&file, Layout::Access, (0..assets).map(item));
        measure(what, &file, assets);
        std::fs::remove_file(&file).expect("it was made here");
    }
}

fn name(number: usize) -> String {
    format!("textures/tile-{number:06}.raw")
}

/// Lines that differ in their numbers.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let line = |at: usize| format!("node {} at {seed} stands by {}, hidden\n", at * 7, (at as u64 ^ seed) * 31);
    let mut bytes: Vec<u8> = (0..len / 20).flat_map(|at| line(at).into_bytes()).collect();
    bytes.truncate(len);
    bytes
}

fn measure(what: &str, file: &Path, assets: usize) {
    let names: Vec<String> = (0..assets).map(name).collect();
    let warm = warm_contents(file, &names);
    let runtime = Runtime::builder().bundle(file).budget_bytes(BUDGET_BYTES).start_blocking().expect("it opens");
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let warm_up = assets / 10;
    executor.block_on(load(&runtime, &names[..warm_up]));
    let (before, region) = (counters(&runtime), Region::new(ALLOCATOR));
    executor.block_on(load(&runtime, &names[warm_up..]));
    let (stats, after) = (region.change(), counters(&runtime));
    let loads = (assets - warm_up) as f64;
    let counted = after.iter().zip(&before).filter(|((_, after), (_, before))| after > before);
    let counted: Vec<String> =
        counted.map(|((name, after), (_, before))| format!("{name} {}", short((after - before) / loads))).collect();
    row(&[
        what.into(),
        format!("{:.1}", stats.allocations as f64 / loads),
        format!("{:.1}", stats.reallocations as f64 / loads),
        count(stats.bytes_allocated as f64 / loads),
        counted.join(", "),
    ]);
    if assets > 1_000 {
        let region = Region::new(ALLOCATOR);
        let hits = names.iter().filter(|name| runtime.get(name).is_some()).count();
        let stats = region.change();
        let each = |count: usize| format!("{:.1}", count as f64 / hits as f64);
        let what = format!("{what}, a hit");
        row(&[what, each(stats.allocations), each(stats.reallocations), each(stats.bytes_allocated), String::new()]);
        assert_eq!(hits, assets, "all are resident");
    }
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
    drop(warm);
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { count(value) }
}

/// The runtime's own counters, by name.
fn counters(runtime: &Runtime) -> Vec<(String, f64)> {
    let report = serde_json::to_value(runtime.stats().metrics).expect("counters are plain numbers");
    let all = report.as_object().expect("a report has fields").iter();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_u64()? as f64))).collect()
}

/// Loads these, some at a time.
async fn load(runtime: &Runtime, names: &[String]) {
    let mut waiting = std::collections::VecDeque::with_capacity(UNDER_WAY);
    for name in names {
        if waiting.len() == UNDER_WAY {
            let oldest: flyloft::Load = waiting.pop_front().expect("it is full");
            oldest.await.expect("it is answered");
        }
        waiting.push_back(runtime.load(name));
    }
    for load in waiting {
        load.await.expect("it is answered");
    }
}
