//! A resident hit of Flyloft's beside other caches and beside a map that never changes, side by side in one run.
//!
//! ```sh
//! scripts/hits.sh                  # a table: one thread, two threads, two threads on one asset
//! scripts/hits.sh --touch          # the first byte is read as well
//! scripts/hits.sh --count guard    # for valgrind: see scripts/hits-callgrind.sh
//! ```
//! 100,000 assets of 64 bytes are resident in a runtime that was started on a folder of files, and the same bytes under
//! the same ids in each peer. Ids are asked for by Zipf's law with exponent 0.99. Times are per hit and thread:
//! the median of the rounds, in each of which every subject has its turn, of the median of the turn's stretches.

mod subjects;
mod zipf;

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use flyloft::{AssetId, Runtime};
use subjects::{Counted, Guard, InSnapshot, Peers, Subject, Value};
use zipf::Zipf;

const ASSETS: usize = 100_000;
const BYTES: usize = 64;
const EXPONENT: f64 = 0.99;
const HITS: usize = 1 << 20;
/// Hits that are timed together.
const STRETCH: usize = 1 << 12;
const THREADS: usize = 2;
const ROUNDS: usize = 11;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value_of = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1).unwrap_or_else(|| panic!("{name} wants a value")).as_str())
    };
    if let Some(subject) = value_of("--count") {
        return count(subject);
    }
    let rounds = value_of("--rounds").map_or(ROUNDS, |text| text.parse().expect("--rounds wants a number"));
    if args.iter().any(|arg| arg == "--touch") { measure::<true>(rounds) } else { measure::<false>(rounds) }
}

/// A runtime in which `count` assets are resident, and their entries.
struct World {
    runtime: Runtime,
    entries: Vec<(u64, Value)>,
    /// Drives the futures of the set-up.
    host: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(count: usize) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = folder.path().join("tree");
        let paths: Vec<String> = (0..count).map(|asset| format!("{:03}/{asset}.bin", asset / 256)).collect();
        let bytes = |path: &str| path.bytes().cycle().take(BYTES).collect::<Vec<u8>>();
        for path in &paths {
            let file = tree.join(path);
            std::fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder");
            std::fs::write(file, bytes(path)).expect("a file");
        }
        let host = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime of tokio's");
        let runtime = host.block_on(start(&tree, &folder.path().join("store"), &paths));
        let entry = |path: &String| (AssetId::of_path(path).0, Value::from(bytes(path)));
        World { runtime, entries: paths.iter().map(entry).collect(), host, _folder: folder }
    }

    /// The ids that one thread asks for.
    fn asked(&self, seed: u64) -> Vec<u64> {
        let mut zipf = Zipf::new(self.entries.len(), EXPONENT, seed);
        // The hottest ids are not neighbours in memory: files were loaded in another order than ranks.
        let spread = |rank: usize| (rank as u64 * 0x9e37_79b1 % self.entries.len() as u64) as usize;
        (0..HITS).map(|_| self.entries[spread(zipf.rank())].0).collect()
    }
}

async fn start(tree: &Path, store: &Path, paths: &[String]) -> Runtime {
    let builder = Runtime::builder().directory(tree).store(store).budget_bytes(256 << 20);
    let runtime = builder.start().await.expect("the tree is served");
    for loads in paths.chunks(4096) {
        runtime.load_many(loads).all().await.expect("every asset is loaded");
    }
    assert!(paths.iter().all(|path| runtime.get(path).is_some()), "every asset is resident");
    runtime
}

fn use_of<const TOUCH: bool>(bytes: &[u8]) -> usize {
    if TOUCH { usize::from(bytes[0]) } else { bytes.len() }
}

/// Nanoseconds per hit of one thread: the median of its stretches, so that one in which the operating system ran
/// something else does not count.
fn run<const TOUCH: bool, S: Subject>(subject: &S, ids: &[u64]) -> f64 {
    let mut times: Vec<f64> = Vec::with_capacity(ids.len().div_ceil(STRETCH));
    for stretch in ids.chunks(STRETCH) {
        let start = Instant::now();
        let mut sum = 0;
        for id in stretch {
            sum += subject.hit(*id, |bytes| black_box(use_of::<TOUCH>(bytes)));
        }
        black_box(sum);
        times.push(start.elapsed().as_nanos() as f64 / stretch.len() as f64);
    }
    median(&mut times)
}

/// Nanoseconds per hit of each of several threads at once: of the slowest of them.
fn run_threads<const TOUCH: bool, S: Subject>(subject: &S, sequences: &[Vec<u64>]) -> f64 {
    let barrier = Barrier::new(sequences.len());
    let work = |ids: &[u64]| {
        barrier.wait();
        run::<TOUCH, S>(subject, ids)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = sequences.iter().map(|ids| scope.spawn(|| work(ids))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).fold(0.0, f64::max)
    })
}

