//! Hot reload: what changes on disk is what readers see, all of a change set or none of it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{PATIENCE, Tree, check, content, name, within};
use flyloft::telemetry::Subscription;
use flyloft::{ContentHash, Event, Runtime};

async fn serve(tree: &Tree) -> (Runtime, Subscription) {
    let runtime = within(tree.builder().watch(true).start()).await.unwrap();
    let events = runtime.events();
    (runtime, events)
}

/// Waits for the event that `wanted` picks something of.
async fn wait_for<T>(events: &mut Subscription, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    within(async {
        loop {
            let event = events.recv().await.expect("the runtime lives");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    })
    .await
}

/// Waits until readers see `path` as `bytes`, or not at all.
async fn until_seen(runtime: &Runtime, events: &mut Subscription, path: &str, bytes: Option<&[u8]>) {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let now = runtime.load(path).await.ok();
            if now.as_deref() == bytes {
                return;
            }
            drop(tokio::time::timeout(std::time::Duration::from_millis(50), events.recv()).await);
        }
    });
    if seen.await.is_err() {
        let (now, failures) = (runtime.load(path).await.map(|asset| asset.len()), runtime.status().failures);
        panic!("{path}: {now:?} bytes, not {:?}; what fails: {failures:?}", bytes.map(<[u8]>::len));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_file_is_what_readers_see_and_old_handles_and_snapshots_stay() {
    let tree = Tree::with_files(50);
    let (runtime, mut events) = serve(&tree).await;
    check(&runtime, 4, 0).await;
    let before = runtime.snapshot();
    let held = runtime.get(name(4)).unwrap();
    tree.write(&name(4), &content(4, 1));
    let published = wait_for(&mut events, |event| match event {
        Event::Published(published) => Some(published.clone()),
        _ => None,
    })
    .await;
    assert_eq!(published.changed.len(), 1);
    let change = &published.changed[0];
    assert_eq!(change.path.as_str(), name(4));
    assert_eq!(change.old, Some(ContentHash::of(&content(4, 0))));
    assert_eq!(change.new, Some(ContentHash::of(&content(4, 1))));
    assert!(published.old < published.generation && before.generation() == published.old);
    // It was resident, so it is resident: no load is needed.
    assert_eq!(&*runtime.get(name(4)).unwrap(), content(4, 1));
    assert_eq!(&*held, content(4, 0));
    // Where parts of a path are separated by another character, the file was found by way of its folder alone, and
    // its own event was a failure.
    assert!(runtime.status().failures.is_empty(), "{:?}", runtime.status().failures);
    assert_eq!(&*within(before.load(name(4))).await.unwrap(), content(4, 0));
    assert_eq!(&*within(before.load(name(6))).await.unwrap(), content(6, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_come_go_and_move_are_followed() {
    let tree = Tree::with_files(10);
    let (runtime, mut events) = serve(&tree).await;
    tree.write("new/deep/er/file.txt", b"hello");
    until_seen(&runtime, &mut events, "new/deep/er/file.txt", Some(b"hello")).await;
    std::fs::rename(tree.root().join("new"), tree.root().join("moved")).unwrap();
    until_seen(&runtime, &mut events, "moved/deep/er/file.txt", Some(b"hello")).await;
    until_seen(&runtime, &mut events, "new/deep/er/file.txt", None).await;
    // Wine tells of what is below a folder that was renamed under the folder's old name (docs/platforms.md).
    if std::env::var_os("FLYLOFT_UNDER_WINE").is_none() {
        tree.remove("moved/deep/er/file.txt");
        until_seen(&runtime, &mut events, "moved/deep/er/file.txt", None).await;
    }
    tree.replace(&name(3), b"replaced by rename");
    until_seen(&runtime, &mut events, &name(3), Some(b"replaced by rename")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_no_longer_builds_keeps_its_last_good_version_and_heals() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = \"*.json\"\nname = \"minify-json\"\n");
    tree.write("data.json", b"{ \"a\": 1 }");
    tree.write("other.txt", b"one");
    let (runtime, mut events) = serve(&tree).await;
    assert_eq!(&*within(runtime.load("data.json")).await.unwrap(), b"{\"a\":1}");
    tree.write("data.json", b"{ \"a\": ");
    let failure = wait_for(&mut events, |event| match event {
        Event::BuildFailed(failure) => Some(failure.clone()),
        _ => None,
    })
    .await;
    assert_eq!((failure.path.as_str(), failure.transform.as_str()), ("data.json", "minify-json"));
    assert_eq!(&*within(runtime.load("data.json")).await.unwrap(), b"{\"a\":1}");
    assert_eq!(runtime.status().failures.len(), 1);
    // The rest of the tree goes on meanwhile.
    tree.write("other.txt", b"two");
    until_seen(&runtime, &mut events, "other.txt", Some(b"two")).await;
    tree.write("data.json", b"{ \"a\": 2 }");
    until_seen(&runtime, &mut events, "data.json", Some(b"{\"a\":2}")).await;
    assert!(runtime.status().failures.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_nothing_ran_is_found_at_the_next_start() {
    let tree = Tree::with_files(20);
    let (runtime, _) = serve(&tree).await;
    let first = runtime.snapshot().generation();
    within(runtime.shutdown(std::time::Duration::from_secs(5))).await;
    tree.write(&name(1), &content(1, 5));
    let (runtime, _) = serve(&tree).await;
    check(&runtime, 1, 5).await;
    check(&runtime, 2, 0).await;
    assert!(runtime.snapshot().generation() > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_save_publishes_nothing() {
    let tree = Tree::with_files(5);
    let (runtime, mut events) = serve(&tree).await;
    let before = runtime.snapshot().generation();
    tree.write(&name(2), &content(2, 0));
    // A later change is published as the very next generation's only difference.
    tree.write("last.txt", b"last");
    until_seen(&runtime, &mut events, "last.txt", Some(b"last")).await;
    let changed = runtime.snapshot();
    assert!(changed.generation() > before);
    check(&runtime, 2, 0).await;
}

/// Files that are always written together name the same edition: a reader that sees two editions in one snapshot has
/// seen half a change set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_of_one_generation_through_a_thousand_edits_and_nothing_is_torn() {
    const FILES: usize = 100;
    const EDITS: usize = 1_000;
    const READERS: usize = 8;
    let tree = Tree::with_files(FILES);
    let (runtime, mut events) = serve(&tree).await;
    // Every edition of every file that was ever written, before it was written.
    let editions: Arc<Vec<AtomicU64>> = Arc::new((0..FILES).map(|_| AtomicU64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let (runtime, editions, stop) = (runtime.clone(), Arc::clone(&editions), Arc::clone(&stop));
        readers.push(tokio::spawn(async move {
            let mut reads = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let snapshot = runtime.snapshot();
                let index = (reads as usize * 31 + reader * 7) % FILES;
                let asset = snapshot.load(name(index)).await.unwrap();
                assert_eq!(ContentHash::of(&asset), asset.hash());
                let newest = editions[index].load(Ordering::Acquire) as usize;
                let known = (0..=newest).rev().any(|edition| *asset == *content(index, edition));
                assert!(known, "{} is torn", name(index));
                let again = snapshot.load(name(index)).await.unwrap();
                assert_eq!(asset.hash(), again.hash(), "one snapshot, two editions");
                reads += 1;
                // Hits are answered without a pause: the runtime's timers must have their turn.
                tokio::task::yield_now().await;
            }
            reads
        }));
    }
    for edit in 0..EDITS {
        let index = (edit * 37) % FILES;
        let edition = editions[index].fetch_add(1, Ordering::AcqRel) + 1;
        let bytes = content(index, edition as usize);
        if edit % 2 == 0 {
            tree.write(&name(index), &bytes)
        } else {
            tree.replace(&name(index), &bytes)
        }
        if edit % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for index in 0..FILES {
        let edition = editions[index].load(Ordering::Acquire) as usize;
        until_seen(&runtime, &mut events, &name(index), Some(&content(index, edition))).await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(within(reader).await.unwrap() > 0);
    }
    assert_eq!(runtime.stats().ledger.open, 0);
}
