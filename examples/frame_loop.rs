//! A loop at 60 frames a second that never waits: each frame tells where the camera is, asks for what is in sight, draws
//! what has come, and drops what is out of sight.
//!
//!     cargo run --release --example frame_loop              until Ctrl-C, a line per second
//!     cargo run --release --example frame_loop -- --once    60 frames, then 60 without asking ahead
//!
//! Every asset has a place along a street. No request names a priority: what is nearest comes first, and what the
//! camera comes to is there before it is asked for. Frames that come late slow down what is read in the background.
//! There is no async executor here. A load is a future of no particular executor, so a frame can poll it once and go on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flyloft::config::{BandwidthConfig, SpatialConfig};
use flyloft::{Asset, Load, Place, Runtime, ViewerState};

const FRAME: Duration = Duration::from_micros(16_667);
/// Metres between two assets, that the camera moves in a frame, and that it sees.
const APART: f32 = 10.0;
const SPEED: f32 = 2.0;
const SIGHT: f32 = 40.0;

/// What the loop has and what it waits for.
#[derive(Default)]
struct Scene {
    /// Held, and so never evicted, for as long as they are in sight.
    drawn: BTreeMap<String, Asset>,
    waiting: BTreeMap<String, Load>,
    /// Asked for when they came into sight: those that were there, and those that were not.
    there: u64,
    missing: u64,
    late: u64,
    dropped: u64,
}

fn main() -> flyloft::Result<()> {
    if std::env::args().any(|argument| argument == "--once") {
        walk(true, 60)?;
        walk(false, 60)
    } else {
        walk(true, usize::MAX)
    }
}

/// Walks along the street for so many frames, with or without asking ahead, in a runtime that holds nothing yet.
fn walk(ahead: bool, frames: usize) -> flyloft::Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets");
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/target/flyloft/frame_loop");
    let spatial = SpatialConfig { enabled: ahead, reach_m: SIGHT, ..SpatialConfig::default() };
    let bandwidth = BandwidthConfig { adaptive: true, ..BandwidthConfig::default() };
    let builder = Runtime::builder().directory(root).store(store).budget_bytes(64 << 20);
    let runtime = builder.spatial(spatial).bandwidth(bandwidth).start_blocking()?;

    // The street: every asset in a row, over and over.
    let snapshot = runtime.snapshot();
    let row: Vec<String> =
        snapshot.bundle().assets().map(|asset| Ok(asset?.path.to_string())).collect::<flyloft::Result<_>>()?;
    drop(snapshot);
    let houses = 10_000;
    let at = |house: usize| [house as f32 * APART, 0.0, 0.0];
    let path = |house: usize| row[house % row.len()].as_str();
    runtime.set_places((0..houses).map(|house| (path(house), Place::at(at(house)))))?;

    let mut camera = runtime.viewer();
    let mut scene = Scene::default();
    let mut next_frame = Instant::now();
    let mut last = next_frame;
    for frame in 0..frames {
        // What is read in the background takes less where frames come late.
        let now = Instant::now();
        runtime.frame(now - last);
        last = now;
        let x = frame as f32 * SPEED % (houses as f32 * APART);
        camera.update(ViewerState { direction: [1.0, 0.0, 0.0], ..ViewerState::at([x, 0.0, 0.0]) })?;
        let first = (x / APART).ceil() as usize;
        let seen = || (first..houses).take_while(|house| at(*house)[0] - x <= SIGHT).map(path);
        scene.forget(|path| seen().any(|seen| seen == path));
        for path in seen() {
            scene.want(&runtime, path);
        }
        scene.poll();
        if frame % 60 == 59 {
            let (in_sight, drawn) = (seen().count(), seen().filter(|path| scene.drawn.contains_key(*path)).count());
            let Scene { there, missing, late, dropped, .. } = scene;
            let share = 100.0 * there as f64 / (there + missing).max(1) as f64;
            println!(
                "frame {frame}, {}: {drawn} of {in_sight} in sight are drawn; of {} that came into sight {share:.0} % were \
                 there, {late} came late, {dropped} were dropped",
                if ahead { "asking ahead" } else { "not asking ahead" },
                there + missing,
            );
        }
        next_frame += FRAME;
        while let Some(left) = next_frame.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    let stats = runtime.stats();
    let (hits, misses, ahead) = (stats.metrics.hits, stats.metrics.misses, stats.metrics.prefetches);
    println!("{hits} hits, {misses} misses, {ahead} asked ahead, at most {} KiB charged", stats.budget.peak >> 10);
    Ok(())
}

impl Scene {
    /// Asks for an asset, unless it is here or on its way. What is resident is here at once.
    fn want(&mut self, runtime: &Runtime, path: &str) {
        if self.drawn.contains_key(path) || self.waiting.contains_key(path) {
            return;
        }
        match runtime.get(path) {
            Some(asset) => {
                self.there += 1;
                self.drawn.insert(path.to_owned(), asset);
            }
            // Two frames later it is of no use: then it is answered with an error, and asked for again if need be.
            None => {
                self.missing += 1;
                let load = runtime.request(path).deadline(2 * FRAME).send();
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
