//! What transforms look at and what they make: each look is a dependency, each labelled output an asset of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use flyloft::build::transform::{Context, Input, Labelled, NoParameters, Output, Transform, TransformRegistry};
use flyloft::build::{ActionCacheOptions, Because, BuildOptions, Built, NoProgress, TreeBuilder, compact};
use flyloft::bundle::Bundle;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;
use flyloft::{AssetPath, Result};

use super::support::{Tree, content, dependencies, listing, path};

/// Follows its source line by line, writes down what it sees, and counts its runs by asset.
#[derive(Clone, Default)]
struct Script {
    runs: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Script {
    /// How often it ran since it was asked last, by asset.
    fn runs(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut *self.runs.lock().unwrap()).into_iter().collect()
    }

    fn ran(&self) -> Vec<String> {
        self.runs().into_iter().map(|(path, _)| path).collect()
    }
}

impl Transform for Script {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        "script"
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, context: &mut dyn Context) -> Result<Output> {
        *self.runs.lock().unwrap().entry(input.path.to_string()).or_default() += 1;
        let mut output = Output::default();
        let mut note = |text: String| output.bytes.extend_from_slice(text.as_bytes());
        for (number, line) in std::str::from_utf8(input.bytes).unwrap().lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["list"] => note(format!("{:?};", names(context, ""))),
                ["list", folder] => note(format!("{:?};", names(context, folder))),
                ["exists", name] => note(format!("{};", context.exists(&AssetPath::new(name)?))),
                ["read", name] => {
                    let read = context.read(&AssetPath::new(name)?);
                    note(format!("{:?};", read.as_deref().map(String::from_utf8_lossy)));
                }
                ["use", name] => output.dependencies.push(AssetPath::new(name)?),
                ["part", label, bytes] => output.labelled.push(labelled(label, bytes, &[])),
                ["part", label, bytes, uses] => output.labelled.push(labelled(label, bytes, &[uses])),
                ["fail"] => return Err(input.error_at("script", number as u32 + 1, 1, "told to")),
                _ => note(format!("{line};")),
            }
        }
        Ok(output)
    }
}

fn names(context: &mut dyn Context, folder: &str) -> Vec<String> {
    let mark = |is_folder| if is_folder { "/" } else { "" };
    context.list(folder).iter().map(|entry| format!("{}{}", entry.path, mark(entry.is_folder))).collect()
}

fn labelled(label: &str, bytes: &str, uses: &[&str]) -> Labelled {
    let dependencies = uses.iter().map(|text| path(text)).collect();
    Labelled { label: label.into(), kind: None, bytes: bytes.as_bytes().to_vec(), dependencies }
}

const CONFIG: &[u8] = b"[[transform]]\nglob = '*.do'\nname = 'script'\n";

fn options(script: &Script) -> BuildOptions {
    let mut registry = TransformRegistry::with_builtins();
    registry.register(script.clone()).unwrap();
    BuildOptions { tolerant: true, threads: 2, registry: Arc::new(registry), ..BuildOptions::default() }
}

fn open(tree: &Tree, script: &Script) -> TreeBuilder {
    let (fs, clock, root) = (Arc::new(OsFileSystem), Arc::new(SystemClock), tree.root());
    let (bundle, stats) = (tree.out("store.loft"), tree.out("stats"));
    TreeBuilder::open(fs, clock, &root, &bundle, Some(&stats), options(script)).unwrap()
}

fn serve(tree: &Tree) -> (TreeBuilder, Built, Script) {
    tree.write("flyloft.toml", CONFIG);
    let script = Script::default();
    let mut builder = open(tree, &script);
    let built = builder.scan(&NoProgress).unwrap();
    script.runs();
    (builder, built, script)
}

fn commit(builder: &mut TreeBuilder) {
    let bundle = builder.bundle().unwrap().clone();
    builder.committer().commit(&bundle).unwrap();
    builder.save_stats().unwrap();
}

fn changed(built: &Built) -> Vec<&str> {
    built.changed.iter().map(|changed| changed.path.as_str()).collect()
}

fn assets(bundle: &Bundle) -> Vec<String> {
    let mut assets: Vec<String> = bundle.assets().map(|asset| asset.unwrap().path.to_string()).collect();
    assets.sort();
    assets
}

