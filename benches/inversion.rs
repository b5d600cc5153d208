//! Priority inversion: what one critical load takes while low-priority streaming saturates the disk, beside what it takes
//! at idle, and what the streaming reaches beside `fio`.
//!
//! ```sh
//! cargo bench --bench inversion [-- ROUNDS]
//! ```
//! One bundle of stored assets of 4 KiB, 64 KiB and 1 MiB, read past the page cache. Critical loads of 4 KiB or 64 KiB come
//! one at a time, either each as soon as the one before is answered or one every 2 ms, first on a runtime that does
//! nothing else, then on one that streams the 1 MiB assets at low priority, 64 loads at a time, within a budget that
//! holds a part of them. `fio` (io_uring, O_DIRECT) reads the same file with large reads at depth: that is the disk's
//! bandwidth; and reads 4 KiB at a time beside its own streaming of 128 KiB reads: that is what the device itself does to
//! a small read among large ones. Runtime and fio take turns; figures are medians of the rounds.
//!
//! Goal: the critical p99 within 1.5 times its idle value while low priority reaches 70 % of the disk's bandwidth.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use flyloft::config::{DirectIo, IoConfig, Layout};
use flyloft::{Priority, Runtime, RuntimeConfig};
use support::{Item, bundle, count, cpu_by_thread, cpu_since, head, median, noise, quantile, row, shuffled};

const ROUNDS: usize = 5;
const SIZES: [(&str, usize); 2] = [("4 KiB", 4 << 10), ("64 KiB", 64 << 10)];
const URGENT_COUNT: usize = 1024;
const STREAMED: usize = 1 << 20;
const STREAMED_COUNT: usize = 384;
/// Holds a part of what is streamed, so that every streamed load reads.
const BUDGET_BYTES: u64 = 192 << 20;
/// Streaming loads at once.
const STREAMS: usize = 64;
/// Critical loads of one measurement.
const LOADS: usize = 400;
/// Streamed loads before the measurement begins: memory is in steady use from then on.
const SETTLE: usize = 400;
/// Between two critical loads, where they do not come back to back.
const PACE: Duration = Duration::from_millis(2);

fn main() {
    let rounds = support::args().first().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("inversion.loft");
    make(&file);
    if !support::installed("fio") {
        println!("fio is not installed: the runtime's own figures stand without it\n");
    }
    // By pace and size: p50 and p99 in microseconds and loads at idle, the same beside streaming, and streamed bytes
    // per second.
    let mut cases: Vec<Case> = Vec::new();
    for pace in [None, Some(PACE)] {
        cases.extend(SIZES.map(|(what, len)| Case { what, len, pace, ..Case::default() }));
    }
    let (mut disk, mut alone, mut device) = (vec![], vec![], DeviceCase::default());
    for round in 0..rounds {
        let large: Vec<f64> = [(1 << 20, 8), (1 << 20, 32), (128 << 10, 32)]
            .into_iter()
            .filter_map(|(block, depth)| support::fio(&file, block, depth, (512 << 20) / block, round as u64))
            .map(|fio| fio.bytes_per_second)
            .collect();
        disk.extend(large.into_iter().max_by(f64::total_cmp));
        alone.push(streaming(&file, |progress| progress.wait_for(4 * SETTLE)).0);
        device.measure(&file);
        for case in &mut cases {
            case.measure(&file, round as u64);
        }
    }
    let disk = median(disk);
    println!(
        "Critical loads, one at a time, {LOADS} in each of {rounds} rounds; low-priority streaming of 1 MiB assets:\n"
    );
    head(&["critical loads", "idle p50, µs", "p99", "streaming p50", "p99", "p99 ratio", "low MB/s", "of the disk's"]);
    for case in &cases {
        let pace = if case.pace.is_some() { "one every 2 ms" } else { "back to back" };
        case.print(&format!("{}, {pace}", case.what), disk);
    }
    device.print(disk);
    println!(
        "\nThe disk, by fio's best of large reads at depth: {} MB/s; low priority alone: {} MB/s.",
        mega(disk),
        mega(median(alone))
    );
    println!("Goal: a p99 ratio of at most 1.5 with at least 0.70 of the disk's bandwidth.");
    for case in &cases {
        println!("CPU beside streaming, {}: {}", case.what, case.threads);
    }
}

fn mega(rate: f64) -> String {
    count(rate / 1e6)
}

