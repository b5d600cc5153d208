//! From the bytes that are wanted to the ranges that are transferred: whole blocks, for direct reads.

use super::op::{Access, Op, What};
use crate::platform::memory::{IoBuffer, Segment};
use crate::storage::Direct;

/// How one operation is transferred.
pub(super) struct Plan {
    /// Whether past the page cache.
    pub(super) direct: bool,
    /// The first byte in the file.
    pub(super) start: u64,
    /// Bytes to each part of the destination in turn: one, or one per segment.
    pub(super) widths: Widths,
    /// All of them together.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) total: usize,
    /// How many of them must be there for the operation to have succeeded: beyond may be the end of the file.
    pub(super) need: usize,
}

pub(super) enum Widths {
    One(usize),
    Each(Vec<usize>),
}

impl<T> Op<T> {
    /// The file past the page cache, for a read that asks for it.
    pub(super) fn direct_file(&self) -> Option<Direct<'_>> {
        match (&self.what, self.access) {
            (What::Read(source), Access::Direct) => source.direct(),
            _ => None,
        }
    }

    /// How to transfer it, past the page cache if that is possible; then it also notes where in the buffer the bytes
    /// asked for will begin. The operation has passed [`Op::check`].
    pub(super) fn plan(&mut self) -> Plan {
        if let Some((align, memory_align)) = self.direct_file().map(|direct| (direct.align, direct.memory_align))
            && let Some(plan) = self.plan_direct(align, memory_align)
        {
            return plan;
        }
        self.plan_cached()
    }

    /// How to transfer exactly the bytes asked for, through the page cache.
    pub(super) fn plan_cached(&mut self) -> Plan {
        self.within = 0;
        let widths = match &self.buffer {
            IoBuffer::Scatter(segments) => Widths::Each(segments.iter().map(Segment::len).collect()),
            _ => Widths::One(self.len),
        };
        Plan { direct: false, start: self.offset, widths, total: self.len, need: self.len }
    }

    fn plan_direct(&mut self, align: usize, memory_align: usize) -> Option<Plan> {
        let within = (self.offset % align as u64) as usize;
        // A claim's bytes belong at its start, nowhere else.
        if within > 0 && matches!(self.buffer, IoBuffer::Claim(_) | IoBuffer::Scatter(_)) {
            return None;
        }
        let (widths, total) = match &mut self.buffer {
            IoBuffer::Scatter(segments) => {
                let widths = widen_each(segments, align, memory_align)?;
                let total = widths.iter().sum();
                (Widths::Each(widths), total)
            }
            single => {
                let room = single.room_mut();
                let width = (within + self.len).next_multiple_of(align);
                if width > room.len() || room.as_ptr().align_offset(memory_align) != 0 {
                    return None;
                }
                (Widths::One(width), width)
            }
        };
        self.within = within;
        let need = within + self.len;
        Some(Plan { direct: true, start: self.offset - within as u64, widths, total, need })
    }
}

/// Whole blocks for each segment; what a segment takes beyond its end is taken off the gap behind it.
fn widen_each(segments: &mut [Segment], align: usize, memory_align: usize) -> Option<Vec<usize>> {
    let count = segments.len();
    let mut widths = Vec::with_capacity(count);
    // Bytes of what follows that are transferred already.
    let mut ahead = 0;
    for (index, segment) in segments.iter_mut().enumerate() {
        let len = segment.len();
        if let Segment::Gap(_) = segment {
            let rest = len.saturating_sub(ahead);
            ahead -= ahead.min(len);
            // What follows would not begin at a block.
            if rest % align != 0 && index + 1 < count {
                return None;
            }
            widths.push(rest.next_multiple_of(align));
            continue;
        }
        if ahead > 0 && len > 0 {
            return None;
        }
        let width = len.next_multiple_of(align);
        let room = segment.room_mut();
        if width > room.len() || (width > 0 && room.as_ptr().align_offset(memory_align) != 0) {
            return None;
        }
        ahead += width - len;
        widths.push(width);
    }
    Some(widths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fill::FillBuffer;
    use crate::platform::memory::AlignedBuffer;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn claim(len: usize) -> Segment {
        let target = Arc::new(FillBuffer::new(AlignedBuffer::new_in_blocks(len, 4096).unwrap()));
        Segment::Claim(target.claim(0, len).unwrap())
    }

    proptest! {
        #[test]
        fn direct_ranges_are_whole_blocks_in_file_order_and_fit_their_memory(
            parts in proptest::collection::vec((1usize..20_000, 0usize..3), 1..8), aligned: bool,
        ) {
            let mut segments = Vec::new();
            for (len, gap) in parts {
                segments.push(claim(len));
                // The padding up to the next block, some blocks more, or something that does not fit.
                let padding = len.next_multiple_of(512) - len;
                segments.push(Segment::Gap(if aligned { padding + gap * 512 } else { padding + gap }));
            }
            let wanted: usize = segments.iter().map(Segment::len).sum();
            let Some(widths) = widen_each(&mut segments, 512, 512) else {
                prop_assert!(!aligned, "padded frames can be read directly");
                return Ok(());
            };
            let (mut at, mut transferred) = (0, 0);
            for (segment, width) in segments.iter_mut().zip(&widths) {
                prop_assert_eq!(width % 512, 0);
                if !matches!(segment, Segment::Gap(_)) {
                    prop_assert_eq!(at, transferred, "its bytes go to its start");
                    prop_assert!(*width >= segment.len() && *width <= segment.room_mut().len());
                }
                at += segment.len();
                transferred += width;
            }
            prop_assert!(transferred >= wanted);
        }
    }
}
