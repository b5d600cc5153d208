//! Cold reads through the whole runtime, from `load` to bytes, beside the disk's own rate and the bare decoder.
//!
//! ```sh
//! cargo bench --bench reads [-- 4k | 1m | zstd | idle]
//! ```
//! `4k` and `1m`: assets stored as they are, in random order, beside `fio` (io_uring, O_DIRECT, the same depth) on the
//! same file. `zstd`: assets of text beside the decoder alone on all cores, on the same frames in memory; needs the
//! tree that `scripts/corpus.sh docs` fetches. `idle`: one load at a time on a runtime that has gone to sleep, beside
//! one direct read by a thread. Without a name all four.
//!
//! Cold means that the pages of the frames were dropped from the page cache before each round (posix_fadvise, no root
//! needed); the table of contents stays in memory, as in a program that has run for a while. Peers and runtime take
//! turns; figures are medians of the rounds, ratios medians of each round's ratio. Two more modes serve
//! scripts/callgrind.sh: `make FILE ASSETS` writes a bundle of stored 4 KiB assets, `load FILE LOADS` loads from it.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use flyloft::bundle::{Codec, Decoder, FrameRef};
use flyloft::config::{DirectIo, IoConfig, Layout};
use flyloft::platform::fs::drop_cached;
use flyloft::{Runtime, RuntimeConfig};
use support::{Block, Item, bundle, count, cpu_by_thread, cpu_since, fio, head, median, noise, open_direct, quantile};
use support::{cpu_seconds, row, shuffled, storage, timed, warm_contents};

const ROUNDS: usize = 5;
const BUDGET_BYTES: u64 = 1 << 30;
/// A budget that is soon full: memory is used again from then on, as in a server that has run for a while.
const STEADY_BUDGET_BYTES: u64 = 64 << 20;
const SMALL: usize = 4 << 10;
const SMALL_COUNT: usize = 65_536;
const LARGE: usize = 1 << 20;
const LARGE_COUNT: usize = 384;
const LARGE_DEPTH: usize = 32;
const IDLE_LOADS: usize = 400;
/// Long enough for every thread to fall asleep.
const IDLE_PAUSE: Duration = Duration::from_millis(3);

fn main() {
    let args = support::args();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["make", file, assets] => return stored(Path::new(file), SMALL, assets.parse().expect("a number")),
        ["load", file, loads] => return load_only(Path::new(file), loads.parse().expect("a number")),
        _ => {}
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wanted = |name: &str| words.is_empty() || words.contains(&name);
    if !support::installed("fio") {
        println!("fio is not installed: the runtime's own figures stand without it\n");
    }
    if wanted("4k") || wanted("idle") {
        let file = folder.path().join("4k.loft");
        stored(&file, SMALL, SMALL_COUNT);
        if wanted("4k") {
            small(&file);
        }
        if wanted("idle") {
            idle(&file);
        }
        std::fs::remove_file(&file).expect("it was made here");
    }
    if wanted("1m") {
        let file = folder.path().join("1m.loft");
        stored(&file, LARGE, LARGE_COUNT);
        large(&file);
        std::fs::remove_file(&file).expect("it was made here");
    }
    if wanted("zstd") {
        for layout in [Layout::Access, Layout::Dense] {
            compressed(&folder.path().join(format!("{}.loft", layout.name())), layout);
        }
    }
}

fn name(number: usize) -> String {
    format!("textures/tile-{number:06}.raw")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(name).collect()
}

fn stored(file: &Path, len: usize, assets: usize) {
    let item = |number| Item { path: name(number), bytes: noise(number as u64, len) };
    bundle(file, Layout::Access, (0..assets).map(item));
}

/// What a run of loads took.
struct Run {
    seconds: f64,
    /// Nanoseconds on a processor by thread.
    cpu: Vec<(String, u64)>,
}

impl Run {
    fn cpu_us(&self, loads: usize) -> f64 {
        self.cpu.iter().map(|(_, spent)| *spent as f64).sum::<f64>() / 1e3 / loads as f64
    }

    /// Microseconds per load of each thread, in words.
    fn threads(&self, loads: usize) -> String {
        let mut words = String::new();
        for (name, spent) in self.cpu.iter().take(5) {
            let us = *spent as f64 / 1e3 / loads as f64;
            write!(words, "{}{name} {us:.1}", if words.is_empty() { "" } else { ", " }).expect("a string takes it");
        }
        words
    }
}

fn start(file: &Path, depth: usize, budget_bytes: u64) -> Runtime {
    // As the peers read.
    let io = IoConfig { direct: DirectIo::Always, ..IoConfig::default() };
    let config = RuntimeConfig { queue_depth: depth, budget_bytes, io, ..RuntimeConfig::default() };
    Runtime::builder().bundle(file).config(config).start_blocking().expect("the bundle opens")
}

