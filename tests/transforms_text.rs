//! Trees whose flyloft.toml names the transforms of text and data, external commands among them.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::Tree;
use flyloft::build::transform::TransformRegistry;
use flyloft::build::{BuildOptions, NoProgress, PackReport, pack};
use flyloft::bundle::Bundle;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::{Event, Runtime};

/// A tree and the bundle that it is packed into.
struct Site {
    tree: Tree,
    options: BuildOptions,
}

impl Site {
    fn new(rules: &str) -> Self {
        let tree = Tree::new();
        tree.write("flyloft.toml", rules.as_bytes());
        Self { tree, options: BuildOptions::default() }
    }

    fn with(self, path: &str, text: &str) -> Self {
        self.tree.write(path, text.as_bytes());
        self
    }

    fn allowing_commands(mut self) -> Self {
        let mut registry = TransformRegistry::with_builtins();
        registry.allow_commands();
        self.options.registry = Arc::new(registry);
        self
    }

    fn bundle(&self) -> PathBuf {
        self.tree.outside("site.loft")
    }

    fn pack(&self) -> flyloft::Result<PackReport> {
        let (fs, clock) = (Arc::new(OsFileSystem), Arc::new(SystemClock));
        pack(fs, clock, &self.tree.root(), &self.bundle(), self.options.clone(), &NoProgress)
    }

    fn packed(&self) -> flyloft::Result<PackReport> {
        let report = self.pack()?;
        assert_eq!(report.failures, []);
        Ok(report)
    }

    /// What is packed of an asset.
    fn loaded(&self, path: &str) -> Vec<u8> {
        let executor = tokio::runtime::Runtime::new().unwrap();
        executor.block_on(common::within(async {
            let runtime = Runtime::builder().bundle(self.bundle()).start().await.unwrap();
            runtime.load(path).await.unwrap().to_vec()
        }))
    }

    fn texts(&self, paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| String::from_utf8_lossy(&self.loaded(path)).into_owned()).collect()
    }
}

const RULES: &str = r#"
[[transform]]
glob = "*.css"
steps = [{ name = "minify-css" }, { name = "compress", parameters = { codings = ["br"], ratio_min = 1.0 } }]
[[transform]]
glob = "*.html"
name = "minify-html"
[[transform]]
glob = "*.txt"
name = "minify-text"
[[transform]]
glob = ["*.toml", "*.ron"]
name = "data"
[[transform]]
glob = "binary/*"
name = "data"
parameters = { output = "cbor" }
[[transform]]
glob = "/flyloft.toml"
name = "identity"
"#;

#[test]
fn a_tree_is_packed_as_its_rules_say() {
    let site = Site::new(RULES)
        .with("style.css", &"/* colours */ a { color : #ff0000 }\n".repeat(40))
        .with("index.html", "<p  class=a>\n\n  hello <!-- you --> </p>")
        .with("notes.txt", "one  \r\ntwo\n\n\n")
        .with("a.toml", "# a\nb = [ 1, 2 ]\n")
        .with("a.ron", "( a: 1, /* c */ b: Some( 2 ) )")
        .with("binary/a.json", "{\"a\": [1]}");
    site.packed().unwrap();
    let paths = ["style.css", "index.html", "notes.txt", "a.toml", "a.ron", "binary/a.json", "flyloft.toml"];
    let texts = site.texts(&paths);
    let cbor = String::from_utf8_lossy(b"\xa1\x61a\x81\x01");
    let expected =
        ["a{color:red}", "<p class=a>\nhello </p>", "one\ntwo\n", "b=[1,2]\n", "(a:1,b:Some(2))", &cbor, RULES];
    assert_eq!(texts, expected);
    // Nothing of it changed: nothing is built and nothing written.
    assert!(site.packed().unwrap().unchanged);
}

#[test]
fn the_coding_of_a_style_sheet_is_of_what_the_step_before_made() {
    let rules: String = (0..50).map(|index| format!(".rule-{index} {{ order : {} ; }}\n", index * 7 % 50)).collect();
    let site = Site::new(RULES).with("style.css", &rules);
    site.packed().unwrap();
    let bundle = Bundle::open(OsFileSystem.open(&site.bundle()).unwrap(), true).unwrap();
    let found: Vec<String> = bundle.assets().map(|record| record.unwrap().path.to_string()).collect();
    assert_eq!(found, ["flyloft.toml", "style.css", "style.css#br"]);
    let mut decoded = Vec::new();
    brotli::BrotliDecompress(&mut site.loaded("style.css#br").as_slice(), &mut decoded).unwrap();
    assert!(decoded == site.loaded("style.css") && decoded.starts_with(b".rule-0{order:0}"));
}

#[test]
fn a_mistake_is_told_with_its_file_line_and_column() {
    let check = |path: &str, text: &str, expected: &str| {
        let report = Site::new(RULES).with(path, text).pack().unwrap_err().to_string();
        assert!(report.starts_with(expected), "{report}");
    };
    check("a.css", "a { color: red }\nb { color red }", "a.css:2:10: minify-css: Unexpected token");
    check("a.html", "<p>\n<a href=\"", "a.html:2:10: minify-html: the file ends within a tag");
    check("a.toml", "a = 1\nb = ]", "a.toml:2:5: data: ");
    check("a.ron", "(a: 1,\n b: ])", "a.ron:2:5: data: ");
    check("binary/a.json", "{\n}}", "binary/a.json:2:2: data: trailing characters");
    check("binary/a.bin", "x", "binary/a.bin: data: its name does not end in .json, .toml or .ron; say `format`");
}

