//! `load`: streams a bundle through the runtime and reports figures.

mod pattern;
mod profile;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use flyloft::bundle::AssetRecord;
use flyloft::platform::clock::{Clock, SystemClock};
use flyloft::runtime::RecordingReport;
use flyloft::{Error, Runtime};
use serde::Serialize;

use crate::failure::{Answer, Failure, Result};
use crate::output::Output;
use crate::{live, open, size};
use pattern::{Order, Pattern};

/// Stream a bundle's assets through the runtime and report throughput, latencies and hit rate
#[derive(Args)]
pub struct Call {
    /// The bundle
    file: PathBuf,
    /// Each asset once in path order, any at random, or few of them often
    #[arg(long, value_enum, default_value = "all")]
    pattern: Pattern,
    /// Loads under way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Loads in all [default: as many as there are assets]
    #[arg(long)]
    count: Option<u64>,
    /// Makes the same loads in the same order each time
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Memory to use at most, such as 512MiB
    #[arg(short, long, value_parser = size::parse, default_value = "512MiB")]
    budget: u64,
    /// Drop the bundle from the operating system's page cache first
    #[arg(long)]
    cold: bool,
    /// Measure reading resident assets, in order and anywhere, by size, beside the memory's own figures and the caches
    #[arg(long, conflicts_with_all = ["pattern", "clients", "count", "cold"])]
    profile: bool,
    /// Load what was asked for in this trace, in its order, instead of a pattern
    #[arg(long, value_name = "TRACE", conflicts_with_all = ["pattern", "profile"])]
    replay: Option<PathBuf>,
    /// Record what is asked for, when, and how it is answered, in this file
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    trace: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    pattern: Pattern,
    /// The trace that was followed instead.
    replay: Option<String>,
    clients: u32,
    seed: u64,
    budget_bytes: u64,
    /// "warm" or "cold", and what is known of it.
    page_cache: String,
    engine: Vec<&'static str>,
    loads: u64,
    /// Those of them that were streamed, being too large for the budget.
    streamed: u64,
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    assets_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    hits: u64,
    misses: u64,
    hit_rate: f64,
    /// Reads sent to the engines, and their bytes.
    reads: u64,
    read_bytes: u64,
    evictions: u64,
    peak_bytes: u64,
    trace: Option<RecordingReport>,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    bytes: u64,
    streamed: u64,
    latencies_ns: Vec<u64>,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle(&call.file)?;
    let records = bundle.assets().collect::<flyloft::Result<Vec<AssetRecord>>>()?;
    drop(bundle);
    if records.is_empty() {
        return Err(Failure::unusable(format_args!("{}: it holds no asset to load", call.file.display())));
    }
    if call.profile {
        let mut output = Output::new();
        open::block_on(profile::run(call, records, &mut output))?;
        output.finish()?;
        return Ok(Answer::Yes);
    }
    let page_cache = if call.cold {
        // A refusal is said rather than hidden: figures of a warm cache are other figures.
        match flyloft::platform::fs::drop_cached(&call.file) {
            Ok(()) => "cold: dropped before the first load".to_owned(),
            Err(error) => format!("not dropped: {error}; what the system has cached is still cached"),
        }
    } else {
        "warm: as the system has it".to_owned()
    };
    let report = open::block_on(measure(call, records, page_cache))?;
    let mut output = Output::new();
    if call.json {
        output.json(&report)?;
    } else {
        print(&report, &mut output)?;
    }
    output.finish()?;
    Ok(Answer::Yes)
}

