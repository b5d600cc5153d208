//! From the stored bytes of a frame to the memory of everyone who waits for it: for the decompressor's threads, and for
//! an I/O worker that finishes a small read itself.

use std::cell::RefCell;
use std::sync::Arc;

use super::Shared;
use crate::bundle::{Bundle, Codec, Decoder, FrameRef, check_stored};
use crate::config::Integrity;
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::messages::work::{Flight, FrameJob, Part, Permit, ReadToken, caught};
use crate::messages::{Filled, Finished};
use crate::platform::fill::FillClaim;
use crate::platform::io::ReadDone;
use crate::platform::memory::{IoBuffer, Segment};
use crate::residency::{IoCharge, Live, Want};

/// How much more a decoded byte costs than one that is only checked.
const DECODED_WEIGHT: usize = 3;

/// The memory of a read whose frames are decoded, maybe by several threads: it ends with the last of them, and its
/// charge and its permit after it.
pub struct Landed {
    buffer: IoBuffer,
    within: usize,
    len: usize,
    live: Arc<Live>,
    _memory: IoCharge,
    _permit: Permit,
}

impl Landed {
    /// Takes a read apart.
    pub fn new(read: ReadDone<ReadToken>) -> (Landed, Vec<FrameJob>) {
        let ReadDone { buffer, within, len, token, .. } = read;
        let ReadToken { frames, live, memory, permit, .. } = token;
        (Landed { buffer, within, len, live, _memory: memory, _permit: permit }, frames)
    }
}

/// What it costs to finish a read, as bytes to be checked.
pub fn cost(read: &ReadDone<ReadToken>) -> usize {
    read.token.frames.iter().map(frame_cost).sum()
}

/// How many of these frames cost about as much as `cost`, at least one.
pub fn frames_of_cost(frames: &[FrameJob], cost: usize) -> usize {
    let all: usize = frames.iter().map(frame_cost).sum();
    (frames.len() * cost / all.max(1)).max(1)
}

fn frame_cost(job: &FrameJob) -> usize {
    match job.frame.codec {
        Codec::Store => job.frame.stored_len as usize,
        Codec::Lz4 | Codec::Zstd => DECODED_WEIGHT * job.frame.decoded_len as usize,
    }
}

/// Finishes a whole read: checks and decodes its frames, and adds to `finished` what is complete with them.
pub fn finish(shared: &Shared, read: ReadDone<ReadToken>, finished: &mut Vec<Finished>) {
    let (mut landed, frames) = Landed::new(read);
    match std::mem::replace(&mut landed.buffer, IoBuffer::empty()) {
        IoBuffer::Claim(claim) => in_place(shared, landed.live.bundle(), 0, claim, frames, finished),
        IoBuffer::Scatter(segments) => {
            let mut frames = frames.into_iter().peekable();
            let mut at = 0;
            for segment in segments {
                let end = at + segment.len();
                if let Segment::Claim(claim) = segment {
                    let mut within = Vec::new();
                    while let Some(job) = frames.next_if(|job| job.at < end) {
                        within.push(job);
                    }
                    in_place(shared, landed.live.bundle(), at, claim, within, finished);
                }
                at = end;
            }
        }
        buffer => {
            landed.buffer = buffer;
            frames_of(shared, &landed, frames, finished);
        }
    }
}

/// Checks and decodes `frames`, which are some of the read's.
pub fn frames_of(shared: &Shared, landed: &Landed, frames: Vec<FrameJob>, finished: &mut Vec<Finished>) {
    let bytes = landed.buffer.room().get(landed.within..landed.within + landed.len).unwrap_or_default();
    for job in frames {
        let stored = bytes.get(job.at..job.at + job.frame.stored_len as usize).unwrap_or_default();
        decode_frame(shared, landed.live.bundle(), &job, stored, finished);
    }
}

/// Checks frames that stand in their flight's memory already, from byte `start` of the read on.
fn in_place(
    shared: &Shared,
    bundle: &Bundle,
    start: usize,
    claim: FillClaim,
    frames: Vec<FrameJob>,
    finished: &mut Vec<Finished>,
) {
    let file = bundle.info().file.as_str();
    // Held past the claim's end, since the charge for the memory goes with the flight.
    let flight = frames.first().and_then(|job| job.in_place.as_ref()).map(|(flight, _)| Arc::clone(flight));
    let mut sound = true;
    for job in frames {
        let frame = &job.frame;
        let (owner, to) = match &job.in_place {
            Some((flight, to)) => (flight, *to),
            None => continue,
        };
        let stored = claim.as_slice().get(job.at - start..job.at - start + frame.stored_len as usize);
        let wanted = still_wanted(shared, job.waits.close());
        if wanted.is_empty() {
            sound = false;
            continue;
        }
        let is_own = |part: &Part| Arc::ptr_eq(&part.flight, owner) && part.to == to;
        let copies = || wanted.iter().filter(|part| !is_own(part));
        let checked = caught(|| {
            let stored = stored.unwrap_or_default();
            check_stored(frame, stored, file)?;
            copies().try_for_each(|part| copy(shared, stored, part, file))
        });
        if settle(shared, &wanted, frame, checked) {
            finished.extend(copies().filter_map(|part| complete(shared, bundle, &part.flight)));
            shared.metrics.frames_in_place.one();
        } else {
            sound = false;
        }
    }
    if sound {
        claim.done();
        finished.extend(flight.and_then(|flight| complete(shared, bundle, &flight)));
    } else {
        drop(claim);
    }
}

