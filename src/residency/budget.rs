//! The memory budget: who may have how many bytes, decided without a lock and never exceeded.
//!
//! Invariant (7 of the design): at no moment is more charged than the limit, in all or for one kind, under any
//! interleaving. Every charge is one compare-and-swap against its limit, so there is no moment at which a sum stands
//! above it, not even for a charge that is taken back at once.
//!
//! The budget has two purses. What is resident, or will be, is charged to the larger one; compressed bytes in flight
//! and decoding scratch are charged to the I/O reserve. Neither lends to the other: a cache that is full can still read.
//!
//! Whoever finds a purse empty says so with [`Budget::set_waiting`] **and then tries again** before it waits; whoever
//! gives back looks at that flag after giving back. One of the two sees the other, so no wake-up is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::reaper::Bin;
use crate::ids::AssetKind;
use crate::platform::memory::{AlignedBuffer, Heap, HeapStats};

/// Called when memory came free while someone waits for it. It runs on whatever thread gave back: it must be quick
/// (cast a message, set a flag) and must not take a lock that is held while charges are dropped.
pub type OnRelease = Box<dyn Fn() + Send + Sync>;

/// How much was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Bytes that must come free first.
    pub missing_bytes: u64,
    /// The kind whose own budget is full; `None` when it is the total.
    pub kind: Option<AssetKind>,
}

/// What is charged at one moment. The fields are read one after another, so under load they may be a few charges apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStats {
    /// The whole budget, the reserve included.
    pub total: u64,
    /// The part of it that only I/O may use.
    pub reserve: u64,
    /// Bytes charged for what is resident, or will be.
    pub charged: u64,
    /// Bytes charged to the reserve.
    pub charged_io: u64,
    /// The most that was charged at once, both purses together.
    pub peak: u64,
    /// Bytes charged per kind, kinds with nothing left out.
    pub by_kind: BTreeMap<AssetKind, u64>,
    /// The heap that resident memory is taken from, or all of them together; `None` when it is the allocator alone.
    #[serde(default)]
    pub heap: Option<HeapStats>,
    /// The heap of each NUMA node, where there are several.
    #[serde(default)]
    pub node_heaps: Vec<HeapStats>,
}

/// One amount with a limit that it never passes.
#[derive(Debug)]
struct Purse {
    charged: AtomicU64,
    limit: u64,
}

impl Purse {
    fn new(limit: u64) -> Self {
        Self { charged: AtomicU64::new(0), limit }
    }

    /// Adds `bytes` if the limit allows; else says how many bytes are too many.
    fn take(&self, bytes: u64) -> Result<(), u64> {
        let mut charged = self.charged.load(Ordering::SeqCst);
        loop {
            if let Some(missing) = self.missing(charged, bytes) {
                return Err(missing);
            }
            match self.charged.compare_exchange_weak(charged, charged + bytes, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(now) => charged = now,
            }
        }
    }

    fn missing(&self, charged: u64, bytes: u64) -> Option<u64> {
        let after = charged.saturating_add(bytes);
        (after > self.limit).then(|| after - self.limit)
    }

    fn give(&self, bytes: u64) {
        let before = self.charged.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more was given back than was taken");
    }

    fn now(&self) -> u64 {
        self.charged.load(Ordering::SeqCst)
    }
}

/// Who is told when a purse is given back to.
#[derive(Default)]
struct Gate {
    waiting: AtomicBool,
    wake: ArcSwapOption<OnRelease>,
}

impl Gate {
    /// Takes the flag, so that one wait is one call, however much comes free at once.
    fn released(&self) {
        if self.waiting.load(Ordering::SeqCst)
            && self.waiting.swap(false, Ordering::SeqCst)
            && let Some(wake) = &*self.wake.load()
        {
            wake();
        }
    }
}

/// The memory that a runtime may use. See the module's words.
pub struct Budget {
    total: u64,
    resident: Purse,
    io: Purse,
    kinds: [Purse; AssetKind::ALL.len()],
    peak: AtomicU64,
    resident_gate: Gate,
    io_gate: Gate,
    value_gate: Gate,
    pub(super) bin: Bin,
    /// One for each node, in the order of their places; one where there is one node; none without heaps.
    heaps: Vec<Arc<Heap>>,
}

