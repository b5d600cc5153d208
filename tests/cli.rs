//! The program as its users see it: what it prints, how it ends, and what it says about input that it cannot use.
#![cfg(all(feature = "cli", feature = "serve"))]

#[path = "cli/building.rs"]
mod building;
mod common;
#[path = "cli/explaining.rs"]
mod explaining;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/simulating.rs"]
mod simulating;
#[path = "cli/watching.rs"]
mod watching;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::Tree;
use serde_json::Value;

/// What the system says of a name that stands for nothing, and of a file where a folder is meant. Windows says it in the
/// user's language.
const MISSING: &str = if cfg!(windows) { "(os error " } else { "No such file" };
const NOT_A_FOLDER: &str = if cfg!(windows) { "(os error " } else { "Not a directory" };

/// How a run of the program ended.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// It did what it was asked and said nothing on standard error.
    fn done(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// It ended with `status` and one line, which says each of `said`.
    fn refused(&self, status: i32, said: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("flyloft: "), "{}", self.err);
        for text in said {
            assert!(self.err.contains(text), "'{text}' is not in: {}", self.err);
        }
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn command(arguments: &[&str]) -> Command {
    // An emulator stands before the program where the tests are for another machine: scripts/aarch64.sh.
    let mut command = match std::env::var_os("FLYLOFT_TEST_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(env!("CARGO_BIN_EXE_flyloft"));
            command
        }
        None => Command::new(env!("CARGO_BIN_EXE_flyloft")),
    };
    command.args(arguments).env_remove("RUST_LOG");
    command
}

fn flyloft(arguments: &[&str]) -> Ran {
    let output = command(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A small tree with a page that uses two files, one of which is missing, an empty folder and a program.
fn stage() -> Tree {
    let tree = Tree::new();
    tree.write("index.html", b"<link rel=stylesheet href=css/site.css><img src=img/gone.png>");
    tree.write("css/site.css", b"body { color: teal }\n");
    tree.write("img/noise.bin", &noise(100_000));
    tree.write("run.sh", b"#!/bin/sh\n");
    fs::create_dir(tree.root().join("empty")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(tree.root().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    tree
}

/// Bytes that do not compress, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Packs with the program; the warning about the missing picture is on standard error.
fn packed(tree: &Tree, name: &str) -> PathBuf {
    let out = tree.outside(name);
    let ran = flyloft(&["pack", text(&tree.root()), "-o", text(&out)]);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    out
}

#[test]
fn a_tree_is_packed_listed_read_and_unpacked_as_it_was() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let listed = flyloft(&["ls", text(&bundle)]).done();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["css/site.css", "img/noise.bin", "index.html", "run.sh"]);
    assert_eq!(flyloft(&["ls", text(&bundle), "css"]).done(), "css/site.css\n");
    let long = flyloft(&["ls", "--long", text(&bundle)]).done();
    assert!(long.lines().any(|line| line.contains("100,000") && line.ends_with("img/noise.bin")), "{long}");

    let cat = command(&["cat", text(&bundle), "img/noise.bin"]).output().unwrap();
    assert_eq!((cat.status.code(), cat.stdout == noise(100_000)), (Some(0), true));

    let out = tree.outside("out");
    let said = flyloft(&["unpack", text(&bundle), "-o", text(&out)]).done();
    assert!(said.contains("4 files"), "{said}");
    #[cfg(unix)]
    {
        let diff = Command::new("diff").args(["-r", text(&tree.root()), text(&out)]).output().unwrap();
        assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    }
    assert_eq!(fs::read(out.join("img/noise.bin")).unwrap(), noise(100_000));
    assert!(out.join("empty").is_dir());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_ne!(fs::metadata(out.join("run.sh")).unwrap().permissions().mode() & 0o111, 0);
    }
}

#[test]
fn packing_says_one_line_and_warns_of_what_is_missing() {
    let tree = stage();
    let ran = flyloft(&["pack", text(&tree.root()), "-o", text(&tree.outside("a.loft"))]);
    assert_eq!((ran.status, ran.out.lines().count()), (Some(0), 1), "{}", ran.out);
    assert!(ran.out.contains("generation 1: 4 assets"), "{}", ran.out);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(ran.err.starts_with("flyloft: warning: index.html:1:") && ran.err.contains("img/gone.png"), "{}", ran.err);
}

#[test]
fn packing_an_unchanged_tree_changes_no_byte_and_an_edit_appends() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let before = fs::read(&bundle).unwrap();
    let again = flyloft(&["pack", text(&tree.root()), "-o", text(&bundle), "--json"]).json();
    assert_eq!((again["unchanged"].as_bool(), again["appended_bytes"].as_u64()), (Some(true), Some(0)));
    assert_eq!(fs::read(&bundle).unwrap(), before);

    tree.write("css/site.css", b"body { color: plum }\n");
    let edited = flyloft(&["pack", text(&tree.root()), "-o", text(&bundle), "--json"]).json();
    assert_eq!((edited["generation"].as_u64(), edited["layout"].as_str()), (Some(2), Some("access")));
    let appended = edited["appended_bytes"].as_u64().unwrap();
    assert!(appended > 0 && appended < 50_000, "{appended}");
    let [used, peak] = ["arena_bytes", "arena_peak_bytes"].map(|name| edited[name].as_u64().unwrap());
    assert!(used > 0 && used <= peak && peak < 1 << 20, "{used} of {peak}");
}

