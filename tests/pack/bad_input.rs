//! What cannot be packed: one clear line, and nothing is lost.

use std::fs;

use flyloft::Error;

use crate::support::*;

/// Packing is refused with one line that holds all of `words`, and neither makes nor changes a bundle.
fn refused(tree: &Tree, words: &[&str]) {
    refused_into(tree, "never.loft", words);
    if tree.out("good.loft").exists() {
        let before = tree.bytes("good.loft");
        assert!(tree.try_pack("good.loft").is_err());
        assert!(tree.bytes("good.loft") == before);
    }
}

fn refused_into(tree: &Tree, name: &str, words: &[&str]) {
    let error = tree.try_pack(name).unwrap_err().to_string();
    assert!(!error.contains(".new.tmp"), "{error:?} names a temporary file");
    assert!(!error.contains('\n'), "{error}");
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
    let left: Vec<_> = fs::read_dir(tree.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "tree" && name != "good.loft")
        .collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}

fn good() -> Tree {
    let tree = Tree::new();
    tree.write("a.txt", b"a");
    tree.pack("good.loft");
    tree
}

#[test]
fn a_missing_folder_is_refused() {
    let tree = good();
    fs::remove_dir_all(tree.root()).unwrap();
    refused(&tree, &["tree", if cfg!(windows) { "(os error " } else { "No such file" }]);
}

#[test]
fn a_missing_folder_for_the_bundle_is_named() {
    let tree = good();
    refused_into(&tree, "nowhere/new.loft", &["nowhere", "(os error 2)"]);
}

#[test]
fn an_empty_folder_is_refused() {
    let tree = good();
    tree.remove("a.txt");
    refused(&tree, &["tree", "the folder is empty"]);
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let tree = Tree::new();
    fs::remove_dir(tree.root()).unwrap();
    fs::write(tree.root(), b"x").unwrap();
    refused(&tree, &[if cfg!(windows) { "(os error " } else { "Not a directory" }]);
}

#[test]
#[cfg(unix)]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let tree = good();
    fs::write(tree.root().join(std::ffi::OsStr::from_bytes(b"bad\xff.txt")), b"x").unwrap();
    refused(&tree, &["bad", "not UTF-8", "rename"]);
}

#[test]
fn names_that_differ_only_in_normalisation_are_refused() {
    let tree = good();
    tree.write("caf\u{e9}.txt", b"composed");
    tree.write("cafe\u{301}.txt", b"decomposed");
    refused(&tree, &["normalisation", "rename"]);
}

#[test]
#[cfg(unix)]
fn a_backslash_in_a_name_is_refused() {
    let tree = good();
    tree.write("a\\b.txt", b"x");
    refused(&tree, &["backslash"]);
}

#[test]
fn a_file_that_cannot_be_built_is_refused_with_its_line() {
    let tree = good();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    tree.write("bad.json", b"{\n  \"a\": ,\n}");
    refused(&tree, &["bad.json:2", "minify-json"]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused_with_its_place() {
    let tree = good();
    tree.write("flyloft.toml", b"ignore = []\nignroe = []\n");
    refused(&tree, &["flyloft.toml:2:1", "ignroe"]);
}

#[test]
fn what_is_no_bundle_is_not_written_over() {
    let tree = good();
    fs::write(tree.out("other.loft"), text("a text", 500)).unwrap();
    let error = tree.try_pack("other.loft").unwrap_err();
    assert!(matches!(error, Error::NotABundle { .. }), "{error}");
    assert_eq!(tree.bytes("other.loft"), text("a text", 500));
}

#[test]
#[cfg(unix)]
fn a_link_in_the_tree_is_packed_as_what_it_points_to_and_others_are_warnings() {
    use std::os::unix::fs::symlink;
    let tree = Tree::new();
    tree.write("real/a.txt", b"a");
    tree.write("real/b/c.txt", b"c");
    tree.write(".git/config", b"secret");
    fs::write(tree.out("outside.txt"), b"outside").unwrap();
    symlink("real/a.txt", tree.at("file-link")).unwrap();
    symlink("real", tree.at("folder-link")).unwrap();
    symlink("..", tree.at("real/up")).unwrap();
    symlink("../outside.txt", tree.at("out-link")).unwrap();
    symlink("/etc", tree.at("etc-link")).unwrap();
    symlink("nowhere", tree.at("dangling")).unwrap();
    symlink("ring-b", tree.at("ring-a")).unwrap();
    symlink("ring-a", tree.at("ring-b")).unwrap();
    symlink(".git", tree.at("git-link")).unwrap();
    let report = tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    let assets: Vec<String> = bundle.assets().map(|asset| asset.unwrap().path.to_string()).collect();
    let mut sorted = assets.clone();
    sorted.sort();
    assert_eq!(sorted, ["file-link", "folder-link/a.txt", "folder-link/b/c.txt", "real/a.txt", "real/b/c.txt"]);
    assert_eq!(content(&bundle, "folder-link/b/c.txt").unwrap(), b"c");
    assert_eq!(bundle.info().contents, 2);
    for (link, why) in [
        ("real/up", "loop"),
        ("folder-link/up", "loop"),
        ("out-link", "out of the tree"),
        ("etc-link", "out of the tree"),
        ("dangling", "to nothing"),
        ("ring-a", "leads nowhere"),
        ("ring-b", "leads nowhere"),
        ("git-link", "never packed"),
    ] {
        let said =
            report.warnings.iter().filter(|warning| warning.starts_with(&format!("{link}: "))).collect::<Vec<_>>();
        assert!(said.len() == 1 && said[0].contains(why), "{link}: {said:?}");
    }
    assert_eq!(report.warnings.len(), 8, "{:?}", report.warnings);
    assert!(tree.pack("a.loft").unchanged);
}
