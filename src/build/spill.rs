//! What transforms made, until it is written into the bundle: in memory as far as that may be, in a file beyond.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::parallel::lock;
use crate::error::{Error, Result};
use crate::platform::fs::{FileSystem, WriterLock};
use crate::storage::WriteAt;

/// Sources of at least this many bytes are transformed only while there is room for them; of smaller ones each thread has
/// one at a time, and that is bounded by itself.
const LARGE_BYTES: u64 = 1 << 20;
/// Bytes of large sources that are transformed at the same time. One that is larger is transformed alone of these.
const LARGE_BYTES_MAX: u64 = 256 << 20;

/// Where the bytes of an output are.
#[derive(Debug)]
pub(super) enum Body {
    /// They are those of the source file, which is read again.
    Source,
    /// The bundle has them already.
    Stored,
    Memory(Vec<u8>),
    /// In the file, from this byte on.
    Spilled(u64),
}

/// Holds what one build makes.
pub(super) struct Spill {
    fs: Arc<dyn FileSystem>,
    at: PathBuf,
    /// Bytes that may still be kept in memory.
    left: AtomicU64,
    file: Mutex<File>,
    /// Bytes of large sources that are being transformed.
    large: Mutex<u64>,
    room: Condvar,
}

#[derive(Default)]
struct File {
    /// Opened when it is needed.
    open: Option<(Arc<dyn WriteAt>, WriterLock)>,
    end: u64,
}

/// A large source is transformed while this lives.
pub(super) struct Large<'a> {
    spill: &'a Spill,
    bytes: u64,
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        *lock(&self.spill.large) -= self.bytes;
        self.spill.room.notify_all();
    }
}

impl Spill {
    /// Keeps at most `memory_bytes` in memory, and the rest in the file `at`, which is removed with this.
    pub fn new(fs: Arc<dyn FileSystem>, at: PathBuf, memory_bytes: u64) -> Self {
        let left = AtomicU64::new(memory_bytes);
        Self { fs, at, left, file: Mutex::default(), large: Mutex::new(0), room: Condvar::new() }
    }

    /// Waits until a source of this size may be transformed; `None` where that needs no permission.
    pub fn admit(&self, bytes: u64) -> Option<Large<'_>> {
        if bytes < LARGE_BYTES {
            return None;
        }
        let bytes = bytes.min(LARGE_BYTES_MAX);
        let mut large = lock(&self.large);
        while *large + bytes > LARGE_BYTES_MAX {
            large = self.room.wait(large).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *large += bytes;
        Some(Large { spill: self, bytes })
    }

    /// Keeps bytes until they are asked for.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn keep(&self, bytes: Vec<u8>) -> Result<Body> {
        let len = bytes.len() as u64;
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len)).is_ok() {
            return Ok(Body::Memory(bytes));
        }
        let (storage, offset) = {
            let mut file = lock(&self.file);
            if file.open.is_none() {
                let opened = self.fs.open_writer(&self.at, true);
                file.open = Some(opened.map_err(|error| Error::io("create", &self.at, error))?);
            }
            let Some((storage, _)) = &file.open else { return Ok(Body::Memory(bytes)) };
            let storage = Arc::clone(storage);
            let offset = file.end;
            file.end += len;
            (storage, offset)
        };
        let what = || format!("write {len} bytes at {offset}");
        storage.write_all_at(offset, &bytes).map_err(|error| Error::io(what(), &self.at, error))?;
        Ok(Body::Spilled(offset))
    }

    /// Reads what was spilled.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let storage = lock(&self.file).open.as_ref().map(|(storage, _)| Arc::clone(storage));
        let read = match storage {
            Some(storage) => storage.read_exact_at(offset, into),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        read.map_err(|error| Error::io(format!("read {} bytes at {offset}", into.len()), &self.at, error))
    }

    /// Bytes in the file.
    pub fn spilled_bytes(&self) -> u64 {
        lock(&self.file).end
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if lock(&self.file).open.take().is_some() {
            // What is left of it is written over by the next.
            let _ = self.fs.remove_file(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fs::OsFileSystem;

    #[test]
    fn what_does_not_fit_into_memory_is_in_the_file_and_that_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("spill");
        let spill = Spill::new(Arc::new(OsFileSystem), at.clone(), 150);
        let bodies: Vec<Body> = (0..5).map(|number| spill.keep(vec![number; 100]).unwrap()).collect();
        assert!(matches!(bodies[0], Body::Memory(_)));
        for (number, body) in (0..).zip(&bodies).skip(1) {
            let Body::Spilled(offset) = body else { panic!("{body:?}") };
            let mut bytes = [9; 60];
            spill.read(offset + 40, &mut bytes).unwrap();
            assert_eq!(bytes, [number; 60]);
        }
        assert_eq!((spill.spilled_bytes(), at.exists()), (400, true));
        // A small one still fits.
        assert!(matches!(spill.keep(vec![1; 50]).unwrap(), Body::Memory(_)));
        drop(spill);
        assert!(!at.exists());
    }

    #[test]
    fn large_sources_are_transformed_at_the_same_time_only_as_far_as_there_is_room() {
        let spill = Spill::new(Arc::new(OsFileSystem), PathBuf::from("never made"), 0);
        assert!(spill.admit(LARGE_BYTES - 1).is_none());
        let (most, now) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 1..=8_u64 {
                let (spill, most, now) = (&spill, &most, &now);
                scope.spawn(move || {
                    for _ in 0..50 {
                        // The largest are larger than all that may be there at once: they go alone.
                        let bytes = number * (50 << 20);
                        let large = spill.admit(bytes).unwrap();
                        most.fetch_max(now.fetch_add(large.bytes, Ordering::SeqCst) + large.bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(large.bytes, Ordering::SeqCst);
                        drop(large);
                    }
                });
            }
        });
        assert!((1..=LARGE_BYTES_MAX).contains(&most.into_inner()));
        assert_eq!(*lock(&spill.large), 0);
    }
}