impl Budget {
    /// A budget of `total` bytes, `io_reserve` of which only [`Budget::try_charge_io`] can have, with the given limits
    /// per kind; a kind that is not named is bounded by the total alone.
    pub fn new(total: u64, io_reserve: u64, kinds: &BTreeMap<AssetKind, u64>) -> Arc<Budget> {
        Self::with_heaps(total, io_reserve, kinds, Vec::new())
    }

    /// As [`Budget::new`], with a heap for each node that resident memory is taken from as long as it has room. What
    /// does not fit there, and everything without a heap, is from the allocator. What is charged is the same either way,
    /// and the budget is one for all nodes.
    pub fn with_heaps(
        total: u64,
        io_reserve: u64,
        kinds: &BTreeMap<AssetKind, u64>,
        heaps: Vec<Arc<Heap>>,
    ) -> Arc<Budget> {
        let reserve = io_reserve.min(total);
        Arc::new(Budget {
            total,
            resident: Purse::new(total - reserve),
            io: Purse::new(reserve),
            kinds: AssetKind::ALL.map(|kind| Purse::new(kinds.get(&kind).copied().unwrap_or(u64::MAX))),
            peak: AtomicU64::new(0),
            resident_gate: Gate::default(),
            io_gate: Gate::default(),
            value_gate: Gate::default(),
            bin: Bin::default(),
            heaps,
        })
    }

    /// `len` bytes of the node at `place`, at a multiple of `align`, unspecified ones, for what is charged here.
    pub(super) fn memory(&self, place: usize, len: usize, align: usize) -> Option<AlignedBuffer> {
        self.lend(place, |heap| heap.take(len, align)).or_else(|| AlignedBuffer::new_zeroed(len, align))
    }

    /// As [`Budget::memory`], in whole blocks of `align`.
    pub(super) fn memory_in_blocks(&self, place: usize, len: usize, align: usize) -> Option<AlignedBuffer> {
        self.lend(place, |heap| heap.take_in_blocks(len, align)).or_else(|| AlignedBuffer::new_in_blocks(len, align))
    }

    fn lend(&self, place: usize, take: impl FnOnce(&Arc<Heap>) -> Option<AlignedBuffer>) -> Option<AlignedBuffer> {
        let heap = self.heaps.get(place)?;
        let lent = take(heap);
        self.bin.warm(heap);
        lent
    }

    /// Charges `bytes` of `kind`, if they fit now.
    ///
    /// # Errors
    /// What is missing, and in which budget. Nothing is charged then.
    pub fn try_charge(self: &Arc<Self>, kind: AssetKind, bytes: u64) -> Result<Charge, Shortfall> {
        // A look at the total first: a waiter that charged its kind and took that back would wake itself for ever.
        let total_short = |missing_bytes| Shortfall { missing_bytes, kind: None };
        if let Some(missing) = self.resident.missing(self.resident.now(), bytes) {
            return Err(total_short(missing));
        }
        let purse = self.kind(kind);
        purse.take(bytes).map_err(|missing_bytes| Shortfall { missing_bytes, kind: Some(kind) })?;
        if let Err(missing) = self.resident.take(bytes) {
            // Someone may have found the kind full because of us.
            purse.give(bytes);
            self.resident_released();
            return Err(total_short(missing));
        }
        self.note_peak();
        Ok(Charge { budget: Arc::clone(self), kind, place: 0, bytes })
    }

    /// Charges `bytes` of the I/O reserve, if they fit now.
    pub fn try_charge_io(self: &Arc<Self>, bytes: u64) -> Option<IoCharge> {
        self.io.take(bytes).ok()?;
        self.note_peak();
        Some(IoCharge { budget: Arc::clone(self), bytes })
    }

    /// As [`Budget::try_charge`], but when it does not fit the caller is marked as waiting without a gap in which a
    /// release could be missed: after an `Err` the [`Budget::on_release`] callback runs at the next release.
    ///
    /// # Errors
    /// As [`Budget::try_charge`].
    pub fn charge_or_wait(self: &Arc<Self>, kind: AssetKind, bytes: u64) -> Result<Charge, Shortfall> {
        self.try_charge(kind, bytes).or_else(|_| {
            self.set_waiting(true);
            self.try_charge(kind, bytes)
        })
    }

