//! Making a generation the one that the next reader opens: flush what it is made of, overwrite the older superblock,
//! flush again. The only bytes of a bundle that are ever overwritten are the older superblock's.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::HEAD_BYTES;
use super::page::PageRef;
use super::reader::Bundle;
use super::superblock::{MINOR, SUPERBLOCK_BYTES, Standing, Superblock};
use crate::error::{Error, Result};
use crate::ids::Generation;
use crate::storage::WriteAt;

/// Commits the generations that a [`super::BundleWriter`] stages; may be used from another thread than the writer.
#[derive(Clone)]
pub struct Committer {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub storage: Arc<dyn WriteAt>,
    pub file: String,
    /// Held while it is flushed: who stages meanwhile must not ask for it.
    state: Mutex<State>,
    /// What the newest superblock on disk says. Never held for longer than a copy takes.
    standing: Mutex<Superblock>,
}

struct State {
    /// The slot that the next commit overwrites.
    older: usize,
    /// Whether any superblock was ever written.
    fresh: bool,
    /// A flush failed: nothing written since may be assumed durable, so nothing more is committed.
    broken: Option<Error>,
}

impl Committer {
    pub(super) fn new(storage: Arc<dyn WriteAt>, standing: Option<Standing>) -> Self {
        let file = storage.name();
        let fresh = standing.is_none();
        let standing = standing.unwrap_or(Standing {
            superblock: Superblock {
                minor: MINOR,
                compat: 0,
                incompat: 0,
                uuid: [0; 16],
                generation: Generation(0),
                reserved: Generation(0),
                root: PageRef { offset: 0, len: 0, hash: [0; 32] },
                end: HEAD_BYTES,
            },
            older: 0,
        });
        let state = Mutex::new(State { older: standing.older, fresh, broken: None });
        Self { shared: Arc::new(Shared { storage, file, state, standing: Mutex::new(standing.superblock) }) }
    }

    /// The newest generation that is durable; 0 when there is none.
    pub fn committed(&self) -> Generation {
        self.shared.standing.lock().generation
    }

    /// Makes `bundle` durable, and what the next reader opens. A generation that is older than the last committed
    /// one is left alone: its number was overtaken.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`]; the last committed generation stands then. After a failed flush every
    /// later commit fails with the same error, since the system may have dropped what it could not write.
    pub fn commit(&self, bundle: &Bundle) -> Result<()> {
        self.commit_reserving(bundle, 0)
    }

    /// As [`Committer::commit`], and sees to it that `ahead` numbers after that of `bundle` are reserved: durably, and by
    /// the same flushes. Half of them may be used up before more are reserved.
    ///
    /// # Errors
    /// Those of [`Committer::commit`].
    pub fn commit_reserving(&self, bundle: &Bundle, ahead: u64) -> Result<()> {
        let mut state = self.shared.state.lock();
        let inner = &bundle.inner;
        let mut next = self.superblock();
        if inner.info.generation <= next.generation {
            return Ok(());
        }
        let before = next.end;
        next.generation = inner.info.generation;
        let wanted = |ahead: u64| Generation(next.generation.0.saturating_add(ahead));
        let short = next.reserved < wanted(ahead / 2);
        next.reserved = next.reserved.max(if short { wanted(ahead) } else { next.generation });
        next.root = inner.at;
        next.end = inner.view.end;
        if next.uuid == [0; 16] {
            next.uuid = inner.info.uuid;
        }
        let unflushed = next.end.saturating_sub(before);
        self.shared.flush(&mut state, unflushed)?;
        self.shared.flip(&mut state, next)
    }

    /// Flushes what is written so far, so that the next commit has less to flush. A failure is the next commit's.
    pub fn flush_ahead(&self) {
        let mut state = self.shared.state.lock();
        // The error is kept, and every later commit fails with it.
        let _ = self.shared.flush(&mut state, 0);
    }

    /// Durably reserves generation numbers up to `through`: after a crash none of them is given again.
    pub(super) fn reserve(&self, through: Generation) -> Result<()> {
        let mut state = self.shared.state.lock();
        let mut next = self.superblock();
        if through <= next.reserved {
            return Ok(());
        }
        next.reserved = through;
        self.shared.flip(&mut state, next)
    }

    pub(super) fn reserved(&self) -> Generation {
        self.shared.standing.lock().reserved
    }

    pub(super) fn superblock(&self) -> Superblock {
        self.shared.standing.lock().clone()
    }
}

impl Shared {
    /// Returns when all is durable; `bytes` of it may not be yet.
    fn flush(&self, state: &mut State, bytes: u64) -> Result<()> {
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        self.storage.sync().map_err(|source| {
            let error = self.failed("flush".into(), bytes, source, Some(self.standing.lock().generation));
            state.broken = Some(error.clone());
            error
        })
    }

    /// Overwrites the older superblock. The first ever is written to both slots, the second after the first is
    /// durable, so that a fresh bundle survives damage to either.
    fn flip(&self, state: &mut State, next: Superblock) -> Result<()> {
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let block = next.encode();
        let fresh = state.fresh;
        let slot = state.older;
        let standing = self.standing.lock().generation;
        self.write((slot * SUPERBLOCK_BYTES) as u64, &block, Some(standing))?;
        self.flush(state, block.len() as u64)?;
        state.older = 1 - slot;
        state.fresh = false;
        let standing = next.generation;
        *self.standing.lock() = next;
        if fresh {
            self.write((state.older * SUPERBLOCK_BYTES) as u64, &block, Some(standing))?;
            self.flush(state, block.len() as u64)?;
        }
        Ok(())
    }

    /// Writes; a full disk says how much was needed and what still stands.
    pub fn write(&self, offset: u64, bytes: &[u8], standing: Option<Generation>) -> Result<()> {
        self.storage.write_all_at(offset, bytes).map_err(|source| {
            let what = format!("write {} bytes at {offset}", bytes.len());
            self.failed(what, bytes.len() as u64, source, standing)
        })
    }

    fn failed(&self, what: String, needed_bytes: u64, source: io::Error, standing: Option<Generation>) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
                path: self.file.clone().into(),
                needed_bytes,
                standing: standing.filter(|generation| generation.0 > 0),
            },
            _ => Error::io(what, &self.file, source),
        }
    }
}
