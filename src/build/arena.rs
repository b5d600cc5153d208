//! Memory for the contents of many small files: a few large mappings rather than an allocation for each.
//!
//! A tree of 50,000 files spent a tenth of its packing time on page faults and the allocator; huge pages, where the
//! system has them, take nearly all of that away.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use memmap2::MmapMut;

/// Size of one mapping.
const CHUNK_BYTES: usize = 32 << 20;
/// Size of the first mapping of a thread: reading one small file must not pay for clearing a huge page.
const FIRST_BYTES: usize = 256 << 10;
/// Contents begin at multiples of this.
const ALIGN: usize = 16;

/// A mapping, once it is full.
type Chunk = OnceLock<MmapMut>;

/// Bytes that are kept: in a mapping that others share, or by themselves.
#[derive(Debug)]
pub(super) enum Kept {
    Shared { chunk: Arc<Chunk>, range: Range<usize> },
    Own(Vec<u8>),
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // A chunk is set when its arena is dropped, which the reading of files ends with. Before, it looks empty.
            Self::Shared { chunk, range } => chunk.get().and_then(|bytes| bytes.get(range.clone())).unwrap_or_default(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// Where one thread reads files to.
#[derive(Default)]
pub(super) struct Arena {
    current: Option<(MmapMut, Arc<Chunk>)>,
    used: usize,
    /// Whether more than the first, small chunk was needed.
    grown: bool,
}

impl Arena {
    /// Room for `len` bytes that are read now; `None` when they are too many, or there is no memory.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > CHUNK_BYTES / 4 {
            return None;
        }
        let size = if self.grown { CHUNK_BYTES } else { FIRST_BYTES.max(len) };
        if self.current.as_ref().is_none_or(|(bytes, _)| bytes.len() - self.used < len) {
            self.finish();
            let bytes = MmapMut::map_anon(size).ok()?;
            #[cfg(target_os = "linux")]
            if self.grown {
                // Without them everything works, slower.
                let _ = bytes.advise(memmap2::Advice::HugePage);
            }
            self.grown = true;
            self.current = Some((bytes, Arc::default()));
            self.used = 0;
        }
        self.current.as_mut().map(|(bytes, _)| &mut bytes[self.used..self.used + len])
    }

    /// Keeps the first `len` bytes of the room that was given last; otherwise they are written over.
    pub fn keep(&mut self, len: usize) -> Option<Kept> {
        let (_, chunk) = self.current.as_ref()?;
        let range = self.used..self.used + len;
        self.used = range.end.next_multiple_of(ALIGN).min(self.current.as_ref()?.0.len());
        Some(Kept::Shared { chunk: Arc::clone(chunk), range })
    }

    fn finish(&mut self) {
        if let Some((bytes, chunk)) = self.current.take() {
            let set = chunk.set(bytes);
            debug_assert!(set.is_ok(), "a chunk is finished once");
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_and_what_is_not_is_written_over() {
        let mut arena = Arena::default();
        let mut kept = Vec::new();
        for number in 0..40_u8 {
            for (fill, keep) in [(200, false), (number, true)] {
                arena.room(2_000_001).unwrap().fill(fill);
                if keep {
                    kept.push(arena.keep(2_000_000).unwrap());
                }
            }
        }
        assert!(arena.room(CHUNK_BYTES).is_none());
        drop(arena);
        for (number, bytes) in kept.iter().enumerate() {
            assert!(bytes.len() == 2_000_000 && bytes.iter().all(|byte| usize::from(*byte) == number));
        }
    }
}
