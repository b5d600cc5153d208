//! Earlier generations are kept as asked for, can be read, and can be gone back to.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Tree, within};
use flyloft::event::Published;
use flyloft::telemetry::Subscription;
use flyloft::{Error, Event, Generation, Runtime, Snapshot};

async fn serve(tree: &Tree, generations: usize) -> (Runtime, Subscription) {
    let builder = tree.builder().watch(true).retain_generations(generations);
    let runtime = within(builder.start()).await.unwrap();
    let events = runtime.events();
    (runtime, events)
}

async fn next_published(events: &mut Subscription) -> Published {
    within(async {
        loop {
            if let Event::Published(published) = events.recv().await.expect("the runtime lives") {
                return published;
            }
        }
    })
    .await
}

/// Saves and waits until it is published.
async fn save(tree: &Tree, events: &mut Subscription, path: &str, bytes: &[u8]) -> Generation {
    tree.replace(path, bytes);
    next_published(events).await.generation
}

/// All that a generation has: paths and bytes.
async fn all(snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for record in within(snapshot.assets("")).await.unwrap() {
        let asset = within(snapshot.load(record.path.as_str())).await.unwrap();
        assert_eq!(asset.hash(), record.content);
        all.insert(record.path.to_string(), asset.to_vec());
    }
    all
}

