//! How short memory is: known at all times, and looked at only when it may have changed.
//!
//! A cache that is full is no pressure: what is merely cached is evicted for whoever needs room. So the level goes by what
//! could not be given back at once: what is charged, less what could be evicted when that was counted last, which takes a
//! walk through the table and is done now and then, by whoever is told. A charge and a release compare what is charged
//! with bounds between which that count gives the same level. Whoever finds itself outside has somebody look.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::OnRelease;
use super::purse::Purse;
use crate::event::PressureCause;
use crate::policy::pressure::{Level, Pressure, Thresholds, part};

/// See the module's words.
pub(super) struct Gauge {
    level: AtomicU8,
    /// What is charged when somebody is to look: from the first on, and below the second.
    rise_at: AtomicU64,
    fall_below: AtomicU64,
    /// What is charged when room is to be made ahead of need; none while somebody was told.
    relieve_at: AtomicU64,
    /// What is aimed at then, and what `relieve_at` is once that is reached.
    target: AtomicU64,
    mark: AtomicU64,
    state: Mutex<State>,
    pub(super) on_change: ArcSwapOption<OnRelease>,
    pub(super) on_surplus: ArcSwapOption<OnRelease>,
}

struct State {
    pressure: Pressure,
    target_percent: u8,
    /// What could be evicted when that was counted last.
    evictable: u64,
    /// Why the budget is another one, until somebody is told.
    cause: Option<PressureCause>,
}

impl Default for Gauge {
    fn default() -> Self {
        let pressure = Pressure::default();
        let state = State { pressure, target_percent: 100, evictable: 0, cause: None };
        Self {
            level: AtomicU8::new(0),
            rise_at: AtomicU64::new(0),
            fall_below: AtomicU64::new(0),
            relieve_at: AtomicU64::new(u64::MAX),
            target: AtomicU64::new(u64::MAX),
            mark: AtomicU64::new(u64::MAX),
            state: Mutex::new(state),
            on_change: ArcSwapOption::empty(),
            on_surplus: ArcSwapOption::empty(),
        }
    }
}

impl Gauge {
    pub(super) fn level(&self) -> Level {
        Level::from_number(self.level.load(Ordering::SeqCst))
    }

    /// Another way to measure.
    pub(super) fn set(&self, thresholds: Thresholds, target_percent: u8, purse: &Purse) {
        let mut state = self.state.lock();
        state.pressure = Pressure::new(thresholds);
        state.target_percent = target_percent;
        drop(state);
        self.aim(purse);
    }

    /// The limit of `purse` is another one, for this reason.
    pub(super) fn resized(&self, purse: &Purse, cause: PressureCause) {
        self.state.lock().cause = Some(cause);
        self.aim(purse);
        tell(&self.on_change);
    }

    /// Sets what room is made for: half way from the target to the limit somebody is told.
    fn aim(&self, purse: &Purse) {
        let limit = purse.limit();
        let target = part(limit, self.state.lock().target_percent);
        let mark = target.saturating_add((limit.saturating_sub(target) / 2).max(1));
        self.target.store(target, Ordering::SeqCst);
        self.mark.store(mark, Ordering::SeqCst);
        self.relieve_at.store(mark, Ordering::SeqCst);
    }

    /// What is charged to `purse` has changed.
    pub(super) fn noticed(&self, purse: &Purse) {
        let charged = purse.now();
        if charged >= self.rise_at.load(Ordering::SeqCst) || charged < self.fall_below.load(Ordering::SeqCst) {
            tell(&self.on_change);
        }
        self.look_at_surplus(charged);
    }

    fn look_at_surplus(&self, charged: u64) {
        if charged >= self.relieve_at.load(Ordering::SeqCst) {
            // One of those who find so much charged tells.
            if self.relieve_at.swap(u64::MAX, Ordering::SeqCst) != u64::MAX {
                tell(&self.on_surplus);
            }
        } else if charged <= self.target.load(Ordering::SeqCst) && self.relieve_at.load(Ordering::SeqCst) == u64::MAX {
            self.relieve_at.store(self.mark.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// Relief is over: the next charge beyond the mark is told again, also when one came while the target was reached.
    pub(super) fn relieved(&self) {
        self.relieve_at.store(self.mark.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Why the budget is another one since somebody asked last.
    pub(super) fn take_cause(&self) -> Option<PressureCause> {
        self.state.lock().cause.take()
    }

    /// How many bytes are charged above the target.
    pub(super) fn surplus_bytes(&self, purse: &Purse) -> u64 {
        purse.now().saturating_sub(self.target.load(Ordering::SeqCst))
    }

    /// Whether so much is charged that the level may be another one than the least.
    pub(super) fn matters(&self, purse: &Purse) -> bool {
        purse.now() >= self.state.lock().pressure.thresholds().bytes(Level::Elevated, purse.limit()).1
    }

    /// Bytes that could not be given back at once, as far as is known.
    pub(super) fn tied_bytes(&self, purse: &Purse) -> u64 {
        purse.now().saturating_sub(self.state.lock().evictable)
    }

    /// Takes in what is charged, of which so much could be evicted.
    pub(super) fn settle(&self, purse: &Purse, evictable: u64) {
        // What could not be evicted when somebody was told may be by now.
        self.relieve_at.store(self.mark.load(Ordering::SeqCst), Ordering::SeqCst);
        let mut state = self.state.lock();
        state.evictable = evictable;
        loop {
            let (charged, limit) = (purse.now(), purse.limit());
            let tied = charged.saturating_sub(evictable);
            state.pressure.update(tied, limit);
            self.level.store(state.pressure.level() as u8, Ordering::SeqCst);
            let (rise, fall) = state.bounds(limit);
            self.rise_at.store(rise, Ordering::SeqCst);
            self.fall_below.store(fall, Ordering::SeqCst);
            // Whoever charged meanwhile either saw these bounds or is seen here.
            if purse.now() == charged && purse.limit() == limit {
                drop(state);
                return self.look_at_surplus(charged);
            }
        }
    }
}

fn tell(who: &ArcSwapOption<OnRelease>) {
    if let Some(call) = &*who.load() {
        call();
    }
}

impl State {
    fn bounds(&self, limit: u64) -> (u64, u64) {
        let (rise, fall) = self.pressure.bounds(limit);
        let fall = if fall == 0 { 0 } else { fall.saturating_add(self.evictable) };
        (rise.saturating_add(self.evictable), fall)
    }
}
