//! The operating system's files.

#[cfg(unix)]
mod below;
mod direct;
#[cfg(target_os = "linux")]
mod lease;
mod mapping;
#[cfg(windows)]
pub(super) mod windows;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use self::direct::DirectFile;
use super::{DirEntry, FileKind, FileStat, FileSystem, Locked, Look, WriterLock};
use crate::storage::{Direct, Mapped, ReadAt, WriteAt};

/// How often `open_writer` follows a name that is given to another file while it is being locked.
const RELOCK_MAX: usize = 64;

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok(DirEntry { name: entry.file_name(), kind: kind(entry.file_type()?) })
        };
        fs::read_dir(path)?.map(entry).collect()
    }

    fn each_entry(&self, path: &Path, each: &mut dyn FnMut(DirEntry, Look<'_>)) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let found = DirEntry { name: entry.file_name(), kind: kind(entry.file_type()?) };
            each(found, &|| stat_entry(&entry));
        }
        Ok(())
    }

    fn stat(&self, path: &Path, follow: bool) -> io::Result<FileStat> {
        stat_path(path, follow)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_into(&self, path: &Path, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
        read_and_stat(File::open(path)?, into)
    }

    #[cfg(unix)]
    fn below<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn super::Below + 'a>> {
        Ok(Box::new(below::OpenFolder::open(folder)?))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        // Asked before opening, since opening a pipe waits for someone at its other end.
        refuse_unless_file(fs::metadata(path)?.file_type())?;
        let file = File::open(path)?;
        refuse_unless_file(file.metadata()?.file_type())?;
        Ok(Arc::new(OsFile::new(Arc::new(file), path)))
    }

    fn open_writer(&self, path: &Path, create: bool) -> io::Result<(Arc<dyn WriteAt>, WriterLock)> {
        for _ in 0..RELOCK_MAX {
            match fs::metadata(path) {
                Ok(metadata) => refuse_unless_file(metadata.file_type())?,
                Err(error) if create && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
            if !super::lock::try_lock(&file)? {
                return Err(Locked::error(path));
            }
            // Between opening and locking the previous writer may have put another file under the name: then the lock
            // guards a file that no one will ever open again.
            match self.stat(path, true) {
                Ok(named) if named.is_same_file(&stat_file(&file)?) => {
                    let file = Arc::new(file);
                    let lock = WriterLock::held_by(Arc::clone(&file));
                    let Some(storage) = beside_lock(path, &file)? else { continue };
                    return Ok((Arc::new(OsFile::new(storage, path)), lock));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Locked::error(path))
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (temporary, mut file) = create_beside(path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        drop(file);
        if let Err(error) = written.map_err(full_disk).and_then(|()| rename(&temporary, path)) {
            // The cause matters more than what is left behind.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.sync_dir(folder_of(path))
    }

    fn write_new(&self, path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if executable { 0o777 } else { 0o666 });
        #[cfg(not(unix))]
        let _ = executable;
        options.open(path)?.write_all(bytes).map_err(full_disk)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        {
            File::open(if path.as_os_str().is_empty() { Path::new(".") } else { path })?.sync_all()
        }
        #[cfg(not(unix))]
        {
            // Folders cannot be flushed here; renames are journalled by the file system.
            let _ = path;
            Ok(())
        }
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        available_bytes(path)
    }

    #[cfg(target_os = "linux")]
    fn is_being_written(&self, path: &Path) -> io::Result<bool> {
        lease::is_being_written(path)
    }
}

/// Fills `into` with the first bytes of a file, and then looks at it.
fn read_and_stat(mut file: File, into: &mut [u8]) -> io::Result<(usize, FileStat)> {
    let mut len = 0;
    loop {
        match io::Read::read(&mut file, &mut into[len..]) {
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let stat = stat_file(&file)?;
        // Its length says whether another read would find more, or there is no room for it.
        if len as u64 >= stat.len || len == into.len() {
            return Ok((len, stat));
        }
    }
}

/// A file with the name it was opened by.
#[derive(Debug)]
struct OsFile {
    file: Arc<File>,
    path: PathBuf,
    /// The same file past the page cache, opened when it is first asked for; `None` where that is refused.
    direct: OnceLock<Option<DirectFile>>,
}

impl OsFile {
    fn new(file: Arc<File>, path: &Path) -> Self {
        Self { file, path: path.to_owned(), direct: OnceLock::new() }
    }
}

impl ReadAt for OsFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    #[cfg(unix)]
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, into, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&*self.file, into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    into = &mut into[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn Mapped>>> {
        if len == 0 {
            return Ok(Some(Box::new(Vec::new())));
        }
        if len > self.len()? {
            let why = format!("{}: {len} bytes to map, but it is shorter", self.path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        mapping::map_start(&self.file, len).map(Some)
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn direct(&self) -> Option<Direct<'_>> {
        let direct = self.direct.get_or_init(|| direct::open(&self.file)).as_ref()?;
        Some(Direct { file: &direct.file, align: direct.align, memory_align: direct.memory_align })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl WriteAt for OsFile {
    #[cfg(unix)]
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&*self.file, bytes, offset).map_err(full_disk)
    }

    #[cfg(windows)]
    fn write_all_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(&*self.file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(full_disk(error)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(full_disk)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all().map_err(full_disk)
    }
}

/// The locked file, opened once more to be read and written: what a ring or a mapping keeps open for a moment after the
/// process has died must not keep the lock. `None` when another file has the name by now.
#[cfg(unix)]
fn beside_lock(path: &Path, locked: &Arc<File>) -> io::Result<Option<Arc<File>>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let same = stat_file(&file)?.is_same_file(&stat_file(locked)?);
    Ok(same.then(|| Arc::new(file)))
}

/// The locked file itself: elsewhere a lock may keep another handle from writing.
#[cfg(not(unix))]
fn beside_lock(_path: &Path, locked: &Arc<File>) -> io::Result<Option<Arc<File>>> {
    Ok(Some(Arc::clone(locked)))
}

/// An empty mapping, and what simulated storages map to.
impl Mapped for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_symlink() {
        FileKind::Symlink
    } else if file_type.is_dir() {
        FileKind::Dir
    } else if file_type.is_file() {
        FileKind::File
    } else {
        FileKind::Other
    }
}

fn refuse_unless_file(file_type: fs::FileType) -> io::Result<()> {
    match kind(file_type) {
        FileKind::File => Ok(()),
        FileKind::Dir => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a folder; name a file")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a device, a pipe or a socket; name a file")),
    }
}

#[cfg(windows)]
use self::windows::{available_bytes, rename, stat_file, stat_path};

#[cfg(unix)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

#[cfg(unix)]
fn stat_path(path: &Path, follow: bool) -> io::Result<FileStat> {
    Ok(stat(&if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }?))
}

#[cfg(unix)]
fn stat_entry(entry: &fs::DirEntry) -> io::Result<FileStat> {
    Ok(stat(&entry.metadata()?))
}

/// What a folder says of its entries here lacks which file it is.
#[cfg(windows)]
fn stat_entry(entry: &fs::DirEntry) -> io::Result<FileStat> {
    stat_path(&entry.path(), false)
}

#[cfg(unix)]
fn stat_file(file: &File) -> io::Result<FileStat> {
    Ok(stat(&file.metadata()?))
}

#[cfg(unix)]
fn stat(metadata: &fs::Metadata) -> FileStat {
    use std::os::unix::fs::MetadataExt;
    let nanos = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    FileStat {
        kind: kind(metadata.file_type()),
        len: metadata.len(),
        mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
        device: metadata.dev(),
        executable: metadata.mode() & 0o111 != 0,
        links: metadata.nlink(),
    }
}

/// A quota that is used up is a full disk to whoever writes.
fn full_disk(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::QuotaExceeded { io::Error::new(io::ErrorKind::StorageFull, error) } else { error }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name in the folder of `path` that no other process or thread takes.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::Error::new(io::ErrorKind::InvalidInput, "it does not name a file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temporary))
}

/// A new file in the folder of `path`, under a name that no other process or thread takes.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let temporary = temporary_beside(path)?;
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // Left behind by a process of the same number that crashed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn available_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a NUL and `stat` is large enough for what the call writes.
    let status = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed above and filled by the call; every bit pattern of it is valid.
    let stat = unsafe { stat.assume_init() };
    // The width of both fields differs between systems.
    #[allow(clippy::unnecessary_cast)]
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

#[cfg(test)]
mod tests;
