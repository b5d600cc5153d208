//! One large range of memory from the operating system, on huge pages where there are any.

use std::io;
use std::ptr::NonNull;

use super::Backing;
#[cfg(unix)]
use super::advise_huge;

/// A range of zeroed memory at an aligned address, freed when it is dropped.
pub(super) struct Arena {
    /// The first of `len` bytes.
    start: NonNull<u8>,
    len: usize,
    backing: Backing,
    /// What is given back to the system: all of the mapping, or the allocation.
    #[cfg(unix)]
    mapped: (NonNull<u8>, usize),
    #[cfg(not(unix))]
    _buffer: super::AlignedBuffer,
}

// SAFETY: it is an address range and hands out addresses; who may touch which bytes is the pool's to say.
#[allow(unsafe_code)]
unsafe impl Send for Arena {}
// SAFETY: as above; its fields never change.
#[allow(unsafe_code)]
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` bytes at a multiple of `align`, both multiples of the size of a huge page.
    #[cfg(unix)]
    pub(super) fn new(len: usize, align: usize) -> io::Result<Self> {
        // Reserved huge pages are taken here or not at all, so that no later touch can fail.
        #[cfg(target_os = "linux")]
        if let Ok(start) = map(len, libc::MAP_HUGETLB) {
            if start.as_ptr().align_offset(align) == 0 {
                return Ok(Self { start, len, backing: Backing::HugePages, mapped: (start, len) });
            }
            unmap(start, len);
        }
        let mut arena = Self::map_aligned(len, align, 0)?;
        if advise_huge(arena.start, len) {
            arena.backing = Backing::Advised;
        }
        Ok(arena)
    }

    /// As [`Arena::new`], but in small pages wherever [`Arena::populate`] was not called before the first touch, and no
    /// memory is set aside for it: it may be much larger than what is ever used.
    #[cfg(unix)]
    pub(super) fn reserve(len: usize, align: usize) -> io::Result<Self> {
        Self::map_aligned(len, align, libc::MAP_NORESERVE)
    }

    #[cfg(unix)]
    fn map_aligned(len: usize, align: usize, flags: libc::c_int) -> io::Result<Self> {
        let room = len.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        let base = map(room, flags)?;
        let skip = base.as_ptr().align_offset(align);
        #[allow(unsafe_code)]
        // SAFETY: `align_offset` to a power of two skips less than `align` bytes, and `room` has `len` more.
        let start = unsafe { base.add(skip.min(align)) };
        Ok(Self { start, len, backing: Backing::Plain, mapped: (base, room) })
    }

    /// `len` bytes at a multiple of `align`.
    #[cfg(not(unix))]
    pub(super) fn new(len: usize, align: usize) -> io::Result<Self> {
        let mut buffer = super::AlignedBuffer::new_zeroed(len, align).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = NonNull::from(buffer.as_mut_slice()).cast();
        Ok(Self { start, len, backing: Backing::Plain, _buffer: buffer })
    }

    /// As [`Arena::new`].
    #[cfg(not(unix))]
    pub(super) fn reserve(len: usize, align: usize) -> io::Result<Self> {
        Self::new(len, align)
    }

    /// Puts memory under `len` bytes from `offset` on, in huge pages where there are any. No byte changes, and whoever
    /// uses some of them is not disturbed. Where the system refuses, memory comes as the bytes are touched.
    pub(super) fn populate(&self, offset: usize, len: usize) {
        let start = self.at(offset, len);
        #[cfg(target_os = "linux")]
        {
            advise_huge(start, len);
            #[allow(unsafe_code)]
            // SAFETY: the range is within our mapping (`at` asserts it), and populating changes no byte.
            let _refused = unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = start;
    }

    /// Gives the memory under `len` bytes from `offset` on back to the system, as far as it is whole pages; those bytes are
    /// zero then. Gives how many. Whoever calls is the only one who uses them, and no ring has registered them.
    pub(super) fn discard(&self, offset: usize, len: usize) -> usize {
        let page = super::page_size();
        let from = offset.next_multiple_of(page);
        let len = (offset + len).saturating_sub(from) / page * page;
        if len == 0 {
            return 0;
        }
        #[cfg(target_os = "linux")]
        {
            let start = self.at(from, len);
            #[allow(unsafe_code)]
            // SAFETY: the range is within our private anonymous mapping (`at` asserts it), of which no byte is used by
            // anybody but our caller: reading zeroes from it afterwards is what our caller is told.
            let status = unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
            if status == 0 { len } else { 0 }
        }
        #[cfg(not(target_os = "linux"))]
        0
    }

    /// The first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What stands under it.
    pub(super) fn backing(&self) -> Backing {
        self.backing
    }

    /// The address of the byte at `offset`, of which `len` follow within the arena.
    #[allow(unsafe_code)]
    pub(super) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a part lies within its arena");
        // SAFETY: just asserted to be within the range.
        unsafe { self.start.add(offset) }
    }
}

#[cfg(unix)]
impl Drop for Arena {
    fn drop(&mut self) {
        unmap(self.mapped.0, self.mapped.1);
    }
}

/// Fresh anonymous memory, private to this process.
#[cfg(unix)]
#[allow(unsafe_code)]
fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: exactly what `map` returned, once: nothing refers to it any more, since parts keep their pool.
    let status = unsafe { libc::munmap(start.as_ptr().cast(), len) };
    debug_assert_eq!(status, 0);
}
