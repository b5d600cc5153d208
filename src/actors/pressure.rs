//! What is done when the budget fills or empties: who is told, and what is let go of, step by step.
//!
//! No actor's business: the budget says that something changed on whatever thread charged or gave back, and what follows
//! is done on a decoding thread, since it may free much. It is done once at a time, and looks at how things are then: of
//! two changes in short succession the second may be all that anybody sees.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Shared;
use crate::config::RuntimeConfig;
use crate::error::Result;
use crate::event::{Event, PressureCause};
use crate::ids::Priority;
use crate::policy::pressure::Level;
use crate::residency::Sizes;

/// What is asked of the budget, and what was told of it last.
pub struct Told {
    asked: Mutex<Asked>,
    last: Mutex<Last>,
    /// Somebody is going to look.
    expected: AtomicBool,
}

/// What the program asks for, and what it gets.
struct Asked {
    sizes: Sizes,
    /// The most that there is for it, where others need memory.
    ceiling_bytes: Option<u64>,
}

#[derive(Clone, Copy)]
struct Last {
    level: Level,
    total_bytes: u64,
}

impl Told {
    /// Nothing was told of a budget of these sizes.
    pub fn new(sizes: Sizes) -> Self {
        let last = Last { level: Level::Normal, total_bytes: sizes.total };
        let asked = Mutex::new(Asked { sizes, ceiling_bytes: None });
        Self { asked, last: Mutex::new(last), expected: AtomicBool::new(false) }
    }
}

/// Something about the budget's pressure changed. May be called anywhere, also where a charge ends.
pub fn pressure_changed(shared: &Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    if strong.pressure.expected.swap(true, Ordering::SeqCst) {
        return;
    }
    let weak = Weak::clone(shared);
    let look = move || {
        if let Some(shared) = weak.upgrade() {
            shared.pressure_told();
        }
    };
    // Once the threads have ended nobody is left who could be told.
    strong.decoders[0].submit(Priority::Critical as u8, Box::new(look));
}

impl Shared {
    /// Tells of what changed, and does what the level asks for.
    fn pressure_told(&self) {
        // What changes from here on is looked at by somebody else.
        self.pressure.expected.store(false, Ordering::SeqCst);
        let mut told = self.pressure.last.lock();
        let (to, to_bytes) = (self.budget.level(), self.budget.sizes().total);
        let last = Last { level: to, total_bytes: to_bytes };
        let Last { level: from, total_bytes: from_bytes } = std::mem::replace(&mut *told, last);
        let cause = self.budget.take_cause();
        if from_bytes != to_bytes {
            let cause = cause.clone().unwrap_or(PressureCause::Budget);
            tracing::info!(from_bytes, to_bytes, %cause, "the budget changed");
            self.events.send(Event::Budget { from_bytes, to_bytes, cause });
        }
        if from != to {
            let (used_bytes, total_bytes) = self.budget.used();
            let cause = cause.unwrap_or(PressureCause::Use);
            tracing::debug!(%from, %to, used_bytes, total_bytes, %cause, "memory pressure");
            self.events.send(Event::Pressure { from, to, used_bytes, total_bytes, cause });
        }
        drop(told);
        self.relieve(from, to);
    }

    /// What a rise to a level lets go of, the dearest to have again last.
    fn relieve(&self, from: Level, to: Level) {
        if from < Level::Elevated && to >= Level::Elevated {
            let freed = self.values.let_go(u64::MAX, None);
            tracing::debug!(freed, "values that nobody held were let go of");
        }
        if from < Level::Critical && to == Level::Critical {
            let freed = self.table.let_go_of_all_ended(self.generations.oldest_wanted());
            tracing::debug!(freed, "what ended in kept generations was let go of");
        }
        let surplus = self.budget.surplus_bytes();
        if surplus > 0 {
            self.make_room(surplus, None);
        }
    }

    /// Changes what is asked of the budget to what `change` makes of it, and lets go of what does not fit any more.
    ///
    /// # Errors
    /// What `change` returned; nothing is another then.
    pub fn change_budget(
        &self,
        cause: PressureCause,
        change: impl FnOnce(&RuntimeConfig, &Sizes) -> Result<Sizes>,
    ) -> Result<()> {
        let mut asked = self.pressure.asked.lock();
        asked.sizes = change(&self.config, &asked.sizes)?;
        self.apply(&asked, cause);
        Ok(())
    }

    /// Lets the budget be at most so many bytes, whatever is asked for; as many as that without.
    pub fn limit_budget(&self, ceiling_bytes: Option<u64>, cause: PressureCause) {
        let mut asked = self.pressure.asked.lock();
        if std::mem::replace(&mut asked.ceiling_bytes, ceiling_bytes) != ceiling_bytes {
            self.apply(&asked, cause);
        }
    }

    /// Under the lock, so that the last who changes something is the last who sets it.
    fn apply(&self, asked: &Asked, cause: PressureCause) {
        self.budget.resize(asked.sizes.within(asked.ceiling_bytes.unwrap_or(u64::MAX)), cause);
        self.fit();
    }

    /// Has what nobody holds evicted as far as there is too much of it.
    pub fn fit(&self) {
        for (kind, bytes) in self.budget.over() {
            self.make_room(bytes, kind);
        }
    }
}
