//! Whatever dies, every request is answered, once, with the right bytes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Tree, content, name, within};
use flyloft::actors::{ActorReport, ActorState, Faults};
use flyloft::config::{Engine, RuntimeConfig};
use flyloft::{AssetPath, Error, Event, Runtime};

/// A budget that holds a part of the tree, so that loads go on reading and evicting.
const BUDGET: u64 = 24 << 20;

/// The restarts of an actor so far.
fn restarts(runtime: &Runtime, actor: &str) -> u64 {
    runtime.status().actors.iter().find(|report| report.name == actor).map_or(0, |report| report.restarts)
}

/// Kills `actor`, once it is up, and waits until it is up again.
async fn kill_and_wait(runtime: &Runtime, actor: &str) {
    let is_up = |least: u64| {
        let status = runtime.status();
        let up = |report: &ActorReport| report.restarts >= least && report.state == ActorState::Up;
        status.actors.iter().any(|report| report.name == actor && up(report))
    };
    let mut events = runtime.events();
    let before = restarts(runtime, actor);
    for least in [before, before + 1] {
        let wait = async {
            while !is_up(least) {
                // An event tells that something moved; what counts is the status.
                drop(tokio::time::timeout(Duration::from_millis(20), events.recv()).await);
            }
        };
        let hung = || panic!("{actor} does not come up: {:#?}", runtime.status().actors);
        tokio::time::timeout(common::PATIENCE, wait).await.unwrap_or_else(|_| hung());
        if least == before {
            runtime.kill(actor).unwrap();
        }
    }
}

