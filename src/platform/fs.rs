//! The file system as an argument. [`OsFileSystem`] is the real one.

mod cache;
mod lock;
mod os;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::cache::drop_cached;
pub use self::lock::{Locked, WriterLock, is_locked};
pub use self::os::OsFileSystem;
use crate::storage::{ReadAt, WriteAt};

/// What a name stands for, links not followed unless asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe, a socket.
    Other,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name alone, as the operating system has it.
    pub name: OsString,
    /// What it stands for; a link is a link.
    pub kind: FileKind,
}

/// Looks at what a name stands for.
pub type Look<'a> = &'a dyn Fn() -> io::Result<FileStat>;

/// What the operating system says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub len: u64,
    /// When its bytes changed last, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// When its bytes, name or attributes changed last, in nanoseconds since 1970; the same as `mtime_ns` where the
    /// operating system has no such time.
    pub ctime_ns: i128,
    /// Its number within the device; 0 where the operating system has none.
    pub inode: u64,
    /// The device; 0 where the operating system has none.
    pub device: u64,
    /// Whether someone may execute it.
    pub executable: bool,
    /// How many names it has; 1 where the operating system does not say.
    pub links: u64,
}

impl FileStat {
    /// Whether both describe the same file, not merely the same bytes.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The files below a folder.
pub trait Below: Send + Sync {
    /// Like [`FileSystem::read_into`]; `path` is relative, its parts separated by `/`.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_into(&self, path: &str, into: &mut [u8]) -> io::Result<(usize, FileStat)>;

    /// Fills `into` with the bytes of a file from `offset` on; `path` as for [`Below::read_into`].
    ///
    /// # Errors
    /// What the operating system says; `UnexpectedEof` when the file has fewer.
    fn read_exact_at(&self, path: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// The files below a folder, by their whole paths.
struct Joined<'a, F: ?Sized> {
    fs: &'a F,
    folder: PathBuf,
}

impl<F: FileSystem + ?Sized> Below for Joined<'_, F> {
    fn read_into(&self, path: &str, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        self.fs.read_into(&self.folder.join(path), into)
    }

    fn read_exact_at(&self, path: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.fs.open(&self.folder.join(path))?.read_exact_at(offset, into)
    }
}

/// A file system. All paths are as the caller has them; none is interpreted here.
pub trait FileSystem: Send + Sync {
    /// The names in a folder, in no particular order.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Calls `each` for every name in a folder, with a way to look at what stands there without following a link: where
    /// the operating system can, by its name within the folder, which is quicker than by its whole path.
    ///
    /// # Errors
    /// What the operating system says; `each` may have been called before.
    fn each_entry(&self, path: &Path, each: &mut dyn FnMut(DirEntry, Look<'_>)) -> io::Result<()> {
        for entry in self.read_dir(path)? {
            let at = path.join(&entry.name);
            each(entry, &|| self.stat(&at, false));
        }
        Ok(())
    }

    /// What stands at `path`; `follow` looks through a symbolic link.
    ///
    /// # Errors
    /// What the operating system says.
    fn stat(&self, path: &Path, follow: bool) -> io::Result<FileStat>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Fills `into` with the first bytes of a file, all of them if it has no more than that, and answers how many there
    /// were and what the file looked like after they were read: fewer calls of the operating system than
    /// [`FileSystem::read`] and [`FileSystem::stat`].
    ///
    /// # Errors
    /// What the operating system says.
    fn read_into(&self, path: &Path, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        let bytes = self.read(path)?;
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        Ok((len, self.stat(path, true)?))
    }

    /// The files below a folder, by their paths there. The folder is looked up once, where the operating system can:
    /// what is read is below that very folder, whatever its name stands for later.
    ///
    /// # Errors
    /// What the operating system says.
    fn below<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Below + 'a>> {
        Ok(Box::new(Joined { fs: self, folder: folder.to_owned() }))
    }

    /// The absolute path without links and dots.
    ///
    /// # Errors
    /// What the operating system says.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens a file to be read at positions. The storage keeps this very file, whatever happens to its name later.
    ///
    /// # Errors
    /// What the operating system says; `InvalidInput` when it is not a regular file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>>;

    /// Opens a file to be read and written, as its only writer; `create` makes an empty one where there is none.
    /// Readers are not disturbed. The lock is held by the operating system and ends with the process.
    ///
    /// # Errors
    /// One that [`is_locked`] recognises when another writer holds it; otherwise what the operating system says.
    fn open_writer(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn WriteAt>, WriterLock)>;

    /// Writes a whole file so that its name always stands for the old content or the new, also after a crash.
    ///
    /// # Errors
    /// What the operating system says; then the old content stands.
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Writes a whole new file, for everyone to read, and to execute if `executable`; not durable before a flush.
    ///
    /// # Errors
    /// `AlreadyExists` when anything has that name, a link too; otherwise what the operating system says.
    fn write_new(&self, path: &Path, bytes: &[u8], executable: bool) -> io::Result<()>;

    /// Makes a folder and those it stands in; no error where there is one already.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or folder another name; a file that has that name already is replaced in one step.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in a folder are durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written to the file system that holds `path`.
    ///
    /// # Errors
    /// What the operating system says; `Unsupported` where it does not.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Whether somebody has the file open to write it at this moment; `false` where that cannot be known.
    ///
    /// # Errors
    /// What the operating system says when the file cannot be opened.
    fn is_being_written(&self, path: &Path) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }
}
