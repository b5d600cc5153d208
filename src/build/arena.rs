//! Memory of one build: the contents of many small files, and lists that the whole build needs.
//!
//! Each thread takes from an arena of its own, without a lock, and what it took is freed at once with the build: no
//! allocation for each file, and none to be given back one by one. A tree of 50,000 files spent a tenth of its packing
//! time on page faults and the allocator; huge pages, where the system has them, take nearly all of the faults away.
//!
//! A tree that is served has its arenas made ready ahead, and keeps them from one small build to the next: an edit takes
//! no memory from the system. A build that needs more takes it while it lasts.

use std::ops::{Deref, DerefMut};
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

/// Bytes that an arena has ready before it is used: the source files of a usual save.
const AHEAD_BYTES: usize = 512 << 10;
/// The most that an arena keeps for the next build.
const KEPT_BYTES_MAX: usize = 2 << 20;

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
#[derive(Default)]
pub(super) struct Arenas {
    bumps: Vec<(Bump, Vec<u8>)>,
}

impl Arenas {
    /// As many as threads may work at once. An arena takes no memory before it is used.
    pub fn new(threads: usize) -> Self {
        Self { bumps: std::iter::repeat_with(Default::default).take(threads.max(1)).collect() }
    }

    /// As [`Arenas::new`], with memory that was touched already: for builds that somebody waits for. Without memory for
    /// that they have none ahead.
    pub fn ahead(threads: usize) -> Self {
        let mut arenas = Self::new(threads);
        for (bump, scratch) in &mut arenas.bumps {
            *bump = ready();
            scratch.resize(SCRATCH_BYTES_MIN, 0);
        }
        arenas
    }

    /// For the next build: empty, and no larger than is worth keeping.
    pub fn reset(&mut self) {
        for (bump, scratch) in &mut self.bumps {
            bump.reset();
            if bump.allocated_bytes() > KEPT_BYTES_MAX {
                *bump = ready();
            }
            if scratch.len() > KEPT_BYTES_MAX {
                *scratch = Vec::new();
            }
        }
    }

    /// Whether they are as many as threads may work at once.
    pub fn is_for(&self, threads: usize) -> bool {
        self.bumps.len() == threads.max(1)
    }

    /// Lends the arenas. What is put into them stays until all of them are dropped.
    pub fn lend(&mut self) -> Lent<'_> {
        Lent { idle: Mutex::new(self.bumps.iter_mut().collect()) }
    }

    /// What they hold.
    pub fn stats(&mut self) -> ArenaStats {
        let chunks = self.bumps.iter_mut().flat_map(|(bump, _)| bump.iter_allocated_chunks());
        let used = chunks.map(<[_]>::len).sum::<usize>() as u64;
        let held = self.bumps.iter().map(|(bump, _)| bump.allocated_bytes()).sum::<usize>() as u64;
        ArenaStats { used_bytes: used, peak_bytes: held }
    }
}

fn ready() -> Bump {
    let Ok(mut bump) = Bump::try_with_capacity(AHEAD_BYTES) else { return Bump::new() };
    // Where this does not fit, the system gives it when it is needed.
    let _ = bump.try_alloc_slice_fill_copy(bump.chunk_capacity(), 0_u8);
    bump.reset();
    bump
}

/// Arenas for the threads of one step.
pub(super) struct Lent<'b> {
    idle: Mutex<Vec<&'b mut (Bump, Vec<u8>)>>,
}

impl<'b> Lent<'b> {
    /// An arena that no other thread has. A thread too many gets one that keeps nothing.
    pub fn arena(&self) -> Arena<'b> {
        match lock(&self.idle).pop() {
            Some((bump, scratch)) => Arena { bump: Some(bump), scratch: Scratch::Lent(scratch) },
            None => Arena::default(),
        }
    }
}

/// Where one thread reads files to, and puts what the build needs.
#[derive(Default)]
pub(super) struct Arena<'b> {
    /// `None` keeps nothing.
    bump: Option<&'b Bump>,
    /// Files are read here, over and over: what is not kept costs no memory that was not touched before.
    scratch: Scratch<'b>,
}

enum Scratch<'b> {
    /// That of an arena, which outlives this.
    Lent(&'b mut Vec<u8>),
    Own(Vec<u8>),
}

impl Default for Scratch<'_> {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Deref for Scratch<'_> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
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

    #[test]
    fn what_is_ready_ahead_is_kept_for_the_next_build_and_what_a_large_one_took_is_not() {
        let mut arenas = Arenas::ahead(1);
        let ready = arenas.stats();
        assert!(ready.used_bytes == 0 && ready.peak_bytes >= AHEAD_BYTES as u64, "{ready:?}");
        let mut build = |files: usize| {
            let lent = arenas.lend();
            let mut arena = lent.arena();
            for _ in 0..files {
                arena.room(20_000).unwrap();
                arena.keep(20_000).unwrap();
            }
            drop((arena, lent));
            let took = arenas.stats();
            arenas.reset();
            (took.peak_bytes, arenas.stats())
        };
        for _ in 0..3 {
            assert_eq!(build(20), (ready.peak_bytes, ready), "no memory is taken, and none is given back");
        }
        let (peak, kept) = build(1000);
        assert!(peak >= 20_000_000 && kept.peak_bytes <= KEPT_BYTES_MAX as u64, "{peak} {kept:?}");
    }
}
