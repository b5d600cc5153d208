//! What one reading thread shows to those who free: whether it is looking, and what it holds.
//!
//! The protocol, in the words of its two sides:
//!
//! - A reader **enters** a section (its number becomes odd), looks things up, and **leaves** (even again). Whoever frees
//!   something unlinks it first, runs the heavy barrier, and waits until every number that it found odd has changed:
//!   whoever enters later can't find it any more.
//! - What a reader wants to use for longer it **holds**, before it leaves: one address. Whoever frees looks for the
//!   address after the wait. Found, it **owes** the thing to the reader: puts it on the reader's list.
//! - A reader **lets go** by clearing the address, and then looks at its list. Whoever frees puts on the list, runs the
//!   heavy barrier, and then looks at the address again. One of the two sees the other, and drops the thing.
//!
//! So a reader never waits and never writes where another writes, and a reader that stalls keeps what it holds and
//! nothing else. `models.rs` has every interleaving of it.

use super::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, heavy, light};

/// The reader's side and the list of what it is owed. On lines of its own: nobody else writes there on a hit.
#[repr(align(128))]
pub(super) struct Record<T> {
    /// While its reader is inside a section: how many there were before it, and the tag of its table, which is odd.
    /// Else it is even. Written by its reader alone.
    section: AtomicU64,
    /// The address that its reader holds, or 0. Written by its reader alone.
    held: AtomicUsize,
    /// A list of boxes.
    owed: AtomicPtr<Owed<T>>,
}

/// Tells tables apart, so that whoever frees waits for the readers of its own alone. Two tables that have one tag by
/// chance wait for each other's.
#[derive(Clone, Copy)]
pub(super) struct Tag(u64);

impl Tag {
    /// The bits of a section's number that are the tag.
    const BITS: u64 = 0xffff;

    /// The tag of the table that is the `count`th.
    pub(super) fn of(count: u64) -> Tag {
        Tag((count << 1 | 1) & Self::BITS)
    }
}

/// Something that is to be dropped by whoever finds that the reader does not hold it any more.
struct Owed<T> {
    address: usize,
    thing: T,
    next: *mut Owed<T>,
}

impl<T> Record<T> {
    pub(super) fn new() -> Record<T> {
        Record { section: AtomicU64::new(0), held: AtomicUsize::new(0), owed: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Enters a section that looks into the table with this tag. Gives its number.
    #[inline]
    pub(super) fn enter(&self, tag: Tag) -> u64 {
        let count = (self.section.load(Ordering::Relaxed) | Tag::BITS).wrapping_add(1);
        let number = count | tag.0;
        self.section.store(number, Ordering::Relaxed);
        light();
        number
    }

    /// Leaves the section with this number. All that was done in it is seen by whoever sees that.
    #[inline]
    pub(super) fn leave(&self, number: u64) {
        self.section.store(number & !1, Ordering::Release);
    }

    /// The number of the section that its reader is in, if that looks into the table with this tag.
    pub(super) fn inside(&self, tag: Tag) -> Option<u64> {
        let number = self.section.load(Ordering::Acquire);
        (number & Tag::BITS == tag.0).then_some(number)
    }

    /// Whether the section with this number has not ended.
    pub(super) fn is_in(&self, number: u64) -> bool {
        self.section.load(Ordering::Acquire) == number
    }

    /// Holds `address` beyond the section that the reader is in. It must not hold another.
    #[inline]
    pub(super) fn hold(&self, address: usize) {
        // Release, so that whoever sees this also sees that what was held before is not used any more.
        self.held.store(address, Ordering::Release);
    }

    /// What its reader holds, or 0.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Lets go of what the reader holds, and of what it is owed.
    #[inline]
    pub(super) fn let_go(&self) {
        self.held.store(0, Ordering::Release);
        light();
        if !self.owed.load(Ordering::Relaxed).is_null() {
            self.settle(0);
        }
    }

    /// Leaves `thing`, which its reader was seen to hold by `address` and can't find again, to whoever is last.
    pub(super) fn owe(&self, address: usize, thing: T) {
        self.push(Box::new(Owed { address, thing, next: std::ptr::null_mut() }));
        let mut listed = address;
        loop {
            if !heavy() {
                // Nothing is known of the reader. It finds the list when it lets go the next time.
                return;
            }
            let held = self.held();
            if held == listed || !self.settle(held) {
                return;
            }
            // What was put back was out of the reader's sight for a moment: it has to be looked at again.
            listed = held;
        }
    }

    /// Drops what is on the list, but for what is `held`. Whether anything was put back.
    #[cold]
    #[allow(unsafe_code)]
    fn settle(&self, held: usize) -> bool {
        let mut list = self.owed.swap(std::ptr::null_mut(), Ordering::AcqRel);
        let mut put_back = false;
        while !list.is_null() {
            // SAFETY: the list consists of boxes that `owe` gave up, and the swap made all of it ours alone.
            let owed = unsafe { Box::from_raw(list) };
            list = owed.next;
            if owed.address == held {
                put_back = true;
                self.push(owed);
            } else {
                drop(owed.thing);
            }
        }
        put_back
    }

    #[allow(unsafe_code)]
    fn push(&self, mut owed: Box<Owed<T>>) {
        let mut first = self.owed.load(Ordering::Relaxed);
        loop {
            owed.next = first;
            let new = Box::into_raw(owed);
            match self.owed.compare_exchange(first, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
            // SAFETY: it was not put on the list, so it is the box that was given up just now, and nobody saw it.
            owed = unsafe { Box::from_raw(new) };
        }
    }
}

impl<T> Drop for Record<T> {
    fn drop(&mut self) {
        self.settle(0);
    }
}
