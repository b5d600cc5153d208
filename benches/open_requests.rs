//! A million requests open at once: what each takes of memory, that all are answered, and how fast.
//!
//! ```sh
//! cargo bench --bench open_requests [-- REQUESTS]
//! ```
//! Each request is for an asset of its own, none of them resident. A gate in the storage holds every read back until
//! all are asked for and the runtime has come to rest: looked up, queued, waiting. What is measured then is the growth
//! of this process's own resident memory (RssAnon of the kernel: heap and stacks, what the allocator wastes included,
//! mapped files not), the caller's futures included, its paths too. Then the gate opens, and every answer is checked.

#[path = "../tests/common/file_system.rs"]
mod file_system;
mod support;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use file_system::the_rest_as_the_system;
use flyloft::platform::fs::{FileStat, FileSystem, OsFileSystem, WriterLock};
use flyloft::storage::{Mapped, ReadAt, WriteAt};
use flyloft::{ContentHash, Load, Runtime};
use support::{count, cpu_by_thread, cpu_since, head, resident_own_bytes, row, small_assets, small_path};

const BUDGET_BYTES: u64 = 2 << 30;

fn main() {
    let requests = support::args().first().and_then(|first| first.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = small_assets(folder.path(), requests);
    let gate = Arc::new(Gate::default());
    let fs = Gated { gate: Arc::clone(&gate) };
    let builder = Runtime::builder().bundle(&file).budget_bytes(BUDGET_BYTES).file_system(Arc::new(fs));
    let runtime = builder.start_blocking().expect("the bundle opens");
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");

    // Room for the futures themselves is part of what a request takes.
    let before = resident_own_bytes();
    gate.close();
    let began = Instant::now();
    let loads: Vec<Load> = (0..requests).map(|number| runtime.load(small_path(number))).collect();
    let asked = began.elapsed();
    let asked_bytes = resident_own_bytes().saturating_sub(before);
    let settled_bytes = settle().saturating_sub(before);
    let open = runtime.stats().ledger.open;
    assert_eq!(open as usize, requests, "all are open at once");

    gate.open();
    let began = Instant::now();
    let right = executor.block_on(async {
        let mut right = 0;
        for (number, load) in loads.into_iter().enumerate() {
            let expected = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let asset = load.await.expect("it is answered");
            right += usize::from(asset[..] == expected && asset.hash() == ContentHash::of(&expected));
        }
        right
    });
    let answered = began.elapsed();
    let peak = [asked_bytes, settled_bytes].into_iter().max().unwrap_or(0);
    head(&[
        "open requests",
        "all asked, s",
        "bytes each when asked",
        "at rest",
        "answered right",
        "seconds",
        "answers/s",
    ]);
    row(&[
        count(requests as f64),
        format!("{:.2}", asked.as_secs_f64()),
        format!("{:.0}", asked_bytes as f64 / requests as f64),
        format!("{:.0}", settled_bytes as f64 / requests as f64),
        count(right as f64),
        format!("{:.2}", answered.as_secs_f64()),
        count(requests as f64 / answered.as_secs_f64()),
    ]);
    println!();
    println!(
        "bytes per open request at most: {:.0} (goal: under 512), {} of them the caller's future",
        peak as f64 / requests as f64,
        size_of::<Load>()
    );
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
    assert_eq!(right, requests, "every request is answered, and right");
}

/// Waits until the runtime's threads have nothing left to do; answers the most memory that was seen.
fn settle() -> u64 {
    let mut most = 0;
    let mut quiet = 0;
    while quiet < 5 {
        let before = cpu_by_thread();
        support::pause(Duration::from_millis(50));
        let busy: u64 = cpu_since(&before).iter().map(|(_, spent)| spent).sum();
        quiet = if busy < 5_000_000 { quiet + 1 } else { 0 };
        most = most.max(resident_own_bytes());
    }
    most
}

/// Holds reads back while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().expect("nobody panics with it") = true;
    }

    fn open(&self) {
        *self.closed.lock().expect("nobody panics with it") = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("nobody panics with it");
        drop(self.opened.wait_while(closed, |closed| *closed).expect("nobody panics with it"));
    }

    fn is_closed(&self) -> bool {
        *self.closed.lock().expect("nobody panics with it")
    }
}

/// A file behind the gate. While it is closed reads go to threads, which wait; once it is open, to the ring.
struct GatedFile {
    gate: Arc<Gate>,
    file: Arc<dyn ReadAt>,
}

impl ReadAt for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.gate.pass();
        self.file.read_exact_at(offset, into)
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        self.file.map(len)
    }

    fn file(&self) -> Option<&File> {
        if self.gate.is_closed() { None } else { self.file.file() }
    }

    fn name(&self) -> String {
        self.file.name()
    }
}

/// The operating system's files, opened behind the gate.
struct Gated {
    gate: Arc<Gate>,
}

impl FileSystem for Gated {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let file = OsFileSystem.open(path)?;
        Ok(Arc::new(GatedFile { gate: Arc::clone(&self.gate), file }))
    }
    fn stat(&self, path: &Path, follow: bool) -> io::Result<FileStat> {
        OsFileSystem.stat(path, follow)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        OsFileSystem.read(path)
    }
    fn open_writer(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn WriteAt>, WriterLock)> {
        OsFileSystem.open_writer(path, create)
    }
    the_rest_as_the_system!();
}
