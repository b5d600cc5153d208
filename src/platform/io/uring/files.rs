//! Files that the ring knows by number: the kernel looks them up once, not with every read.
//!
//! A registered file stays open in the kernel, whoever closes it here. So all are let go of when nothing has been read
//! for a while, and those that are closed here when another one comes: a bundle that was replaced and deleted gives its
//! space back.

use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use io_uring::IoUring;

use crate::storage::ReadAt;

/// Files at once. Further ones are read by their descriptor.
const FILES_MAX: usize = 64;

pub(super) struct Files {
    /// By number. The weak reference keeps the address of the source from being used again, so that it names exactly
    /// one source for as long as the slot is taken.
    slots: Vec<Option<Slot>>,
    /// The slot that was found last.
    last: usize,
}

struct Slot {
    source: Weak<dyn ReadAt>,
    direct: bool,
}

impl Files {
    /// A table in the ring; with no place at all where the kernel has none (before 5.19).
    pub(super) fn new(uring: &IoUring) -> Self {
        let count = match uring.submitter().register_files_sparse(FILES_MAX as u32) {
            Ok(()) => FILES_MAX,
            Err(_) => 0,
        };
        Self { slots: (0..count).map(|_| None).collect(), last: 0 }
    }

    /// The number of the file `fd`, which is the one of `source` to be read with or past the page cache. It is
    /// registered when it is asked for first. `None` when there is no room.
    pub(super) fn number(&mut self, uring: &IoUring, source: &Arc<dyn ReadAt>, direct: bool, fd: RawFd) -> Option<u32> {
        let is_it = |slot: &Option<Slot>| {
            slot.as_ref().is_some_and(|slot| {
                slot.direct == direct && std::ptr::addr_eq(slot.source.as_ptr(), Arc::as_ptr(source))
            })
        };
        if self.slots.get(self.last).is_some_and(is_it) {
            return Some(self.last as u32);
        }
        let found = self.slots.iter().position(is_it);
        let index = match found {
            Some(index) => index,
            None => {
                self.let_go_unless(uring, |slot| slot.source.strong_count() > 0);
                let index = self.slots.iter().position(Option::is_none)?;
                uring.submitter().register_files_update(index as u32, &[fd]).ok()?;
                self.slots[index] = Some(Slot { source: Arc::downgrade(source), direct });
                index
            }
        };
        self.last = index;
        Some(index as u32)
    }

    /// Whether any is registered.
    pub(super) fn any(&self) -> bool {
        self.slots.iter().any(Option::is_some)
    }

    /// Lets go of all. The kernel keeps those that are being read until that is done.
    pub(super) fn let_go(&mut self, uring: &IoUring) {
        self.let_go_unless(uring, |_| false);
    }

    fn let_go_unless(&mut self, uring: &IoUring, keep: impl Fn(&Slot) -> bool) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|slot| !keep(slot))
                && uring.submitter().register_files_update(index as u32, &[-1]).is_ok()
            {
                *slot = None;
            }
        }
    }
}
