//! The memory budget of a running runtime: levels of pressure, other sizes at any time, what is kept for critical requests.

mod common;

use std::time::Duration;

use common::{Tree, within};
use flyloft::config::{BudgetConfig, RuntimeConfig};
use flyloft::event::{PressureCause, PressureLevel};
use flyloft::runtime::BudgetChange;
use flyloft::telemetry::Subscription;
use flyloft::{AssetKind, Error, Event, Runtime, limits};

/// Bytes of each file.
const LEN: usize = 100_000;

fn path(index: usize) -> String {
    format!("{index}.bin")
}

/// A tree of `count` incompressible files, and a configuration with the smallest budget: 40 of them fit.
fn small(count: usize) -> (Tree, RuntimeConfig) {
    let tree = Tree::new();
    let mut random = 1u64;
    for index in 0..count {
        let mut byte = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        };
        let bytes: Vec<u8> = (0..LEN).map(|_| byte()).collect();
        tree.write(&path(index), &bytes);
    }
    let memory_wait = Duration::from_millis(100);
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, memory_wait, ..RuntimeConfig::default() };
    (tree, config)
}

async fn start(tree: &Tree, config: RuntimeConfig) -> Runtime {
    within(tree.builder().config(config).store(tree.store()).start()).await.unwrap()
}

/// The next event that is about the budget.
async fn next(events: &mut Subscription) -> Event {
    loop {
        let event = within(events.recv()).await.unwrap();
        if matches!(event, Event::Pressure { .. } | Event::Budget { .. }) {
            return event;
        }
    }
}

