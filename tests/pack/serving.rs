//! A tree that is served while it changes: updates, failures that keep the last good version, healing.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use flyloft::build::transform::{Context, Input, NoParameters, Output, Transform, TransformRegistry};
use flyloft::build::{BuildOptions, Built, NoProgress, TreeBuilder};
use flyloft::bundle::BuildInput;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;
use flyloft::{AssetPath, Result};

use crate::support::*;

fn changed(built: &Built) -> Vec<&str> {
    built.changed.iter().map(|changed| changed.path.as_str()).collect()
}

const MINIFY: &[u8] = b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n";

#[test]
fn an_update_stages_what_changed_and_nothing_else() {
    let tree = Tree::mixed();
    let (mut builder, built) = tree.serve();
    assert_eq!(built.bundle.unwrap().generation().0, 1);
    tree.write("notes/007.txt", b"edited");
    let built = tree.update(&mut builder, &["notes/007.txt"]);
    assert_eq!(changed(&built), ["notes/007.txt"]);
    let bundle = built.bundle.unwrap();
    assert_eq!(bundle.generation().0, 2);
    assert_eq!(content(&bundle, "notes/007.txt").unwrap(), b"edited");
    assert_eq!(content(&bundle, "notes/008.txt").unwrap(), text("note 8", 8));
    // The same bytes again are no change.
    tree.write("notes/007.txt", b"edited");
    let built = tree.update(&mut builder, &["notes/007.txt"]);
    assert!(built.bundle.is_none() && built.changed.is_empty());
    assert_eq!(builder.bundle().unwrap().generation().0, 2);
}

#[cfg(unix)]
#[test]
fn a_scan_tells_again_only_what_is_new() {
    use std::os::unix::fs::symlink;

    let tree = Tree::new();
    tree.write("a.css", b"@import 'missing.css';");
    symlink("/", tree.at("out")).unwrap();
    let (mut builder, built) = tree.serve();
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
    tree.write("b.css", b"@import 'lost.css';");
    let again = builder.scan(&NoProgress).unwrap();
    assert_eq!(again.warnings, ["b.css:1: depends on 'lost.css', which does not exist"]);
    // Who saves a file is told what is still missing.
    tree.write("a.css", b"@import 'missing.css'; p {}");
    let saved = tree.update(&mut builder, &["a.css"]);
    assert_eq!(saved.warnings, ["a.css:1: depends on 'missing.css', which does not exist"]);
}

#[test]
fn folders_are_created_moved_and_removed_with_all_below() {
    let tree = Tree::mixed();
    let (mut builder, _) = tree.serve();
    fs::rename(tree.at("notes"), tree.at("moved")).unwrap();
    let built = tree.update(&mut builder, &["notes", "moved"]);
    assert_eq!(built.changed.len(), 400);
    tree.write("deep/er/still/x.txt", b"x");
    let built = tree.update(&mut builder, &["deep/er/still/x.txt"]);
    assert_eq!(changed(&built), ["deep/er/still/x.txt"]);
    fs::remove_dir_all(tree.at("moved")).unwrap();
    fs::create_dir(tree.at("bare")).unwrap();
    let built = tree.update(&mut builder, &["moved", "bare"]);
    assert_eq!(built.changed.len(), 200);
    builder.committer().commit(&built.bundle.unwrap()).unwrap();
    assert_eq!(listing(&tree.unpacked("store.loft")), listing(&tree.root()));
    // A scan finds nothing that the updates missed.
    assert!(builder.scan(&NoProgress).unwrap().bundle.is_none());
}

#[test]
fn what_no_longer_builds_keeps_its_last_good_version_and_heals() {
    let tree = Tree::new();
    tree.write("flyloft.toml", MINIFY);
    tree.write("a.json", b"{ \"v\": 1 }");
    tree.write("b.txt", b"b");
    let (mut builder, _) = tree.serve();
    tree.write("a.json", b"{ \"v\": ");
    tree.write("b.txt", b"b2");
    let built = tree.update(&mut builder, &["a.json", "b.txt"]);
    assert_eq!(changed(&built), ["b.txt"]);
    assert_eq!(built.failures.len(), 1);
    assert_eq!((built.failures[0].path.as_str(), built.failures[0].transform.as_str()), ("a.json", "minify-json"));
    assert_eq!(content(&built.bundle.unwrap(), "a.json").unwrap(), b"{\"v\":1}");
    // The failure stands while other things change.
    tree.write("b.txt", b"b3");
    let built = tree.update(&mut builder, &["b.txt"]);
    assert!(built.failures.len() == 1 && built.healed.is_empty());
    tree.write("a.json", b"{ \"v\": 2 }");
    let built = tree.update(&mut builder, &["a.json"]);
    assert_eq!(built.healed, [path("a.json")]);
    assert!(built.failures.is_empty());
    assert_eq!(content(&built.bundle.unwrap(), "a.json").unwrap(), b"{\"v\":2}");
}

