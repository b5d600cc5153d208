//! One large allocation, lent in parts: for reads of frames that are decoded elsewhere.
//!
//! The memory is divided into chunks of 2 MiB, the size of a huge page, and a chunk into units: the first chunk into
//! many small ones, the others into 64 large ones. A word of 64 bits says which units of its group are free; a part is
//! a run of units of one group. Taking and returning is one atomic exchange on one word, without a lock, and a part
//! never crosses a chunk, so that chunks can be registered with a ring one by one as far as the limit allows.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use super::arena::Arena;

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of a unit in the first chunk.
const SMALL_UNIT_BYTES: usize = 4 << 10;
/// Bytes of a unit in the other chunks: a word of them is a chunk.
const LARGE_UNIT_BYTES: usize = CHUNK_BYTES / GROUP_UNITS;
/// Units of a group, the bits of its word.
const GROUP_UNITS: usize = u64::BITS as usize;
/// What a part that came back is overwritten with.
const POISON: u8 = 0xdf;
/// Groups of small units.
const SMALL_GROUPS: usize = CHUNK_BYTES / (SMALL_UNIT_BYTES * GROUP_UNITS);
/// Parts up to this size are looked for among the small units first.
const SMALL_BYTES_MAX: usize = LARGE_UNIT_BYTES;

/// Binds memory to where it shall be, before it is touched: called with the start and the length of the allocation.
/// What it says when it fails is kept for [`BufferPool::note`]; the memory is used all the same.
pub type Bind<'a> = dyn Fn(NonNull<u8>, usize) -> io::Result<()> + 'a;

/// What stands under a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Huge pages that the system reserved.
    HugePages,
    /// Ordinary memory, with the advice to make huge pages of it.
    Advised,
    /// Ordinary memory.
    Plain,
}

/// What a pool is and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// All its bytes.
    pub bytes: u64,
    /// Bytes lent now.
    pub lent_bytes: u64,
    /// Parts taken so far.
    pub taken: u64,
    /// Times that there was no part of the size asked for.
    pub misses: u64,
    /// Parts that were not as they were left when they were lent again, where that is looked for.
    pub damaged: u64,
    /// Bytes that a ring has registered.
    pub registered_bytes: u64,
    /// What stands under it.
    pub backing: Backing,
}

/// Aligned memory to read into, taken and returned without a lock.
///
/// ```
/// use flyloft::platform::memory::BufferPool;
/// let pool = BufferPool::new(4 << 20, None).expect("4 MiB");
/// let mut buffer = pool.take(5000).expect("it is all free");
/// assert_eq!(buffer.as_slice().len(), 8192, "whole blocks");
/// assert_eq!(buffer.as_slice().as_ptr() as usize % 4096, 0);
/// buffer.as_mut_slice()[0] = 1;
/// drop(buffer);
/// assert_eq!(pool.stats().lent_bytes, 0);
/// ```
pub struct BufferPool {
    arena: Arena,
    /// A set bit is a free unit. The groups of small units come first.
    groups: Box<[AtomicU64]>,
    note: Option<String>,
    taken: AtomicU64,
    misses: AtomicU64,
    /// Whether parts that come back are overwritten, and which free units were: a set bit for each.
    poisoning: AtomicBool,
    poisoned: Box<[AtomicU64]>,
    damaged: AtomicU64,
    /// Chunks, from the first on, that a ring has registered.
    registered_chunks: AtomicUsize,
}

impl BufferPool {
    /// A pool of `bytes`, rounded up to whole chunks of 2 MiB, at least two. The memory is taken from the system as it
    /// is touched. `bind` is called before.
    ///
    /// # Errors
    /// `OutOfMemory` when the system has no such range.
    pub fn new(bytes: usize, bind: Option<&Bind<'_>>) -> io::Result<Arc<Self>> {
        let bytes = bytes.max(2 * CHUNK_BYTES).checked_next_multiple_of(CHUNK_BYTES);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let arena = Arena::new(bytes, CHUNK_BYTES)?;
        let note = bind.and_then(|bind| bind(arena.start(), bytes).err()).map(|error| error.to_string());
        let groups = SMALL_GROUPS + bytes / CHUNK_BYTES - 1;
        Ok(Arc::new(Self {
            arena,
            groups: (0..groups).map(|_| AtomicU64::new(u64::MAX)).collect(),
            note,
            taken: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            poisoning: AtomicBool::new(false),
            poisoned: (0..groups).map(|_| AtomicU64::new(0)).collect(),
            damaged: AtomicU64::new(0),
            registered_chunks: AtomicUsize::new(0),
        }))
    }

