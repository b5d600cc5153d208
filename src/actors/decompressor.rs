//! Role: spreads completed reads over the decoding threads of the NUMA node that read them, which check stored frames
//! against the table of contents and decode them into their final memory.
//!
//! Owns: nothing; its threads are pools of their own, one for each node, never the host's. Receives: [`DecompressorMessage`].
//! Sends: `Finished` to the cache manager. On restart: kept: jobs already on the pool, which finish; rebuilt: nothing;
//! lost: queued messages, whose leases and permits go back by their drop.
//! Bounds: the permits of the reads, which travel to the end of decoding.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Shared;
use super::decoding::{self, Landed, cost};
use crate::messages::work::ReadToken;
use crate::messages::{CacheManagerMessage, DecompressorMessage, Finished};
use crate::platform::io::ReadDone;
use crate::platform::memory::IoBuffer;
use crate::platform::threads::{Job, Pool};

/// What one job takes on, by [`cost`]: some tenths of a millisecond, so that an urgent read that comes later waits for
/// no more than that, and a thread that has nothing to do finds something.
const JOB_COST: usize = 512 << 10;

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
            DecompressorMessage::Decode { place, reads } => spread(&state.shared, &state.shared.decoders[place], reads),
        }
        Ok(())
    }
}

/// Cuts a batch into jobs of about equal cost. Small reads of one urgency share a job; the frames of a large read are
/// decoded by several.
fn spread(shared: &Arc<Shared>, decoders: &Pool, reads: Vec<ReadDone<ReadToken>>) {
    let mut jobs: Vec<(u8, Job)> = Vec::new();
    // By urgency: what the next job of it is, and what that costs so far.
    let mut open: [(Vec<ReadDone<ReadToken>>, usize); 4] = Default::default();
    let several = decoders.count() > 1;
    for read in reads {
        let (lane, cost) = (read.token.priority() as u8, cost(&read));
        let is_in_place = matches!(read.buffer, IoBuffer::Claim(_) | IoBuffer::Scatter(_));
        if several && !is_in_place && cost > JOB_COST && read.token.frames.len() > 1 {
            split(shared, lane, read, &mut jobs);
            continue;
        }
        let (batch, so_far) = &mut open[usize::from(lane)];
        batch.push(read);
        *so_far += cost;
        if *so_far >= JOB_COST {
            *so_far = 0;
            jobs.push((lane, whole(shared, std::mem::take(batch))));
        }
    }
    for (lane, (batch, _)) in open.into_iter().enumerate().filter(|(_, (batch, _))| !batch.is_empty()) {
        jobs.push((lane as u8, whole(shared, batch)));
    }
    decoders.submit_all(jobs);
}

/// The frames of one large read, by several threads.
fn split(shared: &Arc<Shared>, lane: u8, read: ReadDone<ReadToken>, jobs: &mut Vec<(u8, Job)>) {
    let (landed, frames) = Landed::new(read);
    let landed = Arc::new(landed);
    let share = decoding::frames_of_cost(&frames, JOB_COST);
    let mut frames = frames.into_iter().peekable();
    while frames.peek().is_some() {
        let frames: Vec<_> = frames.by_ref().take(share).collect();
        let (shared, landed) = (Arc::clone(shared), Arc::clone(&landed));
        jobs.push((
            lane,
            Box::new(move || {
                let mut finished = Vec::new();
                decoding::frames_of(&shared, &landed, frames, &mut finished);
                // The memory is free, and its charge and permit are back, before anyone is answered.
                drop(landed);
                tell(&shared, finished);
            }),
        ));
    }
}

fn whole(shared: &Arc<Shared>, reads: Vec<ReadDone<ReadToken>>) -> Job {
    let shared = Arc::clone(shared);
    Box::new(move || {
        let mut finished = Vec::new();
        for read in reads {
            decoding::finish(&shared, read, &mut finished);
        }
        tell(&shared, finished);
    })
}

fn tell(shared: &Shared, finished: Vec<Finished>) {
    if !finished.is_empty() {
        // A cache manager that is down: the contents are dropped, and the ledger asks again when it is up.
        drop(shared.addresses.cache_manager.cast(CacheManagerMessage::Finished(finished)));
    }
}
