//! `flyloft serve`: a process that runs, is asked over TCP, and is stopped by a signal. Only where there are signals can
//! a test ask it to stop, so the rest of these tests is left out elsewhere.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::PATIENCE;
use crate::{command, flyloft, packed, stage, text};

/// A server that runs, and what it says.
pub struct Serving {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
    /// The line about the store.
    pub store: String,
}

impl Serving {
    /// A program that runs until it is stopped, with whatever it says still to be read.
    pub fn run(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, address: String::new(), store: String::new() }
    }

    pub fn start(arguments: &[&str]) -> Self {
        let mut serving = Self::run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let line = serving.line();
        let (_, address) = line.split_once("http://").unwrap_or_else(|| panic!("no address: {line}"));
        serving.address = address.trim_end_matches('/').to_owned();
        serving.store = serving.line();
        serving
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks it to stop and returns its status and what it still said.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Only one that a failed assertion left behind is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_folder_is_served_reloaded_and_stopped() {
    let tree = stage();
    tree.write("index.html", b"<link rel=stylesheet href=css/site.css>");
    tree.write("flyloft.toml", b"[[transform]]\nglob = 'data/*.json'\nname = 'minify-json'\n");
    tree.write("data/a.json", b"{ \"a\": 1 }");
    let (root, store) = (tree.root(), tree.store());
    let mut serving = Serving::start(&[text(&root), "--watch", "--store", text(&store), "--budget", "16MiB"]);
    assert!(serving.store.starts_with("store ") && serving.store.ends_with("/store"), "{}", serving.store);
    let answer = serving.get("/a/data/a.json");
    assert!(answer.ends_with("\r\n\r\n{\"a\":1}"), "{answer}");
    tree.replace("css/site.css", b"body { color: plum }\n");
    let line = serving.line();
    assert!(line.starts_with("generation 2: css/site.css in "), "{line}");
    assert!(serving.get("/a/css/site.css").contains("plum"));
    tree.replace("data/a.json", b"{ \"a\": ");
    let line = serving.line();
    assert!(
        line.starts_with("failed: data/a.json:1:7: minify-json: ") && line.ends_with("last good version is served")
    );
    assert!(serving.get("/a/data/a.json").ends_with("\r\n\r\n{\"a\":1}"));
    tree.replace("data/a.json", b"{ \"a\": 2 }");
    let lines = [serving.line(), serving.line()];
    assert!(lines.iter().any(|line| line == "healed: data/a.json builds again"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("generation 3: data/a.json in ")), "{lines:?}");
    assert!(serving.get("/a/data/a.json").ends_with("\r\n\r\n{\"a\":2}"));

    // Another program may not write the same store meanwhile.
    let other = flyloft(&["serve", text(&root), "--listen", "127.0.0.1:0", "--store", text(&store)]);
    other.refused(2, &["another process is writing it"]);
    assert_eq!(serving.stop("-TERM"), (Some(0), String::new()));
    // The next start finds what the last one built.
    let serving = Serving::start(&[text(&root), "--store", text(&store)]);
    assert!(serving.get("/status").contains("\"generation\":3"));
    assert_eq!(serving.stop("-INT"), (Some(0), String::new()));
}

#[cfg(unix)]
#[test]
fn a_bundle_is_served_as_it_is() {
    let tree = stage();
    let bundle = packed(&tree, "a.loft");
    let serving = Serving::start(&[text(&bundle)]);
    assert!(serving.store.starts_with("store none"), "{}", serving.store);
    assert!(serving.get("/a/css/site.css").contains("teal"));
    // A stream of events that is open does not keep it from stopping.
    let mut events = TcpStream::connect(&serving.address).unwrap();
    events.set_read_timeout(Some(PATIENCE)).unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 1];
    events.read_exact(&mut first).unwrap();
    assert_eq!(serving.stop("-TERM"), (Some(0), String::new()));
    flyloft(&["serve", text(&bundle), "--watch", "--listen", "127.0.0.1:0"]).refused(2, &["watch", "not watched"]);
    let store = ["serve", text(&bundle), "--store", "x", "--listen", "127.0.0.1:0"];
    flyloft(&store).refused(2, &["--store"]);
    let cache = ["serve", text(&bundle), "--action-cache", "x", "--listen", "127.0.0.1:0"];
    flyloft(&cache).refused(2, &["--action-cache"]);
}

#[test]
fn a_port_in_use_is_one_line_before_anything_is_built() {
    let tree = stage();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = flyloft(&["serve", text(&tree.root()), "--store", text(&tree.store()), "--listen", &address]);
    ran.refused(2, &[&address, "in use"]);
    assert!(!tree.store().exists());
    flyloft(&["serve", text(&tree.root()), "--listen", "nonsense"]).refused(2, &["nonsense", "127.0.0.1:7070"]);
    flyloft(&["serve", text(&tree.root()), "--listen", "127.0.0.1:0", "--budget", "4k"]).refused(2, &["budget"]);
}
