//! Packing into an existing bundle.

use flyloft::Error;
use flyloft::build::{BuildOptions, TreeBuilder};
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;
use std::fs;
use std::sync::Arc;

use crate::support::*;

#[test]
fn an_unchanged_tree_changes_no_byte() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    let before = tree.bytes("a.loft");
    let report = tree.pack("a.loft");
    assert!(report.unchanged && report.appended_bytes == 0, "{report:?}");
    assert!(tree.bytes("a.loft") == before);
}

#[test]
fn one_touched_file_of_many_appends_its_frames_and_pages_only() {
    let tree = Tree::new();
    for number in 0..3000 {
        tree.write(&format!("{}/{number}.txt", number % 50), &text(&format!("file {number}"), 20));
    }
    let fresh = tree.pack("a.loft");
    tree.write("7/1007.txt", &text("touched", 20));
    let before = tree.bytes("a.loft");
    let report = tree.pack("a.loft");
    assert_eq!(report.generation.0, 2);
    assert!(report.appended_bytes < 40_000 && fresh.file_bytes > 150_000, "{fresh:?} {report:?}");
    let after = tree.bytes("a.loft");
    assert!(after[8192..before.len()] == before[8192..], "what was written is not written over");
    assert_eq!(listing(&tree.unpacked("a.loft")), listing(&tree.root()));
}

#[test]
fn an_edit_of_a_large_file_appends_few_of_its_frames() {
    let tree = Tree::new();
    let mut bytes = text("large", 100_000);
    tree.write("large.txt", &bytes);
    let fresh = tree.pack("a.loft");
    bytes.splice(2_000_000..2_000_000, *b"inserted in the middle");
    tree.write("large.txt", &bytes);
    let report = tree.pack("a.loft");
    assert!(report.appended_bytes < fresh.file_bytes / 4, "{fresh:?} {report:?}");
    assert_eq!(content(&tree.bundle("a.loft"), "large.txt").unwrap(), bytes);
}

#[test]
fn files_and_folders_come_go_and_become_each_other() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    fs::remove_dir_all(tree.at("notes")).unwrap();
    tree.write("notes", b"a file now");
    tree.remove("run.sh");
    tree.write("run.sh/inside", b"a folder now");
    fs::remove_dir(tree.at("hollow/inner")).unwrap();
    tree.executable("index.html");
    tree.pack("a.loft");
    assert_eq!(listing(&tree.unpacked("a.loft")), listing(&tree.root()));
    tree.pack("fresh.loft");
    let names = |name: &str| tree.bundle(name).assets().map(|asset| asset.unwrap().path).collect::<Vec<_>>();
    assert_eq!(names("a.loft"), names("fresh.loft"));
}

#[test]
fn a_second_writer_is_refused() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    let held = TreeBuilder::open(
        Arc::new(OsFileSystem),
        Arc::new(SystemClock),
        &tree.root(),
        &tree.out("a.loft"),
        None,
        BuildOptions::default(),
    )
    .unwrap();
    let error = tree.try_pack("a.loft").unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let error = flyloft::build::compact(Arc::new(OsFileSystem), &tree.out("a.loft"), &flyloft::build::NoProgress);
    assert!(matches!(error, Err(Error::Locked { .. })));
    // Readers are not.
    assert_eq!(content(&tree.bundle("a.loft"), "empty.txt").unwrap(), b"");
    drop(held);
    assert!(tree.pack("a.loft").unchanged);
}

#[test]
fn another_layout_than_the_bundle_has_is_refused() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    let error = tree.pack_with("a.loft", dense()).unwrap_err().to_string();
    assert!(error.starts_with("layout: ") && error.contains("access"), "{error}");
}

#[test]
fn a_change_of_the_configuration_builds_again_what_it_is_about() {
    let tree = Tree::new();
    tree.write("a.json", b"{ }");
    tree.write("b.txt", b"b");
    tree.pack("a.loft");
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n[deps]\n'b.txt' = ['a.json']\n");
    tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    assert_eq!(content(&bundle, "a.json").unwrap(), b"{}");
    assert_eq!(dependencies(&bundle, "b.txt"), [("a.json".to_owned(), true)]);
    assert!(tree.pack("a.loft").unchanged);
    tree.write("flyloft.toml", b"ignore = ['b.txt']\n");
    tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    assert_eq!(content(&bundle, "a.json").unwrap(), b"{ }");
    assert_eq!(bundle.build_record(path("a.json").id()).unwrap(), None);
    assert_eq!(content(&bundle, "b.txt"), None);
    tree.remove("flyloft.toml");
    tree.pack("a.loft");
    assert_eq!(content(&tree.bundle("a.loft"), "b.txt").unwrap(), b"b");
}