#[test]
fn what_failed_from_the_first_appears_when_it_heals_and_a_failure_that_goes_does_not_heal() {
    let tree = Tree::new();
    tree.write("flyloft.toml", MINIFY);
    tree.write("bad.json", b"{");
    tree.write("worse.json", b"[");
    let (mut builder, built) = tree.serve();
    assert_eq!(built.failures.len(), 2);
    assert_eq!(content(&built.bundle.unwrap(), "bad.json"), None);
    tree.write("bad.json", b"{}");
    tree.remove("worse.json");
    let built = tree.update(&mut builder, &["bad.json", "worse.json"]);
    assert_eq!(changed(&built), ["bad.json"]);
    assert_eq!(built.healed, [path("bad.json")]);
    assert!(built.failures.is_empty());
}

#[test]
fn a_broken_configuration_keeps_the_last_good_one_even_over_a_restart() {
    let tree = Tree::new();
    tree.write("flyloft.toml", MINIFY);
    tree.write("a.json", b"{ }");
    let (mut builder, built) = tree.serve();
    builder.committer().commit(&built.bundle.unwrap()).unwrap();
    tree.write("flyloft.toml", b"nonsense");
    tree.write("a.json", b"{ \"a\": 1 }");
    let built = tree.update(&mut builder, &["a.json", "flyloft.toml"]);
    assert_eq!(built.failures[0].path, "flyloft.toml");
    let bundle = built.bundle.unwrap();
    assert_eq!(content(&bundle, "a.json").unwrap(), b"{\"a\":1}");
    builder.committer().commit(&bundle).unwrap();
    drop(builder);
    let (mut builder, built) = tree.serve();
    assert!(built.bundle.is_none());
    assert_eq!(built.failures.len(), 1);
    tree.write("flyloft.toml", b"");
    let built = tree.update(&mut builder, &["flyloft.toml"]);
    assert!(built.failures.is_empty());
    assert_eq!(changed(&built), ["a.json", "flyloft.toml"]);
    assert_eq!(content(&built.bundle.unwrap(), "a.json").unwrap(), b"{ \"a\": 1 }");
}

#[test]
fn a_file_that_appears_is_found_by_who_waited_for_it() {
    let tree = Tree::new();
    tree.write("page.css", b"@import 'late.css';");
    tree.write("level.xml", b"<level model='late.obj'/>");
    let (mut builder, built) = tree.serve();
    let bundle = built.bundle.unwrap();
    assert_eq!(dependencies(&bundle, "page.css"), [("late.css".to_owned(), false)]);
    assert_eq!(dependencies(&bundle, "level.xml"), []);
    tree.write("late.css", b"");
    tree.write("late.obj", b"");
    let built = tree.update(&mut builder, &["late.css", "late.obj"]);
    assert_eq!(changed(&built), ["late.css", "late.obj"]);
    let bundle = built.bundle.unwrap();
    assert_eq!(dependencies(&bundle, "page.css"), [("late.css".to_owned(), true)]);
    assert_eq!(dependencies(&bundle, "level.xml"), [("late.obj".to_owned(), true)]);
    assert_eq!(bundle.dependents(path("late.css").id()).unwrap(), [path("page.css").id()]);
    tree.remove("late.css");
    tree.remove("late.obj");
    let bundle = tree.update(&mut builder, &["late.css", "late.obj"]).bundle.unwrap();
    assert_eq!(dependencies(&bundle, "page.css"), [("late.css".to_owned(), false)]);
    assert_eq!(dependencies(&bundle, "level.xml"), []);
}

