//! Invariant 8 with a process that really dies: a runtime that serves a tree while it is edited ends itself at every
//! single write and flush of its bundle in turn, before it, half way through it, or right after it. Afterwards the store opens at a
//! complete generation, no older than what was told to be durable; the next start finds what is on disk; and a number that
//! readers saw before the crash never names anything else.
#![cfg(unix)]

mod common;
#[path = "common/file_system.rs"]
mod file_system;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, Tree};
use file_system::the_rest_as_the_system;
use flyloft::bundle::Bundle;
use flyloft::platform::fs::{Below, DirEntry, FileStat, FileSystem, Look, OsFileSystem, WriterLock};
use flyloft::storage::{Direct, Mapped, ReadAt, WriteAt};
use flyloft::{Event, Generation, Runtime};

const FILES: [&str; 3] = ["a.txt", "b/c.txt", "d.json"];
const EDITS: usize = 3;

/// What readers see of a tree: for each file the first line.
type Seen = BTreeMap<String, String>;

fn content(file: &str, edition: usize) -> Vec<u8> {
    let line = format!("edition {edition} of {file}\n");
    let rest = format!("{file} {edition} ").repeat(300 + 50 * edition);
    [line, rest].concat().into_bytes()
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned()
}

/// Where the process ends: before which write or flush, counted from 1; or half way through a write, right after a flush.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: usize,
    half: bool,
}

/// The real files; the process ends at one step of the bundle's.
struct Deadly {
    step: Step,
    done: Arc<AtomicUsize>,
}

/// The bundle's file, whose writes and flushes are counted.
struct Counting {
    storage: Arc<dyn WriteAt>,
    step: Step,
    done: Arc<AtomicUsize>,
}

impl Counting {
    /// Whether the process is to end in this step, once it is under way.
    fn is_reached(&self) -> bool {
        let reached = self.done.fetch_add(1, Ordering::SeqCst) + 1 == self.step.at;
        if reached && !self.step.half {
            std::process::abort();
        }
        reached
    }
}

impl ReadAt for Counting {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.storage.read_exact_at(offset, into)
    }
    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        self.storage.map(len)
    }
    fn file(&self) -> Option<&std::fs::File> {
        self.storage.file()
    }
    fn direct(&self) -> Option<Direct<'_>> {
        self.storage.direct()
    }
    fn name(&self) -> String {
        self.storage.name()
    }
}

impl WriteAt for Counting {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_reached() {
            self.storage.write_all_at(offset, &bytes[..bytes.len() / 2])?;
            std::process::abort();
        }
        self.storage.write_all_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        let last = self.is_reached();
        let done = self.storage.sync();
        if last {
            std::process::abort();
        }
        done
    }
}

impl FileSystem for Deadly {
    fn open_writer(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn WriteAt>, WriterLock)> {
        let (storage, lock) = OsFileSystem.open_writer(path, create)?;
        Ok((Arc::new(Counting { storage, step: self.step, done: Arc::clone(&self.done) }), lock))
    }
    fn each_entry(&self, path: &Path, each: &mut dyn FnMut(DirEntry, Look<'_>)) -> io::Result<()> {
        OsFileSystem.each_entry(path, each)
    }
    fn stat(&self, path: &Path, follow: bool) -> io::Result<FileStat> {
        OsFileSystem.stat(path, follow)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        OsFileSystem.read(path)
    }
    fn read_into(&self, path: &Path, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        OsFileSystem.read_into(path, into)
    }
    fn below<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Below + 'a>> {
        OsFileSystem.below(folder)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        OsFileSystem.open(path)
    }
    fn is_being_written(&self, path: &Path) -> io::Result<bool> {
        OsFileSystem.is_being_written(path)
    }
    the_rest_as_the_system!();
}

/// How the child is told its part: the step as `at` or `at.5`, the tree, the store.
const PART: &str = "FLYLOFT_CRASH_PART";

/// The process that dies. Does nothing unless [`each_step`] started it.
#[test]
fn the_process_that_dies() {
    let Ok(part) = std::env::var(PART) else { return };
    let [at, root, store] = part.split('\t').collect::<Vec<_>>()[..] else { panic!("{part}") };
    let step = match at.strip_suffix(".5") {
        Some(at) => Step { at: at.parse().unwrap(), half: true },
        None => Step { at: at.parse().unwrap(), half: false },
    };
    let fs = Arc::new(Deadly { step, done: Arc::default() });
    let done = Arc::clone(&fs.done);
    let builder = Runtime::builder().file_system(fs).directory(root).store(store).watch(true);
    let runtime = builder.start_blocking().unwrap();
    let mut events = runtime.events();
    // What readers see, as soon as they do.
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tell = |runtime: &Runtime| {
        let snapshot = runtime.snapshot();
        let files = FILES.map(|file| first_line(&host.block_on(snapshot.load(file)).unwrap()));
        say(&format!("seen\t{}\t{}", snapshot.generation(), files.join("\t")));
    };
    tell(&runtime);
    let mut edits = 0;
    let mut committed = Generation(0);
    let mut published = Generation(0);
    while edits < EDITS || committed < published {
        match host.block_on(events.recv()).unwrap() {
            Event::Published(publication) => {
                published = publication.generation;
                tell(&runtime);
                edits += 1;
            }
            Event::Committed { generation, .. } => {
                committed = generation;
                say(&format!("durable\t{generation}"));
            }
            _ => {}
        }
    }
    say(&format!("done\t{}", done.load(Ordering::SeqCst)));
    std::process::exit(0);
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}

