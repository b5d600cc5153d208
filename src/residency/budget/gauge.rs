//! How full the budget is, known at all times and looked at only when it may have changed.
//!
//! A charge and a release compare what is used with two bounds, between which the level cannot be another one. Only who
//! finds itself outside looks, under a lock, and sets new bounds. Whoever sets them looks at what is used once more
//! after that, and whoever changes what is used looks at the bounds after that: one of the two sees the other.

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
    rise_at: AtomicU64,
    fall_below: AtomicU64,
    state: Mutex<State>,
    pub(super) on_change: ArcSwapOption<OnRelease>,
}

struct State {
    pressure: Pressure,
    target_percent: u8,
    /// What was used when room was asked for last; `None` when use has been below the target since.
    relieved_at: Option<u64>,
    /// Why the budget is another one, until somebody is told.
    cause: Option<PressureCause>,
}

impl Default for Gauge {
    fn default() -> Self {
        let state = State { pressure: Pressure::default(), target_percent: 90, relieved_at: None, cause: None };
        Self {
            level: AtomicU8::new(0),
            // The first who charges something looks, and sets them.
            rise_at: AtomicU64::new(0),
            fall_below: AtomicU64::new(0),
            state: Mutex::new(state),
            on_change: ArcSwapOption::empty(),
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
        self.look(purse);
    }

    /// The limit of `purse` is another one, for this reason.
    pub(super) fn resized(&self, purse: &Purse, cause: PressureCause) {
        self.state.lock().cause = Some(cause);
        self.look(purse);
    }

    /// What is charged to `purse` has changed.
    pub(super) fn noticed(&self, purse: &Purse) {
        let used = purse.now();
        if used >= self.rise_at.load(Ordering::SeqCst) || used < self.fall_below.load(Ordering::SeqCst) {
            self.look(purse);
        }
    }

    /// Why the budget is another one since somebody asked last.
    pub(super) fn take_cause(&self) -> Option<PressureCause> {
        self.state.lock().cause.take()
    }

    /// How many bytes are used above the target, from High on.
    pub(super) fn surplus_bytes(&self, purse: &Purse) -> u64 {
        let state = self.state.lock();
        if state.pressure.level() < Level::High {
            return 0;
        }
        purse.now().saturating_sub(part(purse.limit(), state.target_percent))
    }

    fn look(&self, purse: &Purse) {
        let mut tell = false;
        let mut state = self.state.lock();
        loop {
            let (used, limit) = (purse.now(), purse.limit());
            tell |= state.take_in(used, limit);
            self.level.store(state.pressure.level() as u8, Ordering::SeqCst);
            let (rise, fall) = state.bounds(limit);
            self.rise_at.store(rise, Ordering::SeqCst);
            self.fall_below.store(fall, Ordering::SeqCst);
            let now = purse.now();
            if now < rise && now >= fall && purse.limit() == limit {
                break;
            }
        }
        drop(state);
        if tell && let Some(on_change) = &*self.on_change.load() {
            on_change();
        }
    }
}

impl State {
    /// Whether somebody is to be told: the level is another one, or room is to be made.
    fn take_in(&mut self, used: u64, limit: u64) -> bool {
        let changed = self.pressure.update(used, limit).is_some();
        if used < part(limit, self.target_percent) || self.pressure.level() < Level::High {
            self.relieved_at = None;
        } else if used >= self.mark(limit) {
            self.relieved_at = Some(used);
            return true;
        }
        changed
    }

    /// The use at which room is asked for next: half way from the target to the critical level, and then again after as
    /// much more.
    fn mark(&self, limit: u64) -> u64 {
        let target = part(limit, self.target_percent);
        let critical = self.pressure.thresholds().bytes(Level::Critical, limit).0;
        let step = (critical.saturating_sub(target) / 2).max(1);
        self.relieved_at.unwrap_or(target).saturating_add(step)
    }

    fn bounds(&self, limit: u64) -> (u64, u64) {
        let (rise, fall) = self.pressure.bounds(limit);
        if self.pressure.level() < Level::High {
            return (rise, fall);
        }
        let target = part(limit, self.target_percent);
        (rise.min(self.mark(limit)), if self.relieved_at.is_some() { fall.max(target) } else { fall })
    }
}
