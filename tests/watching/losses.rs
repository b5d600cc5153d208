//! What happens when the operating system does not tell of everything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flyloft::Event;
use flyloft::platform::threads::OsThreads;
use flyloft::platform::watch::{EventSink, OsWatch, RawEvent, RawKind, Scope, Watch, WatchGuard};
use parking_lot::Mutex;

use crate::common::{Tree, name, within};
use crate::support::{Watched, changes};

/// The operating system's watch, which loses events when it is told to.
#[derive(Clone, Default)]
struct Lossy {
    /// Events are swallowed.
    deaf: Arc<AtomicBool>,
    sink: Arc<Mutex<Option<Arc<EventSink>>>>,
    root: Arc<Mutex<PathBuf>>,
}

impl Lossy {
    fn tell(&self, events: Vec<RawEvent>) {
        let sink = self.sink.lock().clone().unwrap();
        sink(events);
    }

    fn tell_root(&self, kind: RawKind) {
        let path = self.root.lock().clone();
        self.tell(vec![RawEvent { path, kind, is_dir: Some(true) }]);
    }
}

impl Watch for Lossy {
    fn watch(
        &self,
        root: &Path,
        beside: &[PathBuf],
        scope: Arc<dyn Scope>,
        sink: EventSink,
    ) -> io::Result<Box<dyn WatchGuard>> {
        let sink = Arc::new(sink);
        *self.sink.lock() = Some(Arc::clone(&sink));
        *self.root.lock() = root.to_owned();
        let deaf = Arc::clone(&self.deaf);
        let pass = move |events| {
            if !deaf.load(Ordering::SeqCst) {
                sink(events);
            }
        };
        OsWatch::new(Arc::new(OsThreads)).watch(root, beside, scope, Box::new(pass))
    }
}

async fn deaf(tree: Tree, period: Option<Duration>) -> (Watched, Lossy) {
    let lossy = Lossy::default();
    let watch = Arc::new(lossy.clone());
    let watched = Watched::with(tree, |config| config.poll.period = period, |builder| builder.watcher(watch)).await;
    (watched, lossy)
}

async fn rescanned(watched: &mut Watched) -> String {
    watched
        .next(|event| match event {
            Event::Rescanned { why } => Some(why.clone()),
            _ => None,
        })
        .await
}

async fn warning(watched: &mut Watched) -> String {
    watched
        .next(|event| match event {
            Event::Warning { what } => Some(what.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_queue_overflowed_the_tree_is_looked_at_and_it_is_told() {
    let (mut watched, lossy) = deaf(Tree::with_files(50), None).await;
    lossy.deaf.store(true, Ordering::SeqCst);
    watched.tree.write(&name(3), b"changed");
    watched.tree.write("new/deep/a.txt", b"new");
    watched.tree.remove(&name(4));
    // Its bytes differ, and what tells it is its time of change alone.
    let same = watched.path(&name(5));
    let (bytes, modified) = (fs::read(&same).unwrap(), fs::metadata(&same).unwrap().modified().unwrap());
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    fs::write(&same, &other).unwrap();
    fs::OpenOptions::new().write(true).open(&same).unwrap().set_modified(modified).unwrap();
    lossy.tell_root(RawKind::Overflow("the queue overflowed".into()));
    assert_eq!(rescanned(&mut watched).await, "the queue overflowed");
    let published = watched.published().await;
    let mut expected = [(name(3), true), (name(4), false), (name(5), true), ("new/deep/a.txt".into(), true)];
    expected.sort_unstable();
    let expected: Vec<(&str, bool)> = expected.iter().map(|(path, there)| (path.as_str(), *there)).collect();
    assert_eq!(changes(&published), expected);
    assert_eq!(watched.bytes(&name(5)).await, Some(other));
    lossy.deaf.store(false, Ordering::SeqCst);
    let published = watched.once(|root| fs::write(root.join(name(3)), b"told again").unwrap()).await;
    assert_eq!(changes(&published), [(name(3).as_str(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_watches_run_out_the_tree_is_looked_at_from_time_to_time_and_it_is_told() {
    let tree = Tree::with_files(60);
    let watch = Arc::new(OsWatch::default().with_watches_max(8));
    let period = Some(Duration::from_millis(100));
    let mut watched = Watched::with(tree, |config| config.poll.period = period, |builder| builder.watcher(watch)).await;
    // It may have been told before anybody could listen.
    let says = |why: &Option<String>| {
        why.as_ref().is_some_and(|why| why.contains("max_user_watches") && why.contains("every 100ms"))
    };
    within(async {
        while !says(&watched.runtime.status().blind) {
            drop(tokio::time::timeout(Duration::from_millis(20), watched.events.recv()).await);
        }
    })
    .await;
    // Every folder, so also those without a watch.
    for index in 0..20 {
        watched.tree.write(&name(index), b"changed");
    }
    for index in 0..20 {
        watched.until_seen(&name(index), Some(b"changed")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_events_are_dead_changes_are_found_and_nothing_is_published_without_one() {
    let tree = Tree::with_files(50);
    fs::create_dir(tree.root().join(".git")).unwrap();
    let (mut watched, lossy) = deaf(tree, Some(Duration::from_millis(60))).await;
    lossy.tell_root(RawKind::Blind("it is on NFS".into()));
    assert!(warning(&mut watched).await.contains("it is on NFS"));
    assert!(rescanned(&mut watched).await.contains("every 60ms"));
    lossy.deaf.store(true, Ordering::SeqCst);
    for edition in ["one", "two"] {
        watched.tree.write("a.txt", edition.as_bytes());
        watched.until_seen("a.txt", Some(edition.as_bytes())).await;
    }
    // A version control's lock is not told either, and is looked for. Several looks, and no word.
    watched.tree.write(".git/index.lock", b"");
    while tokio::time::timeout(Duration::from_millis(300), watched.events.recv()).await.is_ok() {}
    let before = watched.runtime.snapshot().generation();
    watched.tree.write("held.txt", b"held");
    let told = tokio::time::timeout(Duration::from_millis(300), watched.events.recv()).await;
    assert!(told.is_err(), "{told:?}");
    watched.tree.remove(".git/index.lock");
    watched.until_seen("held.txt", Some(b"held")).await;
    assert_eq!(watched.runtime.snapshot().generation().0, before.0 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_may_always_be_looked_at_and_then_needs_no_events() {
    let lossy = Lossy::default();
    lossy.deaf.store(true, Ordering::SeqCst);
    let watch = Arc::new(lossy);
    let change = |config: &mut flyloft::config::RuntimeConfig| {
        config.poll.period = Some(Duration::from_millis(60));
        config.poll.always = true;
    };
    let mut watched = Watched::with(Tree::with_files(5), change, |builder| builder.watcher(watch)).await;
    watched.tree.write("a.txt", b"found");
    watched.until_seen("a.txt", Some(b"found")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_touched_files_are_one_look_at_the_tree() {
    let (mut watched, lossy) = deaf(Tree::with_files(20), None).await;
    lossy.deaf.store(true, Ordering::SeqCst);
    watched.tree.write("a.txt", b"found");
    let root = watched.tree.root();
    let event = |number: usize| {
        let path = root.join(format!("folder/{}/{number}", number % 100));
        let kinds = [RawKind::Created, RawKind::Modified, RawKind::Finished];
        kinds.map(|kind| RawEvent { path: path.clone(), kind, is_dir: Some(false) })
    };
    lossy.tell((0..100_000).flat_map(event).collect());
    assert!(rescanned(&mut watched).await.contains("more than 50000 paths"));
    watched.until_seen("a.txt", Some(b"found")).await;
}
