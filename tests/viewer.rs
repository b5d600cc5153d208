//! Viewers and places: what is near comes first, what lies ahead is there in time, and what the places say goes with the
//! tree.

mod common;

use common::{Tree, noise, within};
use flyloft::config::{ExpertsConfig, LaneDistances, PredictionConfig, RuntimeConfig, ScheduleConfig, SpatialConfig};
use flyloft::runtime::explain::Residency;
use flyloft::{AssetId, Error, Place, Priority, Runtime, ViewerState};

fn house(number: usize) -> String {
    format!("houses/{number:03}.bin")
}

/// Houses along a street, one each 10 m.
fn street(count: usize) -> Tree {
    let tree = Tree::new();
    for number in 0..count {
        tree.write(&house(number), &noise(number as u64 + 1, 2000));
    }
    tree
}

fn places(count: usize) -> Vec<(AssetId, Place)> {
    (0..count).map(|number| (AssetId::of_path(&house(number)), Place::at([number as f32 * 10.0, 0.0, 0.0]))).collect()
}

/// Nobody else guesses.
fn only_spatial() -> PredictionConfig {
    let experts = ExpertsConfig { spatial: true, ..ExpertsConfig::none() };
    PredictionConfig { experts, ..PredictionConfig::default() }
}

/// Runs other tasks until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn moving(x: f32, speed: f32) -> ViewerState {
    ViewerState { velocity: Some([speed, 0.0, 0.0]), direction: [1.0, 0.0, 0.0], ..ViewerState::at([x, 0.0, 0.0]) }
}

