//! From a finished write to new bytes in a reader's hands, beside a bare notify loop and Bevy's asset server in the same
//! run; ten thousand files changed at once; starting on an unchanged tree; what a watched file costs in memory.
//!
//! ```sh
//! scripts/reload.sh                # builds benches/peers with Bevy's asset server, then runs all of it
//! cargo bench --bench reload -- [edits|many|start|memory]... [--files 1000,50000,100000] [--edits 2000] [--blocks 10]
//!     [--pause 20] [--bevy PROGRAM] [--bevy-edits 60]
//! ```
//! Trees are made in the temporary folder: folders of 100 files of 1 to 20 KiB of text. Edits come one at a time, in
//! place (truncate, write, close) and by a rename from outside in turn, each after a pause of half to one and a half
//! times `--pause` milliseconds since the last one was seen. Every block runs every subject on every tree after the
//! other, nobody else being alive meanwhile, so that what the machine does besides meets all of them alike.
#![cfg(unix)]

#[path = "reload/edits.rs"]
mod edits;
#[path = "reload/many.rs"]
mod many;
#[path = "reload/start.rs"]
mod start;
mod support;
#[path = "reload/tree.rs"]
mod tree;

use std::path::PathBuf;
use std::time::Duration;

/// What was asked for on the command line.
pub struct Options {
    pub parts: Vec<String>,
    pub files: Vec<usize>,
    pub edits: usize,
    pub blocks: usize,
    pub pause: Duration,
    pub bevy: Option<PathBuf>,
    pub bevy_edits: usize,
}

const PARTS: [&str; 4] = ["edits", "many", "start", "memory"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, rest @ ..] = &args[..]
        && flag == start::CHILD
    {
        return start::child(rest);
    }
    let options = Options::parse(&args);
    let on = |part: &str| options.parts.iter().any(|asked| asked == part);
    if on("edits") {
        edits::run(&options);
    }
    if on("many") {
        many::run();
    }
    if on("start") {
        start::start(&options.files);
    }
    if on("memory") {
        start::memory(&options.files);
    }
}

impl Options {
    fn parse(args: &[String]) -> Self {
        let mut options = Self {
            parts: Vec::new(),
            files: vec![1_000, 50_000, 100_000],
            edits: 2_000,
            blocks: 10,
            pause: Duration::from_millis(20),
            bevy: None,
            bevy_edits: 60,
        };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let mut value = || rest.next().unwrap_or_else(|| panic!("{arg} wants a value")).as_str();
            let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{text} is no number"));
            match arg.as_str() {
                // Cargo says so to every bench.
                "--bench" => {}
                "--files" => options.files = value().split(',').map(number).collect(),
                "--edits" => options.edits = number(value()),
                "--blocks" => options.blocks = number(value()).max(1),
                "--pause" => options.pause = Duration::from_millis(number(value()) as u64),
                "--bevy" => options.bevy = Some(value().into()),
                "--bevy-edits" => options.bevy_edits = number(value()),
                part if PARTS.contains(&part) => options.parts.push(part.to_owned()),
                other => {
                    panic!("{other}? There are {PARTS:?}, --files, --edits, --blocks, --pause, --bevy, --bevy-edits")
                }
            }
        }
        if options.parts.is_empty() {
            options.parts = PARTS.map(str::to_owned).to_vec();
        }
        options
    }
}
