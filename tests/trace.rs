//! What is asked for is written down, and a bundle is laid out by it.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Tree, content, name, within};
use flyloft::build::{self, AccessOrder, BuildOptions, NoProgress};
use flyloft::bundle::Bundle;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::telemetry::accesses::{Access, Coding, Level, TraceEnd, TraceReader, TraceWriter, TracedAsset};
use flyloft::{AssetId, AssetKind, AssetPath, Error, Origin, Priority, Runtime};

/// The accesses of a trace by path, and how it ended.
fn read(file: &Path) -> (Vec<(String, Access)>, Vec<TracedAsset>, TraceEnd) {
    let mut reader = TraceReader::new(File::open(file).unwrap(), "trace").unwrap();
    let accesses: Vec<Access> = (&mut reader).map(Result::unwrap).collect();
    let path = |access: &Access| {
        let asset =
            reader.assets().iter().find(|asset| (asset.id, asset.stored) == (access.id, access.stored)).unwrap();
        asset.path.as_ref().map_or("?", AssetPath::as_str).to_owned()
    };
    let named = accesses.iter().map(|access| (path(access), *access)).collect();
    (named, reader.assets().to_vec(), reader.end().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_has_every_access_with_how_it_was_answered() {
    let tree = Tree::with_files(4);
    let (file, bundle) = (tree.outside("run.flytrace"), tree.packed());
    let runtime = within(Runtime::builder().bundle(&bundle).start()).await.unwrap();
    within(runtime.load(name(3))).await.unwrap();
    let recording = runtime.record(&file).unwrap();
    within(runtime.request(name(1)).priority(Priority::Critical).send()).await.unwrap();
    assert!(runtime.get(name(1)).is_some());
    assert!(runtime.with(name(3).as_str(), <[u8]>::len).is_some());
    assert!(matches!(within(runtime.load("missing")).await, Err(Error::NotFound { .. })));
    drop(within(runtime.open(name(2))).await.unwrap());
    let report = within(recording.finish()).await.unwrap();
    assert_eq!((report.accesses, report.missed), (5, 0));
    assert_eq!(report.bytes, std::fs::metadata(&file).unwrap().len());
    // Nobody listens any more.
    assert!(runtime.get(name(1)).is_some());
    let (accesses, assets, end) = read(&file);
    assert_eq!(end, TraceEnd::Whole { accesses: 5, missed: 0 });
    let seen: Vec<(&str, Level)> = accesses.iter().map(|(path, access)| (path.as_str(), access.level)).collect();
    let (one, two, three) = (name(1), name(2), name(3));
    let expected = [
        (&*one, Level::Loaded),
        (&*one, Level::Hit),
        (&*three, Level::Hit),
        ("?", Level::Failed),
        (&*two, Level::Streamed),
    ];
    assert_eq!(seen, expected);
    let first = accesses[0].1;
    assert_eq!(
        (first.weight, first.priority, first.origin),
        (content(1, 0).len() as u64, Priority::Critical, Origin::User)
    );
    assert!(accesses.is_sorted_by_key(|(_, access)| access.at_us));
    for asset in assets.iter().filter(|asset| asset.path.is_some()) {
        assert!(asset.bytes > 0 && asset.coding.is_some(), "{asset:?}");
    }
    within(runtime.shutdown(Duration::from_secs(5))).await;
    assert!(matches!(runtime.record(&file), Err(Error::ShutDown)));
}

#[tokio::test]
async fn a_recording_that_was_asked_for_with_the_start_ends_with_the_shutdown() {
    let tree = Tree::with_files(2);
    let file = tree.outside("run.flytrace");
    let runtime = within(tree.builder().trace(&file).start()).await.unwrap();
    within(runtime.load(name(0))).await.unwrap();
    let report = within(runtime.shutdown(Duration::from_secs(5))).await;
    let recorded = report.recorded.unwrap().unwrap();
    assert_eq!((recorded.accesses, recorded.missed, recorded.file), (1, 0, file.clone()));
    assert_eq!(read(&file).2, TraceEnd::Whole { accesses: 1, missed: 0 });
    let nowhere = tree.outside("no/such/folder/trace");
    let refused = within(tree.builder().trace(&nowhere).start()).await.err().unwrap().to_string();
    assert!(refused.contains("no/such/folder"), "{refused}");
}

/// A trace of these accesses, in this order.
fn trace(file: &Path, paths: &[String]) {
    let mut writer = TraceWriter::new(File::create(file).unwrap(), 0).unwrap();
    for (at, path) in paths.iter().enumerate() {
        let path = AssetPath::new(path).unwrap();
        let access = Access {
            id: path.id(),
            stored: false,
            at_us: at as u64,
            weight: 1,
            level: Level::Loaded,
            priority: Priority::Medium,
            origin: Origin::User,
            latency_us: 1,
        };
        let (kind, coding) = (AssetKind::Text, Some(Coding::Zstd));
        let id = access.id;
        writer.access(&access, || TracedAsset { id, stored: false, path: Some(path), bytes: 1, kind, coding }).unwrap();
    }
    writer.finish(0).unwrap();
}

fn places(file: &Path) -> Arc<HashMap<AssetId, u32>> {
    let mut order = AccessOrder::default();
    order.learn(TraceReader::new(File::open(file).unwrap(), "trace").unwrap()).unwrap();
    Arc::new(order.places())
}

fn packed(tree: &Tree, out: &Path, threads: usize, order: Option<Arc<HashMap<AssetId, u32>>>) -> Bundle {
    let (fs, options) = (Arc::new(OsFileSystem), BuildOptions { threads, order, ..BuildOptions::default() });
    build::pack(fs, Arc::new(SystemClock), &tree.root(), out, options, &NoProgress).unwrap();
    Bundle::open(OsFileSystem.open(out).unwrap(), false).unwrap()
}

/// How many frames hold these assets.
fn frames(bundle: &Bundle, paths: &[String]) -> usize {
    let frame = |path: &String| {
        let record = bundle.find(&AssetPath::new(path).unwrap()).unwrap().unwrap();
        bundle.placement(&record.content, 0..u64::MAX).unwrap().unwrap().pieces[0].frame.number
    };
    paths.iter().map(frame).collect::<BTreeSet<u32>>().len()
}

#[test]
fn what_was_asked_for_together_lies_together_and_the_same_trace_gives_the_same_bytes() {
    let tree = Tree::new();
    let path = |number: usize| format!("{:03}.txt", number);
    for number in 0..400 {
        // A frame is about ten files.
        let hash = text(number);
        tree.write(&path(number), hash.repeat(100).as_bytes());
    }
    // Every twentieth, which no order by paths brings together.
    let wanted: Vec<String> = (0..20).map(|number| path(number * 20)).collect();
    let file = tree.outside("run.flytrace");
    trace(&file, &wanted);
    let plain = packed(&tree, &tree.outside("plain.loft"), 1, None);
    let ordered = packed(&tree, &tree.outside("ordered.loft"), 1, Some(places(&file)));
    packed(&tree, &tree.outside("again.loft"), 2, Some(places(&file)));
    let bytes = |name: &str| std::fs::read(tree.outside(name)).unwrap();
    assert!(bytes("ordered.loft") == bytes("again.loft"), "another number of threads made other bytes");
    assert_eq!(plain.info().assets, ordered.info().assets);
    let (before, after) = (frames(&plain, &wanted), frames(&ordered, &wanted));
    assert!(after * 4 <= before, "{before} frames before, {after} after");
}

/// Some text that differs from one number to the next.
fn text(number: usize) -> String {
    flyloft::ContentHash::of(&number.to_le_bytes()).to_string()
}
