//! Role: the conversation with one NUMA node's read engine, on that engine's own pinned thread.
//!
//! Owns: nothing that must survive; thread, ring and buffers in flight belong to the driver.
//! Receives: [`IoWorkerMessage`]. Sends: `LookedUp` to the dispatcher, `Decode` to the decompressor, and `Finished` to the
//! cache manager for small reads, which it checks and decodes itself rather than wake another thread.
//! On restart: kept: the driver with every read in flight, whose completions reach the next worker; rebuilt: the
//! attachment to the driver; lost: queued messages, whose leases and permits go back by their drop.
//! Bounds: reads by the dispatcher's permits, look-ups by the ledger's batches.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{Shared, decoding};
use crate::bundle::{AssetRecord, Found, Placement};
use crate::error::{Error, Result};
use crate::ids::{Generation, Priority};
use crate::limits;
use crate::messages::work::{ReadToken, caught, fail_all};
use crate::messages::{CacheManagerMessage, DecompressorMessage, DispatcherMessage, Finished, IoWorkerMessage, Lookup};
use crate::platform::io::{Driver, ReadDone, ReadOp};
use crate::residency::{Answer, Lease, Located, Want};

/// What is finished here of a read that comes alone, by [`decoding::cost`]: a frame of 64 KiB that has to be decoded.
const ALONE_COST_MAX: usize = 3 * limits::FRAME_ACCESS_BYTES_MAX;
/// What is finished here of each read of a batch: blocks to be checked, which takes a few microseconds.
const CHECK_COST_MAX: usize = 16 << 10;
/// What is finished here of a whole batch.
const BATCH_COST_MAX: usize = 256 << 10;

/// The actor.
pub struct IoWorker;

/// What it is given.
pub struct Args {
    /// What outlives every actor.
    pub shared: Arc<Shared>,
    /// Which driver is its.
    pub node: usize,
}

/// The attachment to the driver, which ends with it, however it ends.
pub struct State {
    shared: Arc<Shared>,
    driver: Arc<Driver<ReadToken>>,
    /// The place of its node.
    place: usize,
}

impl Drop for State {
    fn drop(&mut self) {
        // ractor runs no `post_stop` after a kill or a panic. Completions wait in the driver for the next worker.
        self.driver.detach();
    }
}

impl Actor for IoWorker {
    type Msg = IoWorkerMessage;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let driver = Arc::clone(&args.shared.drivers[args.node]);
        driver.attach(Box::new(move |done| {
            // A worker that ended this moment gives the message back; its drop returns leases and permits.
            drop(myself.send_message(IoWorkerMessage::Completed(done)));
        }));
        Ok(State { shared: args.shared, driver, place: args.node })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IoWorkerMessage::LookUp(leases, permit, since) => {
                state.look_up(leases, since);
                drop(permit);
            }
            IoWorkerMessage::Read(reads) => state.read(reads),
            IoWorkerMessage::Completed(done) => state.completed(done),
        }
        Ok(())
    }
}

impl State {
    fn look_up(&self, leases: Vec<Lease>, since: Instant) {
        let mut found = Vec::with_capacity(leases.len());
        for lease in leases {
            let span = lease.span();
            let _entered = span.enter();
            let key = lease.key();
            let working = lease.begin("io_worker");
            let looked = caught(|| locate(&lease, &self.shared));
            if looked.is_ok() {
                working.done();
            }
            match looked {
                Err(cause) => {
                    self.shared.metrics.item_panics.one();
                    lease.fail_item(cause);
                }
                Ok(Ok(located)) if key.want == Want::Record => {
                    lease.answer(Ok(Answer::Record(located)));
                }
                Ok(located) => found.push(Lookup { lease, located, since }),
            }
        }
        if !found.is_empty() {
            // A dispatcher that is down gets them again from the ledger.
            drop(self.shared.addresses.dispatcher.cast(DispatcherMessage::LookedUp(found)));
        }
    }

    fn read(&self, reads: Vec<ReadOp<ReadToken>>) {
        self.shared.metrics.reads.add(reads.len() as u64);
        // The permits bound what is sent here to what the driver takes; should that ever be wrong, the drop of what
        // came back gives it to the ledger, which asks again.
        let refused = self.driver.submit(reads);
        if !refused.is_empty() {
            tracing::warn!(refused = refused.len(), "the read engine is full or stopping; the loads are asked again");
        }
    }

