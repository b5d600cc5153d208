//! One writer per file, by the operating system's lock.

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
#[cfg(not(windows))]
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The cause inside the error of `open_writer` when another writer holds the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The file.
    pub path: PathBuf,
}

impl Locked {
    pub(super) fn error(path: &Path) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, Self { path: path.to_owned() })
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: another process is writing it; wait for it or stop it", self.path.display())
    }
}

impl StdError for Locked {}

/// Whether `error` says that another writer holds the file.
pub fn is_locked(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Locked>())
}

/// The right to write a file; dropping it gives the right back. It belongs to the file, not to the name: it goes along
/// when the file is renamed.
#[derive(Debug)]
pub struct WriterLock {
    /// The very handle that holds the operating system's lock; `None` in a simulated file system.
    file: Option<Arc<File>>,
}

impl WriterLock {
    pub(super) fn held_by(file: Arc<File>) -> Self {
        Self { file: Some(file) }
    }

    /// A lock that holds nothing, for file systems that exist in memory only.
    pub fn simulated() -> Self {
        Self { file: None }
    }
}

#[cfg(windows)]
pub(super) use super::os::windows::{try_lock, unlock};

/// Takes the writer's lock; `false` when another has it. It ends when the file is closed.
#[cfg(not(windows))]
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(not(windows))]
fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // The storage may outlive the lock and keep the file open. If unlocking fails the lock ends when it closes.
            let _ = unlock(file);
        }
    }
}
