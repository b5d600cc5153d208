//! Starting on a tree that is as the store knows it, and what watching costs in memory: each in a process of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flyloft::Runtime;

use super::support::{count, head, median, row};
use super::tree::{Tree, path, pause, text};

/// Says that this process is such a child.
pub const CHILD: &str = "--child";

const STARTS: usize = 7;
/// Threads that have started and looks that follow the start are done by then.
const AT_REST: Duration = Duration::from_secs(4);

/// One process: `start`, `watched` or `served`, the tree's folder, the store.
pub fn child(args: &[String]) {
    let [what, root, store] = args else { panic!("a child is told what to do, a tree and a store") };
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let directory = || Runtime::builder().directory(root).store(store).watch(true);
    let builder = match what.as_str() {
        "served" => Runtime::builder().bundle(Path::new(store).join("tree.loft")),
        _ => directory(),
    };
    let began = Instant::now();
    let runtime = host.block_on(builder.start()).expect("it is served");
    let ready = began.elapsed();
    let first = host.block_on(runtime.load(path(0))).expect("the first file is there");
    let loaded = began.elapsed();
    println!("ready_us {}", ready.as_micros());
    println!("loaded_us {}", loaded.as_micros());
    println!("is_new {}", u32::from(*first == text(0, 1)[..]));
    if what != "start" {
        pause(AT_REST);
        for line in std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if let (Some(name @ ("VmRSS:" | "RssAnon:")), Some(kib)) = (words.next(), words.next()) {
                println!("{name} {kib}");
            }
        }
        return;
    }
    host.block_on(runtime.shutdown(Duration::from_secs(30)));
}

fn ask(what: &str, tree: &Tree) -> BTreeMap<String, f64> {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    let output = command.arg(CHILD).arg(what).arg(tree.root()).arg(tree.store()).output().expect("the child runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let values = text.lines().filter_map(|line| line.split_once(' '));
    values.map(|(name, value)| (name.to_owned(), value.trim().parse().expect("a number"))).collect()
}

/// Until the first load is answered, on trees of these sizes.
pub fn start(sizes: &[usize]) {
    println!("\nStarting, ms, median of {STARTS} processes\n");
    head(&["files", "first start", "ready", "first load answered", "ready when a file changed meanwhile", "it is new"]);
    for files in sizes {
        let tree = Tree::new(*files);
        // What was written a moment ago is read again by the start that follows.
        pause(Duration::from_millis(100));
        let first = ask("start", &tree)["ready_us"];
        let starts: Vec<_> = (0..STARTS).map(|_| ask("start", &tree)).collect();
        let of = |name: &str| median(starts.iter().map(|start| start[name]).collect());
        tree.write(&path(0), &text(0, 1), true);
        let changed = ask("start", &tree);
        let ms = |us: f64| format!("{:.0}", us / 1e3);
        row(&[
            count(*files as f64),
            ms(first),
            ms(of("ready_us")),
            ms(of("loaded_us")),
            ms(changed["ready_us"]),
            if changed["is_new"] > 0.0 { "yes" } else { "no" }.into(),
        ]);
    }
}

/// What a watched tree takes beyond the same bundle served unwatched.
pub fn memory(sizes: &[usize]) {
    println!(
        "\nMemory of a watched tree beyond that of its bundle served unwatched, {} s after the start\n",
        AT_REST.as_secs()
    );
    head(&["files", "watched, MiB", "bundle, MiB", "anonymous, bytes per file", "in all, bytes per file"]);
    for files in sizes {
        let tree = Tree::new(*files);
        ask("start", &tree);
        let (watched, served) = (ask("watched", &tree), ask("served", &tree));
        let more = |name: &str| count((watched[name] - served[name]) * 1024.0 / *files as f64);
        let mib = |values: &BTreeMap<String, f64>| format!("{:.1}", values["VmRSS:"] / 1024.0);
        row(&[count(*files as f64), mib(&watched), mib(&served), more("RssAnon:"), more("VmRSS:")]);
    }
}
