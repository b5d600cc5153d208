//! A file system that misbehaves: clocks with coarse steps, full disks, files that change while they are read.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use flyloft::Error;
use flyloft::build::{BuildOptions, NoProgress, TreeBuilder, pack};
use flyloft::platform::clock::{Clock, ManualClock, SystemClock};
use flyloft::platform::fs::{FileStat, FileSystem, OsFileSystem, WriterLock};
use flyloft::storage::{Mapped, ReadAt, WriteAt};

use crate::file_system::the_rest_as_the_system;
use crate::support::*;

/// The real files, with faults.
#[derive(Default)]
struct Faulty {
    /// All times are this, if set: two writes of one length within a step of the clock look alike.
    frozen_ns: Option<i128>,
    /// Bytes that still fit on the disk; `u64::MAX` for no bound.
    room: Option<Arc<AtomicU64>>,
    /// The file with this name is written over while it is read, this many times.
    restless: Option<(&'static str, AtomicUsize)>,
    reads: AtomicUsize,
}

impl FileSystem for Faulty {
    fn stat(&self, path: &Path, follow: bool) -> io::Result<FileStat> {
        let stat = OsFileSystem.stat(path, follow)?;
        Ok(match self.frozen_ns {
            Some(at) => FileStat { mtime_ns: at, ctime_ns: at, ..stat },
            None => stat,
        })
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = OsFileSystem.read(path)?;
        if let Some((name, times)) = &self.restless
            && path.ends_with(name)
            && times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_ok()
        {
            std::fs::write(path, noise("restless", bytes.len() + 1))?;
        }
        Ok(bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        OsFileSystem.open(path)
    }
    fn open_writer(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn WriteAt>, WriterLock)> {
        let (storage, lock) = OsFileSystem.open_writer(path, create)?;
        Ok(match &self.room {
            Some(room) => (Arc::new(Full { storage, room: Arc::clone(room) }), lock),
            None => (storage, lock),
        })
    }
    the_rest_as_the_system!();
}

struct Full {
    storage: Arc<dyn WriteAt>,
    room: Arc<AtomicU64>,
}

impl ReadAt for Full {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.storage.read_exact_at(offset, into)
    }
    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        self.storage.map(len)
    }
    fn name(&self) -> String {
        self.storage.name()
    }
}

impl WriteAt for Full {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let take = |room: u64| room.checked_sub(bytes.len() as u64);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => self.storage.write_all_at(offset, bytes),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.storage.sync()
    }
}

fn serve(fs: &Arc<Faulty>, clock: Arc<dyn Clock>, tree: &Tree) -> TreeBuilder {
    let options = BuildOptions { tolerant: true, ..BuildOptions::default() };
    let fs = Arc::clone(fs) as Arc<dyn FileSystem>;
    TreeBuilder::open(fs, clock, &tree.root(), &tree.out("store.loft"), Some(&tree.out("stats")), options).unwrap()
}

fn nanos(time: SystemTime) -> i128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i128
}

#[test]
fn a_racy_stat_is_not_trusted_and_an_old_one_is() {
    let tree = Tree::new();
    tree.write("a.txt", b"one");
    let clock = Arc::new(ManualClock::new());
    let fs = Arc::new(Faulty { frozen_ns: Some(nanos(clock.wall()) + 1), ..Faulty::default() });
    let scan = |expect_reads: usize| {
        let mut builder = serve(&fs, Arc::clone(&clock) as Arc<dyn Clock>, &tree);
        fs.reads.store(0, Ordering::Relaxed);
        let built = builder.scan(&NoProgress).unwrap();
        assert_eq!(fs.reads.load(Ordering::Relaxed), expect_reads);
        if let Some(bundle) = &built.bundle {
            builder.committer().commit(bundle).unwrap();
        }
        builder.save_stats().unwrap();
        built.changed.len()
    };
    assert_eq!(scan(1), 1);
    // Written within the same step of the clock: the stat is the same, the bytes are not.
    tree.write("a.txt", b"two");
    assert_eq!(scan(1), 1);
    clock.advance(Duration::from_secs(5));
    assert_eq!(scan(1), 0);
    // Old enough now: not read again.
    assert_eq!(scan(0), 0);
}

#[test]
fn a_full_disk_leaves_the_old_generation_and_says_how_much_was_needed() {
    let tree = Tree::new();
    tree.write("a.txt", b"a");
    let room = Arc::new(AtomicU64::new(u64::MAX / 2));
    let fs = Arc::new(Faulty { room: Some(Arc::clone(&room)), ..Faulty::default() });
    let mut builder = serve(&fs, Arc::new(SystemClock), &tree);
    let built = builder.scan(&NoProgress).unwrap();
    builder.committer().commit(&built.bundle.unwrap()).unwrap();
    for number in 0..120 {
        tree.write(&format!("big/{number}.bin"), &noise(&format!("{number}"), 100_000));
    }
    room.store(5_000_000, Ordering::Relaxed);
    let changed = BTreeSet::from([tree.at("big")]);
    let error = builder.update(&changed).unwrap_err();
    let Error::DiskFull { needed_bytes, standing, .. } = &error else { panic!("{error}") };
    assert!((6_900_000..12_500_000).contains(needed_bytes), "{error}");
    assert_eq!(standing.unwrap().0, 1);
    assert_eq!(content(&open(&tree.out("store.loft")), "a.txt").unwrap(), b"a");
    // With room again, the next update brings all of it.
    room.store(u64::MAX / 2, Ordering::Relaxed);
    let built = builder.update(&BTreeSet::new()).unwrap();
    assert_eq!(built.changed.len(), 120);
    assert_eq!(content(&built.bundle.unwrap(), "big/7.bin").unwrap(), noise("7", 100_000));

    // A new bundle is not there at all then.
    room.store(100_000, Ordering::Relaxed);
    let options = BuildOptions::default();
    let out = tree.out("new.loft");
    let fs = Arc::clone(&fs) as Arc<dyn FileSystem>;
    let error = pack(fs, Arc::new(SystemClock), &tree.root(), &out, options, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::DiskFull { standing: None, .. }), "{error}");
    assert!(!out.exists() && !tree.out(".new.loft.new.tmp").exists());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_not_forever() {
    let check = |times: usize, packs: bool| {
        let tree = Tree::new();
        tree.write("a.bin", b"first");
        let fs = Arc::new(Faulty { restless: Some(("a.bin", AtomicUsize::new(times))), ..Faulty::default() });
        let options = BuildOptions::default();
        let out = tree.out("a.loft");
        let packed = pack(fs, Arc::new(SystemClock), &tree.root(), &out, options, &NoProgress);
        match packed {
            Ok(_) if packs => {
                assert_eq!(content(&open(&out), "a.bin").unwrap(), std::fs::read(tree.at("a.bin")).unwrap())
            }
            Err(error) if !packs => assert!(error.to_string().contains("a.bin: read: it changed each"), "{error}"),
            other => panic!("{times}: {other:?}"),
        }
    };
    check(0, true);
    check(3, true);
    check(1000, false);
}