/// Waits until no more is charged for contents than `bytes`.
async fn charged_at_most(runtime: &Runtime, bytes: u64) {
    within(async {
        while runtime.stats().budget.charged > bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_is_an_event_as_the_budget_fills_and_as_it_empties() {
    let (tree, config) = small(40);
    let total = config.resident_bytes_max();
    let runtime = start(&tree, config).await;
    let mut events = runtime.events();
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for index in 0..40 {
        held.push(within(runtime.load(path(index))).await.unwrap());
        let level = runtime.pressure();
        if seen.last().map_or(PressureLevel::Normal, |last| *last) != level {
            let Event::Pressure { from, to, used_bytes, total_bytes, cause } = next(&mut events).await else {
                panic!("the budget is what it was")
            };
            assert_eq!((from as u8 + 1, to, total_bytes, cause), (to as u8, level, total, PressureCause::Use));
            let begins = [0, 70, 85, 95][to as usize];
            assert!(used_bytes * 100 >= total * begins && used_bytes <= total, "{used_bytes} is {to}");
            seen.push(level);
        }
    }
    assert_eq!(seen, PressureLevel::ALL[1..]);
    // Nobody holds them any more, so they can go.
    held.clear();
    runtime.set_budget(BudgetChange::total(64 << 20)).unwrap();
    let mut last = PressureLevel::Critical;
    while last != PressureLevel::Normal {
        if let Event::Pressure { from, to, .. } = next(&mut events).await {
            assert_eq!(from, last);
            last = to;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_is_made_smaller_evicts_until_it_fits_and_a_larger_one_holds_more() {
    let (tree, config) = small(120);
    let config = RuntimeConfig { budget_bytes: 32 << 20, ..config };
    let runtime = start(&tree, config).await;
    let mut events = runtime.events();
    for index in 0..120 {
        within(runtime.load(path(index))).await.unwrap();
    }
    assert_eq!(runtime.stats().resident, 120);
    runtime.set_budget(BudgetChange::total(limits::BUDGET_BYTES_MIN)).unwrap();
    let (from_bytes, to_bytes, cause) = (32 << 20, limits::BUDGET_BYTES_MIN, PressureCause::Budget);
    let budget = Event::Budget { from_bytes, to_bytes, cause };
    assert_eq!(next(&mut events).await, budget);
    charged_at_most(&runtime, 4 << 20).await;
    let stats = runtime.stats();
    assert_eq!((stats.budget.total, stats.budget.reserve), (limits::BUDGET_BYTES_MIN, 4 << 20));
    for index in 0..120 {
        assert_eq!(within(runtime.load(path(index))).await.unwrap().len(), LEN);
        assert!(runtime.stats().budget.charged <= 4 << 20);
    }
    // More than at the start.
    runtime.set_budget(BudgetChange::total(64 << 20)).unwrap();
    for index in 0..120 {
        within(runtime.load(path(index))).await.unwrap();
    }
    assert_eq!(runtime.stats().resident, 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_survives_a_smaller_budget_and_loads_wait_for_it() {
    let (tree, config) = small(60);
    let config = RuntimeConfig { budget_bytes: 32 << 20, memory_wait: Duration::from_secs(30), ..config };
    let runtime = start(&tree, config).await;
    let mut held = Vec::new();
    for index in 0..59 {
        held.push(within(runtime.load(path(index))).await.unwrap());
    }
    runtime.set_budget(BudgetChange::total(limits::BUDGET_BYTES_MIN)).unwrap();
    assert_eq!(runtime.pressure(), PressureLevel::Critical);
    assert!(runtime.stats().budget.charged >= 59 * LEN as u64);
    let waiting = tokio::spawn(runtime.load(path(59)));
    held.drain(..30);
    assert_eq!(within(waiting).await.unwrap().unwrap().len(), LEN, "it came when others were let go of");
    assert!(held.iter().all(|asset| asset.len() == LEN));
    assert!(runtime.stats().budget.charged <= 4 << 20);
}

#[tokio::test]
async fn a_budget_that_cannot_hold_is_refused_by_its_field_and_changes_nothing() {
    let (tree, config) = small(1);
    let runtime = start(&tree, config).await;
    let before = runtime.stats().budget;
    let check = |field: &str, change: BudgetChange| match runtime.set_budget(change) {
        Err(Error::Config { field: refused, .. }) => assert_eq!(refused, field),
        other => panic!("{other:?}"),
    };
    check("budget_bytes", BudgetChange::total(0));
    check("budget_bytes", BudgetChange::total(limits::BUDGET_BYTES_MIN - 1));
    check("kind_budget_bytes.mesh", BudgetChange::default().kind(AssetKind::Mesh, Some(1 << 40)));
    check("kind_budget_bytes.mesh", BudgetChange::total(16 << 20).kind(AssetKind::Mesh, Some(0)));
    check("budget.critical_reserve_bytes", BudgetChange::default().critical_reserve(4 << 20));
    assert_eq!(runtime.stats().budget, before);
    // A kind that the smaller total cannot hold.
    runtime.set_budget(BudgetChange::default().kind(AssetKind::Mesh, Some(limits::BUDGET_BYTES_MIN))).unwrap();
    runtime.set_budget(BudgetChange::total(16 << 20).kind(AssetKind::Mesh, Some(16 << 20))).unwrap();
    check("kind_budget_bytes.mesh", BudgetChange::total(limits::BUDGET_BYTES_MIN));
    runtime.set_budget(BudgetChange::total(limits::BUDGET_BYTES_MIN).kind(AssetKind::Mesh, None)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_high_pressure_room_is_made_before_anybody_waits_for_it() {
    let (tree, config) = small(300);
    let budget = BudgetConfig { thresholds_percent: [50, 60, 90], target_percent: 70, ..BudgetConfig::default() };
    let config = RuntimeConfig { budget, ..config };
    let total = config.resident_bytes_max();
    let runtime = start(&tree, config).await;
    for index in 0..300 {
        within(runtime.load(path(index))).await.unwrap();
        if runtime.stats().budget.charged * 100 >= total * 80 {
            charged_at_most(&runtime, total / 100 * 71).await;
        }
    }
    let stats = runtime.stats();
    assert!(stats.metrics.evictions >= 250, "{stats:?}");
    assert_eq!(stats.metrics.memory_waits, 0, "no load waited for an eviction");
}
