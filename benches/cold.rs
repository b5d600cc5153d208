//! A tree of small files, all of it, cold: from its bundle through the whole runtime, beside reading the files, a
//! streamed tar.zst, squashfs and zip.
//!
//! ```sh
//! cargo bench --bench cold [-- FOLDER]
//! ```
//! The folder is .corpus/docs (scripts/corpus.sh docs) unless another is named. Before each run the page cache, names
//! and inodes are dropped, which needs root; without it only the pages of the files are, and the files' figures are too
//! good. Everything reads through the page cache or as it sees fit, and everybody knows the paths beforehand but tar,
//! unzip and their like, which need none. A run of the runtime begins before the bundle is opened and ends when the
//! last asset is in memory; all stay there, but where each is let go of as it comes, as the others do, within a budget
//! that is a tenth of the tree. Figures are medians of the rounds in which all take turns. What is not installed, or
//! cannot be mounted, is skipped and said so.

mod support;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flyloft::build::{BuildOptions, NoProgress, pack};
use flyloft::config::Layout;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;
use flyloft::{Asset, Runtime};
use support::{count, cpu_by_thread, cpu_since, drop_all, head, installed, median, row, timed};

const ROUNDS: usize = 3;
const BUDGET_BYTES: u64 = 2 << 30;
const CLIENTS: usize = 64;
/// Of who lets go of each asset as it comes.
const PASSING_BUDGET_BYTES: u64 = 64 << 20;
const PASSING_CLIENTS: usize = 4;
/// Assets that each of these asks for at once.
const PASSING_ASSETS: usize = 128;

/// How the runtime is asked.
#[derive(Clone, Copy)]
enum Asked {
    AtOnce,
    ByClients,
    Passing,
}

/// One way to get at every byte of the tree.
struct Way<'t> {
    name: String,
    /// None for the tree itself.
    archive: Option<PathBuf>,
    run: Box<dyn Fn() -> Taken + 't>,
}

struct Taken {
    seconds: f64,
    /// Bytes seen: at least those of the tree.
    bytes: u64,
    /// Processor seconds of the runtime's threads.
    cpu: String,
}

/// Times what reads the bytes that it answers.
fn taken(read: impl FnOnce() -> u64) -> Taken {
    let (took, bytes) = timed(read);
    Taken { seconds: took.as_secs_f64(), bytes, cpu: String::new() }
}

fn main() {
    let root = support::args()
        .first()
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".corpus/docs"), PathBuf::from);
    let Ok(root) = root.canonicalize() else {
        return println!("{}: not there; name a folder, or run scripts/corpus.sh docs", root.display());
    };
    let tree = Tree::read(&root);
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mounted = scratch.path().join("mounted");
    let mut ways = vec![files("files, 1 thread", &root, &tree, 1)];
    ways.push(files("files, 2 threads", &root, &tree, 2));
    ways.push(files("files, 32 threads", &root, &tree, 32));
    ways.extend(tar(scratch.path(), &root));
    let squash = Squash::mount(scratch.path(), &root, &mounted);
    if squash.is_some() {
        for threads in [2, 32] {
            let mut way = files(&format!("squashfs (zstd), mounted, {threads} threads"), &mounted, &tree, threads);
            way.archive = Some(scratch.path().join("tree.squashfs"));
            ways.push(way);
        }
    }
    ways.extend(zip(scratch.path(), &root));
    for layout in [Layout::Access, Layout::Dense] {
        let file = scratch.path().join(format!("{}.loft", layout.name()));
        let options = BuildOptions { layout, ..BuildOptions::default() };
        pack(Arc::new(OsFileSystem), Arc::new(SystemClock), &root, &file, options, &NoProgress).expect("it packs");
        for (what, asked) in [
            ("asked for at once", Asked::AtOnce),
            ("by 64 clients", Asked::ByClients),
            ("each let go of, budget 64 MiB", Asked::Passing),
        ] {
            let (file, tree) = (file.clone(), &tree);
            ways.push(Way {
                name: format!("flyloft, {}, {what}", layout.name()),
                archive: Some(file.clone()),
                run: Box::new(move || runtime(&file, tree, asked)),
            });
        }
    }

    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut cpu = vec![String::new(); ways.len()];
    let mut how = "";
    for _ in 0..ROUNDS {
        for (index, way) in ways.iter().enumerate() {
            let all = tree.paths.iter().map(|path| root.join(path)).chain(way.archive.clone());
            how = drop_all(all);
            let taken = (way.run)();
            assert!(taken.bytes >= tree.bytes, "{}: {} of {} bytes were read", way.name, taken.bytes, tree.bytes);
            seconds[index].push(taken.seconds);
            cpu[index] = taken.cpu;
        }
    }
    println!(
        "{}: {} files, {} bytes, cold ({how}), medians of {ROUNDS} runs in turn:\n",
        root.display(),
        count(tree.paths.len() as f64),
        count(tree.bytes as f64)
    );
    head(&[
        "what",
        "archive, MB",
        "seconds",
        "MB/s",
        "faster than two threads",
        "than 32",
        "than tar.zst",
        "CPU s by thread",
    ]);
    let medians: Vec<f64> = seconds.into_iter().map(median).collect();
    let of = |name: &str| ways.iter().position(|way| way.name == name).map_or(f64::NAN, |index| medians[index]);
    let bases = ["files, 2 threads", "files, 32 threads", STREAMED].map(of);
    for ((way, median), cpu) in ways.iter().zip(&medians).zip(cpu) {
        let size = |file: &PathBuf| format!("{:.1}", fs::metadata(file).map_or(0.0, |stat| stat.len() as f64 / 1e6));
        let mut cells = vec![
            way.name.clone(),
            way.archive.as_ref().map_or(String::new(), size),
            format!("{median:.2}"),
            count(tree.bytes as f64 / median / 1e6),
        ];
        cells.extend(
            bases.iter().map(|base| if base.is_nan() { String::new() } else { format!("{:.2}", base / median) }),
        );
        cells.push(cpu);
        row(&cells);
    }
    println!("\nGoal: 8 times faster than two threads, 3 times faster than 32, as fast as the streamed tar.zst.");
    drop(ways);
    drop(squash);
}

