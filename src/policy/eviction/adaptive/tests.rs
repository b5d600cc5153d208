//! The adaptive policy as a whole: what it keeps of which requests.

use super::super::conformance::{KIND, World, admitted, conforms, hits, random, skewed};
use super::super::{Lru, Seen};
use super::*;

conforms!(Adaptive::new(EvictionObjective::Balanced, 1));

fn adaptive() -> Adaptive {
    Adaptive::new(EvictionObjective::Balanced, 1)
}

/// How many of these requests it answers, and how many the least recently used would.
fn compared(budget: u64, requests: Vec<u64>) -> (usize, usize) {
    (hits(&mut adaptive(), budget, requests.iter().copied()), hits(&mut Lru::new(), budget, requests))
}

#[test]
fn of_a_loop_that_is_larger_than_the_cache_it_keeps_a_part() {
    let (ours, lru) = compared(100, (0..20_000).map(|at| at % 200).collect());
    assert_eq!(lru, 0);
    assert!(ours > 4_000, "{ours}");
}

#[test]
fn what_moves_on_is_followed() {
    // Uses of the last few hundred new ones: recency is all there is.
    let mut random = random(7);
    let requests: Vec<u64> = (0..20_000u64).map(|at| at / 4 + random.next().unwrap() % 140).collect();
    let (ours, lru) = compared(100, requests);
    assert!(ours as f64 > 0.97 * lru as f64, "{ours} of {lru}");
}

#[test]
fn a_scan_does_not_wash_out_what_is_used_often() {
    let mut often = skewed(3, 2000);
    let requests: Vec<u64> =
        (0..30_000u64).map(|at| if at / 2000 % 2 == 0 { often.next().unwrap() } else { 1_000_000 + at }).collect();
    let (ours, lru) = compared(100, requests);
    assert!(ours as f64 > 1.05 * lru as f64, "{ours} and {lru}");
}

#[test]
fn what_comes_back_brings_its_past_along() {
    // Far more than fits: only the ghosts can tell the few hundred that come back from those that do not.
    let requests: Vec<u64> = (0..30_000u64).map(|at| if at % 2 == 0 { at / 2 % 500 } else { 1_000_000 + at }).collect();
    let (ours, lru) = compared(100, requests);
    assert_eq!(lru, 0);
    assert!(ours > 1_500, "{ours}");
}

#[test]
fn the_same_seed_decides_the_same() {
    let requests: Vec<u64> = skewed(5, 5000).take(6_000).collect();
    let run = || hits(&mut adaptive(), 100, requests.iter().copied());
    assert_eq!(run(), run());
}

/// Requests for assets of two sizes, each as often: hits of the small and of the large.
fn by_size(objective: EvictionObjective) -> (usize, usize) {
    let (mut policy, mut world, mut random) = (Adaptive::new(objective, 1), World::default(), random(9));
    let mut hits = (0, 0);
    for _ in 0..15_000 {
        let id = random.next().unwrap() % 200;
        let large = id % 2 == 0;
        if world.request(&mut policy, 10_000, id, if large { 1000 } else { 10 }) {
            *(if large { &mut hits.1 } else { &mut hits.0 }) += 1;
        }
    }
    hits
}

#[test]
fn the_objective_says_whether_the_small_or_all_bytes_alike_are_kept() {
    let [objects, balanced, bytes] =
        [EvictionObjective::Objects, EvictionObjective::Balanced, EvictionObjective::Bytes].map(by_size);
    assert!(objects.0 > bytes.0, "{objects:?} {bytes:?}");
    assert!(balanced.0 + balanced.1 >= bytes.0 + bytes.1, "{balanced:?} {bytes:?}");
}

#[test]
fn what_costs_more_to_load_again_stays_longer() {
    let (mut policy, mut world, mut random) = (adaptive(), World::default(), random(11));
    let mut hits = [0, 0];
    for _ in 0..15_000 {
        world.tick += 1;
        let id = random.next().unwrap() % 200;
        let dear = (id % 2) as usize;
        if world.hit(id) {
            hits[dear] += 1;
            continue;
        }
        if world.bytes() + 10 > 1000 {
            world.evict(&mut policy, 10, None);
        }
        world.admit_as(&mut policy, &Admitted { cost_us: [10.0, 80.0][dear], ..admitted(id) });
    }
    assert!(hits[1] as f64 > 1.3 * hits[0] as f64, "{hits:?}");
}

#[test]
fn an_arrival_that_is_worth_less_than_what_it_would_push_out_is_not_kept() {
    let (mut policy, mut world) = (adaptive(), World::default());
    let mut often = skewed(13, 50);
    for _ in 0..8_000 {
        world.request(&mut policy, 300, often.next().unwrap(), 10);
    }
    let huge = Admitted { weight: 300, tick: world.tick, ..admitted(1_000_000) };
    let victims: Vec<AssetId> = world.choose(&mut policy, 300, None).into_iter().map(AssetId).collect();
    assert!(!policy.keeps(&huge, &victims, &world), "never seen, and it would take everything");
    assert_eq!(policy.history.get(huge.id).map(|ghost| ghost.past.uses), Some(1), "it is remembered");
    let wanted = Admitted { tick: world.tick, ..admitted(0) };
    world.remove(&mut policy, 0, Removal::Evicted);
    let victims: Vec<AssetId> = world.choose(&mut policy, 10, None).into_iter().map(AssetId).collect();
    assert!(policy.keeps(&wanted, &victims, &world), "the most wanted of all");
    assert_eq!(policy.report().figures.iter().find(|(name, _)| name == "refusals").map(|(_, count)| *count), Some(1.0));
}

#[test]
fn a_kind_that_needs_room_takes_it_from_its_own_and_entries_are_small() {
    let (mut policy, mut world) = (adaptive(), World::default());
    for id in 0..100 {
        world.admit(&mut policy, id, 10, if id % 10 == 0 { AssetKind::Mesh } else { KIND });
    }
    assert_eq!(world.choose(&mut policy, u64::MAX, Some(AssetKind::Mesh)).len(), 10);
    assert!(world.choose(&mut policy, 30, Some(KIND)).iter().all(|id| id % 10 != 0));
    assert!(size_of::<Entry>() <= 32 && size_of::<Ghost>() <= 24);
    let nothing = Seen { usage: Usage::new(0), weight: 0, kind: KIND, pinned: false, distance: None };
    assert_eq!(world.look(AssetId(1)).map(|seen| Seen { weight: 0, ..seen }), Some(nothing));
}
