//! What is asked for, and the parts of the bench one after the other.

#[path = "edits.rs"]
mod edits;
#[path = "many.rs"]
mod many;
#[path = "start.rs"]
mod start;
#[path = "../support/mod.rs"]
mod support;
#[path = "tree.rs"]
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

pub fn main() {
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
