//! How readers look into the table without a lock, and how what was taken out of it is freed all the same.
//!
//! A reader looks things up inside a [`Section`]; what it uses for longer it counts, or holds ([`Section::hold`]). A
//! writer unlinks, and gives what it unlinked to a [`Grace`]: that is over when every section that could have found it
//! has ended. Sections are short and run no foreign code, so a grace ends at once, unless the operating system stopped
//! a thread inside one. What is still held when the grace is over goes to its holder.
//!
//! What a reader pays: two stores to its own line, and nothing else (the barrier is the writers', see
//! [`crate::platform::barrier`]). Every reader's step is one of a fixed number: it is wait-free. A thread's first
//! section allocates its record, once in the thread's life; records are reused and never freed.

mod blocks;
mod counted;
mod record;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

pub(super) use counted::{Counted, Hold, Linked, Place, Replaced, Shown, SteadyBytes, Swap};

use self::record::Tag;
use super::asset::Asset;
use super::table::Node;
use crate::platform::barrier;

/// The atomics and barriers that the protocol of `record.rs` is written in, so that a model checker can replace them.
mod sync {
    #[cfg(not(all(test, flyloft_loom)))]
    pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    #[cfg(all(test, flyloft_loom))]
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    #[cfg(not(all(test, flyloft_loom)))]
    pub(super) use crate::platform::barrier::{heavy, light};

    #[cfg(all(test, flyloft_loom))]
    pub(super) fn light() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    #[cfg(all(test, flyloft_loom))]
    pub(super) fn heavy() -> bool {
        loom::sync::atomic::fence(Ordering::SeqCst);
        true
    }
}

/// A record and its place among all of them.
struct Reader {
    record: record::Record<Asset>,
    /// Whether a thread has it.
    taken: AtomicBool,
    /// The one that was made before it.
    next: AtomicPtr<Reader>,
}

/// The reader that was made last.
static NEWEST: AtomicPtr<Reader> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static MINE: Cell<Option<&'static Reader>> = const { Cell::new(None) };
    /// Gives the thread's reader back when the thread ends.
    static RETURN: Return = const { Return };
}

struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        if let Some(reader) = MINE.take() {
            reader.taken.store(false, Ordering::Release);
        }
    }
}

#[allow(unsafe_code)]
fn follow(link: &AtomicPtr<Reader>) -> Option<&'static Reader> {
    // SAFETY: readers are leaked boxes: what `NEWEST` and `next` were ever set to lives for ever, and is only shared.
    unsafe { link.load(Ordering::Acquire).as_ref() }
}

/// Every reader there ever was.
fn readers() -> impl Iterator<Item = &'static Reader> {
    std::iter::successors(follow(&NEWEST), |reader| follow(&reader.next))
}

impl Reader {
    /// One that no other thread has.
    fn claim() -> &'static Reader {
        let free =
            |reader: &&Reader| !reader.taken.load(Ordering::Relaxed) && !reader.taken.swap(true, Ordering::AcqRel);
        if let Some(reader) = readers().find(free) {
            return reader;
        }
        let (record, taken) = (record::Record::new(), AtomicBool::new(true));
        let reader: &'static Reader = Box::leak(Box::new(Reader { record, taken, next: AtomicPtr::default() }));
        let mut newest = NEWEST.load(Ordering::Acquire);
        loop {
            reader.next.store(newest, Ordering::Release);
            let own = std::ptr::from_ref(reader).cast_mut();
            match NEWEST.compare_exchange(newest, own, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return reader,
                Err(now) => newest = now,
            }
        }
    }
}

