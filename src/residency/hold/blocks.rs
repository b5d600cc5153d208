//! Memory for what a hit reads, packed: one cache line beside another, so that many share a page.
//!
//! An allocator puts a thing of one cache line between the buffers that were allocated with it, on a page of its own if
//! these are large, and a hit then pays for the page's address as well. Blocks are taken from chunks, used again, and
//! never given back: the memory of the most that were ever in use at once stays, at 64 bytes each.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use parking_lot::Mutex;

/// Size and alignment of a block.
const BLOCK: usize = 64;
/// Blocks of a chunk. Its pages are touched as its blocks are used.
const CHUNK_BLOCKS: usize = 4096;

/// Blocks that are not in use.
struct Free {
    /// The first of a list, each with the address of the next in its first bytes.
    used_before: Option<NonNull<Link>>,
    /// The rest of the newest chunk, which was never used.
    fresh: *mut Link,
    fresh_blocks: usize,
}

#[repr(C, align(64))]
struct Link {
    next: Option<NonNull<Link>>,
}

// SAFETY: the free blocks belong to it alone, wherever it is.
#[allow(unsafe_code)]
unsafe impl Send for Free {}

static FREE: Mutex<Free> = Mutex::new(Free { used_before: None, fresh: std::ptr::null_mut(), fresh_blocks: 0 });

impl Free {
    #[allow(unsafe_code)]
    fn take(&mut self) -> NonNull<Link> {
        if let Some(block) = self.used_before {
            // SAFETY: the list holds blocks that `give` wrote a link to, and nobody else writes to a free block.
            self.used_before = unsafe { (*block.as_ptr()).next };
            return block;
        }
        if self.fresh_blocks == 0 {
            let layout = Layout::new::<[Link; CHUNK_BLOCKS]>();
            // SAFETY: the layout is not empty.
            self.fresh = unsafe { alloc(layout) }.cast();
            if self.fresh.is_null() {
                handle_alloc_error(layout);
            }
            self.fresh_blocks = CHUNK_BLOCKS;
        }
        self.fresh_blocks -= 1;
        // SAFETY: the chunk has at least one block more from `fresh` on, or ends behind it.
        let next = unsafe { self.fresh.add(1) };
        let block = std::mem::replace(&mut self.fresh, next);
        NonNull::new(block).expect("a chunk does not begin at null")
    }

    #[allow(unsafe_code)]
    fn give(&mut self, block: NonNull<Link>) {
        let next = self.used_before.replace(block);
        // SAFETY: the block was given up by its user, and is large and aligned enough for a link.
        unsafe { block.as_ptr().write(Link { next }) };
    }
}

/// Puts `value`, which is no larger than a block, into one.
#[allow(unsafe_code)]
pub(super) fn put<T>(value: T) -> NonNull<T> {
    const { assert!(size_of::<T>() <= BLOCK && align_of::<T>() <= BLOCK) };
    let block: NonNull<T> = FREE.lock().take().cast();
    // SAFETY: the block is free, ours from now on, and large and aligned enough by the assertion.
    unsafe { block.as_ptr().write(value) };
    block
}

/// Drops the value and frees its block.
///
/// # Safety
/// The value was put there by [`put`], and nobody uses it any more.
#[allow(unsafe_code)]
pub(super) unsafe fn take<T>(block: NonNull<T>) {
    // SAFETY: as the caller says. The value may panic as it is dropped; then its block is lost, and nothing else.
    unsafe { block.as_ptr().drop_in_place() };
    FREE.lock().give(block.cast());
}

const _: () = assert!(size_of::<Link>() == BLOCK);
