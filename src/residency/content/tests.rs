//! Memory that is filled, shared and freed with its charge.

use std::collections::BTreeMap;
use std::sync::mpsc;

use super::*;
use crate::ids::AssetKind;
use crate::platform::threads::OsThreads;
use crate::residency::testing::content;
use crate::residency::{Asset, Budget, Reaper, testing};

fn budget() -> Arc<Budget> {
    Budget::new(8 << 20, 0, &BTreeMap::new())
}

fn charged(budget: &Budget) -> u64 {
    budget.snapshot().charged
}

#[test]
fn a_charge_ends_with_the_last_handle_to_its_memory() {
    let budget = budget();
    let asset = Asset::new(testing::name("a.txt"), crate::Generation(1), content(&budget, b"hello"));
    let bytes = asset.clone().into_bytes();
    assert_eq!(bytes.as_ptr(), asset.as_ptr(), "no copy");
    let rest = bytes.slice(1..3);
    drop((asset, bytes));
    assert_eq!((&rest[..], charged(&budget)), (&b"el"[..], 5));
    drop(rest);
    assert_eq!(charged(&budget), 0);
}

#[test]
fn what_is_dropped_unfinished_is_free_and_uncharged() {
    let budget = budget();
    let charge = budget.try_charge(AssetKind::Text, 4).unwrap();
    let builder = Content::build(4, charge).unwrap();
    builder.fill(0, 2, |_| Ok(())).unwrap();
    assert!(builder.fill(1, 2, |_| Ok(())).is_err());
    assert!(builder.fill(3, usize::MAX, |_| Ok(())).is_err());
    assert!(builder.finish(ContentHash::of(b"")).is_none());
    drop(builder);
    assert_eq!(charged(&budget), 0);
    let huge = budget.try_charge(AssetKind::Text, 8).unwrap();
    assert!(matches!(Content::build(usize::MAX, huge), Err(Error::Io { .. })));
    assert_eq!(charged(&budget), 0);
}

#[test]
fn a_large_free_happens_on_the_reaper_and_its_charge_ends_there() {
    let budget = budget();
    let reaper = Reaper::start(&OsThreads, &budget).unwrap();
    let (freed, on) = mpsc::channel();
    budget.on_release(Box::new(move || drop(freed.send(std::thread::current().name().map(str::to_owned)))));
    for (len, name) in [(limits::LARGE_FREE_BYTES, Some("flyloft-reaper".to_owned())), (100, None)] {
        let large = content(&budget, &vec![1; len]);
        budget.set_waiting(true);
        drop(large);
        let freed_on = on.recv().unwrap();
        assert!(name.is_none_or(|name| freed_on.is_some_and(|on| on.contains(&name))));
    }
    drop(reaper);
    assert_eq!(charged(&budget), 0);
}

#[test]
fn without_a_reaper_memory_is_freed_in_place() {
    let budget = budget();
    let large = vec![1; limits::LARGE_FREE_BYTES];
    drop(content(&budget, &large));
    assert_eq!(charged(&budget), 0);
    let outlives = content(&budget, &large);
    let reaper = Reaper::start(&OsThreads, &budget).unwrap();
    let waits = content(&budget, &large);
    drop(waits);
    reaper.stop();
    assert_eq!(charged(&budget), large.len() as u64, "what was sent is free once the reaper is joined");
    drop(outlives);
    assert_eq!(charged(&budget), 0);
}

#[test]
fn a_chunk_is_a_range_of_the_same_memory() {
    let budget = budget();
    let chunk = Chunk::new(100, content(&budget, b"0123456789"));
    let part = chunk.slice(2..6).unwrap().slice(1..3).unwrap();
    assert_eq!((&part[..], part.offset()), (&b"34"[..], 103));
    assert!(chunk.slice(5..11).is_none());
    drop(chunk);
    let bytes = part.into_bytes();
    assert_eq!(charged(&budget), 10);
    drop(bytes);
    assert_eq!(charged(&budget), 0);
}
