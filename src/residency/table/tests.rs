//! Hits, publications and evictions of the table.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::residency::testing::{World, bundle};

fn id(path: &str) -> AssetId {
    AssetId::of_path(path)
}

fn bytes(asset: Option<Asset>) -> Option<Vec<u8>> {
    asset.map(|asset| asset.to_vec())
}

#[test]
fn a_reader_sees_all_of_a_publication_or_nothing() {
    let world = World::new();
    let table = &world.table;
    table.admit(world.asset("a", Generation(1), b"a1"), None);
    table.admit(world.asset("b", Generation(1), b"b1"), None);
    let snapshot = world.live();
    let next = world.generations.prepare_as(bundle(), Generation(2));
    assert_eq!(bytes(table.get(id("a"))).unwrap(), b"a1");
    let changes = [(id("a"), Some(world.asset("a", Generation(2), b"a2"))), (id("b"), None)];
    assert!(table.publish(&next, &changes));
    assert_eq!((bytes(table.get(id("a"))).unwrap(), table.get(id("b")).is_none()), (b"a2".to_vec(), true));
    let old = snapshot.generation();
    assert_eq!(bytes(table.get_at(id("a"), old)).unwrap(), b"a1");
    assert_eq!(bytes(table.get_at(id("b"), old)).unwrap(), b"b1");
    assert!(!table.publish(&next, &changes), "a number is published once");
    assert!(world.generations.current().generation() == Generation(2));
}

#[test]
fn a_load_that_a_publication_overtook_is_not_seen_by_newer_readers() {
    let world = World::new();
    let snapshot = world.live();
    let loading = world.asset("a", Generation(1), b"old");
    world.publish(&[("a", None)]);
    world.publish(&[("b", None)]);
    world.table.admit(loading, None);
    assert!(world.table.get(id("a")).is_none());
    assert!(world.table.get_at(id("a"), Generation(2)).is_none());
    assert_eq!(bytes(world.table.get_at(id("a"), Generation(1))).unwrap(), b"old");
    drop(snapshot);
    world.table.retire(world.generations.oldest_live());
    assert!(world.table.get_at(id("a"), Generation(1)).is_none());
    assert_eq!(world.table.stats(), TableStats::default());
    assert_eq!(world.budget.snapshot().charged, 0);
    world.table.admit(world.asset("a", Generation(1), b"older"), None);
    assert_eq!(world.table.stats().versions, 0, "nobody lives in generation 1 any more");
}