#[derive(Default)]
struct Times {
    name: &'static str,
    one: Vec<f64>,
    two: Vec<f64>,
    one_asset: Vec<f64>,
    two_asset: Vec<f64>,
}

fn turn<const TOUCH: bool, S: Subject>(times: &mut Times, subject: &S, zipf: &[Vec<u64>], same: &[Vec<u64>]) {
    times.name = subject.name();
    times.one.push(run_threads::<TOUCH, S>(subject, &zipf[..1]));
    times.two.push(run_threads::<TOUCH, S>(subject, zipf));
    times.one_asset.push(run_threads::<TOUCH, S>(subject, &same[..1]));
    times.two_asset.push(run_threads::<TOUCH, S>(subject, same));
}

fn measure<const TOUCH: bool>(rounds: usize) {
    let world = World::new(ASSETS);
    let peers = Peers::with(&world.entries);
    let zipf: Vec<Vec<u64>> = (0..THREADS).map(|thread| world.asked(thread as u64 + 1)).collect();
    let same = vec![vec![world.entries[7].0; HITS]; THREADS];
    let (runtime, snapshot) = (&world.runtime, world.runtime.snapshot());
    let (counted, guard) = (Counted(runtime.clone()), Guard(runtime.clone()));
    let in_snapshot = InSnapshot(snapshot);
    let mut all: [Times; 8] = Default::default();
    for round in 0..=rounds {
        turn::<TOUCH, _>(&mut all[0], &peers.bare, &zipf, &same);
        turn::<TOUCH, _>(&mut all[1], &counted, &zipf, &same);
        turn::<TOUCH, _>(&mut all[2], &in_snapshot, &zipf, &same);
        turn::<TOUCH, _>(&mut all[3], &guard, &zipf, &same);
        turn::<TOUCH, _>(&mut all[4], &peers.quick, &zipf, &same);
        turn::<TOUCH, _>(&mut all[5], &peers.dash, &zipf, &same);
        turn::<TOUCH, _>(&mut all[6], &peers.foyer, &zipf, &same);
        turn::<TOUCH, _>(&mut all[7], &peers.moka, &zipf, &same);
        if round == 0 {
            // The first round warms up.
            all = Default::default();
        }
    }
    print(&mut all, rounds, TOUCH);
    world.host.block_on(world.runtime.shutdown(std::time::Duration::from_secs(5)));
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(all: &mut [Times], rounds: usize, touch: bool) {
    let reads = if touch { "the first byte is read" } else { "the length is read" };
    println!("ns per hit and thread, medians of {rounds} rounds; {ASSETS} resident, Zipf {EXPONENT}; {reads}");
    println!(
        "| | 1 thread | 2 threads | scaling | 1 thread, one asset | 2 threads, one asset | scaling | 1 thread / bare |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let bare = median(&mut all[0].one);
    for times in all {
        let (one, two) = (median(&mut times.one), median(&mut times.two));
        let (one_asset, two_asset) = (median(&mut times.one_asset), median(&mut times.two_asset));
        println!(
            "| {} | {one:.1} | {two:.1} | {:.2} | {one_asset:.1} | {two_asset:.1} | {:.2} | {:.2} |",
            times.name,
            2.0 * one / two,
            2.0 * one_asset / two_asset,
            one / bare,
        );
    }
}

/// A fixed number of hits of one subject, for a tool that counts instructions from `counted_hits` on.
fn count(subject: &str) {
    let world = World::new(1000);
    let peers = Peers::with(&world.entries);
    let ids: Vec<u64> = world.asked(1).into_iter().take(100_000).collect();
    let sum = match subject {
        "counted" => counted_hits(&Counted(world.runtime.clone()), &ids),
        "snapshot" => counted_hits(&InSnapshot(world.runtime.snapshot()), &ids),
        "guard" => counted_hits(&Guard(world.runtime.clone()), &ids),
        "bare" => counted_hits(&peers.bare, &ids),
        "quick_cache" => counted_hits(&peers.quick, &ids),
        other => panic!("--count {other}: not one of counted, snapshot, guard, bare, quick_cache"),
    };
    println!("{} hits of {subject}, {sum} bytes", ids.len());
    world.host.block_on(world.runtime.shutdown(std::time::Duration::from_secs(5)));
}

#[inline(never)]
fn counted_hits<S: Subject>(subject: &S, ids: &[u64]) -> usize {
    ids.iter().map(|id| subject.hit(*id, |bytes| black_box(bytes.len()))).sum()
}
