//! Whether io_uring works here: tried, not guessed from a version number.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};

use io_uring::{EnterFlags, opcode, squeue, types};

use super::setup::{build, eventfd};

/// How long the kernel may take to announce the probe's read.
const ANNOUNCE_MS_MAX: i32 = 2000;
const PATTERN: &[u8; 32] = b"flyloft reads this through rings";

/// Reads known bytes through a ring, the way the engine does: deferred to the kernel's own threads, announced by an
/// eventfd.
pub(in crate::platform::io) fn probe() -> Result<(), String> {
    let fail = |what: &str, error: io::Error| format!("{what}: {}", explain(&error));
    let mut uring = build(2, None).map_err(|error| fail("io_uring_setup", error))?;
    let announced = eventfd().map_err(|error| fail("eventfd", error))?;
    uring.submitter().register_eventfd(announced.as_raw_fd()).map_err(|error| fail("io_uring_register", error))?;
    let mut file = memory_file().map_err(|error| fail("memfd_create", error))?;
    file.write_all(PATTERN).map_err(|error| fail("write", error))?;

    // On the heap: should the kernel keep the buffer, it is leaked below, not reused.
    let mut buffer = Box::new([0_u8; PATTERN.len()]);
    let read = opcode::Read::new(types::Fd(file.as_raw_fd()), buffer.as_mut_ptr(), PATTERN.len() as u32).offset(0);
    let submitted = submit(&mut uring, &read.build().flags(squeue::Flags::ASYNC));
    let answer = submitted
        .map_err(|error| fail("io_uring_enter", error))
        .and_then(|()| wait_readable(announced.as_raw_fd()).map_err(|error| fail("poll", error)))
        .and_then(|()| enter(&uring, 0).map_err(|error| fail("io_uring_enter", error)))
        .and_then(|_| uring.completion().next().ok_or_else(|| "a read was announced but did not complete".to_owned()));
    match answer {
        Ok(completion) if completion.result() == PATTERN.len() as i32 && *buffer == *PATTERN => Ok(()),
        Ok(completion) if completion.result() < 0 => {
            Err(fail("a read through the ring", io::Error::from_raw_os_error(-completion.result())))
        }
        Ok(_) => Err("a read through the ring gave other bytes than the file has".to_owned()),
        Err(why) => {
            // The kernel may still write to it: it is never freed (invariant 15).
            #[allow(clippy::disallowed_methods)]
            std::mem::forget((buffer, file));
            Err(why)
        }
    }
}

fn explain(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring, or a sandbox hides it",
        Some(libc::EPERM | libc::EACCES) => "not permitted; see /proc/sys/kernel/io_uring_disabled and the sandbox",
        Some(libc::ENOMEM) => "not enough lockable memory; raise `ulimit -l`",
        _ => return error.to_string(),
    };
    format!("{error}: {cause}")
}

#[allow(unsafe_code)]
fn submit(uring: &mut io_uring::IoUring, read: &squeue::Entry) -> io::Result<()> {
    // SAFETY: the caller keeps the file and the buffer until the completion arrived, or for ever.
    unsafe { uring.submission().push(read) }.map_err(io::Error::other)?;
    match enter(uring, 1)? {
        1 => Ok(()),
        _ => Err(io::Error::other("the ring took nothing")),
    }
}

#[allow(unsafe_code)]
fn enter(uring: &io_uring::IoUring, submit: u32) -> io::Result<usize> {
    // SAFETY: no argument structure is passed.
    unsafe { uring.submitter().enter::<libc::sigset_t>(submit, 0, EnterFlags::GETEVENTS.bits(), None) }
}

#[allow(unsafe_code)]
fn memory_file() -> io::Result<File> {
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { libc::memfd_create(c"flyloft-probe".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[allow(unsafe_code)]
fn wait_readable(fd: i32) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, and the count says one.
    match unsafe { libc::poll(&raw mut poll, 1, ANNOUNCE_MS_MAX) } {
        1 => Ok(()),
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "a completed read was not announced")),
        _ => Err(io::Error::last_os_error()),
    }
}
