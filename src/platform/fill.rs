//! One buffer filled by several threads at once, each its own range.
//!
//! A range is filled by a call ([`FillBuffer::fill`]) or over time by whoever holds a claim on it ([`FillClaim`]): the
//! kernel, which reads into it, and then who checks what was read.
//!
//! Here, and not where it is used, since handing out exclusive parts of one allocation needs `unsafe`.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::AlignedBuffer;

/// A buffer of which every byte is to be filled exactly once, in any order, by any thread.
///
/// ```
/// use flyloft::platform::{fill::FillBuffer, memory::AlignedBuffer};
/// let target = FillBuffer::new(AlignedBuffer::new_zeroed(4, 64).expect("four bytes"));
/// let ok = |byte| move |into: &mut [u8]| { into.fill(byte); Ok::<(), ()>(()) };
/// assert_eq!(target.fill(2, 2, ok(8)), Some(Ok(())));
/// assert!(target.take().is_none(), "two bytes are missing");
/// assert_eq!(target.fill(1, 2, ok(9)), None, "byte 2 is filled already");
/// assert_eq!(target.fill(0, 2, ok(7)), Some(Ok(())));
/// assert_eq!(target.take().expect("it is full").as_slice(), [7, 7, 8, 8]);
/// ```
pub struct FillBuffer {
    state: Mutex<State>,
    /// The first of `capacity` bytes, within the buffer of `state`.
    start: NonNull<u8>,
    /// Bytes to be filled.
    len: usize,
    /// With the spare bytes, which nobody ever looks at.
    capacity: usize,
}

struct State {
    /// The buffer; its bytes are not looked at while a range is being filled. `None` once it was taken.
    buffer: Option<AlignedBuffer>,
    /// Ranges that were ever begun, start to end. They do not overlap and are never removed.
    begun: BTreeMap<usize, usize>,
    /// Bytes of the ranges that were filled to the end.
    filled: usize,
}

// SAFETY: `start` points into the buffer, which may move between threads.
#[allow(unsafe_code)]
unsafe impl Send for FillBuffer {}
// SAFETY: through a shared reference bytes are reached only by `fill` and by claims, and each byte by one of them at
// most, since `begun` (under its mutex) gives out no byte twice.
#[allow(unsafe_code)]
unsafe impl Sync for FillBuffer {}

impl FillBuffer {
    /// Nothing of `buffer` is filled yet.
    pub fn new(mut buffer: AlignedBuffer) -> Self {
        let (len, capacity) = (buffer.len(), buffer.capacity());
        let start = NonNull::from(buffer.with_spare_mut()).cast();
        let state = Mutex::new(State { buffer: Some(buffer), begun: BTreeMap::new(), filled: 0 });
        Self { state, start, len, capacity }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `fill` fill the `len` bytes at `to`. `None`, and it is not called, when they are not all within the buffer
    /// or were given out before. When it fails or panics, the bytes stay unfilled for good.
    #[allow(unsafe_code)]
    pub fn fill<E>(
        &self,
        to: usize,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        self.begin(to, len)?;
        // SAFETY: `begin` saw that the range is within the buffer and gave it to nobody before; the buffer lives as
        // long as `self`, unless it was taken, which needs every byte filled, and these are not.
        let into = unsafe { std::slice::from_raw_parts_mut(self.start.add(to).as_ptr(), len) };
        let filled = fill(into);
        if filled.is_ok() {
            self.state.lock().filled += len;
        }
        Some(filled)
    }

    /// Gives out the `len` bytes at `to` until the claim ends. `None` as from [`FillBuffer::fill`]. A claim on the last
    /// bytes has the spare ones of the buffer as its room.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use flyloft::platform::{fill::FillBuffer, memory::AlignedBuffer};
    /// let target = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(6, 4096).expect("a block")));
    /// let mut claim = target.claim(0, 6).expect("nobody has these bytes");
    /// assert!(target.claim(5, 1).is_none());
    /// assert_eq!((claim.len(), claim.room_mut().len()), (6, 4096));
    /// claim.room_mut().fill(7);
    /// claim.done();
    /// assert_eq!(target.take().expect("it is full").as_slice(), [7; 6]);
    /// ```
    pub fn claim(self: &Arc<Self>, to: usize, len: usize) -> Option<FillClaim> {
        self.begin(to, len)?;
        // A claim of no byte has no room either: the buffer may be full, and taken, while it is held.
        let room = if len > 0 && to + len == self.len { self.capacity - to } else { len };
        Some(FillClaim { target: Arc::clone(self), to, len, room })
    }

    fn begin(&self, to: usize, len: usize) -> Option<()> {
        let end = to.checked_add(len).filter(|end| *end <= self.len)?;
        if len == 0 {
            return Some(());
        }
        let mut state = self.state.lock();
        let before = state.begun.range(..end).next_back();
        if before.is_some_and(|(_, before_end)| *before_end > to) {
            return None;
        }
        state.begun.insert(to, end);
        Some(())
    }

    /// The buffer, once, when every byte is filled.
    pub fn take(&self) -> Option<AlignedBuffer> {
        let mut state = self.state.lock();
        if state.filled == self.len { state.buffer.take() } else { None }
    }

    /// The buffer, as far as it is filled. `&mut` means that nobody is filling it.
    pub fn take_unfinished(&mut self) -> Option<AlignedBuffer> {
        self.state.get_mut().buffer.take()
    }
}

impl fmt::Debug for FillBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FillBuffer({} of {} bytes)", self.state.lock().filled, self.len)
    }
}

