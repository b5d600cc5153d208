//! What else happens to files.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use flyloft::config::{RuntimeConfig, SettleConfig};

use crate::common::Tree;
use crate::support::{Watched, begin, changes};

async fn with_file(bytes: &[u8]) -> Watched {
    let tree = Tree::with_files(5);
    tree.write("a.txt", bytes);
    Watched::new(tree).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_seen_with_what_was_there() {
    let mut watched = with_file(b"one\n").await;
    let witness = watched.witness("a.txt");
    for line in ["two\n", "three\n"] {
        let published = watched
            .once(|root| {
                let mut file = OpenOptions::new().append(true).open(root.join("a.txt")).unwrap();
                file.write_all(line.as_bytes()).unwrap();
            })
            .await;
        assert_eq!(changes(&published), [("a.txt", true)]);
    }
    watched.assert_bytes("a.txt", Some(b"one\ntwo\nthree\n")).await;
    witness.saw_only(&[b"one\n", b"one\ntwo\n", b"one\ntwo\nthree\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_stays_open_for_writing_is_not_seen_before_it_is_closed() {
    let mut watched = with_file(b"before").await;
    let witness = watched.witness("a.txt");
    let file = begin(&watched.path("a.txt"), b"half");
    // Another change shows meanwhile: the set that both are in is handed over.
    watched.tree.write("b.txt", b"meanwhile");
    watched.until_seen("b.txt", Some(b"meanwhile")).await;
    watched.assert_bytes("a.txt", Some(b"before")).await;
    let published = watched
        .once(|_| {
            let mut file = file;
            file.write_all(b" and half").unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("a.txt", true)]);
    witness.saw_only(&[b"before", b"half and half"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_never_ends_holds_others_up_for_a_bounded_time() {
    let ms = Duration::from_millis;
    let settle = SettleConfig { unfinished: ms(200), unfinished_max: ms(300), ..crate::support::wide() };
    let tree = Tree::with_files(5);
    let mut watched = Watched::with(tree, |config: &mut RuntimeConfig| config.settle = settle, |builder| builder).await;
    let mut log = begin(&watched.path("log.txt"), b"");
    watched.tree.write("b.txt", b"meanwhile");
    while watched.bytes("b.txt").await.is_none() {
        log.write_all(b"line\n").unwrap();
        drop(tokio::time::timeout(Duration::from_millis(5), watched.events.recv()).await);
    }
    drop(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_a_name_that_is_linked_into_the_tree_is_seen() {
    let mut watched = with_file(b"one").await;
    let link = |file: &fs::File, to: &Path| {
        let descriptor = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        // linkat(2) with AT_SYMLINK_FOLLOW, which the standard library does not offer.
        let linked = std::process::Command::new("ln").arg("-L").arg(descriptor).arg(to).status().unwrap();
        assert!(linked.success());
    };
    let unnamed =
        |root: &Path| OpenOptions::new().write(true).mode(0o644).custom_flags(libc::O_TMPFILE).open(root).unwrap();
    let published = watched
        .once(|root| {
            let mut file = unnamed(root);
            file.write_all(b"linked").unwrap();
            link(&file, &root.join("linked.txt"));
        })
        .await;
    assert_eq!(changes(&published), [("linked.txt", true)]);
    watched.assert_bytes("linked.txt", Some(b"linked")).await;
    // It is still being written when it gets its name, and nothing tells when it is closed.
    let mut file = unnamed(&watched.tree.root());
    file.write_all(b"ha").unwrap();
    link(&file, &watched.path("late.txt"));
    watched.published_until_now().await;
    watched.assert_bytes("late.txt", None).await;
    file.write_all(b"lf").unwrap();
    drop(file);
    watched.until_seen("late.txt", Some(b"half")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_one_name_of_a_file_is_seen_under_its_other_names() {
    let mut watched = with_file(b"one").await;
    let published = watched
        .once(|root| {
            fs::create_dir(root.join("in")).unwrap();
            fs::hard_link(root.join("a.txt"), root.join("in/b.txt")).unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("in/b.txt", true)]);
    for (by, bytes) in [("a.txt", b"two" as &[u8]), ("in/b.txt", b"three")] {
        let published = watched.once(|root| fs::write(root.join(by), bytes).unwrap()).await;
        assert_eq!(changes(&published), [("a.txt", true), ("in/b.txt", true)]);
        watched.assert_bytes("a.txt", Some(bytes)).await;
        watched.assert_bytes("in/b.txt", Some(bytes)).await;
    }
    // One name less, and the other stays.
    let published = watched.once(|root| fs::remove_file(root.join("a.txt")).unwrap()).await;
    assert_eq!(changes(&published), [("a.txt", false)]);
    watched.assert_bytes("in/b.txt", Some(b"three")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_permissions_and_the_same_bytes_again_publish_nothing() {
    let mut watched = with_file(b"one").await;
    watched
        .nothing(|root| {
            let file = OpenOptions::new().write(true).open(root.join("a.txt")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        })
        .await;
    watched.nothing(|root| fs::set_permissions(root.join("a.txt"), Permissions::from_mode(0o600)).unwrap()).await;
    watched.nothing(|root| fs::write(root.join("a.txt"), b"one").unwrap()).await;
    watched
        .nothing(|root| {
            fs::write(root.join("../again"), b"one").unwrap();
            fs::rename(root.join("../again"), root.join("a.txt")).unwrap();
        })
        .await;
    // The execute bit is part of the tree.
    let published =
        watched.once(|root| fs::set_permissions(root.join("a.txt"), Permissions::from_mode(0o755)).unwrap()).await;
    assert_eq!(changes(&published), [("a.txt", true)]);
    assert_eq!(published.changed[0].old, published.changed[0].new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_removed_and_made_again_at_once_is_never_missed() {
    let mut watched = with_file(b"one").await;
    let witness = watched.witness("a.txt");
    let published = watched
        .once(|root| {
            fs::remove_file(root.join("a.txt")).unwrap();
            fs::write(root.join("a.txt"), b"two").unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("a.txt", true)]);
    witness.saw_only(&[b"one", b"two"]);
    let published = watched.once(|root| fs::remove_file(root.join("a.txt")).unwrap()).await;
    assert_eq!(changes(&published), [("a.txt", false)]);
    let published = watched.once(|root| fs::write(root.join("a.txt"), b"two").unwrap()).await;
    assert_eq!(changes(&published), [("a.txt", true)]);
    watched.assert_bytes("a.txt", Some(b"two")).await;
}
