//! What a bundle tells the system about its mapped tables, what is put into memory and locked there, and that it changes
//! nothing about what is read.

mod common;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use common::Tree;
use flyloft::bundle::{Bundle, TablesReport};
use flyloft::config::{RuntimeConfig, TablesConfig};
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::storage::{Advice, Mapped, ReadAt};

/// What a mapping was told.
#[derive(Default)]
struct Told {
    advice: Vec<(Advice, Range<usize>)>,
    locked: Vec<Range<usize>>,
    unlocked: bool,
    /// Bytes that may be locked.
    limit: usize,
}

impl Told {
    fn of(&self, advice: Advice) -> Vec<Range<usize>> {
        self.advice.iter().filter(|(told, _)| *told == advice).map(|(_, range)| range.clone()).collect()
    }
}

type Asked = Arc<Mutex<Told>>;

/// A file whose mapping notes what it is told.
struct Noting {
    file: Arc<dyn ReadAt>,
    asked: Asked,
}

impl ReadAt for Noting {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, into)
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        let map = self.file.map(len)?.map(|map| Noted { map, asked: Arc::clone(&self.asked) });
        Ok(map.map(|map| Box::new(map) as Box<dyn Mapped>))
    }

    fn name(&self) -> String {
        self.file.name()
    }
}

struct Noted {
    map: Box<dyn Mapped>,
    asked: Asked,
}

impl Mapped for Noted {
    fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        self.asked.lock().unwrap().advice.push((advice, range.clone()));
        self.map.advise(range, advice)
    }

    fn lock(&self, range: Range<usize>) -> (usize, io::Result<()>) {
        let mut told = self.asked.lock().unwrap();
        let room = told.limit.min(range.len());
        told.limit -= room;
        told.locked.push(range.start..range.start + room);
        (room, if room == range.len() { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) })
    }

    fn unlock(&self) {
        self.asked.lock().unwrap().unlocked = true;
    }
}

/// A packed tree of `files`, opened over a mapping that notes what it is told and locks at most `limit` bytes.
fn noted(files: usize, limit: usize) -> (Tree, Bundle, Asked) {
    let tree = Tree::with_files(files);
    let asked = Asked::default();
    asked.lock().unwrap().limit = limit;
    let noting = Noting { file: OsFileSystem.open(&tree.packed()).unwrap(), asked: Arc::clone(&asked) };
    let bundle = Bundle::open(Arc::new(noting), true).unwrap();
    (tree, bundle, asked)
}

fn id(index: usize) -> flyloft::AssetId {
    common::name(index).parse::<flyloft::AssetPath>().unwrap().id()
}

#[test]
fn a_walk_has_its_leaves_fetched_ahead() {
    let (tree, bundle, asked) = noted(2_000, 0);
    let len = std::fs::metadata(tree.outside("packed.loft")).unwrap().len() as usize;
    let seen: Vec<_> = bundle.assets().map(|asset| asset.unwrap().path).collect();
    let asked = asked.lock().unwrap().of(Advice::WillNeed);
    assert!(!asked.is_empty() && asked.len() < 50, "{asked:?}");
    assert!(asked.iter().all(|range| range.start < range.end && range.start < len), "{asked:?}");
    let unmapped = Bundle::open(OsFileSystem.open(&tree.outside("packed.loft")).unwrap(), false).unwrap();
    assert_eq!(seen, unmapped.assets().map(|asset| asset.unwrap().path).collect::<Vec<_>>());
    assert_eq!(seen.len(), 2_000);
}

