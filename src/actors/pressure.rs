//! What is done when the budget fills or empties: who is told, and what is let go of, step by step.
//!
//! No actor's business: the budget says that something may have changed on whatever thread charged or gave back, and what
//! follows is done on a decoding thread, since it looks through the table and may free much. It is done a few times in a
//! second at most, and looks at how things are then: of two changes in short succession the second is all that is seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

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

struct Last {
    level: Level,
    total_bytes: u64,
    /// Nobody looks before this.
    rest_until: Instant,
}

/// How often it is looked at how much is tied up, at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The longest rest between two looks while the level may be another one.
const REST_MAX: Duration = Duration::from_secs(2);
/// Looking takes at most one part in so many of one thread's time.
const LOOK_PART: u32 = 50;
/// Assets that are looked at; of more, about as many, spread over all.
const LOOKED_AT_MAX: usize = 50_000;

impl Told {
    /// Nothing was told of a budget of these sizes.
    pub fn new(sizes: Sizes, now: Instant) -> Self {
        let last = Last { level: Level::Normal, total_bytes: sizes.total, rest_until: now };
        let asked = Mutex::new(Asked { sizes, ceiling_bytes: None });
        Self { asked, last: Mutex::new(last), expected: AtomicBool::new(false) }
    }
}

/// The pressure on the budget may be another one. May be called anywhere, also where a charge ends.
pub fn pressure_changed(shared: &Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    if strong.pressure.expected.swap(true, Ordering::SeqCst) {
        return;
    }
    let now = strong.clock.now();
    let wait = strong.pressure.last.lock().rest_until.saturating_duration_since(now);
    if wait.is_zero() {
        look_soon(&strong);
    } else {
        look_in(&strong, wait);
    }
}

fn look_soon(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let look = move || {
        if let Some(shared) = weak.upgrade() {
            shared.look_at_pressure();
        }
    };
    // Once the threads have ended nobody is left who could be told.
    shared.decoders[0].submit(Priority::Critical as u8, Box::new(look));
}

fn look_in(shared: &Arc<Shared>, wait: Duration) {
    let weak = Arc::downgrade(shared);
    shared.handle.spawn(async move {
        tokio::time::sleep(wait).await;
        if let Some(shared) = weak.upgrade() {
            look_soon(&shared);
        }
    });
}

impl Shared {
    /// Finds out how much is tied up, tells of what changed, and does what the level asks for.
    fn look_at_pressure(self: &Arc<Self>) {
        // What changes from here on is looked at again.
        self.pressure.expected.store(false, Ordering::SeqCst);
        let began = self.clock.now();
        let is_open = self.budget.is_level_open();
        // Memory that a reader stood in the way of is freed at the latest here.
        self.table.free_late();
        let evictable = if is_open { self.table.evictable_bytes(LOOKED_AT_MAX) } else { 0 };
        self.budget.settle(evictable);
        let mut last = self.pressure.last.lock();
        let ended = self.clock.now();
        // A thread that did not run for a while is not a look that took so long.
        last.rest_until = ended + ((ended - began) * LOOK_PART).clamp(LOOK_EVERY, REST_MAX);
        let (to, to_bytes) = (self.budget.level(), self.budget.sizes().total);
        let from = std::mem::replace(&mut last.level, to);
        let from_bytes = std::mem::replace(&mut last.total_bytes, to_bytes);
        let cause = self.budget.take_cause();
        if from_bytes != to_bytes {
            let cause = cause.clone().unwrap_or(PressureCause::Budget);
            tracing::info!(from_bytes, to_bytes, %cause, "the budget changed");
            self.events.send(Event::Budget { from_bytes, to_bytes, cause });
        }
        if from != to {
            let (used_bytes, total_bytes) = (self.budget.tied_bytes(), self.budget.used().1);
            let cause = cause.unwrap_or(PressureCause::Use);
            tracing::debug!(%from, %to, used_bytes, total_bytes, %cause, "memory pressure");
            self.events.send(Event::Pressure { from, to, used_bytes, total_bytes, cause });
        }
        let wait = last.rest_until - ended;
        drop(last);
        self.relieve(from, to);
        if is_open && !self.pressure.expected.swap(true, Ordering::SeqCst) {
            // A handle that is taken, or let go of, changes what is tied up and charges nothing.
            look_in(self, if to == Level::Normal { wait.max(LOOK_EVERY * 5) } else { wait });
        }
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

    /// What is asked of the budget in all, whatever it may be at the moment.
    pub fn asked_bytes(&self) -> u64 {
        self.pressure.asked.lock().sizes.total
    }

    /// Has what nobody holds evicted as far as there is too much of it.
    pub fn fit(&self) {
        for (kind, bytes) in self.budget.over() {
            self.make_room(bytes, kind);
        }
    }
}
