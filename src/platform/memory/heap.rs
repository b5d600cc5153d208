//! A heap of its own for memory that comes and goes: one range from the operating system, handed out in blocks.
//!
//! Fresh memory is dear: the system zeroes each page as it is first touched, and a direct read must fault in and pin
//! 256 small pages per mebibyte. A block of a [`Heap`] is memory that was in use before, on huge pages where there are
//! any, and is handed out as it was left. What was never in use is made ready ahead of need by whoever calls
//! [`Heap::warm`], so that neither the zeroing nor the search for a huge page, which can take milliseconds on a machine
//! whose memory is full of cached files, falls to the thread that reads. Memory that was not made ready in time comes
//! in small pages, which need no search.
//!
//! **Every byte is always initialised**, which is why nothing is ever zeroed again: a mapping starts as zeroes, and
//! from then on a byte holds what was last written to it, by a block's owner or by the allocator for its own records.
//! What a block holds when it is taken is therefore unspecified but sound to read.

use std::alloc::Layout;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rlsf::Tlsf;
use serde::{Deserialize, Serialize};

use super::AlignedBuffer;
use super::arena::Arena;
use super::pool::Bind;

/// What the length of the range is a multiple of: the size of a huge page.
const RANGE_ALIGN: usize = super::HUGE_PAGE_BYTES;
/// Beside the bytes asked for there is one in so many, for the allocator's records, alignment and gaps.
const SLACK_DIVISOR: usize = 16;
/// Of the blocks that are taken to give their memory back.
const BLOCK_ALIGN: usize = 64;
/// Memory is made ready ahead of use by as much as was ever used, at most by this many bytes.
const AHEAD_BYTES_MAX: usize = 64 << 20;

/// Free blocks by size: 64 classes between any two powers of two, so that a fit wastes at most a 64th of a block, and
/// blocks up to 128 GiB.
type Free = Tlsf<'static, u32, u64, 32, 64>;

/// What a heap is and lends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapStats {
    /// Bytes of address space; memory is under those that were ever used.
    pub bytes: u64,
    /// Bytes of the blocks that are taken now.
    pub lent_bytes: u64,
    /// How far from its start blocks were ever lent.
    #[serde(default)]
    pub reached_bytes: u64,
    /// How far from its start the range was made ready.
    pub warmed_bytes: u64,
    /// Blocks that were asked for when none fitted.
    pub misses: u64,
    /// Bytes that a ring has registered, from the range's start on.
    #[serde(default)]
    pub registered_bytes: u64,
}

impl std::iter::Sum for HeapStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            bytes: sum.bytes + one.bytes,
            lent_bytes: sum.lent_bytes + one.lent_bytes,
            reached_bytes: sum.reached_bytes + one.reached_bytes,
            warmed_bytes: sum.warmed_bytes + one.warmed_bytes,
            misses: sum.misses + one.misses,
            registered_bytes: sum.registered_bytes + one.registered_bytes,
        })
    }
}

/// One range of memory, lent in blocks of any size. Taking and giving back takes a short lock and constant time.
///
/// ```
/// use flyloft::platform::memory::Heap;
/// let heap = Heap::new(8 << 20).expect("8 MiB");
/// let mut block = heap.take(10_000, 4096).expect("it is all free");
/// assert_eq!((block.len(), block.as_slice().as_ptr() as usize % 4096), (10_000, 0));
/// block.as_mut_slice().fill(7);
/// assert!(heap.stats().lent_bytes >= 10_000);
/// drop(block);
/// assert_eq!(heap.stats().lent_bytes, 0);
/// ```
pub struct Heap {
    /// Free blocks, with records that lie in the range; before `range`, so that it goes first.
    free: Mutex<Box<Free>>,
    lent_bytes: AtomicU64,
    misses: AtomicU64,
    /// Where the furthest block that was ever taken ends, from the start of the range.
    used_to: AtomicUsize,
    /// Where what was made ready ends.
    warm_to: AtomicUsize,
    /// Somebody was told to make memory ready and has not done it yet.
    warming: AtomicBool,
    /// Slabs, from the first on, that a ring has registered.
    registered: AtomicUsize,
    /// Held while a slab is registered, and while memory is given back to the system: what is registered stays.
    settled: Mutex<()>,
    range: Arena,
}

impl Heap {
    /// A heap that `bytes` fit into in blocks of any size that it has seen so far: there are some more. Memory is taken
    /// from the system as it is touched.
    ///
    /// # Errors
    /// `OutOfMemory` when the system has no such range.
    pub fn new(bytes: usize) -> io::Result<Arc<Self>> {
        Self::bound(bytes, None)
    }

