//! Every interleaving of the protocol of `record.rs`, under the C11 memory model, with full fences for the barriers:
//!
//! ```sh
//! scripts/models.sh
//! ```
//! A thing that is dropped says so; a reader that uses it after that is a fault, and so is a thing that nobody drops.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use super::record::{Record, Tag};

/// Something that knows whether it was dropped. The places of the model lead to its number.
struct Thing(Arc<AtomicBool>);

impl Drop for Thing {
    fn drop(&mut self) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "dropped twice");
    }
}

/// One cell of a table that leads to the thing with number 1 (and 2, where there is a second), and one reader.
struct World {
    record: Record<Arc<Thing>>,
    cell: AtomicUsize,
    dropped: [Arc<AtomicBool>; 2],
}

impl World {
    fn new() -> (Arc<World>, [Arc<Thing>; 2]) {
        let dropped = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let things = dropped.each_ref().map(|dropped| Arc::new(Thing(Arc::clone(dropped))));
        (Arc::new(World { record: Record::new(), cell: AtomicUsize::new(1), dropped }), things)
    }

    /// A use of thing number `found`: a fault once it was dropped. The load is relaxed, as a read of its bytes is.
    fn look_at(&self, found: usize) {
        assert!(!self.dropped[found - 1].load(Ordering::Relaxed), "used after it was dropped");
    }

    /// What `hold::read` does.
    fn read(&self) {
        let number = self.record.enter(Tag::of(1));
        let found = self.cell.load(Ordering::Acquire);
        if found == 0 {
            return self.record.leave(number);
        }
        self.look_at(found);
        self.record.hold(found);
        self.record.leave(number);
        self.look_at(found);
        self.record.let_go();
    }

    /// What a writer does: unlink, wait for the grace, hand over or drop.
    fn replace(&self, with: usize, thing: Arc<Thing>) {
        let address = self.cell.swap(with, Ordering::AcqRel);
        assert!(super::sync::heavy());
        if let Some(number) = self.record.inside(Tag::of(1)) {
            while self.record.is_in(number) {
                thread::yield_now();
            }
        }
        if self.record.held() == address {
            self.record.owe(address, Arc::clone(&thing));
        }
        drop(thing);
    }

    fn all_dropped(&self, count: usize) -> bool {
        self.dropped[..count].iter().all(|dropped| dropped.load(Ordering::SeqCst))
    }
}

fn check(bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.check(model);
}

#[test]
fn a_hit_against_an_eviction() {
    check(None, || {
        let (world, [thing, other]) = World::new();
        drop(other);
        let reader = Arc::clone(&world);
        let reading = thread::spawn(move || reader.read());
        world.replace(0, thing);
        reading.join().unwrap();
        // Nothing that was let go of by both is kept.
        assert!(world.all_dropped(1));
    });
}

#[test]
fn two_hits_against_a_publication_and_an_eviction() {
    check(Some(3), || {
        let (world, [first, second]) = World::new();
        let reader = Arc::clone(&world);
        let reading = thread::spawn(move || {
            reader.read();
            reader.read();
        });
        world.replace(2, first);
        world.replace(0, second);
        reading.join().unwrap();
        assert!(world.all_dropped(2));
    });
}

#[test]
fn two_hits_against_two_writers() {
    check(Some(2), || {
        let (world, [first, second]) = World::new();
        let reader = Arc::clone(&world);
        let reading = thread::spawn(move || {
            reader.read();
            reader.read();
        });
        let writer = Arc::clone(&world);
        // The second writer begins when the first has unlinked, as the writers' mutex has it.
        let writing = thread::spawn(move || {
            while writer.cell.load(Ordering::Acquire) != 2 {
                thread::yield_now();
            }
            writer.replace(0, second);
        });
        world.replace(2, first);
        writing.join().unwrap();
        reading.join().unwrap();
        assert!(world.all_dropped(2));
    });
}

#[test]
fn a_reader_keeps_what_it_holds_and_nothing_else() {
    check(None, || {
        let (world, [first, second]) = World::new();
        let number = world.record.enter(Tag::of(1));
        world.record.hold(1);
        world.record.leave(number);
        // The reader stalls here, and both things are replaced.
        let writer = Arc::clone(&world);
        let writing = thread::spawn(move || {
            writer.replace(2, first);
            writer.replace(0, second);
        });
        writing.join().unwrap();
        world.look_at(1);
        assert!(!world.all_dropped(1) && world.dropped[1].load(Ordering::SeqCst));
        world.record.let_go();
        assert!(world.all_dropped(2));
    });
}
