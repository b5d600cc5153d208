//! What recording accesses costs, and what a bundle gains that is laid out by them.
//!
//! ```sh
//! cargo bench --bench trace                      # all three, about two minutes
//! cargo bench --bench trace -- hits              # ns per resident hit, nobody listening and recorded
//! cargo bench --bench trace -- http              # requests per second, with and without --trace
//! cargo bench --bench trace -- order [FOLDER]    # cold replays of a bundle packed as ever, and by a trace
//! ```
//! Rounds alternate; each figure is the median of the rounds. `http` needs wrk and taskset: the server, and the thread that
//! writes its trace, run on core 0, wrk on core 1. `order` makes sessions up: 500 tasks of twelve pages that stand anywhere
//! in the tree, chosen as 1/n; of each a session leaves out a fifth and strays to any page in a tenth of its steps. One
//! half of the sessions is the trace to pack by, the other half is replayed, by eight clients at once. Without a folder it
//! takes the documentation that scripts/corpus.sh fetched, or else examples/assets.

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flyloft::bundle::{AssetRecord, Bundle};
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::telemetry::accesses::{Access, Level, TraceWriter, TracedAsset};
use flyloft::{AssetId, Origin, Priority, Runtime};
use support::{args, count, head, median, row};

const HIT_ROUNDS: usize = 15;
const HITS: usize = 2_000_000;
const HTTP_ROUNDS: usize = 9;
const ORDER_ROUNDS: usize = 5;
const TASKS: usize = 500;
const TASK_PAGES: usize = 12;
const SESSIONS: usize = 4_000;

fn main() {
    let args = args();
    let wanted = |name: &str| args.first().is_none_or(|asked| asked == name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    if wanted("hits") {
        hits(folder.path());
    }
    if wanted("http") {
        http(folder.path());
    }
    if wanted("order") {
        order(folder.path(), args.get(1).map(PathBuf::from).unwrap_or_else(corpus));
    }
}

fn corpus() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join(".corpus/docs");
    if docs.is_dir() { docs } else { root.join("examples/assets") }
}

/// A small tree.
fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree).expect("a folder");
    for number in 0..256 {
        let text = format!("{number} some text of a file\n").repeat(40);
        std::fs::write(tree.join(format!("{number:03}.txt")), text).expect("a file");
    }
    tree
}

fn hits(folder: &Path) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let start = Runtime::builder().directory(tree(folder)).store(folder.join("store")).start();
    let runtime = tokio.block_on(start).expect("it starts");
    let ids: Vec<AssetId> = (0..64).map(|number| AssetId::of_path(&format!("{number:03}.txt"))).collect();
    for number in 0..64 {
        tokio.block_on(runtime.load(format!("{number:03}.txt"))).expect("it loads");
    }
    let round = || {
        let began = Instant::now();
        for hit in 0..HITS {
            black_box(runtime.with(ids[hit % 64], <[u8]>::len));
        }
        began.elapsed().as_nanos() as f64 / HITS as f64
    };
    round();
    let (mut off, mut on, mut noted, mut missed) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..HIT_ROUNDS {
        off.push(round());
        let recording = runtime.record(folder.join("hits.flytrace")).expect("it records");
        on.push(round());
        let report = tokio.block_on(recording.finish()).expect("it is written");
        (noted, missed) = (noted + report.accesses, missed + report.missed);
    }
    let (off, on) = (median(off), median(on));
    head(&["a resident hit", "nobody listens, ns", "recorded, ns", "more, ns", "read by the recorder"]);
    let read = 100.0 * noted as f64 / (noted + missed) as f64;
    row(&[
        "by id, guard".into(),
        format!("{off:.1}"),
        format!("{on:.1}"),
        format!("{:.1}", on - off),
        format!("{read:.0} %"),
    ]);
    println!();
    tokio.block_on(runtime.shutdown(Duration::from_secs(5)));
}