#[test]
fn a_look_up_waits_for_its_own_pages_and_has_a_window_fetched_that_is_used_twice() {
    let (_tree, bundle, asked) = noted(2_000, 0);
    let len = bundle.info().file_bytes as usize;
    let scattered = asked.lock().unwrap().of(Advice::Scattered);
    assert!(scattered.len() == 1 && scattered[0] == (0..len), "nothing is fetched around a page: {scattered:?}");
    assert!(asked.lock().unwrap().of(Advice::WillNeed).is_empty(), "opening uses one page");
    for index in 0..2_000 {
        assert!(bundle.asset(id(index)).unwrap().is_some());
    }
    let windows = asked.lock().unwrap().of(Advice::WillNeed);
    let starts: std::collections::BTreeSet<usize> = windows.iter().map(|window| window.start).collect();
    assert!(!windows.is_empty() && starts.len() == windows.len(), "each once: {windows:?}");
    assert!(windows.iter().all(|window| window.start < len && window.len() <= 1 << 20), "{windows:?}");
}

#[test]
fn a_small_bundle_is_put_into_memory_whole_and_its_tables_are_locked() {
    let (_tree, bundle, asked) = noted(500, usize::MAX);
    let prepared = bundle.prepare_tables(&TablesConfig { populate: true, lock: true }).unwrap();
    let report = prepared.report().clone();
    let len = bundle.info().file_bytes;
    assert_eq!((report.populated_bytes, &report.refused), (len, &None));
    assert_eq!(asked.lock().unwrap().of(Advice::Populate).first(), Some(&(0..len as usize)));
    // Dictionaries are read, not mapped, and so are not among them.
    assert!(report.bytes > 0 && report.bytes <= bundle.info().toc_bytes, "{report:?}");
    assert!(report.locked_bytes >= report.bytes && report.locked_bytes < len, "the frames are not: {report:?}");
    assert!(!asked.lock().unwrap().unlocked);
    drop(prepared);
    assert!(asked.lock().unwrap().unlocked, "they were to be locked for as long as they are prepared");
}

#[test]
fn what_may_not_be_locked_is_told_and_the_bundle_works() {
    let (_tree, bundle, _asked) = noted(500, 8192);
    let prepared = bundle.prepare_tables(&TablesConfig { populate: false, lock: true }).unwrap();
    let report = prepared.report();
    assert_eq!((report.locked_bytes, report.populated_bytes), (8192, 0));
    let why = report.refused.as_deref().unwrap();
    assert!(why.contains("8192 of ") && why.contains("ulimit -l"), "{why}");
    assert!(bundle.asset(id(7)).unwrap().is_some());
}

#[test]
fn nothing_is_done_unless_asked_for() {
    let (_tree, bundle, asked) = noted(50, usize::MAX);
    let prepared = bundle.prepare_tables(&TablesConfig::default()).unwrap();
    assert_eq!(*prepared.report(), TablesReport::default());
    assert!(asked.lock().unwrap().locked.is_empty());
    let unmapped = Bundle::open(Arc::clone(bundle.storage()), false).unwrap();
    let prepared = unmapped.prepare_tables(&TablesConfig { populate: true, lock: true }).unwrap();
    assert_eq!(prepared.report().refused.as_deref(), Some("the bundle is not mapped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_says_what_is_locked_also_of_the_next_generation() {
    let tree = Tree::with_files(20);
    let tables = TablesConfig { populate: true, lock: true };
    let config = RuntimeConfig { tables, watch: true, ..RuntimeConfig::default() };
    let runtime = common::within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let before = runtime.status().tables;
    // Some systems let nobody lock anything; then they say so.
    assert!(before.bytes > 0 && (before.locked_bytes >= before.bytes || before.refused.is_some()), "{before:?}");
    let mut events = runtime.events();
    tree.replace(&common::name(20), &common::content(20, 0));
    let larger = async {
        loop {
            let tables = runtime.status().tables;
            if tables.bytes > before.bytes {
                return tables;
            }
            // An event tells that something moved; what counts is the status.
            drop(tokio::time::timeout(std::time::Duration::from_millis(20), events.recv()).await);
        }
    };
    let after = common::within(larger).await;
    assert!(after.locked_bytes >= after.bytes || after.refused.is_some(), "{after:?}");
    // Tables are prepared once they are published and durable.
    common::check(&runtime, 20, 0).await;
}
