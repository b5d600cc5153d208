//! The io_uring engine: one ring, owned by one future on the driver's thread.
//!
//! Invariant 15 rests on [`Ring`]: a read that the kernel knows is in its slab until the kernel has answered, and the
//! ring is not dropped before. Submissions from anywhere go through the [`Inbox`]; the thread takes all there are and
//! hands them over in one system call. Completions are announced through an eventfd that the runtime waits on, so the
//! thread sleeps when there is nothing to do.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, opcode, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ReadDone;
use super::account::{Account, Inbox, count};
use super::op::{Op, What};
use super::positioned::{Positioned, panicked};
use crate::platform::memory::IoBuffer;

mod probe;
pub(super) use self::probe::probe;

/// The most bytes asked of the kernel in one read; it stops a little below 2 GiB by itself.
const READ_BYTES_STEP: usize = 1 << 30;
/// How often the kernel may say "again" to one read before a thread does it instead.
const AGAIN_MAX: u8 = 16;
/// How long to wait when the kernel has no room for more requests.
const NO_ROOM_WAIT: Duration = Duration::from_millis(1);

/// The driver's loop: ends when the account is closed and nothing is in flight.
pub(super) async fn run<T: Send + 'static>(
    mut ring: Ring<T>,
    inbox: &Inbox<T>,
    account: &Arc<Account<T>>,
    positioned: &Arc<Positioned<T>>,
) {
    let mut outcome = Outcome { done: Vec::new(), by_thread: Vec::new(), continued: 0 };
    loop {
        for op in inbox.take() {
            ring.accept(op, &mut outcome);
        }
        let batches = ring.hand_over(&mut outcome);
        ring.reap(&mut outcome);
        count(&account.counters.batches, batches);
        count(&account.counters.continued, std::mem::take(&mut outcome.continued));
        if !outcome.by_thread.is_empty() {
            positioned.start(std::mem::take(&mut outcome.by_thread));
        }
        let progressed = !outcome.done.is_empty();
        account.complete(std::mem::take(&mut outcome.done));
        if account.is_finished() {
            return;
        }
        if progressed || ring.has_more() {
            // The actors on this thread get their turn before the next look.
            tokio::task::yield_now().await;
            if ring.is_out_of_room() {
                tokio::time::sleep(NO_ROOM_WAIT).await;
            }
            continue;
        }
        count(&account.counters.sleeps, 1);
        tokio::select! {
            announced = ring.announced() => if let Err(error) = announced {
                // The runtime is going away under its own main future: this cannot happen, and if it did, dropping the
                // ring waits for the kernel.
                tracing::error!(%error, "the ring's eventfd cannot be waited for");
                return;
            },
            () = account.woken() => {}
        }
    }
}

/// What became of reads in one round of the loop.
struct Outcome<T> {
    /// Ended.
    done: Vec<ReadDone<T>>,
    /// Not for the ring: no file under the source, or a file that a ring cannot read.
    by_thread: Vec<Op<T>>,
    /// Continued after a short read, or tried again.
    continued: u64,
}

/// A read that is with the ring.
struct Entry<T> {
    op: Op<T>,
    fd: RawFd,
    /// Bytes that are there already.
    read: usize,
    /// Times that the kernel said "again".
    again: u8,
}

/// One io_uring with everything that the kernel may write to. It stays on the thread that made it.
pub(super) struct Ring<T> {
    uring: IoUring,
    /// Counts completions up; readable while the count is not zero.
    events: AsyncFd<File>,
    /// By user data. An entry leaves only through its completion, or when the kernel provably never saw it.
    slab: Vec<Option<Entry<T>>>,
    free: Vec<usize>,
    /// Slab indices written to the submission queue that the kernel has not taken yet, in order.
    unsubmitted: VecDeque<usize>,
    /// The kernel had no room at the last attempt.
    out_of_room: bool,
    /// Submitting failed for good: what still stands in the submission queue must never be submitted.
    broken: bool,
}

