//! The budget under every order of charges and releases.

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TEXT: AssetKind = AssetKind::Text;
const MESH: AssetKind = AssetKind::Mesh;

fn budget(total: u64, reserve: u64, text: u64) -> Arc<Budget> {
    Budget::new(total, reserve, &BTreeMap::from([(TEXT, text)]))
}

#[test]
fn memory_is_of_the_node_that_the_charge_is_for_under_one_budget() {
    let heaps = vec![Heap::new(1 << 20).unwrap(), Heap::new(1 << 20).unwrap()];
    let budget = Budget::with_heaps(1 << 20, 0, &BTreeMap::new(), heaps);
    let lent = || budget.snapshot().node_heaps.iter().map(|heap| heap.lent_bytes).collect::<Vec<_>>();
    let build = |place: u8| {
        let charge = budget.try_charge(TEXT, 300_000).unwrap().at(place);
        crate::residency::Content::build(300_000, charge).unwrap()
    };
    let far = build(1);
    assert_eq!(lent(), [0, 300_000]);
    let (near, nowhere) = (build(0), build(9));
    assert_eq!(lent(), [300_000, 300_000], "what is of no node is from the allocator");
    assert!(budget.try_charge(TEXT, 300_000).is_err(), "both heaps have room, the budget has none");
    assert_eq!(budget.snapshot().heap.map(|heap| heap.lent_bytes), Some(600_000));
    drop((far, near, nowhere));
    assert_eq!((lent(), budget.snapshot().charged), (vec![0, 0], 0));
}

#[test]
fn a_charge_says_which_budget_is_short_and_by_how_much() {
    let budget = budget(100, 20, 30);
    let held = budget.try_charge(TEXT, 25).unwrap();
    let short = |missing_bytes, kind| Shortfall { missing_bytes, kind };
    assert_eq!(budget.try_charge(TEXT, 10).unwrap_err(), short(5, Some(TEXT)));
    assert_eq!(budget.try_charge(MESH, 60).unwrap_err(), short(5, None));
    assert_eq!(budget.try_charge(MESH, u64::MAX).unwrap_err().kind, None);
    let rest = budget.try_charge(MESH, 55).unwrap();
    assert_eq!(budget.try_charge(MESH, 1).unwrap_err(), short(1, None));
    drop(held);
    drop(rest);
    assert_eq!((budget.snapshot().charged, budget.snapshot().peak), (0, 80));
    assert_eq!((budget.admissible_bytes(TEXT), budget.admissible_bytes(MESH)), (30, 80));
}

#[test]
fn the_reserve_is_apart_from_the_rest() {
    let budget = budget(100, 20, 100);
    let all = budget.try_charge(MESH, 80).unwrap();
    let reading = budget.try_charge_io(20).unwrap();
    assert!(budget.try_charge_io(1).is_none());
    drop(all);
    assert!(budget.try_charge_io(1).is_none());
    assert!(budget.try_charge(MESH, 81).is_err());
    drop(reading);
    assert_eq!(budget.snapshot().peak, 100);
}

#[test]
fn one_wait_is_one_call_and_a_failed_try_wakes_nobody() {
    let budget = budget(100, 0, 100);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    budget.on_release(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
    let (mut first, second) = (budget.try_charge(TEXT, 40).unwrap(), budget.try_charge(TEXT, 60).unwrap());
    assert!(budget.charge_or_wait(TEXT, 50).is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    first.shrink_to(10);
    drop(second);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drop(first);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "nobody waited any more");
}

proptest! {
    #[test]
    fn it_charges_what_a_plain_sum_would(
        steps in proptest::collection::vec((0usize..3, 0u64..60, any::<bool>()), 1..80),
    ) {
        let budget = budget(100, 10, 40);
        let mut held: Vec<Charge> = Vec::new();
        for (which, bytes, release) in steps {
            if release {
                if !held.is_empty() {
                    drop(held.swap_remove(which % held.len()));
                }
            } else {
                let kind = AssetKind::ALL[which + 4];
                let sum = |kind: Option<AssetKind>| -> u64 {
                    held.iter().filter(|c| kind.is_none_or(|kind| c.kind() == kind)).map(Charge::bytes).sum()
                };
                let fits = sum(None) + bytes <= 90 && (kind != TEXT || sum(Some(TEXT)) + bytes <= 40);
                let charge = budget.try_charge(kind, bytes);
                prop_assert_eq!(charge.is_ok(), fits);
                held.extend(charge);
            }
            prop_assert_eq!(budget.snapshot().charged, held.iter().map(Charge::bytes).sum::<u64>());
        }
    }
}

#[test]
fn no_interleaving_charges_more_than_the_limits() {
    let budget = budget(1000, 100, 400);
    // Added after a charge and subtracted before it ends, so each is at most what is really charged.
    let (shadow, shadow_text) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (budget, shadow, shadow_text) = (&budget, &shadow, &shadow_text);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..20_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (kind, bytes) = (if random >> 63 == 0 { TEXT } else { MESH }, (random >> 33) % 300);
                    let Ok(charge) = budget.try_charge(kind, bytes) else { continue };
                    assert!(shadow.fetch_add(bytes, Ordering::SeqCst) + bytes <= 900);
                    if kind == TEXT {
                        assert!(shadow_text.fetch_add(bytes, Ordering::SeqCst) + bytes <= 400);
                    }
                    assert!(budget.snapshot().charged <= 900);
                    if kind == TEXT {
                        shadow_text.fetch_sub(bytes, Ordering::SeqCst);
                    }
                    shadow.fetch_sub(bytes, Ordering::SeqCst);
                    drop(charge);
                }
            });
        }
    });
    let end = budget.snapshot();
    assert_eq!((end.charged, end.by_kind.len()), (0, 0));
    assert!(end.peak <= 900);
}

