//! From an operation to what the kernel is asked for.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use io_uring::{opcode, squeue, types};

use super::registered::Registered;
use super::ring::{Descriptor, Entry};
use crate::platform::io::op::{Op, SEGMENTS_MAX, What};
use crate::platform::io::plan::{Plan, Widths};
use crate::platform::memory::{IoBuffer, Segment};

/// Where gaps are read to. Nobody looks at it.
pub(super) const DISCARD_BYTES: usize = 64 << 10;
/// The most bytes asked of the kernel in one transfer; it stops a little below 2 GiB by itself.
const STEP_BYTES_MAX: usize = 1 << 30;

/// The file and the ranges of an operation; `None` when it is not one for a ring.
pub(super) fn plan<T>(op: &mut Op<T>) -> Option<(RawFd, Plan)> {
    if let IoBuffer::Scatter(segments) = &op.buffer {
        let long = |segment: &Segment| matches!(segment, Segment::Gap(len) if *len > DISCARD_BYTES);
        // Zeros for the gaps of a write, and long gaps of a read, are a thread's work.
        if matches!(op.what, What::Write(_)) || segments.iter().any(long) {
            return None;
        }
    }
    let plan = op.plan();
    let file = match &op.what {
        What::Read(source) if plan.direct => source.direct().map(|direct| direct.file),
        What::Read(source) => source.file(),
        What::Write(target) | What::SyncData(target) | What::SyncAll(target) => target.file(),
    };
    Some((file?.as_raw_fd(), plan))
}

/// The kernel's form of what is left of `entry`, and whether it names registered memory.
pub(super) fn request<T>(entry: &mut Entry<T>, registered: &Registered, discard: NonNull<u8>) -> (squeue::Entry, bool) {
    let (fd, flags) = match entry.file {
        Descriptor::Raw(fd) => (types::Fd(fd), squeue::Flags::empty()),
        // A number in the ring's table stands where a descriptor would; the flag says so.
        Descriptor::Fixed(number) => (types::Fd(number as RawFd), squeue::Flags::FIXED_FILE),
    };
    let writes = match &entry.op.what {
        What::SyncData(_) => {
            let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            return (sync.flags(flags), false);
        }
        What::SyncAll(_) => return (opcode::Fsync::new(fd).build().flags(flags), false),
        What::Write(_) => true,
        What::Read(_) => false,
    };
    let offset = entry.plan.start + entry.moved as u64;
    let mut number = None;
    let sqe = match (&entry.plan.widths, &mut entry.op.buffer) {
        (Widths::Each(widths), IoBuffer::Scatter(segments)) => {
            entry.pieces = pieces(segments, widths, entry.moved, discard);
            let (start, count) = (entry.pieces.as_ptr(), entry.pieces.len() as u32);
            opcode::Readv::new(fd, start, count).offset(offset).build()
        }
        (widths, single) => {
            let width = if let Widths::One(width) = widths { *width } else { 0 };
            let rest = single.room_mut().get_mut(entry.moved..width).unwrap_or_default();
            let len = rest.len().min(STEP_BYTES_MAX) as u32;
            let start = rest.as_mut_ptr();
            number = registered.number(single, start, len as usize);
            match (writes, number) {
                (false, Some(number)) => opcode::ReadFixed::new(fd, start, len, number).offset(offset).build(),
                (false, None) => opcode::Read::new(fd, start, len).offset(offset).build(),
                (true, Some(number)) => opcode::WriteFixed::new(fd, start, len, number).offset(offset).build(),
                (true, None) => opcode::Write::new(fd, start, len).offset(offset).build(),
            }
        }
    };
    (sqe.flags(flags), number.is_some())
}

/// The places of a scattered read after the first `moved` bytes.
fn pieces(segments: &mut [Segment], widths: &[usize], moved: usize, discard: NonNull<u8>) -> Vec<libc::iovec> {
    let mut skip = moved;
    let mut pieces = Vec::with_capacity(segments.len().min(SEGMENTS_MAX));
    for (segment, width) in segments.iter_mut().zip(widths) {
        let from = skip.min(*width);
        skip -= from;
        let start = match segment {
            Segment::Gap(_) => discard.as_ptr(),
            segment => segment.room_mut()[from..*width].as_mut_ptr(),
        };
        if from < *width {
            pieces.push(libc::iovec { iov_base: start.cast(), iov_len: *width - from });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::memory::BufferPool;

    #[test]
    fn what_is_left_of_a_scattered_read_begins_where_it_came_short() {
        let pool = BufferPool::new(0, None).unwrap();
        let mut segments =
            [Segment::Pooled(pool.take(10).unwrap(), 10), Segment::Gap(6), Segment::Pooled(pool.take(20).unwrap(), 20)];
        let starts: Vec<_> = segments.iter_mut().map(|segment| segment.room_mut().as_mut_ptr()).collect();
        let discard = NonNull::dangling();
        let of = |segments: &mut [Segment], moved| -> Vec<(*mut u8, usize)> {
            let pieces = pieces(segments, &[10, 6, 20], moved, discard);
            pieces.iter().map(|piece| (piece.iov_base.cast(), piece.iov_len)).collect()
        };
        assert_eq!(of(&mut segments, 0), [(starts[0], 10), (discard.as_ptr(), 6), (starts[2], 20)]);
        assert_eq!(of(&mut segments, 12), [(discard.as_ptr(), 4), (starts[2], 20)]);
        assert_eq!(of(&mut segments, 17), [(starts[2].wrapping_add(1), 19)]);
    }
}
