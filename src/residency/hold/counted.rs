//! Pointers: one that counts, and places in a table that lead to what is counted without counting.
//!
//! [`Counted`] is what `Arc` is, with two differences that the hit path is made of: the count stands on the same cache
//! line as the first fields of what is counted, and a place in a table can lead to it without a count of its own.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

use super::blocks;

/// Shows that nothing that a place leads to is freed: a reader's section, or the mutex of the writers.
pub(in crate::residency) trait Hold {}

/// The count and what is counted, from the start of a cache line on.
#[repr(C, align(64))]
struct Inner<T> {
    count: AtomicUsize,
    value: T,
}

/// A counted reference.
pub(in crate::residency) struct Counted<T>(NonNull<Inner<T>>);

// SAFETY: like `Arc`: it gives shared access from any thread, and the last one drops the value wherever it is.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Send for Counted<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Sync for Counted<T> {}

impl<T> Counted<T> {
    pub(in crate::residency) fn new(value: T) -> Counted<T> {
        Counted(blocks::put(Inner { count: AtomicUsize::new(1), value }))
    }

    /// How many references there are, the table's own included.
    pub(in crate::residency) fn count(&self) -> usize {
        self.inner().count.load(Ordering::Acquire)
    }

    /// Where it is: no other thing has this address until it is freed.
    pub(in crate::residency) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    #[inline]
    #[allow(unsafe_code)]
    fn inner(&self) -> &Inner<T> {
        // SAFETY: it is freed with the last reference, and this is one.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Counted<T> {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed: whoever clones has a reference already, or holds what has one. It takes 2^64 clones that are all
        // leaked to overflow.
        self.inner().count.fetch_add(1, Ordering::Relaxed);
        Counted(self.0)
    }
}

impl<T> Drop for Counted<T> {
    #[inline]
    fn drop(&mut self) {
        if self.inner().count.fetch_sub(1, Ordering::Release) == 1 {
            free(self.0);
        }
    }
}

/// Frees what the last reference led to.
#[cold]
#[allow(unsafe_code)]
fn free<T>(last: NonNull<Inner<T>>) {
    // Whatever others did with it happened before.
    fence(Ordering::Acquire);
    // SAFETY: it was put there by `new`, and the count reached 0: nobody else has it.
    unsafe { blocks::take(last) };
}

impl<T> Deref for Counted<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

/// Where a place leads, for as long as it is shown that it is not freed.
pub(in crate::residency) struct Linked<'h, T> {
    inner: NonNull<Inner<T>>,
    hold: PhantomData<&'h T>,
}

impl<T> Clone for Linked<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Linked<'_, T> {}

impl<'h, T> Linked<'h, T> {
    /// Gives a reference to a table: it is the table's until [`Place::unlink`]. Only for who holds the writers' mutex.
    pub(in crate::residency) fn new(_: &'h impl Hold, counted: Counted<T>) -> Linked<'h, T> {
        Linked { inner: ManuallyDrop::new(counted).0, hold: PhantomData }
    }

    /// What it leads to.
    #[inline]
    #[allow(unsafe_code)]
    pub(in crate::residency) fn get(self) -> &'h T {
        // SAFETY: a `Linked` is made where it is linked or found while the hold lasts, so it is not freed before that ends.
        unsafe { &(*self.inner.as_ptr()).value }
    }

    /// Where it is.
    #[inline]
    pub(in crate::residency) fn address(self) -> usize {
        self.inner.as_ptr().addr()
    }

    /// A reference of one's own.
    #[inline]
    pub(in crate::residency) fn counted(self) -> Counted<T> {
        Counted::clone(&self.uncounted())
    }

    /// A reference that was not counted and is not given back: for who keeps it from being freed otherwise.
    #[inline]
    pub(in crate::residency) fn uncounted(self) -> ManuallyDrop<Counted<T>> {
        ManuallyDrop::new(Counted(self.inner))
    }

    /// How many references there are, the table's own included.
    pub(in crate::residency) fn count(self) -> usize {
        self.uncounted().count()
    }
}

impl<T> Deref for Linked<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