impl<T> Ring<T> {
    /// A ring for `depth` reads. Called on the driver's thread, within its runtime.
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        let uring = build(depth)?;
        let eventfd = eventfd()?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let events = watch(File::from(eventfd))?;
        Ok(Self {
            uring,
            events,
            slab: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            unsubmitted: VecDeque::with_capacity(depth),
            out_of_room: false,
            broken: false,
        })
    }

    /// Puts a read into the submission queue, or decides that it is not one for the ring.
    fn accept(&mut self, op: Op<T>, outcome: &mut Outcome<T>) {
        if let Err(error) = op.check() {
            return outcome.done.push(op.done(Err(error)));
        }
        let What::Read(source) = &op.what else {
            return outcome.by_thread.push(op);
        };
        if op.len == 0 {
            return outcome.done.push(op.done(Ok(())));
        }
        if matches!(op.buffer, IoBuffer::Scatter(_)) {
            return outcome.by_thread.push(op);
        }
        let source = AssertUnwindSafe(|| source.file().map(AsRawFd::as_raw_fd));
        match catch_unwind(source) {
            Ok(Some(fd)) if !self.broken => match self.free.pop() {
                Some(index) => {
                    self.slab[index] = Some(Entry { op, fd, read: 0, again: 0 });
                    self.queue(index);
                }
                // Admission allows no more than `depth`, so there is a place; a thread reads it all the same.
                None => outcome.by_thread.push(op),
            },
            Ok(_) => outcome.by_thread.push(op),
            Err(panic) => outcome.done.push(op.done(Err(panicked(&*panic)))),
        }
    }

    /// Writes the entry's next read to the submission queue.
    #[allow(unsafe_code)]
    fn queue(&mut self, index: usize) {
        let entry = self.slab[index].as_mut().expect("the caller has just put it there or kept it");
        let rest = &mut entry.op.buffer.room_mut()[entry.read..entry.op.len];
        let len = u32::try_from(rest.len().min(READ_BYTES_STEP)).expect("a step fits 32 bits");
        let read = opcode::Read::new(types::Fd(entry.fd), rest.as_mut_ptr(), len)
            .offset(entry.op.offset + entry.read as u64)
            .build()
            .user_data(index as u64);
        // SAFETY: the descriptor is kept open by `entry.op.what`, and the bytes are in `entry.op.buffer`, whose
        // address does not change. Both stay in the slab, untouched, until the completion has arrived (invariant 15).
        let pushed = unsafe { self.uring.submission().push(&read) };
        // Each entry has at most one place in the queue, and the queue has a place for each entry.
        pushed.expect("the submission queue is as long as the slab");
        self.unsubmitted.push_back(index);
    }

    /// Gives the kernel what is queued, and lets it finish what it has put off. Returns the number of system calls
    /// that submitted something.
    fn hand_over(&mut self, outcome: &mut Outcome<T>) -> u64 {
        let mut batches = 0;
        self.out_of_room = false;
        loop {
            let put_off = {
                let queue = self.uring.submission();
                queue.taskrun() || queue.cq_overflow()
            };
            if self.unsubmitted.is_empty() && !put_off {
                return batches;
            }
            match self.enter(self.unsubmitted.len(), 0) {
                Ok(taken) => {
                    batches += u64::from(taken > 0);
                    self.unsubmitted.drain(..taken.min(self.unsubmitted.len()));
                    if self.unsubmitted.is_empty() {
                        return batches;
                    }
                    if taken == 0 {
                        self.out_of_room = true;
                        return batches;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.out_of_room = true;
                        return batches;
                    }
                    _ => {
                        tracing::error!(%error, "io_uring refuses reads from now on; threads read instead");
                        self.give_up(outcome);
                        return batches;
                    }
                },
            }
        }
    }

    /// Never submits again. Reads that the kernel has not taken are read by threads.
    fn give_up(&mut self, outcome: &mut Outcome<T>) {
        self.broken = true;
        for index in std::mem::take(&mut self.unsubmitted) {
            if let Some(entry) = self.slab[index].take() {
                self.free.push(index);
                outcome.by_thread.push(entry.op);
            }
        }
    }

    /// Takes every completion there is.
    fn reap(&mut self, outcome: &mut Outcome<T>) {
        while let Some((user_data, result)) = self.next_completion() {
            let index = usize::try_from(user_data).unwrap_or(usize::MAX);
            let Some(entry) = self.slab.get_mut(index).and_then(Option::as_mut) else {
                debug_assert!(false, "a completion of nothing: {user_data}");
                continue;
            };
            let verdict = match u32::try_from(result) {
                Ok(0) => Verdict::Done(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    entry.read = (entry.read + count as usize).min(entry.op.len);
                    if entry.read == entry.op.len { Verdict::Done(Ok(())) } else { Verdict::Continue }
                }
                Err(_) => match -result {
                    libc::EINTR => Verdict::Continue,
                    libc::EAGAIN if entry.again < AGAIN_MAX => {
                        entry.again += 1;
                        Verdict::Continue
                    }
                    // The file has no way to read without waiting, or none at all through a ring.
                    libc::EAGAIN | libc::EOPNOTSUPP => Verdict::ByThread,
                    error => Verdict::Done(Err(io::Error::from_raw_os_error(error))),
                },
            };
            if matches!(verdict, Verdict::Continue) && !self.broken {
                outcome.continued += 1;
                self.queue(index);
                continue;
            }
            let Some(entry) = self.slab[index].take() else { continue };
            self.free.push(index);
            match verdict {
                Verdict::Done(result) => outcome.done.push(entry.op.done(result)),
                // From its start again: a thread reads the whole of it.
                Verdict::Continue | Verdict::ByThread => outcome.by_thread.push(entry.op),
            }
        }
    }

    /// Whether something waits to be submitted.
    fn has_more(&self) -> bool {
        !self.unsubmitted.is_empty()
    }

    fn is_out_of_room(&self) -> bool {
        self.out_of_room
    }

    /// Returns when the kernel has announced completions, after taking the announcement back.
    async fn announced(&self) -> io::Result<()> {
        let mut ready = self.events.readable().await?;
        let mut counter = [0; 8];
        match ready.get_inner().read(&mut counter) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        ready.clear_ready();
        Ok(())
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.uring.completion().next().map(|completion| (completion.user_data(), completion.result()))
    }

    /// Reads that the kernel has taken and not answered.
    fn with_kernel(&self) -> usize {
        self.slab.len() - self.free.len() - self.unsubmitted.len()
    }

    /// The one system call: submits, waits for `wait_for` completions, runs what the kernel has put off.
    #[allow(unsafe_code)]
    fn enter(&self, submit: usize, wait_for: u32) -> io::Result<usize> {
        let submit = if self.broken { 0 } else { submit as u32 };
        // SAFETY: no argument structure is passed, and what is submitted was pushed by `queue`.
        unsafe { self.uring.submitter().enter::<libc::sigset_t>(submit, wait_for, EnterFlags::GETEVENTS.bits(), None) }
    }
}