/// The files of a tree, in path order.
struct Tree {
    paths: Vec<String>,
    bytes: u64,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut waiting = vec![root.to_owned()];
        let (mut paths, mut bytes) = (Vec::new(), 0);
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
                let path = entry.path();
                let Ok(stat) = fs::symlink_metadata(&path) else { continue };
                if stat.is_dir() {
                    waiting.push(path);
                } else if stat.is_file() {
                    bytes += stat.len();
                    let below = path.strip_prefix(root).expect("it lies below");
                    paths.push(below.to_str().expect("a path in UTF-8").to_owned());
                }
            }
        }
        paths.sort_unstable();
        Self { paths, bytes }
    }
}

/// Reads every file, on so many threads.
fn files<'t>(name: &str, root: &Path, tree: &'t Tree, threads: usize) -> Way<'t> {
    let root = root.to_owned();
    let read_all = move || {
        let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        let read = || {
            while let Some(path) = tree.paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let content = fs::read(root.join(path)).expect("a file is read");
                bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(read);
            }
        });
        bytes.into_inner()
    };
    Way { name: name.to_owned(), archive: None, run: Box::new(move || taken(&read_all)) }
}

const STREAMED: &str = "tar.zst, streamed in this process";

/// `tar | zstd -3`, streamed by this process and by the programs.
fn tar(scratch: &Path, root: &Path) -> Vec<Way<'static>> {
    if !installed("tar") || !installed("zstd") {
        println!("tar or zstd is not installed: skipped");
        return Vec::new();
    }
    let archive = scratch.join("tree.tar.zst");
    let call = format!("tar -C '{}' -cf - . | zstd -3 -T0 -q -o '{}'", root.display(), archive.display());
    shell(&call);
    let (one, two) = (archive.clone(), archive.clone());
    vec![
        Way {
            name: STREAMED.into(),
            archive: Some(archive.clone()),
            run: Box::new(move || taken(|| stream_tar(&one).expect("the archive is read"))),
        },
        Way {
            name: "tar.zst, by zstd and tar".into(),
            archive: Some(archive),
            run: Box::new(move || taken(|| piped(&format!("zstd -dcq '{}' | tar -xOf -", two.display())))),
        },
    ]
}

/// Decodes an archive and gives each file memory of its own, as a reader would; answers the bytes of the files.
fn stream_tar(archive: &Path) -> io::Result<u64> {
    let mut stream = io::BufReader::with_capacity(1 << 20, zstd::stream::read::Decoder::new(File::open(archive)?)?);
    let mut header = [0; 512];
    let mut total = 0;
    loop {
        stream.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(total);
        }
        let digits = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let len = digits.fold(0u64, |len, digit| len * 8 + u64::from(digit - b'0'));
        let mut bytes = vec![0; len.next_multiple_of(512) as usize];
        stream.read_exact(&mut bytes)?;
        // Only files: long names and attributes come as entries of their own.
        if matches!(header[156], b'0' | 0) {
            total += std::hint::black_box(&bytes[..len as usize]).len() as u64;
        }
    }
}

/// A squashfs of the tree while it is mounted.
struct Squash(PathBuf);