async fn measure(call: &Call, records: Vec<AssetRecord>, page_cache: String) -> Result<Report> {
    let runtime = Runtime::builder().bundle(&call.file).budget_bytes(call.budget).start().await?;
    let order = match &call.replay {
        Some(trace) => pattern::replayed(trace, &records)?,
        None => Order::new(call.pattern, records.len(), call.seed),
    };
    let recording = call.trace.as_ref().map(|file| runtime.record(file)).transpose()?;
    let count = call.count.unwrap_or(order.len() as u64);
    let order = Arc::new(order);
    let records = Arc::new(records);
    let next = Arc::new(AtomicUsize::new(0));
    let clock = SystemClock;
    let began = clock.now();
    let client = |_| {
        let (runtime, order, records, next) =
            (runtime.clone(), Arc::clone(&order), Arc::clone(&records), Arc::clone(&next));
        let most = call.budget / 4;
        tokio::spawn(async move {
            let mut seen = Seen::default();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn as u64 >= count {
                    return Ok::<Seen, Error>(seen);
                }
                one(&runtime, &records[order.at(turn)], most, &mut seen).await?;
            }
        })
    };
    let clients: Vec<_> = (0..call.clients).map(client).collect();
    let mut all = Seen::default();
    for client in clients {
        let ended = client.await.map_err(|error| Failure::unusable(format_args!("a client ended: {error}")))?;
        let seen = ended?;
        all.bytes += seen.bytes;
        all.streamed += seen.streamed;
        all.latencies_ns.extend(seen.latencies_ns);
    }
    let took = clock.now().saturating_duration_since(began);
    let (stats, status) = (runtime.stats(), runtime.status());
    let trace = match recording {
        Some(recording) => Some(recording.finish().await?),
        None => None,
    };
    runtime.shutdown(Duration::from_secs(5)).await;
    all.latencies_ns.sort_unstable();
    let at = |share: f64| {
        let index = (all.latencies_ns.len() as f64 * share).ceil() as usize;
        all.latencies_ns.get(index.saturating_sub(1)).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    let (hits, misses) = (stats.metrics.hits, stats.metrics.misses);
    Ok(Report {
        file: call.file.display().to_string(),
        pattern: call.pattern,
        replay: call.replay.as_ref().map(|trace| trace.display().to_string()),
        clients: call.clients,
        seed: call.seed,
        budget_bytes: call.budget,
        page_cache,
        engine: status.engines.iter().map(|engine| engine.engine).collect(),
        loads: all.latencies_ns.len() as u64,
        streamed: all.streamed,
        bytes: all.bytes,
        seconds,
        bytes_per_second: all.bytes as f64 / seconds,
        assets_per_second: all.latencies_ns.len() as f64 / seconds,
        p50_us: at(0.50),
        p99_us: at(0.99),
        max_us: at(1.0),
        hits,
        misses,
        hit_rate: hits as f64 / (hits + misses).max(1) as f64,
        reads: stats.metrics.reads,
        read_bytes: stats.metrics.read_bytes,
        evictions: stats.metrics.evictions,
        peak_bytes: stats.budget.peak,
        trace,
    })
}

async fn one(runtime: &Runtime, record: &AssetRecord, most: u64, seen: &mut Seen) -> flyloft::Result<()> {
    let clock = SystemClock;
    let began = clock.now();
    let path = record.path.as_str();
    let loaded = if record.len <= most { runtime.load(path).await.map(Some) } else { Ok(None) };
    match loaded {
        Ok(Some(asset)) => seen.bytes += asset.len() as u64,
        // Too large to be resident beside others: in pieces.
        Ok(None) | Err(Error::TooLarge { .. }) => {
            let mut chunks = runtime.open(path).await?.chunks(0..u64::MAX);
            while let Some(chunk) = chunks.next().await {
                seen.bytes += chunk?.len() as u64;
            }
            seen.streamed += 1;
        }
        Err(error) => return Err(error),
    }
    let took = clock.now().saturating_duration_since(began);
    seen.latencies_ns.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    Ok(())
}

fn print(report: &Report, output: &mut Output) -> Result<()> {
    let mut field = |name: &str, value: String| output.line(format_args!("{name:<12}{value}"));
    let us = |us: f64| size::span(Duration::from_nanos((us * 1e3) as u64));
    let streamed = match report.streamed {
        0 => String::new(),
        some => format!(", {} of them streamed in pieces", size::count(some)),
    };
    field("loads", format!("{} by {} clients{streamed}", size::count(report.loads), report.clients))?;
    field("time", format!("{:.3} s for {}", report.seconds, size::bytes(report.bytes)))?;
    let megabytes = report.bytes_per_second / 1e6;
    field("rate", format!("{megabytes:.1} MB/s, {} assets/s", size::count(report.assets_per_second as u64)))?;
    let latencies = [report.p50_us, report.p99_us, report.max_us].map(us);
    field("latency", format!("p50 {}, p99 {}, most {}", latencies[0], latencies[1], latencies[2]))?;
    let (hits, misses) = (size::count(report.hits), size::count(report.misses));
    field("hit rate", format!("{:.1} % ({hits} hits, {misses} misses)", 100.0 * report.hit_rate))?;
    let (read, peak, budget) =
        (size::bytes(report.read_bytes), size::bytes(report.peak_bytes), size::bytes(report.budget_bytes));
    field("memory", format!("{peak} at most of {budget}, {} evictions", size::count(report.evictions)))?;
    let reads = size::counted(report.reads, "read");
    field("read", format!("{read} in {reads} through {}", report.engine.join(", ")))?;
    if let Some(trace) = &report.trace {
        field("trace", live::recorded(trace).trim_start_matches("trace ").to_owned())?;
    }
    field("page cache", report.page_cache.clone())
}