/// Gives this thread's reader to `read`.
#[inline]
fn with_reader<R>(read: impl FnOnce(&'static Reader) -> R) -> R {
    match MINE.get() {
        Some(reader) => read(reader),
        None => with_new_reader(read),
    }
}

#[cold]
fn with_new_reader<R>(read: impl FnOnce(&'static Reader) -> R) -> R {
    /// Gives a reader back that was taken for one use.
    struct Once(&'static Reader);
    impl Drop for Once {
        fn drop(&mut self) {
            self.0.taken.store(false, Ordering::Release);
        }
    }
    let reader = Reader::claim();
    if RETURN.try_with(|_| ()).is_ok() {
        MINE.set(Some(reader));
        read(reader)
    } else {
        // The thread is being torn down, and nobody would give it back later.
        let once = Once(reader);
        read(once.0)
    }
}

/// While it lives, nothing that its thread finds in a table is freed. Short, and without foreign code inside.
pub(super) struct Section {
    reader: &'static Reader,
    number: u64,
}

impl Hold for Section {}

impl Section {
    #[inline]
    fn enter(reader: &'static Reader, tag: Tag) -> Section {
        Section { reader, number: reader.record.enter(tag) }
    }

    /// Keeps `found` beyond the section, for the use of this thread: without counting, unless it holds something else
    /// already.
    #[inline]
    fn hold(&self, found: Linked<'_, Node>) -> Held {
        if self.reader.record.held() == 0 {
            self.reader.record.hold(found.address());
            Held::Uncounted(self.reader, Asset::uncounted(found))
        } else {
            Held::Counted(Asset::counted(found))
        }
    }
}

/// What a thread holds beyond a section.
enum Held {
    /// Kept by the reader's record.
    Uncounted(&'static Reader, ManuallyDrop<Asset>),
    /// Kept by its count.
    Counted(Asset),
}

impl Deref for Held {
    type Target = Asset;
    #[inline]
    fn deref(&self) -> &Asset {
        match self {
            Held::Uncounted(_, asset) => asset,
            Held::Counted(asset) => asset,
        }
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if let Held::Uncounted(reader, _) = self {
            reader.record.let_go();
        }
    }
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        self.reader.record.leave(self.number);
    }
}

/// The readers of one table, among those of all.
pub(super) struct Readers(Tag);

impl Readers {
    /// Those of a new table.
    pub(super) fn new() -> Readers {
        static TABLES: AtomicU64 = AtomicU64::new(0);
        barrier::prepare();
        Readers(Tag::of(TABLES.fetch_add(1, Ordering::Relaxed)))
    }

    /// Looks things up inside a section. `look` must run no foreign code and must not look again.
    #[inline]
    pub(super) fn look<R>(&self, look: impl FnOnce(&Section) -> R) -> R {
        with_reader(|reader| look(&Section::enter(reader, self.0)))
    }

    /// As [`Readers::look`], and then lets `read` use what was found for as long as it likes.
    #[inline]
    pub(super) fn read<R>(
        &self,
        look: impl for<'s> FnOnce(&'s Section) -> Option<Linked<'s, Node>>,
        read: impl FnOnce(&Asset) -> R,
    ) -> Option<R> {
        with_reader(|reader| {
            let section = Section::enter(reader, self.0);
            let held = section.hold(look(&section)?);
            drop(section);
            Some(read(&held))
        })
    }

    /// Begins the grace of what was unlinked before.
    pub(super) fn grace(&self) -> Grace {
        Grace::begin(self.0)
    }
}

/// The time until every section has ended that may have found what was unlinked before.
pub(super) struct Grace {
    tag: Tag,
    inside: Vec<(&'static Reader, u64)>,
    /// Whether the barrier was one.
    certain: bool,
}

/// How often [`Grace::wait`] looks without letting another thread run.
const LOOKS: usize = 100;

impl Grace {
    fn begin(tag: Tag) -> Grace {
        let certain = barrier::heavy();
        let inside = |reader: &'static Reader| reader.record.inside(tag).map(|number| (reader, number));
        Grace { tag, inside: readers().filter_map(inside).collect(), certain }
    }

    /// Whether it is over.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.certain {
            *self = Grace::begin(self.tag);
        }
        self.inside.retain(|(reader, number)| reader.record.is_in(*number));
        self.certain && self.inside.is_empty()
    }

    /// Waits for as long as a section lasts, and while `yields` other threads had their turn. Whether it is over then;
    /// when it is not, the operating system does not run a thread that is inside a section.
    pub(super) fn wait(&mut self, yields: usize) -> bool {
        for look in 0..LOOKS + yields {
            if self.is_over() {
                return true;
            }
            if look < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        self.is_over()
    }
}

/// Drops the table's references to what was unlinked before a grace that is over; what is held goes to its holders.
pub(super) fn let_go(unlinked: impl IntoIterator<Item = Asset>) {
    let holds = |reader: &'static Reader| Some((reader, reader.record.held())).filter(|(_, held)| *held != 0);
    // Nobody finds any of it any more, so it is enough to look once.
    let holders: Vec<_> = readers().filter_map(holds).collect();
    for asset in unlinked {
        let address = asset.address();
        for (reader, _) in holders.iter().filter(|(_, held)| *held == address) {
            reader.record.owe(address, asset.clone());
        }
    }
}

#[cfg(all(test, flyloft_loom))]
mod models;
