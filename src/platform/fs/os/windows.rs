//! What the standard library does not say on Windows: which file a name stands for, a lock that leaves readers alone, and
//! free space.
//!
//! Files are opened by the standard library, which shares them for reading, writing and deletion: a file that is open can
//! be renamed, replaced and removed, as on the other systems.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, HANDLE};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_BASIC_INFO, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FileBasicInfo, GetDiskFreeSpaceExW, GetFileInformationByHandle, GetFileInformationByHandleEx,
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFile,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::{FileStat, kind};

/// Locks are mandatory here: what is locked cannot be read by others. So one byte is locked that no file reaches.
const LOCKED_OFFSET: u64 = 1 << 62;

/// What stands at `path`, with its identity.
pub(super) fn stat_path(path: &Path, follow: bool) -> io::Result<FileStat> {
    let flags = FILE_FLAG_BACKUP_SEMANTICS | if follow { 0 } else { FILE_FLAG_OPEN_REPARSE_POINT };
    // No right but to ask: that works for folders and for files that others have opened for themselves alone.
    stat_file(&OpenOptions::new().access_mode(0).custom_flags(flags).open(path)?)
}

/// An open file, with its identity.
#[allow(unsafe_code)]
pub(super) fn stat_file(file: &File) -> io::Result<FileStat> {
    let metadata = file.metadata()?;
    let mut information = std::mem::MaybeUninit::<BY_HANDLE_FILE_INFORMATION>::zeroed();
    // SAFETY: `file` keeps the handle open during the call, which writes no more than `information` holds.
    if unsafe { GetFileInformationByHandle(handle(file), information.as_mut_ptr()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed above and filled by the call; every bit pattern of it is valid.
    let information = unsafe { information.assume_init() };
    let mut basic = FILE_BASIC_INFO::default();
    let (pointer, size) = ((&raw mut basic).cast(), size_of::<FILE_BASIC_INFO>() as u32);
    // SAFETY: as above; `size` is the size of `basic`.
    let changed = match unsafe { GetFileInformationByHandleEx(handle(file), FileBasicInfo, pointer, size) } {
        0 => metadata.last_write_time() as i64,
        _ => basic.ChangeTime,
    };
    Ok(FileStat {
        kind: kind(metadata.file_type()),
        len: metadata.len(),
        mtime_ns: nanoseconds(metadata.last_write_time() as i64),
        ctime_ns: nanoseconds(changed),
        inode: u64::from(information.nFileIndexHigh) << 32 | u64::from(information.nFileIndexLow),
        device: u64::from(information.dwVolumeSerialNumber),
        executable: false,
        links: u64::from(information.nNumberOfLinks),
    })
}

/// Since 1970, from steps of 100 ns since 1601.
fn nanoseconds(steps: i64) -> i128 {
    const EPOCH_STEPS: i128 = 116_444_736_000_000_000;
    (i128::from(steps) - EPOCH_STEPS) * 100
}

/// Takes the writer's lock; `false` when another has it. It ends when the file is closed.
#[allow(unsafe_code)]
pub(in crate::platform::fs) fn try_lock(file: &File) -> io::Result<bool> {
    let mut place = OVERLAPPED::default();
    place.Anonymous.Anonymous.Offset = LOCKED_OFFSET as u32;
    place.Anonymous.Anonymous.OffsetHigh = (LOCKED_OFFSET >> 32) as u32;
    let flags = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
    // SAFETY: `file` keeps the handle open; it was opened for synchronous use, so `place` is not used after the call.
    if unsafe { LockFileEx(handle(file), flags, 0, 1, 0, &mut place) } != 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error().map(|code| code as u32) {
        Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Ok(false),
        _ => Err(error),
    }
}

/// Gives the writer's lock back.
#[allow(unsafe_code)]
pub(in crate::platform::fs) fn unlock(file: &File) -> io::Result<()> {
    // SAFETY: `file` keeps the handle open; the call takes no pointer.
    let done = unsafe { UnlockFile(handle(file), LOCKED_OFFSET as u32, (LOCKED_OFFSET >> 32) as u32, 1, 0) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes that this user may still write to the volume that holds `path`.
#[allow(unsafe_code)]
pub(super) fn available_bytes(path: &Path) -> io::Result<u64> {
    // The call wants a folder.
    let folder = if path.is_dir() { path } else { super::folder_of(path) };
    let name = wide(folder);
    let mut available = 0;
    let nothing = std::ptr::null_mut();
    // SAFETY: `name` ends with a zero, `available` is written by the call, and the two nulls are allowed.
    let done = unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &mut available, nothing, nothing) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(available) }
}

fn handle(file: &File) -> HANDLE {
    file.as_raw_handle().cast()
}

/// Gives `from` the name `to`; a file that has that name is replaced, also while others have it open.
///
/// The standard library asks for a rename with POSIX semantics, in one step, which NTFS has since Windows 10. Where that is
/// refused for a file in use, by other file systems and by Wine before version 9, the old file is moved aside first: for
/// a moment the name stands for nothing.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let refused = match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && to.is_file() => error,
        other => return other,
    };
    let aside = super::temporary_beside(to)?;
    if fs::rename(to, &aside).is_err() {
        return Err(refused);
    }
    if let Err(error) = fs::rename(from, to) {
        // Whatever came in between: the old file is better than none.
        let _ = fs::rename(&aside, to);
        return Err(error);
    }
    // It goes when the last who has it open lets go; whoever has it mapped keeps it from going at all.
    let _ = fs::remove_file(&aside);
    Ok(())
}

fn wide(path: &Path) -> Vec<u16> {
    path.as_os_str().encode_wide().chain([0]).collect()
}
