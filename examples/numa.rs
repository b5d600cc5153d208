//! What a machine of several NUMA nodes looks like to Flyloft, and what Flyloft does there: a read engine on each node and
//! its share of the threads that decode, pinned; buffers and resident memory of the node; an asset in the memory of the
//! node that asks for it; and how far memory is from each node, measured.
//!
//! Run it with `cargo run --release --example numa`, or on a made-up machine of two nodes with `scripts/numa.sh`. On a
//! machine with one node it says what there is.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use flyloft::Runtime;
use flyloft::config::AssetNode;
use flyloft::platform::affinity::{CpuSet, pin_current};
use flyloft::platform::memory::{AlignedBuffer, BufferPool};
use flyloft::platform::numa;
use flyloft::platform::topology::{Node, Topology};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that are placed and read.
const BYTES: usize = 16 << 20;

fn main() -> Result<(), Failure> {
    let topology = Topology::detect();
    println!("nodes");
    for node in topology.nodes.iter().chain(&topology.memory_only) {
        let far: Vec<String> = node.distances.iter().map(|(to, far)| format!("{far} to {to}")).collect();
        let (cpus, mib) = (CpuSet::from_iter(node.cpus.iter().copied()), node.memory_bytes >> 20);
        let cpus = if node.cpus.is_empty() { "none".to_owned() } else { cpus.to_string() };
        println!("  {}: processors {cpus}, {mib} MiB, distances {}", node.number, far.join(", "));
    }
    println!("memory placed by name, and by who touches it first (pages by node)");
    for node in &topology.nodes {
        println!("  asked for on {}, touched by processor 0's node: {}", node.number, shown(placed(node)?));
        println!("  touched first by node {}: {}", node.number, shown(on(node, touched)??));
    }
    println!("reading {} MiB of a node's memory from a node's processor", BYTES >> 20);
    for from in &topology.nodes {
        for of in topology.nodes.iter().chain(&topology.memory_only) {
            let rate = on(from, || bandwidth(of))??;
            println!("  node {} reads node {}: {:.1} GB/s", from.number, of.number, rate / 1e9);
        }
    }
    served(&topology)
}

/// Runs `body` on a thread that is pinned to `node`.
fn on<T: Send>(node: &Node, body: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let cpus: CpuSet = node.cpus.iter().copied().collect();
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            // Where a thread cannot be pinned the figures are of wherever it runs.
            drop(pin_current(&cpus));
            body()
        });
        pinned.join().map_err(|_| "a thread panicked".into())
    })
}

/// A pool of read buffers for `node`, as the runtime makes it, touched from here.
fn placed(node: &Node) -> Result<BTreeMap<usize, usize>, Failure> {
    let bind = |start: NonNull<u8>, len| numa::prefer(start, len, node.number);
    let pool = BufferPool::new(BYTES, Some(&bind))?;
    let mut buffer = pool.take(BufferPool::part_bytes_max()).ok_or("a fresh pool has room")?;
    buffer.as_mut_slice().fill(1);
    Ok(numa::pages_by_node(buffer.as_slice()).unwrap_or_default())
}

fn touched() -> Result<BTreeMap<usize, usize>, Failure> {
    let mut buffer = AlignedBuffer::new_zeroed(BYTES, 4096).ok_or("no memory")?;
    buffer.as_mut_slice().fill(1);
    Ok(numa::pages_by_node(buffer.as_slice()).unwrap_or_default())
}

/// Bytes per second that the calling thread reads of `node`'s memory: the best of several rounds.
fn bandwidth(node: &Node) -> Result<f64, Failure> {
    let mut buffer = AlignedBuffer::new_zeroed(BYTES, 4096).ok_or("no memory")?;
    // Where it cannot be bound it is on this thread's own node.
    let _ = numa::prefer(NonNull::from(buffer.as_mut_slice()).cast(), BYTES, node.number);
    buffer.as_mut_slice().fill(1);
    let round = || {
        let began = Instant::now();
        let sum: u64 = black_box(buffer.as_slice()).chunks_exact(8).map(|word| u64::from(word[0])).sum();
        black_box(sum);
        BYTES as f64 / began.elapsed().as_secs_f64()
    };
    Ok((0..7).map(|_| round()).fold(0.0, f64::max))
}

/// A runtime on this machine: where its threads may run, as the kernel says, and that it serves.
fn served(topology: &Topology) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("flyloft-numa-{}", std::process::id()));
    let tree = folder.join("tree");
    fs::create_dir_all(&tree)?;
    let result = load(topology, &folder, &tree);
    fs::remove_dir_all(&folder)?;
    result
}

fn load(topology: &Topology, folder: &std::path::Path, tree: &std::path::Path) -> Result<(), Failure> {
    let count = 64;
    for number in 0..count {
        // Runs of sixteen equal bytes, different in every file: they compress, and no two share a frame.
        let byte = |at: u64| ((at / 16 + ((number as u64 + 1) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let bytes: Vec<u8> = (0..256 << 10).map(byte).collect();
        fs::write(tree.join(format!("{number:02}.bin")), bytes)?;
    }
    let runtime = Runtime::builder().directory(tree).store(folder.join("store")).start_blocking()?;
    println!("threads of the runtime, and where the kernel lets them run");
    for ((name, cpus), count) in threads() {
        println!("  {count} of {name}: {cpus}");
    }
    println!("assets that a node's thread asks for, to have them near");
    let share = count / topology.nodes.len();
    for (place, node) in topology.nodes.iter().enumerate() {
        let names: Vec<String> =
            (place * share..(place + 1) * share).map(|number| format!("{number:02}.bin")).collect();
        let assets = on(node, || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok::<_, Failure>(executor.block_on(runtime.load_many(names).node(AssetNode::Asker).all())?)
        })??;
        let mut pages = BTreeMap::new();
        for asset in &assets {
            for (node, count) in numa::pages_by_node(asset).unwrap_or_default() {
                *pages.entry(node).or_insert(0) += count;
            }
        }
        println!("  node {}: {} assets, pages: {}", node.number, assets.len(), shown(pages));
    }
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    executor.block_on(runtime.shutdown(Duration::from_secs(5)));
    println!("what each node did");
    for engine in runtime.status().engines {
        let (reads, jobs) = (engine.stats.completed, engine.decoding.finished);
        println!("  node {}: {reads} reads by {}, {jobs} jobs of decoding", engine.node, engine.engine);
    }
    Ok(())
}

/// The threads for I/O and decoding: name, as far as the kernel keeps it, and processors, and how many there are of each.
fn threads() -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let text = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let name = text("comm").trim().to_owned();
        let status = text("status");
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if name.starts_with("flyloft-io") || name.starts_with("flyloft-decode") {
            *found.entry((name, cpus.unwrap_or("not known").trim().to_owned())).or_insert(0) += 1;
        }
    }
    found
}

fn shown(pages: BTreeMap<usize, usize>) -> String {
    let pages: Vec<String> = pages.iter().map(|(node, pages)| format!("{pages} on node {node}")).collect();
    if pages.is_empty() { "not known here".to_owned() } else { pages.join(", ") }
}