    /// The largest part that there can be.
    pub const fn part_bytes_max() -> usize {
        CHUNK_BYTES
    }

    /// A part of at least `len` bytes, in whole blocks of 4 KiB, or `None` when none is free. Its bytes are whatever
    /// was read there before.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<PoolBuffer> {
        let found = self.find(len);
        match found {
            Some(_) => self.taken.fetch_add(1, Ordering::Relaxed),
            None => self.misses.fetch_add(1, Ordering::Relaxed),
        };
        found
    }

    /// From here on a part that comes back is overwritten, and looked at when it is lent again: who wrote to it meanwhile,
    /// a read that was taken for completed or a stray pointer, is found out.
    pub fn poison(&self) {
        self.poisoning.store(true, Ordering::Relaxed);
    }

    /// Overwrites a part that is about to come back.
    #[cold]
    fn bury(&self, part: &mut PoolBuffer) {
        part.as_mut_slice().fill(POISON);
        self.poisoned[part.group].fetch_or(part.bits, Ordering::Relaxed);
    }

    /// Looks at a part that is about to be lent, as far as it was overwritten.
    #[cold]
    fn unearth(&self, part: &PoolBuffer) {
        let buried = self.poisoned[part.group].fetch_and(!part.bits, Ordering::Relaxed) & part.bits;
        let unit = part.len / part.bits.count_ones().max(1) as usize;
        let first = part.bits.trailing_zeros();
        for (number, bytes) in part.as_slice().chunks(unit).enumerate() {
            let is_buried = buried & (1 << (first + number as u32)) != 0;
            let changed = bytes.iter().position(|byte| *byte != POISON).filter(|_| is_buried);
            if let Some(offset) = changed {
                let at = bytes.as_ptr().addr() + offset;
                tracing::error!(at, unit, offset, "a buffer was written to after it went back to its pool");
                self.damaged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn find(self: &Arc<Self>, len: usize) -> Option<PoolBuffer> {
        if len > CHUNK_BYTES {
            return None;
        }
        let (small, large) = self.groups.split_at(SMALL_GROUPS);
        let from = |groups: &[AtomicU64], first: usize, unit_bytes: usize| {
            let units = len.div_ceil(unit_bytes).max(1);
            let (group, bits) =
                groups.iter().enumerate().find_map(|(group, word)| Some((group, take_run(word, units)?)))?;
            let at = group * GROUP_UNITS * unit_bytes + bits.trailing_zeros() as usize * unit_bytes;
            Some((first + group, bits, at, units * unit_bytes))
        };
        let mut found = None;
        if len <= SMALL_BYTES_MAX {
            found = from(small, 0, SMALL_UNIT_BYTES);
        }
        let large = || from(large, SMALL_GROUPS, LARGE_UNIT_BYTES).map(|(g, b, at, len)| (g, b, at + CHUNK_BYTES, len));
        let (group, bits, at, len) = found.or_else(large)?;
        let part = PoolBuffer { pool: Arc::clone(self), start: self.arena.at(at, len), len, group, bits };
        if self.poisoning.load(Ordering::Relaxed) {
            self.unearth(&part);
        }
        Some(part)
    }

    /// What it is and has done.
    pub fn stats(&self) -> PoolStats {
        let lent = |(group, word): (usize, &AtomicU64)| {
            let unit = if group < SMALL_GROUPS { SMALL_UNIT_BYTES } else { LARGE_UNIT_BYTES };
            u64::from(word.load(Ordering::Relaxed).count_zeros()) * unit as u64
        };
        PoolStats {
            bytes: self.arena.len() as u64,
            lent_bytes: self.groups.iter().enumerate().map(lent).sum(),
            taken: self.taken.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            registered_bytes: (self.registered_chunks.load(Ordering::Relaxed) * CHUNK_BYTES) as u64,
            backing: self.arena.backing(),
        }
    }

    /// Why the memory is not bound to where it should be.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The chunks, in order, for a ring to register. They live as long as the pool.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> + '_ {
        (0..self.arena.len() / CHUNK_BYTES).map(|chunk| (self.arena.at(chunk * CHUNK_BYTES, CHUNK_BYTES), CHUNK_BYTES))
    }

    /// Notes how many chunks a ring has registered.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn set_registered(&self, chunks: usize) {
        self.registered_chunks.store(chunks, Ordering::Relaxed);
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// Takes `units` neighbouring free units of a group: their bits.
fn take_run(word: &AtomicU64, units: usize) -> Option<u64> {
    let mut free = word.load(Ordering::Relaxed);
    loop {
        let first = first_run(free, units)?;
        let bits = (u64::MAX >> (GROUP_UNITS - units)) << first;
        // What the one before wrote to these units was written before it set the bits.
        match word.compare_exchange_weak(free, free & !bits, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Some(bits),
            Err(now) => free = now,
        }
    }
}

/// Where the first run of `units` (1 to 64) set bits begins.
fn first_run(free: u64, units: usize) -> Option<u32> {
    // After each step a set bit means that as many bits are set from there on.
    let (mut starts, mut run) = (free, 1);
    while run < units && starts != 0 {
        let step = run.min(units - run);
        starts &= starts >> step;
        run += step;
    }
    (starts != 0).then(|| starts.trailing_zeros())
}

/// A part of a [`BufferPool`]. Dropping it gives it back.
pub struct PoolBuffer {
    pool: Arc<BufferPool>,
    start: NonNull<u8>,
    len: usize,
    group: usize,
    bits: u64,
}

// SAFETY: the part is this value's alone until its bits are set again, which its drop does: a `Vec<u8>` by another name.
#[allow(unsafe_code)]
unsafe impl Send for PoolBuffer {}
// SAFETY: as above; shared access only reads.
#[allow(unsafe_code)]
unsafe impl Sync for PoolBuffer {}

impl PoolBuffer {
    /// All the bytes.
    #[allow(unsafe_code)]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes of the arena, which `pool` keeps; `take_run` gave these units to nobody else.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All the bytes, to be changed.
    #[allow(unsafe_code)]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The pool it is from.
    pub fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// The chunk it stands in.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn chunk(&self) -> usize {
        self.group.saturating_sub(SMALL_GROUPS - 1)
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        if self.pool.poisoning.load(Ordering::Relaxed) {
            let pool = Arc::clone(&self.pool);
            pool.bury(self);
        }
        // The next one to take these units must see what was written to them as past.
        let before = self.pool.groups[self.group].fetch_or(self.bits, Ordering::Release);
        debug_assert_eq!(before & self.bits, 0, "units were free while they were lent");
    }
}

impl fmt::Debug for PoolBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuffer({} bytes)", self.len)
    }
}

