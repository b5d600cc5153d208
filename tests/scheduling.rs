//! Who reads first, and how much: priorities, bandwidth, frames, and what is counted of them.

mod common;

use common::{Tree, noise, within};
use flyloft::config::{BandwidthConfig, RuntimeConfig};
use flyloft::policy::schedule::Hints;
use flyloft::{Error, Load, Priority, Runtime};
use std::time::Duration;

const SIZE: usize = 128 << 10;

fn path(number: u64) -> String {
    format!("large/{number}.bin")
}

fn tree(count: u64, len: usize) -> Tree {
    let tree = Tree::new();
    (0..count).for_each(|number| tree.write(&path(number), &noise(number, len)));
    tree
}

/// Low loads have a tenth of this: 100 kB in a second, and a burst of one asset.
fn slow() -> BandwidthConfig {
    BandwidthConfig { bytes_per_second: Some(1_000_000), ..BandwidthConfig::default() }
}

async fn start(tree: &Tree, bandwidth: BandwidthConfig) -> Runtime {
    let config = RuntimeConfig { prefetch_dependencies: false, ..RuntimeConfig::default() };
    Runtime::builder().bundle(tree.packed()).config(config).bandwidth(bandwidth).start().await.unwrap()
}

fn low(runtime: &Runtime, number: u64) -> Load {
    runtime.request(path(number)).priority(Priority::Low).send()
}

/// Returns when so much waits at low priority.
async fn queued(runtime: &Runtime, is_enough: impl Fn(u64) -> bool) {
    let look = async {
        while !is_enough(runtime.stats().metrics.by_priority[&Priority::Low].queued) {
            tokio::task::yield_now().await;
        }
    };
    within(look).await;
}

#[tokio::test]
async fn a_load_that_is_held_back_goes_at_once_when_somebody_urgent_asks_for_it() {
    let tree = tree(12, SIZE);
    let runtime = start(&tree, slow()).await;
    let mut patient: Vec<Load> = (0..12).map(|number| low(&runtime, number)).collect();
    queued(&runtime, |queued| queued >= 8).await;
    // One that is planned already, and behind all others.
    let urgent = runtime.request(path(11)).priority(Priority::Critical).send();
    let asset = within(urgent).await.unwrap();
    assert_eq!(&*asset, noise(11, SIZE));
    let last = patient.pop().unwrap();
    assert_eq!(within(last).await.unwrap().hash(), asset.hash(), "who waited patiently has it too");
    let stats = runtime.stats();
    assert!(stats.ledger.open >= 4, "the others still wait: {:?}", stats.ledger);
    assert_eq!(stats.metrics.by_priority[&Priority::Critical].completions, 1);
    assert!(stats.metrics.by_priority[&Priority::Critical].load_latency.count >= 1);
}

#[tokio::test]
async fn planned_reads_that_nobody_waits_for_are_dropped() {
    let tree = tree(12, SIZE);
    let runtime = start(&tree, slow()).await;
    let loads: Vec<Load> = (0..12).map(|number| low(&runtime, number)).collect();
    queued(&runtime, |queued| queued >= 8).await;
    drop(loads);
    queued(&runtime, |queued| queued == 0).await;
    let stats = runtime.stats();
    assert!(stats.metrics.reads_dropped >= 8, "{}", stats.metrics.reads_dropped);
    assert!(stats.metrics.reads < 4, "{} of 12 were read", stats.metrics.reads);
    assert_eq!(stats.ledger.open, 0);
}

#[tokio::test]
async fn a_bandwidth_holds_back_by_share_and_is_lifted_while_it_runs() {
    let tree = tree(12, SIZE);
    let runtime = start(&tree, slow()).await;
    let loads: Vec<Load> = (0..12).map(|number| low(&runtime, number)).collect();
    queued(&runtime, |queued| queued >= 8).await;
    let refused = BandwidthConfig { bytes_per_second: Some(1), ..slow() };
    let error = runtime.set_bandwidth(refused).unwrap_err();
    assert!(matches!(&error, Error::Config { field, .. } if field == "bandwidth.bytes_per_second"), "{error}");
    let before = runtime.stats().bandwidth;
    assert_eq!(before.bytes_per_second, Some(1_000_000));
    assert!(before.sent_bytes[&Priority::Low] <= 4 * SIZE as u64, "{before:?}");
    runtime.set_bandwidth(BandwidthConfig::default()).unwrap();
    for (number, load) in loads.into_iter().enumerate() {
        assert_eq!(&*within(load).await.unwrap(), noise(number as u64, SIZE));
    }
    let after = runtime.stats().bandwidth;
    assert_eq!((after.bytes_per_second, after.sent_bytes[&Priority::Low]), (None, 12 * SIZE as u64));
    assert!(after.throttled_us > 0);
}

#[tokio::test]
async fn a_slow_frame_lowers_an_adaptive_bandwidth() {
    let tree = tree(1, 10);
    let runtime = start(&tree, BandwidthConfig { adaptive: true, ..BandwidthConfig::default() }).await;
    assert_eq!(runtime.stats().bandwidth.bytes_per_second, Some(1_000_000_000));
    runtime.frame(Duration::from_secs(2));
    assert_eq!(runtime.stats().bandwidth.bytes_per_second, Some(700_000_000));
}

#[tokio::test]
async fn reads_of_low_priority_are_small_and_those_of_others_large() {
    let tree = tree(8, 1 << 20);
    for (priority, most) in [(Priority::Low, 128 << 10), (Priority::Medium, 1 << 20)] {
        let runtime = start(&tree, BandwidthConfig::default()).await;
        for number in 0..8 {
            let load = runtime.request(path(number)).priority(priority).send();
            assert_eq!(within(load).await.unwrap().len(), 1 << 20);
        }
        let lane = &runtime.stats().metrics.by_priority[&priority];
        assert_eq!((lane.read_bytes, lane.reads), (8 << 20, (8 << 20) / most), "{}", priority.name());
        assert_eq!(lane.queue_latency.count, lane.reads);
        assert_eq!(lane.completions, 8);
    }
}

#[tokio::test]
async fn within_a_priority_the_nearest_goes_first() {
    let tree = tree(12, SIZE);
    let runtime = start(&tree, slow()).await;
    // What keeps the others waiting until all of them are there.
    let first: Vec<Load> = (0..4).map(|number| low(&runtime, number)).collect();
    queued(&runtime, |queued| queued >= 2).await;
    let ask = |(number, distance): (u64, f32)| {
        let hints = Hints { distance_m: Some(distance), ..Hints::default() };
        runtime.request(path(number)).priority(Priority::Low).hints(hints).send()
    };
    let far: Vec<Load> = (4..11).map(|number| ask((number, 1000.0))).collect();
    let near = ask((11, 1.0));
    queued(&runtime, |queued| queued >= 8).await;
    drop(first);
    assert_eq!(&*within(near).await.unwrap(), noise(11, SIZE));
    let open = runtime.stats().ledger.open;
    assert!(open >= 6, "{open} of the far ones still wait");
    drop(far);
}
