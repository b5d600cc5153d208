//! Opening a file that is open already once more, to be read past the page cache.

use std::fs::File;

/// A file that is read past the page cache.
#[derive(Debug)]
pub(super) struct DirectFile {
    pub(super) file: File,
    /// What offsets and lengths must be a multiple of.
    pub(super) align: usize,
    /// What addresses must be a multiple of.
    pub(super) memory_align: usize,
}

/// The very file behind `file`, whatever its name stands for by now; `None` where the file system refuses, or a block
/// of it is larger than ours.
#[cfg(target_os = "linux")]
pub(super) fn open(file: &File) -> Option<DirectFile> {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    use crate::limits::BLOCK_BYTES;

    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(same).ok()?;
    let (align, memory_align) = match alignment(&opened) {
        // The kernel knows, and direct reads are not possible.
        Some((0, _) | (_, 0)) => return None,
        Some(known) => known,
        // It does not say (before 6.1, or a file system that does not): whole blocks, if those are read.
        None => (BLOCK_BYTES, BLOCK_BYTES),
    };
    let fits = |align: usize| align.is_power_of_two() && align <= BLOCK_BYTES;
    let direct = DirectFile { file: opened, align, memory_align };
    (fits(align) && fits(memory_align) && reads(&direct)).then_some(direct)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open(_: &File) -> Option<DirectFile> {
    None
}

/// Whether a block can be read: some file systems take the flag and refuse the read.
#[cfg(target_os = "linux")]
fn reads(direct: &DirectFile) -> bool {
    use crate::limits::BLOCK_BYTES;
    use crate::platform::memory::AlignedBuffer;
    let Some(mut block) = AlignedBuffer::new_zeroed(BLOCK_BYTES, BLOCK_BYTES) else { return false };
    std::os::unix::fs::FileExt::read_at(&direct.file, block.as_mut_slice(), 0).is_ok()
}

/// What offsets and addresses must be a multiple of, if the kernel says.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn alignment(file: &File) -> Option<(usize, usize)> {
    use std::os::fd::AsRawFd;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the name is empty and ends with a NUL, and `stat` is large enough for what the call writes.
    let status = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, stat.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: zeroed above and filled by the call; every bit pattern of it is valid.
    let stat = unsafe { stat.assume_init() };
    (stat.stx_mask & mask != 0).then_some((stat.stx_dio_offset_align as usize, stat.stx_dio_mem_align as usize))
}
