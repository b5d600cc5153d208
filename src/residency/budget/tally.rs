//! What was ever charged and given back, by size: for the memory profile.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Classes of sizes: powers of two up to half a tebibyte, beyond which all are one.
const CLASSES: usize = 40;

/// What was charged of one class of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeClass {
    /// The largest of its sizes, in bytes: a power of two. The smallest is one more than half of it.
    pub up_to_bytes: u64,
    /// Charges of such a size so far.
    pub charges: u64,
}

pub(super) struct Tally {
    taken_bytes: AtomicU64,
    given_bytes: AtomicU64,
    classes: [AtomicU64; CLASSES],
}

impl Default for Tally {
    fn default() -> Self {
        let (taken_bytes, given_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { taken_bytes, given_bytes, classes: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Tally {
    pub(super) fn taken(&self, bytes: u64) {
        self.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.classes[class(bytes)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn given(&self, bytes: u64) {
        self.given_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes charged and given back so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let given = self.given_bytes.load(Ordering::Relaxed);
        (self.taken_bytes.load(Ordering::Relaxed), given)
    }

    /// The classes of which there was a charge.
    pub(super) fn classes(&self) -> Vec<SizeClass> {
        let counts = self.classes.iter().enumerate();
        let known =
            counts.map(|(power, count)| SizeClass { up_to_bytes: 1 << power, charges: count.load(Ordering::Relaxed) });
        known.filter(|class| class.charges > 0).collect()
    }
}

/// The power of two that is not below `bytes`.
fn class(bytes: u64) -> usize {
    (u64::BITS - bytes.saturating_sub(1).leading_zeros()).min(CLASSES as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_by_the_power_of_two_above_them() {
        let tally = Tally::default();
        for bytes in [0, 1, 2, 3, 4, 5, 4096, 4097, u64::MAX] {
            tally.taken(bytes.min(1 << 50));
        }
        tally.given(7);
        let classes: Vec<_> = tally.classes().iter().map(|class| (class.up_to_bytes, class.charges)).collect();
        assert_eq!(classes, [(1, 2), (2, 1), (4, 2), (8, 1), (4096, 1), (8192, 1), (1 << 39, 1)]);
        assert_eq!(tally.totals(), ((1 << 50) + 8208, 7));
    }
}