fn because(builder: &TreeBuilder, name: &str) -> Because {
    builder.why(&path(name)).unwrap().because
}

#[test]
fn a_listing_is_a_dependency_on_the_names_directly_in_a_folder() {
    let tree = Tree::new();
    tree.write("top.do", b"list");
    tree.write("sub.do", b"list sub");
    tree.write("none.do", b"list nowhere");
    tree.write("sub/a.txt", b"a");
    tree.write("sub/deep/b.txt", b"b");
    let (mut builder, built, script) = serve(&tree);
    let bundle = built.bundle.unwrap();
    assert_eq!(content(&bundle, "sub.do").unwrap(), br#"["sub/a.txt", "sub/deep/"];"#);
    let top = br#"["flyloft.toml", "none.do", "sub/", "sub.do", "top.do"];"#;
    assert_eq!(content(&bundle, "top.do").unwrap(), top);
    assert_eq!(content(&bundle, "none.do").unwrap(), b"[];");
    assert_eq!(dependencies(&bundle, "sub.do"), []);

    tree.write("sub/c.txt", b"c");
    assert_eq!(changed(&tree.update(&mut builder, &["sub/c.txt"])), ["sub.do", "sub/c.txt"]);
    assert_eq!(script.ran(), ["sub.do"]);
    assert_eq!(because(&builder, "sub.do"), Because::ListingChanged { folder: "sub".into() });
    // Other bytes, or names elsewhere, change nothing for it.
    tree.write("sub/c.txt", b"other");
    tree.write("sub/deep/d.txt", b"d");
    assert_eq!(changed(&tree.update(&mut builder, &["sub/c.txt", "sub/deep/d.txt"])), ["sub/c.txt", "sub/deep/d.txt"]);
    assert!(script.ran().is_empty());
    // Folders are names too, empty ones as well.
    std::fs::create_dir(tree.at("sub/hollow")).unwrap();
    assert_eq!(changed(&tree.update(&mut builder, &["sub/hollow"])), ["sub.do"]);
    tree.write("nowhere/x.txt", b"x");
    let built = tree.update(&mut builder, &["nowhere"]);
    assert_eq!(changed(&built), ["none.do", "nowhere/x.txt", "top.do"]);
    assert_eq!(script.ran(), ["none.do", "sub.do", "top.do"]);
    tree.remove("sub/a.txt");
    assert_eq!(changed(&tree.update(&mut builder, &["sub/a.txt"])), ["sub.do", "sub/a.txt"]);
    script.runs();

    // Also while nobody looks.
    commit(&mut builder);
    drop(builder);
    tree.write("sub/late.txt", b"late");
    let mut builder = open(&tree, &script);
    assert_eq!(changed(&builder.scan(&NoProgress).unwrap()), ["sub.do", "sub/late.txt"]);
    assert_eq!(script.ran(), ["sub.do"]);
}

#[test]
fn existence_is_a_dependency_of_its_own_and_a_missed_file_is_waited_for() {
    let tree = Tree::new();
    tree.write("asks.do", b"exists a.txt\nexists b.txt");
    tree.write("reads.do", b"read a.txt\nread b.txt");
    tree.write("a.txt", b"a");
    let (mut builder, built, script) = serve(&tree);
    let bundle = built.bundle.unwrap();
    assert_eq!(content(&bundle, "asks.do").unwrap(), b"true;false;");
    assert_eq!(dependencies(&bundle, "asks.do"), []);
    assert_eq!(dependencies(&bundle, "reads.do"), [("a.txt".to_owned(), true), ("b.txt".to_owned(), false)]);
    // Its bytes do not matter to who asked only whether it is there.
    tree.write("a.txt", b"A");
    assert_eq!(changed(&tree.update(&mut builder, &["a.txt"])), ["a.txt", "reads.do"]);
    assert_eq!(script.ran(), ["reads.do"]);
    assert_eq!(because(&builder, "reads.do"), Because::InputChanged { path: path("a.txt") });
    tree.write("b.txt", b"b");
    assert_eq!(changed(&tree.update(&mut builder, &["b.txt"])), ["asks.do", "b.txt", "reads.do"]);
    assert_eq!(script.ran(), ["asks.do", "reads.do"]);
    assert_eq!(because(&builder, "asks.do"), Because::InputAppeared { path: path("b.txt") });
    tree.remove("a.txt");
    assert_eq!(changed(&tree.update(&mut builder, &["a.txt"])), ["a.txt", "asks.do", "reads.do"]);
    assert_eq!(because(&builder, "reads.do"), Because::InputGone { path: path("a.txt") });
    tree.write("other.txt", b"");
    script.runs();
    tree.update(&mut builder, &["other.txt"]);
    assert!(script.ran().is_empty());
}

#[test]
fn a_failure_is_tried_again_when_what_it_saw_is_another() {
    let tree = Tree::new();
    tree.write("a.do", b"exists b.txt\nlist sub\nread c.txt\nfail");
    tree.write("sub/x.txt", b"x");
    let (mut builder, built, script) = serve(&tree);
    let failure = &built.failures[0];
    assert_eq!((failure.line, failure.column, failure.transform.as_str()), (Some(4), Some(1), "script"));
    for (name, runs) in
        [("b.txt", 1), ("sub/y.txt", 1), ("c.txt", 1), ("d.txt", 0), ("sub/deep/z.txt", 1), ("sub/deep/w.txt", 0)]
    {
        tree.write(name, b"new");
        assert_eq!(tree.update(&mut builder, &[name]).failures.len(), 1);
        assert_eq!(script.ran().len(), runs, "{name}");
    }
    tree.write("a.do", b"fine");
    let built = tree.update(&mut builder, &["a.do"]);
    assert_eq!((built.healed, built.failures.len()), (vec![path("a.do")], 0));
}

#[test]
fn labelled_outputs_are_assets_that_change_and_go_by_themselves() {
    let tree = Tree::new();
    tree.write("scene.do", b"x\npart mesh/0 one\npart mesh/1 two\npart skin three tex.png");
    tree.write("tex.png", b"png");
    tree.write("user.do", b"use scene.do#mesh/0\nuse scene.do#none");
    tree.write("level.xml", b"<level model='scene.do#mesh/1' other='scene.do#none'/>");
    let (mut builder, built, script) = serve(&tree);
    assert_eq!(built.warnings, ["user.do: depends on 'scene.do#none', which does not exist"]);
    let bundle = built.bundle.unwrap();
    let all = [
        "flyloft.toml",
        "level.xml",
        "scene.do",
        "scene.do#mesh/0",
        "scene.do#mesh/1",
        "scene.do#skin",
        "tex.png",
        "user.do",
    ];
    assert_eq!(assets(&bundle), all);
    assert_eq!(content(&bundle, "scene.do#mesh/1").unwrap(), b"two");
    assert_eq!(dependencies(&bundle, "scene.do#skin"), [("tex.png".to_owned(), true)]);
    let uses = [("scene.do#mesh/0".to_owned(), true), ("scene.do#none".to_owned(), false)];
    assert_eq!(dependencies(&bundle, "user.do"), uses);
    let level = [("scene.do".to_owned(), true), ("scene.do#mesh/1".to_owned(), true)];
    assert_eq!(dependencies(&bundle, "level.xml"), level);
    assert_eq!(bundle.build_record(path("scene.do").id()).unwrap().unwrap().labels, ["mesh/0", "mesh/1", "skin"]);

    // Only what differs is published.
    tree.write("scene.do", b"x\npart mesh/0 one\npart mesh/1 2\npart skin three tex.png");
    assert_eq!(changed(&tree.update(&mut builder, &["scene.do"])), ["scene.do#mesh/1"]);
    // What is not made any more goes, what is made anew comes, and who refers to it knows.
    tree.write("scene.do", b"x\npart none zero\npart mesh/1 2\npart skin three");
    let built = tree.update(&mut builder, &["scene.do"]);
    assert_eq!(changed(&built), ["scene.do#mesh/0", "scene.do#none"]);
    let bundle = built.bundle.unwrap();
    let uses = [("scene.do#mesh/0".to_owned(), false), ("scene.do#none".to_owned(), true)];
    assert_eq!(dependencies(&bundle, "user.do"), uses);
    assert_eq!(dependencies(&bundle, "scene.do#skin"), []);
    let level = ["scene.do", "scene.do#mesh/1", "scene.do#none"].map(|name| (name.to_owned(), true));
    assert_eq!(dependencies(&bundle, "level.xml"), level);

    // What fails keeps all of its last good version.
    tree.write("scene.do", b"y\npart skin four\nfail");
    let built = tree.update(&mut builder, &["scene.do"]);
    assert!(built.bundle.is_none() && built.failures.len() == 1);
    commit(&mut builder);
    drop(builder);
    let mut builder = open(&tree, &script);
    let built = builder.scan(&NoProgress).unwrap();
    assert!(built.bundle.is_none() && built.failures.len() == 1, "{:?}", built.changed);
    assert_eq!(content(builder.bundle().unwrap(), "scene.do#skin").unwrap(), b"three");
    tree.write("scene.do", b"y\npart skin four");
    let built = tree.update(&mut builder, &["scene.do"]);
    assert_eq!(changed(&built), ["scene.do", "scene.do#mesh/1", "scene.do#none", "scene.do#skin"]);
    // It goes with its source.
    tree.remove("scene.do");
    let built = tree.update(&mut builder, &["scene.do"]);
    assert_eq!(changed(&built), ["scene.do", "scene.do#skin"]);
    let bundle = built.bundle.unwrap();
    assert_eq!(assets(&bundle), ["flyloft.toml", "level.xml", "tex.png", "user.do"]);
    assert_eq!(dependencies(&bundle, "level.xml"), []);
}

#[test]
fn labelled_outputs_survive_restarts_and_go_when_the_rule_goes() {
    let tree = Tree::new();
    tree.write("a/scene.do", b"x\npart mesh/0 one\npart mesh/1 two");
    tree.write("b.do", b"part only 1");
    let (mut builder, _, script) = serve(&tree);
    commit(&mut builder);
    drop(builder);
    let mut builder = open(&tree, &script);
    let built = builder.scan(&NoProgress).unwrap();
    assert!(built.bundle.is_none() && built.changed.is_empty(), "{:?}", built.changed);
    assert!(script.ran().is_empty());
    // Gone while nobody looked.
    drop(builder);
    tree.remove("b.do");
    let mut builder = open(&tree, &script);
    assert_eq!(changed(&builder.scan(&NoProgress).unwrap()), ["b.do", "b.do#only"]);
    tree.write("flyloft.toml", b"");
    let built = tree.update(&mut builder, &["flyloft.toml"]);
    assert_eq!(changed(&built), ["a/scene.do", "a/scene.do#mesh/0", "a/scene.do#mesh/1", "flyloft.toml"]);
    let bundle = built.bundle.unwrap();
    assert_eq!(assets(&bundle), ["a/scene.do", "flyloft.toml"]);
    assert_eq!(bundle.folders().map(|folder| folder.unwrap().to_string()).collect::<Vec<_>>(), ["a"]);
    tree.write("flyloft.toml", CONFIG);
    assert_eq!(tree.update(&mut builder, &["flyloft.toml"]).changed.len(), 4);
}

#[test]
fn a_file_at_the_place_of_a_labelled_output_is_a_failure_that_says_so() {
    let tree = Tree::new();
    tree.write("s.do", b"part m/0 made");
    let (mut builder, _, _) = serve(&tree);
    tree.write("s.do#m/0", b"a file");
    let built = tree.update(&mut builder, &["s.do#m/0"]);
    assert_eq!(changed(&built), ["s.do#m/0"]);
    let cause = "'s.do#m/0' is in the tree, so that the asset 's.do#m/0' has no place; rename one";
    assert_eq!((built.failures[0].path.as_str(), built.failures[0].cause.as_str()), ("s.do", cause));
    assert_eq!(content(&built.bundle.unwrap(), "s.do#m/0").unwrap(), b"a file");
    std::fs::remove_dir_all(tree.at("s.do#m")).unwrap();
    let built = tree.update(&mut builder, &["s.do#m"]);
    assert_eq!((built.failures.len(), changed(&built)), (0, vec!["s.do#m/0"]));
    assert_eq!(content(&built.bundle.unwrap(), "s.do#m/0").unwrap(), b"made");
    // A file where its folder would be.
    tree.write("s.do#m", b"a file");
    let built = tree.update(&mut builder, &["s.do#m"]);
    assert!(built.failures[0].cause.starts_with("'s.do#m' is in the tree"), "{:?}", built.failures);
    tree.remove("s.do#m");
    assert!(tree.update(&mut builder, &["s.do#m"]).failures.is_empty());
    for (source, cause) in [
        ("part a#b x", "it contains a '#', and a label has none"),
        ("part ../b x", "it has a '.' or '..' part"),
        ("part a 1\npart a 2", "it makes two assets with the label 'a'"),
    ] {
        tree.write("s.do", source.as_bytes());
        let built = tree.update(&mut builder, &["s.do"]);
        assert!(built.failures[0].cause.contains(cause), "{:?}", built.failures);
    }
}

#[test]
fn a_cycle_through_labelled_outputs_is_one_unit() {
    let tree = Tree::new();
    tree.write("a.do", b"part p 1 b.do");
    tree.write("b.do", b"use a.do#p");
    let (mut builder, _, _) = serve(&tree);
    tree.write("a.do", b"part p 2 b.do");
    tree.write("b.do", b"use a.do#p\nfail");
    let built = tree.update(&mut builder, &["a.do", "b.do"]);
    assert!(built.bundle.is_none(), "{:?}", built.changed);
    assert_eq!(built.failures.iter().map(|failure| failure.path.as_str()).collect::<Vec<_>>(), ["a.do", "b.do"]);
    assert!(built.failures[0].cause.contains("waits for 'b.do'"), "{:?}", built.failures);
    // However long ago the other one failed.
    tree.write("a.do", b"part p 3 b.do");
    let built = tree.update(&mut builder, &["a.do"]);
    assert!(built.bundle.is_none() && built.failures.len() == 2, "{:?}", built.changed);
    tree.write("b.do", b"use a.do#p\nnew");
    let built = tree.update(&mut builder, &["b.do"]);
    assert_eq!(changed(&built), ["a.do#p", "b.do"]);
    assert_eq!(built.healed, [path("a.do"), path("b.do")]);
}

#[test]
fn a_bundle_with_labelled_outputs_is_packed_compacted_and_unpacked_like_any_other() {
    let tree = Tree::new();
    tree.write("flyloft.toml", CONFIG);
    tree.write("x/scene.do", b"text\npart mesh/0 one\npart mesh/1 two x/tex.png\npart top 3");
    tree.write("x/scene.do!x", b"sorts between");
    tree.write("x/tex.png", b"png");
    let script = Script::default();
    let strict = BuildOptions { tolerant: false, ..options(&script) };
    let pack = |name: &str, threads| tree.pack_with(name, BuildOptions { threads, ..strict.clone() }).unwrap();
    pack("a.loft", 1);
    pack("b.loft", 4);
    assert!(tree.bytes("a.loft") == tree.bytes("b.loft"));
    assert!(pack("a.loft", 2).unchanged);
    // Changed and changed back, it is compacted to what was packed first, but for the generation.
    tree.write("x/scene.do", b"text\npart other 1");
    pack("b.loft", 1);
    tree.write("x/scene.do", b"text\npart mesh/0 one\npart mesh/1 two x/tex.png\npart top 3");
    pack("b.loft", 1);
    compact(Arc::new(OsFileSystem), &tree.out("b.loft"), &NoProgress).unwrap();
    let (fresh, compacted) = (tree.bundle("a.loft"), tree.bundle("b.loft"));
    assert_eq!(assets(&fresh), assets(&compacted));
    assert!(tree.bytes("a.loft")[8192..] == tree.bytes("b.loft")[8192..]);
    assert_eq!(fresh.verify(&mut |finding| panic!("{finding}")).unwrap().findings, 0);
    // Served, a fresh pack finds nothing to do.
    let unpacked = tree.unpacked("a.loft");
    let files: Vec<PathBuf> = listing(&unpacked).into_keys().collect();
    assert_eq!(files, ["flyloft.toml", "x", "x/scene.do", "x/scene.do!x", "x/tex.png"].map(PathBuf::from));
    assert_eq!(std::fs::read(unpacked.join("x/scene.do")).unwrap(), b"text;");
}

#[test]
fn each_distinct_input_is_built_once_however_often_branches_are_switched() {
    let tree = Tree::new();
    let cache = ActionCacheOptions::new(tree.out("actions"));
    tree.write("flyloft.toml", CONFIG);
    // What is read, listed and asked for differs between the branches, and the source of one.
    let branches: [&[(&str, Option<&str>)]; 3] = [
        &[("in.txt", Some("1")), ("own.do", Some("one\npart p 1")), ("sub/x.txt", None), ("there.txt", None)],
        &[("in.txt", Some("2")), ("own.do", Some("two")), ("sub/x.txt", None), ("there.txt", Some(""))],
        &[("in.txt", Some("2")), ("own.do", Some("one\npart p 1")), ("sub/x.txt", Some("x")), ("there.txt", None)],
    ];
    let switch = |branch: usize| {
        for (name, bytes) in branches[branch] {
            match bytes {
                Some(bytes) => tree.write(name, bytes.as_bytes()),
                None if tree.at(name).exists() => tree.remove(name),
                None => {}
            }
        }
    };
    let names: Vec<&str> = branches[0].iter().map(|(name, _)| *name).collect();
    tree.write("reads.do", b"read in.txt");
    tree.write("lists.do", b"list sub");
    tree.write("asks.do", b"exists there.txt");
    tree.write("sub/always.txt", b"");
    let script = Script::default();
    let options = BuildOptions { actions: Some(cache.clone()), ..options(&script) };
    let open = |store: &str| {
        let (fs, clock) = (Arc::new(OsFileSystem), Arc::new(SystemClock));
        TreeBuilder::open(fs, clock, &tree.root(), &tree.out(store), None, options.clone()).unwrap()
    };
    switch(0);
    let mut builder = open("store.loft");
    builder.scan(&NoProgress).unwrap();
    for branch in [1, 2] {
        switch(branch);
        tree.update(&mut builder, &names);
    }
    let runs: Vec<(String, usize)> = script.runs();
    let once = [("asks.do", 2), ("lists.do", 2), ("own.do", 2), ("reads.do", 2)];
    assert_eq!(runs, once.map(|(name, runs)| (name.to_owned(), runs)));
    for branch in [0, 1, 2, 1, 0, 2, 0] {
        switch(branch);
        let built = tree.update(&mut builder, &names);
        assert!(built.failures.is_empty() && !built.changed.is_empty());
        assert_eq!(script.runs(), [], "{branch}");
        let bundle = built.bundle.unwrap();
        let strict = BuildOptions { tolerant: false, actions: None, ..options.clone() };
        tree.pack_with(&format!("{branch}.loft"), strict).unwrap();
        script.runs();
        let fresh = tree.bundle(&format!("{branch}.loft"));
        assert_eq!(assets(&bundle), assets(&fresh));
        for asset in fresh.assets().map(|asset| asset.unwrap()) {
            assert_eq!(bundle.find(&asset.path).unwrap().unwrap().content, asset.content, "{}", asset.path);
            assert_eq!(bundle.build_record(asset.id).unwrap(), fresh.build_record(asset.id).unwrap());
        }
    }
    let why = builder.why(&path("own.do")).unwrap();
    assert_eq!((why.because, why.from_action_cache), (Because::SourceChanged, true));
    // Another store, as on another machine, finds it all.
    open("other.loft").scan(&NoProgress).unwrap();
    assert_eq!(script.runs(), []);
    // Without the folder it is made again.
    std::fs::remove_dir_all(&cache.folder).unwrap();
    open("third.loft").scan(&NoProgress).unwrap();
    assert_eq!(script.ran(), ["asks.do", "lists.do", "own.do", "reads.do"]);
}

#[test]
fn what_transforms_make_waits_in_a_file_beyond_what_memory_is_for() {
    let tree = Tree::new();
    tree.write("flyloft.toml", CONFIG);
    for number in 0..40 {
        let line = format!("{number} {}", "x".repeat(200));
        tree.write(&format!("{number}.do"), vec![line.as_str(); 100].join("\n").as_bytes());
    }
    let script = Script::default();
    let strict = BuildOptions { tolerant: false, ..options(&script) };
    let whole = tree.pack_with("whole.loft", strict.clone()).unwrap();
    assert_eq!(whole.spilled_bytes, 0);
    let small = BuildOptions { outputs_bytes: 100_000, ..strict };
    let spilled = tree.pack_with("spilled.loft", small).unwrap().spilled_bytes;
    assert!((700_000..whole.source_bytes - 80_000).contains(&spilled), "{spilled} of {}", whole.source_bytes);
    assert!(tree.bytes("whole.loft") == tree.bytes("spilled.loft"));
    let left: Vec<_> = std::fs::read_dir(tree.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// Ends when as many run at the same time as there are threads, and says whether they did.
#[derive(Clone, Default)]
struct Meet {
    running: Arc<(Mutex<usize>, Condvar)>,
}

impl Transform for Meet {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        "meet"
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, _: &mut dyn Context) -> Result<Output> {
        let (running, came) = &*self.running;
        let mut running = running.lock().unwrap();
        *running += 1;
        came.notify_all();
        let (_running, out) =
            came.wait_timeout_while(running, Duration::from_secs(30), |running| *running < 2).unwrap();
        if out.timed_out() { Err(input.error("meet", None, "it was alone")) } else { Ok(Output::default()) }
    }
}

#[test]
fn two_files_that_take_long_are_built_at_the_same_time() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.meet'\nname = 'meet'\n");
    tree.write("a.meet", b"");
    tree.write("b.meet", b"");
    let mut registry = TransformRegistry::new();
    registry.register(Meet::default()).unwrap();
    let options = BuildOptions { threads: 2, registry: Arc::new(registry), ..BuildOptions::default() };
    tree.pack_with("a.loft", options).unwrap();
}

#[test]
fn a_served_tree_of_scripts_that_changes_at_random_is_always_what_a_fresh_pack_is() {
    let tree = Tree::new();
    tree.write("keep.txt", b"");
    let mut state = 0x2545_f491_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as usize
    };
    let names = ["a.txt", "sub/b.txt", "sub/deep/c.txt", "d.xml", "one.do", "sub/two.do", "sub/deep/three.do"];
    let folders = ["sub", "sub/deep"];
    let (mut builder, _, script) = serve(&tree);
    let strict = BuildOptions { tolerant: false, ..options(&script) };
    for round in 0..80 {
        let mut touched = std::collections::BTreeSet::new();
        for _ in 0..=random(2) {
            let name = names[random(names.len() as u64)];
            let other = names[random(names.len() as u64)];
            let text = match random(7) {
                0 => format!("list {}", folders[random(2)]),
                1 => "list".to_owned(),
                2 => format!("read {other}\nexists {}", names[random(7)]),
                3 => format!("part p{} {round} {other}\nuse {other}", random(3)),
                4 => format!("use {}#p{}\npart q same", names[4 + random(3)], random(3)),
                5 => format!("<a b='{}#p{}' c='/{other}'/>", names[4 + random(3)], random(3)),
                _ => format!("text {}", random(3)),
            };
            match random(6) {
                0 if tree.at(name).exists() => tree.remove(name),
                1 if tree.at("sub/deep").exists() => {
                    std::fs::remove_dir_all(tree.at("sub/deep")).unwrap();
                    touched.insert(tree.at("sub/deep"));
                }
                _ => tree.write(name, text.as_bytes()),
            }
            touched.insert(tree.at(name));
        }
        let built = builder.update(&touched).unwrap();
        assert!(built.failures.is_empty(), "{:?}", built.failures);
        if round % 7 == 6 {
            commit(&mut builder);
            drop(builder);
            builder = open(&tree, &script);
            let built = builder.scan(&NoProgress).unwrap();
            assert!(built.changed.is_empty(), "{round}: {:?}", built.changed);
        }
        let name = format!("{round}.loft");
        tree.pack_with(&name, strict.clone()).unwrap();
        let (served, fresh) = (builder.bundle().unwrap(), tree.bundle(&name));
        assert_eq!(assets(served), assets(&fresh), "{round}");
        for asset in fresh.assets().map(|asset| asset.unwrap()) {
            let (path, found) = (asset.path.as_str(), served.find(&asset.path).unwrap().unwrap());
            assert_eq!(found.content, asset.content, "{round}: {path}");
            assert_eq!(dependencies(served, path), dependencies(&fresh, path), "{round}: {path}");
        }
        let folders = |bundle: &Bundle| bundle.folders().map(|folder| folder.unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(folders(served), folders(&fresh), "{round}");
    }
}
