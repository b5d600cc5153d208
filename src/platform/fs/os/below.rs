//! Files below a folder that is looked up once: a path from the root of the file system has many parts, and each is
//! looked up again at every opening.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::read_and_stat;
use crate::platform::fs::{Below, FileStat};

/// A folder that is open.
pub(super) struct OpenFolder(File);

impl OpenFolder {
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        if folder.metadata()?.is_dir() { Ok(Self(folder)) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    #[allow(unsafe_code)]
    fn file(&self, path: &str) -> io::Result<File> {
        // A pipe in the place of a file must not be waited for.
        const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let path = CString::new(path)?;
        let opened = loop {
            // SAFETY: the folder is open for as long as `self` lives, and the path ends with a NUL.
            let opened = unsafe { libc::openat(self.0.as_raw_fd(), path.as_ptr(), FLAGS) };
            if opened >= 0 {
                break opened;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        // SAFETY: it was opened just now, and nothing else knows it.
        Ok(unsafe { File::from_raw_fd(opened) })
    }
}

impl Below for OpenFolder {
    fn read_into(&self, path: &str, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        read_and_stat(self.file(path)?, into)
    }

    fn read_exact_at(&self, path: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(path)?.read_exact_at(into, offset)
    }
}