fn bytes_of(all: &BTreeMap<String, Vec<u8>>, path: &str) -> Option<String> {
    all.get(path).map(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

async fn text(runtime: &Runtime, path: &str) -> String {
    String::from_utf8(within(runtime.load(path)).await.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_generations_as_asked_for_stay_loadable() {
    let tree = Tree::with_files(20);
    tree.write("a.txt", b"0");
    let (runtime, mut events) = serve(&tree, 2).await;
    let first = runtime.snapshot().generation();
    let mut saved = vec![first];
    for edit in 1..=4 {
        saved.push(save(&tree, &mut events, "a.txt", edit.to_string().as_bytes()).await);
    }
    assert_eq!(runtime.generations(), saved[2..]);
    for (edit, generation) in saved.iter().enumerate().skip(2) {
        let snapshot = runtime.snapshot_of(*generation).unwrap();
        assert_eq!(snapshot.generation(), *generation);
        assert_eq!(&*within(snapshot.load("a.txt")).await.unwrap(), edit.to_string().as_bytes());
        assert_eq!(all(&snapshot).await.len(), 21);
    }
    for gone in [first, Generation(saved[4].0 + 1)] {
        let error = runtime.snapshot_of(gone).err().unwrap();
        assert!(matches!(error, Error::NotRetained { generation, .. } if generation == gone), "{error}");
        let named = runtime.generations().iter().all(|kept| error.to_string().contains(&kept.to_string()));
        assert!(named, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_publishes_the_tree_of_an_earlier_generation_under_a_new_number() {
    let tree = Tree::with_files(30);
    tree.write("changed.txt", b"old");
    tree.write("deleted.txt", b"here");
    tree.write("main.css", b"@import \"deleted.css\";");
    let (runtime, mut events) = serve(&tree, 8).await;
    let before = runtime.snapshot();
    let was = all(&before).await;
    let mut followed = within(runtime.watched::<String>("changed.txt")).await.unwrap();
    save(&tree, &mut events, "changed.txt", b"new").await;
    within(followed.changed()).await.unwrap();
    tree.remove("deleted.txt");
    next_published(&mut events).await;
    let last = save(&tree, &mut events, "folder00/added.txt", b"added").await;
    assert!(runtime.get("changed.txt").is_some());

    let back = within(runtime.rollback(before.generation())).await.unwrap();
    assert!(back > last);
    let published = next_published(&mut events).await;
    assert_eq!((published.old, published.generation), (last, back));
    let changed: Vec<_> = published
        .changed
        .iter()
        .map(|change| (change.path.as_str(), change.old.is_some(), change.new.is_some()))
        .collect();
    assert_eq!(
        changed,
        [("changed.txt", true, true), ("deleted.txt", false, true), ("folder00/added.txt", true, false)]
    );
    // It was resident, so it is; and what follows it follows it back.
    assert_eq!(&*runtime.get("changed.txt").expect("it is resident"), b"old");
    assert_eq!(**followed.load(), *"old");
    assert_eq!(all(&runtime.snapshot()).await, was);
    assert_eq!(bytes_of(&was, "deleted.txt").as_deref(), Some("here"));
    let uses = within(runtime.snapshot().dependencies("main.css")).await.unwrap();
    assert_eq!(uses, within(before.dependencies("main.css")).await.unwrap());
    assert_eq!(uses.len(), 1);
    assert!(within(runtime.load("folder00/added.txt")).await.is_err());

    // Forward again, and where it is already.
    let forward = within(runtime.rollback(last)).await.unwrap();
    assert_eq!(text(&runtime, "changed.txt").await, "new");
    assert!(within(runtime.load("deleted.txt")).await.is_err());
    assert_eq!(text(&runtime, "folder00/added.txt").await, "added");
    assert_eq!(within(runtime.rollback(forward)).await.unwrap(), forward);
    let error = within(runtime.rollback(Generation(forward.0 + 1))).await.unwrap_err();
    assert!(matches!(error, Error::NotRetained { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_gone_back_from_stays_so_until_its_file_changes_again() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = \"*.json\"\nname = \"minify-json\"\n");
    for name in ["a.txt", "b.txt", "c.txt"] {
        tree.write(name, b"1");
    }
    tree.write("d.json", b"{ \"edition\": 1 }");
    let (runtime, mut events) = serve(&tree, 16).await;
    let first = runtime.snapshot().generation();
    for name in ["a.txt", "b.txt"] {
        save(&tree, &mut events, name, b"2").await;
    }
    save(&tree, &mut events, "d.json", b"{ \"edition\": 2 }").await;
    save(&tree, &mut events, "new.txt", b"new").await;
    tree.remove("c.txt");
    next_published(&mut events).await;
    within(runtime.rollback(first)).await.unwrap();
    next_published(&mut events).await;

    let is_back = async |but: &str| {
        let now = all(&runtime.snapshot()).await;
        let is = |path: &str, bytes: Option<&str>| {
            assert!(path == but || bytes_of(&now, path).as_deref() == bytes, "{path} after {but}: {now:?}");
        };
        is("a.txt", Some("1"));
        is("b.txt", Some("1"));
        is("c.txt", Some("1"));
        is("d.json", Some("{\"edition\":1}"));
        is("new.txt", None);
    };
    is_back("").await;
    // A look at the whole tree, as after lost events: the watcher's restart makes one. What is saved after it shows
    // that it is over.
    runtime.kill("file_watcher").unwrap();
    runtime.kill("rebuilder").unwrap();
    until_up(&runtime, &["file_watcher", "rebuilder"]).await;
    save(&tree, &mut events, "other.txt", b"1").await;
    is_back("").await;
    // The same bytes again are no change.
    tree.replace("b.txt", b"2");
    save(&tree, &mut events, "other.txt", b"2").await;
    is_back("").await;
    // Another edition is, of that file alone.
    save(&tree, &mut events, "a.txt", b"3").await;
    assert_eq!(text(&runtime, "a.txt").await, "3");
    is_back("a.txt").await;
    save(&tree, &mut events, "d.json", b"{ \"edition\": 3 }").await;
    assert_eq!(text(&runtime, "d.json").await, "{\"edition\":3}");
    save(&tree, &mut events, "new.txt", b"newer").await;
    assert_eq!(text(&runtime, "new.txt").await, "newer");
    assert_eq!(text(&runtime, "b.txt").await, "1");
    save(&tree, &mut events, "c.txt", b"4").await;
    assert_eq!(text(&runtime, "c.txt").await, "4");

    // After a restart the tree is served as it is.
    within(runtime.shutdown(Duration::from_secs(5))).await;
    let (runtime, _events) = serve(&tree, 16).await;
    for (path, bytes) in [("a.txt", "3"), ("b.txt", "2"), ("c.txt", "4"), ("d.json", "{\"edition\":3}")] {
        assert_eq!(text(&runtime, path).await, bytes, "{path}");
    }
}

async fn until_up(runtime: &Runtime, actors: &[&str]) {
    let up = |name: &str| {
        let status = runtime.status();
        let mut reports = status.actors.iter();
        reports.any(|report| {
            report.name == name && report.restarts > 0 && report.state == flyloft::runtime::ActorState::Up
        })
    };
    within(async {
        while !actors.iter().all(|name| up(name)) {
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_answered_whatever_dies_and_every_edit_after_it_counts() {
    let tree = Tree::with_files(50);
    tree.write("a.txt", b"0");
    let (runtime, mut events) = serve(&tree, 32).await;
    let first = runtime.snapshot().generation();
    for (round, actor) in (1..).zip(["rebuilder", "cache_manager", "file_watcher", "io_dispatcher"]) {
        let edited = format!("edit {round}");
        save(&tree, &mut events, "a.txt", edited.as_bytes()).await;
        assert_eq!(text(&runtime, "a.txt").await, edited);
        let rolling = runtime.clone();
        let rolling = tokio::spawn(async move { rolling.rollback(first).await });
        // What is restarting already cannot be killed, and need not be.
        drop(runtime.kill(actor));
        let back = within(rolling).await.unwrap().unwrap();
        let snapshot = runtime.snapshot_of(back).unwrap();
        assert_eq!(&*within(snapshot.load("a.txt")).await.unwrap(), b"0", "{actor}");
        while next_published(&mut events).await.generation < back {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_to_do_a_rollback_is_an_error_and_not_a_silence() {
    let tree = Tree::with_files(3);
    let packed = tree.packed();
    let runtime = within(Runtime::builder().bundle(&packed).start()).await.unwrap();
    let only = runtime.snapshot().generation();
    assert_eq!(runtime.generations(), [only]);
    let error = within(runtime.rollback(only)).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");

    let (runtime, mut events) = serve(&tree, 4).await;
    let first = runtime.snapshot().generation();
    save(&tree, &mut events, "a.txt", b"1").await;
    within(runtime.shutdown(Duration::from_secs(5))).await;
    let error = within(runtime.rollback(first)).await.unwrap_err();
    assert!(matches!(error, Error::ShutDown), "{error}");
    // What is kept can still be looked at.
    assert_eq!(runtime.snapshot_of(first).unwrap().generation(), first);
}

/// Invariant 7: what is kept of earlier generations is on disk, and takes memory only while somebody reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_that_are_kept_take_no_memory_while_nobody_reads_them() {
    const LEN: u64 = 1 << 20;
    let tree = Tree::new();
    tree.write("large.bin", &vec![0; LEN as usize]);
    let (runtime, mut events) = serve(&tree, 16).await;
    let first = runtime.snapshot().generation();
    drop(within(runtime.load("large.bin")).await.unwrap());
    for edit in 1..=8u8 {
        save(&tree, &mut events, "large.bin", &vec![edit; LEN as usize]).await;
        assert_eq!(runtime.get("large.bin").expect("it was resident, so it is")[0], edit);
    }
    let charged = runtime.stats().budget.charged;
    assert!(charged < 2 * LEN, "{charged} bytes");
    assert_eq!(runtime.generations().len(), 9);
    let snapshot = runtime.snapshot_of(first).unwrap();
    assert_eq!(within(snapshot.load("large.bin")).await.unwrap()[0], 0);
    assert!(snapshot.get("large.bin").is_some(), "what is read is resident");
    save(&tree, &mut events, "large.bin", b"small").await;
    assert!(snapshot.get("large.bin").is_some(), "as long as it is read");
    drop(snapshot);
    save(&tree, &mut events, "large.bin", b"smaller").await;
    // Whoever answered its load may let go of the generation a little later than this; the next publication sees to it.
    let mut edit = 0u64;
    while runtime.stats().budget.charged >= LEN {
        edit += 1;
        save(&tree, &mut events, "other.txt", &edit.to_le_bytes()).await;
    }
}
