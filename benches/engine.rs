//! The read engine alone beside `fio` on the same file with the same depth and flags: operations per second, bytes per
//! second, processor time per read, latency of single reads. Each pair runs in turns, and medians are shown.
//!
//! ```sh
//! cargo bench --bench engine              # all; needs fio, and 1 GiB in the folder of the build or in FLYLOFT_BENCH_DIR
//! cargo bench --bench engine -- --quick   # shorter turns
//! cargo bench --bench engine -- threads   # the positioned engine by number of threads
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use flyloft::config::Engine;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::platform::io::{Access, Driver, DriverConfig, ReadDone, ReadOp};
use flyloft::platform::memory::BufferPool;
use flyloft::platform::random::{Random, SeededRandom};
use flyloft::platform::threads::OsThreads;
use flyloft::storage::ReadAt;

const FILE_BYTES: u64 = 1 << 30;
const TURNS: usize = 5;

/// One row: what is asked of both.
#[derive(Clone, Copy)]
struct Load {
    what: &'static str,
    bytes: usize,
    depth: usize,
}

/// What one turn gave.
#[derive(Clone, Copy, Default)]
struct Turn {
    per_second: f64,
    cpu_us: f64,
    latency_us: f64,
}

/// The engine's own settings of a row.
#[derive(Clone, Copy)]
struct Setup {
    name: &'static str,
    engine: Engine,
    sqpoll: bool,
    adaptive: bool,
    pool: bool,
    threads: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seconds = if args.iter().any(|arg| arg == "--quick") { 1.0 } else { 2.0 };
    let folder =
        std::env::var_os("FLYLOFT_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let path = folder.join("engine.bench");
    prepare(&path);
    let source = OsFileSystem.open(&path).expect("the file was just made");
    if source.direct().is_none() {
        println!("note: the file system refuses direct reads; both sides read through the page cache");
    }
    let loads = [
        Load { what: "4 KiB random", bytes: 4096, depth: 1 },
        Load { what: "4 KiB random", bytes: 4096, depth: 32 },
        Load { what: "4 KiB random", bytes: 4096, depth: 128 },
        Load { what: "1 MiB random", bytes: 1 << 20, depth: 8 },
    ];
    let plain =
        Setup { name: "io_uring", engine: Engine::Uring, sqpoll: false, adaptive: false, pool: true, threads: 0 };
    let mut setups = vec![
        plain,
        Setup { name: "io_uring, adaptive", adaptive: true, ..plain },
        Setup { name: "io_uring, own buffers", pool: false, ..plain },
        Setup { name: "io_uring, sqpoll", sqpoll: true, ..plain },
        Setup { name: "positioned", engine: Engine::Positioned, ..plain },
    ];
    if args.iter().any(|arg| arg == "threads") {
        let names = ["2 threads", "4 threads", "8 threads", "16 threads", "32 threads", "64 threads"];
        let positioned = Setup { engine: Engine::Positioned, ..plain };
        setups = (1..).zip(names).map(|(power, name)| Setup { name, threads: 1 << power, ..positioned }).collect();
    }
    println!(
        "{:<13} {:>5}  {:<22} {:>10} {:>6} {:>9} {:>9}",
        "reads", "depth", "engine", "per second", "ratio", "cpu us", "mean us"
    );
    for load in loads {
        let mut fio: Vec<Turn> = Vec::new();
        let mut all: Vec<Vec<Turn>> = vec![Vec::new(); setups.len()];
        for _ in 0..TURNS {
            fio.extend(fio_turn(&path, load, seconds));
            for (setup, turns) in setups.iter().zip(&mut all) {
                turns.extend(turn(&source, load, *setup, seconds));
            }
        }
        let base = median(&fio);
        row(load, "fio", base, 1.0);
        for (setup, turns) in setups.iter().zip(&all) {
            let own = median(turns);
            row(load, setup.name, own, own.per_second / base.per_second);
        }
    }
    std::fs::remove_file(&path).expect("the file is ours");
}

fn row(load: Load, name: &str, turn: Turn, ratio: f64) {
    let Load { what, depth, .. } = load;
    let Turn { per_second, cpu_us, latency_us } = turn;
    println!("{what:<13} {depth:>5}  {name:<22} {per_second:>10.0} {ratio:>6.2} {cpu_us:>9.2} {latency_us:>9.1}");
}

fn median(turns: &[Turn]) -> Turn {
    let of = |value: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Turn {
        per_second: of(|turn| turn.per_second),
        cpu_us: of(|turn| turn.cpu_us),
        latency_us: of(|turn| turn.latency_us),
    }
}

/// A file of bytes that do not compress, on the device.
fn prepare(path: &Path) {
    use std::io::Write;
    let random = SeededRandom::new(1);
    let block: Vec<u8> = (0..(1 << 20) / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let mut file = std::fs::File::create(path).expect("a file beside the build");
    for _ in 0..FILE_BYTES / block.len() as u64 {
        file.write_all(&block).expect("room for the file");
    }
    file.sync_all().expect("the file on the device");
}

/// The engine, kept full from its own sink, for `seconds`.
fn turn(source: &Arc<dyn ReadAt>, load: Load, setup: Setup, seconds: f64) -> Option<Turn> {
    let pool =
        setup.pool.then(|| BufferPool::new((load.depth + 2) * load.bytes.max(4096) + (4 << 20), None).expect("memory"));
    let config = DriverConfig {
        depth: load.depth,
        engine: setup.engine,
        pool: pool.clone(),
        adaptive_depth: setup.adaptive,
        threads: setup.threads,
        sqpoll: setup.sqpoll.then(|| Duration::from_millis(50)),
        ..DriverConfig::default()
    };
    let driver = Driver::<Instant>::start(config, &OsThreads).ok()?;
    let blocks = FILE_BYTES / load.bytes as u64;
    let random = SeededRandom::new(7);
    let op = {
        let (source, pool) = (Arc::clone(source), pool.clone());
        move |buffer: Option<flyloft::platform::memory::IoBuffer>| {
            let own = || flyloft::platform::memory::AlignedBuffer::new_zeroed(load.bytes, 4096).expect("memory").into();
            let pooled = || pool.as_ref().and_then(|pool| pool.take(load.bytes)).map(Into::into);
            let buffer = buffer.or_else(pooled).unwrap_or_else(own);
            let offset = random.below(blocks) * load.bytes as u64;
            let source = Arc::clone(&source);
            ReadOp {
                source,
                offset,
                buffer,
                len: load.bytes,
                access: Access::Direct,
                limit: None,
                token: Instant::now(),
            }
        }
    };
    let first: Vec<_> = (0..load.depth).map(|_| op(None)).collect();
    let (tell, told) = mpsc::channel();
    let count = Arc::new(AtomicU64::new(0));
    let nanos = Arc::new(AtomicU64::new(0));
    let (within, counted, waited) = (Arc::downgrade(&driver), Arc::clone(&count), Arc::clone(&nanos));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    driver.attach(Box::new(move |dones: Vec<ReadDone<Instant>>| {
        let now = Instant::now();
        counted.fetch_add(dones.len() as u64, Ordering::Relaxed);
        waited.fetch_add(dones.iter().map(|done| (now - done.token).as_nanos() as u64).sum(), Ordering::Relaxed);
        if now >= end {
            let _ = tell.send(());
            return;
        }
        let Some(driver) = within.upgrade() else { return };
        let next = dones.into_iter().map(|done| {
            done.result.expect("a read within the file");
            op(Some(done.buffer))
        });
        driver.submit(next.collect());
    }));
    let (start, cpu) = (Instant::now(), cpu_time());
    driver.submit(first);
    told.recv().ok()?;
    let (passed, cpu) = (start.elapsed(), cpu_time() - cpu);
    let done = count.load(Ordering::Relaxed) as f64;
    if std::env::var_os("FLYLOFT_BENCH_STATS").is_some() {
        eprintln!("{} {:?}", setup.name, driver.stats());
    }
    driver.stop();
    Some(Turn {
        per_second: done / passed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / done,
        latency_us: nanos.load(Ordering::Relaxed) as f64 / 1e3 / done,
    })
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = text.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("user time") + fields[12].parse::<u64>().expect("system time");
    Duration::from_millis(ticks * 10)
}

/// `fio` with the same depth and flags.
fn fio_turn(path: &Path, load: Load, seconds: f64) -> Option<Turn> {
    let depth = load.depth.to_string();
    let out = Command::new("fio")
        .args(["--name=turn", "--rw=randread", "--ioengine=io_uring", "--direct=1", "--time_based", "--minimal"])
        .args(["--fixedbufs=1", "--registerfiles=1", "--norandommap=1", "--randrepeat=0"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--size={FILE_BYTES}"))
        .arg(format!("--bs={}", load.bytes))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--iodepth_batch_submit={depth}"))
        .arg(format!("--iodepth_batch_complete_max={depth}"))
        .arg(format!("--runtime={}ms", (seconds * 1e3) as u64))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let fields: Vec<f64> =
        text.lines().next()?.split(';').map(|field| field.trim_end_matches('%').parse().unwrap_or(0.0)).collect();
    // The terse format, version 3: IOPS, mean total latency, and the shares of user and system time.
    let (per_second, latency_us) = (*fields.get(7)?, *fields.get(39)?);
    let busy = (fields.get(87)? + fields.get(88)?) / 100.0;
    Some(Turn { per_second, cpu_us: busy * 1e6 / per_second, latency_us })
}