#[test]
fn a_layout_is_chosen_once_and_kept() {
    let tree = stage();
    let bundle = tree.outside("d.loft");
    let pack = |more: &[&str]| {
        let root = tree.root();
        flyloft(&[&["pack", text(&root), "-o", text(&bundle)], more].concat())
    };
    assert_eq!(pack(&["--layout", "dense", "--json"]).json()["layout"], "dense");
    tree.write("new.txt", b"new");
    assert_eq!(pack(&["--json"]).json()["layout"], "dense");
    assert_eq!(flyloft(&["info", text(&bundle), "--json"]).json()["layout"], "dense");
    tree.write("newer.txt", b"newer");
    pack(&["--layout", "access"]).refused(2, &["layout"]);
}

#[test]
fn every_document_is_json() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let file = text(&bundle);
    let listed = flyloft(&["ls", file, "--json"]).json();
    assert_eq!((listed["generation"].as_u64(), listed["assets"].as_array().unwrap().len()), (Some(1), 4));
    assert_eq!(listed["assets"][3]["executable"], cfg!(unix));
    assert_eq!(flyloft(&["ls", file, "css", "--json"]).json()["assets"].as_array().unwrap().len(), 1);
    let info = flyloft(&["info", file, "--long", "--json"]).json();
    assert_eq!((info["assets"].as_u64(), info["kinds"]["text"]["assets"].as_u64()), (Some(4), Some(2)));
    assert!(flyloft(&["info", file]).done().contains("4 in 3 folders"));
    let verified = flyloft(&["verify", file, "--json"]).json();
    assert_eq!((&verified["sound"], &verified["assets"]), (&true.into(), &4.into()));
    let dependencies = flyloft(&["deps", file, "--json"]).json();
    assert_eq!(dependencies["dependencies"].as_array().unwrap().len(), 2);
    let doctor = flyloft(&["doctor", "--json"]).json();
    assert!(doctor["items"].as_array().unwrap().iter().any(|item| item["name"] == "io_uring"), "{doctor}");
    let text = flyloft(&["doctor", text(&tree.root())]).done();
    assert!(text.contains("cores") && text.contains("folder"), "{text}");
}

