//! The cheapest count that grows evenly with time.

/// On x86-64 under Linux, where the kernel itself tells the time by it, the processor's time stamp counter; elsewhere
/// nanoseconds of the monotonic clock.
#[inline]
pub(super) fn now() -> u64 {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        counter::now()
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    {
        super::nanoseconds()
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counter {
    use std::sync::atomic::{AtomicU8, Ordering};

    const UNKNOWN: u8 = 0;
    const STEADY: u8 = 1;
    const NOT: u8 = 2;

    /// Whether the counter may be used as a clock. Asked once: a count must not change its meaning.
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn now() -> u64 {
        if KNOWN.load(Ordering::Relaxed) == STEADY { counter() } else { other() }
    }

    #[allow(unsafe_code)]
    #[inline]
    fn counter() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and it touches no memory. The system may forbid it to
        // programs, but this one uses it as a clock, which it lets programs read by this very instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    #[cold]
    fn other() -> u64 {
        if KNOWN.load(Ordering::Relaxed) == UNKNOWN {
            // The kernel chooses it only where it is constant, does not stop, and is the same on all processors.
            let source = std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
            let steady = source.is_ok_and(|name| name.trim_ascii() == b"tsc");
            // Of threads that ask at once all find the same, but for the first of them, which counts.
            let found = if steady { STEADY } else { NOT };
            let _ = KNOWN.compare_exchange(UNKNOWN, found, Ordering::Relaxed, Ordering::Relaxed);
            return now();
        }
        super::super::nanoseconds()
    }
}
