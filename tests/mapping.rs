//! What a bundle tells the system about its mapped tables, and that it changes nothing about what is read.

mod common;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use common::Tree;
use flyloft::bundle::Bundle;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::storage::{Advice, Mapped, ReadAt};

type Asked = Arc<Mutex<Vec<Range<usize>>>>;

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
        self.asked.lock().unwrap().push(range.clone());
        self.map.advise(range, advice)
    }
}

#[test]
fn a_walk_has_its_leaves_fetched_ahead_and_a_look_up_asks_for_nothing() {
    let tree = Tree::with_files(2_000);
    let path = tree.packed();
    let asked = Asked::default();
    let noting = Noting { file: OsFileSystem.open(&path).unwrap(), asked: Arc::clone(&asked) };
    let bundle = Bundle::open(Arc::new(noting), true).unwrap();
    assert!(bundle.asset(common::name(7).parse::<flyloft::AssetPath>().unwrap().id()).unwrap().is_some());
    assert!(asked.lock().unwrap().is_empty(), "one asset is not a walk");
    let seen: Vec<_> = bundle.assets().map(|asset| asset.unwrap().path).collect();
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.len() < 50, "{asked:?}");
    let len = std::fs::metadata(&path).unwrap().len() as usize;
    assert!(asked.iter().all(|range| range.start < range.end && range.end <= len), "{asked:?}");
    let unmapped = Bundle::open(OsFileSystem.open(&path).unwrap(), false).unwrap();
    assert_eq!(seen, unmapped.assets().map(|asset| asset.unwrap().path).collect::<Vec<_>>());
    assert_eq!(seen.len(), 2_000);
}
