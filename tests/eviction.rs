//! Eviction in a running runtime: every policy, the change from one to another, what survives a restart, and room that is
//! made before anybody needs it.

mod common;

use std::time::Duration;

use common::{Tree, within};
use flyloft::config::{BudgetConfig, EvictionConfig, EvictionPolicy, EvictionWeights, RuntimeConfig};
use flyloft::runtime::Stats;
use flyloft::{Runtime, limits};

/// Bytes of each file, which cannot be compressed: 41 of them fit, and fill all but a little of the budget.
const LEN: usize = 102_000;
const FILES: usize = 120;

fn path(index: usize) -> String {
    format!("{index}.bin")
}

fn tree() -> Tree {
    let tree = Tree::new();
    let mut random = 7u64;
    for index in 0..FILES {
        let mut byte = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        };
        tree.write(&path(index), &(0..LEN).map(|_| byte()).collect::<Vec<u8>>());
    }
    tree
}

async fn start(tree: &Tree, policy: EvictionPolicy) -> Runtime {
    let eviction = EvictionConfig { policy, ..EvictionConfig::default() };
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, eviction, ..RuntimeConfig::default() };
    within(tree.builder().config(config).store(tree.store()).start()).await.unwrap()
}

/// Loads every file in turn, and after each of them one of ten that are wanted again and again; gives how many of those
/// were resident.
async fn rounds(runtime: &Runtime, rounds: usize) -> usize {
    let mut hits = 0;
    for step in 0..rounds * (FILES - 10) {
        within(runtime.load(path(10 + step % (FILES - 10)))).await.unwrap();
        let wanted = path(step % 10);
        hits += usize::from(runtime.get(&wanted).is_some());
        assert_eq!(within(runtime.load(&wanted)).await.unwrap().len(), LEN);
        let budget = runtime.stats().budget;
        assert!(budget.charged <= budget.total - budget.reserve, "{budget:?}");
    }
    hits
}

/// Waits until it is so.
async fn until(runtime: &Runtime, is_so: impl Fn(&Stats) -> bool) -> Stats {
    within(async {
        loop {
            let stats = runtime.stats();
            if is_so(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_policy_keeps_what_is_wanted_again_and_again_and_never_more_than_the_budget() {
    let tree = tree();
    for policy in EvictionPolicy::ALL {
        let runtime = start(&tree, policy).await;
        rounds(&runtime, 1).await;
        let hits = rounds(&runtime, 1).await;
        assert!(hits * 10 >= (FILES - 10) * 9, "{policy}: {hits} of {}", FILES - 10);
        let stats = runtime.stats();
        assert_eq!(stats.eviction.name, policy.name());
        assert!(stats.metrics.evictions > 100 && stats.eviction.residents > 0, "{stats:?}");
        within(runtime.shutdown(Duration::from_secs(5))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_changes_while_loads_go_on_and_outlives_the_evictor() {
    let tree = tree();
    let runtime = start(&tree, EvictionPolicy::Lru).await;
    rounds(&runtime, 1).await;
    for policy in EvictionPolicy::ALL.into_iter().rev() {
        runtime.set_eviction(EvictionConfig { policy, ..EvictionConfig::default() }).unwrap();
        let known = until(&runtime, |stats| stats.eviction.name == policy.name()).await;
        assert!(known.eviction.residents >= 30, "it begins with what is resident: {:?}", known.eviction);
        rounds(&runtime, 1).await;
    }
    let policy = EvictionPolicy::Gdsf;
    runtime.set_eviction(EvictionConfig { policy, ..EvictionConfig::default() }).unwrap();
    runtime.kill("evictor").unwrap();
    rounds(&runtime, 1).await;
    let stats = until(&runtime, |stats| stats.eviction.name == policy.name()).await;
    assert!(stats.eviction.residents > 0);
    assert_eq!(runtime.eviction().policy, policy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_are_no_numbers_or_negative_are_refused_by_name_and_change_nothing() {
    let tree = tree();
    let runtime = start(&tree, EvictionPolicy::Weighted).await;
    for (field, weights) in [
        ("eviction.weights.distance", EvictionWeights { distance: f32::NAN, ..EvictionWeights::default() }),
        ("eviction.weights.age", EvictionWeights { age: -1.0, ..EvictionWeights::default() }),
    ] {
        let config = EvictionConfig { policy: EvictionPolicy::Lru, weights, ..EvictionConfig::default() };
        assert!(runtime.set_eviction(config).unwrap_err().to_string().starts_with(field));
        assert_eq!(runtime.eviction().policy, EvictionPolicy::Weighted);
        let config = RuntimeConfig { eviction: config, ..RuntimeConfig::default() };
        let refused = within(tree.builder().config(config).store(tree.store()).start()).await;
        assert!(refused.err().unwrap().to_string().starts_with(field));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_budget_is_nearly_full_room_is_made_before_anybody_needs_it() {
    let tree = tree();
    let budget = BudgetConfig { target_percent: 90, ..BudgetConfig::default() };
    let config = RuntimeConfig { budget_bytes: limits::BUDGET_BYTES_MIN, budget, ..RuntimeConfig::default() };
    let config = RuntimeConfig {
        eviction: EvictionConfig { policy: EvictionPolicy::Lru, ..EvictionConfig::default() },
        ..config
    };
    let config_bytes = config.resident_bytes_max();
    let target = config_bytes * 90 / 100;
    let runtime = within(tree.builder().config(config).store(tree.store()).start()).await.unwrap();
    // Nothing waits for memory: all of these would fit.
    for index in 0..41 {
        within(runtime.load(path(index))).await.unwrap();
    }
    // Half way between the target and the whole it begins; what is loaded after it may stay above the target.
    let begins = target + config_bytes / 20;
    let stats = until(&runtime, |stats| stats.metrics.evictions > 0 && stats.budget.charged < begins).await;
    assert_eq!(stats.metrics.memory_waits, 0);
    assert!(runtime.get(path(0)).is_none() && runtime.get(path(40)).is_some(), "the least recently used went");
}
