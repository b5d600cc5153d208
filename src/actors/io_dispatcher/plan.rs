//! Which frames are read together: the same frame once for all who want it, neighbours in one read.

use std::sync::Arc;

use crate::bundle::FrameRef;
use crate::error::Error;
use crate::ids::Priority;
use crate::limits;
use crate::messages::work::{FrameJob, Part, fail_all};
use crate::residency::Live;

/// Bytes between two frames that are worth reading and throwing away: the padding before an aligned frame.
const GAP_BYTES_MAX: u64 = limits::BLOCK_BYTES as u64;

/// A frame that one flight wants a part of.
pub struct Wanted {
    /// Whose table of contents describes it.
    pub live: Arc<Live>,
    /// How urgent its flight is.
    pub priority: Priority,
    /// The frame.
    pub frame: FrameRef,
    /// What of it, and where to.
    pub part: Part,
}

/// One read to come.
pub struct Planned {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
    /// The frames in it, in file order.
    pub frames: Vec<FrameJob>,
    /// The most urgent of them.
    pub priority: Priority,
    /// Whose file.
    pub live: Arc<Live>,
}

impl Planned {
    /// The buffer, and the scratch memory of the largest frame that is not decoded straight into its target.
    pub fn memory_bytes(&self) -> u64 {
        let scratch = self.frames.iter().filter(|frame| !frame.is_direct()).map(|frame| frame.frame.decoded_len).max();
        self.len as u64 + u64::from(scratch.unwrap_or(0))
    }

    /// Ends every flight that waits for it with the same error.
    pub fn fail(&self, error: &Error) {
        fail_all(&self.frames, error);
    }
}

/// Joins equal frames and merges neighbours of the same urgency, up to [`limits::READ_BYTES_MAX`] a read. A frame that
/// is wanted decoded and as it is stored is two, which differ in codec and length.
pub fn merge(mut wanted: Vec<Wanted>) -> Vec<Planned> {
    let file = |wanted: &Wanted| Arc::as_ptr(wanted.live.bundle().storage()).cast::<()>() as usize;
    wanted.sort_by_key(|wanted| (file(wanted), wanted.frame.offset, wanted.priority));
    let mut reads: Vec<Planned> = Vec::new();
    let mut last_file = 0;
    for next in wanted {
        let this_file = file(&next);
        let (start, end) = (next.frame.offset, next.frame.offset + u64::from(next.frame.stored_len));
        if let Some(read) = reads.last_mut().filter(|_| this_file == last_file) {
            if let Some(job) = read.frames.last_mut().filter(|job| job.frame == next.frame) {
                job.parts.push(next.part);
                continue;
            }
            let read_end = read.offset + read.len as u64;
            let is_neighbour = start >= read_end && start - read_end <= GAP_BYTES_MAX;
            if is_neighbour && read.priority == next.priority && end - read.offset <= limits::READ_BYTES_MAX as u64 {
                read.len = (end - read.offset) as usize;
                let within = (start - read.offset) as usize;
                read.frames.push(FrameJob { frame: next.frame, within, parts: vec![next.part] });
                continue;
            }
        }
        last_file = this_file;
        let len = next.frame.stored_len as usize;
        let frames = vec![FrameJob { frame: next.frame, within: 0, parts: vec![next.part] }];
        reads.push(Planned { offset: start, len, frames, priority: next.priority, live: next.live });
    }
    reads
}
