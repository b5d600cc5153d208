//! Memory that the kernel knows beforehand, so that a read into it finds and pins no pages: the pool's chunks from the
//! start on, then slabs of the heap as they are made ready, as far as the limit on locked memory allows.

use std::ptr::NonNull;
use std::sync::Arc;

use io_uring::IoUring;

use crate::platform::io::DriverConfig;
use crate::platform::memory::{BufferPool, Heap, IoBuffer};

/// Buffers that a ring can register at most.
const REGISTERED_MAX: usize = 1 << 14;

/// What is registered. It must stay as long as the ring is open.
#[derive(Default)]
pub(super) struct Registered {
    pool: Option<Arc<BufferPool>>,
    /// So many chunks of the pool are registered, under their own numbers.
    chunks: usize,
    heap: Option<Arc<Heap>>,
    /// The number of the heap's first slab.
    base: usize,
    /// So many slabs of the heap are registered.
    slabs: usize,
    /// The kernel takes no more.
    is_full: bool,
}

impl Registered {
    /// Makes room for all, and registers the pool.
    pub(super) fn new(uring: &IoUring, config: &DriverConfig) -> Self {
        let (pool, heap) = (config.pool.clone(), config.heap.clone());
        let chunks: Vec<_> = pool.iter().flat_map(|pool| pool.chunks()).collect();
        let room = (chunks.len() + heap.as_ref().map_or(0, |heap| heap.slabs())).min(REGISTERED_MAX);
        if room == 0 || uring.submitter().register_buffers_sparse(room as u32).is_err() {
            // A kernel before 5.19. Reads into memory that is not registered are slower, and no different.
            return Self::default();
        }
        let count = chunks.iter().enumerate().take_while(|(number, chunk)| register(uring, *number, **chunk)).count();
        if let Some(pool) = &pool {
            pool.set_registered(count);
        }
        Self { pool, chunks: count, heap, base: chunks.len(), slabs: 0, is_full: count < chunks.len() }
    }

    /// Registers the next slab of the heap that was made ready, if there is one: pinning it takes some microseconds.
    pub(super) fn grow(&mut self, uring: &IoUring) {
        let Some(heap) = self.heap.as_ref().filter(|heap| !self.is_full && self.slabs < heap.ready_slabs()) else {
            return;
        };
        match heap.register(self.slabs, || register(uring, self.base + self.slabs, heap.slab(self.slabs))) {
            Some(true) => self.slabs += 1,
            Some(false) => self.is_full = true,
            // Another time.
            None => {}
        }
    }

    /// The number under which `len` bytes of `buffer` from `start` on are registered.
    pub(super) fn number(&self, buffer: &IoBuffer, start: *const u8, len: usize) -> Option<u16> {
        let number = match buffer {
            IoBuffer::Pooled(buffer) => {
                let is_own = self.pool.as_ref().is_some_and(|pool| Arc::ptr_eq(buffer.pool(), pool));
                Some(buffer.chunk()).filter(|chunk| is_own && *chunk < self.chunks)
            }
            IoBuffer::Owned(_) | IoBuffer::Claim(_) => {
                let slab = self.heap.as_ref().and_then(|heap| heap.slab_of(start, len));
                slab.filter(|slab| *slab < self.slabs).map(|slab| self.base + slab)
            }
            IoBuffer::Scatter(_) => None,
        };
        number.and_then(|number| u16::try_from(number).ok())
    }
}

/// Registers memory, which must stay until the ring is closed, under a number. Whether the kernel took it: most likely
/// the limit on locked memory stands against it.
#[allow(unsafe_code)]
fn register(uring: &IoUring, number: usize, (start, len): (NonNull<u8>, usize)) -> bool {
    let memory = libc::iovec { iov_base: start.as_ptr().cast(), iov_len: len };
    // SAFETY: chunks live as long as the pool and slabs as long as the heap, which the ring keeps until it is closed.
    let update = || unsafe { uring.submitter().register_buffers_update(number as u32, &[memory], None) };
    number < REGISTERED_MAX && update().is_ok()
}