const _: () = {
    assert!(SMALL_UNIT_BYTES * GROUP_UNITS * SMALL_GROUPS == CHUNK_BYTES);
    assert!(LARGE_UNIT_BYTES * GROUP_UNITS == CHUNK_BYTES);
    assert!(SMALL_BYTES_MAX <= SMALL_UNIT_BYTES * GROUP_UNITS);
    // Chunk of a small group: 0; of the first large group: 1.
    assert!(SMALL_GROUPS >= 1);
    assert!(crate::limits::READ_BYTES_MAX + 2 * crate::limits::BLOCK_BYTES <= CHUNK_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[allow(unsafe_code)]
    fn a_buffer_that_is_written_to_after_it_came_back_is_found_out_when_it_is_lent_again() {
        let pool = BufferPool::new(4 << 20, None).unwrap();
        pool.poison();
        for len in [5000, 300_000] {
            let mut part = pool.take(len).unwrap();
            let start = part.as_mut_slice().as_mut_ptr();
            drop(part);
            let part = pool.take(len).unwrap();
            assert_eq!((part.as_slice().as_ptr(), pool.stats().damaged), (start.cast_const(), 0));
            assert!(part.as_slice().iter().all(|byte| *byte == POISON));
            drop(part);
            // SAFETY: the arena is still there and nobody else uses it: only the pool's rules forbid this write.
            unsafe { start.add(4999).write(1) };
            drop(pool.take(len).unwrap());
            assert_eq!(pool.stats().damaged, 1);
            drop(pool.take(len).unwrap());
            assert_eq!(pool.stats().damaged, 1, "it is told once");
            pool.damaged.store(0, Ordering::Relaxed);
        }
    }

    fn range(part: &PoolBuffer) -> std::ops::Range<usize> {
        let start = part.as_slice().as_ptr() as usize;
        start..start + part.as_slice().len()
    }

    proptest! {
        #[test]
        fn a_run_is_the_first_that_fits(free: u64, units in 1usize..=64) {
            let mask = |first: usize| (u128::from(u64::MAX >> (64 - units))) << first;
            let model = (0..=64 - units).find(|first| u128::from(free) & mask(*first) == mask(*first));
            prop_assert_eq!(first_run(free, units).map(|first| first as usize), model);
        }

        #[test]
        fn parts_never_overlap_and_stay_in_one_chunk(steps in proptest::collection::vec((0usize..3 << 20, any::<bool>()), 1..80)) {
            let pool = BufferPool::new(6 << 20, None).unwrap();
            let chunks: Vec<usize> = pool.chunks().map(|(start, _)| start.as_ptr() as usize).collect();
            let mut held: Vec<PoolBuffer> = Vec::new();
            for (len, give_back) in steps {
                // Small sizes are the usual ones.
                let len = if len % 3 == 0 { len } else { len % 40_000 };
                if give_back && !held.is_empty() {
                    held.swap_remove(len % held.len());
                }
                let Some(part) = pool.take(len) else { continue };
                let own = range(&part);
                prop_assert!(own.len() >= len && own.start.is_multiple_of(4096));
                let chunk = chunks[part.chunk()];
                prop_assert!(own.start >= chunk && own.end <= chunk + CHUNK_BYTES);
                for other in held.iter().map(range) {
                    prop_assert!(own.end <= other.start || other.end <= own.start);
                }
                held.push(part);
                let lent: usize = held.iter().map(|part| part.as_slice().len()).sum();
                prop_assert_eq!(pool.stats().lent_bytes, lent as u64);
            }
            drop(held);
            prop_assert_eq!(pool.stats().lent_bytes, 0);
        }
    }

    #[test]
    fn threads_that_take_and_return_never_hold_the_same_bytes() {
        let pool = BufferPool::new(4 << 20, None).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..2000usize {
                        let Some(mut part) = pool.take(1 + round * 977 % 200_000) else { continue };
                        part.as_mut_slice()[..1].fill(thread);
                        let end = part.as_slice().len() - 1;
                        part.as_mut_slice()[end] = thread;
                        std::hint::black_box(&mut part);
                        assert_eq!((part.as_slice()[0], part.as_slice()[end]), (thread, thread));
                    }
                });
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.lent_bytes, stats.taken + stats.misses), (0, 8000));
    }

    #[test]
    fn a_pool_that_is_empty_says_so_and_the_binding_is_called_first() {
        let seen = std::cell::Cell::new(0);
        let bind = |_: NonNull<u8>, len: usize| {
            seen.set(len);
            Err(io::Error::other("no such node"))
        };
        // The hook lives as long as the call; the pool keeps only what it said.
        let pool = BufferPool::new(1, Some(&bind)).unwrap();
        assert_eq!((seen.get(), pool.note()), (4 << 20, Some("no such node")));
        let all: Vec<_> = std::iter::from_fn(|| pool.take(2 << 20)).collect();
        assert_eq!(all.len(), 1, "the other chunk is for small parts");
        assert!(pool.take(usize::MAX).is_none() && pool.take(300_000).is_none());
        assert!(pool.take(SMALL_BYTES_MAX).is_some());
        assert_eq!(pool.stats().misses, 3);
    }
}