#[test]
fn dependencies_are_shown_both_ways_and_as_a_graph() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let deps = |more: &[&str]| flyloft(&[&["deps", text(&bundle)], more].concat());
    assert_eq!(deps(&["index.html"]).done(), "css/site.css\nimg/gone.png  (missing)\n");
    assert_eq!(deps(&["css/site.css", "--reverse"]).done(), "index.html\n");
    assert_eq!(deps(&["img/gone.png", "--reverse"]).done(), "index.html\n");
    assert_eq!(deps(&["css/site.css"]).done(), "");
    assert!(deps(&[]).done().contains("index.html -> css/site.css\n"));
    let dot = deps(&["--dot"]).done();
    assert!(dot.starts_with("digraph") && dot.contains("\"index.html\" -> \"img/gone.png\" [style=dashed"), "{dot}");
    assert!(dot.contains("  \"img/gone.png\" [style=dashed, tooltip=\"missing\"];\n"), "{dot}");
    assert!(deps(&["css/site.css", "--dot"]).done().contains("  \"css/site.css\" [style=bold];\n}"));
    deps(&["nope"]).refused(1, &["'nope' is not in it"]);
    deps(&["nope", "--reverse"]).refused(1, &["nothing in it asks for that"]);
}

#[test]
fn dependencies_of_dependencies_are_followed_once_and_a_folder_has_those_of_its_store() {
    let tree = Tree::new();
    tree.write("page.html", b"<link rel=stylesheet href=a.css>");
    tree.write("a.css", b"@import 'b.css';");
    tree.write("b.css", b"@import 'a.css'; @import 'c.css';");
    tree.write("c.css", b"");
    let bundle = packed(&tree, "a.loft");
    let all = |more: &[&str]| flyloft(&[&["deps", text(&bundle), "--all"], more].concat()).done();
    assert_eq!(all(&["page.html"]), "page.html -> a.css\na.css -> b.css\nb.css -> a.css\nb.css -> c.css\n");
    assert_eq!(all(&["c.css", "-r"]), "c.css <- b.css\nb.css <- a.css\na.css <- b.css\na.css <- page.html\n");
    assert_eq!(all(&["a.css", "--dot"]).matches(" -> ").count(), 3);
    flyloft(&["deps", text(&bundle), "--all"]).refused(2, &["<PATH>"]);
    // A store is a folder with the bundle in it.
    let (root, store) = (tree.root(), tree.store());
    let deps = || flyloft(&["deps", text(&root), "page.html", "--store", text(&store)]);
    deps().refused(2, &["nothing was built from it yet"]);
    fs::create_dir(&store).unwrap();
    fs::copy(&bundle, store.join("tree.loft")).unwrap();
    assert_eq!(deps().done(), "a.css\n");
}

#[test]
fn a_difference_is_named_and_is_status_one() {
    let tree = stage();
    let old = packed(&tree, "old.loft");
    assert_eq!(flyloft(&["diff", text(&old), text(&old)]).done(), "");
    tree.write("added.txt", b"new");
    tree.write("css/site.css", b"body { color: plum }\n");
    tree.remove("img/noise.bin");
    fs::remove_dir(tree.root().join("img")).unwrap();
    let new = packed(&tree, "new.loft");
    let differs = flyloft(&["diff", text(&old), text(&new)]);
    assert_eq!(differs.status, Some(1), "{}", differs.err);
    assert_eq!(differs.out, "+ added.txt\n~ css/site.css\n- img/noise.bin\n- img/\n");
    let differs = flyloft(&["diff", text(&old), text(&new), "--json"]);
    assert_eq!(differs.status, Some(1));
    let differences = differs.json();
    assert_eq!(differences["differences"][1]["change"], "changed");
    assert_eq!(differences["differences"][2]["old"]["bytes"], 100_000);
}

#[test]
fn compaction_gives_dead_bytes_back() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    tree.write("img/noise.bin", &noise(100_001)[1..]);
    packed(&tree, "a.loft");
    let before = fs::metadata(&bundle).unwrap().len();
    flyloft(&["compact", text(&bundle)]).done();
    let after = fs::metadata(&bundle).unwrap().len();
    assert!(after + 90_000 < before, "{before} {after}");
    assert!(flyloft(&["verify", text(&bundle)]).done().contains("sound"));
    // The compacted file is another one: its generation has a number of its own.
    assert!(flyloft(&["info", text(&bundle), "--json"]).json()["generation"].as_u64() > Some(2));
}

