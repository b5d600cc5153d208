//! A memory barrier that is paid by one side alone.
//!
//! Two threads that each write one word and then read the other's must both have a barrier in between, or both may
//! miss what the other wrote. Where one of the two does so a million times as often, it is cheaper to let the rare one
//! run a barrier on every processor: then the frequent one needs none of its own, only the promise that its compiler
//! keeps the order. Linux has that as membarrier(2), "private expedited". Elsewhere, and where the kernel refuses, both
//! sides take a full fence.
//!
//! The pattern is that of liburcu's "memb" flavour (Desnoyers and others, "User-Level Implementations of Read-Copy
//! Update", 2012).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether [`light`] leaves the barrier to [`heavy`]. Written once, inside `READY`.
static ONE_SIDED: AtomicBool = AtomicBool::new(false);
static READY: OnceLock<()> = OnceLock::new();

/// Chooses the kind of barrier, once in a process. To be called before anything that [`light`] and [`heavy`] order is
/// shared between threads: a light side that began before the choice would not be seen by a heavy one after it.
pub fn prepare() {
    READY.get_or_init(|| ONE_SIDED.store(system::register(), Ordering::SeqCst));
}

/// Whether the barrier is paid by the heavy side alone.
pub fn is_one_sided() -> bool {
    ONE_SIDED.load(Ordering::Relaxed)
}

/// The frequent side, between its write and its read.
#[inline(always)]
pub fn light() {
    if ONE_SIDED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side, between its write and its read. `false` when the kernel took back what it had promised: then nothing
/// may be concluded from what is read next.
#[must_use]
pub fn heavy() -> bool {
    fence(Ordering::SeqCst);
    !is_one_sided() || system::barrier()
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    // From include/uapi/linux/membarrier.h; the same on every architecture.
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[allow(unsafe_code)]
    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the call takes two more integers, which are 0, and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub fn register() -> bool {
        // Tried as well: a filter may allow the one and not the other.
        membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED)
    }

    pub fn barrier() -> bool {
        // A child of a fork may have to register anew.
        membarrier(PRIVATE_EXPEDITED) || register()
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    pub fn register() -> bool {
        false
    }

    pub fn barrier() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn one_of_two_sides_sees_the_other() {
        prepare();
        let (turn, lightly, heavily) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let (saw_heavy, saw_light) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meet = |at: usize| {
            turn.fetch_add(1, Ordering::SeqCst);
            while turn.load(Ordering::SeqCst) < at {
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..2000 {
                    meet(round * 4 - 2);
                    lightly.store(round, Ordering::Relaxed);
                    light();
                    saw_heavy.store(heavily.load(Ordering::Relaxed), Ordering::Relaxed);
                    meet(round * 4);
                }
            });
            for round in 1..2000 {
                meet(round * 4 - 2);
                heavily.store(round, Ordering::Relaxed);
                assert!(heavy());
                saw_light.store(lightly.load(Ordering::Relaxed), Ordering::Relaxed);
                meet(round * 4);
                let seen = (saw_heavy.load(Ordering::Relaxed), saw_light.load(Ordering::Relaxed));
                assert!(seen.0 == round || seen.1 == round, "round {round}: {seen:?}");
            }
        });
    }
}