#[test]
#[cfg(unix)]
fn a_link_changes_with_what_it_points_to() {
    use std::os::unix::fs::symlink;
    let tree = Tree::new();
    tree.write("real/a.txt", b"a");
    symlink("real", tree.at("link")).unwrap();
    symlink("later.txt", tree.at("dangling")).unwrap();
    let (mut builder, _) = tree.serve();
    tree.write("real/a.txt", b"b");
    let built = tree.update(&mut builder, &["real/a.txt"]);
    assert_eq!(changed(&built), ["link/a.txt", "real/a.txt"]);
    tree.write("later.txt", b"there");
    let built = tree.update(&mut builder, &["later.txt"]);
    assert_eq!(changed(&built), ["dangling", "later.txt"]);
    fs::remove_file(tree.at("link")).unwrap();
    assert_eq!(changed(&tree.update(&mut builder, &["link"])), ["link/a.txt"]);
}

#[test]
fn twins_fail_until_one_of_them_goes() {
    let tree = Tree::new();
    tree.write("caf\u{e9}.txt", b"composed");
    let (mut builder, _) = tree.serve();
    tree.write("cafe\u{301}.txt", b"decomposed");
    let built = tree.update(&mut builder, &["cafe\u{301}.txt"]);
    assert!(built.bundle.is_none());
    assert_eq!(built.failures.len(), 2);
    tree.remove("caf\u{e9}.txt");
    let built = tree.update(&mut builder, &["caf\u{e9}.txt"]);
    assert!(built.failures.is_empty(), "{:?}", built.failures);
    assert_eq!(changed(&built), ["cafe\u{301}.txt", "caf\u{e9}.txt"]);
}

/// Puts the files named in the source, one a line, into one; `fail` does not build.
struct Join;

impl Transform for Join {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        "join"
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, context: &mut dyn Context) -> Result<Output> {
        let mut joined = Vec::new();
        for line in std::str::from_utf8(input.bytes).unwrap().lines() {
            match line {
                "fail" => return Err(input.error("join", None, "told to")),
                "panic" => panic!("told to"),
                // Only whether it is there counts.
                asked if asked.starts_with('?') => {
                    let there = context.read(&AssetPath::new(&asked[1..])?).is_some();
                    joined.extend_from_slice(if there { b"there" } else { b"not there" });
                }
                name => joined.extend(context.read(&AssetPath::new(name)?).unwrap_or_else(|| b"(none)".to_vec())),
            }
        }
        Ok(joined.into())
    }
}

fn joining(tree: &Tree) -> (TreeBuilder, Built) {
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.join'\nname = 'join'\n");
    let mut registry = TransformRegistry::with_builtins();
    registry.register(Join).unwrap();
    let options = BuildOptions { tolerant: true, threads: 2, registry: Arc::new(registry), ..BuildOptions::default() };
    let mut builder = TreeBuilder::open(
        Arc::new(OsFileSystem),
        Arc::new(SystemClock),
        &tree.root(),
        &tree.out("store.loft"),
        Some(&tree.out("stats")),
        options,
    )
    .unwrap();
    let built = builder.scan(&NoProgress).unwrap();
    (builder, built)
}

#[test]
fn what_a_transform_read_builds_again_what_was_made_from_it() {
    let tree = Tree::new();
    tree.write("all.join", b"one.txt\nlate.txt\n");
    tree.write("one.txt", b"1");
    tree.write("two.txt", b"2");
    let (mut builder, built) = joining(&tree);
    let bundle = built.bundle.unwrap();
    assert_eq!(content(&bundle, "all.join").unwrap(), b"1(none)");
    assert_eq!(dependencies(&bundle, "all.join"), [("late.txt".to_owned(), false), ("one.txt".to_owned(), true)]);
    tree.write("one.txt", b"I");
    let built = tree.update(&mut builder, &["one.txt"]);
    assert_eq!(changed(&built), ["all.join", "one.txt"]);
    tree.write("late.txt", b"+");
    let built = tree.update(&mut builder, &["late.txt"]);
    assert_eq!(changed(&built), ["all.join", "late.txt"]);
    assert_eq!(content(built.bundle.as_ref().unwrap(), "all.join").unwrap(), b"I+");
    tree.write("two.txt", b"II");
    assert_eq!(changed(&tree.update(&mut builder, &["two.txt"])), ["two.txt"]);
    // What is read is remembered over a restart.
    let bundle = builder.bundle().unwrap().clone();
    builder.committer().commit(&bundle).unwrap();
    builder.save_stats().unwrap();
    drop(builder);
    tree.write("one.txt", b"i");
    let (_, built) = joining(&tree);
    assert_eq!(changed(&built), ["all.join", "one.txt"]);
}

