//! The memory budget: who may have how many bytes, decided without a lock and never exceeded.
//!
//! Invariant (7 of the design): at no moment is more charged than the limit, in all or for one kind, under any
//! interleaving. Every charge is one compare-and-swap on what is free, so there is no moment at which a sum stands
//! above the limit, not even for a charge that is taken back at once. A limit may be set at any time; one that is below
//! what is charged admits nothing until enough came back.
//!
//! A part of the larger purse may be kept for critical requests: others leave it alone.
//!
//! The budget has two purses. What is resident, or will be, is charged to the larger one; compressed bytes in flight
//! and decoding scratch are charged to the I/O reserve. Neither lends to the other: a cache that is full can still read.
//!
//! Whoever finds a purse empty says so with [`Budget::set_waiting`] **and then tries again** before it waits; whoever
//! gives back looks at that flag after giving back. One of the two sees the other, so no wake-up is lost.

mod charge;
mod gauge;
mod purse;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use self::charge::{Charge, IoCharge};
use self::gauge::Gauge;
use self::purse::Purse;
pub use self::tally::SizeClass;
use self::tally::Tally;
use super::reaper::Bin;
use crate::config::{RuntimeConfig, io_reserve_bytes};
use crate::event::PressureCause;
use crate::ids::{AssetKind, Priority};
use crate::limits;
use crate::platform::memory::{AlignedBuffer, Heap, HeapStats};
use crate::policy::pressure::{Level, Thresholds};

/// Called when memory came free while someone waits for it, or when the pressure changed. It runs on whatever thread gave back: it must be quick
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
    /// The part of the rest that only critical requests may use.
    #[serde(default)]
    pub critical_reserve: u64,
    /// How much of what is not the reserve could not be given back at once.
    #[serde(default)]
    pub level: Level,
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

/// How much there is for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All of it, in bytes.
    pub total: u64,
    /// The part of it that only I/O may use.
    pub io_reserve: u64,
    /// The part of the rest that only critical requests may use.
    pub critical_reserve: u64,
    /// The most per kind; a kind that is not named is bounded by the total alone.
    pub kinds: BTreeMap<AssetKind, u64>,
}

impl Sizes {
    /// Those that are asked for.
    pub fn of(config: &RuntimeConfig) -> Self {
        Self {
            total: config.budget_bytes,
            io_reserve: config.io_reserve_bytes(),
            critical_reserve: config.budget.critical_reserve_bytes,
            kinds: config.kind_budget_bytes.clone(),
        }
    }

    /// These, but not more than `bytes` in all, nor less than a budget can be.
    pub fn within(&self, bytes: u64) -> Self {
        let total = self.total.min(bytes.max(limits::BUDGET_BYTES_MIN));
        let sizes = Self { total, io_reserve: io_reserve_bytes(total), ..self.clone() };
        // Kept for critical requests is the same part of less.
        let part =
            u128::from(self.critical_reserve) * u128::from(sizes.resident()) / u128::from(self.resident().max(1));
        Self { critical_reserve: u64::try_from(part).unwrap_or(u64::MAX).min(self.critical_reserve), ..sizes }
    }

    /// What may be resident in all.
    pub fn resident(&self) -> u64 {
        self.total.saturating_sub(self.io_reserve)
    }

    fn of_kind(&self, kind: AssetKind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(u64::MAX)
    }
}

/// The memory that a runtime may use. See the module's words.
pub struct Budget {
    /// What is to be had now.
    sizes: Mutex<Sizes>,
    resident: Purse,
    io: Purse,
    kinds: [Purse; AssetKind::ALL.len()],
    /// Bytes of `resident` that only critical requests may have.
    kept: AtomicU64,
    gauge: Gauge,
    peak: AtomicU64,
    tally: Tally,
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

    /// As [`Budget::of`], without a part for critical requests.
    pub fn with_heaps(
        total: u64,
        io_reserve: u64,
        kinds: &BTreeMap<AssetKind, u64>,
        heaps: Vec<Arc<Heap>>,
    ) -> Arc<Budget> {
        let kinds = kinds.clone();
        Self::of(Sizes { total, io_reserve: io_reserve.min(total), critical_reserve: 0, kinds }, heaps)
    }

    /// A budget of these sizes, with a heap for each node that resident memory is taken from as long as it has room. What
    /// does not fit there, and everything without a heap, is from the allocator. What is charged is the same either way,
    /// and the budget is one for all nodes.
    pub fn of(sizes: Sizes, heaps: Vec<Arc<Heap>>) -> Arc<Budget> {
        Arc::new(Budget {
            resident: Purse::new(sizes.resident()),
            io: Purse::new(sizes.io_reserve),
            kinds: AssetKind::ALL.map(|kind| Purse::new(sizes.of_kind(kind))),
            kept: AtomicU64::new(sizes.critical_reserve),
            sizes: Mutex::new(sizes),
            gauge: Gauge::default(),
            peak: AtomicU64::new(0),
            tally: Tally::default(),
            resident_gate: Gate::default(),
            io_gate: Gate::default(),
            value_gate: Gate::default(),
            bin: Bin::default(),
            heaps,
        })
    }

