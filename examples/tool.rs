//! A tool beside a tree: it starts a runtime, watches, and prints what happens.
//!
//!     cargo run --example tool                       then edit something under examples/assets
//!     cargo run --example tool -- path/to/tree       another tree
//!     cargo run --example tool -- --once             prints one event and exits
//!
//! Flyloft needs no particular executor. This one belongs to the tool.

use std::time::Duration;

use flyloft::{Event, Runtime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> flyloft::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = arguments.iter().any(|argument| argument == "--once");
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets");
    let root = arguments.iter().find(|argument| !argument.starts_with("--")).map_or(examples, String::as_str);
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/target/flyloft/tool");

    let runtime = Runtime::builder().directory(root).store(store).watch(true).start().await?;
    let mut events = runtime.events();
    let status = runtime.status();
    println!("{}: {} assets, generation {}", status.source, status.assets, status.generation);
    for failure in status.failures {
        println!("does not build: {}: {}", failure.path, failure.cause);
    }
    if once {
        // Nobody edits anything during a test. A drill makes an event: the predictor is killed, and is started again.
        runtime.kill("predictor")?;
    }

    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = event else { break };
        print(&event);
        if once {
            break;
        }
    }
    // Open requests get their answers, and what was built last is on disk.
    let report = runtime.shutdown(Duration::from_secs(5)).await;
    report.committed
}

fn print(event: &Event) {
    match event {
        Event::Published(published) => {
            let timings = published.timings;
            let us = timings.total_us();
            println!("generation {} after {us} µs", published.generation);
            for change in &published.changed {
                let what = match (&change.old, &change.new) {
                    (None, _) => "new",
                    (_, None) => "gone",
                    _ => "changed",
                };
                println!("  {what:8}{}", change.path);
            }
        }
        Event::BuildFailed(failure) => println!("does not build: {}: {}", failure.path, failure.cause),
        Event::Healed { path } => println!("builds again: {path}"),
        other => println!("{other:?}"),
    }
}
