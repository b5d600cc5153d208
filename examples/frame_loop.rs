//! A loop at 60 frames a second that never waits: each frame asks for what it needs by priority, draws what has come,
//! and drops what is no longer wanted.
//!
//!     cargo run --release --example frame_loop              until Ctrl-C, a line per second
//!     cargo run --release --example frame_loop -- --once    60 frames
//!
//! There is no async executor here. A load is a future of no particular executor, so a frame can poll it once and go on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flyloft::bundle::AssetRecord;
use flyloft::{Asset, Load, Priority, Runtime};

const FRAME: Duration = Duration::from_micros(16_667);
/// Assets in sight in one frame, and those about to be.
const SEEN: usize = 6;
const SOON: usize = 4;

/// What the loop has and what it waits for.
#[derive(Default)]
struct Scene {
    /// Held, and so never evicted, for as long as they are in sight.
    drawn: BTreeMap<String, Asset>,
    waiting: BTreeMap<String, Load>,
    late: u64,
    dropped: u64,
}

fn main() -> flyloft::Result<()> {
    let once = std::env::args().any(|argument| argument == "--once");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets");
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/target/flyloft/frame_loop");
    let runtime = Runtime::builder().directory(root).store(store).budget_bytes(64 << 20).start_blocking()?;

    // The stage: every asset in a row, and a camera that moves along it.
    let snapshot = runtime.snapshot();
    let row: Vec<AssetRecord> = snapshot.bundle().assets().collect::<flyloft::Result<_>>()?;
    drop(snapshot);

    let mut scene = Scene::default();
    let mut next_frame = Instant::now();
    for frame in 0usize.. {
        if once && frame == 60 {
            break;
        }
        let at = |offset: usize| row[(frame / 4 + offset) % row.len()].path.as_str();
        scene.forget(|path| (0..SEEN + SOON).any(|offset| at(offset) == path));
        for offset in 0..SEEN {
            scene.want(&runtime, at(offset), Priority::Critical);
        }
        for offset in SEEN..SEEN + SOON {
            scene.want(&runtime, at(offset), Priority::High);
        }
        // What comes later still is a wish: nobody waits for it.
        runtime.prefetch((SEEN + SOON..SEEN + 2 * SOON).map(at));

        scene.poll();
        let complete = (0..SEEN).filter(|offset| scene.drawn.contains_key(at(*offset))).count();
        if frame % 60 == 59 {
            let Scene { late, dropped, .. } = scene;
            println!(
                "frame {frame}: {complete} of {SEEN} in sight are drawn, {late} came late, {dropped} were dropped"
            );
        }
        next_frame += FRAME;
        while let Some(left) = next_frame.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    let stats = runtime.stats();
    let (hits, misses) = (stats.metrics.hits, stats.metrics.misses);
    println!("{hits} hits, {misses} misses, at most {} KiB charged", stats.budget.peak >> 10);
    Ok(())
}

impl Scene {
    /// Asks for an asset, unless it is here or on its way. What is resident is here at once.
    fn want(&mut self, runtime: &Runtime, path: &str, priority: Priority) {
        if self.drawn.contains_key(path) || self.waiting.contains_key(path) {
            return;
        }
        match runtime.get(path) {
            Some(asset) => drop(self.drawn.insert(path.to_owned(), asset)),
            // Two frames later it is of no use: then it is answered with an error, and asked for again if need be.
            None => {
                let load = runtime.request(path).priority(priority).deadline(2 * FRAME).send();
                self.waiting.insert(path.to_owned(), load);
            }
        }
    }

    /// Lets go of what is out of sight. A load that is dropped leaves the queue.
    fn forget(&mut self, wanted: impl Fn(&str) -> bool) {
        self.drawn.retain(|path, _| wanted(path));
        let before = self.waiting.len();
        self.waiting.retain(|path, _| wanted(path));
        self.dropped += (before - self.waiting.len()) as u64;
    }

    /// Takes what has come, without waiting for the rest.
    fn poll(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let drawn = &mut self.drawn;
        let late = &mut self.late;
        self.waiting.retain(|path, load| match Pin::new(load).poll(&mut context) {
            Poll::Pending => true,
            Poll::Ready(Ok(asset)) => {
                drawn.insert(path.clone(), asset);
                false
            }
            Poll::Ready(Err(_)) => {
                *late += 1;
                false
            }
        });
    }
}