    fn completed(&self, done: Vec<ReadDone<ReadToken>>) {
        let mut good = Vec::with_capacity(done.len());
        let mut bytes = 0;
        let now = self.shared.clock.now();
        for mut read in done {
            // Whether it is decoded yet does not matter to the device.
            drop(read.token.room.take());
            match &read.result {
                Ok(()) => {
                    self.shared.metrics.read_bytes.add(read.len as u64);
                    bytes += read.len as u64;
                    let took = now.saturating_duration_since(read.token.since);
                    self.shared.metrics.costs.read(read.len as u64, took);
                    // Somebody more urgent may have come for it while it was read.
                    for job in &read.token.frames {
                        job.waits.urgency();
                    }
                    let lane = self.shared.metrics.priorities.of(read.token.priority());
                    lane.reads.one();
                    lane.read_bytes.add(read.len as u64);
                    good.push(read);
                }
                Err(source) => {
                    let file = read.token.live.bundle().info().file.clone();
                    let error = Error::io(
                        format!("read {} bytes", read.len),
                        file,
                        std::io::Error::new(source.kind(), source.to_string()),
                    );
                    fail_all(&read.token.frames, &error);
                }
            }
        }
        self.shared.metrics.priorities.read(good.len() as u64, bytes, self.shared.clock.now());
        let mut finished = Vec::new();
        let rest = self.finish_here(good, &mut finished);
        if !finished.is_empty() {
            // A cache manager that is down: the contents are dropped, and the ledger asks again when it is up.
            drop(self.shared.addresses.cache_manager.cast(CacheManagerMessage::Finished(finished)));
        }
        if !rest.is_empty() {
            // A decompressor that is down: the reads are dropped, and the ledger asks again when it is up.
            let decode = DecompressorMessage::Decode { place: self.place, reads: rest };
            drop(self.shared.addresses.decompressor.cast(decode));
        }
    }

    /// Finishes what costs less than it costs to wake a thread for it: a small read when nothing else is under way,
    /// small reads that only have to be checked, and critical ones, the first of all. Gives the others back.
    fn finish_here(
        &self,
        mut reads: Vec<ReadDone<ReadToken>>,
        finished: &mut Vec<Finished>,
    ) -> Vec<ReadDone<ReadToken>> {
        let is_alone = reads.len() == 1 && self.driver.in_flight() == 0;
        let mut left = if is_alone { ALONE_COST_MAX } else { BATCH_COST_MAX };
        let each = if is_alone { ALONE_COST_MAX } else { CHECK_COST_MAX };
        let mut rest = Vec::new();
        if reads.len() > 1 {
            reads.sort_by_key(|read| read.token.priority());
        }
        for read in reads {
            let cost = decoding::cost(&read);
            // A critical one does not wait for a thread that works on something else.
            let is_critical = read.token.priority() == Priority::Critical;
            if cost > if is_critical { ALONE_COST_MAX } else { each.min(left) } {
                rest.push(read);
                continue;
            }
            left = left.saturating_sub(cost);
            self.shared.metrics.finished_inline.one();
            decoding::finish(&self.shared, read, finished);
        }
        rest
    }
}

/// Finds what `lease` asks for in its generation's table of contents.
fn locate(lease: &Lease, shared: &Shared) -> Result<Arc<Located>> {
    let (bundle, key) = (lease.live().bundle(), lease.key());
    let missing = || Error::NotFound { what: lease.what(), generation: key.generation };
    let range = match key.want {
        Want::Resident | Want::Stored => 0..u64::MAX,
        Want::Record => 0..0,
        Want::Piece { offset, len } => offset..offset.saturating_add(u64::from(len)),
    };
    let Found { record, placement, has_dependencies } =
        bundle.locate(key.id, lease.path(), range)?.ok_or_else(missing)?;
    shared.reached("io_worker", &record.path);
    if key.want == Want::Stored {
        return as_stored(key.generation, record, &placement);
    }
    Ok(Arc::new(Located { record, placement, has_dependencies }))
}

/// The stored form of `record`, as an asset of its own: its id, its hash and its length are those of the stored bytes.
fn as_stored(generation: Generation, record: AssetRecord, placement: &Placement) -> Result<Arc<Located>> {
    let missing = || Error::NotFound { what: format!("{} as one zstd stream", record.path), generation };
    let placement = placement.stored().ok_or_else(missing)?;
    let record = AssetRecord { id: record.id.stored(), content: placement.content, len: placement.len, ..record };
    Ok(Arc::new(Located { record, placement, has_dependencies: false }))
}
