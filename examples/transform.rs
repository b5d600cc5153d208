//! A program's own transform: with parameters of its own type, chosen by a rule of flyloft.toml, and run again when
//! what it read changes.
//!
//!     cargo run --example transform                  then edit the files whose folder it prints
//!     cargo run --example transform -- --once        builds once, edits once, and exits
//!
//! The transform fills templates: `{{name}}` in a page becomes the line `name = ...` of a file of words.

use std::path::Path;
use std::time::Duration;

use flyloft::build::transform::{Context, Input, Output, Transform};
use flyloft::{AssetPath, Event, Runtime};
use serde::Deserialize;

/// The transform. It holds nothing: what it depends on comes in through its arguments.
struct Fill;

/// What a rule may say. A parameter that is not here is an error at its line and column of flyloft.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FillParameters {
    /// The file of words.
    words: AssetPath,
    /// What stands for a word that is missing; without it that is an error.
    #[serde(default)]
    missing: Option<String>,
}

impl Transform for Fill {
    type Parameters = FillParameters;

    fn name(&self) -> &str {
        "fill"
    }

    /// To be raised with every change of what it makes: pages that an older version made are then built again.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, parameters: &FillParameters) -> Result<(), String> {
        match &parameters.missing {
            Some(missing) if missing.contains("{{") => Err("'missing' contains {{; expected plain text".into()),
            _ => Ok(()),
        }
    }

    fn run(&self, input: Input<'_>, parameters: &FillParameters, context: &mut dyn Context) -> flyloft::Result<Output> {
        let text = String::from_utf8_lossy(input.bytes);
        // Read through the context: that makes the page depend on it, also while it is not there.
        let words = context.read(&parameters.words).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let word = |name: &str| words.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        let mut filled = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut rest = line;
            while let Some((before, (name, after))) =
                rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
            {
                filled.push_str(before);
                match word(name.trim()).map(str::trim).or(parameters.missing.as_deref()) {
                    Some(word) => filled.push_str(word),
                    None => return Err(input.error(self.name(), Some(number), format!("no word is named '{name}'"))),
                }
                rest = after;
            }
            filled.push_str(rest);
            filled.push('\n');
        }
        Ok(filled.into_bytes().into())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let once = std::env::args().any(|argument| argument == "--once");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/flyloft/transform"));
    let (tree, store) = (root.join("tree"), root.join("store"));
    std::fs::create_dir_all(&tree)?;
    let rules = "[[transform]]\nglob = '*.page'\nname = 'fill'\nparameters = { words = 'words.txt' }\n";
    std::fs::write(tree.join("flyloft.toml"), rules)?;
    std::fs::write(tree.join("words.txt"), "who = the audience\n")?;
    std::fs::write(tree.join("welcome.page"), "Welcome, {{who}}!\n")?;

    let runtime = Runtime::builder().directory(&tree).store(&store).transform(Fill).watch(true).start().await?;
    let mut events = runtime.events();
    show(&runtime).await?;
    println!("edit the files in {}", tree.display());
    if once {
        std::fs::write(tree.join("words.txt"), "who = dear guests\n")?;
    }
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        match event {
            Some(Event::Published(_)) => {
                show(&runtime).await?;
                if once {
                    break;
                }
            }
            Some(Event::BuildFailed(failure)) => println!("does not build: {}: {}", failure.path, failure.cause),
            Some(_) => {}
            None => break,
        }
    }
    runtime.shutdown(Duration::from_secs(5)).await.committed?;
    Ok(())
}

async fn show(runtime: &Runtime) -> flyloft::Result<()> {
    let page = runtime.load("welcome.page").await?;
    print!("generation {}: {}", runtime.snapshot().generation(), String::from_utf8_lossy(&page));
    Ok(())
}
