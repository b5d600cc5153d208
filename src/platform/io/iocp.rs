//! The engine of Windows: overlapped reads, whose ends come through one I/O completion port.
//!
//! A file is opened a second time for overlapped use, by its handle and not by its name, since reads at positions through
//! one handle cannot be both overlapped and waited for. Whatever is not a read of a file into one piece of memory goes to
//! the threads of the positioned engine.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use windows_sys::Win32::Foundation::{
    ERROR_ABANDONED_WAIT_0, ERROR_HANDLE_EOF, ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, GENERIC_READ, HANDLE,
    INVALID_HANDLE_VALUE, RtlNtStatusToDosError,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_OVERLAPPED, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, ReOpenFile, ReadFile,
};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};

use super::ReadDone;
use super::account::{Account, count};
use super::engine::{Engine, Which, is_meant};
use super::op::{Op, What, cancelled};
use super::positioned::Positioned;
use crate::platform::affinity::CpuSet;
use crate::platform::memory::IoBuffer;
use crate::platform::threads::{Threads, join_from_outside};
use crate::storage::ReadAt;

/// Ends taken from the port at once.
const BATCH: usize = 64;
/// Files that are open for overlapped use before those are looked for whose source is gone.
const FILES_MAX: usize = 64;
/// The key of the packet that ends the thread; reads have 0.
const KEY_STOP: usize = 1;
/// Most bytes of one call.
const CALL_BYTES_MAX: usize = 1 << 30;

pub(super) struct Iocp<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    positioned: Arc<Positioned<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<T> {
    port: OwnedHandle,
    account: Arc<Account<T>>,
    /// Reads with the kernel, by address. Whoever takes one out owns it.
    flying: Mutex<HashMap<usize, Flying<T>>>,
    /// By the address of their source.
    files: Mutex<HashMap<usize, OpenFile>>,
}

/// A source, and its file for overlapped use.
type OpenFile = (Weak<dyn ReadAt>, Arc<OwnedHandle>);

/// One read with the kernel. The kernel knows its address, so it stays in its box until its end came.
#[repr(C)]
struct Flight<T> {
    /// First, so that the address of one is that of the other.
    overlapped: OVERLAPPED,
    op: Op<T>,
    file: Arc<OwnedHandle>,
    /// Bytes that are there.
    read: usize,
}

/// A box of which the kernel has the address.
struct Flying<T>(*mut Flight<T>);

// SAFETY: it owns what it points at, as a box does; a flight is made of parts that may go to other threads, but for the
// event handle within `overlapped`, which is null.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Flying<T> {}

impl<T: Send + 'static> Iocp<T> {
    /// Makes the port and the thread that waits on it.
    pub(super) fn start(
        name: &str,
        cpus: &CpuSet,
        threads: &dyn Threads,
        account: Arc<Account<T>>,
        positioned: Arc<Positioned<T>>,
    ) -> io::Result<Self> {
        let port = new_port()?;
        let shared = Arc::new(Shared { port, account, flying: Mutex::default(), files: Mutex::default() });
        let body = {
            let shared = Arc::clone(&shared);
            Box::new(move || shared.run())
        };
        let thread = threads.spawn(&format!("{name}-port"), cpus, body)?;
        Ok(Self { shared, positioned, thread: Mutex::new(Some(thread)) })
    }
}

