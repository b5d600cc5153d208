//! The operating system's page cache, for figures that must come from the disk.

use std::io;
use std::path::Path;

/// Drops a file's clean pages from the page cache, so that the next reads come from the disk; what was written and is
/// not on the disk yet is flushed first. Pages that another process has mapped may stay.
///
/// # Errors
/// `Unsupported` where the system has no way to do it; otherwise what it says.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn drop_cached(path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    // SAFETY: `file` keeps the descriptor open until the call has returned; the call takes no pointer.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Drops a file's pages from the page cache.
///
/// # Errors
/// `Unsupported`: this system has no way to do it.
#[cfg(not(target_os = "linux"))]
pub fn drop_cached(_: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the page cache cannot be dropped here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_after_its_pages_were_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100_000]).unwrap();
        match drop_cached(file.path()) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 100_000]);
        assert!(drop_cached(Path::new("/no/such/file")).is_err());
    }
}
