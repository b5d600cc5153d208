//! A mapped start of a file, and what the system is told about it.

use std::fs::File;
use std::io;
#[cfg(unix)]
use std::ops::Range;

use crate::storage::Mapped;
#[cfg(unix)]
use crate::storage::{Advice, LOCK_STEP_BYTES};

/// A mapped start of a file; it keeps the file alive by itself.
struct OsMapping(memmap2::Mmap);

/// Maps the first `len` bytes of `file`, which has as many.
#[allow(unsafe_code)]
pub(super) fn map_start(file: &File, len: usize) -> io::Result<Box<dyn Mapped>> {
    // SAFETY: the mapping is read-only and private to nobody: another process may write under it. That is the
    // contract of `ReadAt::map`, whose users check bounds and hashes where they use the bytes (invariant 9); a file
    // that others may truncate is opened with `mapping(false)`. Bundles are never truncated or overwritten in place.
    let mapping = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
    Ok(Box::new(OsMapping(mapping)))
}

impl Mapped for OsMapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(unix)]
    fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let (start, end) = (range.start, range.end.min(self.0.len()));
        if start >= end {
            return Ok(());
        }
        let advise = |advice| self.0.advise_range(advice, start, end - start);
        match advice {
            Advice::WillNeed => advise(memmap2::Advice::WillNeed),
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
                let touched = self.0[start..end].iter().step_by(crate::platform::memory::page_size());
                std::hint::black_box(touched.fold(0u8, |sum, byte| sum ^ byte));
                Ok(())
            }
        }
    }

    #[cfg(unix)]
    #[allow(unsafe_code)]
    fn lock(&self, range: Range<usize>) -> (usize, io::Result<()>) {
        let (mut at, end) = (range.start, range.end.min(self.0.len()));
        while at < end {
            // Step by step, so that as much is locked as the limit allows.
            let len = LOCK_STEP_BYTES.min(end - at);
            let start = self.0[at..].as_ptr();
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
        let _ = self.0.unlock();
    }
}
