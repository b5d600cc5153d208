//! What one thread noted lately: a ring that it writes without looking at anybody, and that any number read.
//!
//! The writer never waits and never finds the ring full: it goes on over the oldest, and a reader that fell behind finds
//! out how many it missed. Each reader keeps its own place. It is a seqlock over the whole ring (Hans-J. Boehm, "Can
//! seqlocks get along with programming language memory models?", MSPC 2012): `begun` is raised before words are
//! overwritten, and looked at again after they were read.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Records that a ring holds. A power of two.
pub(super) const RECORDS: usize = 8192;
/// Words of a record.
pub(super) const WORDS: usize = 4;

/// A record, as it is noted.
pub(super) type Words = [u64; WORDS];

#[derive(Default)]
struct Slot([AtomicU64; WORDS]);

/// The ring of one writer at a time.
pub(super) struct Ring {
    /// Records whose writing began.
    begun: AtomicU64,
    /// Records that are written. Their places are this number, modulo the ring.
    written: AtomicU64,
    slots: Box<[Slot]>,
}

impl Ring {
    pub(super) fn new() -> Ring {
        let slots = (0..RECORDS).map(|_| Slot::default()).collect();
        Ring { begun: AtomicU64::new(0), written: AtomicU64::new(0), slots }
    }

    /// Notes a record. Callers see to it that one thread at a time does, which saw what the one before did.
    #[inline]
    pub(super) fn push(&self, words: Words) {
        let at = self.written.load(Ordering::Relaxed);
        self.begun.store(at.wrapping_add(1), Ordering::Relaxed);
        // A reader that sees any of the words below sees that their writing began.
        fence(Ordering::Release);
        let slot = &self.slots[at as usize % RECORDS];
        for (place, word) in slot.0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.written.store(at.wrapping_add(1), Ordering::Release);
    }

    /// How many were written so far: where a new reader begins.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Appends what was written since `place`, the oldest first, and moves it on. Gives how many were written over before
    /// they were read.
    pub(super) fn read(&self, place: &mut u64, into: &mut Vec<Words>) -> u64 {
        let end = self.written.load(Ordering::Acquire);
        let from = (*place).max(end.saturating_sub(RECORDS as u64));
        let start = into.len();
        into.extend((from..end).map(|at| {
            let slot = &self.slots[at as usize % RECORDS];
            std::array::from_fn(|word| slot.0[word].load(Ordering::Relaxed))
        }));
        fence(Ordering::Acquire);
        // The record whose writing began last took the place of the one a ring before it.
        let whole = self.begun.load(Ordering::Relaxed).saturating_sub(RECORDS as u64).clamp(from, end);
        into.drain(start..start + (whole - from) as usize);
        let missed = whole - *place;
        *place = end;
        missed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn what_was_written_over_is_missed_and_the_rest_is_in_order() {
        let (ring, mut place, mut found) = (Ring::new(), 0, Vec::new());
        (0..RECORDS as u64 + 10).for_each(|at| ring.push([at; WORDS]));
        assert_eq!(ring.read(&mut place, &mut found), 10);
        assert_eq!(
            found.iter().map(|words| words[0]).collect::<Vec<_>>(),
            (10..RECORDS as u64 + 10).collect::<Vec<_>>()
        );
        assert_eq!((ring.read(&mut place, &mut found), found.len()), (0, RECORDS));
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_records_and_misses_none_uncounted() {
        let (ring, done) = (Ring::new(), AtomicBool::new(false));
        let many = if cfg!(miri) { 20_000 } else { 2_000_000 };
        let (mut seen, mut missed, mut next) = (0, 0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..many).for_each(|at| ring.push([at, !at, at ^ 0x5a5a, at.wrapping_mul(3)]));
                done.store(true, Ordering::Release);
            });
            let (mut place, mut found) = (0, Vec::new());
            loop {
                let last = done.load(Ordering::Acquire);
                missed += ring.read(&mut place, &mut found);
                for [at, not, other, times] in found.drain(..) {
                    assert!(not == !at && other == at ^ 0x5a5a && times == at.wrapping_mul(3), "a torn record");
                    assert!(at >= next, "{at} after {next}");
                    next = at + 1;
                    seen += 1;
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(seen + missed, many);
    }
}