/// What came of one child.
struct Told {
    seen: BTreeMap<Generation, Seen>,
    durable: Generation,
    /// Steps in all, of a child that lived to its end.
    steps: Option<usize>,
}

/// Runs one child, and edits the tree as soon as it shows the edition before.
fn each_step(tree: &Tree, at: &str) -> Told {
    let part = [at, &tree.root().to_string_lossy(), &tree.store().to_string_lossy()].join("\t");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_process_that_dies", "--nocapture", "--test-threads=1"]).env(PART, part);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut told = Told { seen: BTreeMap::new(), durable: Generation(0), steps: None };
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["seen", generation, ref lines @ ..] => {
                let generation = Generation(generation.parse().unwrap());
                let seen: Seen =
                    FILES.iter().zip(lines).map(|(file, line)| (file.to_string(), line.to_string())).collect();
                let edition = told.seen.len() + 1;
                told.seen.insert(generation, seen);
                if edition <= EDITS {
                    let file = FILES[edition % FILES.len()];
                    tree.replace(file, &content(file, edition));
                }
            }
            ["durable", generation] => told.durable = Generation(generation.parse().unwrap()),
            ["done", steps] => told.steps = Some(steps.parse().unwrap()),
            _ => {}
        }
    }
    assert_eq!(child.wait().unwrap().success(), told.steps.is_some(), "{at}");
    told
}

/// What stands in the folder.
fn on_disk(tree: &Tree) -> Seen {
    FILES.iter().map(|file| (file.to_string(), first_line(&std::fs::read(tree.root().join(file)).unwrap()))).collect()
}

/// What a bundle's newest generation holds.
fn in_runtime(runtime: &Runtime) -> (Generation, Seen) {
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let snapshot = runtime.snapshot();
    let line = |file: &&str| (file.to_string(), first_line(&host.block_on(snapshot.load(file)).unwrap()));
    (snapshot.generation(), FILES.iter().map(line).collect())
}

fn check(at: &str) -> Option<usize> {
    let tree = Tree::new();
    for file in FILES {
        tree.write(file, &content(file, 0));
    }
    let mut told = each_step(&tree, at);
    // The store opens, at a complete generation, if it ever had one.
    let bundle = tree.store().join("tree.loft");
    let opened = OsFileSystem.open(&bundle).ok().and_then(|storage| Bundle::open(storage, true).ok());
    match opened {
        Some(opened) => {
            assert!(opened.generation() >= told.durable, "{at}: {} < {}", opened.generation(), told.durable);
            // The superblock that was being written is all that may be damaged.
            let mut judge = |finding: flyloft::bundle::Finding| {
                assert!(finding.to_string().starts_with("superblock at byte"), "{at}: {finding}");
            };
            let report = opened.verify(&mut judge).unwrap();
            assert_eq!(report.assets, FILES.len() as u64, "{at}");
            drop(opened);
            let runtime = Runtime::builder().bundle(&bundle).start_blocking().unwrap();
            let (generation, found) = in_runtime(&runtime);
            if let Some(seen) = told.seen.get(&generation) {
                assert_eq!(*seen, found, "{at}: generation {generation}");
            }
        }
        None => assert!(told.seen.is_empty(), "{at}: readers saw {:?}, and it does not open", told.seen.keys()),
    }
    // The next starts find what is on disk, twice: what is written after a crash must not reuse a number either.
    for edition in [100, 200] {
        let runtime =
            Runtime::builder().directory(tree.root()).store(tree.store()).watch(true).start_blocking().unwrap();
        let (generation, found) = in_runtime(&runtime);
        assert_eq!(found, on_disk(&tree), "{at}");
        let before = told.seen.insert(generation, found.clone());
        assert!(before.is_none_or(|before| before == found), "{at}: generation {generation} named something else");
        let file = FILES[0];
        tree.write(file, &content(file, edition));
        let began = Instant::now();
        while in_runtime(&runtime).1 != on_disk(&tree) {
            assert!(began.elapsed() < PATIENCE, "{at}: an edit after the crash is not seen");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let (generation, found) = in_runtime(&runtime);
        let before = told.seen.insert(generation, found.clone());
        assert!(before.is_none_or(|before| before == found), "{at}: generation {generation} named something else");
        // It lets go of the store.
        let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        host.block_on(runtime.shutdown(PATIENCE));
    }
    told.steps
}

#[test]
fn a_process_that_dies_at_any_write_or_flush_leaves_a_complete_generation_and_no_number_names_two_things() {
    let steps = check("0").expect("a child that is not told to die does not");
    assert!(steps > 10, "{steps} writes and flushes of the first build and {EDITS} edits");
    for at in 1..=steps {
        check(&at.to_string());
        check(&format!("{at}.5"));
    }
}