fn make(file: &Path) {
    let urgent = SIZES.iter().flat_map(|(_, len)| {
        (0..URGENT_COUNT)
            .map(move |number| Item { path: urgent(*len, number), bytes: noise((len + number) as u64, *len) })
    });
    let streamed =
        (0..STREAMED_COUNT).map(|number| Item { path: streamed(number), bytes: noise(!(number as u64), STREAMED) });
    bundle(file, Layout::Access, urgent.chain(streamed));
}

fn urgent(len: usize, number: usize) -> String {
    format!("urgent/{len}-{number:05}.raw")
}

fn streamed(number: usize) -> String {
    format!("streamed/{number:05}.raw")
}

fn start(file: &Path) -> Runtime {
    let io = IoConfig { direct: DirectIo::Always, ..IoConfig::default() };
    let config = RuntimeConfig { budget_bytes: BUDGET_BYTES, io, ..RuntimeConfig::default() };
    Runtime::builder().bundle(file).config(config).start_blocking().expect("the bundle opens")
}

/// What a pace and a size measured, one value of each round.
#[derive(Default)]
struct Case {
    what: &'static str,
    len: usize,
    pace: Option<Duration>,
    idle: [Vec<f64>; 2],
    busy: [Vec<f64>; 2],
    ratios: Vec<f64>,
    low: Vec<f64>,
    threads: String,
}

impl Case {
    fn measure(&mut self, file: &Path, seed: u64) {
        let runtime = start(file);
        let idle = self.loads(&runtime, seed);
        finish(runtime);
        let mut spent = Vec::new();
        let (low, busy) = streaming(file, |progress| {
            progress.wait_for(SETTLE);
            let before = cpu_by_thread();
            let busy = progress.measured(|| self.loads(&progress.runtime, seed));
            spent = cpu_since(&before);
            busy
        });
        let all: u64 = spent.iter().map(|(_, spent)| spent).sum();
        let part = |(name, spent): &(String, u64)| format!("{name} {:.0} %", *spent as f64 * 100.0 / all as f64);
        self.threads = spent.iter().take(5).map(part).collect::<Vec<_>>().join(", ");
        let quantiles = |times: &[f64]| [0.5, 0.99].map(|share| quantile(times.to_vec(), share));
        let (idle, busy) = (quantiles(&idle), quantiles(&busy));
        for at in 0..2 {
            self.idle[at].push(idle[at]);
            self.busy[at].push(busy[at]);
        }
        self.ratios.push(busy[1] / idle[1]);
        self.low.push(low);
    }

    /// Microseconds of each critical load.
    fn loads(&self, runtime: &Runtime, seed: u64) -> Vec<f64> {
        let order = shuffled(URGENT_COUNT, seed);
        let warm_up = LOADS / 10;
        let mut times = Vec::with_capacity(LOADS);
        for (turn, number) in order.into_iter().take(LOADS + warm_up).enumerate() {
            if let Some(pace) = self.pace {
                support::pause(pace);
            }
            let began = Instant::now();
            let request = runtime.request(urgent(self.len, number)).priority(Priority::Critical);
            let asset = wait_for(request.send()).expect("it is answered");
            let took = began.elapsed();
            assert_eq!(asset.len(), self.len, "an asset is whole");
            if turn >= warm_up {
                times.push(took.as_secs_f64() * 1e6);
            }
        }
        times
    }

    fn print(&self, what: &str, disk: f64) {
        let low = median(self.low.clone());
        let of = |values: &[Vec<f64>; 2]| [0, 1].map(|at| format!("{:.0}", median(values[at].clone())));
        let ([idle50, idle99], [busy50, busy99]) = (of(&self.idle), of(&self.busy));
        let ratio = format!("{:.2}", median(self.ratios.clone()));
        row(&[what.into(), idle50, idle99, busy50, busy99, ratio, mega(low), format!("{:.2}", low / disk)]);
    }
}

/// Low-priority loads under way.
struct Progress {
    runtime: Runtime,
    loaded: AtomicUsize,
    bytes: AtomicU64,
    stop: AtomicBool,
    /// What was measured in, in nanoseconds, and the bytes streamed in that time.
    window: [AtomicU64; 2],
}

impl Progress {
    fn wait_for(&self, loaded: usize) {
        while self.loaded.load(Ordering::Relaxed) < loaded {
            support::pause(Duration::from_millis(1));
        }
    }