/// `flyloft serve` on core 0, which ends with this.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(tree: &Path, store: &Path, trace: Option<&Path>) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|any| any.local_addr()).expect("a port").port();
        let mut command = Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_flyloft"), "serve"]).arg(tree).arg("--store").arg(store);
        command.args(["--listen", &format!("127.0.0.1:{port}")]).stdout(Stdio::piped());
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        let mut child = command.spawn().expect("taskset and flyloft run");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("its output is readable");
        assert!(line.starts_with("serving "), "flyloft said: {line:?}");
        Server { child, port }
    }

    /// Requests per second.
    fn rate(&self) -> f64 {
        let url = format!("http://127.0.0.1:{}/a/007.txt", self.port);
        let wrk = Command::new("taskset").args(["-c", "1", "wrk", "-t1", "-c32", "-d2s", &url]).output();
        let text = String::from_utf8(wrk.expect("wrk runs; it is in the package wrk").stdout).expect("it is text");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
        line.and_then(|rate| rate.trim().parse().ok()).unwrap_or_else(|| panic!("wrk said: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        if stopped.is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

fn http(folder: &Path) {
    let (tree, trace) = (tree(folder), folder.join("http.flytrace"));
    let plain = Server::start(&tree, &folder.join("store-plain"), None);
    let traced = Server::start(&tree, &folder.join("store-traced"), Some(&trace));
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // One round that does not count.
    let _ = (plain.rate(), traced.rate());
    for number in 0..HTTP_ROUNDS {
        // Each goes first as often as the other.
        let (off, on) = match number % 2 {
            0 => (plain.rate(), traced.rate()),
            _ => {
                let on = traced.rate();
                (plain.rate(), on)
            }
        };
        ratios.push(on / off);
        without.push(off);
        with.push(on);
    }
    drop((plain, traced));
    let bytes = std::fs::metadata(&trace).map_or(0, |about| about.len());
    let accesses = flyloft::telemetry::accesses::TraceReader::new(File::open(&trace).expect("the trace"), "trace")
        .map_or(0, Iterator::count);
    head(&[
        "HTTP, one file of 1 KB",
        "without, /s",
        "with --trace, /s",
        "ratio of medians",
        "median of ratios",
        "bytes per access",
    ]);
    let (off, on) = (median(without), median(with));
    let each = format!("{:.2}", bytes as f64 / accesses.max(1) as f64);
    row(&[
        "32 connections".into(),
        count(off),
        count(on),
        format!("{:.3}", on / off),
        format!("{:.3}", median(ratios)),
        each,
    ]);
    println!();
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Writes the sessions of one half.
fn sessions(file: &Path, records: &[AssetRecord], tasks: &[Vec<usize>], seed: u64) {
    let mut random = Random(seed);
    let sums: Vec<f64> = (1..=tasks.len())
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let mut writer = TraceWriter::new(File::create(file).expect("a file"), 0).expect("it is written");
    let mut at_us = 0;
    for _ in 0..SESSIONS {
        let wanted = random.share() * sums[sums.len() - 1];
        let task = &tasks[sums.partition_point(|sum| *sum <= wanted).min(tasks.len() - 1)];
        for page in task {
            let stray = random.share() < 0.1;
            if !stray && random.share() < 0.2 {
                continue;
            }
            let record = &records[if stray { random.below(records.len()) } else { *page }];
            at_us += 1000;
            let (id, weight, level) = (record.id, record.len, Level::Loaded);
            let (priority, origin) = (Priority::Medium, Origin::User);
            let access = Access { id, stored: false, at_us, weight, level, priority, origin, latency_us: 1 };
            let (path, kind) = (Some(record.path.clone()), record.kind);
            let named = || TracedAsset { id, stored: false, path, bytes: weight, kind, coding: None };
            writer.access(&access, named).expect("it is written");
        }
    }
    writer.finish(0).expect("it is written");
}

fn flyloft(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("flyloft runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn order(folder: &Path, source: PathBuf) {
    let program = env!("CARGO_BIN_EXE_flyloft");
    let (plain, ordered) = (folder.join("plain.loft"), folder.join("ordered.loft"));
    flyloft(Command::new(program).arg("pack").arg(&source).arg("-o").arg(&plain));
    let bundle = Bundle::open(OsFileSystem.open(&plain).expect("the bundle"), false).expect("a bundle");
    let records: Vec<AssetRecord> = bundle.assets().map(|record| record.expect("a record")).collect();
    let mut random = Random(1);
    let mut task = |_| (0..TASK_PAGES).map(|_| random.below(records.len())).collect();
    let tasks: Vec<Vec<usize>> = (0..TASKS).map(&mut task).collect();
    let (learn, replay) = (folder.join("learn.flytrace"), folder.join("replay.flytrace"));
    sessions(&learn, &records, &tasks, 2);
    sessions(&replay, &records, &tasks, 3);
    flyloft(Command::new(program).arg("pack").arg(&source).arg("-o").arg(&ordered).arg("--order-by").arg(&learn));
    head(&["replay, cold", "reads", "MB read", "ms", "bundle, MB"]);
    let mut figures = [const { (Vec::new(), Vec::new(), Vec::new()) }; 2];
    for _ in 0..ORDER_ROUNDS {
        for (file, (reads, bytes, ms)) in [&plain, &ordered].into_iter().zip(&mut figures) {
            let mut load = Command::new(program);
            load.arg("load").arg(file).args(["--cold", "--clients", "8", "--budget", "64MiB", "--json", "--replay"]);
            let report: serde_json::Value = serde_json::from_slice(&flyloft(load.arg(&replay))).expect("a document");
            let figure = |name: &str| report[name].as_f64().expect("a figure");
            reads.push(figure("reads"));
            bytes.push(figure("read_bytes") / 1e6);
            ms.push(figure("seconds") * 1e3);
        }
    }
    for (name, file, (reads, bytes, ms)) in
        [("packed as ever", &plain, &figures[0]), ("packed --order-by", &ordered, &figures[1])]
    {
        let size = std::fs::metadata(file).map_or(0.0, |about| about.len() as f64 / 1e6);
        let middle = |values: &Vec<f64>| median(values.clone());
        row(&[
            name.into(),
            count(middle(reads)),
            format!("{:.1}", middle(bytes)),
            format!("{:.0}", middle(ms)),
            format!("{size:.1}"),
        ]);
    }
}