    /// As [`Budget::charge_or_wait`], for the I/O reserve and [`Budget::on_io_release`].
    pub fn charge_io_or_wait(self: &Arc<Self>, bytes: u64) -> Option<IoCharge> {
        self.try_charge_io(bytes).or_else(|| {
            self.set_io_waiting(true);
            self.try_charge_io(bytes)
        })
    }

    /// As [`Budget::charge_or_wait`], for a decoded value and [`Budget::on_value_release`].
    ///
    /// # Errors
    /// As [`Budget::try_charge`].
    pub fn charge_value_or_wait(self: &Arc<Self>, kind: AssetKind, bytes: u64) -> Result<Charge, Shortfall> {
        self.try_charge(kind, bytes).or_else(|_| {
            self.value_gate.waiting.store(true, Ordering::SeqCst);
            self.try_charge(kind, bytes)
        })
    }

    /// The most that one charge of `kind` can ever be, in bytes.
    pub fn admissible_bytes(&self, kind: AssetKind) -> u64 {
        self.resident.limit.min(self.kind(kind).limit)
    }

    /// Sets who is told when resident memory came free while someone waits. It replaces the one before.
    pub fn on_release(&self, wake: OnRelease) {
        self.resident_gate.wake.store(Some(Arc::new(wake)));
    }

    /// Sets who is told when resident memory came free while a decoded value waits for it. It replaces the one before.
    pub fn on_value_release(&self, wake: OnRelease) {
        self.value_gate.wake.store(Some(Arc::new(wake)));
    }

    /// Sets who is told when a part of the I/O reserve came free while someone waits. It replaces the one before.
    pub fn on_io_release(&self, wake: OnRelease) {
        self.io_gate.wake.store(Some(Arc::new(wake)));
    }

    /// Says that someone waits for resident memory (or that nobody does any more). The flag is taken by the wake-up:
    /// who still waits after one sets it again, **then** tries again, then waits. [`Budget::charge_or_wait`] does that.
    pub fn set_waiting(&self, waiting: bool) {
        self.resident_gate.waiting.store(waiting, Ordering::SeqCst);
    }

    /// As [`Budget::set_waiting`], for the I/O reserve.
    pub fn set_io_waiting(&self, waiting: bool) {
        self.io_gate.waiting.store(waiting, Ordering::SeqCst);
    }

    /// What is charged now.
    pub fn snapshot(&self) -> BudgetStats {
        let by_kind = AssetKind::ALL.into_iter().map(|kind| (kind, self.kind(kind).now())).filter(|(_, now)| *now > 0);
        let heaps: Vec<HeapStats> = self.heaps.iter().map(|heap| heap.stats()).collect();
        BudgetStats {
            total: self.total,
            reserve: self.io.limit,
            charged: self.resident.now(),
            charged_io: self.io.now(),
            peak: self.peak.load(Ordering::SeqCst),
            by_kind: by_kind.collect(),
            heap: (!heaps.is_empty()).then(|| heaps.iter().copied().sum()),
            node_heaps: if heaps.len() > 1 { heaps } else { Vec::new() },
        }
    }

    fn kind(&self, kind: AssetKind) -> &Purse {
        &self.kinds[kind as usize]
    }

    /// Each purse is read below its limit, so the sum is below the total even when the two reads are apart.
    fn note_peak(&self) {
        self.peak.fetch_max(self.resident.now() + self.io.now(), Ordering::SeqCst);
    }

    fn give_resident(&self, kind: AssetKind, bytes: u64) {
        self.kind(kind).give(bytes);
        self.resident.give(bytes);
        self.resident_released();
    }

    fn resident_released(&self) {
        self.resident_gate.released();
        self.value_gate.released();
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// Bytes charged for what is resident, or will be. Dropping it gives them back.
#[must_use = "dropping a charge gives it back"]
pub struct Charge {
    budget: Arc<Budget>,
    kind: AssetKind,
    /// Of which node the memory is to be.
    place: u8,
    bytes: u64,
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
    budget: Arc<Budget>,
    bytes: u64,
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

#[cfg(test)]
#[path = "budget/tests.rs"]
mod tests;