    /// Where levels of pressure begin and end, and what eviction ahead of need aims at.
    pub fn measure(&self, thresholds: Thresholds, target_percent: u8) {
        self.gauge.set(thresholds, target_percent, &self.resident);
    }

    /// From here on there is as much as `sizes` says, for this reason. Nothing that is charged is taken from anybody:
    /// where less is left than is charged, nothing more is, until enough came back. Whoever waits is told.
    pub fn resize(&self, sizes: Sizes, cause: PressureCause) {
        let mut now = self.sizes.lock();
        self.kept.store(sizes.critical_reserve, Ordering::SeqCst);
        self.resident.set_limit(sizes.resident());
        self.io.set_limit(sizes.io_reserve.min(sizes.total));
        for kind in AssetKind::ALL {
            self.kind(kind).set_limit(sizes.of_kind(kind));
        }
        *now = sizes;
        drop(now);
        self.gauge.resized(&self.resident, cause);
        self.resident_released();
        self.io_gate.released();
    }

    /// How much there is for whom now.
    pub fn sizes(&self) -> Sizes {
        self.sizes.lock().clone()
    }

    /// How short it is, as of the last [`Budget::settle`]. One load.
    pub fn level(&self) -> Level {
        self.gauge.level()
    }

    /// Takes in how many bytes of what is charged could be evicted now: the rest decides the level.
    pub fn settle(&self, evictable: u64) {
        self.gauge.settle(&self.resident, evictable);
    }

    /// Whether so much is charged that what could be evicted of it has to be known for the level.
    pub fn is_level_open(&self) -> bool {
        self.gauge.matters(&self.resident)
    }

    /// Bytes that are charged and could not be given back at once, as far as is known.
    pub fn tied_bytes(&self) -> u64 {
        self.gauge.tied_bytes(&self.resident)
    }

    /// Bytes that are charged above what eviction ahead of need aims at.
    pub fn surplus_bytes(&self) -> u64 {
        self.gauge.surplus_bytes(&self.resident)
    }

    /// Bytes that are charged for what is resident, or will be, and the most that may be.
    pub fn used(&self) -> (u64, u64) {
        (self.resident.now(), self.resident.limit())
    }

    /// Bytes that are charged beyond what may be, since there is less than there was: in all, or of a kind.
    pub fn over(&self) -> impl Iterator<Item = (Option<AssetKind>, u64)> {
        let kinds = AssetKind::ALL.into_iter().map(|kind| (Some(kind), self.kind(kind)));
        let over = |(kind, purse): (_, &Purse)| (kind, purse.now().saturating_sub(purse.limit()));
        [(None, &self.resident)].into_iter().chain(kinds).map(over).filter(|(_, bytes)| *bytes > 0)
    }

    /// Gives memory of the heaps that nobody uses back to the system; how many bytes. It takes milliseconds.
    pub fn give_unused_back(&self) -> usize {
        self.heaps.iter().map(|heap| heap.give_unused_back()).sum()
    }

    /// Why there is more or less than before, if that was not told yet.
    pub fn take_cause(&self) -> Option<PressureCause> {
        self.gauge.take_cause()
    }

    /// Sets who is told when so much is charged that room is to be made ahead of need: [`Budget::surplus_bytes`] of it. It
    /// replaces the one before.
    pub fn on_surplus(&self, tell: OnRelease) {
        self.gauge.on_surplus.store(Some(Arc::new(tell)));
    }

    /// What was above the target was evicted, as far as it could be: whoever is told of a surplus is told of the next one.
    pub fn relieved(&self) {
        self.gauge.relieved();
    }

