//! What the benches of the read path share: tables, medians, cold caches, processor time by thread, bundles made by
//! the public API, and `fio` as the peer.
#![allow(dead_code)] // Each bench uses a part of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flyloft::bundle::{AssetPut, Bundle, BundleWriter, Changes, ContentPut, EncodeHint, EncodedFrame};
use flyloft::bundle::{Encoder, Params};
use flyloft::config::Layout;
use flyloft::platform::fs::{FileSystem, OsFileSystem, drop_cached};
use flyloft::{AssetPath, ContentHash};

/// What was said on the command line, without what cargo adds.
pub fn args() -> Vec<String> {
    std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect()
}

/// The middle of some values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// The value below which `share` of them lie.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share).ceil() as usize;
    values.get(index.saturating_sub(1).min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The head of a Markdown table: the first column is text, the others are numbers.
pub fn head(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
    let marks: Vec<&str> = (0..columns.len()).map(|column| if column == 0 { "---" } else { "--:" }).collect();
    println!("|{}|", marks.join("|"));
}

/// A row of it.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// 1234567 as 1,234,567.
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// 0..count in an order that looks random and is the same each time.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for index in (1..count).rev() {
        // Xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(index, (state % (index as u64 + 1)) as usize);
    }
    order
}

/// Whether a program is there.
pub fn installed(program: &str) -> bool {
    let found = |folder: &Path| folder.join(program).is_file();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| found(&folder)))
}

/// Empties the page cache, and what is known of names and inodes; needs root. Without it the pages of `files` alone
/// are dropped, and what is known of names stays. Says what was done.
pub fn drop_all(files: impl IntoIterator<Item = PathBuf>) -> &'static str {
    // What is not on the disk yet cannot be dropped.
    let synced = Command::new("sync").status().is_ok_and(|status| status.success());
    if synced && fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return "page cache, names and inodes dropped (drop_caches=3)";
    }
    for file in files {
        drop_cached(&file).expect("a file's pages are dropped");
    }
    "not root: pages dropped file by file, names and inodes still cached"
}

/// Nanoseconds on a processor so far, by the name of the thread; threads of one name (but for a number) together, the first
/// thread as `client`. What the kernel does for a thread in its system calls is in it, what it does in interrupts is not.
pub fn cpu_by_thread() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let own = std::process::id().to_string();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let spent = read("schedstat").split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0u64);
        let name = match task.file_name().to_str() {
            Some(id) if id == own => "client".to_owned(),
            _ => read("comm").trim().trim_end_matches(|at: char| at.is_ascii_digit() || at == '-').to_owned(),
        };
        *all.entry(name).or_default() += spent;
    }
    all
}

/// What each thread has spent since `before`, the largest first.
pub fn cpu_since(before: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let spent = cpu_by_thread().into_iter().map(|(name, now)| {
        let then = before.get(&name).copied().unwrap_or(0);
        (name, now.saturating_sub(then))
    });
    let mut spent: Vec<(String, u64)> = spent.filter(|(_, spent)| *spent > 0).collect();
    spent.sort_by_key(|(_, spent)| std::cmp::Reverse(*spent));
    spent
}

/// Processor seconds of this process so far, of threads that have ended too; the kernel counts in hundredths.
pub fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let spent = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    spent.sum::<f64>() / 100.0
}

/// Bytes of this process's own memory that are in RAM: the heap and stacks, not mapped files.
pub fn resident_own_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// An asset for [`bundle`].
pub struct Item {
    pub path: String,
    pub bytes: Vec<u8>,
}

/// Writes a bundle by the public API: each asset has frames of its own, as large as the layout allows.
pub fn bundle(file: &Path, layout: Layout, items: impl Iterator<Item = Item>) {
    let (storage, _lock) = OsFileSystem.open_writer(file, true).expect("a new file");
    let mut writer = BundleWriter::create(storage, Params::new(layout)).expect("it is empty");
    let mut encoder = Encoder::new(layout);
    let mut changes = Changes::default();
    for Item { path, bytes } in items {
        let mut pieces = Vec::new();
        for part in bytes.chunks(layout.frame_bytes_max()) {
            let frame = encoder.encode(part, EncodeHint::default());
            pieces.push((writer.put_frame(&frame).expect("a frame"), 0, part.len() as u32));
        }
        let path = AssetPath::new(&path).expect("a path");
        let content = ContentPut::New { hash: ContentHash::of(&bytes), len: bytes.len() as u64, pieces };
        let kind = path.kind();
        changes.put.push(AssetPut { kind, path, executable: false, content, dependencies: Vec::new(), build: None });
    }
    let staged = writer.stage(changes).expect("it is staged");
    writer.committer().commit(&staged).expect("it is committed");
}

/// Bytes of an asset of [`small_assets`]; as many as fit share a frame.
const SMALL_BYTES: usize = 32;