/// Loads every asset once, in this order, `clients` of them at a time, each asset's handle dropped as it comes.
fn load_all(file: &Path, names: &[String], order: Vec<usize>, depth: usize, clients: usize, budget_bytes: u64) -> Run {
    let runtime = start(file, depth, budget_bytes);
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let (names, order) = (Arc::new(names.to_vec()), Arc::new(order));
    let next = Arc::new(AtomicUsize::new(0));
    let before = cpu_by_thread();
    let client = |runtime: &Runtime| {
        let (runtime, names, order, next) =
            (runtime.clone(), Arc::clone(&names), Arc::clone(&order), Arc::clone(&next));
        async move {
            while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asset = runtime.load(&names[*index]).await.expect("it is answered");
                assert!(!asset.is_empty(), "an asset has bytes");
            }
        }
    };
    let (took, ()) = timed(|| {
        executor.block_on(async {
            let clients: Vec<_> = (0..clients).map(|_| tokio::spawn(client(&runtime))).collect();
            for client in clients {
                client.await.expect("a client does not panic");
            }
        });
    });
    let cpu = cpu_since(&before);
    let stats = runtime.stats().metrics;
    assert_eq!(stats.hits, 0, "every load is a miss");
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
    Run { seconds: took.as_secs_f64(), cpu }
}

/// Stored 4 KiB assets at two depths.
fn small(file: &Path) {
    let names = names(SMALL_COUNT);
    let warm = warm_contents(file, &names);
    println!("Stored 4 KiB assets, cold, random, {} loads:\n", count(SMALL_COUNT as f64));
    head(&["what", "depth", "loads/s", "of fio's", "CPU µs/load", "by thread, µs/load"]);
    for depth in [32, 128] {
        let ways = [
            ("one load per place", depth, BUDGET_BYTES),
            ("4 loads per place", 4 * depth, BUDGET_BYTES),
            ("4 loads per place, within 64 MiB", 4 * depth, STEADY_BUDGET_BYTES),
        ];
        let [mut rates, mut ratios, mut cpus]: [[Vec<f64>; 3]; 3] = Default::default();
        let (mut peers, mut peer_cpus) = (vec![], vec![]);
        let mut threads: [String; 3] = Default::default();
        for round in 0..=ROUNDS {
            let peer = fio(file, SMALL, depth, SMALL_COUNT, round as u64);
            for (way, (_, clients, budget_bytes)) in ways.iter().enumerate() {
                drop_cached(file).expect("its pages are dropped");
                let order = shuffled(SMALL_COUNT, round as u64);
                let run = load_all(file, &names, order, depth, *clients, *budget_bytes);
                let rate = SMALL_COUNT as f64 / run.seconds;
                // The first round warms up.
                if round > 0 {
                    rates[way].push(rate);
                    cpus[way].push(run.cpu_us(SMALL_COUNT));
                    ratios[way].extend(peer.as_ref().map(|peer| rate / peer.per_second));
                    threads[way] = run.threads(SMALL_COUNT);
                }
            }
            if let Some(peer) = peer.filter(|_| round > 0) {
                peers.push(peer.per_second);
                peer_cpus.push(peer.cpu_us);
            }
        }
        row(&[
            "fio".into(),
            depth.to_string(),
            count(median(peers)),
            "1".into(),
            format!("{:.1}", median(peer_cpus)),
            String::new(),
        ]);
        for (way, (what, ..)) in ways.iter().enumerate() {
            row(&[
                format!("runtime, {what}"),
                depth.to_string(),
                count(median(rates[way].clone())),
                format!("{:.2}", median(ratios[way].clone())),
                format!("{:.1}", median(cpus[way].clone())),
                threads[way].clone(),
            ]);
        }
    }
    println!("\nGoal: at least 0.85 of fio's at both depths.\n");
    drop(warm);
}

