//! One io_uring with everything that the kernel may write to.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use tokio::io::unix::AsyncFd;

use super::files::Files;
use super::registered::Registered;
use super::request::{DISCARD_BYTES, plan, request};
use super::setup;
use crate::platform::io::account::{Counters, count};
use crate::platform::io::engine::{Which, is_meant};
use crate::platform::io::op::{Access, Op, What, cancelled};
use crate::platform::io::plan::Plan;
use crate::platform::io::positioned::panicked;
use crate::platform::io::{DriverConfig, ReadDone};
use crate::platform::memory::AlignedBuffer;
use crate::storage::ReadAt;

/// How often the kernel may say "again" to one read before a thread does it instead.
const AGAIN_MAX: u8 = 16;
/// User data of what is not an operation: the end of a time limit, the answer to a cancellation.
const ASIDE: u64 = u64::MAX;

/// What became of operations in one round of the loop.
pub(super) struct Outcome<T> {
    /// Ended.
    pub(super) done: Vec<ReadDone<T>>,
    /// Not for the ring: no file under the source, or a file that a ring cannot read.
    pub(super) by_thread: Vec<Op<T>>,
    /// Continued after a short transfer, or tried again.
    pub(super) continued: u64,
    /// Done past the page cache.
    pub(super) direct: u64,
    /// Done through it, though the caller wished otherwise.
    pub(super) not_direct: u64,
    /// Into registered memory.
    pub(super) fixed: u64,
    /// Times that the kernel kept completions aside because their queue was full.
    pub(super) overflows: u64,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self { done: Vec::new(), by_thread: Vec::new(), continued: 0, direct: 0, not_direct: 0, fixed: 0, overflows: 0 }
    }
}

impl<T> Outcome<T> {
    /// Bytes of what ended well.
    pub(super) fn bytes(&self) -> u64 {
        self.done.iter().filter(|done| done.result.is_ok()).map(|done| done.len as u64).sum()
    }

    /// Adds what was counted to the driver's counters.
    pub(super) fn count(&mut self, counters: &Counters) {
        for (counter, value) in [
            (&counters.continued, &mut self.continued),
            (&counters.direct, &mut self.direct),
            (&counters.not_direct, &mut self.not_direct),
            (&counters.fixed, &mut self.fixed),
            (&counters.overflows, &mut self.overflows),
        ] {
            if *value > 0 {
                count(counter, std::mem::take(value));
            }
        }
    }
}

