//! Whether somebody is writing a file right now: the kernel grants a read lease only on a file that nobody has open for
//! writing (fcntl(2), F_SETLEASE). The lease is given back at once; it only answers the question.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// From include/uapi/asm-generic/fcntl.h; the same on every architecture. The libc crate does not have it.
const F_SETSIG: libc::c_int = 10;

/// See [`crate::platform::fs::FileSystem::is_being_written`].
#[allow(unsafe_code)]
pub(super) fn is_being_written(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let descriptor = file.as_raw_fd();
    // Whoever opens the file to write it in the moment of the lease makes the kernel signal us. The signal it uses by
    // itself would end the process; this one is ignored unless somebody asked for it.
    // SAFETY: `file` keeps the descriptor open until the end of this function; the call takes no pointer.
    if unsafe { libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) } != 0 {
        return Ok(false);
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) } != 0 {
        // Another refusal says that there is no answer here: not our file, or a file system without leases.
        return Ok(io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN));
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(false)
}