/// Stored 1 MiB assets.
fn large(file: &Path) {
    let names = names(LARGE_COUNT);
    let warm = warm_contents(file, &names);
    let bytes = (LARGE * LARGE_COUNT) as f64;
    let (mut rates, mut ratios, mut cpus, mut peers, mut peer_cpus) = (vec![], vec![], vec![], vec![], vec![]);
    let mut threads = String::new();
    for round in 0..=ROUNDS {
        let peer = fio(file, LARGE, LARGE_DEPTH, LARGE_COUNT, round as u64);
        drop_cached(file).expect("its pages are dropped");
        let order = shuffled(LARGE_COUNT, round as u64);
        let run = load_all(file, &names, order, LARGE_DEPTH, LARGE_DEPTH, BUDGET_BYTES);
        if round > 0 {
            rates.push(bytes / run.seconds);
            cpus.push(run.cpu_us(LARGE_COUNT));
            ratios.extend(peer.as_ref().map(|peer| bytes / run.seconds / peer.bytes_per_second));
            threads = run.threads(LARGE_COUNT);
            peers.extend(peer.as_ref().map(|peer| peer.bytes_per_second));
            peer_cpus.extend(peer.as_ref().map(|peer| peer.cpu_us));
        }
    }
    println!("Stored 1 MiB assets, cold, random, {LARGE_COUNT} loads, depth {LARGE_DEPTH}:\n");
    head(&["what", "MB/s", "of fio's", "CPU µs/MiB", "by thread, µs/MiB"]);
    let mega = |rates: Vec<f64>| count(median(rates) / 1e6);
    row(&["fio".into(), mega(peers), "1".into(), format!("{:.0}", median(peer_cpus)), String::new()]);
    let ratio = format!("{:.2}", median(ratios));
    row(&["runtime".into(), mega(rates), ratio, format!("{:.0}", median(cpus)), threads]);
    println!("\nGoal: at least 0.9 of fio's.\n");
    drop(warm);
}

/// Assets of text of 1 MiB, compressed.
fn compressed(file: &Path, layout: Layout) {
    let Some(items) = text(LARGE_COUNT) else {
        return println!("zstd: skipped, since .corpus/docs is not there; scripts/corpus.sh docs fetches it\n");
    };
    let assets = items.len();
    bundle(file, layout, items.into_iter());
    let names = names(assets);
    let warm = warm_contents(file, &names);
    let frames: Vec<FrameRef> = warm.frames().collect::<flyloft::Result<_>>().expect("its frames are read");
    let reader = storage(file);
    let encoded: Vec<(FrameRef, Vec<u8>)> = frames
        .into_iter()
        .filter(|frame| frame.codec == Codec::Zstd)
        .map(|frame| {
            let mut bytes = vec![0; frame.stored_len as usize];
            reader.read_exact_at(frame.offset, &mut bytes).expect("a frame is read");
            (frame, bytes)
        })
        .collect();
    let decoded: f64 = encoded.iter().map(|(frame, _)| f64::from(frame.decoded_len)).sum();
    let stored: f64 = encoded.iter().map(|(frame, _)| f64::from(frame.stored_len)).sum();
    let bytes = (assets * LARGE) as f64;
    let mut rates: [Vec<f64>; 5] = Default::default();
    let mut ratios: [Vec<f64>; 5] = Default::default();
    let mut threads: Vec<String> = Vec::new();
    for round in 0..=ROUNDS {
        let (bare, bare_cpu) = decode_all(&encoded, true);
        let (fresh, fresh_cpu) = decode_all(&encoded, false);
        let (bare, fresh) = (decoded / bare, decoded / fresh);
        let order = shuffled(assets, round as u64);
        drop_cached(file).expect("its pages are dropped");
        let load = |budget_bytes| load_all(file, &names, order.clone(), LARGE_DEPTH, LARGE_DEPTH, budget_bytes);
        let cold = load(BUDGET_BYTES);
        let again = load(BUDGET_BYTES);
        let steady = load(STEADY_BUDGET_BYTES);
        if round > 0 {
            let runs = [&cold, &again, &steady].map(|run| bytes / run.seconds);
            for (way, rate) in [bare, fresh].into_iter().chain(runs).enumerate() {
                rates[way].push(rate);
                ratios[way].push(rate / bare);
            }
            let alone = |seconds: f64| format!("{:.1}", seconds * 1e6 / assets as f64);
            let runs = [&cold, &again, &steady].map(|run| run.threads(assets));
            threads = [alone(bare_cpu), alone(fresh_cpu)].into_iter().chain(runs).collect::<Vec<_>>();
        }
    }
    println!(
        "zstd assets of 1 MiB of HTML, layout {}, {} frames, {:.1} MB stored for {:.1} MB:\n",
        layout.name(),
        count(encoded.len() as f64),
        stored / 1e6,
        decoded / 1e6
    );
    head(&["what", "decoded MB/s", "of the decoder's", "CPU µs/MiB, by thread"]);
    let what = [
        "decoder alone, all cores, into one buffer per core",
        "decoder alone, all cores, into fresh memory",
        "runtime, cold",
        "runtime, file in the page cache",
        "the same, within 64 MiB",
    ];
    for (way, (what, threads)) in what.into_iter().zip(threads).enumerate() {
        let (rate, ratio) = (median(rates[way].clone()), median(ratios[way].clone()));
        row(&[what.into(), count(rate / 1e6), format!("{ratio:.2}"), threads]);
    }
    println!("\nGoal: at least 0.9 of the decoder's.\n");
    std::fs::remove_file(file).expect("it was made here");
}