#[test]
fn an_output_that_comes_out_the_same_publishes_nothing() {
    let tree = Tree::new();
    tree.write("x.join", b"?a.txt");
    tree.write("a.txt", b"a");
    tree.write("flat.json", b"{}");
    let (mut builder, _) = joining(&tree);
    tree.write("a.txt", b"b");
    let built = tree.update(&mut builder, &["a.txt"]);
    assert_eq!(changed(&built), ["a.txt"]);
    tree.write("x.join", b"?a.txt\n");
    let built = tree.update(&mut builder, &["x.join"]);
    assert!(built.bundle.is_none() && built.changed.is_empty());
    // Its build record is written with the next generation.
    tree.write("a.txt", b"c");
    let bundle = tree.update(&mut builder, &["a.txt"]).bundle.unwrap();
    let record = bundle.build_record(path("x.join").id()).unwrap().unwrap();
    assert_eq!(record.source, flyloft::ContentHash::of(b"?a.txt\n"));
    let hash = Some(flyloft::ContentHash::of(b"c"));
    assert_eq!(record.inputs, [BuildInput::Read { path: path("a.txt"), hash }]);
}

#[test]
fn a_panic_in_a_transform_is_a_failure_of_its_asset() {
    let tree = Tree::new();
    tree.write("x.join", b"panic");
    tree.write("y.join", b"a.txt");
    tree.write("a.txt", b"a");
    let (_, built) = joining(&tree);
    assert_eq!(built.failures.len(), 1);
    assert_eq!(built.failures[0].cause, "it panicked: told to");
    assert_eq!(content(&built.bundle.unwrap(), "y.join").unwrap(), b"a");
}

#[test]
fn a_cycle_is_one_unit_that_waits_for_its_failing_member() {
    let tree = Tree::new();
    tree.write("a.join", b"b.join");
    tree.write("b.join", b"a.join");
    let (mut builder, built) = joining(&tree);
    assert_eq!(content(&built.bundle.unwrap(), "a.join").unwrap(), b"a.join");
    tree.write("a.join", b"b.join\nfail");
    tree.write("b.join", b"a.join\n?c.txt");
    let built = tree.update(&mut builder, &["a.join", "b.join"]);
    assert!(built.bundle.is_none());
    assert_eq!(built.failures.len(), 2, "{:?}", built.failures);
    assert!(built.failures[1].cause.contains("waits for 'a.join'"), "{:?}", built.failures);
    tree.write("a.join", b"b.join\n");
    let built = tree.update(&mut builder, &["a.join"]);
    assert_eq!(changed(&built), ["a.join", "b.join"]);
    assert_eq!(built.healed, [path("a.join"), path("b.join")]);
}

#[test]
fn a_served_tree_that_changes_at_random_is_always_what_a_fresh_pack_is() {
    let tree = Tree::mixed();
    let (mut builder, _) = tree.serve();
    let mut state = 0x9e37_79b9_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut fresh = 0;
    for round in 0..30 {
        let mut touched = BTreeSet::new();
        for _ in 0..=random(4) {
            let name = format!("{}/{}.txt", ["notes", "deep/a", "deep/b", "css"][random(4) as usize], random(8));
            match random(4) {
                0 if tree.at(&name).exists() => tree.remove(&name),
                1 if tree.at("deep").exists() => {
                    fs::remove_dir_all(tree.at("deep")).unwrap();
                    touched.insert(tree.at("deep"));
                }
                _ => tree.write(&name, format!("round {round} {}", random(3)).as_bytes()),
            }
            touched.insert(tree.at(&name));
        }
        builder.update(&touched).unwrap();
        if round % 10 == 9 {
            let bundle = builder.bundle().unwrap();
            builder.committer().commit(bundle).unwrap();
            fresh += 1;
            tree.pack(&format!("fresh{fresh}.loft"));
            let (served, packed) = (tree.bundle("store.loft"), tree.bundle(&format!("fresh{fresh}.loft")));
            let assets = |bundle: &flyloft::bundle::Bundle| {
                bundle
                    .assets()
                    .map(|asset| asset.map(|asset| (asset.path, asset.content)))
                    .collect::<Result<BTreeSet<_>>>()
            };
            assert_eq!(assets(&served).unwrap(), assets(&packed).unwrap());
            let folders = |bundle: &flyloft::bundle::Bundle| bundle.folders().collect::<Result<BTreeSet<_>>>().unwrap();
            assert_eq!(folders(&served), folders(&packed));
            for asset in served.assets() {
                let name = asset.unwrap().path;
                assert_eq!(dependencies(&served, name.as_str()), dependencies(&packed, name.as_str()), "{name}");
            }
        }
    }
}