    /// Sets who is told when the level may be another one: whoever is told counts what could be evicted and says so by
    /// [`Budget::settle`]. It replaces the one before, and is called once.
    pub fn on_pressure(&self, tell: OnRelease) {
        let tell = Arc::new(tell);
        self.gauge.on_change.store(Some(Arc::clone(&tell)));
        tell();
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

    /// Charges `bytes` of `kind`, if they fit now beside what is kept for critical requests.
    ///
    /// # Errors
    /// What is missing, and in which budget. Nothing is charged then.
    pub fn try_charge(self: &Arc<Self>, kind: AssetKind, bytes: u64) -> Result<Charge, Shortfall> {
        self.try_charge_for(Priority::default(), kind, bytes)
    }

    /// As [`Budget::try_charge`], for a request of this priority.
    ///
    /// # Errors
    /// As [`Budget::try_charge`].
    pub fn try_charge_for(
        self: &Arc<Self>,
        priority: Priority,
        kind: AssetKind,
        bytes: u64,
    ) -> Result<Charge, Shortfall> {
        let keep = self.kept_from(priority);
        // A look at the total first: a waiter that charged its kind and took that back would wake itself for ever.
        let total_short = |missing_bytes| Shortfall { missing_bytes, kind: None };
        if let Some(missing) = self.resident.missing(bytes, keep) {
            return Err(total_short(missing));
        }
        let purse = self.kind(kind);
        purse.take(bytes, 0).map_err(|missing_bytes| Shortfall { missing_bytes, kind: Some(kind) })?;
        if let Err(missing) = self.resident.take(bytes, keep) {
            // Someone may have found the kind full because of us.
            purse.give(bytes);
            self.resident_released();
            return Err(total_short(missing));
        }
        self.note_peak();
        self.tally.taken(bytes);
        self.gauge.noticed(&self.resident);
        Ok(Charge { budget: Arc::clone(self), kind, place: 0, bytes })
    }

    /// What a request of this priority leaves alone.
    fn kept_from(&self, priority: Priority) -> u64 {
        if priority == Priority::Critical { 0 } else { self.kept.load(Ordering::SeqCst) }
    }

    /// Charges `bytes` of the I/O reserve, if they fit now.
    pub fn try_charge_io(self: &Arc<Self>, bytes: u64) -> Option<IoCharge> {
        self.io.take(bytes, 0).ok()?;
        self.note_peak();
        Some(IoCharge { budget: Arc::clone(self), bytes })
    }

    /// As [`Budget::try_charge`], but when it does not fit the caller is marked as waiting without a gap in which a
    /// release could be missed: after an `Err` the [`Budget::on_release`] callback runs at the next release.
    ///
    /// # Errors
    /// As [`Budget::try_charge`].
    pub fn charge_or_wait(self: &Arc<Self>, kind: AssetKind, bytes: u64) -> Result<Charge, Shortfall> {
        self.charge_or_wait_for(Priority::default(), kind, bytes)
    }

    /// As [`Budget::charge_or_wait`], for a request of this priority.
    ///
    /// # Errors
    /// As [`Budget::try_charge`].
    pub fn charge_or_wait_for(
        self: &Arc<Self>,
        priority: Priority,
        kind: AssetKind,
        bytes: u64,
    ) -> Result<Charge, Shortfall> {
        self.try_charge_for(priority, kind, bytes).or_else(|_| {
            self.set_waiting(true);
            self.try_charge_for(priority, kind, bytes)
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

    /// The most that one charge of `kind` can be as the budget is now, in bytes.
    pub fn admissible_bytes(&self, kind: AssetKind) -> u64 {
        self.admissible_bytes_for(Priority::default(), kind)
    }

    /// As [`Budget::admissible_bytes`], for a request of this priority.
    pub fn admissible_bytes_for(&self, priority: Priority, kind: AssetKind) -> u64 {
        self.resident.limit().saturating_sub(self.kept_from(priority)).min(self.kind(kind).limit())
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

    /// Bytes that were charged for contents and values, and given back, since the start.
    pub fn totals(&self) -> (u64, u64) {
        self.tally.totals()
    }

    /// What was charged since the start, by size.
    pub fn size_classes(&self) -> Vec<SizeClass> {
        self.tally.classes()
    }

    /// Bytes that are still charged and wait for the reaper to free them.
    pub fn waiting_to_be_freed(&self) -> u64 {
        self.bin.waiting_bytes()
    }

    /// What is charged now.
    pub fn snapshot(&self) -> BudgetStats {
        let by_kind = AssetKind::ALL.into_iter().map(|kind| (kind, self.kind(kind).now())).filter(|(_, now)| *now > 0);
        let heaps: Vec<HeapStats> = self.heaps.iter().map(|heap| heap.stats()).collect();
        BudgetStats {
            total: self.sizes.lock().total,
            reserve: self.io.limit(),
            critical_reserve: self.kept.load(Ordering::SeqCst),
            level: self.level(),
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

    /// Each purse is read at what is taken at most, so the sum is below the total even when the two reads are apart.
    fn note_peak(&self) {
        self.peak.fetch_max(self.resident.now() + self.io.now(), Ordering::SeqCst);
    }

    fn give_resident(&self, kind: AssetKind, bytes: u64) {
        self.tally.given(bytes);
        self.kind(kind).give(bytes);
        self.resident.give(bytes);
        self.gauge.noticed(&self.resident);
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

#[cfg(test)]
#[path = "budget/tests.rs"]
mod tests;