/// Seconds that the decoder alone takes on all cores, and seconds of the processors: into one buffer again and again,
/// or into memory that is new.
fn decode_all(encoded: &[(FrameRef, Vec<u8>)], reuse: bool) -> (f64, f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let decode = || {
        let mut decoder = Decoder::new();
        let mut kept: Vec<Vec<u8>> = Vec::new();
        let mut into = Vec::new();
        while let Some((frame, stored)) = encoded.get(next.fetch_add(1, Ordering::Relaxed)) {
            let len = frame.decoded_len as usize;
            if reuse {
                into.resize(len.max(into.len()), 0);
            } else {
                kept.push(std::mem::replace(&mut into, vec![0; len]));
            }
            decoder.decode(frame, None, stored, &mut into[..len], "bench").expect("a frame decodes");
        }
    };
    let all = || {
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(decode);
            }
        });
    };
    let before = cpu_seconds();
    let took = timed(all).0.as_secs_f64();
    (took, cpu_seconds() - before)
}

/// Assets of 1 MiB of HTML each, from the tree of documentation.
fn text(most: usize) -> Option<Vec<Item>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".corpus/docs");
    let mut waiting: Vec<PathBuf> = vec![root.canonicalize().ok()?];
    let mut bytes = Vec::with_capacity(most * LARGE);
    while let Some(folder) = waiting.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            if entry.is_dir() {
                waiting.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "html") && bytes.len() < most * LARGE {
                bytes.extend(std::fs::read(entry).ok()?);
            }
        }
    }
    let whole = bytes.chunks_exact(LARGE).take(most).enumerate();
    Some(whole.map(|(number, bytes)| Item { path: name(number), bytes: bytes.to_vec() }).collect())
}

/// One load at a time on a runtime at rest, beside one direct read by a thread at rest.
fn idle(file: &Path) {
    let names = names(SMALL_COUNT);
    let warm = warm_contents(file, &names);
    drop_cached(file).expect("its pages are dropped");
    let runtime = start(file, 32, BUDGET_BYTES);
    let direct = open_direct(file);
    let mut block = Box::new(Block([0; SMALL]));
    let blocks = std::fs::metadata(file).expect("it is there").len() / SMALL as u64;
    let (mut loads, mut reads) = (Vec::new(), Vec::new());
    let order = shuffled(SMALL_COUNT, 7);
    let before = cpu_by_thread();
    for turn in 0..IDLE_LOADS + IDLE_LOADS / 10 {
        support::pause(IDLE_PAUSE);
        let at = order[order.len() - 1 - turn] as u64 % blocks * SMALL as u64;
        let (read, ()) = timed(|| support::read_block(&direct, &mut block, at));
        support::pause(IDLE_PAUSE);
        let (load, asset) = timed(|| wait_for(runtime.load(&names[order[turn]])));
        assert_eq!(asset.expect("it is answered").len(), SMALL, "an asset is whole");
        // The first warm up.
        if turn >= IDLE_LOADS / 10 {
            reads.push(read.as_secs_f64() * 1e6);
            loads.push(load.as_secs_f64() * 1e6);
        }
    }
    let cpu = cpu_since(&before);
    println!("One cold 4 KiB load at idle, {IDLE_LOADS} of each in turn:\n");
    head(&["what", "median, µs", "p90", "p99"]);
    for (what, times) in [("pread with O_DIRECT", &reads), ("load", &loads)] {
        let cells = [0.5, 0.9, 0.99].map(|share| format!("{:.1}", quantile(times.clone(), share)));
        row(&[what.into(), cells[0].clone(), cells[1].clone(), cells[2].clone()]);
    }
    println!(
        "\nA load's median is {:.1} µs above the read's (goal: within 60 µs). CPU of a turn by thread: {}.\n",
        median(loads) - median(reads),
        Run { seconds: 0.0, cpu }.threads(IDLE_LOADS + IDLE_LOADS / 10)
    );
    wait_for(async { drop(runtime.shutdown(Duration::from_secs(10)).await) });
    drop(warm);
}

/// Waits on this thread, without an executor.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Loads, and nothing else: what scripts/callgrind.sh counts the instructions of.
fn load_only(file: &Path, loads: usize) {
    let assets = storage(file).len().expect("it is there") as usize / SMALL;
    drop_cached(file).expect("its pages are dropped");
    let order = shuffled(assets / 2, 1).into_iter().take(loads).collect();
    let run = load_all(file, &names(assets / 2), order, 32, 32, BUDGET_BYTES);
    println!("{loads} loads in {:.3} s, {}", run.seconds, run.threads(loads));
}
