//! A whole tree at once.

use flyloft::build::{BuildOptions, NoProgress, compact};
use flyloft::bundle::Bundle;
use std::fs;
use std::sync::Arc;

use crate::support::*;
use flyloft::platform::fs::OsFileSystem;

fn verify(bundle: &Bundle) {
    let mut found = Vec::new();
    bundle.verify(&mut |finding| found.push(format!("{finding:?}"))).unwrap();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_tree_is_packed_verified_and_unpacked_the_same() {
    let tree = Tree::mixed();
    for (name, options) in [("access.loft", BuildOptions::default()), ("dense.loft", dense())] {
        let report = tree.pack_with(name, options).unwrap();
        assert_eq!(report.generation.0, 1);
        assert_eq!(report.assets as usize, listing(&tree.root()).values().flatten().count());
        assert!(!report.unchanged && report.appended_bytes == report.file_bytes);
        verify(&tree.bundle(name));
        assert_eq!(listing(&tree.unpacked(name)), listing(&tree.root()));
    }
}

#[test]
fn packing_twice_and_with_any_number_of_threads_gives_the_same_bytes() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    for (number, threads) in [1, 2, 4].into_iter().enumerate() {
        let name = format!("{number}.loft");
        tree.pack_with(&name, BuildOptions { threads, ..BuildOptions::default() }).unwrap();
        assert!(tree.bytes(&name) == tree.bytes("a.loft"), "{threads} threads");
    }
    // Nor does it matter how much fits into memory.
    tree.pack_with("small.loft", BuildOptions { cache_bytes: 20_000, ..BuildOptions::default() }).unwrap();
    assert!(tree.bytes("small.loft") == tree.bytes("a.loft"), "a small cache");
}

#[test]
fn identical_content_is_stored_once() {
    let tree = Tree::new();
    for number in 0..20 {
        tree.write(&format!("{number}.bin"), &noise("same", 100_000));
    }
    let report = tree.pack("a.loft");
    assert!(report.file_bytes < 140_000, "{report:?}");
    assert_eq!(tree.bundle("a.loft").info().contents, 1);
}

#[test]
fn dependencies_are_recorded_both_ways_and_on_nothing_with_a_warning() {
    let tree = Tree::mixed();
    tree.write("broken.css", b"@import 'missing.css';");
    let report = tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    let is = |path: &str| (path.to_owned(), true);
    assert_eq!(dependencies(&bundle, "index.html"), [is("css/site.css"), is("img/logo.png")]);
    // An attribute that only looks like a file's name is none until there is such a file.
    assert_eq!(dependencies(&bundle, "scene/level.xml"), [is("scene/hall.obj")]);
    assert_eq!(dependencies(&bundle, "broken.css"), [("missing.css".to_owned(), false)]);
    assert_eq!(bundle.dependents(path("css/site.css").id()).unwrap(), [path("index.html").id()]);
    assert_eq!(bundle.dependents(path("missing.css").id()).unwrap(), [path("broken.css").id()]);
    assert_eq!(report.warnings, ["broken.css:1: depends on 'missing.css', which does not exist"]);
}

#[test]
fn a_cycle_is_legal() {
    let tree = Tree::new();
    tree.write("a.css", b"@import 'b.css';");
    tree.write("b.css", b"@import 'a.css';");
    tree.write("self.css", b"@import 'self.css';");
    tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    assert_eq!(dependencies(&bundle, "a.css"), [("b.css".to_owned(), true)]);
    assert_eq!(dependencies(&bundle, "b.css"), [("a.css".to_owned(), true)]);
    assert_eq!(dependencies(&bundle, "self.css"), []);
}

#[test]
fn version_control_and_the_bundle_itself_are_not_packed() {
    let tree = Tree::new();
    tree.write("a.txt", b"a");
    for hidden in [".git/HEAD", "sub/.hg/x", "sub/.svn/x", ".jj/x"] {
        tree.write(hidden, b"hidden");
    }
    let out = tree.at("sub/out.loft");
    let run = || {
        let clock = Arc::new(flyloft::platform::clock::SystemClock);
        let options = BuildOptions::default();
        flyloft::build::pack(Arc::new(OsFileSystem), clock, &tree.root(), &out, options, &NoProgress).unwrap()
    };
    assert_eq!(run().assets, 1);
    assert!(run().unchanged);
}

