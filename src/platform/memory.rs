//! The only raw allocations of the crate, and what the operating system says about memory.
//!
//! [`AlignedBuffer`] is one allocation or a block of a [`Heap`], [`BufferPool`] lends parts of one large allocation to
//! reads, and [`IoBuffer`] is any of the places that a read may fill.

mod arena;
mod heap;
mod pool;
mod stream;
mod target;

use std::alloc::{self, Layout};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

pub use self::heap::{Heap, HeapStats};
pub use self::pool::{Backing, Bind, BufferPool, PoolBuffer, PoolStats};
pub use self::stream::copy_streaming;
pub use self::target::{IoBuffer, Segment};

/// Allocations no larger than this many alignments ask the allocator for the alignment; larger ones take a plain
/// zeroed allocation with room to align within it, since allocators hand those out without touching the memory.
const ALIGN_WITHIN_FACTOR: usize = 16;
/// What every allocator aligns to anyway.
const ALIGN_FREE: usize = 16;
/// The size of a huge page where there are any. Whole ones within an allocation are asked for: a large asset then costs
/// a few faults, not one for each 4 KiB, and a direct read into it pins a few pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes at an aligned address, owned. Its address never changes until it is dropped.
///
/// ```
/// use flyloft::platform::memory::AlignedBuffer;
/// let mut buffer = AlignedBuffer::new_zeroed(10, 64).expect("ten bytes");
/// buffer.as_mut_slice()[3] = 7;
/// assert_eq!(buffer.as_slice(), [0, 0, 0, 7, 0, 0, 0, 0, 0, 0]);
/// assert_eq!(buffer.as_slice().as_ptr() as usize % 64, 0);
/// ```
pub struct AlignedBuffer {
    /// The first of `capacity` bytes, within what `origin` says; dangling when there are none.
    start: NonNull<u8>,
    /// At most `capacity`.
    len: usize,
    /// Initialised bytes from `start` on.
    capacity: usize,
    origin: Origin,
    align: usize,
}

/// Where the bytes of a buffer come from, and go back to.
enum Origin {
    /// There are none.
    Nothing,
    /// An allocation of `layout` at `base`.
    Allocator { base: NonNull<u8>, layout: Layout },
    /// A block that starts where the buffer does.
    Heap(Arc<Heap>),
}

// SAFETY: the buffer owns its bytes exclusively, like a Vec<u8>: shared access is read-only and mutation needs
// `&mut self`, so moving it between threads and sharing references is sound.
#[allow(unsafe_code)]
unsafe impl Send for AlignedBuffer {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// `len` zero bytes at a multiple of `align`, or `None` when the allocator refuses or `align` is not a power of
    /// two. Never aborts, whatever `len`. Large buffers take physical memory only as they are touched.
    #[allow(unsafe_code)]
    pub fn new_zeroed(len: usize, align: usize) -> Option<Self> {
        if !align.is_power_of_two() {
            return None;
        }
        if len == 0 {
            let start = NonNull::new(std::ptr::without_provenance_mut(align))?;
            return Some(Self { start, len, capacity: len, origin: Origin::Nothing, align });
        }
        let direct = align <= ALIGN_FREE || len < align.checked_mul(ALIGN_WITHIN_FACTOR)?;
        let layout = if direct {
            Layout::from_size_align(len, align).ok()?
        } else {
            Layout::from_size_align(len.checked_add(align - ALIGN_FREE)?, ALIGN_FREE).ok()?
        };
        // SAFETY: `layout` has a size of at least `len`, which is not zero.
        let base = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        let skip = base.as_ptr().align_offset(align);
        debug_assert!(skip + len <= layout.size());
        // SAFETY: `base` is a multiple of 16, so at most `align - 16` bytes are skipped, and `layout` holds `len` more.
        let start = unsafe { base.add(skip) };
        let to_huge = start.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let huge = len.saturating_sub(to_huge) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        if huge > 0 {
            // SAFETY: `to_huge + huge` is at most `len`, so the range is within the allocation.
            advise_huge(unsafe { start.add(to_huge) }, huge);
        }
        Some(Self { start, len, capacity: len, origin: Origin::Allocator { base, layout }, align })
    }

    /// The block of `capacity` bytes at `start` that `heap` just took out, `len` of which are asked for.
    fn lent(start: NonNull<u8>, len: usize, capacity: usize, align: usize, heap: Arc<Heap>) -> Self {
        debug_assert!(len <= capacity && capacity > 0);
        Self { start, len, capacity, origin: Origin::Heap(heap), align }
    }

    /// Whether dropping it gives it back to a [`Heap`], which is quick whatever its length.
    pub fn is_lent(&self) -> bool {
        matches!(self.origin, Origin::Heap(_))
    }

    /// `len` zero bytes at a multiple of `align`, with spare ones after them up to the next multiple of `align`, so
    /// that a direct read of whole blocks fits. `None` as from [`AlignedBuffer::new_zeroed`].
    pub fn new_in_blocks(len: usize, align: usize) -> Option<Self> {
        let mut buffer = Self::new_zeroed(len.checked_next_multiple_of(align.max(1))?, align)?;
        buffer.len = len;
        Some(buffer)
    }

