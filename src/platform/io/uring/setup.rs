//! Making a ring: the best one that this kernel has.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::IoUring;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Entries of the completion queue for each of the submission queue: a read may bring the end of its time limit and of
/// a cancellation with it.
const COMPLETIONS_PER_ENTRY: u32 = 2;

/// A ring for `depth` operations, as good as the kernel has them: one issuer and deferred work since 6.1, no
/// interruptions since 5.19, else a plain one. With `sqpoll` a thread of the kernel takes submissions without a system
/// call, and sleeps after that long without one.
pub(super) fn build(depth: usize, sqpoll: Option<Duration>) -> io::Result<IoUring> {
    // Each read may have a time limit beside it.
    let entries = u32::try_from(depth.next_power_of_two() * 2).map_err(io::Error::other)?;
    let common = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries * COMPLETIONS_PER_ENTRY);
        builder
    };
    if let Some(idle) = sqpoll {
        let idle_ms = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        return common().setup_sqpoll(idle_ms).build(entries);
    }
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let best =
        common().setup_submit_all().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(entries);
    match best {
        Err(error) if refused(&error) => {}
        other => return other,
    }
    match common().setup_submit_all().setup_coop_taskrun().setup_taskrun_flag().build(entries) {
        Err(error) if refused(&error) => IoUring::builder().build(entries),
        other => other,
    }
}

#[allow(unsafe_code)]
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits on an eventfd through the runtime of this thread.
#[allow(unsafe_code)]
pub(super) fn watch(eventfd: File) -> io::Result<AsyncFd<File>> {
    debug_assert!(eventfd.as_raw_fd() >= 0);
    // SAFETY: a `File` owns its descriptor, names the same one in every call, and closes it only when it is dropped.
    unsafe { AsyncFd::register_with_interest(eventfd, Interest::READABLE) }.map_err(io::Error::from)
}