#[test]
fn a_transform_is_chosen_by_glob_and_what_is_ignored_is_not_packed() {
    let tree = Tree::new();
    let config = "ignore = ['*.tmp']\n[[transform]]\nglob = '*.json'\nname = 'minify-json'\n[deps]\n'a.json' = ['b.tmp', 'c.txt']\n";
    tree.write("flyloft.toml", config.as_bytes());
    tree.write("a.json", b"{ \"a\" : [ 1, 2 ] }");
    tree.write("b.tmp", b"ignored");
    tree.write("c.txt", b"c");
    tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    assert_eq!(content(&bundle, "a.json").unwrap(), b"{\"a\":[1,2]}");
    assert_eq!(content(&bundle, "b.tmp"), None);
    assert_eq!(content(&bundle, "flyloft.toml").unwrap(), config.as_bytes());
    assert_eq!(dependencies(&bundle, "a.json"), [("b.tmp".to_owned(), false), ("c.txt".to_owned(), true)]);
    let record = bundle.build_record(path("a.json").id()).unwrap().unwrap();
    assert_eq!(record.steps.iter().map(|step| step.transform.as_str()).collect::<Vec<_>>(), ["minify-json"]);
    assert_eq!(record.source, flyloft::ContentHash::of(b"{ \"a\" : [ 1, 2 ] }"));
}

#[test]
fn a_compacted_bundle_is_as_freshly_packed_but_for_its_generation() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    for round in 0..4 {
        tree.write("big.txt", &text(&format!("round {round}"), 50_000));
        tree.write(&format!("new/{round}.bin"), &noise(&format!("new {round}"), 70_000));
        tree.pack("a.loft");
    }
    tree.remove("new/0.bin");
    tree.remove("notes/005.txt");
    tree.pack("a.loft");
    let before = tree.bundle("a.loft");
    let report = compact(Arc::new(OsFileSystem), &tree.out("a.loft"), &NoProgress).unwrap();
    assert_eq!(report.generation.0, before.generation().0 + 1);
    assert!(report.after_bytes < report.before_bytes, "{report:?}");
    tree.pack("fresh.loft");
    let (compacted, fresh) = (tree.bytes("a.loft"), tree.bytes("fresh.loft"));
    assert_eq!(compacted.len(), fresh.len());
    // The superblocks hold the generation; all else is the same.
    assert!(compacted[8192..] == fresh[8192..]);
    verify(&tree.bundle("a.loft"));
    assert_eq!(listing(&tree.unpacked("a.loft")), listing(&tree.root()));
    // A reader of the old file is not disturbed.
    assert_eq!(content(&before, "notes/007.txt").unwrap(), text("note 7", 7));
    assert!(tree.pack("a.loft").unchanged);
}

#[test]
fn unpacking_refuses_a_folder_that_holds_something() {
    let tree = Tree::mixed();
    tree.pack("a.loft");
    let into = tree.out("into");
    fs::create_dir(&into).unwrap();
    fs::write(into.join("img"), b"what was there").unwrap();
    let error = flyloft::build::unpack(&OsFileSystem, &tree.bundle("a.loft"), &into).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn many_small_files_of_a_kind_get_a_dictionary_and_it_is_used_again() {
    let tree = Tree::new();
    // Enough for other threads to check and flush while the tables are made; each file holds some of 400 sentences.
    let chosen = |number: u32, word: u8| {
        let [one, other, ..] = *blake3::hash(&[&number.to_le_bytes()[..], &[word]].concat()).as_bytes();
        u16::from_le_bytes([one, other]) % 400
    };
    for number in 0..1100 {
        let words: String = (0..40)
            .map(|word| {
                let mut sentence = [0; 64];
                blake3::Hasher::new().update(&chosen(number, word).to_le_bytes()).finalize_xof().fill(&mut sentence);
                format!(
                    "<p class='entry-{}'>{}</p>\n",
                    word % 7,
                    String::from_utf8_lossy(&sentence.map(|byte| byte % 26 + b'a'))
                )
            })
            .collect();
        tree.write(&format!("{number}.html"), format!("<html><head><title>{number}</title></head>{words}").as_bytes());
    }
    // Frames that are encoded while the dictionary is trained.
    tree.write("large.js", &text("script", 60_000));
    tree.pack("a.loft");
    let bundle = tree.bundle("a.loft");
    assert_eq!(bundle.info().dictionaries, 1);
    verify(&bundle);
    assert_eq!(listing(&tree.unpacked("a.loft")), listing(&tree.root()));
    for threads in [1, 5] {
        tree.pack_with("b.loft", BuildOptions { threads, ..BuildOptions::default() }).unwrap();
        assert!(tree.bytes("a.loft") == tree.bytes("b.loft"), "{threads} threads make another bundle");
        fs::remove_file(tree.out("b.loft")).unwrap();
    }
}