/// Writes a bundle of this many small assets, without a file for each. They share frames, as those of a packed tree do.
pub fn small_assets(folder: &Path, assets: usize) -> PathBuf {
    let file = folder.join(format!("{assets}.loft"));
    let content = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let (storage, _lock) = OsFileSystem.open_writer(&file, true).expect("a new file");
    let mut writer = BundleWriter::create(storage, Params::new(Layout::Access)).expect("it is empty");
    let mut changes = Changes::default();
    let per_frame = Layout::Access.frame_bytes_max() / SMALL_BYTES;
    for first in (0..assets).step_by(per_frame) {
        let numbers = first..assets.min(first + per_frame);
        let bytes: Vec<u8> = numbers.clone().flat_map(content).collect();
        let frame = writer.put_frame(&EncodedFrame::store(&bytes)).expect("a frame");
        for number in numbers {
            let path = AssetPath::new(&small_path(number)).expect("a path");
            let from = ((number - first) * SMALL_BYTES) as u32;
            changes.put.push(AssetPut {
                kind: path.kind(),
                path,
                executable: false,
                content: ContentPut::New {
                    hash: ContentHash::of(&content(number)),
                    len: SMALL_BYTES as u64,
                    pieces: vec![(frame, from, SMALL_BYTES as u32)],
                },
                dependencies: Vec::new(),
                build: None,
            });
        }
    }
    let staged = writer.stage(changes).expect("it is staged");
    writer.committer().commit(&staged).expect("it is committed");
    file
}

/// The path of an asset of [`small_assets`].
pub fn small_path(number: usize) -> String {
    format!("d{:03}/asset-{number:07}.dat", number % 997)
}

/// Opens a bundle and looks every path up, so that its table of contents is in memory, and stays there as long as the
/// answer lives, whatever is dropped.
pub fn warm_contents(file: &Path, paths: &[String]) -> Bundle {
    let storage = OsFileSystem.open(file).expect("the bundle is there");
    let bundle = Bundle::open(storage, true).expect("it is a bundle");
    for path in paths {
        let path = AssetPath::new(path).expect("a path");
        let record = bundle.find(&path).expect("it is read").expect("it is there");
        bundle.placement(&record.content, 0..u64::MAX).expect("it is read").expect("it is there");
    }
    bundle
}

/// What fio measured.
pub struct Fio {
    pub per_second: f64,
    pub bytes_per_second: f64,
    /// Processor time per read, user and system, in microseconds.
    pub cpu_us: f64,
}

/// Random reads of a file by `fio`, io_uring with O_DIRECT; `None` where it is not installed.
pub fn fio(file: &Path, block: usize, depth: usize, reads: usize, seed: u64) -> Option<Fio> {
    let len = fs::metadata(file).ok()?.len() / block as u64 * block as u64;
    let output = Command::new("fio")
        .args(["--name=reads", "--rw=randread", "--ioengine=io_uring", "--direct=1", "--readonly"])
        .args(["--output-format=json", "--allow_file_create=0"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={len}"))
        .arg(format!("--bs={block}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--number_ios={reads}"))
        .arg(format!("--randseed={seed}"))
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let job = &report["jobs"][0];
    let (seconds, total) = (job["read"]["runtime"].as_f64()? / 1e3, job["read"]["total_ios"].as_f64()?);
    // Its own rate is rounded to its run time in milliseconds; so is this.
    let cpu = (job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0 * job["job_runtime"].as_f64()? * 1e3;
    Some(Fio { per_second: total / seconds, bytes_per_second: total * block as f64 / seconds, cpu_us: cpu / total })
}

/// A block for direct reads, aligned as they need it.
#[repr(align(4096))]
pub struct Block(pub [u8; 4096]);

/// Opens a file for reads that pass the page cache; for plain ones where the system has none.
pub fn open_direct(file: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
    options.open(file).expect("the file opens for direct reads")
}

/// Reads the block at `at`.
pub fn read_block(file: &File, block: &mut Block, at: u64) {
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_exact_at(file, &mut block.0, at);
    #[cfg(windows)]
    let read = std::os::windows::fs::FileExt::seek_read(file, &mut block.0, at).map(drop);
    read.expect("a block is read");
}

/// Waits, so that a runtime at work can come to rest: nobody ever sends.
pub fn pause(how_long: Duration) {
    let (_never, waiting) = std::sync::mpsc::channel::<()>();
    waiting.recv_timeout(how_long).ok();
}

/// Times one call.
pub fn timed<R>(call: impl FnOnce() -> R) -> (Duration, R) {
    let began = Instant::now();
    let answer = call();
    (began.elapsed(), answer)
}

/// The storage of a file, as the runtime opens it.
pub fn storage(file: &Path) -> Arc<dyn flyloft::storage::ReadAt> {
    OsFileSystem.open(file).expect("the bundle is there")
}
