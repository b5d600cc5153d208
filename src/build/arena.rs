//! Memory of one build: the contents of many small files, and lists that the whole build needs.
//!
//! Each thread takes from an arena of its own, without a lock, and what it took is freed at once with the build: no
//! allocation for each file, and none to be given back one by one. A tree of 50,000 files spent a tenth of its packing
//! time on page faults and the allocator; huge pages, where the system has them, take nearly all of the faults away.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Mutex;

use bumpalo::Bump;

use super::parallel::lock;
use crate::platform::memory::advise_huge;

/// Largest file that is read into an arena; larger ones have an allocation of their own.
const ROOM_BYTES_MAX: usize = 8 << 20;
/// Memory that an arena takes from the allocator in pieces of at least this size should be huge pages.
const HUGE_BYTES_MIN: usize = 4 << 20;
/// The least that is taken in order to read a file: reading one must not pay for much more.
const SCRATCH_BYTES_MIN: usize = 64 << 10;

/// What the arenas of a build took for the contents of its source files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Bytes that were put into them.
    pub used_bytes: u64,
    /// Most bytes that they held at once, taken from the allocator; they only grow until the build ends.
    pub peak_bytes: u64,
}

impl std::ops::Add for ArenaStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { used_bytes: self.used_bytes + other.used_bytes, peak_bytes: self.peak_bytes + other.peak_bytes }
    }
}

/// One arena for each thread.
pub(super) struct Arenas {
    bumps: Vec<Bump>,
}

impl Arenas {
    /// As many as threads may work at once. An arena takes no memory before it is used.
    pub fn new(threads: usize) -> Self {
        Self { bumps: std::iter::repeat_with(Bump::new).take(threads.max(1)).collect() }
    }

    /// Lends the arenas. What is put into them stays until all of them are dropped.
    pub fn lend(&mut self) -> Lent<'_> {
        Lent { idle: Mutex::new(self.bumps.iter_mut().collect()) }
    }

    /// What they hold.
    pub fn stats(&mut self) -> ArenaStats {
        let used = self.bumps.iter_mut().flat_map(Bump::iter_allocated_chunks).map(<[_]>::len).sum::<usize>() as u64;
        let held = self.bumps.iter().map(Bump::allocated_bytes).sum::<usize>() as u64;
        ArenaStats { used_bytes: used, peak_bytes: held }
    }
}

/// Arenas for the threads of one step.
pub(super) struct Lent<'b> {
    idle: Mutex<Vec<&'b mut Bump>>,
}

impl<'b> Lent<'b> {
    /// An arena that no other thread has. A thread too many gets one that keeps nothing.
    pub fn arena(&self) -> Arena<'b> {
        let bump = lock(&self.idle).pop();
        Arena { bump: bump.map(|bump| &*bump), scratch: Vec::new() }
    }
}

/// Where one thread reads files to, and puts what the build needs.
#[derive(Default)]
pub(super) struct Arena<'b> {
    /// `None` keeps nothing.
    bump: Option<&'b Bump>,
    /// Files are read here, over and over: what is not kept costs no memory that was not touched before.
    scratch: Vec<u8>,
}

impl<'b> Arena<'b> {
    /// Room for `len` bytes that are read now; `None` when they are too many.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > ROOM_BYTES_MAX {
            return None;
        }
        if self.scratch.len() < len {
            self.scratch.clear();
            self.scratch.resize(len.next_power_of_two().max(SCRATCH_BYTES_MIN), 0);
        }
        self.scratch.get_mut(..len)
    }

    /// Keeps the first `len` bytes of the room that was given last; `None` when there is no memory.
    pub fn keep(&mut self, len: usize) -> Option<&'b [u8]> {
        let (bump, bytes) = (self.bump?, self.scratch.get(..len)?);
        let before = bump.allocated_bytes();
        let kept = bump.try_alloc_slice_copy(bytes).ok()?;
        if bump.allocated_bytes() - before >= HUGE_BYTES_MIN {
            // The arena grew. A piece is filled from its end, so that what is free lies below what was put first.
            let free = bump.chunk_capacity();
            if let Some(start) = NonNull::new(kept.as_ptr().cast_mut().wrapping_sub(free)) {
                // Without huge pages everything works, slower.
                let _ = advise_huge(start, free);
            }
        }
        Some(kept)
    }

    /// Keeps a list of numbers; `None` when there is no memory.
    pub fn list(&self, numbers: &[u32]) -> Option<&'b [u32]> {
        self.bump?.try_alloc_slice_copy(numbers).ok().map(|list| &*list)
    }
}

/// Bytes that are kept: in an arena, or by themselves.
#[derive(Debug)]
pub(super) enum Kept<'b> {
    Shared(&'b [u8]),
    Own(Vec<u8>),
}

impl Deref for Kept<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_and_what_is_not_is_written_over() {
        let mut arenas = Arenas::new(1);
        let lent = arenas.lend();
        let (mut arena, mut kept) = (lent.arena(), Vec::new());
        for number in 0..40_u8 {
            for (fill, keep) in [(200, false), (number, true)] {
                arena.room(2_000_001).unwrap().fill(fill);
                if keep {
                    kept.push(arena.keep(2_000_000).unwrap());
                }
            }
        }
        assert!(arena.room(ROOM_BYTES_MAX + 1).is_none());
        drop(arena);
        for (number, bytes) in kept.iter().enumerate() {
            assert!(bytes.len() == 2_000_000 && bytes.iter().all(|byte| usize::from(*byte) == number));
        }
        let stats = arenas.stats();
        assert!(stats.used_bytes >= 80_000_000 && stats.peak_bytes >= stats.used_bytes, "{stats:?}");
    }

    #[test]
    fn each_thread_has_an_arena_and_one_too_many_keeps_nothing() {
        let mut arenas = Arenas::new(3);
        let lent = arenas.lend();
        let lists: Vec<Option<&[u32]>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|at| {
                    scope.spawn({
                        let lent = &lent;
                        move || lent.arena().list(&[at; 100])
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(lists.iter().flatten().count(), 3);
        for (at, list) in (0..4).zip(&lists) {
            assert!(list.is_none_or(|list| *list == [at; 100]));
        }
        drop(lent);
        assert_eq!(arenas.stats().used_bytes, 1200);
        assert_eq!(Arenas::new(2).stats(), ArenaStats::default());
    }
}