    /// As [`Heap::new`], where `bind` says before anything is touched from which node the memory is to come. What it
    /// says when it fails is logged; the memory is used all the same, and comes from the node that touches it.
    ///
    /// # Errors
    /// As [`Heap::new`].
    #[allow(unsafe_code)]
    pub fn bound(bytes: usize, bind: Option<&Bind<'_>>) -> io::Result<Arc<Self>> {
        let room = bytes.checked_add(bytes / SLACK_DIVISOR);
        let room = room.and_then(|room| room.max(RANGE_ALIGN).checked_next_multiple_of(RANGE_ALIGN));
        let range = Arena::reserve(room.ok_or(io::ErrorKind::OutOfMemory)?, RANGE_ALIGN)?;
        if let Some(Err(error)) = bind.map(|bind| bind(range.start(), range.len())) {
            tracing::warn!(%error, "resident memory is not bound to its node; it comes from the one that touches it");
        }
        let mut free: Box<Free> = Box::new(Tlsf::new());
        let whole = NonNull::slice_from_raw_parts(range.start(), range.len());
        // SAFETY: the range is ours alone, readable and writable, and never moves. It outlives every use of `free`:
        // both are fields of this heap, and every block that is taken keeps the heap.
        let added = unsafe { free.insert_free_block_ptr(whole) };
        if added.is_none() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Arc::new(Self {
            free: Mutex::new(free),
            lent_bytes: 0.into(),
            misses: 0.into(),
            used_to: 0.into(),
            warm_to: 0.into(),
            warming: false.into(),
            registered: 0.into(),
            settled: Mutex::new(()),
            range,
        }))
    }

    /// `len` bytes at a multiple of `align`, or `None` when no free block is large enough or `align` is not a power of
    /// two. They are whatever they were before.
    pub fn take(self: &Arc<Self>, len: usize, align: usize) -> Option<AlignedBuffer> {
        self.take_with(len, len, align)
    }

    /// As [`Heap::take`], with spare bytes up to the next multiple of `align`: the [`AlignedBuffer::new_in_blocks`] of
    /// a heap.
    pub fn take_in_blocks(self: &Arc<Self>, len: usize, align: usize) -> Option<AlignedBuffer> {
        self.take_with(len, len.checked_next_multiple_of(align.max(1))?, align)
    }

    fn take_with(self: &Arc<Self>, len: usize, capacity: usize, align: usize) -> Option<AlignedBuffer> {
        if capacity == 0 {
            return AlignedBuffer::new_zeroed(0, align);
        }
        let layout = Layout::from_size_align(capacity, align).ok()?;
        let Some(start) = self.allocate(layout) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let end = self.offset(start) + capacity;
        if end > self.used_to.load(Ordering::Relaxed) {
            self.used_to.fetch_max(end, Ordering::Relaxed);
        }
        Some(AlignedBuffer::lent(start, len, capacity, align, Arc::clone(self)))
    }

    /// A block, which is to be given back.
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        let start = self.free.lock().allocate(layout)?;
        self.lent_bytes.fetch_add(layout.size() as u64, Ordering::Relaxed);
        Some(start)
    }

    fn offset(&self, start: NonNull<u8>) -> usize {
        start.as_ptr().addr() - self.range.start().as_ptr().addr()
    }

    /// Takes back the block of `capacity` bytes at `start`.
    ///
    /// # Safety
    /// [`Heap::take`] of this heap returned it, with this `align`; it is given back once, and nobody uses it any more.
    #[allow(unsafe_code)]
    pub(super) unsafe fn give_back(&self, start: NonNull<u8>, capacity: usize, align: usize) {
        // SAFETY: what our caller promises: `start` is a block of this allocator, allocated with this alignment.
        unsafe { self.free.lock().deallocate(start, align) };
        self.lent_bytes.fetch_sub(capacity as u64, Ordering::Relaxed);
    }

    /// Whether use comes near the end of what was made ready. It says so to one caller, who is to see to it that
    /// [`Heap::warm`] is called, on a thread that may wait.
    pub fn is_cold(&self) -> bool {
        let used_to = self.used_to.load(Ordering::Relaxed);
        let warm_to = self.warm_to.load(Ordering::Relaxed);
        let near = used_to + ahead(used_to) / 2 > warm_to && warm_to < self.range.len();
        near && used_to > 0 && !self.warming.load(Ordering::Relaxed) && !self.warming.swap(true, Ordering::Relaxed)
    }

    /// Makes memory ready ahead of what was used so far: huge pages where there are any, zeroed. It changes no byte.
    /// Does nothing where the system cannot be asked.
    pub fn warm(&self) {
        loop {
            let used_to = self.used_to.load(Ordering::Relaxed);
            let goal = (used_to + ahead(used_to)).next_multiple_of(RANGE_ALIGN).min(self.range.len());
            // From where it stopped, though that may be lent by now: blocks taken many at once are touched later.
            let from = self.warm_to.load(Ordering::Relaxed);
            if from >= goal {
                break;
            }
            self.range.populate(from, RANGE_ALIGN);
            self.warm_to.fetch_max(from + RANGE_ALIGN, Ordering::Relaxed);
        }
        self.warming.store(false, Ordering::Relaxed);
    }

    /// Gives memory that is under free blocks back to the system, but for what a ring has registered; it comes back as it
    /// is touched. Gives how many bytes that is. It takes milliseconds, in which large blocks may be hard to have.
    pub fn give_unused_back(self: &Arc<Self>) -> usize {
        let _settled = self.settled.lock();
        let used_to = self.used_to.load(Ordering::Relaxed);
        let registered = self.registered.load(Ordering::Relaxed) * RANGE_ALIGN;
        let mut taken = Vec::new();
        let mut given = 0;
        // Large blocks first: what is left over is in small ones, between blocks that are lent.
        for len in [RANGE_ALIGN, RANGE_ALIGN / 8, RANGE_ALIGN / 32] {
            // The smallest block that fits is lent, so that the range's untouched end comes last.
            let Ok(layout) = Layout::from_size_align(len, BLOCK_ALIGN) else { continue };
            while let Some(start) = self.allocate(layout) {
                taken.push(AlignedBuffer::lent(start, len, len, BLOCK_ALIGN, Arc::clone(self)));
                let offset = self.offset(start);
                if offset >= used_to {
                    break;
                }
                if offset >= registered {
                    given += self.range.discard(offset, len);
                }
            }
        }
        given
    }

    /// What it is and lends.
    pub fn stats(&self) -> HeapStats {
        HeapStats {
            bytes: self.range.len() as u64,
            lent_bytes: self.lent_bytes.load(Ordering::Relaxed),
            reached_bytes: self.used_to.load(Ordering::Relaxed) as u64,
            warmed_bytes: self.warm_to.load(Ordering::Relaxed) as u64,
            misses: self.misses.load(Ordering::Relaxed),
            registered_bytes: (self.registered.load(Ordering::Relaxed) * RANGE_ALIGN) as u64,
        }
    }
}

