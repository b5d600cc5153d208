//! Memory outside of the budget: looked at from time to time, so that the budget gives way before the system takes
//! memory by force.
//!
//! No actor's business: a task on the actors' thread keeps the time, and a decoding thread looks, once in a
//! [`crate::config::BudgetConfig::sample`]: some small files of the kernel's, a fraction of a millisecond.

use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;
use serde::Serialize;

use super::Shared;
use crate::event::PressureCause;
use crate::ids::Priority;
use crate::platform::memory;
use crate::platform::pressure::{MemorySource, MemoryUse};
use crate::policy::pressure::{Outside, Seen};

/// What is known of memory outside of the budget.
pub struct OutsideMemory {
    source: Arc<dyn MemorySource>,
    /// What it is called, as it was at the start.
    name: String,
    last: Mutex<(Option<MemoryUse>, Option<u64>)>,
}

/// What there is of memory, as it was seen last.
#[derive(Clone, Debug, Serialize)]
pub struct OutsideReport {
    /// Who says so; `None` when nobody is asked.
    pub source: Option<String>,
    /// How much is in use of what this process may use.
    pub memory: Option<MemoryUse>,
    /// The bound that this puts on the budget, in bytes.
    pub ceiling_bytes: Option<u64>,
}

impl OutsideMemory {
    /// Nothing is known yet.
    pub fn new(source: Arc<dyn MemorySource>) -> Self {
        let name = source.name();
        Self { source, name, last: Mutex::default() }
    }
}

/// Looks from time to time, for as long as the runtime is there, and also has evicted what a smaller budget has no room
/// for once its holders let go of it.
pub fn watch_outside(shared: &Arc<Shared>) {
    let (weak, period) = (Arc::downgrade(shared), shared.config.budget.sample);
    shared.handle.spawn(async move {
        while look_soon(&weak) {
            tokio::time::sleep(period).await;
        }
    });
}

/// Has a decoding thread look; whether there is still a runtime.
fn look_soon(weak: &Weak<Shared>) -> bool {
    let Some(shared) = weak.upgrade() else { return false };
    let weak = Weak::clone(weak);
    let look = move || {
        if let Some(shared) = weak.upgrade() {
            shared.look_outside();
            shared.fit();
            shared.warn_of_holders();
        }
    };
    shared.decoders[0].submit(Priority::High as u8, Box::new(look));
    !shared.is_stopping()
}

impl Shared {
    /// Looks at how much memory there is, and lets the budget be as much as that allows.
    pub fn look_outside(&self) {
        let config = &self.config.budget;
        if !config.outside {
            return;
        }
        let Some(now) = self.outside.source.look() else { return };
        let rules = Outside {
            shrink_percent: config.shrink_percent,
            emergency_percent: config.emergency_percent,
            stall_percent: config.stall_percent,
        };
        let seen = Seen {
            used: now.used_bytes,
            limit: now.limit_bytes,
            stalled_percent: now.stalled_percent,
            charged: self.budget.used().0,
            asked: self.asked_bytes(),
        };
        let mut last = self.outside.last.lock();
        let before = last.1;
        let ceiling = rules.ceiling(&seen, before);
        *last = (Some(now), ceiling);
        // Held on, so that of two looks at once the later one's bound is the one that stays.
        if ceiling != before {
            let (percent, stalled) = (now.percent(), now.stalled_percent);
            let what = format!("{}: {percent:.0} % is in use, stalled {stalled:.0} %", self.outside.name);
            self.limit_budget(ceiling, PressureCause::Outside { what });
        }
        drop(last);
        let gives_way = ceiling.is_some_and(|ceiling| ceiling <= before.unwrap_or(u64::MAX));
        if gives_way && now.percent() >= f64::from(config.shrink_percent) {
            // What was evicted at the look before is free by now.
            let given = self.budget.give_unused_back();
            memory::give_back();
            tracing::debug!(given, "memory that nobody uses went back to the system");
        }
    }

    /// Warns of what is retired and held for long, once each, where it is remembered by whom.
    fn warn_of_holders(&self) {
        let Some(holders) = &self.holders else { return };
        let (least, period) = (self.config.debug.warn_after.as_secs_f64(), self.config.budget.sample.as_secs_f64());
        for holder in holders.report(&self.table, true, self.clock.now()) {
            if (least..least + period).contains(&holder.held_seconds) {
                let taker = holder.takers.last().map_or("", String::as_str);
                tracing::warn!(%holder, taker, "a generation that readers no longer see is kept in memory");
            }
        }
    }

    /// What is known of memory outside of the budget.
    pub fn outside_report(&self) -> OutsideReport {
        let source = self.config.budget.outside.then(|| self.outside.name.clone());
        let (memory, ceiling_bytes) = *self.outside.last.lock();
        OutsideReport { source, memory, ceiling_bytes }
    }
}