/// A place that leads to something counted, or nowhere. It counts nothing: the table's one reference lasts as long as
/// anything in the table leads there.
pub(in crate::residency) struct Place<T>(AtomicPtr<Inner<T>>);

impl<T> Default for Place<T> {
    fn default() -> Self {
        Place(AtomicPtr::new(std::ptr::null_mut()))
    }
}

impl<T> Place<T> {
    #[inline]
    pub(in crate::residency) fn load<'h>(&self, _: &'h impl Hold) -> Option<Linked<'h, T>> {
        let found = NonNull::new(self.0.load(Ordering::Acquire))?;
        // What was found was linked when the hold had begun, and what is unlinked since is not freed before it ends.
        Some(Linked { inner: found, hold: PhantomData })
    }

    /// Leads on to `next` instead of to `from`, and takes the table's reference to `from` back, if it led there. Others
    /// may still see it: it is to be dropped when their holds have ended. Only for who holds the writers' mutex, and
    /// only where this place is the one that leads there.
    pub(in crate::residency) fn unlink(&self, from: Linked<'_, T>, next: Option<Linked<'_, T>>) -> Option<Counted<T>> {
        let next = next.map_or(std::ptr::null_mut(), |linked| linked.inner.as_ptr());
        let led = self.0.compare_exchange(from.inner.as_ptr(), next, Ordering::AcqRel, Ordering::Relaxed);
        led.is_ok().then_some(Counted(from.inner))
    }

    /// Leads elsewhere. Only for who holds the writers' mutex.
    pub(in crate::residency) fn store(&self, to: Option<Linked<'_, T>>) {
        let to = to.map_or(std::ptr::null_mut(), |linked| linked.inner.as_ptr());
        self.0.store(to, Ordering::Release);
    }
}

/// Something that readers look at and a writer replaces.
pub(in crate::residency) struct Swap<T>(AtomicPtr<T>);

impl<T> Swap<T> {
    pub(in crate::residency) fn new(first: T) -> Swap<T> {
        Swap(AtomicPtr::new(Box::into_raw(Box::new(first))))
    }

    #[inline]
    #[allow(unsafe_code)]
    pub(in crate::residency) fn load<'h>(&self, _: &'h impl Hold) -> &'h T {
        // SAFETY: it was given by `new` or `swap` and never is null; what is replaced is not freed before the hold ends.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }

    /// Gives what is replaced, to be dropped when every hold that could see it has ended.
    pub(in crate::residency) fn swap(&self, next: T) -> Replaced<T> {
        Replaced(self.0.swap(Box::into_raw(Box::new(next)), Ordering::AcqRel))
    }
}

impl<T> Drop for Swap<T> {
    fn drop(&mut self) {
        drop(Replaced(*self.0.get_mut()));
    }
}

/// What was replaced. Not a box: others may still be reading it.
pub(in crate::residency) struct Replaced<T>(*mut T);

// SAFETY: it is the only one that frees what it points at, and gives no access to it.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Send for Replaced<T> {}

impl<T> Drop for Replaced<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it came out of a box in `Swap`, it is in no `Swap` any more, and it is dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Bytes that someone owns, with their address at hand.
pub(in crate::residency) struct Shown<T> {
    /// Not really `'static`: valid for as long as `owner` is.
    bytes: &'static [u8],
    owner: T,
}

impl<T: SteadyBytes> Shown<T> {
    #[allow(unsafe_code)]
    pub(in crate::residency) fn new(owner: T) -> Shown<T> {
        // SAFETY: by `SteadyBytes`, the bytes neither move nor change while `owner` lives, and `bytes` is only given
        // out for as long as `self`, which owns it and never changes it.
        let bytes = unsafe { std::slice::from_raw_parts(owner.bytes().as_ptr(), owner.bytes().len()) };
        Shown { bytes, owner }
    }

    #[inline]
    pub(in crate::residency) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    pub(in crate::residency) fn owner(&self) -> &T {
        &self.owner
    }
}

/// An owner of bytes that stay where they are, and as they are, until it is dropped, also when it is moved.
pub(in crate::residency) trait SteadyBytes {
    fn bytes(&self) -> &[u8];
}