/// What a ring asks.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
impl Heap {
    /// Slabs that it consists of, each of which can be registered with a ring by itself.
    pub(crate) fn slabs(&self) -> usize {
        self.range.len() / RANGE_ALIGN
    }

    /// Slabs, from the first on, that were made ready: registering others would take memory that nobody uses.
    pub(crate) fn ready_slabs(&self) -> usize {
        self.warm_to.load(Ordering::Relaxed) / RANGE_ALIGN
    }

    /// Where a slab starts, and how long it is.
    pub(crate) fn slab(&self, number: usize) -> (NonNull<u8>, usize) {
        debug_assert!(number < self.slabs(), "there is no such slab");
        (self.range.start().map_addr(|start| start.saturating_add(number * RANGE_ALIGN)), RANGE_ALIGN)
    }

    /// The slab that all of these bytes lie in.
    pub(crate) fn slab_of(&self, start: *const u8, len: usize) -> Option<usize> {
        let from = (start as usize).checked_sub(self.range.start().as_ptr() as usize)?;
        let slab = from / RANGE_ALIGN;
        (len > 0 && slab < self.slabs() && (from + len - 1) / RANGE_ALIGN == slab).then_some(slab)
    }

    /// Has `register` register one more slab than `slabs`; whether it did. Not while memory is given back.
    pub(crate) fn register(&self, slabs: usize, register: impl FnOnce() -> bool) -> Option<bool> {
        let _settled = self.settled.try_lock()?;
        let registered = register();
        if registered {
            self.registered.store(slabs + 1, Ordering::Relaxed);
        }
        Some(registered)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// How far ahead of what was used memory is made ready.
fn ahead(used_to: usize) -> usize {
    used_to.clamp(RANGE_ALIGN, AHEAD_BYTES_MAX)
}

#[cfg(test)]
#[path = "heap/tests.rs"]
mod tests;
