//! What holds a part of the budget: dropping it gives the part back.

use std::fmt;
use std::sync::Arc;

use super::Budget;
use crate::ids::AssetKind;

/// Bytes charged for what is resident, or will be. Dropping it gives them back.
#[must_use = "dropping a charge gives it back"]
pub struct Charge {
    pub(super) budget: Arc<Budget>,
    pub(super) kind: AssetKind,
    /// Of which node the memory is to be.
    pub(super) place: u8,
    pub(super) bytes: u64,
}

impl Charge {
    /// The kind it is charged to.
    pub fn kind(&self) -> AssetKind {
        self.kind
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same charge, for memory of the NUMA node at `place` in [`crate::platform::numa::Nodes`]. Without that it is of
    /// the first.
    pub fn at(mut self, place: u8) -> Charge {
        self.place = place;
        self
    }

    /// Of which node the memory is to be, by its place.
    pub fn place(&self) -> u8 {
        self.place
    }

    /// The budget it belongs to.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Gives back all but `bytes`; does nothing when it is not larger.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        if surplus > 0 {
            self.budget.give_resident(self.kind, surplus);
        }
    }

    /// Takes what `other` is charged over, which is of the same kind and budget.
    pub fn absorb(&mut self, mut other: Charge) {
        debug_assert!(self.kind == other.kind && Arc::ptr_eq(&self.budget, &other.budget), "two purses in one charge");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Moves all of it into a charge of its own; this one is empty then.
    pub fn take(&mut self) -> Charge {
        let bytes = std::mem::take(&mut self.bytes);
        Charge { budget: Arc::clone(&self.budget), kind: self.kind, place: self.place, bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_resident(self.kind, self.bytes);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} bytes of {})", self.bytes, self.kind)
    }
}

/// Bytes charged to the I/O reserve. Dropping it gives them back.
#[must_use = "dropping a charge gives it back"]
pub struct IoCharge {
    pub(super) budget: Arc<Budget>,
    pub(super) bytes: u64,
}

impl IoCharge {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for IoCharge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.io.give(self.bytes);
            self.budget.io_gate.released();
        }
    }
}

impl fmt::Debug for IoCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoCharge({} bytes)", self.bytes)
    }
}