    /// Counts what is streamed while `measure` runs.
    fn measured<R>(&self, measure: impl FnOnce() -> R) -> R {
        let (began, before) = (Instant::now(), self.bytes.load(Ordering::Relaxed));
        let measured = measure();
        self.window[0].store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.window[1].store(self.bytes.load(Ordering::Relaxed) - before, Ordering::Relaxed);
        measured
    }
}

/// Streams at low priority while `meanwhile` runs: bytes per second, of what it measured or else of all.
fn streaming<R>(file: &Path, meanwhile: impl FnOnce(&Progress) -> R) -> (f64, R) {
    let progress = Arc::new(Progress {
        runtime: start(file),
        loaded: AtomicUsize::new(0),
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        window: Default::default(),
    });
    let streamer = {
        let progress = Arc::clone(&progress);
        std::thread::Builder::new().name("streamer".into()).spawn(move || stream(&progress)).expect("a thread")
    };
    let began = Instant::now();
    let measured = meanwhile(&progress);
    let (all, bytes) = (began.elapsed(), progress.bytes.load(Ordering::Relaxed));
    progress.stop.store(true, Ordering::Relaxed);
    streamer.join().expect("the streamer does not panic");
    let [nanos, within] = [0, 1].map(|at| progress.window[at].load(Ordering::Relaxed));
    let rate = if nanos > 0 { within as f64 * 1e9 / nanos as f64 } else { bytes as f64 / all.as_secs_f64() };
    finish(Arc::into_inner(progress).expect("the streamer is gone").runtime);
    (rate, measured)
}

fn stream(progress: &Arc<Progress>) {
    let executor = tokio::runtime::Builder::new_current_thread().build().expect("an executor");
    let next = Arc::new(AtomicUsize::new(0));
    executor.block_on(async {
        let stream = || {
            let (progress, next) = (Arc::clone(progress), Arc::clone(&next));
            tokio::spawn(async move {
                while !progress.stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed) % STREAMED_COUNT;
                    let request = progress.runtime.request(streamed(number)).priority(Priority::Low);
                    let asset = request.send().await.expect("it is answered");
                    progress.bytes.fetch_add(asset.len() as u64, Ordering::Relaxed);
                    progress.loaded.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let streams: Vec<_> = (0..STREAMS).map(|_| stream()).collect();
        for stream in streams {
            stream.await.expect("a stream does not panic");
        }
    });
}

fn finish(runtime: Runtime) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
}

/// What the device does to single small reads, by fio: at idle, and beside two streams of 128 KiB reads.
#[derive(Default)]
struct DeviceCase {
    idle: [Vec<f64>; 2],
    busy: [Vec<f64>; 2],
    ratios: Vec<f64>,
    low: Vec<f64>,
}

impl DeviceCase {
    fn measure(&mut self, file: &Path) {
        let (Some(idle), Some(busy)) = (device(file, None), device(file, Some(2))) else { return };
        for at in 0..2 {
            self.idle[at].push(idle.0[at]);
            self.busy[at].push(busy.0[at]);
        }
        self.ratios.push(busy.0[1] / idle.0[1]);
        self.low.push(busy.1);
    }

    fn print(self, disk: f64) {
        if self.low.is_empty() {
            return;
        }
        let Self { idle, busy, ratios, low } = self;
        Case { idle, busy, ratios, low, ..Case::default() }.print("fio: 4 KiB beside 128 KiB at depth 2", disk);
    }
}

/// p50 and p99 of single 4 KiB reads in microseconds, and bytes per second of the 128 KiB reads at `depth` beside them.
fn device(file: &Path, depth: Option<usize>) -> Option<([f64; 2], f64)> {
    let mut fio = Command::new("fio");
    fio.args(["--output-format=json", "--allow_file_create=0", "--readonly", "--rw=randread", "--direct=1"])
        .args(["--ioengine=io_uring", "--time_based", "--runtime=1"])
        .arg(format!("--filename={}", file.display()))
        .args(["--name=small", "--bs=4k", "--iodepth=1"]);
    if let Some(depth) = depth {
        fio.args(["--name=large", "--bs=128k"]).arg(format!("--iodepth={depth}"));
    }
    let output = fio.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let small = &report["jobs"][0]["read"]["clat_ns"]["percentile"];
    let quantiles = [small["50.000000"].as_f64()? / 1e3, small["99.000000"].as_f64()? / 1e3];
    let large = report["jobs"][1]["read"]["bw_bytes"].as_f64();
    Some((quantiles, large.unwrap_or(0.0)))
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
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