    /// The bytes.
    #[allow(unsafe_code)]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` points at `len` initialised bytes that this buffer owns (or is dangling and `len` is 0).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    #[allow(unsafe_code)]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes with the spare ones after them.
    #[allow(unsafe_code)]
    pub fn with_spare(&self) -> &[u8] {
        // SAFETY: `start` points at `capacity` initialised bytes that this buffer owns, or is dangling and it is 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    /// The bytes with the spare ones after them, to be changed.
    #[allow(unsafe_code)]
    pub fn with_spare_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `with_spare`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of bytes with the spare ones: what the buffer takes of memory.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The alignment that was asked for.
    pub fn align(&self) -> usize {
        self.align
    }
}

impl Drop for AlignedBuffer {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        match &self.origin {
            Origin::Nothing => {}
            // SAFETY: `base` was allocated with exactly this `layout` and is freed once, here.
            Origin::Allocator { base, layout } => unsafe { alloc::dealloc(base.as_ptr(), *layout) },
            // SAFETY: `Heap::take` made this buffer of the block at `start`, with this alignment, and it goes back once.
            Origin::Heap(heap) => unsafe { heap.give_back(self.start, self.capacity, self.align) },
        }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len).field("align", &self.align).finish()
    }
}

/// Advises the system to make huge pages of memory that is ours; whether it took the advice.
#[cfg_attr(target_os = "linux", allow(unsafe_code))]
pub(crate) fn advise_huge(start: NonNull<u8>, len: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: whatever the range is, the advice changes no byte of it and no right to it.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (start, len);
        false
    }
}

/// Gives memory that was allocated and freed again back to the system, after work that took much of it at once. It costs
/// a few milliseconds; where the allocator cannot be asked nothing is done.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer, may be called from any thread, and leaves what is allocated as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The size of a page of memory, in bytes.
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(page_size_now)
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn page_size_now() -> usize {
    // SAFETY: `sysconf` takes no pointer and changes nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

#[cfg(not(unix))]
fn page_size_now() -> usize {
    4096
}

/// Physical memory that this process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidentSet {
    /// Bytes now.
    pub now_bytes: u64,
    /// The most bytes ever.
    pub peak_bytes: u64,
}

/// What this process takes of physical memory; `None` where the operating system does not say.
pub fn resident_set_bytes() -> Option<ResidentSet> {
    #[cfg(target_os = "linux")]
    {
        parse_resident_set(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Those that took no reading from a disk.
    pub minor: u64,
    /// Those that waited for a disk.
    pub major: u64,
}

/// The page faults of this process so far; `None` where the operating system does not say.
pub fn faults() -> Option<Faults> {
    #[cfg(target_os = "linux")]
    {
        parse_faults(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Of `1 (name) S ...`: the name may hold blanks and brackets, and the faults are the 10th and the 12th field.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn parse_faults(stat: &str) -> Option<Faults> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(7);
    let minor = fields.next()?.parse().ok()?;
    Some(Faults { minor, major: fields.nth(1)?.parse().ok()? })
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn parse_resident_set(status: &str) -> Option<ResidentSet> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(ResidentSet { now_bytes: field("VmRSS:")?, peak_bytes: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_buffer_is_zeroed_aligned_and_writable_to_its_ends(len in 0usize..300_000, power in 0u32..14) {
            let align = 1usize << power;
            let mut buffer = AlignedBuffer::new_zeroed(len, align).unwrap();
            prop_assert_eq!(buffer.len(), len);
            prop_assert_eq!(buffer.as_slice().as_ptr() as usize % align, 0);
            prop_assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(0xff);
            prop_assert!(buffer.as_slice().iter().all(|byte| *byte == 0xff));
            let blocks = AlignedBuffer::new_in_blocks(len, align).unwrap();
            prop_assert_eq!((blocks.len(), blocks.capacity()), (len, len.next_multiple_of(align)));
            prop_assert!(blocks.with_spare().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn lengths_that_cannot_be_allocated_give_none() {
        for len in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 4096, 1 << 50] {
            assert!(AlignedBuffer::new_zeroed(len, 64).is_none(), "{len}");
        }
        assert!(AlignedBuffer::new_zeroed(1, 3).is_none());
        assert!(AlignedBuffer::new_zeroed(1, 0).is_none());
    }

    #[test]
    fn a_large_buffer_is_not_touched_until_it_is_used() {
        let Some(before) = resident_set_bytes() else { return };
        let buffer = AlignedBuffer::new_zeroed(256 << 20, 4096).unwrap();
        let after = resident_set_bytes().unwrap();
        assert!(after.now_bytes.saturating_sub(before.now_bytes) < 128 << 20, "{before:?} {after:?}");
        drop(buffer);
    }

    #[test]
    fn the_resident_set_is_read_from_the_kernels_text() {
        let set = parse_resident_set("Name:\tx\nVmHWM:\t    5 kB\nVmRSS:\t    3 kB\n");
        assert_eq!(set, Some(ResidentSet { now_bytes: 3072, peak_bytes: 5120 }));
        assert_eq!(parse_resident_set("VmRSS: many kB"), None);
        let stat = "7 (a) b) S 1 2 3 4 5 6 1234 8 56 10 11";
        assert_eq!(parse_faults(stat), Some(Faults { minor: 1234, major: 56 }));
        assert_eq!(parse_faults("7 (a) S 1"), None);
        assert!(!cfg!(target_os = "linux") || faults().unwrap().minor > 0);
        assert!(page_size().is_power_of_two());
    }
}
