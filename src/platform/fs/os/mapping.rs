//! A mapped start of a file, and what the system is told about it.

use std::fs::File;
use std::io;
#[cfg(unix)]
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::storage::Mapped;
#[cfg(unix)]
use crate::storage::{Advice, LOCK_STEP_BYTES};

/// A mapped start of a file; it keeps the file alive by itself.
struct OsMapping {
    map: memmap2::Mmap,
    /// The file had this many bytes when it was last looked at: what is mapped after them may not be touched.
    len: AtomicUsize,
}

/// Addresses past the end of the file that are mapped as well, so that a file that grows is not mapped again each time.
const ROOM_BYTES: usize = if cfg!(all(unix, target_pointer_width = "64")) { 256 << 20 } else { 0 };

/// Maps the first `len` bytes of `file`, which has as many.
#[allow(unsafe_code)]
pub(super) fn map_start(file: &File, len: usize) -> io::Result<Box<dyn Mapped>> {
    // SAFETY: the mapping is read-only and private to nobody: another process may write under it. That is the
    // contract of `ReadAt::map`, whose users check bounds and hashes where they use the bytes (invariant 9); a file
    // that others may truncate is opened with `mapping(false)`. Bundles are never truncated or overwritten in place.
    // What lies past `len` is not touched before `grow` was told that the file has it, too.
    let map = unsafe { memmap2::MmapOptions::new().len(len.saturating_add(ROOM_BYTES)).map(file)? };
    Ok(Box::new(OsMapping { map, len: AtomicUsize::new(len) }))
}

impl Mapped for OsMapping {
    fn bytes(&self) -> &[u8] {
        &self.map[..self.len.load(Ordering::Acquire)]
    }

    fn grow(&self, len: u64) -> bool {
        match usize::try_from(len) {
            Ok(len) if len <= self.map.len() => {
                self.len.fetch_max(len, Ordering::AcqRel);
                true
            }
            _ => false,
        }
    }

    #[cfg(unix)]
    fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let (start, end) = (range.start, range.end.min(self.bytes().len()));
        if start >= end {
            return Ok(());
        }
        let advise = |advice| self.map.advise_range(advice, start, end - start);
        match advice {
            Advice::WillNeed => advise(memmap2::Advice::WillNeed),
            // What the mapping has room for goes along, since it is used in the same way once the file has it.
            Advice::Scattered if range.end >= self.bytes().len() => {
                self.map.advise_range(memmap2::Advice::Random, start, self.map.len() - start)
            }
            Advice::Scattered => advise(memmap2::Advice::Random),
            Advice::Populate => {
                // Of a range that is used here and there each page would be read alone.
                advise(memmap2::Advice::Normal)?;
                #[cfg(target_os = "linux")]
                if advise(memmap2::Advice::PopulateRead).is_ok() {
                    return Ok(());
                }
                // Kernels before 5.14, and other systems: announced, and then touched.
                advise(memmap2::Advice::WillNeed)?;
                let touched = self.bytes()[start..end].iter().step_by(crate::platform::memory::page_size());
                std::hint::black_box(touched.fold(0u8, |sum, byte| sum ^ byte));
                Ok(())
            }
        }
    }

    #[cfg(unix)]
    #[allow(unsafe_code)]
    fn lock(&self, range: Range<usize>) -> (usize, io::Result<()>) {
        let (mut at, end) = (range.start, range.end.min(self.bytes().len()));
        while at < end {
            // Step by step, so that as much is locked as the limit allows.
            let len = LOCK_STEP_BYTES.min(end - at);
            let start = self.bytes()[at..].as_ptr();
            // SAFETY: the range is within the mapping, which changes neither its bytes nor its rights by being locked.
            // It is unlocked with the mapping.
            if unsafe { libc::mlock(start.cast(), len) } != 0 {
                return (at - range.start, Err(io::Error::last_os_error()));
            }
            at += len;
        }
        (at.saturating_sub(range.start), Ok(()))
    }

    #[cfg(unix)]
    fn unlock(&self) {
        // What was never locked may be unlocked as well, so nothing is left to be refused.
        let _ = self.map.unlock();
    }
}