#[test]
fn a_bundle_is_streamed_in_every_pattern() {
    let tree = Tree::with_files(50);
    let bundle = packed(&tree, "a.loft");
    let load = |more: &[&str]| flyloft(&[&["load", text(&bundle), "--budget", "16MiB"], more].concat());
    let all = load(&["--json"]).json();
    assert_eq!((all["loads"].as_u64(), all["hits"].as_u64()), (Some(50), Some(0)));
    let bytes: u64 = (0..50).map(|index| common::content(index, 0).len() as u64).sum();
    assert_eq!(all["bytes"], bytes);
    for pattern in ["random", "zipf"] {
        let report = load(&["--pattern", pattern, "--count", "500", "--clients", "8", "--seed", "3", "--json"]).json();
        assert_eq!((&report["loads"], &report["pattern"]), (&500.into(), &pattern.into()));
        assert!(report["hit_rate"].as_f64().unwrap() > 0.5, "{report}");
        assert!(report["p99_us"].as_f64() >= report["p50_us"].as_f64());
        assert!(report["peak_bytes"].as_u64().unwrap() <= 16 << 20);
    }
    let cold = load(&["--cold"]).done();
    assert!(cold.contains("page cache"), "{cold}");
}

#[test]
fn an_asset_larger_than_the_budget_is_streamed_and_written_whole() {
    let tree = Tree::new();
    let large = noise(20 << 20);
    tree.write("large.bin", &large);
    let bundle = packed(&tree, "a.loft");
    let cat = command(&["cat", text(&bundle), "large.bin"]).output().unwrap();
    assert!(cat.status.success() && cat.stdout == large);
    let report = flyloft(&["load", text(&bundle), "--budget", "8MiB", "--json"]).json();
    assert_eq!((&report["streamed"], &report["bytes"]), (&1.into(), &(20 << 20).into()));
    assert!(report["peak_bytes"].as_u64().unwrap() <= 8 << 20, "{report}");
}

#[test]
fn a_call_that_cannot_be_understood_is_one_line() {
    flyloft(&[]).refused(2, &["--help"]);
    flyloft(&["frobnicate"]).refused(2, &["'frobnicate'", "--help"]);
    flyloft(&["pack"]).refused(2, &["--output <OUTPUT>", "<DIR>"]);
    flyloft(&["ls"]).refused(2, &["<FILE>"]);
    flyloft(&["ls", "a", "--frob"]).refused(2, &["--frob"]);
    flyloft(&["serve", "x", "--budget", "12q"]).refused(2, &["'12q' is not a size"]);
    flyloft(&["load", "x", "--profile", "--cold"]).refused(2, &["--profile"]);
    flyloft(&["load", "x", "--clients", "0"]).refused(2, &["--clients"]);
    assert!(flyloft(&["--help"]).done().contains("Usage"));
    assert!(flyloft(&["serve", "--help"]).done().contains("--watch"));
    assert!(flyloft(&["--version"]).done().starts_with("flyloft "));
}

#[test]
fn a_tree_that_cannot_be_packed_is_one_line_and_leaves_nothing_behind() {
    let tree = Tree::new();
    let out = tree.outside("a.loft");
    let pack = |root: &Path| flyloft(&["pack", text(root), "-o", text(&out)]);
    pack(&tree.outside("missing")).refused(2, &["missing", MISSING]);
    pack(&tree.root()).refused(2, &["the folder is empty"]);
    tree.write("a.json", b"{");
    pack(&tree.root().join("a.json")).refused(2, &["a.json", NOT_A_FOLDER]);
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    pack(&tree.root()).refused(2, &["a.json:1:1: minify-json"]);
    tree.write("flyloft.toml", b"nonsense = 1\n");
    assert_eq!(pack(&tree.root()).err.lines().count(), 1);
    assert!(!out.exists());
    let beside: Vec<_> = fs::read_dir(out.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["tree"], "left behind");
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let tree = stage();
    fs::write(tree.root().join(std::ffi::OsStr::from_bytes(b"a\xff")), b"x").unwrap();
    let ran = flyloft(&["pack", text(&tree.root()), "-o", text(&tree.outside("a.loft"))]);
    ran.refused(2, &["not UTF-8"]);
    assert!(!tree.outside("a.loft").exists());
}

