//! Edits one at a time: Flyloft, a bare notify loop and Bevy's asset server in turn.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flyloft::event::ReloadTimings;
use flyloft::telemetry::Subscription;
use flyloft::{AssetId, ContentHash, Event, Runtime};
use notify::{RecursiveMode, Watcher};

use super::Options;
use super::support::{count, head, quantile, row};
use super::tree::{Tree, path, text};

/// What is not seen by then was missed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one subject showed on one tree.
#[derive(Default)]
struct Shown {
    ms: Vec<f64>,
    missed: usize,
    steps: Vec<ReloadTimings>,
}

/// Whoever shows an edit.
trait Subject {
    /// Makes ready to see `bytes` at the path; returns when it holds the bytes before.
    fn expect(&mut self, path: &str, bytes: &[u8]);
    /// When it was seen, in nanoseconds of the wall clock; `None` when it was missed.
    fn seen(&mut self) -> Option<u128>;
    /// What it has to say about an edit that was not seen.
    fn why(&self, _path: &str) -> String {
        String::new()
    }
    /// What it says itself about where the time went.
    fn steps(&mut self) -> Option<ReloadTimings> {
        None
    }
}

/// The edits of all subjects are told apart by these.
struct Pace {
    edition: usize,
    state: u64,
    pause: Duration,
}

impl Pace {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    fn edit(&mut self, tree: &Tree, subject: &mut dyn Subject, shown: &mut Shown) {
        let pause = self.pause / 2 + self.pause * (self.next() % 1_000) as u32 / 1_000;
        super::tree::pause(pause);
        self.edition += 1;
        let file = self.next() as usize % tree.files;
        let (path, bytes) = (path(file), text(file, self.edition));
        subject.expect(&path, &bytes);
        tree.write(&path, &bytes, self.edition.is_multiple_of(2));
        let finished = wall_ns();
        match subject.seen() {
            Some(at) => shown.ms.push(at.saturating_sub(finished) as f64 / 1e6),
            None => {
                shown.missed += 1;
                eprintln!("{path}, edition {}, was not seen: {}", self.edition, subject.why(&path));
            }
        }
        shown.steps.extend(subject.steps());
    }
}

pub fn run(options: &Options) {
    let trees: Vec<Tree> = options.files.iter().map(|files| Tree::new(*files)).collect();
    // The first start on a tree builds all of it.
    for tree in &trees {
        drop(Flyloft::start(tree));
    }
    let mut pace = Pace { edition: 0, state: 7, pause: options.pause };
    let mut shown: Vec<[Shown; 3]> = trees.iter().map(|_| Default::default()).collect();
    let (edits, few) = (options.edits.div_ceil(options.blocks), options.bevy_edits.div_ceil(options.blocks));
    for _ in 0..options.blocks {
        for (tree, [flyloft, bare, bevy]) in trees.iter().zip(&mut shown) {
            let mut subject = Flyloft::start(tree);
            (0..edits).for_each(|_| pace.edit(tree, &mut subject, flyloft));
            drop(subject);
            let mut subject = Bare::start(tree);
            (0..edits).for_each(|_| pace.edit(tree, &mut subject, bare));
            drop(subject);
            if let Some(program) = &options.bevy {
                let mut subject = Bevy::start(program, tree);
                (0..few).for_each(|_| pace.edit(tree, &mut subject, bevy));
            }
        }
    }
    report(&trees, &shown);
}