/// What a completion means.
enum Verdict {
    Done(io::Result<()>),
    Continue,
    ByThread,
}

impl<T> Drop for Ring<T> {
    /// Waits until the kernel has let go of every buffer. After an orderly end there is none.
    fn drop(&mut self) {
        self.broken = true;
        for index in std::mem::take(&mut self.unsubmitted) {
            // Never submitted, and never will be: the kernel knows nothing of it.
            self.slab[index] = None;
            self.free.push(index);
        }
        while self.with_kernel() > 0 {
            if let Err(error) = self.enter(0, 1)
                && error.raw_os_error() != Some(libc::EINTR)
            {
                tracing::error!(%error, "io_uring cannot be waited for; its buffers are leaked");
                #[allow(clippy::disallowed_methods)] // Freeing what the kernel may still write to is worse.
                std::mem::forget(std::mem::take(&mut self.slab));
                return;
            }
            while let Some((user_data, _)) = self.next_completion() {
                let index = usize::try_from(user_data).unwrap_or(usize::MAX);
                if self.slab.get_mut(index).and_then(Option::take).is_some() {
                    self.free.push(index);
                }
            }
        }
    }
}

#[allow(unsafe_code)]
fn watch(eventfd: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` owns its descriptor, names the same one in every call, and closes it only when it is dropped.
    unsafe { AsyncFd::register_with_interest(eventfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// A ring as good as the kernel has them: one issuer and deferred work since 6.1, else a plain one.
fn build(depth: usize) -> io::Result<IoUring> {
    let entries = u32::try_from(depth.next_power_of_two()).map_err(io::Error::other)?;
    let best = IoUring::builder()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(entries);
    match best {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(entries),
        other => other,
    }
}

#[allow(unsafe_code)]
fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
