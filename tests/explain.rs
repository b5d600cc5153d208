//! `Runtime::explain`: what is said of an asset in each state that it may be in.

mod common;

use std::sync::Arc;

use common::{PATIENCE, Tree, within};
use flyloft::actors::Faults;
use flyloft::build::Because;
use flyloft::runtime::Explanation;
use flyloft::runtime::explain::Residency;
use flyloft::{AssetPath, Error, Event, Generation, Priority, Runtime};
use parking_lot::{Condvar, Mutex};

async fn explain(runtime: &Runtime, path: &str) -> Explanation {
    within(runtime.explain(path)).await.unwrap()
}

async fn residency(runtime: &Runtime, path: &str) -> Residency {
    explain(runtime, path).await.residency.unwrap()
}

/// Holds whoever looks a certain asset up until it is let go; panics for another one.
#[derive(Default)]
struct Gate {
    /// Whether somebody waits, whether it is open.
    state: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Gate {
    fn wait_for_somebody(&self) {
        let mut state = self.state.lock();
        let waited = self.moved.wait_while_for(&mut state, |(waiting, _)| !*waiting, PATIENCE);
        assert!(!waited.timed_out(), "nobody came to the gate");
    }

    fn open(&self) {
        self.state.lock().1 = true;
        self.moved.notify_all();
    }
}

impl Faults for Gate {
    fn reached(&self, stage: &'static str, path: &AssetPath) {
        assert_ne!(path.as_str(), "bad.txt", "drill");
        if stage == "io_worker" && path.as_str() == "slow.txt" {
            let mut state = self.state.lock();
            state.0 = true;
            self.moved.notify_all();
            self.moved.wait_while_for(&mut state, |(_, open)| !*open, PATIENCE);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_and_what_is_quarantined_say_so() {
    let tree = Tree::new();
    tree.write("slow.txt", &b"slow ".repeat(1000));
    tree.write("bad.txt", b"bad");
    let gate = Arc::new(Gate::default());
    let builder = tree.builder().faults(Arc::clone(&gate) as _);
    let runtime = within(builder.start()).await.unwrap();

    let load = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.request("slow.txt").priority(Priority::High).send().await }
    });
    let waiting = Arc::clone(&gate);
    within(tokio::task::spawn_blocking(move || waiting.wait_for_somebody())).await.unwrap();
    let seen = residency(&runtime, "slow.txt").await;
    // Opened before anything is compared: a test that fails is to end.
    gate.open();
    match seen {
        Residency::Queued { priority: Priority::High, waiters: 1, failed_attempts: 0, step, .. } => {
            assert_ne!(step, "inbox");
        }
        other => panic!("{other:?}"),
    }
    let held = within(load).await.unwrap().unwrap();
    match residency(&runtime, "slow.txt").await {
        Residency::Resident { weight_bytes, pinned: true, as_stored: false, used_later: 0, of: 1 } => {
            assert!(weight_bytes >= held.len() as u64);
        }
        other => panic!("{other:?}"),
    }
    drop(held);
    assert!(matches!(residency(&runtime, "slow.txt").await, Residency::Resident { pinned: false, .. }));

    let error = within(runtime.load("bad.txt")).await.unwrap_err();
    assert!(matches!(error, Error::Quarantined { .. }), "{error}");
    match residency(&runtime, "bad.txt").await {
        Residency::Quarantined { attempts, cause } => assert!(attempts > 1 && cause.contains("drill"), "{cause}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(residency(&runtime, "nowhere.txt").await, Residency::Absent);
    assert!(matches!(runtime.explain("..").await, Err(Error::InvalidPath { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_made_room_says_when_and_for_how_much() {
    let tree = Tree::new();
    let large = |seed: u8| [&[seed][..], &vec![7; 3 << 20]].concat();
    for number in 0..4 {
        tree.write(&format!("{number}.bin"), &large(number));
    }
    let runtime = within(tree.builder().budget_bytes(flyloft::limits::BUDGET_BYTES_MIN).start()).await.unwrap();
    for number in 0..4 {
        drop(within(runtime.load(format!("{number}.bin"))).await.unwrap());
    }
    match residency(&runtime, "0.bin").await {
        Residency::Evicted { wanted_bytes, kind: None, .. } => assert!(wanted_bytes > 0),
        other => panic!("{other:?}"),
    }
    assert!(matches!(residency(&runtime, "3.bin").await, Residency::Resident { .. }));
    // What comes back is resident again, whatever was remembered of it.
    drop(within(runtime.load("0.bin")).await.unwrap());
    assert!(matches!(residency(&runtime, "0.bin").await, Residency::Resident { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_says_which_generation_and_why() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    tree.write("a.json", b"{ }");
    let runtime = within(tree.builder().watch(true).start()).await.unwrap();
    let before = explain(&runtime, "a.json").await;
    assert_eq!((before.last_change, &before.failure, before.pending.len()), (None, &None, 0));
    assert_eq!(before.asset.unwrap().build.unwrap().steps[0].transform, "minify-json");
    let mut events = runtime.events();
    let mut published = async || loop {
        match within(events.recv()).await.expect("it runs") {
            Event::Published(published) => return published,
            _ => continue,
        }
    };
    tree.replace("a.json", b"{ \"a\": 1 }");
    let generation = published().await.generation;
    assert_eq!(generation, Generation(2));
    let after = explain(&runtime, "a.json").await;
    let (built, change) = (after.built.unwrap(), after.last_change.unwrap());
    assert_eq!((built.generation, built.because), (generation, Because::SourceChanged));
    assert_eq!((change.generation, change.new), (generation, after.asset.map(|asset| asset.content)));
    tree.remove("a.json");
    let generation = published().await.generation;
    let gone = explain(&runtime, "a.json").await;
    assert_eq!((gone.asset, gone.residency), (None, Some(Residency::Absent)));
    assert_eq!(gone.last_change.map(|change| (change.generation, change.new)), Some((generation, None)));
    // As JSON and back, for who asks over HTTP.
    let again = explain(&runtime, "flyloft.toml").await;
    let json = serde_json::to_string(&again).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), again);
}