async fn ten_thousand_loads_while_killing(engine: Engine) {
    const FILES: usize = 2_000;
    const LOADS: usize = 10_000;
    let tree = Tree::with_files(FILES);
    let config = RuntimeConfig { budget_bytes: BUDGET, engine, watch: true, ..RuntimeConfig::default() };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let actors = [
        "io_worker[0]",
        "io_dispatcher",
        "decompressor",
        "cache_manager",
        "evictor",
        "predictor",
        "rebuilder",
        "file_watcher",
        "storage",
        "serving",
        "reload",
    ];
    let expected: Arc<Vec<Vec<u8>>> = Arc::new((0..FILES).map(|index| content(index, 0)).collect());
    let done = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for client in 0..LOADS {
        let (runtime, expected, done) = (runtime.clone(), Arc::clone(&expected), Arc::clone(&done));
        clients.push(tokio::spawn(async move {
            let index = (client * 7919) % FILES;
            let asset = runtime.load(name(index)).await.unwrap();
            assert_eq!(&*asset, expected[index]);
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for actor in actors {
        kill_and_wait(&runtime, actor).await;
    }
    for client in clients {
        within(client).await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), LOADS as u64);
    let status = runtime.status();
    for actor in actors {
        assert!(restarts(&runtime, actor) >= 1, "{actor} shows no restart: {status:?}");
    }
    for engine in &status.engines {
        // Every buffer that was given to the engine came back, also those of workers that were killed meanwhile.
        assert_eq!((engine.in_flight, engine.stats.submitted), (0, engine.stats.completed), "{engine:?}");
        assert_eq!((engine.stats.failed, engine.stats.sink_panics), (0, 0), "{engine:?}");
    }
    let stats = runtime.stats();
    assert_eq!(stats.ledger.open, 0, "{stats:?}");
    assert_eq!(stats.budget.charged_io, 0, "{stats:?}");
    assert!(stats.budget.peak <= BUDGET, "{stats:?}");
    let report = within(runtime.shutdown(Duration::from_secs(5))).await;
    assert!(report.in_time && report.committed.is_ok(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_load_is_answered_while_each_actor_is_killed_in_turn() {
    ten_thousand_loads_while_killing(Engine::Auto).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_the_portable_engine() {
    ten_thousand_loads_while_killing(Engine::Positioned).await;
}

/// Panics in one stage, on the assets that it is told, as often as it is told.
struct Drill {
    stage: &'static str,
    of_a_hundred: u64,
    asked: AtomicU64,
    only: Option<String>,
}

impl Faults for Drill {
    fn reached(&self, stage: &'static str, path: &AssetPath) {
        if stage != self.stage || self.only.as_ref().is_some_and(|only| only != path.as_str()) {
            return;
        }
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked % 100 < self.of_a_hundred {
            panic!("a drill in {stage}");
        }
    }
}

fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let drilled = info.payload().downcast_ref::<String>().is_some_and(|text| text.contains("drill"));
            if !drilled {
                before(info);
            }
        }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_one_item_of_a_hundred_loses_no_load_and_restarts_nobody() {
    quiet_panics();
    for stage in ["io_worker", "decompressor", "cache_manager"] {
        let tree = Tree::with_files(500);
        let drill = Drill { stage, of_a_hundred: 1, asked: AtomicU64::new(0), only: None };
        let runtime = within(tree.builder().faults(Arc::new(drill)).start()).await.unwrap();
        let loads: Vec<_> = (0..500).map(|index| (index, runtime.load(name(index)))).collect();
        for (index, load) in loads {
            let asset = within(load).await.unwrap();
            assert_eq!(&*asset, content(index, 0), "{stage}");
        }
        assert!(runtime.stats().metrics.item_panics >= 5, "{stage}");
        assert!(runtime.status().actors.iter().all(|actor| actor.restarts == 0), "{stage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_that_always_breaks_a_stage_is_quarantined_and_the_rest_goes_on() {
    quiet_panics();
    let tree = Tree::with_files(50);
    let bad = name(7);
    let drill = Drill { stage: "decompressor", of_a_hundred: 100, asked: AtomicU64::new(0), only: Some(bad.clone()) };
    let runtime = within(tree.builder().faults(Arc::new(drill)).start()).await.unwrap();
    match within(runtime.load(&bad)).await {
        Err(Error::Quarantined { what, attempts, cause }) => {
            assert_eq!((what, attempts), (bad, flyloft::limits::ATTEMPTS_MAX));
            assert!(cause.contains("a drill"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    for index in (0..50).filter(|index| *index != 7) {
        common::check(&runtime, index, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evictor_that_ends_too_often_is_parked_and_serving_goes_on_until_it_is_revived() {
    let tree = Tree::with_files(1_500);
    let config = RuntimeConfig { budget_bytes: flyloft::limits::BUDGET_BYTES_MIN, ..RuntimeConfig::default() };
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    let mut events = runtime.events();
    let degraded = |event: &Event| matches!(event, Event::Degraded { part, .. } if part == "evictor");
    within(async {
        loop {
            // Between two lives there is nobody to kill.
            drop(runtime.kill("evictor"));
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(5), events.recv()).await
                && degraded(&event)
            {
                break;
            }
        }
    })
    .await;
    let state = |wanted| runtime.status().actors.iter().any(|actor| actor.name == "evictor" && actor.state == wanted);
    assert!(state(ActorState::Degraded));
    for index in 0..1_500 {
        common::check(&runtime, index, 0).await;
    }
    runtime.revive("evictor").unwrap();
    within(async { while !matches!(events.recv().await, Some(Event::Revived { .. })) {} }).await;
    within(async {
        while !state(ActorState::Up) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_gave_up_answers_everything_and_is_brought_back_by_restart() {
    let tree = Tree::with_files(20);
    let runtime = within(tree.builder().start()).await.unwrap();
    let held = within(runtime.load(name(3))).await.unwrap();
    let mut events = runtime.events();
    within(async {
        loop {
            drop(runtime.kill("cache_manager"));
            if let Ok(Some(Event::Failed { .. })) = tokio::time::timeout(Duration::from_millis(2), events.recv()).await
            {
                break;
            }
        }
    })
    .await;
    assert!(matches!(within(runtime.load(name(5))).await, Err(Error::Failed { .. })));
    assert_eq!(&*held, content(3, 0), "what is held stays");
    within(runtime.restart()).await.unwrap();
    common::check(&runtime, 5, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_after_a_kill_comes_soon() {
    let tree = Tree::with_files(200);
    let runtime = within(tree.builder().start()).await.unwrap();
    let mut slowest = Duration::ZERO;
    for (round, actor) in ["io_worker[0]", "io_dispatcher", "decompressor", "cache_manager"].iter().enumerate() {
        runtime.kill(actor).unwrap();
        let began = std::time::Instant::now();
        common::check(&runtime, round, 0).await;
        slowest = slowest.max(began.elapsed());
    }
    // 10 ms is the goal that the bench measures; a shared machine may stall a test for longer than that.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