/// Decodes one frame for everyone who waits for it.
fn decode_frame(shared: &Shared, bundle: &Bundle, job: &FrameJob, stored: &[u8], finished: &mut Vec<Finished>) {
    let parts = job.waits.close();
    // Who wants all of it lends its memory to the decoding, also when nobody waits for that any more: the scratch
    // memory of such a frame was not charged.
    let lent = parts.iter().find(|part| part.is_whole(&job.frame)).map(|part| (Arc::clone(&part.flight), part.to));
    let wanted = still_wanted(shared, parts);
    if wanted.is_empty() {
        return;
    }
    let began = shared.clock.now();
    let decoded = caught(|| decode_parts(shared, bundle, &job.frame, stored, lent.as_ref(), &wanted));
    let took = shared.clock.now().saturating_duration_since(began);
    shared.metrics.costs.decoded(job.frame.codec as usize, u64::from(job.frame.decoded_len), took);
    if settle(shared, &wanted, &job.frame, decoded) {
        finished.extend(wanted.iter().filter_map(|part| complete(shared, bundle, &part.flight)));
    }
}

/// Leaves out who does not wait any more, and whose turn breaks.
fn still_wanted(shared: &Shared, parts: Vec<Part>) -> Vec<Part> {
    let mut wanted = parts;
    wanted.retain(|part| {
        if !part.flight.is_wanted() {
            return false;
        }
        match caught(|| shared.reached("decompressor", &part.flight.located.record.path)) {
            Ok(()) => true,
            Err(cause) => {
                broke(shared, &part.flight, cause);
                false
            }
        }
    });
    wanted
}

/// Whether the frame is decoded; if not, whoever waits is answered.
fn settle(
    shared: &Shared,
    wanted: &[Part],
    frame: &FrameRef,
    outcome: std::result::Result<Result<()>, String>,
) -> bool {
    match outcome {
        Ok(Ok(())) => {
            shared.metrics.decoded_bytes.add(u64::from(frame.decoded_len));
            return true;
        }
        Ok(Err(error)) => {
            shared.metrics.corrupt.one();
            wanted.iter().for_each(|part| part.flight.fail(error.clone()));
        }
        Err(cause) => wanted.iter().for_each(|part| broke(shared, &part.flight, cause.clone())),
    }
    false
}

fn broke(shared: &Shared, flight: &Flight, cause: String) {
    shared.metrics.item_panics.one();
    flight.broke(cause);
}

thread_local! {
    /// Contexts and scratch memory of one decoding thread. The scratch is charged with the reads that need it.
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
}

fn decode_parts(
    shared: &Shared,
    bundle: &Bundle,
    frame: &FrameRef,
    stored: &[u8],
    lent: Option<&(Arc<Flight>, usize)>,
    parts: &[Part],
) -> Result<()> {
    let file = bundle.info().file.as_str();
    check_stored(frame, stored, file)?;
    if frame.codec == Codec::Store {
        return parts.iter().try_for_each(|part| copy(shared, stored, part, file));
    }
    let dictionary = if frame.dictionary == 0 { None } else { Some(bundle.dictionary(frame.dictionary)?) };
    let decoded_len = frame.decoded_len as usize;
    DECODER.with_borrow_mut(|(decoder, scratch)| {
        if let Some((flight, to)) = lent {
            return flight.target.fill(*to, decoded_len, |into| {
                decoder.decode(frame, dictionary.as_ref(), stored, into, file)?;
                let is_lent = |part: &Part| Arc::ptr_eq(&part.flight, flight) && part.to == *to;
                parts.iter().filter(|part| !is_lent(part)).try_for_each(|part| copy(shared, into, part, file))
            });
        }
        if scratch.len() < decoded_len {
            scratch.resize(decoded_len, 0);
        }
        let scratch = &mut scratch[..decoded_len];
        decoder.decode(frame, dictionary.as_ref(), stored, scratch, file)?;
        parts.iter().try_for_each(|part| copy(shared, scratch, part, file))
    })
}

/// Copies what a part wants of the decoded bytes.
fn copy(shared: &Shared, decoded: &[u8], part: &Part, file: &str) -> Result<()> {
    let piece = decoded
        .get(part.from..part.from + part.len)
        .ok_or_else(|| Error::corrupt(file, format!("'{}' reaches past its frame", part.flight.located.record.path)))?;
    shared.metrics.copies.one();
    shared.metrics.copied_bytes.add(piece.len() as u64);
    part.flight.target.fill(part.to, part.len, |into| {
        into.copy_from_slice(piece);
        Ok(())
    })
}

/// After the last part of a content: checks the whole where that is asked for.
fn complete(shared: &Shared, bundle: &Bundle, flight: &Flight) -> Option<Finished> {
    let finished = flight.finish()?;
    // The hash of a stored form is of its frames' hashes, each of which was checked.
    if shared.config.integrity == Integrity::Content
        && finished.lease.key().want != Want::Stored
        && let Filled::Content(content) = &finished.filled
        && ContentHash::of(content) != content.hash()
    {
        shared.metrics.corrupt.one();
        let what = format!("the content of '{}' does not match its hash", finished.located.record.path);
        finished.lease.answer(Err(Error::corrupt(bundle.info().file.clone(), what)));
        return None;
    }
    Some(finished)
}
