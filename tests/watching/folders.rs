//! What happens to folders, and to the root itself.

use std::fs;

use flyloft::Event;

use crate::common::Tree;
use crate::support::{Watched, changes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_renamed_takes_what_is_below_it_along_and_is_still_watched() {
    let tree = Tree::new();
    tree.write("one/a.txt", b"a");
    tree.write("one/deep/b.txt", b"b");
    let mut watched = Watched::new(tree).await;
    let published = watched.once(|root| fs::rename(root.join("one"), root.join("two")).unwrap()).await;
    let expected = [("one/a.txt", false), ("one/deep/b.txt", false), ("two/a.txt", true), ("two/deep/b.txt", true)];
    assert_eq!(changes(&published), expected);
    let published = watched.once(|root| fs::write(root.join("two/deep/b.txt"), b"new").unwrap()).await;
    assert_eq!(changes(&published), [("two/deep/b.txt", true)]);
    // A folder of the old name is another one.
    let published = watched
        .once(|root| {
            fs::create_dir_all(root.join("one/deep")).unwrap();
            fs::write(root.join("one/deep/b.txt"), b"other").unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("one/deep/b.txt", true)]);
    watched.assert_bytes("two/deep/b.txt", Some(b"new")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_are_moved_out_and_in_go_and_come_with_their_files() {
    let tree = Tree::with_files(3);
    tree.write("one/a.txt", b"a");
    tree.write("one/deep/b.txt", b"b");
    let mut watched = Watched::new(tree).await;
    let published = watched.once(|root| fs::rename(root.join("one"), root.join("../out")).unwrap()).await;
    assert_eq!(changes(&published), [("one/a.txt", false), ("one/deep/b.txt", false)]);
    watched.nothing(|root| fs::write(root.join("../out/deep/b.txt"), b"outside").unwrap()).await;
    let published = watched.once(|root| fs::rename(root.join("../out"), root.join("in")).unwrap()).await;
    assert_eq!(changes(&published), [("in/a.txt", true), ("in/deep/b.txt", true)]);
    watched.assert_bytes("in/deep/b.txt", Some(b"outside")).await;
    let published = watched.once(|root| fs::write(root.join("in/deep/b.txt"), b"inside").unwrap()).await;
    assert_eq!(changes(&published), [("in/deep/b.txt", true)]);
    let published = watched.once(|root| fs::remove_dir_all(root.join("in")).unwrap()).await;
    assert_eq!(changes(&published), [("in/a.txt", false), ("in/deep/b.txt", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_two_hundred_new_nested_folders_are_all_found() {
    let mut watched = Watched::new(Tree::with_files(3)).await;
    let file = |number: usize| format!("new/{}/{number}/x/y/file.txt", number % 7);
    // And then all of them are watched.
    for edition in ["made", "written again"] {
        for number in 0..200 {
            watched.tree.write(&file(number), format!("{number} {edition}").as_bytes());
        }
        for number in 0..200 {
            watched.until_seen(&file(number), Some(format!("{number} {edition}").as_bytes())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_renamed_removed_and_made_again_is_followed() {
    let tree = Tree::new();
    tree.write("a.txt", b"one");
    tree.write("deep/b.txt", b"b");
    let mut watched = Watched::new(tree).await;
    let root = watched.tree.root();
    let gone = |event: &Event| match event {
        Event::Warning { what } => what.contains("moved or removed").then_some(()),
        _ => None,
    };
    for round in 0..2 {
        if round == 0 {
            fs::rename(&root, root.with_file_name("away")).unwrap();
        } else {
            fs::remove_dir_all(&root).unwrap();
        }
        watched.next(gone).await;
        // What was published stays.
        watched.assert_bytes("deep/b.txt", Some(b"b")).await;
        // Made elsewhere and moved to its place, so that it is never seen half made.
        let made = root.with_file_name("made");
        fs::create_dir_all(made.join("deep")).unwrap();
        fs::write(made.join("deep/b.txt"), b"b").unwrap();
        let bytes = format!("made again {round}");
        fs::write(made.join("c.txt"), &bytes).unwrap();
        fs::rename(&made, &root).unwrap();
        watched.next(|event| matches!(event, Event::Rescanned { .. }).then_some(())).await;
        watched.until_seen("c.txt", Some(bytes.as_bytes())).await;
        watched.until_seen("a.txt", None).await;
        watched.published_until_now().await;
        let published = watched.once(|root| fs::write(root.join("deep/d.txt"), format!("{round}")).unwrap()).await;
        assert_eq!(changes(&published), [("deep/d.txt", true)]);
    }
}
