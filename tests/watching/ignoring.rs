//! What is ignored: not built, not watched, and brought in when it no longer is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flyloft::Event;

use crate::common::Tree;
use crate::support::{Watched, changes};

/// Whether this process has a watch on a folder, by what the kernel says of its descriptors.
fn is_watched(folder: &Path) -> bool {
    let inode = format!(" ino:{:x} ", fs::metadata(folder).unwrap().ino());
    let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|text| text.contains(&inode))
}

fn tree() -> Tree {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"ignore = ['node_modules/', '*.tmp', '!kept.tmp']\n");
    tree.write("a.txt", b"a");
    tree.write("a.tmp", b"a");
    tree.write("kept.tmp", b"kept");
    tree.write("node_modules/x/index.js", b"x");
    tree.write("sub/.flyloftignore", b"# what the exporter leaves\n*.raw\n!/chosen.raw\n/cache\n");
    tree.write("sub/cache/big.bin", b"big");
    tree.write("sub/a.raw", b"raw");
    tree.write("sub/chosen.raw", b"chosen");
    tree.write("sub/deep/.flyloftignore", b"!*.raw\n");
    tree.write("sub/deep/b.raw", b"b");
    tree.write("raw.raw", b"not below sub");
    tree
}

async fn assert_tree(watched: &Watched, ignored: &[&str], kept: &[&str]) {
    for path in ignored {
        assert_eq!(watched.bytes(path).await, None, "{path} is ignored");
    }
    for path in kept {
        assert!(watched.bytes(path).await.is_some(), "{path} is not ignored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_at_any_depth_are_honoured_and_the_nearest_wins() {
    let watched = Watched::new(tree()).await;
    let ignored = ["a.tmp", "node_modules/x/index.js", "sub/cache/big.bin", "sub/a.raw"];
    assert_tree(&watched, &ignored, &["kept.tmp", "sub/chosen.raw", "sub/deep/b.raw", "raw.raw", "sub/.flyloftignore"])
        .await;
    assert!(watched.runtime.status().failures.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ignored_is_not_watched_and_opens_no_change_set() {
    let mut watched = Watched::new(tree()).await;
    assert!(is_watched(&watched.path("sub/deep")));
    for folder in ["node_modules", "node_modules/x", "sub/cache"] {
        assert!(!is_watched(&watched.path(folder)), "{folder}");
    }
    watched
        .nothing(|root| {
            for number in 0..2_000 {
                fs::write(root.join(format!("node_modules/x/{number}.js")), b"x").unwrap();
            }
            fs::create_dir_all(root.join("deep/node_modules/y")).unwrap();
            fs::write(root.join("deep/node_modules/y/z.js"), b"z").unwrap();
            fs::write(root.join("sub/more.raw"), b"x").unwrap();
        })
        .await;
    assert!(!is_watched(&watched.path("deep/node_modules")) && is_watched(&watched.path("deep")));
    // A save by way of a name that is ignored is a save.
    let published = watched
        .once(|root| {
            fs::write(root.join("save.tmp"), b"saved").unwrap();
            fs::rename(root.join("save.tmp"), root.join("a.txt")).unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("a.txt", true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_what_is_ignored_brings_files_in_and_takes_them_out() {
    let mut watched = Watched::new(tree()).await;
    let published = watched.once(|root| fs::write(root.join("sub/.flyloftignore"), b"/deep/\n").unwrap()).await;
    let expected = [
        ("sub/.flyloftignore", true),
        ("sub/a.raw", true),
        ("sub/cache/big.bin", true),
        ("sub/deep/.flyloftignore", false),
        ("sub/deep/b.raw", false),
    ];
    assert_eq!(changes(&published), expected);
    let published = watched.once(|root| fs::write(root.join("sub/cache/big.bin"), b"bigger").unwrap()).await;
    assert_eq!(changes(&published), [("sub/cache/big.bin", true)]);
    assert!(is_watched(&watched.path("sub/cache")) && !is_watched(&watched.path("sub/deep")));
    watched.nothing(|root| fs::write(root.join("sub/deep/b.raw"), b"unseen").unwrap()).await;
    // Without the file nothing is ignored there; the one below counts again.
    let published = watched.once(|root| fs::remove_file(root.join("sub/.flyloftignore")).unwrap()).await;
    let expected = [("sub/.flyloftignore", false), ("sub/deep/.flyloftignore", true), ("sub/deep/b.raw", true)];
    assert_eq!(changes(&published), expected);
    let published = watched.once(|root| fs::write(root.join("flyloft.toml"), b"ignore = ['/sub/']\n").unwrap()).await;
    let found = changes(&published);
    assert!(found.contains(&("a.tmp", true)) && found.contains(&("node_modules/x/index.js", true)), "{found:?}");
    assert!(found.contains(&("sub/a.raw", false)), "{found:?}");
    let published = watched.once(|root| fs::write(root.join("node_modules/x/index.js"), b"y").unwrap()).await;
    assert_eq!(changes(&published), [("node_modules/x/index.js", true)]);
    // A folder that is moved in with such a file in it.
    let published = watched
        .once(|root| {
            let made = root.join("../made");
            fs::create_dir(&made).unwrap();
            fs::write(made.join(".flyloftignore"), b"*.bak\n").unwrap();
            fs::write(made.join("x.bak"), b"x").unwrap();
            fs::write(made.join("x.txt"), b"x").unwrap();
            fs::rename(&made, root.join("moved")).unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("moved/.flyloftignore", true), ("moved/x.txt", true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_that_cannot_be_read_is_told_with_its_line_and_the_others_hold() {
    let mut watched = Watched::new(tree()).await;
    watched.tree.write("sub/.flyloftignore", b"*.raw\n[a\n");
    let failure = watched
        .next(|event| match event {
            Event::BuildFailed(failure) => Some(failure.clone()),
            _ => None,
        })
        .await;
    assert_eq!(
        (failure.path.as_str(), failure.line, failure.transform.as_str()),
        ("sub/.flyloftignore", Some(2), "scan")
    );
    watched.until_seen("sub/chosen.raw", None).await;
    watched.tree.write("sub/.flyloftignore", b"*.raw\n");
    watched
        .next(|event| matches!(event, Event::Healed { path } if path.as_str() == "sub/.flyloftignore").then_some(()))
        .await;
}
