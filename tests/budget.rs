//! The memory budget of a running runtime: levels of pressure, other sizes at any time, what is kept for critical requests.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Tree, within};
use flyloft::config::{BudgetConfig, DebugConfig, EvictionConfig, EvictionPolicy};
use flyloft::config::{PredictionConfig, RuntimeConfig};
use flyloft::event::{PressureCause, PressureLevel};
use flyloft::platform::pressure::{ManualMemory, MemoryUse};
use flyloft::runtime::BudgetChange;
use flyloft::telemetry::Subscription;
use flyloft::{Asset, AssetKind, Decode, DecodeContext, DecodeError, Error, Event, Priority, Runtime, limits};

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
    // Nothing is loaded but what a test asks for, and the oldest goes first.
    let prediction = PredictionConfig { enabled: false, ..PredictionConfig::default() };
    let eviction = EvictionConfig { policy: EvictionPolicy::Lru, ..EvictionConfig::default() };
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, memory_wait, ..RuntimeConfig::default() };
    let config = RuntimeConfig { prediction, eviction, prefetch_dependencies: false, ..config };
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

/// Waits until the pressure is so high.
async fn reached(runtime: &Runtime, level: PressureLevel) {
    within(async {
        while runtime.pressure() < level {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
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
async fn each_level_is_an_event_as_the_budget_is_tied_up_and_let_go_of_and_a_full_cache_is_none() {
    let (tree, config) = small(40);
    let total = config.resident_bytes_max();
    let runtime = start(&tree, config).await;
    let mut events = runtime.events();
    // What is merely cached is no pressure, however full the cache is.
    for index in 0..40 {
        within(runtime.load(path(index))).await.unwrap();
    }
    let mut held: Vec<Asset> = Vec::new();
    for level in PressureLevel::ALL[1..].iter().copied() {
        let begins = [0, 70, 85, 95][level as usize];
        while held.len() as u64 * 102_400 * 100 < total * begins {
            held.push(within(runtime.load(path(held.len()))).await.unwrap());
        }
        let Event::Pressure { from, to, used_bytes, total_bytes, cause } = next(&mut events).await else {
            panic!("the budget is what it was")
        };
        assert_eq!((from as u8 + 1, to, total_bytes, cause), (to as u8, level, total, PressureCause::Use));
        assert!(used_bytes * 100 >= total * begins && used_bytes <= total, "{used_bytes} is {to}");
        assert_eq!(runtime.pressure(), level);
    }
    // Nobody holds them any more, so they can go.
    held.clear();
    let Event::Pressure { from, to, used_bytes, .. } = next(&mut events).await else {
        panic!("the budget is what it was")
    };
    assert_eq!((from, to), (PressureLevel::Critical, PressureLevel::Normal));
    assert!(used_bytes < total / 10 && runtime.stats().resident > 35, "they are cached all the same");
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
async fn when_the_budget_is_nearly_full_room_is_made_before_anybody_waits_for_it() {
    let (tree, config) = small(300);
    let budget = BudgetConfig { target_percent: 70, ..BudgetConfig::default() };
    let config = RuntimeConfig { budget, ..config };
    let total = config.resident_bytes_max();
    let runtime = start(&tree, config).await;
    for index in 0..300 {
        within(runtime.load(path(index))).await.unwrap();
        if runtime.stats().budget.charged * 100 >= total * 85 {
            charged_at_most(&runtime, total / 100 * 84).await;
        }
    }
    let stats = runtime.stats();
    assert!(stats.metrics.evictions >= 200, "{stats:?}");
    assert_eq!(stats.metrics.memory_waits, 0, "no load waited for an eviction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_request_finds_room_that_others_leave_alone() {
    let (tree, config) = small(40);
    let budget = BudgetConfig { critical_reserve_bytes: 1 << 20, ..BudgetConfig::default() };
    let runtime = start(&tree, RuntimeConfig { budget, ..config }).await;
    let mut held = Vec::new();
    let full = loop {
        match within(runtime.load(path(held.len()))).await {
            Ok(asset) => held.push(asset),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Pinned { .. }), "{full}");
    assert_eq!(held.len(), 30, "3 MiB");
    for index in 30..40 {
        let critical = runtime.request(path(index)).priority(Priority::Critical).send();
        held.push(within(critical).await.unwrap());
    }
    assert_eq!(runtime.stats().budget.critical_reserve, 1 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_critical_pressure_low_priority_is_refused_at_once_unless_an_eviction_makes_room() {
    let (tree, config) = small(45);
    let config = RuntimeConfig { memory_wait: Duration::from_secs(600), ..config };
    let runtime = start(&tree, config).await;
    let mut held = Vec::new();
    for index in 0..40 {
        held.push(within(runtime.load(path(index))).await.unwrap());
    }
    reached(&runtime, PressureLevel::Critical).await;
    let low = |index| runtime.request(path(index)).priority(Priority::Low).send();
    match within(low(40)).await {
        Err(Error::Pressure { what, level, needed_bytes, .. }) => {
            assert_eq!((what.as_str(), level, needed_bytes), ("40.bin", PressureLevel::Critical, LEN as u64));
        }
        other => panic!("{other:?}"),
    }
    // A more urgent one waits.
    let waiting = tokio::spawn(runtime.load(path(41)));
    assert!(within(low(42)).await.is_err());
    held.truncate(39);
    // Its handle is kept, so that everything is in somebody's hand.
    let _waited = within(waiting).await.unwrap().unwrap();
    held.truncate(38);
    assert_eq!(within(low(43)).await.unwrap().len(), LEN, "that one could be evicted for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_locked_is_never_evicted_and_its_new_version_is_locked_as_well() {
    let (tree, config) = small(60);
    let config = RuntimeConfig { watch: true, ..config };
    let runtime = start(&tree, config).await;
    let lock = within(runtime.lock(path(0))).await.unwrap();
    let again = within(runtime.lock(path(0))).await.unwrap();
    for index in 1..60 {
        within(runtime.load(path(index))).await.unwrap();
    }
    assert!(runtime.get(path(0)).is_some() && runtime.get(path(1)).is_none());
    let locks = runtime.stats().locks;
    assert_eq!((locks.assets, locks.resident, locks.bytes), (1, 1, 102_400));
    let mut events = runtime.events();
    let bytes = vec![7; 2 * LEN];
    tree.replace(&path(0), &bytes);
    within(async { while !matches!(events.recv().await, Some(Event::Published(_))) {} }).await;
    // It may be loaded only after it was published.
    within(async {
        while runtime.stats().locks.resident == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(again);
    for index in 1..60 {
        within(runtime.load(path(index))).await.unwrap();
    }
    assert_eq!(&*runtime.get(path(0)).unwrap(), bytes);
    drop(lock);
    for index in 1..60 {
        within(runtime.load(path(index))).await.unwrap();
    }
    assert!(runtime.get(path(0)).is_none() && runtime.stats().locks.assets == 0);
    assert!(matches!(within(runtime.lock("missing")).await, Err(Error::NotFound { .. })));
    assert_eq!(runtime.stats().locks.assets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_what_is_locked_fills_the_budget_the_error_names_it() {
    let (tree, config) = small(41);
    let runtime = start(&tree, config).await;
    let mut locks = Vec::new();
    for index in 0..40 {
        locks.push(within(runtime.lock(path(index))).await.unwrap());
    }
    match within(runtime.load(path(40))).await {
        Err(Error::Pinned { pinned, .. }) => assert_eq!(pinned[0].0, *locks[0].path()),
        other => panic!("{other:?}"),
    }
    locks.pop();
    within(runtime.load(path(40))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_others_need_makes_the_budget_smaller_and_it_comes_back_slowly() {
    let (tree, config) = small(150);
    let budget = BudgetConfig { sample: Duration::from_millis(250), ..BudgetConfig::default() };
    let config = RuntimeConfig { budget_bytes: 32 << 20, budget, ..config };
    let memory = Arc::new(ManualMemory::default());
    let set = |used_bytes: u64| memory.set(MemoryUse { used_bytes, limit_bytes: 100 << 20, stalled_percent: 0.0 });
    set(50 << 20);
    let builder = tree.builder().config(config).store(tree.store()).memory_source(memory.clone());
    let runtime = within(builder.start()).await.unwrap();
    let mut events = runtime.events();
    for index in 0..150 {
        within(runtime.load(path(index))).await.unwrap();
    }
    let total = |event: Event| match event {
        Event::Budget { from_bytes, to_bytes, cause: PressureCause::Outside { what } } => {
            assert!(what.starts_with("simulated memory"), "{what}");
            Some((from_bytes, to_bytes))
        }
        _ => None,
    };
    let changed = async |events: &mut Subscription| loop {
        if let Some(change) = total(next(events).await) {
            return change;
        }
    };
    set(80 << 20);
    let (before, after) = changed(&mut events).await;
    assert!(before == 32 << 20 && (8 << 20..16 << 20).contains(&after), "{before} {after}");
    // An emergency: nothing stays that nobody holds, but for what the smallest budget has.
    set(95 << 20);
    while changed(&mut events).await.1 > limits::BUDGET_BYTES_MIN {}
    charged_at_most(&runtime, 4 << 20).await;
    within(async {
        while runtime.status().memory.ceiling_bytes != Some(0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(runtime.status().memory.source.as_deref(), Some("simulated memory"));
    // And back, by a twentieth at a time.
    set(10 << 20);
    let (mut last, mut steps) = (0, 0);
    while last < 32 << 20 {
        let (from, to) = changed(&mut events).await;
        assert!(to > from && to - from <= (32 << 20) / 20 * 2 + 2, "{from} {to}");
        (last, steps) = (to, steps + 1);
    }
    assert!(steps >= 7, "{steps}");
    assert_eq!(runtime.status().memory.ceiling_bytes, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_says_what_memory_is_for_and_its_stages_add_up() {
    let (tree, config) = small(20);
    let runtime = start(&tree, config).await;
    let mut held = Vec::new();
    for index in 0..20 {
        held.push(within(runtime.load(path(index))).await.unwrap());
    }
    held.truncate(5);
    let text = within(runtime.load_as::<Length>(path(10))).await.unwrap();
    // Who answered a load may hold what it answered for a moment longer.
    let profile = within(async {
        loop {
            let profile = runtime.memory_profile();
            if profile.stages.held == 5 * 102_400 {
                return profile;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stages = profile.stages;
    assert_eq!((stages.held, stages.cached), (5 * 102_400, 15 * 102_400), "{stages:?}");
    assert_eq!((stages.values, stages.retired, stages.in_flight_compressed), (1000, 0, 0), "{stages:?}");
    let all = stages.held + stages.cached + stages.values + stages.in_flight_decoded + stages.waiting_to_be_freed;
    assert_eq!(all, profile.current_bytes);
    assert_eq!(profile.allocated_bytes - profile.freed_bytes, profile.current_bytes);
    assert_eq!(profile.sizes.iter().find(|class| class.up_to_bytes == 1 << 17).unwrap().charges, 21, "and an estimate");
    assert!(
        profile.peak_bytes >= profile.current_bytes && profile.by_kind.values().sum::<u64>() == profile.current_bytes
    );
    if cfg!(target_os = "linux") {
        assert!(profile.faults.unwrap().minor > 0 && profile.resident_set_bytes.unwrap() > profile.current_bytes);
    }
    drop(text);
}

/// A decoded value of a thousand bytes.
struct Length;

impl Decode for Length {
    fn decode(_: &[u8], _: &DecodeContext<'_>) -> Result<Self, DecodeError> {
        Ok(Length)
    }

    fn weight_bytes(&self) -> usize {
        1000
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_mode_says_who_holds_retired_generations_and_what_a_shutdown_did_not_get_back() {
    let (tree, config) = small(3);
    let debug = DebugConfig { holders: true, poison: true, leaks: true, ..DebugConfig::default() };
    let runtime = start(&tree, RuntimeConfig { watch: true, debug, ..config }).await;
    let (old, other) = (within(runtime.load(path(0))).await.unwrap(), within(runtime.load(path(1))).await.unwrap());
    let snapshot = runtime.snapshot();
    assert!(runtime.holders().is_empty(), "nothing is retired");
    let mut events = runtime.events();
    tree.replace(&path(0), b"new");
    within(async { while !matches!(events.recv().await, Some(Event::Published(_))) {} }).await;
    let holders = runtime.holders();
    let retired: Vec<_> = holders.iter().map(|holder| holder.path.as_ref().map(|path| path.as_str())).collect();
    assert_eq!(retired.len(), 2, "{retired:?}");
    assert!(retired.contains(&None) && retired.contains(&Some("0.bin")), "{retired:?}");
    assert!(holders.iter().all(|holder| holder.takers.iter().any(|taker| taker.contains("debug_mode_says"))));
    assert_eq!(runtime.status().holders.len(), 2);
    drop(old);
    drop(snapshot);
    assert!(runtime.holders().is_empty());
    let report = within(runtime.shutdown(Duration::from_secs(5))).await;
    let leaks = report.leaks.unwrap();
    assert!(!leaks.is_clean() && leaks.tied_bytes >= LEN as u64, "{leaks:?}");
    assert_eq!((leaks.pinned.len(), leaks.pinned[0].0.as_str()), (1, "1.bin"));
    assert!(leaks.holders.iter().any(|holder| holder.path.as_ref() == Some(other.path())));
    assert_eq!((leaks.generations, leaks.damaged_buffers), (0, 0));
}
