//! Version controls: what they do under their lock is one generation.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flyloft::config::SettleConfig;

use crate::common::Tree;
use crate::support::{Watched, changes};

/// Set `FLYLOFT_CHECKOUT_FILES` for more: most of the time goes to git.
const FILES: usize = 1_000;

fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.com",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "gc.auto=0",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn write_files(folder: &Path, count: usize, edition: &str) {
    for number in 0..count {
        let path = folder.join(format!("f{}/{number}.txt", number % 50));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{number} of {edition}")).unwrap();
    }
}

/// A repository with two branches that differ in `count` files below `inside`.
fn repository(top: &Path, inside: &str, count: usize) {
    fs::create_dir_all(top.join(inside)).unwrap();
    git(top, &["init", "-q", "-b", "one"]);
    for branch in ["one", "two"] {
        if branch == "two" {
            git(top, &["checkout", "-q", "-b", "two"]);
        }
        write_files(&top.join(inside), count, branch);
        git(top, &["add", "."]);
        git(top, &["commit", "-q", "-m", branch]);
    }
}

/// The windows of a tree in use, but for the lock: this machine may be busy with other things. A lock that is not seen to go
/// is one too many for the tests' patience.
fn usual() -> SettleConfig {
    SettleConfig { lock_max: Duration::from_secs(600), ..SettleConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_that_touches_thousands_of_files_is_one_generation() {
    let tree = Tree::new();
    let files = std::env::var("FLYLOFT_CHECKOUT_FILES").ok().and_then(|files| files.parse().ok()).unwrap_or(FILES);
    repository(&tree.root(), "", files);
    let mut watched = Watched::with(tree, |config| config.settle = usual(), |builder| builder).await;
    let published = watched.once(|root| git(root, &["checkout", "-q", "one"])).await;
    assert_eq!(published.changed.len(), files);
    watched.assert_bytes("f7/7.txt", Some(b"7 of one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_above_the_tree_and_one_of_a_linked_work_tree_and_of_a_submodule_hold_too() {
    let tree = Tree::new();
    // The tree is a folder within a repository.
    repository(&tree.outside(""), "tree", 300);
    let mut watched = Watched::with(tree, |config| config.settle = usual(), |builder| builder).await;
    let published = watched.once(|root| git(root, &["checkout", "-q", "one"])).await;
    assert_eq!(published.changed.len(), 300);
    drop(watched);

    // A work tree whose `.git` is a file, with a submodule in it.
    let tree = Tree::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let (top, library) = (tree.outside("top"), elsewhere.path().join("library"));
    repository(&top, "", 300);
    repository(&library, "", 300);
    fs::remove_dir(tree.root()).unwrap();
    git(&top, &["worktree", "add", "-q", tree.root().to_str().unwrap(), "one"]);
    let mut watched = Watched::with(tree, |config| config.settle = usual(), |builder| builder).await;
    assert!(watched.path(".git").is_file());
    let published = watched.once(|root| git(root, &["checkout", "-q", "--detach", "two"])).await;
    assert_eq!(published.changed.len(), 300);
    drop(watched);

    let tree = Tree::new();
    repository(&tree.root(), "own", 10);
    git(&tree.root(), &["submodule", "--quiet", "add", library.to_str().unwrap(), "sub"]);
    let mut watched = Watched::with(tree, |config| config.settle = usual(), |builder| builder).await;
    assert!(watched.path("sub/.git").is_file());
    let published = watched.once(|root| git(&root.join("sub"), &["checkout", "-q", "one"])).await;
    assert_eq!(published.changed.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locks_of_other_version_controls_hold_until_they_go() {
    for (folder, lock) in [(".hg", ".hg/wlock"), (".jj/working_copy", ".jj/working_copy/working_copy.lock")] {
        let tree = Tree::with_files(3);
        fs::create_dir_all(tree.root().join(folder)).unwrap();
        let mut watched = Watched::with(tree, |config| config.settle = usual(), |builder| builder).await;
        let lock = watched.path(lock);
        // As Mercurial makes it: a link that leads nowhere.
        std::os::unix::fs::symlink("host:1234", &lock).unwrap();
        for number in 0..5 {
            watched.tree.write(&format!("new{number}.txt"), b"new");
            // Longer than any window but the lock's.
            let told = tokio::time::timeout(Duration::from_millis(120), watched.published()).await;
            assert!(told.is_err(), "{told:?}");
        }
        fs::remove_file(&lock).unwrap();
        assert_eq!(watched.published().await.changed.len(), 5, "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_left_behind_holds_for_a_bounded_time() {
    let tree = Tree::with_files(3);
    tree.write(".git/index.lock", b"");
    let change = |config: &mut flyloft::config::RuntimeConfig| config.settle.lock_max = Duration::from_millis(300);
    // Seen when it starts, and what it is published for is the sentinel.
    let mut watched = Watched::with(tree, change, |builder| builder).await;
    let published = watched.once(|root| fs::write(root.join("a.txt"), b"a").unwrap()).await;
    assert_eq!(changes(&published), [("a.txt", true)]);
}
