//! `load --profile`: what resident assets cost to read, by how much of them is read, beside the memory's own figures and
//! the sizes of caches. It tells whether a working set is held by a cache, and what a look-up adds to the memory's cost.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use flyloft::bundle::AssetRecord;
use flyloft::platform::cgroup::usable_memory_bytes;
use flyloft::platform::clock::{Clock, SystemClock};
use flyloft::platform::random::{Random, SeededRandom};
use flyloft::platform::topology::{CacheKind, Topology};
use flyloft::{Asset, Runtime};
use serde::Serialize;

use super::Call;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::size;

/// The sizes looked at: from the smallest in steps of four, to the largest.
const SIZE_MIN: u64 = 64 << 10;
const SIZE_MAX: u64 = 1 << 30;
/// Bytes read in a row for one figure at least, and rounds at least: the median is told.
const ROUND_BYTES: u64 = 64 << 20;
const ROUNDS: usize = 5;
/// Dependent reads for one figure.
const STEPS: usize = 1 << 19;
/// What one read brings into the cache.
const LINE_WORDS: usize = 8;

#[derive(Serialize)]
struct Report {
    file: String,
    caches: Vec<Level>,
    memory_bytes: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Level {
    name: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Row {
    bytes: u64,
    /// The smallest cache that holds so much, or memory.
    held_by: String,
    memory: Figures,
    /// Of so many bytes of resident assets; missing where the bundle or the budget has fewer.
    assets: Option<Figures>,
    asset_count: usize,
}

#[derive(Clone, Copy, Serialize)]
struct Figures {
    /// All bytes, in order.
    bytes_per_second: f64,
    /// One read anywhere; of assets, by way of a look-up by path.
    random_ns: f64,
}

pub(super) async fn run(call: &Call, records: Vec<AssetRecord>, output: &mut Output) -> Result<()> {
    let caches = caches();
    let memory_bytes = usable_memory_bytes();
    let runtime = Runtime::builder().bundle(&call.file).budget_bytes(call.budget).start().await?;
    let mut held = Held::new(records, call.budget / 2);
    let mut rows = Vec::new();
    // A quarter of what may be used: the measure must not make the machine swap.
    let most = if memory_bytes == 0 { SIZE_MAX } else { (memory_bytes / 4).clamp(SIZE_MIN, SIZE_MAX) };
    let mut bytes = SIZE_MIN;
    while bytes <= most {
        let memory = memory(bytes, call.seed)?;
        let assets = if held.fill(&runtime, bytes).await? { Some(assets(&runtime, &held, call.seed)?) } else { None };
        let held_by = caches.iter().find(|cache| bytes <= cache.bytes).map_or("memory", |cache| cache.name.as_str());
        rows.push(Row { bytes, held_by: held_by.to_owned(), memory, assets, asset_count: held.assets.len() });
        bytes *= 4;
    }
    drop(held);
    runtime.shutdown(Duration::from_secs(5)).await;
    let report = Report { file: call.file.display().to_string(), caches, memory_bytes, rows };
    if call.json { output.json(&report) } else { print(&report, output) }
}

/// The caches that hold data, the smallest first, one of each level.
fn caches() -> Vec<Level> {
    let found = Topology::detect().caches(Path::new("/sys"));
    let mut levels: Vec<Level> = Vec::new();
    for cache in found.iter().filter(|cache| cache.kind != CacheKind::Instruction) {
        let name = format!("L{}", cache.level);
        if levels.iter().all(|level| level.name != name) {
            levels.push(Level { name, bytes: cache.bytes });
        }
    }
    levels
}

/// Resident assets, held.
struct Held {
    waiting: std::vec::IntoIter<AssetRecord>,
    assets: Vec<Asset>,
    bytes: u64,
    bytes_max: u64,
}

impl Held {
    fn new(records: Vec<AssetRecord>, bytes_max: u64) -> Self {
        Self { waiting: records.into_iter(), assets: Vec::new(), bytes: 0, bytes_max }
    }

    /// Loads more until there are `wanted` bytes; whether there are.
    async fn fill(&mut self, runtime: &Runtime, wanted: u64) -> Result<bool> {
        while self.bytes < wanted {
            let Some(record) = self.waiting.next() else { return Ok(false) };
            if record.len == 0 || self.bytes + record.len > self.bytes_max {
                continue;
            }
            let asset = runtime.load(record.path.as_str()).await?;
            self.bytes += asset.len() as u64;
            self.assets.push(asset);
        }
        Ok(true)
    }
}

fn assets(runtime: &Runtime, held: &Held, seed: u64) -> Result<Figures> {
    let gone = |asset: &Asset| Failure::unusable(format_args!("'{}' is no longer resident", asset.path()));
    let mut read = || {
        let mut sum = 0u64;
        for asset in &held.assets {
            let found = runtime.get(asset.path().as_str()).ok_or_else(|| gone(asset))?;
            sum = sum.wrapping_add(sum_of(&found));
        }
        Ok(sum)
    };
    let bytes_per_second = rate(held.bytes, &mut read)?;
    let random = SeededRandom::new(seed);
    let order: Vec<(usize, usize)> = (0..STEPS)
        .map(|_| {
            let number = random.below(held.assets.len() as u64) as usize;
            (number, random.below(held.assets[number].len() as u64) as usize)
        })
        .collect();
    let began = SystemClock.now();
    let mut sum = 0u64;
    for (number, at) in order {
        let asset = &held.assets[number];
        let found = runtime.get(asset.path().as_str()).ok_or_else(|| gone(asset))?;
        // The next step does not begin before this byte is there.
        sum = black_box(sum + u64::from(found[at]));
    }
    Ok(Figures { bytes_per_second, random_ns: per_step(began) })
}

fn memory(bytes: u64, seed: u64) -> Result<Figures> {
    let lines = (bytes / (8 * LINE_WORDS as u64)) as usize;
    let mut words = vec![0u64; lines * LINE_WORDS];
    let mut read = || Ok(black_box(words.as_slice()).iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
    let bytes_per_second = rate(bytes, &mut read)?;
    // One ring through all lines in random order (Sattolo's algorithm): each read says where the next one is.
    let random = SeededRandom::new(seed);
    let mut ring: Vec<u32> = (0..lines as u32).collect();
    for last in (1..lines).rev() {
        ring.swap(last, random.below(last as u64) as usize);
    }
    for (line, next) in ring.into_iter().enumerate() {
        words[line * LINE_WORDS] = u64::from(next);
    }
    let mut at = 0;
    let began = SystemClock.now();
    for _ in 0..STEPS {
        at = words[at * LINE_WORDS] as usize;
    }
    black_box(at);
    Ok(Figures { bytes_per_second, random_ns: per_step(began) })
}

fn per_step(began: std::time::Instant) -> f64 {
    SystemClock.now().saturating_duration_since(began).as_nanos() as f64 / STEPS as f64
}

fn sum_of(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("chunks of eight bytes"));
    let sum = words.by_ref().fold(0u64, |sum, bytes| sum.wrapping_add(word(bytes)));
    words.remainder().iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// Bytes per second of `read`, which reads `bytes`: the median of several rounds after one that warms.
fn rate(bytes: u64, read: &mut dyn FnMut() -> Result<u64>) -> Result<f64> {
    let times = (ROUND_BYTES / bytes.max(1)).max(1);
    let mut rates = Vec::with_capacity(ROUNDS);
    black_box(read()?);
    for _ in 0..ROUNDS {
        let began = SystemClock.now();
        for _ in 0..times {
            black_box(read()?);
        }
        let took = SystemClock.now().saturating_duration_since(began).as_secs_f64();
        rates.push((times * bytes) as f64 / took.max(f64::MIN_POSITIVE));
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[ROUNDS / 2])
}

fn print(report: &Report, output: &mut Output) -> Result<()> {
    let caches: Vec<String> =
        report.caches.iter().map(|cache| format!("{} {}", cache.name, size::bytes(cache.bytes))).collect();
    let caches = if caches.is_empty() { "not known".to_owned() } else { caches.join(", ") };
    output.line(format_args!("caches {caches}; memory {}", size::bytes(report.memory_bytes)))?;
    output.line(format_args!("{:>10}  {:>7}  {:>20}  {:>20}", "", "", "the memory's own", "resident assets"))?;
    output.line(format_args!(
        "{:>10}  {:>7}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}",
        "bytes", "held by", "in order", "anywhere", "in order", "anywhere", "assets"
    ))?;
    for row in &report.rows {
        let figures = |figures: Figures| {
            (format!("{:.1} GB/s", figures.bytes_per_second / 1e9), format!("{:.1} ns", figures.random_ns))
        };
        let (memory, assets) = (figures(row.memory), row.assets.map(figures));
        let count = assets.as_ref().map(|_| size::count(row.asset_count as u64)).unwrap_or_default();
        let assets = assets.unwrap_or_else(|| ("too few".to_owned(), String::new()));
        output.line(format_args!(
            "{:>10}  {:>7}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}",
            size::bytes(row.bytes),
            row.held_by,
            memory.0,
            memory.1,
            assets.0,
            assets.1,
            count
        ))?;
    }
    Ok(())
}