#[test]
fn a_parameter_that_cannot_be_is_refused_at_its_place() {
    let check = |name: &str, parameters: &str, place: &str, expected: &str| {
        let rules = format!("[[transform]]\nglob = '*'\nname = '{name}'\nparameters = {{ {parameters} }}\n");
        let refused = Site::new(&rules).pack().unwrap_err().to_string();
        assert!(refused.starts_with(place) && refused.contains(expected), "{refused}");
    };
    check("compress", "gzip_level = 12", "flyloft.toml:4:16: ", "'gzip_level' is 12; expected 1 to 9");
    check("compress", "coding = []", "flyloft.toml:4:16: ", "coding");
    check("minify-html", "keep_comments = 1", "flyloft.toml:4:", "bool");
    check("minify-css", "level = 1", "flyloft.toml:4:16: ", "level");
    check("data", "output = 'postcard'", "flyloft.toml:4:25: ", "messagepack");
    check("minify-text", "line_ends = 'cr'", "flyloft.toml:4:28: ", "crlf");
}

#[test]
fn a_tree_runs_no_program_unless_that_is_allowed() {
    let rules =
        "[[transform]]\nglob = '*.in'\nname = 'command'\nparameters = { argv = ['cp', '{input}', '{output}'] }\n";
    let refused = Site::new(rules).with("a.in", "x").pack().unwrap_err().to_string();
    assert!(refused.starts_with("flyloft.toml:") && refused.contains("--allow-commands"), "{refused}");
    let executor = tokio::runtime::Runtime::new().unwrap();
    let site = Site::new(rules).with("a.in", "x");
    let served = executor.block_on(site.tree.builder().start()).unwrap();
    let failures = served.status().failures;
    assert_eq!((failures.len(), failures[0].path.as_str()), (1, "flyloft.toml"), "{failures:?}");
    assert!(failures[0].cause.contains("--allow-commands"), "{failures:?}");
}

#[cfg(unix)]
#[test]
fn a_program_builds_assets_and_their_labels_and_is_run_again_when_what_it_reads_changes() {
    let rules = r#"
[[transform]]
glob = "*.in"
name = "command"
[transform.parameters]
argv = ["sh", "-c", "cat \"$1\" words/list.txt >\"$2\" && tr a-z A-Z <\"$1\" >\"$3/upper.txt\"", "sh", "{input}", "{output}", "{outputs}"]
reads = ["words/list.txt"]
"#;
    let site = Site::new(rules).with("a.in", "one\n").allowing_commands();
    let missing = site.pack().unwrap_err().to_string();
    assert!(missing.contains("it reads 'words/list.txt', which is not there"), "{missing}");
    let site = site.with("words/list.txt", "two\n");
    site.packed().unwrap();
    assert_eq!(site.texts(&["a.in", "a.in#upper.txt"]), ["one\ntwo\n", "ONE\n"]);
    assert!(site.packed().unwrap().unchanged);
    let site = site.with("words/list.txt", "three\n");
    assert!(!site.packed().unwrap().unchanged);
    assert_eq!(site.texts(&["a.in", "a.in#upper.txt"]), ["one\nthree\n", "ONE\n"]);
}

#[cfg(unix)]
#[test]
fn a_program_that_fails_leaves_the_last_good_version_and_heals_with_the_source() {
    let rules = "[[transform]]\nglob = '*.in'\nname = 'command'\n[transform.parameters]\n\
                 argv = ['sh', '-c', 'grep -v bad \"$1\" >\"$2\" || { echo a.in:3: bad word >&2; exit 1; }', \
                 'sh', '{input}', '{output}']\n";
    let site = Site::new(rules).with("a.in", "good\n");
    let executor = tokio::runtime::Runtime::new().unwrap();
    executor.block_on(common::within(async {
        let runtime = site.tree.builder().allow_commands(true).watch(true).start().await.unwrap();
        let mut events = runtime.events();
        assert_eq!(&*runtime.load("a.in").await.unwrap(), b"good\n");
        site.tree.replace("a.in", b"bad\n");
        let failure = loop {
            if let Some(Event::BuildFailed(failure)) = events.recv().await {
                break failure;
            }
        };
        assert_eq!((failure.path.as_str(), failure.line, failure.transform.as_str()), ("a.in", Some(3), "command"));
        assert!(failure.cause.contains("'sh' ended with exit status: 1: a.in:3: bad word"), "{}", failure.cause);
        assert_eq!(&*runtime.load("a.in").await.unwrap(), b"good\n");
        site.tree.replace("a.in", b"better\n");
        while !matches!(events.recv().await, Some(Event::Published(_))) {}
        assert_eq!(&*runtime.load("a.in").await.unwrap(), b"better\n");
    }));
}