/// An operation that is with the ring.
pub(super) struct Entry<T> {
    pub(super) op: Op<T>,
    pub(super) file: Descriptor,
    pub(super) plan: Plan,
    /// The pieces of a scattered transfer that are still to come; stable until the completion.
    pub(super) pieces: Vec<libc::iovec>,
    /// Bytes transferred.
    pub(super) moved: usize,
    /// Times that the kernel said "again".
    again: u8,
    /// Someone asked for its end.
    cancelled: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Descriptor {
    Raw(RawFd),
    Fixed(u32),
}

/// What a completion means.
enum Verdict {
    Done(io::Result<()>),
    Continue,
    ByThread,
    /// Once more, through the page cache.
    Cached,
}

/// It stays on the thread that made it.
pub(in crate::platform::io) struct Ring<T> {
    uring: IoUring,
    /// Counts completions up; readable when there are new ones.
    events: AsyncFd<File>,
    files: Files,
    /// Kept while the ring may write to it.
    registered: Registered,
    /// By user data. An entry leaves only through its completion, or when the kernel provably never saw it.
    slab: Vec<Option<Entry<T>>>,
    free: Vec<usize>,
    /// Time limits by slab index, stable while the entry is there.
    limits: Box<[types::Timespec]>,
    /// Where gaps go: the start of `discarded`.
    discard: NonNull<u8>,
    _discarded: AlignedBuffer,
    /// What stands in the submission queue and the kernel has not taken yet, in order: slab indices, or `None` for
    /// what goes beside an operation.
    unsubmitted: VecDeque<Option<usize>>,
    /// Operations that found no room in the submission queue: slab indices.
    later: VecDeque<usize>,
    /// Cancellations that are to be submitted: slab indices.
    cancels: VecDeque<usize>,
    sqpoll: bool,
    /// The kernel had no room at the last attempt.
    out_of_room: bool,
    /// The kernel said at the last call that it had put something off, and still says so, but had nothing: it may set
    /// that flag after the call has done the work, and then clears it only with the next work.
    false_alarm: bool,
    /// Pretends that the flag is set.
    #[cfg(test)]
    pub(super) alarm: bool,
    /// Submitting failed for good: what still stands in the submission queue must never be submitted.
    broken: bool,
}

impl<T> Ring<T> {
    /// A ring for `config.depth` operations. Called on the driver's thread, within its runtime.
    pub(in crate::platform::io) fn new(config: &DriverConfig) -> io::Result<Self> {
        let depth = config.depth;
        let uring = setup::build(depth, config.sqpoll)?;
        let eventfd = setup::eventfd()?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let events = setup::watch(File::from(eventfd))?;
        let files = Files::new(&uring);
        let registered = Registered::new(&uring, config);
        let discarded = AlignedBuffer::new_zeroed(DISCARD_BYTES, crate::limits::BLOCK_BYTES);
        let mut discarded = discarded.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            uring,
            events,
            files,
            registered,
            slab: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            limits: vec![types::Timespec::new(); depth].into_boxed_slice(),
            discard: NonNull::from(discarded.as_mut_slice()).cast(),
            _discarded: discarded,
            unsubmitted: VecDeque::with_capacity(2 * depth),
            later: VecDeque::new(),
            cancels: VecDeque::new(),
            sqpoll: config.sqpoll.is_some(),
            out_of_room: false,
            false_alarm: false,
            #[cfg(test)]
            alarm: false,
            broken: false,
        })
    }

    /// Puts an operation into the submission queue, or decides that it is not one for the ring.
    pub(super) fn accept(&mut self, mut op: Op<T>, outcome: &mut Outcome<T>) {
        if let Err(error) = op.check() {
            return outcome.done.push(op.done(Err(error)));
        }
        if op.len == 0 && matches!(op.what, What::Read(_) | What::Write(_)) {
            return outcome.done.push(op.done(Ok(())));
        }
        let planned = match catch_unwind(AssertUnwindSafe(|| plan(&mut op))) {
            Ok(planned) => planned,
            Err(panic) => return outcome.done.push(op.done(Err(panicked(&*panic)))),
        };
        let Some((fd, plan)) = planned.filter(|_| !self.broken) else {
            op.plan_cached();
            return outcome.by_thread.push(op);
        };
        // Admission allows no more than `depth`, so there is a place; a thread does it all the same.
        let Some(index) = self.free.pop() else {
            op.plan_cached();
            return outcome.by_thread.push(op);
        };
        match (op.access, plan.direct) {
            (_, true) => outcome.direct += 1,
            (Access::Direct, false) => outcome.not_direct += 1,
            (Access::Cached, false) => {}
        }
        let file = match &op.what {
            What::Read(source) => self.descriptor(source, plan.direct, fd),
            _ => Descriptor::Raw(fd),
        };
        let entry = Entry { op, file, plan, pieces: Vec::new(), moved: 0, again: 0, cancelled: false };
        self.slab[index] = Some(entry);
        self.queue(index, outcome);
    }

    fn descriptor(&mut self, source: &Arc<dyn ReadAt>, direct: bool, fd: RawFd) -> Descriptor {
        self.files.number(&self.uring, source, direct, fd).map_or(Descriptor::Raw(fd), Descriptor::Fixed)
    }

    /// Writes what is left of the entry to the submission queue.
    #[allow(unsafe_code)]
    fn queue(&mut self, index: usize, outcome: &mut Outcome<T>) {
        let Some(entry) = self.slab[index].as_mut() else { return };
        let (sqe, fixed) = request(entry, &self.registered, self.discard);
        outcome.fixed += u64::from(fixed);
        let sqe = sqe.user_data(index as u64);
        let limit = entry.op.limit;
        let mut queue = self.uring.submission();
        if let Some(limit) = limit {
            self.limits[index] = types::Timespec::from(limit);
            let timer = opcode::LinkTimeout::new(&raw const self.limits[index]).build().user_data(ASIDE);
            // SAFETY: as below; the time limit stands in `limits`, which stays where it is and changes only when the
            // next operation takes this index, after the completion of this one.
            match unsafe { queue.push_multiple(&[sqe.flags(squeue::Flags::IO_LINK), timer]) } {
                Ok(()) => self.unsubmitted.extend([Some(index), None]),
                Err(_) => self.later.push_back(index),
            }
        } else {
            // SAFETY: the descriptor is kept open by `entry.op.what`, or by the ring's table. The bytes are in
            // `entry.op.buffer`, the pieces in `entry.pieces`; their addresses do not change, and both stay in the
            // slab, untouched, until the completion has arrived (invariant 15). Gaps go to `discard`, which nobody
            // reads and which is dropped after the ring has waited for everything.
            match unsafe { queue.push(&sqe) } {
                Ok(()) => self.unsubmitted.push_back(Some(index)),
                // The kernel has not taken what stands there already.
                Err(_) => self.later.push_back(index),
            }
        }
    }

    /// Registers memory that was made ready since the last time, a part at a time.
    pub(super) fn register_more(&mut self) {
        self.registered.grow(&self.uring);
    }

    /// Asks the kernel to end the operations that are meant.
    pub(super) fn cancel(&mut self, which: &Which<T>) {
        for (index, slot) in self.slab.iter_mut().enumerate() {
            if let Some(entry) = slot
                && !entry.cancelled
                && is_meant(which, &entry.op.token)
            {
                entry.cancelled = true;
                self.cancels.push_back(index);
            }
        }
    }

    /// Queues what found no room before, and the cancellations.
    #[allow(unsafe_code)]
    fn queue_rest(&mut self, outcome: &mut Outcome<T>) {
        for index in std::mem::take(&mut self.later) {
            self.queue(index, outcome);
        }
        while let Some(index) = self.cancels.pop_front() {
            // It may have ended meanwhile, and another operation have its place.
            if self.slab[index].as_ref().is_some_and(|entry| entry.cancelled) {
                let sqe = opcode::AsyncCancel::new(index as u64).build().user_data(ASIDE);
                // SAFETY: it names no memory.
                if unsafe { self.uring.submission().push(&sqe) }.is_err() {
                    return self.cancels.push_front(index);
                }
                self.unsubmitted.push_back(None);
            }
        }
    }

    /// Gives the kernel what is queued, and lets it finish what it has put off. Returns the number of system calls
    /// that submitted something.
    pub(super) fn hand_over(&mut self, outcome: &mut Outcome<T>) -> u64 {
        let mut batches = 0;
        self.out_of_room = false;
        self.false_alarm = false;
        self.queue_rest(outcome);
        loop {
            let asleep = {
                let queue = self.uring.submission();
                outcome.overflows += u64::from(queue.cq_overflow());
                self.sqpoll && !queue.is_empty() && queue.need_wakeup()
            };
            let put_off = self.has_put_off();
            if self.sqpoll {
                // The kernel's own thread takes it from here; it only has to be awake.
                batches += u64::from(!self.unsubmitted.is_empty());
                self.unsubmitted.clear();
                self.out_of_room = !self.later.is_empty();
                if (asleep || put_off)
                    && let Err(error) = self.enter(0, 0, asleep)
                    && error.raw_os_error() != Some(libc::EINTR)
                {
                    tracing::error!(%error, "the kernel's submission thread cannot be woken");
                }
                self.false_alarm = put_off && self.uring.completion().is_empty();
                return batches;
            }
            if self.unsubmitted.is_empty() && !put_off {
                return batches;
            }
            match self.enter(self.unsubmitted.len(), 0, false) {
                Ok(taken) => {
                    self.false_alarm = put_off && self.uring.completion().is_empty();
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

    /// Never submits again. Operations that the kernel has not taken are done by threads.
    pub(super) fn give_up(&mut self, outcome: &mut Outcome<T>) {
        self.broken = true;
        let later = std::mem::take(&mut self.later);
        for index in std::mem::take(&mut self.unsubmitted).into_iter().flatten().chain(later) {
            if let Some(entry) = self.slab[index].take() {
                self.free.push(index);
                outcome.by_thread.push(entry.restarted());
            }
        }
    }

    /// Takes every completion there is.
    pub(super) fn reap(&mut self, outcome: &mut Outcome<T>) {
        while let Some((user_data, result)) = self.next_completion() {
            if user_data == ASIDE {
                continue;
            }
            let index = usize::try_from(user_data).unwrap_or(usize::MAX);
            let Some(entry) = self.slab.get_mut(index).and_then(Option::as_mut) else {
                debug_assert!(false, "a completion of nothing: {user_data}");
                continue;
            };
            match entry.judge(result) {
                Verdict::Continue if !self.broken => {
                    outcome.continued += 1;
                    self.queue(index, outcome);
                }
                Verdict::Cached if !self.broken => {
                    outcome.continued += 1;
                    self.again_cached(index, outcome);
                }
                verdict => {
                    let Some(entry) = self.slab[index].take() else { continue };
                    self.free.push(index);
                    match verdict {
                        Verdict::Done(result) => outcome.done.push(entry.op.done(result)),
                        // From its start again: a thread does the whole of it.
                        _ => outcome.by_thread.push(entry.restarted()),
                    }
                }
            }
        }
    }

    /// The file system takes the flag for direct reads and not the read, or came up short within a block.
    fn again_cached(&mut self, index: usize, outcome: &mut Outcome<T>) {
        let Some(entry) = self.slab[index].as_mut() else { return };
        let What::Read(source) = &entry.op.what else { return };
        let source = Arc::clone(source);
        entry.plan = entry.op.plan_cached();
        entry.op.access = Access::Cached;
        entry.moved = 0;
        match source.file().map(AsRawFd::as_raw_fd) {
            Some(fd) => {
                let file = self.descriptor(&source, false, fd);
                if let Some(entry) = self.slab[index].as_mut() {
                    entry.file = file;
                }
                self.queue(index, outcome);
            }
            None => {
                if let Some(entry) = self.slab[index].take() {
                    self.free.push(index);
                    outcome.by_thread.push(entry.restarted());
                }
            }
        }
    }

    /// Whether something waits to be submitted.
    pub(super) fn has_more(&self) -> bool {
        !(self.unsubmitted.is_empty() && self.later.is_empty() && self.cancels.is_empty())
    }

    pub(super) fn is_out_of_room(&self) -> bool {
        self.out_of_room
    }

    /// Whether the kernel has news: a look at memory, no system call.
    pub(super) fn has_news(&mut self) -> bool {
        !self.uring.completion().is_empty() || (!self.false_alarm && self.has_put_off())
    }

    /// Whether the kernel has news, for certain: asked before sleeping, when it announces already what comes later.
    pub(super) fn has_news_at_last(&mut self) -> bool {
        // What it put off before it announced would never be announced.
        let interrupted = self.has_put_off() && self.enter(0, 0, false).is_err();
        interrupted || !self.uring.completion().is_empty()
    }

    /// Whether the kernel says that it waits for a call to complete something.
    fn has_put_off(&mut self) -> bool {
        #[cfg(test)]
        if self.alarm {
            return true;
        }
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel announces completions: only while somebody sleeps until then.
    pub(super) fn announce(&mut self, announce: bool) {
        let completion = self.uring.completion();
        if announce {
            completion.enable_eventfd()
        } else {
            completion.disable_eventfd()
        }
        // A look at the queue after this must not come before it: the kernel would not announce what the look missed.
        fence(Ordering::SeqCst);
    }

    /// Whether files are registered that nobody reads at the moment.
    pub(super) fn holds_files(&self) -> bool {
        self.free.len() == self.slab.len() && self.files.any()
    }

    /// Lets go of registered files.
    pub(super) fn let_files_go(&mut self) {
        self.files.let_go(&self.uring);
    }

    /// Returns when the kernel has announced completions since the last time.
    pub(super) async fn announced(&self) -> io::Result<()> {
        // The announcement is an edge: the counter behind it need not be read, it has room for centuries.
        self.events.readable().await?.clear_ready();
        Ok(())
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.uring.completion().next().map(|completion| (completion.user_data(), completion.result()))
    }

    /// Operations that have a place in it.
    pub(super) fn occupied(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Operations that the kernel has taken and not answered.
    pub(super) fn with_kernel(&self) -> usize {
        self.occupied() - self.later.len() - self.unsubmitted.iter().flatten().count()
    }

    /// The one system call: submits, waits for `wait_for` completions, runs what the kernel has put off.
    #[allow(unsafe_code)]
    fn enter(&self, submit: usize, wait_for: u32, wake: bool) -> io::Result<usize> {
        let submit = if self.broken { 0 } else { submit as u32 };
        let mut flags = EnterFlags::GETEVENTS;
        flags.set(EnterFlags::SQ_WAKEUP, wake);
        // SAFETY: no argument structure is passed, and what is submitted was pushed by `queue` or `queue_rest`.
        unsafe { self.uring.submitter().enter::<libc::sigset_t>(submit, wait_for, flags.bits(), None) }
    }
}

#[cfg(test)]
impl<T> Ring<T> {
    /// Submits `count` requests that do nothing, without taking their completions.
    #[allow(unsafe_code)]
    pub(super) fn flood(&mut self, count: usize) {
        for _ in 0..count {
            // SAFETY: it names no memory.
            unsafe { self.uring.submission().push(&opcode::Nop::new().build().user_data(ASIDE)) }.unwrap();
            assert_eq!(self.enter(1, 0, false).unwrap(), 1);
        }
    }
}

impl<T> Drop for Ring<T> {
    /// Waits until the kernel has let go of every buffer. After an orderly end there is none.
    fn drop(&mut self) {
        // What the kernel's own thread was shown it may take at any time; then nothing is unsubmitted.
        let unsubmitted = if self.sqpoll { VecDeque::new() } else { std::mem::take(&mut self.unsubmitted) };
        self.broken = true;
        for index in unsubmitted.into_iter().flatten().chain(std::mem::take(&mut self.later)) {
            // Never submitted, and never will be: the kernel knows nothing of it.
            self.slab[index] = None;
            self.free.push(index);
        }
        self.unsubmitted.clear();
        while self.with_kernel() > 0 {
            if let Err(error) = self.enter(0, 1, self.sqpoll)
                && error.raw_os_error() != Some(libc::EINTR)
            {
                tracing::error!(%error, "io_uring cannot be waited for; its buffers are leaked");
                #[allow(clippy::disallowed_methods)] // Freeing what the kernel may still write to is worse.
                std::mem::forget((std::mem::take(&mut self.slab), std::mem::take(&mut self.registered)));
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

impl<T> Entry<T> {
    fn judge(&mut self, result: i32) -> Verdict {
        if let Ok(count) = usize::try_from(result) {
            if !matches!(self.op.what, What::Read(_) | What::Write(_)) {
                return Verdict::Done(Ok(()));
            }
            self.moved = (self.moved + count).min(self.plan.total);
            return match (count, self.moved >= self.plan.need) {
                (_, true) => Verdict::Done(Ok(())),
                (0, _) if matches!(self.op.what, What::Write(_)) => Verdict::Done(Err(io::ErrorKind::WriteZero.into())),
                (0, _) => Verdict::Done(Err(io::ErrorKind::UnexpectedEof.into())),
                // Less than asked for and not at a block's end: what follows is not to be had directly.
                (_, false) if self.plan.direct && !self.moved.is_multiple_of(crate::limits::BLOCK_BYTES) => {
                    Verdict::Cached
                }
                (_, false) if self.cancelled => Verdict::Done(Err(cancelled())),
                (_, false) => Verdict::Continue,
            };
        }
        match -result {
            libc::ECANCELED | libc::EINTR if self.cancelled => Verdict::Done(Err(cancelled())),
            libc::ECANCELED if self.op.limit.is_some() => Verdict::Done(Err(io::ErrorKind::TimedOut.into())),
            libc::EINTR => Verdict::Continue,
            libc::EINVAL if self.plan.direct => Verdict::Cached,
            libc::EAGAIN if self.again < AGAIN_MAX => {
                self.again += 1;
                Verdict::Continue
            }
            // The file has no way to read without waiting, or none at all through a ring.
            libc::EAGAIN | libc::EOPNOTSUPP => Verdict::ByThread,
            error => Verdict::Done(Err(io::Error::from_raw_os_error(error))),
        }
    }

    /// The operation as it came.
    fn restarted(mut self) -> Op<T> {
        self.op.plan_cached();
        self.op
    }
}
