//! Which frames are read together: the same frame once for all who want it, neighbours in one read.
//!
//! A frame is known from its plan to the begin of its decoding, so that whoever wants it meanwhile joins those who wait
//! for it already. What is stored as it is, and wanted whole, is read into its flight's own memory; a read brings
//! either such frames or others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::bundle::{Codec, FrameRef};
use crate::error::Error;
use crate::ids::{Hashing, Priority};
use crate::limits;
use crate::messages::work::{FrameJob, Part, Waits, fail_all};
use crate::platform::io::Access;
use crate::residency::Live;

/// Bytes between two frames that are worth reading and throwing away: the padding before an aligned frame.
const GAP_BYTES_MAX: u64 = limits::BLOCK_BYTES as u64;
/// Frames of one read; with the gaps between them they are fewer than what one call of a system takes.
const FRAMES_MAX: usize = 256;
/// Frames that are known at once before those that are done are looked for.
const KNOWN_MIN: usize = 1024;

/// A frame that one flight wants a part of.
pub struct Wanted {
    /// Whose table of contents describes it.
    pub live: Arc<Live>,
    /// How urgent its flight is.
    pub priority: Priority,
    /// Whether it is read through the page cache.
    pub access: Access,
    /// Which node's worker is to read it, by its place.
    pub place: u8,
    /// The frame.
    pub frame: FrameRef,
    /// What of it, and where to.
    pub part: Part,
    /// Since when its flight has waited.
    pub since: Instant,
    /// Where its flight stood within its lane.
    pub score: f32,
}

impl Wanted {
    fn file(&self) -> usize {
        Arc::as_ptr(self.live.bundle().storage()).cast::<()>() as usize
    }
}

/// One read to come.
pub struct Planned {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
    /// The frames in it, in file order.
    pub frames: Vec<FrameJob>,
    /// Whether they go into their flights' own memory, all of them or none.
    pub in_place: bool,
    /// Whether they are read through the page cache.
    pub access: Access,
    /// Which node's worker is to read them, by its place.
    pub place: u8,
    /// How urgent it was when it was planned.
    pub priority: Priority,
    /// Since when the first of its flights has waited.
    pub since: Instant,
    /// The highest score of its flights: reads go in their order, too.
    pub score: f32,
    /// Whose file.
    pub live: Arc<Live>,
}

impl Planned {
    /// How urgent it is now, with those who joined since.
    pub fn priority_now(&self) -> Priority {
        self.frames.iter().map(|job| job.waits.priority()).min().unwrap_or(self.priority)
    }

    /// The buffer, and the scratch memory of the largest frame that is not decoded straight into its target. What is
    /// read in place is charged already.
    pub fn memory_bytes(&self) -> u64 {
        if self.in_place {
            return 0;
        }
        self.len as u64 + self.frames.iter().map(FrameJob::scratch_bytes).max().unwrap_or(0)
    }

    /// How urgent it is to those who still wait for any of it; `None` when nobody does.
    pub fn urgency(&self) -> Option<Priority> {
        self.frames.iter().filter_map(|job| job.waits.urgency()).min()
    }

    /// Ends every flight that waits for it with the same error.
    pub fn fail(&self, error: &Error) {
        fail_all(&self.frames, error);
    }
}

/// The frames that are planned or on their way, by file, offset and codec: a frame that is wanted decoded and as it is
/// stored is two.
#[derive(Default)]
pub struct UnderWay {
    frames: HashMap<(usize, u64, Codec), Known, Hashing>,
    prune_at: usize,
}

struct Known {
    /// Its storage is kept open by whoever keeps this: while it is there, the address of the key is that file's.
    waits: Weak<Waits>,
    stored_hash: [u8; 32],
    /// The read's number among the planned ones.
    read: u64,
}