#[cfg(unix)]
#[test]
fn links_in_a_loop_or_out_of_the_tree_are_reported_and_not_followed() {
    use std::os::unix::fs::symlink;
    let tree = Tree::new();
    tree.write("a.txt", b"a");
    symlink(".", tree.root().join("loop")).unwrap();
    symlink("/etc/passwd", tree.root().join("out")).unwrap();
    symlink("nowhere", tree.root().join("dangling")).unwrap();
    symlink("a.txt", tree.root().join("same.txt")).unwrap();
    let bundle = tree.outside("a.loft");
    let ran = flyloft(&["pack", text(&tree.root()), "-o", text(&bundle)]);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    for name in ["loop", "out", "dangling"] {
        assert!(ran.err.lines().any(|line| line.starts_with(&format!("flyloft: warning: {name}: "))), "{}", ran.err);
    }
    assert_eq!(flyloft(&["ls", text(&bundle)]).done(), "a.txt\nsame.txt\n");
}

#[test]
fn a_file_that_is_not_a_bundle_is_refused_by_every_command() {
    let tree = Tree::new();
    let file = tree.outside("x.loft");
    let check = |status: i32, said: &[&str]| {
        let file = text(&file);
        for command in [&["ls", file][..], &["info", file], &["cat", file, "a"], &["verify", file], &["deps", file]] {
            flyloft(command).refused(status, said);
        }
        for command in [&["diff", file, file][..], &["compact", file], &["load", file], &["serve", file]] {
            flyloft(command).refused(status, said);
        }
        let out = tree.outside("out");
        flyloft(&["unpack", file, "-o", text(&out)]).refused(status, said);
        assert!(!out.exists());
    };
    check(2, &["x.loft", MISSING]);
    fs::write(&file, b"").unwrap();
    check(2, &["x.loft: not a bundle", "empty"]);
    fs::write(&file, noise(20_000)).unwrap();
    check(2, &["x.loft: not a bundle"]);
    flyloft(&["ls", text(&tree.root())]).refused(2, &["it is a directory"]);

    // A tree is not packed over what is not a bundle.
    tree.write("a.txt", b"a");
    flyloft(&["pack", text(&tree.root()), "-o", text(&file)]).refused(2, &["x.loft: not a bundle"]);
    assert_eq!(fs::read(&file).unwrap(), noise(20_000));
}

#[test]
fn a_bundle_of_a_newer_version_asks_for_a_newer_program() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let original = fs::read(&bundle).unwrap();
    // Major version at byte 8, flags that must be known at 24; docs/format.md.
    for (at, value) in [(8, 2u8), (24, 0x80)] {
        let mut bytes = original.clone();
        for block in [0, 4096] {
            bytes[block + at] = value;
            let checksum = *blake3::hash(&bytes[block..block + 4064]).as_bytes();
            bytes[block + 4064..block + 4096].copy_from_slice(&checksum);
        }
        fs::write(&bundle, &bytes).unwrap();
        flyloft(&["ls", text(&bundle)]).refused(2, &["a.loft: needs a newer flyloft"]);
        flyloft(&["pack", text(&tree.root()), "-o", text(&bundle)]).refused(2, &["needs a newer flyloft"]);
        assert_eq!(fs::read(&bundle).unwrap(), bytes);
    }
}

#[test]
fn a_truncated_bundle_is_corrupt_wherever_it_was_cut() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let whole = fs::read(&bundle).unwrap();
    let cut = tree.outside("cut.loft");
    for len in [1, 100, 4095, 4096, 8191, 8192, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        for command in [&["verify", text(&cut)][..], &["ls", text(&cut)], &["cat", text(&cut), "run.sh"]] {
            let ran = flyloft(command);
            assert!(matches!(ran.status, Some(1 | 2)), "{command:?} at {len}: {:?} {}{}", ran.status, ran.out, ran.err);
            ran.refused(ran.status.unwrap(), &["cut.loft"]);
        }
    }
}