/// A range of a [`FillBuffer`] that belongs to whoever holds this. Dropping it leaves the bytes unfilled for good.
pub struct FillClaim {
    target: Arc<FillBuffer>,
    to: usize,
    len: usize,
    /// `len`, and the spare bytes of the buffer for the claim on its last ones.
    room: usize,
}

impl FillClaim {
    /// Where in the buffer it begins.
    pub fn to(&self) -> usize {
        self.to
    }

    /// The number of bytes that [`FillClaim::done`] counts as filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, as far as they were written; the others are zero.
    pub fn as_slice(&self) -> &[u8] {
        &self.room()[..self.len]
    }

    /// The bytes and the room after them.
    #[allow(unsafe_code)]
    pub fn room(&self) -> &[u8] {
        // SAFETY: the range is within the buffer, and `begin` gave it to this claim alone: there is at most one claim
        // that ends where the spare bytes begin. The bytes are initialised. The buffer lives as long as `target`,
        // unless it was taken, which needs every byte filled, and these are not before `done`, which ends the claim.
        unsafe { std::slice::from_raw_parts(self.target.start.add(self.to).as_ptr(), self.room) }
    }

    /// The bytes and the room after them, to be written.
    #[allow(unsafe_code)]
    pub fn room_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `room`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.target.start.add(self.to).as_ptr(), self.room) }
    }

    /// The bytes are right: they count as filled from now on.
    pub fn done(self) {
        self.target.state.lock().filled += self.len;
    }
}

impl fmt::Debug for FillClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FillClaim({} bytes at {})", self.len, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(len: usize) -> FillBuffer {
        FillBuffer::new(AlignedBuffer::new_zeroed(len, 64).unwrap())
    }

    fn with(byte: u8) -> impl FnOnce(&mut [u8]) -> Result<(), ()> {
        move |into| {
            into.fill(byte);
            Ok(())
        }
    }

    #[test]
    fn many_threads_fill_one_buffer_and_one_of_them_takes_it() {
        let target = target(64 * 100);
        let taken: Vec<AlignedBuffer> = std::thread::scope(|scope| {
            let work = |thread: usize| {
                let target = &target;
                scope.spawn(move || {
                    let parts = (thread..64).step_by(4);
                    parts
                        .filter_map(|part| {
                            assert_eq!(target.fill(part * 100, 100, with(part as u8)), Some(Ok(())));
                            target.take()
                        })
                        .last()
                })
            };
            let threads: Vec<_> = (0..4).map(work).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), 1);
        assert!(taken[0].as_slice().chunks(100).enumerate().all(|(part, bytes)| bytes == [part as u8; 100]));
    }

    #[test]
    fn bytes_whose_filling_failed_or_panicked_stay_unfilled() {
        let target = target(2);
        assert_eq!(target.fill(0, 1, |_| Err("no")), Some(Err("no")));
        assert_eq!(target.fill(0, 1, with(1)), None);
        let panics = || target.fill(1, 1, |_| -> Result<(), ()> { std::panic::panic_any(()) });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(target.take().is_none());
    }

    #[test]
    fn a_claim_that_was_dropped_never_counts_and_one_of_no_bytes_has_no_room() {
        let target = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(10, 64).unwrap()));
        drop(target.claim(0, 4).unwrap());
        assert!(target.claim(0, 4).is_none() && target.claim(2, 20).is_none());
        let mut last = target.claim(4, 6).unwrap();
        assert_eq!((last.to(), last.len(), last.room().len()), (4, 6, 60));
        last.room_mut().fill(1);
        last.done();
        let nothing = target.claim(10, 0).unwrap();
        assert_eq!(nothing.room().len(), 0);
        assert!(target.take().is_none(), "four bytes are missing");
    }

    proptest! {
        #[test]
        fn no_byte_is_given_out_twice_and_none_outside(
            len in 0usize..40, ranges in proptest::collection::vec((0usize..50, 0usize..20), 0..20),
        ) {
            let mut target = target(len);
            let mut model = vec![0u8; len];
            for (index, (to, count)) in ranges.into_iter().enumerate() {
                let byte = index as u8 + 1;
                let fits = to + count <= len && model[to..to + count].iter().all(|byte| *byte == 0);
                prop_assert_eq!(target.fill(to, count, with(byte)).is_some(), fits);
                if fits {
                    model[to..to + count].fill(byte);
                }
            }
            let full = model.iter().all(|byte| *byte != 0);
            let taken = if full { target.take() } else {
                prop_assert!(target.take().is_none());
                target.take_unfinished()
            };
            let taken = taken.unwrap();
            prop_assert_eq!(taken.as_slice(), &model[..]);
        }
    }
}