#[tokio::test]
async fn what_a_viewer_comes_to_is_resident_before_it_is_there() {
    let tree = street(60);
    let config = SpatialConfig { reach_m: 25.0, ..SpatialConfig::default() };
    let prediction = only_spatial();
    let config = RuntimeConfig { spatial: config, prediction, store: Some(tree.store()), ..RuntimeConfig::default() };
    let runtime = tree.builder().config(config).start().await.unwrap();
    runtime.set_places(places(60)).unwrap();
    let mut viewer = runtime.viewer();
    drop(within(runtime.load(house(0))).await.unwrap());
    for at in 0..50 {
        within(async {
            // Frames use what is in sight, and nobody asks for the next one.
            while runtime.get(house(at + 1)).is_none() {
                viewer.update(moving(at as f32 * 10.0, 10.0)).unwrap();
                assert!((at.saturating_sub(1)..=at).all(|seen| runtime.get(house(seen)).is_some()), "house {at}");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(runtime.stats().metrics.misses, 1, "the first one");
    assert!(runtime.get(house(59)).is_none(), "nobody comes near to the last one");
}

#[tokio::test]
async fn levels_of_detail_are_asked_for_by_distance() {
    let tree = Tree::new();
    for (name, seed) in [("tower.bin", 1), ("tower-middle.bin", 2), ("tower-far.bin", 3)] {
        tree.write(name, &noise(seed, 4000));
    }
    let runtime = tree.builder().start().await.unwrap();
    let tower = Place::at([90.0, 0.0, 0.0]).level(20.0, "tower-middle.bin").level(60.0, "tower-far.bin");
    runtime.set_places([("tower.bin", tower)]).unwrap();
    let mut viewer = runtime.viewer();
    viewer.update(ViewerState::at([0.0; 3])).unwrap();
    until(|| runtime.get("tower-far.bin").is_some()).await;
    assert!(runtime.get("tower-middle.bin").is_none() && runtime.get("tower.bin").is_none());
    viewer.update(moving(50.0, 0.0)).unwrap();
    until(|| runtime.get("tower-middle.bin").is_some()).await;
    assert!(runtime.get("tower.bin").is_none());
    viewer.update(moving(80.0, 0.0)).unwrap();
    until(|| runtime.get("tower.bin").is_some()).await;
    assert_eq!(runtime.distance("tower-far.bin"), Some(10.0));
}

async fn lane(runtime: &Runtime, path: &str) -> Priority {
    match within(runtime.explain(path)).await.unwrap().residency.unwrap() {
        Residency::Queued { priority, .. } => priority,
        other => panic!("{path} is {other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_names_no_priority_changes_its_lane_as_the_viewer_moves() {
    let tree = Tree::new();
    tree.write("held.bin", &noise(1, 3 << 20));
    tree.write("waits.bin", &noise(2, 2 << 20));
    ["near.bin", "far.bin", "named.bin", "nowhere.bin"].iter().zip(3..).for_each(|(name, seed)| {
        tree.write(name, &noise(seed, 1000));
    });
    let config = RuntimeConfig {
        budget_bytes: 8 << 20,
        spatial: SpatialConfig { enabled: false, ..SpatialConfig::default() },
        ..RuntimeConfig::default()
    };
    let runtime = tree.builder().config(RuntimeConfig { store: Some(tree.store()), ..config }).start().await.unwrap();
    let place = |x: f32| Place::at([x, 0.0, 0.0]);
    runtime.set_places([("near.bin", place(0.0)), ("far.bin", place(1000.0)), ("named.bin", place(0.0))]).unwrap();
    let mut viewer = runtime.viewer();
    viewer.update(ViewerState::at([5.0, 0.0, 0.0])).unwrap();

    // What is held leaves no memory for the next, and what comes behind that stays in the lanes.
    let held = within(runtime.load("held.bin")).await.unwrap();
    let waits = runtime.request("waits.bin").priority(Priority::Critical).send();
    until(|| runtime.stats().metrics.memory_waits > 0).await;
    let loads = [runtime.load("near.bin"), runtime.load("far.bin"), runtime.load("nowhere.bin")];
    let named = runtime.request("named.bin").priority(Priority::High).send();
    assert_eq!(lane(&runtime, "near.bin").await, Priority::Critical);
    assert_eq!(lane(&runtime, "far.bin").await, Priority::Low);
    assert_eq!(lane(&runtime, "nowhere.bin").await, Priority::Medium);
    viewer.update(ViewerState::at([960.0, 0.0, 0.0])).unwrap();
    within(async {
        while lane(&runtime, "near.bin").await != Priority::Low || lane(&runtime, "far.bin").await != Priority::High {
            viewer.update(ViewerState::at([960.0, 0.0, 0.0])).unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(lane(&runtime, "named.bin").await, Priority::High, "somebody named it");
    assert_eq!(lane(&runtime, "nowhere.bin").await, Priority::Medium);
    assert!(runtime.stats().metrics.rescorings > 0);
    drop(held);
    for load in loads.into_iter().chain([named, waits]) {
        within(load).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_name_and_changes_nothing() {
    let tree = street(2);
    let refused = |error: Error, field: &str| assert!(error.to_string().starts_with(field), "{error}");
    let weights = flyloft::config::Weights { size: f32::NAN, ..Default::default() };
    let schedule = ScheduleConfig { weights, ..ScheduleConfig::default() };
    refused(tree.builder().schedule(schedule).start().await.err().unwrap(), "schedule.weights.size");
    let distances = LaneDistances { high_m: 1.0, ..LaneDistances::default() };
    let schedule = ScheduleConfig { distances, ..ScheduleConfig::default() };
    refused(tree.builder().schedule(schedule).start().await.err().unwrap(), "schedule.distances.high_m");

    let runtime = tree.builder().start().await.unwrap();
    runtime.set_places(places(2)).unwrap();
    let mut viewer = runtime.viewer();
    viewer.update(ViewerState::at([0.0; 3])).unwrap();
    refused(runtime.set_places([("x", Place::at([f32::NAN; 3]))]).unwrap_err(), "place.at");
    refused(viewer.update(ViewerState::at([f32::INFINITY; 3])).unwrap_err(), "viewer.position");
    assert_eq!(runtime.distance(&*house(1)), Some(10.0));
    drop(viewer);
    assert_eq!(runtime.distance(&*house(1)), None);
}

#[tokio::test]
async fn a_dispatcher_and_a_predictor_that_were_killed_go_on_with_the_viewers_there_are() {
    let tree = street(20);
    let config = SpatialConfig { reach_m: 15.0, ..SpatialConfig::default() };
    let runtime = tree.builder().spatial(config).start().await.unwrap();
    runtime.set_places(places(20)).unwrap();
    let mut viewer = runtime.viewer();
    for (round, actor) in ["predictor", "io_dispatcher", "predictor"].into_iter().enumerate() {
        until(|| runtime.kill(actor).is_ok()).await;
        let at = 4 * round;
        within(async {
            while runtime.get(house(at)).is_none() {
                viewer.update(moving(at as f32 * 10.0, 0.0)).unwrap();
                // What is used again and again is seen to be used.
                (0..at).for_each(|before| drop(runtime.get(house(before))));
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A tree whose flyloft.toml puts `a.bin` there.
fn placed(x: u32) -> String {
    format!(
        "[places]\n\"a.bin\" = {{ at = [{x}, 0, 0] }}\n\"b.bin\" = [{{ at = [0, {x}, 0] }}, {{ at = [0, 0, 5] }}]\n"
    )
}

fn tree_with_places() -> Tree {
    let tree = Tree::new();
    tree.write("a.bin", &noise(1, 1000));
    tree.write("b.bin", &noise(2, 1000));
    tree.write("flyloft.toml", placed(10).as_bytes());
    tree
}

#[tokio::test]
async fn a_bundle_knows_the_places_without_its_tree() {
    let tree = tree_with_places();
    let runtime = Runtime::builder().bundle(tree.packed()).start().await.unwrap();
    let mut viewer = runtime.viewer();
    viewer.update(ViewerState::at([0.0; 3])).unwrap();
    assert_eq!((runtime.distance("a.bin"), runtime.distance("b.bin")), (Some(10.0), Some(5.0)));
    until(|| runtime.get("a.bin").is_some() && runtime.get("b.bin").is_some()).await;
    runtime.set_places([("a.bin", Place::at([3.0, 0.0, 0.0]))]).unwrap();
    assert_eq!((runtime.distance("a.bin"), runtime.distance("b.bin")), (Some(3.0), Some(5.0)), "b's are the bundle's");
}

#[test]
fn a_bundle_of_the_same_tree_has_the_same_bytes_and_its_places_survive_a_compaction() {
    use flyloft::build::{NoProgress, compact};
    use flyloft::bundle::Bundle;
    use flyloft::platform::fs::{FileSystem, OsFileSystem};

    let tree = tree_with_places();
    let file = tree.packed();
    let again = tree.outside("again.loft");
    common::pack(&tree.root(), &again);
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap());
    let open = || Bundle::open(OsFileSystem.open(&file).unwrap(), true).unwrap();
    let before = open();
    assert_eq!(before.places().unwrap().len(), 3);
    compact(std::sync::Arc::new(OsFileSystem), &file, &NoProgress).unwrap();
    assert_eq!(open().places().unwrap(), before.places().unwrap());
    open().verify(&mut |finding| panic!("{finding:?}")).unwrap();
    // A tree that says nothing of places any more has none.
    tree.remove("flyloft.toml");
    common::pack(&tree.root(), &file);
    assert!(open().places().unwrap().is_empty());
}

#[tokio::test]
async fn changed_places_come_with_their_generation_and_go_with_a_rollback() {
    let tree = tree_with_places();
    let runtime = tree.builder().watch(true).retain_generations(4).start().await.unwrap();
    let mut viewer = runtime.viewer();
    viewer.update(ViewerState::at([0.0; 3])).unwrap();
    let first = runtime.snapshot().generation();
    assert_eq!(runtime.distance("a.bin"), Some(10.0));
    tree.replace("flyloft.toml", placed(20).as_bytes());
    until(|| runtime.distance("a.bin") == Some(20.0)).await;
    assert!(runtime.snapshot().generation() > first);
    // What cannot be read keeps the last good places.
    tree.replace("flyloft.toml", b"[places]\n\"a.bin\" = { at = [1, 2] }\n");
    until(|| !runtime.status().failures.is_empty()).await;
    let failure = runtime.status().failures[0].clone();
    assert_eq!((failure.path.as_str(), failure.line, failure.column), ("flyloft.toml", Some(2), Some(18)));
    assert_eq!(runtime.distance("a.bin"), Some(20.0));
    within(runtime.rollback(first)).await.unwrap();
    until(|| runtime.distance("a.bin") == Some(10.0)).await;
    tree.replace("flyloft.toml", placed(30).as_bytes());
    until(|| runtime.distance("a.bin") == Some(30.0)).await;
}