#[test]
fn no_wake_up_is_lost() {
    // One waits for all of the memory, again and again, while others take and give back parts of it.
    const ROUNDS: usize = 2000;
    let budget = budget(100, 0, 100);
    let (wake, woken) = mpsc::channel();
    budget.on_release(Box::new(move || _ = wake.send(())));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(budget.try_charge(TEXT, 40));
                }
            });
        }
        for _ in 0..ROUNDS {
            loop {
                match budget.charge_or_wait(TEXT, 70) {
                    Ok(charge) => break drop(charge),
                    // Generous: it only passes when the wake-up is lost.
                    Err(_) => woken.recv_timeout(Duration::from_secs(60)).unwrap(),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_last_of_it_is_for_critical_requests_alone() {
    let sizes = Sizes { total: 100, io_reserve: 10, critical_reserve: 30, kinds: BTreeMap::from([(TEXT, 80)]) };
    let budget = Budget::of(sizes, Vec::new());
    let short = |missing_bytes| Shortfall { missing_bytes, kind: None };
    assert_eq!(budget.try_charge_for(Priority::High, MESH, 61).unwrap_err(), short(1));
    let _most = budget.try_charge_for(Priority::Medium, MESH, 60).unwrap();
    assert_eq!(budget.try_charge(MESH, 1).unwrap_err(), short(1));
    let _urgent = budget.try_charge_for(Priority::Critical, MESH, 30).unwrap();
    assert_eq!(budget.try_charge_for(Priority::Critical, MESH, 1).unwrap_err(), short(1));
    assert_eq!(budget.admissible_bytes(TEXT), 60);
    assert_eq!(budget.admissible_bytes_for(Priority::Critical, TEXT), 80);
}

#[test]
fn a_budget_that_is_made_smaller_admits_nothing_until_enough_came_back_and_whoever_waits_is_told_when_it_grows() {
    let budget = budget(100, 20, 100);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    budget.on_release(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
    let (first, second) = (budget.try_charge(TEXT, 40).unwrap(), budget.try_charge(MESH, 40).unwrap());
    let resize = |total, text| {
        let kinds = BTreeMap::from([(TEXT, text)]);
        budget.resize(Sizes { total, io_reserve: 20, critical_reserve: 0, kinds }, PressureCause::Budget);
    };
    resize(70, 30);
    assert_eq!(budget.over().collect::<Vec<_>>(), [(None, 30), (Some(TEXT), 10)]);
    assert_eq!(budget.try_charge(MESH, 1).unwrap_err(), Shortfall { missing_bytes: 31, kind: None });
    drop(second);
    assert_eq!(budget.try_charge(TEXT, 1).unwrap_err(), Shortfall { missing_bytes: 11, kind: Some(TEXT) });
    assert_eq!(budget.charge_or_wait(MESH, 11).unwrap_err(), Shortfall { missing_bytes: 1, kind: None });
    calls.store(0, Ordering::SeqCst);
    resize(71, 60);
    assert_eq!((calls.load(Ordering::SeqCst), budget.over().count()), (1, 0));
    let _third = budget.try_charge(MESH, 11).unwrap();
    assert_eq!((budget.used(), budget.snapshot().total), ((51, 51), 71));
    drop(first);
}

#[test]
fn smaller_sizes_keep_their_proportions_and_are_never_nothing() {
    let sizes = Sizes { total: 512 << 20, io_reserve: 32 << 20, critical_reserve: 48 << 20, kinds: BTreeMap::new() };
    assert_eq!(sizes.within(u64::MAX), sizes);
    let less = sizes.within(128 << 20);
    assert_eq!(
        (less.total, less.io_reserve, less.critical_reserve),
        (128 << 20, 16 << 20, 11_744_051),
        "a tenth of what may be resident"
    );
    assert_eq!(sizes.within(0).total, limits::BUDGET_BYTES_MIN);
}

#[test]
fn somebody_looks_whenever_the_level_may_be_another_one_and_what_could_be_evicted_is_no_pressure() {
    let budget = budget(1000, 0, 1000);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    budget.measure(Thresholds { percent: [70, 80, 96], hysteresis: 5 }, 100);
    budget.on_pressure(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
    let looks = || calls.swap(0, Ordering::SeqCst) > 0;
    assert!(looks(), "at what is so already");
    budget.settle(0);
    let mut held = vec![budget.try_charge(TEXT, 699).unwrap()];
    assert!(!looks() && budget.is_level_open());
    held.push(budget.try_charge(TEXT, 1).unwrap());
    assert!(looks());
    // Most of it is merely cached.
    budget.settle(600);
    assert_eq!((budget.level(), budget.tied_bytes()), (Level::Normal, 100));
    held.push(budget.try_charge(TEXT, 299).unwrap());
    assert!(!looks(), "it would take 1300 for another level");
    // Handles are taken to it.
    budget.settle(150);
    assert_eq!((budget.level(), budget.tied_bytes()), (Level::High, 849));
    held.push(budget.try_charge(TEXT, 1).unwrap());
    assert!(!looks());
    drop(held.remove(2));
    assert!(looks(), "it may be below 75 %");
    budget.settle(150);
    assert_eq!(budget.level(), Level::Normal);
    held.clear();
    budget.settle(0);
    assert!(!budget.is_level_open() && budget.level() == Level::Normal);
}

#[test]
fn room_is_made_ahead_of_need_once_and_again_when_it_was_made_or_a_look_found_more() {
    let budget = budget(1000, 0, 1000);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    budget.measure(Thresholds::default(), 90);
    budget.on_surplus(Box::new(move || _ = seen.fetch_add(1, Ordering::SeqCst)));
    let told = || calls.swap(0, Ordering::SeqCst);
    let first = budget.try_charge(TEXT, 900).unwrap();
    let mut more = budget.try_charge(TEXT, 49).unwrap();
    assert_eq!((told(), budget.surplus_bytes()), (0, 49));
    more.absorb(budget.try_charge(TEXT, 1).unwrap());
    assert_eq!((told(), budget.surplus_bytes()), (1, 50));
    more.absorb(budget.try_charge(TEXT, 30).unwrap());
    assert_eq!(told(), 0, "somebody is at it");
    more.shrink_to(10);
    more.absorb(budget.try_charge(TEXT, 80).unwrap());
    assert_eq!(told(), 0, "it did not come down to the target");
    drop(more);
    let mut more = budget.try_charge(TEXT, 50).unwrap();
    assert_eq!(told(), 1);
    budget.settle(900);
    assert_eq!(told(), 1);
    more.absorb(budget.try_charge(TEXT, 1).unwrap());
    assert_eq!(told(), 0);
    drop(first);
}

#[test]
fn no_change_of_level_is_missed_under_any_interleaving() {
    // Threads fill and empty the budget; whenever all stand still, the level is what it must be.
    let budget = budget(1000, 0, 1000);
    budget.measure(Thresholds::default(), 90);
    let weak = Arc::downgrade(&budget);
    budget.on_pressure(Box::new(move || {
        // As if somebody looked at once.
        if let Some(budget) = weak.upgrade() {
            budget.settle(0);
        }
    }));
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (budget, barrier) = (&budget, &barrier);
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut held = Vec::new();
                for _ in 0..300 {
                    for _ in 0..20 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        if random >> 62 == 0 {
                            held.clear();
                        }
                        held.extend(budget.try_charge(MESH, (random >> 33) % 120));
                    }
                    barrier.wait();
                    let (used, level) = (budget.used().0, budget.level() as usize);
                    let strict = [700, 850, 950].iter().filter(|from| used >= **from).count();
                    let loose = [650, 800, 900].iter().filter(|from| used >= **from).count();
                    assert!(strict <= level && level <= loose, "{used} of 1000 is level {level}");
                    barrier.wait();
                }
            });
        }
    });
}