fn report(trees: &[Tree], shown: &[[Shown; 3]]) {
    println!("\nFrom a finished write to the new bytes, ms\n");
    head(&["files", "who", "edits", "p50", "p90", "p99", "max", "missed"]);
    for (tree, subjects) in trees.iter().zip(shown) {
        for (name, shown) in ["flyloft", "bare notify + read", "bevy_asset"].iter().zip(subjects) {
            if shown.ms.is_empty() && shown.missed == 0 {
                continue;
            }
            let at = |share: f64| format!("{:.2}", quantile(shown.ms.clone(), share));
            let edits = count((shown.ms.len() + shown.missed) as f64);
            let missed = shown.missed.to_string();
            let files = count(tree.files as f64);
            row(&[files, (*name).into(), edits, at(0.5), at(0.9), at(0.99), at(1.0), missed]);
        }
    }
    println!("\nSteps of Flyloft's, us, p50 / p99\n");
    let names = STEPS.map(|(name, _)| name);
    head(&[&["files"], &names[..]].concat());
    for (tree, [flyloft, ..]) in trees.iter().zip(shown) {
        let cell = |step: fn(&ReloadTimings) -> u64| {
            let values: Vec<f64> = flyloft.steps.iter().map(|steps| step(steps) as f64).collect();
            format!("{:.0} / {:.0}", quantile(values.clone(), 0.5), quantile(values, 0.99))
        };
        let cells = STEPS.iter().map(|(_, step)| cell(*step));
        row(&[vec![count(tree.files as f64)], cells.collect()].concat());
    }
    if let (Some((small, [one, ..])), Some((large, [other, ..]))) =
        (trees.iter().zip(shown).next(), trees.iter().zip(shown).next_back())
        && small.files < large.files
    {
        let ratio = quantile(other.ms.clone(), 0.5) / quantile(one.ms.clone(), 0.5);
        let (times, files) = (large.files / small.files, count(large.files as f64));
        println!("\nOne edit of {files} files costs {ratio:.2} times one of a tree {times} times smaller (p50)");
    }
}

type Step = (&'static str, fn(&ReloadTimings) -> u64);

const STEPS: [Step; 10] = [
    ("settle", |steps| steps.settle_us),
    ("queue", |steps| steps.queue_us),
    ("look", |steps| steps.look_us),
    ("read", |steps| steps.read_us),
    ("transform", |steps| steps.transform_us),
    ("encode", |steps| steps.encode_us),
    ("tables", |steps| steps.tables_us),
    ("check", |steps| steps.check_us),
    ("resident", |steps| steps.resident_us),
    ("swap", |steps| steps.swap_us),
];

fn wall_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos()
}

/// A thread that looks without a pause whether the runtime has what is expected.
struct Flyloft {
    runtime: Runtime,
    host: tokio::runtime::Runtime,
    events: Subscription,
    ask: Sender<(AssetId, ContentHash)>,
    told: Receiver<Option<u128>>,
    looking: Arc<AtomicBool>,
}

impl Flyloft {
    fn start(tree: &Tree) -> Self {
        let host = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        let builder = Runtime::builder().directory(tree.root()).store(tree.store()).watch(true);
        let runtime = host.block_on(builder.start()).expect("the tree is served");
        let events = runtime.events();
        let (ask, asked) = channel::<(AssetId, ContentHash)>();
        let (tell, told) = channel();
        let looking = Arc::new(AtomicBool::new(false));
        let (reader, flag) = (runtime.clone(), Arc::clone(&looking));
        std::thread::spawn(move || {
            for (id, hash) in asked {
                let began = Instant::now();
                let mut looks = 0_u64;
                let seen = loop {
                    if reader.get_id(id).is_some_and(|asset| asset.hash() == hash) {
                        break Some(wall_ns());
                    }
                    flag.store(true, Ordering::Release);
                    looks += 1;
                    if looks.is_multiple_of(1024) && began.elapsed() > PATIENCE {
                        break None;
                    }
                    std::thread::yield_now();
                };
                flag.store(false, Ordering::Release);
                if tell.send(seen).is_err() {
                    return;
                }
            }
        });
        Self { runtime, host, events, ask, told, looking }
    }
}

