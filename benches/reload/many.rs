//! Ten thousand files changed at once, as a checkout changes them, through a transform.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flyloft::build::transform::{Input, MinifyJson, NoFiles, NoParameters, Transform};
use flyloft::event::ReloadTimings;
use flyloft::{AssetPath, Event, Runtime, RuntimeConfig};

use super::support::{count, head, median, row};
use super::tree;

const FILES: usize = 10_000;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);
const RULE: &str = "[[transform]]\nglob = \"**.json\"\nname = \"minify-json\"\n";

fn path(file: usize) -> String {
    format!("{:03}/{:02}.json", file / 100, file % 100)
}

fn source(file: usize, edition: usize) -> Vec<u8> {
    let text = String::from_utf8(tree::text(file, edition)).expect("it is text");
    let mut json = format!("{{\n    \"edition\": {edition},\n    \"lines\": [\n");
    let lines: Vec<String> = text.lines().map(|line| format!("        \"{line}\"")).collect();
    json.push_str(&lines.join(",\n"));
    json.push_str("\n    ]\n}\n");
    json.into_bytes()
}

/// The edition that built bytes are of.
fn edition(bytes: &[u8]) -> usize {
    let rest = bytes.strip_prefix(b"{\"edition\":").expect("it was built");
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

fn write_all(root: &Path, edition: usize) {
    for file in 0..FILES {
        fs::write(root.join(path(file)), source(file, edition)).expect("a file is written");
    }
}

pub fn run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tree");
    for number in 0..FILES / 100 {
        fs::create_dir_all(root.join(format!("{number:03}"))).expect("a folder is made");
    }
    fs::create_dir_all(root.join(".git")).expect("a folder is made");
    fs::write(root.join("flyloft.toml"), RULE).expect("a file is written");
    write_all(&root, 0);
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    // On a busy machine it takes longer to write them than a lock is waited for.
    let mut config = RuntimeConfig { watch: true, ..RuntimeConfig::default() };
    config.settle.lock_max = PATIENCE;
    let builder = Runtime::builder().config(config).directory(&root).store(folder.path().join("store"));
    let runtime = host.block_on(builder.start()).expect("the tree is served");
    let paths: Vec<String> = (0..FILES).map(path).collect();
    host.block_on(async {
        for path in &paths {
            runtime.load(path).await.expect("it is there");
        }
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut seen, mut pure, mut mixed) = (Vec::new(), Vec::new(), 0);
    let mut generations = Vec::new();
    let mut steps = ReloadTimings::default();
    for round in 1..=ROUNDS {
        let mut events = runtime.events();
        let lock = root.join(".git/index.lock");
        fs::write(&lock, b"").expect("the lock is taken");
        write_all(&root, round);
        let reader = Reader::start(&runtime, round);
        fs::remove_file(&lock).expect("the lock is released");
        let began = Instant::now();
        let (took, torn) = reader.wait(began);
        seen.push(took);
        mixed += torn;
        let mut published = BTreeSet::new();
        let mut changed = 0;
        while changed < FILES {
            let event = host.block_on(async { tokio::time::timeout(PATIENCE, events.recv()).await });
            if let Event::Published(publication) = event.expect("in time").expect("the runtime lives") {
                published.insert(publication.generation);
                steps = publication.timings;
                changed += publication.changed.len();
            }
        }
        generations.push(published.len());
        pure.push(transform_alone(round, threads));
    }
    println!("\n{FILES} files of 1 to 20 KiB changed at once, all of them resident, median of {ROUNDS}\n");
    head(&["", "files per second"]);
    let per_second = |seconds: Vec<f64>| FILES as f64 / median(seconds);
    let (all, alone) = (per_second(seen), per_second(pure));
    row(&["from the end of the checkout to the last reader, one generation".into(), count(all)]);
    row(&[format!("the transform alone, over the same bytes in memory, {threads} threads"), count(alone)]);
    println!("\n{:.2} of it; generations {generations:?}; snapshots that mixed editions: {mixed}", all / alone);
    println!("its steps, the last time: {steps:?}");
    host.block_on(runtime.shutdown(Duration::from_secs(30)));
}

/// Looks at the first and the last file in one snapshot until both are new.
struct Reader {
    thread: std::thread::JoinHandle<(Instant, usize)>,
}

impl Reader {
    fn start(runtime: &Runtime, wanted: usize) -> Self {
        let runtime = runtime.clone();
        let started = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&started);
        let thread = std::thread::spawn(move || {
            let (first, last) = (path(0), path(FILES - 1));
            let (began, mut torn) = (Instant::now(), 0);
            loop {
                flag.store(true, Ordering::Release);
                let snapshot = runtime.snapshot();
                if let (Some(one), Some(other)) = (snapshot.get(&first), snapshot.get(&last)) {
                    let (one, other) = (edition(&one), edition(&other));
                    torn += usize::from(one != other);
                    if one == wanted && other == wanted {
                        return (Instant::now(), torn);
                    }
                }
                assert!(began.elapsed() < PATIENCE, "it is never seen");
                drop(snapshot);
                // A core is left to those who build.
                tree::pause(Duration::from_micros(200));
            }
        });
        while !started.load(Ordering::Acquire) {
            tree::pause(Duration::from_micros(200));
        }
        Self { thread }
    }

    fn wait(self, began: Instant) -> (f64, usize) {
        let (at, torn) = self.thread.join().expect("the reader does not panic");
        (at.saturating_duration_since(began).as_secs_f64(), torn)
    }
}

/// Seconds that the transform alone takes for one edition of all files.
fn transform_alone(edition: usize, threads: usize) -> f64 {
    let sources: Vec<(AssetPath, Vec<u8>)> =
        (0..FILES).map(|file| (AssetPath::new(&path(file)).expect("it is a path"), source(file, edition))).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for part in sources.chunks(FILES.div_ceil(threads)) {
            scope.spawn(move || {
                for (path, bytes) in part {
                    let built = MinifyJson.run(Input { path, bytes }, &NoParameters {}, &mut NoFiles);
                    std::hint::black_box(built.expect("it is JSON"));
                }
            });
        }
    });
    began.elapsed().as_secs_f64()
}
