//! What will be asked for is loaded ahead: behind everything else, into free memory, and what became of it is known.

mod common;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Tree, content, name, within};
use flyloft::actors::Faults;
use flyloft::config::WarmConfig;
use flyloft::runtime::{WarmEnd, Warming};
use flyloft::{AssetPath, Error, Event, Runtime};

const STOP: Duration = Duration::from_secs(5);

/// No dependency is loaded by the predictor, so that what is resident was warmed.
async fn start(tree: &Tree, history: bool) -> Runtime {
    let mut config = flyloft::RuntimeConfig { store: Some(tree.store()), ..Default::default() };
    config.prefetch_dependencies = false;
    config.prediction.enabled = false;
    config.warm = WarmConfig { history, ..WarmConfig::default() };
    within(Runtime::builder().config(config).directory(tree.root()).start()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_below_a_prefix_is_loaded_in_the_background_and_then_is_a_hit() {
    let tree = Tree::with_files(60);
    let runtime = start(&tree, false).await;
    let mut events = runtime.events();
    within(runtime.load(name(20))).await.unwrap();
    let warm = runtime.warm(Warming::sequential(["folder00/", "folder01/"])).unwrap();
    let report = within(warm).await;
    // Three files in each folder, of which one was there.
    assert_eq!((report.end, report.loaded, report.failed), (WarmEnd::Done, 5, 0), "{report:?}");
    assert_eq!((report.progress.assets, report.progress.of_assets), (6, 6));
    assert_eq!(report.progress.bytes, report.progress.of_bytes);
    for index in [0, 20, 40, 1, 21, 41] {
        assert_eq!(&*runtime.get(name(index)).unwrap(), content(index, 0));
    }
    assert!(runtime.get(name(2)).is_none());
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = within(events.recv()).await.unwrap();
        if matches!(event, Event::Warming { .. } | Event::Warmed { .. }) {
            told.push(event);
        }
    }
    assert!(matches!(&told[..], [Event::Warming { assets: 6, .. }, Event::Warmed { assets: 5, .. }]), "{told:?}");
    within(runtime.shutdown(STOP)).await;
    let stats = runtime.stats().warming;
    assert_eq!((stats.runs, stats.assets, stats.used, stats.wasted, stats.waiting), (1, 5, 5, 0, 0), "{stats:?}");
    assert_eq!((stats.precision, stats.lead.count, stats.used_bytes), (Some(1.0), 5, stats.bytes));
    assert!(matches!(runtime.warm(Warming::predicted()), Err(Error::ShutDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_brings_what_it_uses_and_a_hint_that_is_not_there_is_counted() {
    let tree = Tree::new();
    tree.write("page.html", b"<link rel=stylesheet href=site.css><img src=logo.png>");
    tree.write("site.css", b"body { background: url(wall.png) }");
    ["logo.png", "wall.png", "other.png"].iter().for_each(|path| tree.write(path, path.as_bytes()));
    let runtime = start(&tree, false).await;
    let report = within(runtime.warm(Warming::dependencies(["page.html", "missing.html"])).unwrap()).await;
    assert_eq!((report.end, report.loaded, report.failed), (WarmEnd::Done, 4, 1));
    assert!(runtime.get("wall.png").is_some() && runtime.get("other.png").is_none());
    assert!(matches!(runtime.warm(Warming::dependencies(["../x"])), Err(Error::InvalidPath { .. })));
    within(runtime.shutdown(STOP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warming_stops_at_its_budget_and_before_anything_had_to_go() {
    let tree = Tree::with_files(40);
    let runtime = start(&tree, false).await;
    let budget = 100_000;
    let report = within(runtime.warm(Warming::sequential([""]).budget_bytes(budget).at_once(1)).unwrap()).await;
    assert!(report.end == WarmEnd::Budget && report.loaded > 0 && report.loaded_bytes <= budget, "{report:?}");
    within(runtime.shutdown(STOP)).await;
    // More than there is room for.
    let tree = Tree::new();
    for index in 0..24 {
        tree.write(&format!("{index:02}.bin"), &content(1, index).repeat(400_000 / content(1, index).len()));
    }
    let runtime = within(tree.builder().budget_bytes(8 << 20).start()).await.unwrap();
    let held = within(runtime.load("23.bin")).await.unwrap();
    let report = within(runtime.warm(Warming::sequential([""]).budget_bytes(u64::MAX / 2)).unwrap()).await;
    assert!(report.end == WarmEnd::Room && report.loaded > 2 && report.loaded < 20, "{report:?}");
    assert_eq!(runtime.stats().metrics.evictions, 0);
    drop(held);
    within(runtime.shutdown(STOP)).await;
}

/// Holds the read of each asset until it is opened.
struct Gate {
    reached: Mutex<SyncSender<()>>,
    open: Mutex<Receiver<()>>,
}

impl Faults for Gate {
    fn reached(&self, stage: &'static str, _path: &AssetPath) {
        if stage == "io_worker" {
            // One look is enough for the test.
            let _ = self.reached.lock().unwrap().try_send(());
            let _ = self.open.lock().unwrap().recv();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warming_that_is_cancelled_or_let_go_of_loads_nothing_more() {
    let tree = Tree::with_files(30);
    let ((reached, was_reached), (open, opened)) = (sync_channel(1), sync_channel(0));
    let gate = Gate { reached: Mutex::new(reached), open: Mutex::new(opened) };
    let runtime = within(tree.builder().faults(Arc::new(gate)).start()).await.unwrap();
    let warm = runtime.warm(Warming::sequential([""]).at_once(1)).unwrap();
    tokio::task::spawn_blocking(move || was_reached.recv()).await.unwrap().unwrap();
    assert_eq!(warm.progress().of_assets, 30);
    warm.cancel();
    let report = within(warm).await;
    assert_eq!((report.end, report.loaded), (WarmEnd::Cancelled, 0));
    drop(runtime.warm(Warming::sequential([""])).unwrap());
    drop(open);
    within(runtime.load(name(3))).await.unwrap();
    assert!(runtime.stats().warming.assets <= 1, "{:?}", runtime.stats().warming);
    within(runtime.shutdown(STOP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_last_run_asked_for_is_there_at_the_next_start() {
    let tree = Tree::with_files(40);
    let runtime = start(&tree, true).await;
    for index in [7, 3, 30, 3, 12] {
        within(runtime.load(name(index))).await.unwrap();
    }
    within(runtime.shutdown(STOP)).await;
    let runtime = start(&tree, true).await;
    let report = within(runtime.warm(Warming::historical()).unwrap()).await;
    assert_eq!((report.end, report.loaded), (WarmEnd::Done, 4));
    for index in 0..40 {
        assert_eq!(runtime.get(name(index)).is_some(), [7, 3, 30, 12].contains(&index), "{index}");
    }
    within(runtime.shutdown(STOP)).await;
    // A journal that is damaged is begun anew, and what is gone from the tree is not warmed.
    let journal = tree.store().join(flyloft::runtime::STORE_JOURNAL);
    assert!(journal.exists());
    tree.remove(&name(7));
    let runtime = start(&tree, true).await;
    let report = within(runtime.warm(Warming::historical()).unwrap()).await;
    assert_eq!((report.loaded, report.failed), (3, 0));
    within(runtime.shutdown(STOP)).await;
    std::fs::write(&journal, b"something else").unwrap();
    let runtime = start(&tree, true).await;
    assert_eq!(within(runtime.warm(Warming::historical()).unwrap()).await.progress.of_assets, 0);
    within(runtime.shutdown(STOP)).await;
    let runtime = start(&tree, false).await;
    let refused = runtime.warm(Warming::historical()).err().unwrap().to_string();
    assert!(refused.starts_with("warm.history"), "{refused}");
    within(runtime.shutdown(STOP)).await;
}