impl Squash {
    fn mount(scratch: &Path, root: &Path, at: &Path) -> Option<Self> {
        if !installed("mksquashfs") {
            println!("mksquashfs is not installed: squashfs is skipped");
            return None;
        }
        let archive = scratch.join("tree.squashfs");
        let options = "-comp zstd -Xcompression-level 3 -quiet -no-progress";
        shell(&format!("mksquashfs '{}' '{}' {options} >/dev/null", root.display(), archive.display()));
        fs::create_dir_all(at).expect("a folder");
        let mut call = Command::new("mount");
        call.args(["-t", "squashfs", "-o", "loop,ro"]).arg(&archive).arg(at).stderr(Stdio::null());
        if call.status().is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("squashfs cannot be mounted here (it needs root): skipped");
        None
    }
}

impl Drop for Squash {
    fn drop(&mut self) {
        // What stays mounted is seen when the folder cannot be removed.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn zip(scratch: &Path, root: &Path) -> Option<Way<'static>> {
    if !installed("zip") || !installed("unzip") {
        println!("zip or unzip is not installed: skipped");
        return None;
    }
    let archive = scratch.join("tree.zip");
    shell(&format!("cd '{}' && zip -qr -3 '{}' .", root.display(), archive.display()));
    let call = format!("unzip -p '{}'", archive.display());
    Some(Way { name: "zip, unzip -p".into(), archive: Some(archive), run: Box::new(move || taken(|| piped(&call))) })
}

fn shell(call: &str) {
    let status = Command::new("sh").args(["-c", call]).status().expect("sh runs");
    assert!(status.success(), "{call}");
}

/// Runs a call and counts what it prints.
fn piped(call: &str) -> u64 {
    let mut child = Command::new("sh").args(["-c", call]).stdout(Stdio::piped()).spawn().expect("sh runs");
    let mut out = child.stdout.take().expect("it is piped");
    let bytes = io::copy(&mut out, &mut io::sink()).expect("its output is read");
    assert!(child.wait().expect("it ends").success(), "{call}");
    bytes
}

/// Starts a runtime on the bundle and loads every asset; its end is not timed, as the others' is not.
fn runtime(file: &Path, tree: &Tree, asked: Asked) -> Taken {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let before = cpu_by_thread();
    let began = Instant::now();
    let budget_bytes = if matches!(asked, Asked::Passing) { PASSING_BUDGET_BYTES } else { BUDGET_BYTES };
    let builder = Runtime::builder().bundle(file).budget_bytes(budget_bytes);
    let runtime = builder.start_blocking().expect("the bundle opens");
    let (held, passed) = executor.block_on(load(&runtime, tree, asked));
    let seconds = began.elapsed().as_secs_f64();
    let spent = cpu_since(&before).into_iter().take(4);
    let cpu: Vec<String> = spent.map(|(name, spent)| format!("{name} {:.2}", spent as f64 / 1e9)).collect();
    let bytes = passed + held.iter().map(|asset| asset.len() as u64).sum::<u64>();
    drop(held);
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
    Taken { seconds, bytes, cpu: cpu.join(", ") }
}

/// Every asset of the tree: those that are held, and the bytes of those that were let go of.
async fn load(runtime: &Runtime, tree: &Tree, asked: Asked) -> (Vec<Asset>, u64) {
    let mut held = Vec::with_capacity(tree.paths.len());
    let mut passed = 0;
    let (clients, each) = match asked {
        Asked::AtOnce => (1, tree.paths.len()),
        Asked::ByClients => (CLIENTS, 1),
        Asked::Passing => (PASSING_CLIENTS, PASSING_ASSETS),
    };
    let (next, paths) = (Arc::new(AtomicUsize::new(0)), Arc::new(tree.paths.clone()));
    let client = |runtime: Runtime| {
        let (next, paths) = (Arc::clone(&next), Arc::clone(&paths));
        async move {
            let (mut held, mut passed) = (Vec::new(), 0);
            loop {
                let from = next.fetch_add(each, Ordering::Relaxed);
                match paths.get(from..paths.len().min(from + each)) {
                    None | Some([]) => return (held, passed),
                    Some([path]) => held.push(runtime.load(path).await.expect("it is answered")),
                    Some(paths) => {
                        let mut completions = runtime.load_many(paths).completions();
                        while let Some((_, asset)) = completions.next().await {
                            let asset = asset.expect("it is answered");
                            match asked {
                                Asked::Passing => passed += asset.len() as u64,
                                Asked::AtOnce | Asked::ByClients => held.push(asset),
                            }
                        }
                    }
                }
            }
        }
    };
    let clients: Vec<_> = (0..clients).map(|_| tokio::spawn(client(runtime.clone()))).collect();
    for client in clients {
        let (some, bytes) = client.await.expect("a client does not panic");
        held.extend(some);
        passed += bytes;
    }
    (held, passed)
}