impl<T: Send + 'static> Engine<T> for Iocp<T> {
    fn name(&self) -> &'static str {
        "iocp"
    }

    fn start(&self, ops: Vec<Op<T>>) {
        let (mut ended, mut others) = (Vec::new(), Vec::new());
        for op in ops {
            if matches!(op.what, What::Read(_)) && op.len == 0 {
                let result = op.check();
                ended.push(op.done(result));
                continue;
            }
            let file = match (&op.what, &op.buffer) {
                (What::Read(_), IoBuffer::Scatter(_)) => None,
                (What::Read(source), _) => self.shared.file(source),
                _ => None,
            };
            match file {
                Some(file) => match op.check() {
                    Ok(()) => ended.extend(self.shared.begin(op, file)),
                    Err(error) => ended.push(op.done(Err(error))),
                },
                None => others.push(op),
            }
        }
        if !others.is_empty() {
            self.positioned.start(others);
        }
        if !ended.is_empty() {
            self.shared.account.complete(ended);
        }
    }

    #[allow(unsafe_code)]
    fn cancel(&self, which: Which<T>) {
        let flying = self.shared.flying();
        for flight in flying.values() {
            // SAFETY: what is in the table is alive, and the table is locked. The kernel writes to `overlapped` and to
            // the bytes of the buffer, neither of which is looked at here: the places are taken one by one.
            let (token, file) = unsafe { (&(*flight.0).op.token, &(*flight.0).file) };
            if is_meant(&which, token) {
                // SAFETY: the address is the one that the read was begun with. When it has just ended there is nothing
                // to cancel, which is what the call says then.
                unsafe { CancelIoEx(handle(file), flight.0.cast()) };
            }
        }
        drop(flying);
        self.positioned.cancel(which);
    }

    #[allow(unsafe_code)]
    fn stop(&self) {
        // SAFETY: the port is open, and a packet without an address is nobody's read.
        unsafe { PostQueuedCompletionStatus(handle(&self.shared.port), 0, KEY_STOP, std::ptr::null()) };
        let thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(thread) = thread {
            join_from_outside(thread);
        }
        self.positioned.stop();
    }
}