impl UnderWay {
    /// Lets `wanted` join a frame that is on its way, unless it is more urgent than a read that cannot be raised any
    /// more. `raise` makes a planned read more urgent; it says whether the read was still planned.
    ///
    /// # Errors
    /// It comes back when it has to be read.
    pub fn join(&self, wanted: Wanted, raise: impl FnOnce(u64, Priority) -> bool) -> Result<(), Box<Wanted>> {
        let known = self.frames.get(&(wanted.file(), wanted.frame.offset, wanted.frame.codec));
        let Some(known) = known.filter(|known| known.stored_hash == wanted.frame.stored_hash) else {
            return Err(Box::new(wanted));
        };
        let Some(waits) = known.waits.upgrade() else { return Err(Box::new(wanted)) };
        if wanted.priority < waits.priority() && !raise(known.read, wanted.priority) {
            return Err(Box::new(wanted));
        }
        let Wanted { live, priority, access, place, frame, part, since, score } = wanted;
        let again = |part| Box::new(Wanted { live, priority, access, place, frame, part, since, score });
        waits.join(part, priority).map_err(again)
    }

    /// Notes the frames of a read that was planned as number `read`.
    pub fn note(&mut self, planned: &Planned, read: u64) {
        let file = Arc::as_ptr(planned.live.bundle().storage()).cast::<()>() as usize;
        if self.frames.len() >= self.prune_at.max(KNOWN_MIN) {
            self.frames.retain(|_, known| known.waits.strong_count() > 0);
            self.prune_at = 2 * self.frames.len();
        }
        for job in &planned.frames {
            let known = Known { waits: Arc::downgrade(&job.waits), stored_hash: job.frame.stored_hash, read };
            self.frames.insert((file, job.frame.offset, job.frame.codec), known);
        }
    }
}

/// Bytes of one read.
fn bytes_max(priority: Priority) -> u64 {
    let bytes = if priority == Priority::Low { limits::READ_BYTES_LOW_MAX } else { limits::READ_BYTES_MAX };
    bytes as u64
}

/// Joins equal frames and merges neighbours of the same urgency, as large as a read of it may be. A frame that is wanted decoded and as it is stored is two, which differ in codec and length.
pub fn merge(mut wanted: Vec<Wanted>) -> Vec<Planned> {
    if wanted.len() > 1 {
        wanted.sort_by_key(|wanted| (wanted.file(), wanted.frame.offset, wanted.frame.codec as u8, wanted.priority));
    }
    let mut reads: Vec<Planned> = Vec::new();
    let mut last_file = 0;
    for next in wanted {
        let file = next.file();
        let Wanted { live, priority, access, place, frame, part, since, score } = next;
        let (start, end) = (frame.offset, frame.offset + u64::from(frame.stored_len));
        let mut part = Some(part);
        let mut joins = None;
        if let Some(read) = reads.last_mut().filter(|_| file == last_file) {
            if let Some(job) =
                read.frames.last().filter(|job| (job.frame.offset, job.frame.codec) == (start, frame.codec))
                && let Some(more) = part.take()
            {
                // Nobody has closed a frame that is not yet planned; were it so, it would be read again.
                part = job.waits.join(more, priority).err();
                if part.is_none() {
                    continue;
                }
            }
            let in_place = frame.codec == Codec::Store && part.as_ref().is_some_and(|part| part.is_whole(&frame));
            let read_end = read.offset + read.len as u64;
            let is_neighbour = start >= read_end && start - read_end <= GAP_BYTES_MAX;
            let fits = end - read.offset <= bytes_max(priority) && read.frames.len() < FRAMES_MAX;
            let is_alike =
                (read.priority, read.in_place, read.access, read.place) == (priority, in_place, access, place);
            if is_neighbour && fits && is_alike {
                joins = Some(read);
            }
        }
        last_file = file;
        let Some(part) = part else { continue };
        let in_place = frame.codec == Codec::Store && part.is_whole(&frame);
        let target = in_place.then(|| (Arc::clone(&part.flight), part.to));
        let job = |at| FrameJob { frame, at, waits: Waits::new(part, priority), in_place: target };
        match joins {
            Some(read) => {
                (read.since, read.score) = (read.since.min(since), read.score.max(score));
                read.frames.push(job((start - read.offset) as usize));
                read.len = (end - read.offset) as usize;
            }
            None => {
                let (frames, len) = (vec![job(0)], frame.stored_len as usize);
                reads.push(Planned {
                    offset: start,
                    len,
                    frames,
                    in_place,
                    access,
                    place,
                    priority,
                    since,
                    score,
                    live,
                });
            }
        }
    }
    reads
}