#[test]
fn a_flipped_bit_is_found_and_named_and_wrong_bytes_never_come_out() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let whole = fs::read(&bundle).unwrap();
    let broken = tree.outside("broken.loft");
    let content = noise(100_000);
    let place = whole.windows(64).position(|window| window == &content[50_000..50_064]).expect("it is stored as it is");
    let mut bytes = whole.clone();
    bytes[place] ^= 4;
    fs::write(&broken, &bytes).unwrap();
    let verified = flyloft(&["verify", text(&broken)]);
    assert_eq!((verified.status, verified.err.as_str()), (Some(1), ""), "{}", verified.out);
    assert!(verified.out.contains("frame ") && verified.out.contains("img/noise.bin"), "{}", verified.out);
    assert!(!verified.out.contains("site.css"), "{}", verified.out);
    let named = flyloft(&["verify", text(&broken), "--json"]);
    assert_eq!(named.status, Some(1));
    assert!(named.json()["findings"].as_array().unwrap().iter().any(|finding| finding["asset"] == "img/noise.bin"));
    flyloft(&["cat", text(&broken), "img/noise.bin"]).refused(1, &["corrupt"]);
    flyloft(&["cat", text(&broken), "css/site.css"]).done();
    flyloft(&["load", text(&broken)]).refused(1, &["corrupt"]);
    let out = tree.outside("out");
    flyloft(&["unpack", text(&broken), "-o", text(&out)]).refused(1, &["corrupt"]);

    // Anywhere else it is found too, or lies in bytes that nothing uses; and nothing panics.
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&broken, &bytes).unwrap();
        for command in [&["verify", text(&broken)][..], &["ls", "--long", text(&broken)]] {
            let ran = flyloft(command);
            assert!(matches!(ran.status, Some(0..=2)), "byte {at}: {:?} {}", ran.status, ran.err);
            assert!(ran.err.lines().count() <= 1 && !ran.err.contains("panicked"), "byte {at}: {}", ran.err);
        }
    }
}

#[test]
fn a_length_that_lies_is_corrupt() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let mut bytes = fs::read(&bundle).unwrap();
    // Past the version, flags, uuid and numbers stand the root's address and the end of what the generation uses.
    for (at, value) in [(64usize, u64::MAX), (72, u64::MAX / 2)] {
        for block in [0, 4096] {
            bytes[block + at..block + at + 8].copy_from_slice(&value.to_le_bytes());
            let checksum = *blake3::hash(&bytes[block..block + 4064]).as_bytes();
            bytes[block + 4064..block + 4096].copy_from_slice(&checksum);
        }
        fs::write(&bundle, &bytes).unwrap();
        let ran = flyloft(&["ls", text(&bundle)]);
        ran.refused(ran.status.unwrap(), &["a.loft"]);
        assert!(matches!(ran.status, Some(1 | 2)), "{}", ran.err);
    }
}

#[test]
fn what_is_missing_from_a_bundle_is_status_one() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    flyloft(&["cat", text(&bundle), "nope.txt"]).refused(1, &["'nope.txt' is not in it", "flyloft ls"]);
    flyloft(&["ls", text(&bundle), "nope"]).refused(1, &["nope"]);
    flyloft(&["cat", text(&bundle), "../etc/passwd"]).refused(2, &["'../etc/passwd' is not an asset path"]);
    let out = tree.outside("full");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), b"mine").unwrap();
    flyloft(&["unpack", text(&bundle), "-o", text(&out)]).refused(2, &["not empty"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let tree = Tree::with_files(300);
    let bundle = packed(&tree, "a.loft");
    for arguments in [&["ls", "--long", text(&bundle)][..], &["cat", text(&bundle), &common::name(0)], &["doctor"]] {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn verbose_says_what_happens_on_standard_error_alone() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let ran = flyloft(&["cat", text(&bundle), "css/site.css", "-vvv"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "body { color: teal }\n"));
    assert!(ran.err.contains("flyloft"), "{}", ran.err);
}