impl<T: Send + 'static> Shared<T> {
    fn flying(&self) -> MutexGuard<'_, HashMap<usize, Flying<T>>> {
        // A token's own predicate is the only foreign code under this mutex, and its panics are caught.
        self.flying.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The source's file for overlapped use; `None` when it has none, or none that can be opened again.
    fn file(&self, source: &Arc<dyn ReadAt>) -> Option<Arc<OwnedHandle>> {
        // While a weak reference stands no other source gets this address.
        let key = Arc::as_ptr(source).cast::<u8>().addr();
        let mut files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, file)) = files.get(&key) {
            return Some(Arc::clone(file));
        }
        if files.len() >= FILES_MAX {
            files.retain(|_, (source, _)| source.strong_count() > 0);
        }
        let file = Arc::new(self.reopen(source.file()?).ok()?);
        if files.len() < FILES_MAX {
            files.insert(key, (Arc::downgrade(source), Arc::clone(&file)));
        }
        Some(file)
    }

    #[allow(unsafe_code)]
    fn reopen(&self, file: &File) -> io::Result<OwnedHandle> {
        let share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
        // SAFETY: `file` keeps its handle open during the call.
        let opened = unsafe { ReOpenFile(file.as_raw_handle().cast(), GENERIC_READ, share, FILE_FLAG_OVERLAPPED) };
        if opened == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is new and nobody else's.
        let opened = unsafe { OwnedHandle::from_raw_handle(opened.cast()) };
        // SAFETY: both handles are open.
        let joined = unsafe { CreateIoCompletionPort(handle(&opened), handle(&self.port), 0, 0) };
        if joined.is_null() { Err(io::Error::last_os_error()) } else { Ok(opened) }
    }

    /// Hands a read to the kernel. What ended at once, without a packet on the port, comes back.
    fn begin(&self, op: Op<T>, file: Arc<OwnedHandle>) -> Option<ReadDone<T>> {
        count(&self.account.counters.batches, 1);
        self.account.note_access(op.access, false);
        self.go_on(Box::new(Flight { overlapped: OVERLAPPED::default(), op, file, read: 0 }))
    }

    /// Asks for the bytes that are missing.
    #[allow(unsafe_code)]
    fn go_on(&self, mut flight: Box<Flight<T>>) -> Option<ReadDone<T>> {
        let at = flight.op.offset + flight.read as u64;
        flight.overlapped = OVERLAPPED::default();
        flight.overlapped.Anonymous.Anonymous.Offset = at as u32;
        flight.overlapped.Anonymous.Anonymous.OffsetHigh = (at >> 32) as u32;
        let (read, len) = (flight.read, flight.op.len);
        let wanted = (len - read).min(CALL_BYTES_MAX);
        let into = flight.op.buffer.room_mut()[read..len].as_mut_ptr();
        let file = handle(&flight.file);
        let flight = Box::into_raw(flight);
        // In the table before the kernel has it: its end may come at once, to the thread of the port.
        self.flying().insert(flight.addr(), Flying(flight));
        // SAFETY: the file is open as long as the flight lives, and so are `overlapped`, its first field, and the
        // `wanted` bytes from `into` on: the flight leaves the table only when the read has ended, and nobody looks at
        // the bytes before (invariant 15).
        let done = unsafe { ReadFile(file, into, wanted as u32, std::ptr::null_mut(), flight.cast()) };
        let error = io::Error::last_os_error();
        if done != 0 || code(&error) == ERROR_IO_PENDING {
            return None;
        }
        // Refused: there will be no packet.
        let flight = self.land(flight.addr())?;
        let result = if code(&error) == ERROR_HANDLE_EOF { io::ErrorKind::UnexpectedEof.into() } else { error };
        Some(flight.op.done(Err(result)))
    }

    /// Takes a flight out of the table; it is the caller's again.
    #[allow(unsafe_code)]
    fn land(&self, address: usize) -> Option<Box<Flight<T>>> {
        let flying = self.flying().remove(&address)?;
        // SAFETY: it was made by `Box::into_raw`, is taken out of the table once, and the kernel is done with it.
        Some(unsafe { Box::from_raw(flying.0) })
    }

    /// The port's thread: takes ends in batches until it is told to stop.
    #[allow(unsafe_code)]
    fn run(&self) {
        let mut entries = [OVERLAPPED_ENTRY::default(); BATCH];
        loop {
            let mut taken = 0;
            count(&self.account.counters.sleeps, 1);
            // SAFETY: the port is open as long as `self`; the kernel writes at most `BATCH` entries and their number.
            let done = unsafe {
                let port = handle(&self.port);
                GetQueuedCompletionStatusEx(port, entries.as_mut_ptr(), BATCH as u32, &mut taken, u32::MAX, 0)
            };
            if done == 0 {
                if code(&io::Error::last_os_error()) == ERROR_ABANDONED_WAIT_0 {
                    return;
                }
                continue;
            }
            let entries = &entries[..taken as usize];
            let ended: Vec<_> = entries.iter().filter_map(|entry| self.ended(entry)).collect();
            if !ended.is_empty() {
                self.account.complete(ended);
            }
            if entries.iter().any(|entry| entry.lpCompletionKey == KEY_STOP) {
                return;
            }
        }
    }

    /// What one packet says: the end of a read, or a part of one, which goes on then.
    #[allow(unsafe_code)]
    fn ended(&self, entry: &OVERLAPPED_ENTRY) -> Option<ReadDone<T>> {
        let mut flight = self.land(entry.lpOverlapped.addr())?;
        let status = flight.overlapped.Internal as i32;
        if status < 0 {
            // SAFETY: it takes a number and gives one.
            let error = match unsafe { RtlNtStatusToDosError(status) } {
                ERROR_HANDLE_EOF => io::ErrorKind::UnexpectedEof.into(),
                ERROR_OPERATION_ABORTED => cancelled(),
                code => io::Error::from_raw_os_error(code as i32),
            };
            return Some(flight.op.done(Err(error)));
        }
        let count_read = entry.dwNumberOfBytesTransferred as usize;
        flight.read += count_read;
        if flight.read >= flight.op.len {
            return Some(flight.op.done(Ok(())));
        }
        if count_read == 0 {
            return Some(flight.op.done(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        count(&self.account.counters.continued, 1);
        self.go_on(flight)
    }
}

#[allow(unsafe_code)]
fn new_port() -> io::Result<OwnedHandle> {
    // SAFETY: without a file the call makes a new port; one thread at a time is enough for it.
    let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) };
    if port.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(port.cast()) })
}

/// Whether ports work here, by making one.
pub(super) fn probe() -> Result<(), String> {
    new_port().map(drop).map_err(|error| error.to_string())
}

fn handle(of: &OwnedHandle) -> HANDLE {
    of.as_raw_handle().cast()
}

fn code(error: &io::Error) -> u32 {
    error.raw_os_error().unwrap_or(0) as u32
}
