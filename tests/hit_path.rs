//! What the allocator sees: nothing on a hit (invariant 1), and less than 512 bytes per open request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use flyloft::bundle::{BundleWriter, Changes, Params};
use flyloft::config::Layout as BundleLayout;
use flyloft::platform::clock::{Clock, SystemClock};
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::residency::{Ask, Asset, Budget, Content, Generations, Key, Ledger, Name, ResidentTable, Ticket, Want};
use flyloft::residency::{Value, Values, Wanted};
use flyloft::{AssetId, AssetKind, AssetPath, ContentHash, Error, Generation};

fn generations() -> Arc<Generations> {
    let folder = tempfile::tempdir().unwrap();
    let (storage, _lock) = OsFileSystem.open_writer(&folder.path().join("empty.loft"), true).unwrap();
    let mut writer = BundleWriter::create(storage, Params::new(BundleLayout::Access)).unwrap();
    Generations::new(writer.stage(Changes::default()).unwrap())
}

fn admit(table: &ResidentTable, budget: &Arc<Budget>, path: &str) -> AssetId {
    let charge = budget.try_charge(AssetKind::Text, 5).unwrap();
    let builder = Content::build(5, charge).unwrap();
    let hello = |into: &mut [u8]| {
        into.copy_from_slice(b"hello");
        Ok(())
    };
    builder.fill(0, 5, hello).unwrap();
    let path = AssetPath::new(path).unwrap();
    let name = Name { id: path.id(), kind: path.kind(), executable: false, path };
    let id = name.id;
    let content = builder.finish(ContentHash::of(b"hello")).unwrap();
    drop(table.admit(Asset::new(name, Generation(1), content), None));
    id
}

#[test]
fn a_hit_of_a_decoded_value_allocates_nothing() {
    let generations = generations();
    let table = ResidentTable::new(&generations, 1);
    let budget = Budget::new(1 << 20, 0, &BTreeMap::new());
    let id = admit(&table, &budget, "a.txt");
    let content = Arc::clone(table.get(id).unwrap().content());
    let values = Arc::<Values>::default();
    let Wanted::Make(waiting, flight) = values.want::<usize>(&content, 0) else { panic!("nobody made it") };
    flight.made(Value::new(7usize, budget.try_charge(AssetKind::Text, 8).unwrap()), &content, 0);
    // Its answer holds the value, too.
    drop(waiting);
    let read = || table.read(id, |asset| asset.content().value::<usize>(table.tick())).unwrap().unwrap();
    assert_eq!(**read(), 7);
    let counted = measure(|| {
        for _ in 0..1_000 {
            assert_eq!(**read(), 7);
        }
    });
    assert_eq!(counted.count_total, 0);
    assert!(table.read(id, |asset| asset.content().value::<u8>(0)).unwrap().is_none());
    let before = budget.snapshot().charged;
    assert_eq!(values.let_go(1, None), 8);
    assert_eq!(budget.snapshot().charged, before - 8);
}

#[test]
fn a_hit_allocates_nothing() {
    let generations = generations();
    let table = ResidentTable::new(&generations, 1);
    let budget = Budget::new(1 << 20, 0, &BTreeMap::new());
    let ids: Vec<AssetId> = (0..100).map(|index| admit(&table, &budget, &format!("{index}.txt"))).collect();
    let missing = AssetId(1);
    // The first read of a thread makes its record, once in its life.
    assert!(table.get(ids[0]).is_some());
    let counted = measure(|| {
        for _ in 0..100 {
            for id in &ids {
                let asset = table.get(*id).unwrap();
                assert_eq!(asset.clone().len(), 5);
                assert_eq!(table.read_at(*id, Generation(1), |asset| asset[0]), Some(b'h'));
                let both = table.read(*id, |first| table.read(ids[0], |second| first.len() + second.len()));
                assert_eq!(both, Some(Some(10)));
            }
            table.advance_tick();
            assert!(table.get(missing).is_none());
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn an_open_request_takes_less_than_512_bytes() {
    const COUNT: usize = 100_000;
    let generations = generations();
    let table = Arc::new(ResidentTable::new(&generations, 1));
    let ledger = Ledger::new(table, COUNT);
    let live = generations.current();
    let now = SystemClock.now();
    let open = |id: usize| -> Ticket {
        let key = Key { generation: Generation(1), id: AssetId(id as u64 * 0x9e37_79b9), want: Want::Resident };
        let deadline = Some(now + Duration::from_millis(id as u64));
        ledger.join(&live, key, Ask { deadline, ..Ask::new(now) }).unwrap().0
    };
    let mut tickets: Vec<Ticket> = Vec::new();
    let opened = measure(|| tickets.extend((0..COUNT).map(open)));
    let waiting = opened.bytes_current as usize / COUNT;
    assert!(waiting < 512, "{waiting} bytes per request that waits, its deadline included");

    // With the wakers of those who wait, and the leases of those who work.
    let mut leases = Vec::new();
    let taken = measure(|| {
        leases = ledger.take_ready(COUNT);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for ticket in &mut tickets {
            assert!(std::future::Future::poll(std::pin::Pin::new(ticket), &mut context).is_pending());
        }
    });
    let leased = (opened.bytes_current + taken.bytes_current) as usize / COUNT;
    assert!(leased < 512, "{leased} bytes per request that is worked on");
    println!("{waiting} bytes per request that waits, {leased} per one that is worked on");
    let ended = measure(|| {
        for lease in leases {
            lease.answer(Err(Error::ShutDown));
        }
        assert!(tickets.iter().all(|ticket| matches!(ticket.try_answer(), Some(Err(Error::ShutDown)))));
        drop(tickets);
    });
    let left = (opened.bytes_current + taken.bytes_current + ended.bytes_current) / COUNT as i64;
    assert!(left < 128, "{left} bytes per request are kept when all are answered");
}
