//! The memory that a planned read goes into.

use std::io;
use std::sync::Arc;

use super::plan::Planned;
use crate::error::{Error, Result};
use crate::limits;
use crate::messages::work::{Flight, FrameJob};
use crate::platform::fill::FillClaim;
use crate::platform::io::Access;
use crate::platform::memory::{AlignedBuffer, BufferPool, IoBuffer, Segment};

/// Claims of the flights' own memory for what is read in place, else a part of the pool, else an allocation.
///
/// # Errors
/// [`Error::Io`] when there is no memory; [`Error::Corrupt`] when pieces contradict each other.
pub fn target(planned: &Planned, pool: Option<&Arc<BufferPool>>) -> Result<IoBuffer> {
    if planned.in_place {
        return in_place(&planned.frames);
    }
    // A direct read is widened to whole blocks at both ends.
    let len = match planned.access {
        Access::Cached => planned.len,
        Access::Direct => planned.len + 2 * limits::BLOCK_BYTES,
    };
    if let Some(buffer) = pool.and_then(|pool| pool.take(len)) {
        return Ok(buffer.into());
    }
    let out = || Error::io(format!("allocate {len} bytes"), "memory", io::Error::from(io::ErrorKind::OutOfMemory));
    Ok(AlignedBuffer::new_zeroed(len, limits::BLOCK_BYTES).ok_or_else(out)?.into())
}

/// Neighbours in the file that are neighbours in one flight's memory, too, are one claim.
fn in_place(frames: &[FrameJob]) -> Result<IoBuffer> {
    struct Run<'f> {
        flight: &'f Arc<Flight>,
        to: usize,
        at: usize,
        len: usize,
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    for job in frames {
        let Some((flight, to)) = &job.in_place else { continue };
        let len = job.frame.stored_len as usize;
        match runs.last_mut() {
            Some(run) if Arc::ptr_eq(run.flight, flight) && run.to + run.len == *to && run.at + run.len == job.at => {
                run.len += len;
            }
            _ => runs.push(Run { flight, to: *to, at: job.at, len }),
        }
    }
    let claim = |run: &Run<'_>| -> Result<FillClaim> {
        let twice =
            || Error::corrupt("memory", format!("bytes {} and {} on are not there to be read", run.to, run.len));
        run.flight.target.claim(run.to, run.len).ok_or_else(twice)
    };
    if let [run] = runs.as_slice() {
        return Ok(claim(run)?.into());
    }
    let mut segments = Vec::with_capacity(2 * runs.len());
    let mut at = 0;
    for run in &runs {
        if run.at > at {
            segments.push(Segment::Gap(run.at - at));
        }
        segments.push(Segment::Claim(claim(run)?));
        at = run.at + run.len;
    }
    Ok(IoBuffer::Scatter(segments))
}