impl Subject for Flyloft {
    fn expect(&mut self, path: &str, bytes: &[u8]) {
        self.host.block_on(self.runtime.load(path)).expect("it is there");
        self.ask.send((AssetId::of_path(path), ContentHash::of(bytes))).expect("the reader lives");
        while !self.looking.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn seen(&mut self) -> Option<u128> {
        self.told.recv().expect("the reader lives")
    }

    fn why(&self, path: &str) -> String {
        let resident = self.runtime.get(path).map(|asset| (asset.generation(), asset.len()));
        let current = self.runtime.snapshot().generation();
        let failures = self.runtime.status().failures;
        let loaded = self.host.block_on(self.runtime.load(path));
        let first = loaded.map(|asset| String::from_utf8_lossy(&asset[..asset.len().min(40)]).into_owned());
        format!("resident {resident:?}, current {current}, loaded {first:?}, failures {failures:?}")
    }

    fn steps(&mut self) -> Option<ReloadTimings> {
        self.host.block_on(async {
            let published = async {
                loop {
                    match self.events.recv().await? {
                        Event::Published(published) => return Some(published.timings),
                        _ => continue,
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(1), published).await.ok().flatten()
        })
    }
}

impl Drop for Flyloft {
    fn drop(&mut self) {
        let (nobody, _) = channel();
        // The reader ends, and with it its hold on the runtime.
        self.ask = nobody;
        self.host.block_on(self.runtime.shutdown(Duration::from_secs(30)));
    }
}

/// What is expected, until it was seen.
type Wanted = Arc<Mutex<Option<(std::path::PathBuf, Vec<u8>)>>>;

/// A watcher of the whole tree that reads a file when it is told of it.
struct Bare {
    _watcher: notify::RecommendedWatcher,
    root: std::path::PathBuf,
    wanted: Wanted,
    told: Receiver<u128>,
}

impl Bare {
    fn start(tree: &Tree) -> Self {
        let root = tree.root().canonicalize().expect("the tree is there");
        let (event, events) = channel::<notify::Result<notify::Event>>();
        let mut watcher = notify::recommended_watcher(event).expect("a watcher");
        watcher.watch(&root, RecursiveMode::Recursive).expect("the tree is watched");
        let wanted = Wanted::default();
        let (tell, told) = channel();
        let looked_for = Arc::clone(&wanted);
        std::thread::spawn(move || {
            for event in events.into_iter().flatten() {
                if event.kind.is_access() && !is_close(&event.kind) {
                    continue;
                }
                let mut wanted = looked_for.lock().expect("nobody panics");
                let Some((path, bytes)) = &*wanted else { continue };
                if event.paths.contains(path) && std::fs::read(path).is_ok_and(|read| read == *bytes) {
                    *wanted = None;
                    if tell.send(wall_ns()).is_err() {
                        return;
                    }
                }
            }
        });
        Self { _watcher: watcher, root, wanted, told }
    }
}

fn is_close(kind: &notify::EventKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(kind, notify::EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

impl Subject for Bare {
    fn expect(&mut self, path: &str, bytes: &[u8]) {
        *self.wanted.lock().expect("nobody panics") = Some((self.root.join(path), bytes.to_vec()));
    }

    fn seen(&mut self) -> Option<u128> {
        self.told.recv_timeout(PATIENCE).ok()
    }
}

/// The program that scripts/reload.sh builds: it is told a path and what its file will begin with.
struct Bevy {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Bevy {
    fn start(program: &Path, tree: &Tree) -> Self {
        let mut command = Command::new(program);
        command.arg(tree.root()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the peer starts");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut started = Self { child, to, from: BufReader::new(from) };
        assert_eq!(started.answer(), "ready");
        started
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("the peer answers");
        line.trim().to_owned()
    }
}

impl Subject for Bevy {
    fn expect(&mut self, path: &str, bytes: &[u8]) {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        writeln!(self.to, "{path}\t{}", String::from_utf8_lossy(first)).expect("the peer listens");
        self.to.flush().expect("the peer listens");
        assert_eq!(self.answer(), "loaded");
    }

    fn seen(&mut self) -> Option<u128> {
        self.answer().parse().ok()
    }
}

impl Drop for Bevy {
    fn drop(&mut self) {
        // It ends with its input, at the latest now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
