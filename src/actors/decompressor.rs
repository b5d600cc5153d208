//! Role: checks stored frames against the table of contents and decodes them into their final memory.
//!
//! Owns: nothing; its threads are a pool of their own, never the host's. Receives: [`DecompressorMessage`].
//! Sends: `Finished` to the cache manager. On restart: kept: jobs already on the pool, which finish; rebuilt: nothing;
//! lost: queued messages, whose leases and permits go back by their drop.
//! Bounds: the permits of the reads, which travel to the end of decoding.

use std::cell::RefCell;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use crate::bundle::{Bundle, Decoder, FrameRef, check_stored};
use crate::config::Integrity;
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::messages::work::{Flight, FrameJob, Part, ReadToken, caught};
use crate::messages::{CacheManagerMessage, DecompressorMessage, Filled, Finished};
use crate::platform::io::ReadDone;
use crate::residency::Want;

/// The actor.
pub struct Decompressor;

/// What it is given, and all that it keeps.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
}

impl Actor for Decompressor {
    type Msg = DecompressorMessage;
    type State = Args;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, args: Args) -> Result<Args, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Args,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DecompressorMessage::Decode(reads) => spread(&state.shared, reads),
        }
        Ok(())
    }
}

/// Gives a batch to the pool: as many jobs as there are threads, so that a batch of small reads costs few wake-ups.
fn spread(shared: &Arc<Shared>, mut reads: Vec<ReadDone<ReadToken>>) {
    let jobs = shared.decoders.count().min(reads.len()).max(1);
    let share = reads.len().div_ceil(jobs);
    while !reads.is_empty() {
        let batch: Vec<_> = reads.drain(..share.min(reads.len())).collect();
        let priority = batch.iter().map(|read| read.token.priority).min().unwrap_or_default();
        let shared_by_job = Arc::clone(shared);
        shared.decoders.submit(priority as u8, Box::new(move || decode_batch(&shared_by_job, batch)));
    }
}

fn decode_batch(shared: &Shared, reads: Vec<ReadDone<ReadToken>>) {
    let mut finished = Vec::new();
    for ReadDone { buffer, token, .. } in reads {
        let ReadToken { frames, live, memory, permit, .. } = token;
        for FrameJob { frame, within, parts } in frames {
            let stored = buffer.as_slice().get(within..within + frame.stored_len as usize).unwrap_or_default();
            decode_frame(shared, live.bundle(), &frame, stored, parts, &mut finished);
        }
        // The memory is free before its charge and its permit go back.
        drop(buffer);
        drop(memory);
        drop(permit);
    }
    if !finished.is_empty() {
        // A cache manager that is down: the contents are dropped, and the ledger asks again when it is up.
        drop(shared.addresses.cache_manager.cast(CacheManagerMessage::Finished(finished)));
    }
}

/// Decodes one frame for everyone who waits for it.
fn decode_frame(
    shared: &Shared,
    bundle: &Bundle,
    frame: &FrameRef,
    stored: &[u8],
    parts: Vec<Part>,
    finished: &mut Vec<Finished>,
) {
    let mut wanted = Vec::with_capacity(parts.len());
    for part in parts {
        if !part.flight.is_wanted() {
            continue;
        }
        match caught(|| shared.reached("decompressor", &part.flight.located.record.path)) {
            Ok(()) => wanted.push(part),
            Err(cause) => broke(shared, &part.flight, cause),
        }
    }
    if wanted.is_empty() {
        return;
    }
    match caught(|| decode_parts(bundle, frame, stored, &wanted)) {
        Ok(Ok(())) => shared.metrics.decoded_bytes.add(u64::from(frame.decoded_len)),
        Ok(Err(error)) => {
            shared.metrics.corrupt.one();
            wanted.iter().for_each(|part| part.flight.fail(error.clone()));
            return;
        }
        Err(cause) => {
            wanted.iter().for_each(|part| broke(shared, &part.flight, cause.clone()));
            return;
        }
    }
    for part in wanted {
        finished.extend(complete(shared, bundle, &part.flight));
    }
}

fn broke(shared: &Shared, flight: &Flight, cause: String) {
    shared.metrics.item_panics.one();
    flight.broke(cause);
}

thread_local! {
    /// Contexts and scratch memory of one decoding thread. The scratch is charged with the reads that need it.
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
}

fn decode_parts(bundle: &Bundle, frame: &FrameRef, stored: &[u8], parts: &[Part]) -> Result<()> {
    let file = bundle.info().file.as_str();
    check_stored(frame, stored, file)?;
    let dictionary = if frame.dictionary == 0 { None } else { Some(bundle.dictionary(frame.dictionary)?) };
    DECODER.with_borrow_mut(|(decoder, scratch)| {
        if let [part] = parts
            && part.from == 0
            && part.len == frame.decoded_len as usize
        {
            let decode = |into: &mut [u8]| decoder.decode(frame, dictionary.as_ref(), stored, into, file);
            return part.flight.target.fill(part.to, part.len, decode);
        }
        scratch.resize(frame.decoded_len as usize, 0);
        decoder.decode(frame, dictionary.as_ref(), stored, scratch, file)?;
        for part in parts {
            let piece = scratch.get(part.from..part.from + part.len).ok_or_else(|| {
                Error::corrupt(file, format!("'{}' reaches past its frame", part.flight.located.record.path))
            })?;
            part.flight.target.fill(part.to, part.len, |into| {
                into.copy_from_slice(piece);
                Ok(())
            })?;
        }
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
