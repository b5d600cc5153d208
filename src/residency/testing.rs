//! Short cuts for the tests of this module: a bundle in memory, a small world, assets of given bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Answer, Ask, Asset, Budget, Content, Generations, Key, Ledger, Live, Name, ResidentTable, Ticket, Want};
use crate::bundle::{Bundle, BundleWriter, Changes, Params};
use crate::config::Layout;
use crate::error::Result;
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};
use crate::platform::clock::{Clock, ManualClock};
use crate::storage::{ReadAt, WriteAt};

#[derive(Default)]
struct InMemory(Mutex<Vec<u8>>);

impl ReadAt for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let found = bytes.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

impl WriteAt for InMemory {
    fn write_all_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let end = offset as usize + from.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(from);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An empty bundle. Tests give generations numbers of their own.
pub(super) fn bundle() -> Bundle {
    static BUNDLE: OnceLock<Bundle> = OnceLock::new();
    let make = || {
        let storage = Arc::<InMemory>::default();
        let mut writer = BundleWriter::create(storage, Params::new(Layout::Access)).unwrap();
        writer.stage(Changes::default()).unwrap()
    };
    BUNDLE.get_or_init(make).clone()
}

/// Everything of this module, put together.
pub(super) struct World {
    pub budget: Arc<Budget>,
    pub generations: Arc<Generations>,
    pub table: Arc<ResidentTable>,
    pub ledger: Arc<Ledger>,
    pub clock: ManualClock,
}

impl World {
    pub fn new() -> World {
        Self::with_room_for(1 << 20)
    }

    pub fn with_room_for(requests: usize) -> World {
        let budget = Budget::new(64 << 20, 0, &BTreeMap::new());
        let generations = Generations::starting_with(bundle(), Generation(1));
        let table = Arc::new(ResidentTable::new(&generations, 7));
        let ledger = Ledger::new(Arc::clone(&table), requests);
        World { budget, generations, table, ledger, clock: ManualClock::new() }
    }

    pub fn live(&self) -> Arc<Live> {
        self.generations.current()
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn ask(&self) -> Ask {
        Ask::new(self.now())
    }

    /// The key of `path` in the current generation.
    pub fn key(&self, path: &str) -> Key {
        Key { generation: self.generations.number(), id: AssetId::of_path(path), want: Want::Resident }
    }

    pub fn join(&self, path: &str) -> Ticket {
        self.ledger.join(&self.live(), self.key(path), self.ask()).unwrap().0
    }

    pub fn content(&self, bytes: &[u8]) -> Arc<Content> {
        content(&self.budget, bytes)
    }

    pub fn asset(&self, path: &str, generation: Generation, bytes: &[u8]) -> Asset {
        Asset::new(name(path), generation, self.content(bytes))
    }

    /// Publishes the next generation with these changes.
    pub fn publish(&self, changes: &[(&str, Option<&[u8]>)]) -> Generation {
        let next = self.generations.number().next();
        let live = self.generations.prepare_as(bundle(), next);
        let change = |(path, bytes): &(&str, Option<&[u8]>)| {
            (AssetId::of_path(path), bytes.map(|bytes| self.asset(path, next, bytes)))
        };
        assert!(self.table.publish(&live, &changes.iter().map(change).collect::<Vec<_>>()));
        next
    }
}

pub(super) fn content(budget: &Arc<Budget>, bytes: &[u8]) -> Arc<Content> {
    let charge = budget.try_charge(crate::AssetKind::Text, bytes.len() as u64).unwrap();
    let builder = Content::build(bytes.len(), charge).unwrap();
    let copy = |into: &mut [u8]| {
        into.copy_from_slice(bytes);
        Ok(())
    };
    builder.fill(0, bytes.len(), copy).unwrap();
    builder.finish(ContentHash::of(bytes)).unwrap()
}

pub(super) fn name(path: &str) -> Name {
    let path = AssetPath::new(path).unwrap();
    Name { id: path.id(), kind: path.kind(), executable: false, path }
}

/// A waker that counts.
#[derive(Default)]
pub(super) struct Counted(pub std::sync::atomic::AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

pub(super) fn poll(ticket: &mut Ticket, waker: &Waker) -> Poll<Result<Answer>> {
    std::future::Future::poll(std::pin::Pin::new(ticket), &mut Context::from_waker(waker))
}

/// The bytes of an answer with an asset.
pub(super) fn bytes(answer: Result<Answer>) -> Vec<u8> {
    match answer.unwrap() {
        Answer::Asset(asset) => asset.to_vec(),
        other => panic!("not an asset: {other:?}"),
    }
}