#[test]
fn a_stored_form_ends_with_its_asset_also_when_a_publication_overtook_its_load() {
    let world = World::new();
    let snapshot = world.live();
    let form = |generation, bytes: &[u8]| {
        let name = crate::residency::testing::name("a");
        let name = crate::residency::Name { id: name.id.stored(), ..name };
        Asset::new(name, generation, world.content(bytes))
    };
    world.table.admit(form(Generation(1), b"z1"), None);
    world.table.admit(world.asset("a", Generation(1), b"a1"), None);
    assert_eq!(bytes(world.table.get(id("a").stored())).unwrap(), b"z1");
    assert_eq!(world.table.evict(id("a").stored()), 2);
    let loading = form(Generation(1), b"z1");
    world.publish(&[("a", Some(b"a2"))]);
    world.table.admit(loading, None);
    assert!(world.table.get(id("a").stored()).is_none());
    assert_eq!(bytes(world.table.get_at(id("a").stored(), Generation(1))).unwrap(), b"z1");
    world.table.admit(form(Generation(2), b"z2"), None);
    assert_eq!(bytes(world.table.get(id("a").stored())).unwrap(), b"z2");
    world.publish(&[("b", None)]);
    assert_eq!(bytes(world.table.get(id("a").stored())).unwrap(), b"z2", "another asset changed");
    drop(snapshot);
    world.table.retire(world.generations.oldest_live());
    assert!(world.table.get_at(id("a").stored(), Generation(1)).is_none());
    world.publish(&[("a", None)]);
    world.table.retire(world.generations.oldest_live());
    assert_eq!(world.table.stats(), TableStats::default());
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn the_same_bytes_are_resident_once() {
    let world = World::new();
    let _snapshot = world.live();
    world.publish(&[("other", None)]);
    let first = world.table.admit(world.asset("a", Generation(2), b"x"), None);
    let again = world.table.admit(world.asset("a", Generation(2), b"x"), None);
    let earlier = world.table.admit(world.asset("a", Generation(1), b"x"), None);
    assert!([&again, &earlier].into_iter().all(|asset| asset.as_ptr() == first.as_ptr()));
    assert!(world.table.get_at(id("a"), Generation(1)).is_some());
    let content = world.table.content(&first.hash()).unwrap();
    world.table.admit(Asset::new(crate::residency::testing::name("b"), Generation(2), content), None);
    assert_eq!(world.table.stats(), TableStats { versions: 2, assets: 2, contents: 1 });
    assert_eq!(world.budget.snapshot().charged, 1);
}

#[test]
fn what_is_held_is_not_evicted() {
    let world = World::new();
    let held = world.table.admit(world.asset("a", Generation(1), b"12345"), None);
    assert_eq!(world.table.evict(id("a")), 0);
    assert_eq!(world.table.largest_pinned(3), [(held.path().clone(), 5)]);
    let bytes = held.into_bytes();
    assert!(world.table.candidate(id("a")).unwrap().pinned);
    drop(bytes);
    assert!(!world.table.candidate(id("a")).unwrap().pinned);
    assert_eq!(world.table.evict(id("a")), 5);
    assert!(world.table.get(id("a")).is_none());
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn what_a_reader_uses_stays_until_it_is_done_and_nothing_else_does() {
    let world = World::new();
    for (path, bytes) in [("a", b"12345"), ("b", b"67890")] {
        drop(world.table.admit(world.asset(path, Generation(1), bytes), None));
    }
    let used = world.table.read(id("a"), |asset| {
        assert!(!world.table.candidate(id("a")).unwrap().pinned, "it is not counted");
        assert_eq!((world.table.evict(id("b")), world.table.evict(id("a"))), (5, 0));
        assert!(world.table.get(id("a")).is_none());
        assert_eq!(world.budget.snapshot().charged, 5);
        asset.to_vec()
    });
    assert_eq!(used.unwrap(), b"12345");
    assert_eq!(world.budget.snapshot().charged, 0, "the charge ended with the use");
}

#[test]
fn a_reader_may_use_others_meanwhile_and_keep_a_handle() {
    let world = World::new();
    for path in ["a", "b"] {
        drop(world.table.admit(world.asset(path, Generation(1), path.as_bytes()), None));
    }
    let kept = world.table.read(id("a"), |first| {
        let second = world.table.read(id("b"), |second| {
            assert!(world.table.candidate(id("b")).unwrap().pinned, "the second is counted");
            world.table.evict_all(&[id("a"), id("b")]);
            second.clone()
        });
        assert_eq!(&first[..], b"a");
        (first.clone(), second.unwrap())
    });
    let (first, second) = kept.unwrap();
    assert_eq!((&first[..], &second[..]), (&b"a"[..], &b"b"[..]));
    assert!(world.table.get(id("a")).is_none() && world.table.get(id("b")).is_some());
    drop((first, second));
    world.table.clear();
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn a_reader_that_panics_lets_go() {
    let world = World::new();
    drop(world.table.admit(world.asset("a", Generation(1), b"x"), None));
    let read = || world.table.read(id("a"), |_| std::panic::resume_unwind(Box::new("the reader")));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err());
    assert_eq!(world.table.evict(id("a")), 1);
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn readers_on_several_threads_share_one_evicted_asset_to_the_last() {
    let world = World::new();
    drop(world.table.admit(world.asset("a", Generation(1), b"x"), None));
    let inside = std::sync::Barrier::new(3);
    let evicted = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let read = || {
            world.table.read(id("a"), |asset| {
                inside.wait();
                evicted.wait();
                assert_eq!(&asset[..], b"x");
            })
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        inside.wait();
        assert_eq!((world.table.evict(id("a")), world.budget.snapshot().charged), (0, 1));
        evicted.wait();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap().is_some()));
    });
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn the_same_handle_is_admitted_twice_without_harm() {
    let world = World::new();
    let first = world.live();
    let asset = world.table.admit(world.asset("a", Generation(1), b"x"), None);
    world.publish(&[("a", None)]);
    drop(first);
    world.table.retire(world.generations.oldest_live());
    assert_eq!(world.table.stats().versions, 0);
    let other = World::new();
    let again = other.table.admit(asset.clone(), None);
    assert_eq!(again.as_ptr(), asset.as_ptr(), "the bytes are the same");
    assert!(other.table.get(id("a")).is_some_and(|found| found.as_ptr() == again.as_ptr()));
    drop((asset, again));
    other.table.clear();
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn readers_never_see_freed_bytes_while_what_they_read_is_evicted() {
    const ASSETS: usize = 8;
    let world = World::new();
    let paths: Vec<String> = (0..ASSETS).map(|index| format!("asset/{index}")).collect();
    let ids: Vec<AssetId> = paths.iter().map(|path| id(path)).collect();
    let stop = AtomicBool::new(false);
    let hits = std::thread::scope(|scope| {
        let read = || {
            let mut hits = 0usize;
            while !stop.load(Ordering::Relaxed) {
                for (index, id) in ids.iter().enumerate() {
                    let all = |asset: &Asset| asset.len() == 256 && asset.iter().all(|byte| *byte == index as u8);
                    hits += usize::from(world.table.read(*id, |asset| assert!(all(asset))).is_some());
                    hits += usize::from(world.table.get(*id).is_some_and(|asset| all(&asset)));
                }
            }
            hits
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for turn in 0..20_000 {
            let index = turn % ASSETS;
            // What is freed is filled with other bytes at once.
            drop(world.content(&[0xee; 256]));
            drop(world.table.admit(world.asset(&paths[index], Generation(1), &[index as u8; 256]), None));
            world.table.evict_all(&[ids[(turn * 5) % ASSETS], ids[(turn * 3 + 1) % ASSETS]]);
        }
        stop.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap()).iter().sum::<usize>()
    });
    assert!(hits > 0);
    world.table.clear();
    assert_eq!(world.budget.snapshot().charged, 0);
}

#[test]
fn a_hit_does_not_wait_for_a_writer() {
    let world = World::new();
    drop(world.table.admit(world.asset("a", Generation(1), b"x"), None));
    let _writing = world.table.writer.lock();
    // Were the lock taken by any of these, this thread would wait for itself.
    assert!(world.table.get(id("a")).is_some() && world.table.get(id("b")).is_none());
    assert!(world.table.peek(id("a")).is_some() && world.table.candidates().len() == 1);
}

#[test]
fn a_hit_notes_its_tick_and_a_peek_does_not() {
    let world = World::new();
    drop(world.table.admit(world.asset("a", Generation(1), b"x"), None));
    let tick = world.table.advance_tick();
    world.table.peek(id("a")).unwrap();
    assert_eq!(world.table.candidate(id("a")).unwrap().usage.tick(), 0);
    world.table.get(id("a")).unwrap();
    assert_eq!(world.table.candidate(id("a")).unwrap().usage.tick(), tick);
}

#[test]
fn ids_that_were_chosen_to_collide_are_found_like_others() {
    let world = World::new();
    let content = world.content(b"x");
    let mut name = crate::residency::testing::name("a");
    let ids: Vec<AssetId> = (0..5000u64).map(|n| AssetId(n << 40)).chain([AssetId(u64::MAX)]).collect();
    for id in &ids {
        name.id = *id;
        world.table.admit(Asset::new(name.clone(), Generation(1), Arc::clone(&content)), None);
    }
    assert!(ids.iter().all(|id| world.table.get(*id).is_some_and(|asset| asset.id() == *id)));
    assert_eq!(world.table.candidates().len(), ids.len());
    world.table.clear();
    assert_eq!(world.table.stats().versions, 0);
}

#[test]
fn an_id_without_a_place_under_a_seed_gets_one_under_the_next() {
    let world = World::new();
    let key = |id| world.table.readers.look(|section| world.table.slots.load(section).cell_key(id));
    // Keys are ids mixed by exclusive or, so the key of id 0 is the id whose key is 0.
    let unlucky = key(AssetId(0));
    assert_eq!(key(AssetId(unlucky)), 0);
    let mut name = crate::residency::testing::name("a");
    name.id = AssetId(unlucky);
    assert!(world.table.get(name.id).is_none());
    world.table.admit(Asset::new(name.clone(), Generation(1), world.content(b"x")), None);
    assert!(world.table.get(name.id).is_some());
}

/// What a reader of each generation must find, if anything.
#[derive(Default)]
struct Truth(BTreeMap<(usize, u64), Vec<u8>>);

impl Truth {
    fn at(&self, asset: usize, generation: u64) -> Vec<u8> {
        let before = self.0.range((asset, 0)..=(asset, generation)).next_back();
        before.map_or_else(|| vec![asset as u8], |(_, bytes)| bytes.clone())
    }
}

proptest! {
    #[test]
    fn every_hit_is_what_its_generation_has(
        steps in proptest::collection::vec((0usize..6, 0usize..4, 0usize..4, any::<u8>()), 1..60),
    ) {
        const PATHS: [&str; 4] = ["a", "b", "c", "d"];
        let world = World::new();
        let mut truth = Truth::default();
        let mut held = vec![world.live()];
        for (step, asset, which, byte) in steps {
            let current = world.table.current();
            match step {
                0 | 1 => {
                    // Publish a change of one or two assets, resident at once or not.
                    let bytes = [byte % 3, 9];
                    let next = current.next();
                    truth.0.insert((asset, next.0), bytes.to_vec());
                    let mut changes = vec![(PATHS[asset], (byte > 99).then_some(&bytes[..]))];
                    if which != asset {
                        truth.0.insert((which, next.0), bytes.to_vec());
                        changes.push((PATHS[which], None));
                    }
                    world.publish(&changes);
                    if step == 0 {
                        held.push(world.live());
                    }
                }
                2 | 3 => {
                    let generation = held[which % held.len()].generation();
                    let bytes = truth.at(asset, generation.0);
                    world.table.admit(world.asset(PATHS[asset], generation, &bytes), None);
                    prop_assert!(world.table.get_at(id(PATHS[asset]), generation).is_some());
                }
                4 => drop(world.table.evict(id(PATHS[asset]))),
                _ => {
                    held.swap_remove(which % held.len());
                    held.push(world.live());
                    world.table.retire(world.generations.oldest_live());
                }
            }
            for (asset, path) in PATHS.iter().enumerate() {
                for live in held.iter().chain([&world.live()]) {
                    let generation = live.generation();
                    if let Some(found) = world.table.get_at(id(path), generation) {
                        prop_assert_eq!(found.to_vec(), truth.at(asset, generation.0));
                    }
                }
            }
        }
        drop(held);
        world.table.retire(world.table.current());
        world.table.clear();
        prop_assert_eq!(world.table.stats().versions, 0);
        prop_assert_eq!(world.budget.snapshot().charged, 0);
    }
}

#[test]
fn readers_never_see_half_a_publication_while_writers_admit_evict_and_grow() {
    const ASSETS: usize = 64;
    const GENERATIONS: u64 = 300;
    let world = World::new();
    let paths: Vec<String> = (0..ASSETS).map(|index| format!("asset/{index}")).collect();
    // Every asset changes in every generation, and its bytes are the generation's number.
    let truth = |generation: Generation| generation.0.to_le_bytes();
    let stop = AtomicBool::new(false);
    let hits = std::thread::scope(|scope| {
        let read = || {
            let mut hits = 0usize;
            while !stop.load(Ordering::Relaxed) {
                let live = world.live();
                for path in &paths {
                    if let Some(found) = world.table.get_at(id(path), live.generation()) {
                        assert_eq!(*found, truth(live.generation()));
                        hits += 1;
                    }
                    let before = world.table.current();
                    if let Some(found) = world.table.get(id(path)) {
                        let found = u64::from_le_bytes((*found).try_into().unwrap());
                        assert!(before.0 <= found && found <= world.table.current().0);
                    }
                }
            }
            hits
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                let live = world.live();
                let path = &paths[turn % ASSETS];
                world.table.admit(world.asset(path, live.generation(), &truth(live.generation())), None);
                world.table.evict(id(&paths[(turn * 7) % ASSETS]));
                // Fresh ids make the table grow and be rebuilt under the readers.
                let extra = format!("extra/{turn}");
                world.table.admit(world.asset(&extra, live.generation(), b"e"), None);
                world.table.evict(id(&extra));
                turn += 1;
            }
        });
        for generation in 2..GENERATIONS {
            let bytes = truth(Generation(generation));
            let change = |(index, path): (usize, &String)| {
                let resident = index % 2 == 0;
                let asset = resident.then(|| world.asset(path, Generation(generation), &bytes));
                (id(path), asset)
            };
            let changes: Vec<_> = paths.iter().enumerate().map(change).collect();
            let live = world.generations.prepare_as(bundle(), Generation(generation));
            assert!(world.table.publish(&live, &changes));
            drop((live, changes));
            world.table.retire(world.generations.oldest_live());
        }
        stop.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap()).iter().sum::<usize>()
    });
    assert!(hits > 0);
    world.table.retire(world.table.current());
    world.table.clear();
    assert_eq!(world.budget.snapshot().charged, 0);
}
