//! What the spatial expert is shown, and how often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::ActorRef;

use super::State;
use crate::actors::Shared;
use crate::messages::PredictorMessage;
use crate::policy::places::{Places, ViewerState};
use crate::policy::prediction::spatial::{SpatialExpert, World};
use crate::policy::pressure::Level;
use crate::residency::Budget;
use crate::residency::surroundings::{Looker, Surroundings};

/// At most once in this time, however often viewers move: a frame.
const EVERY: Duration = Duration::from_millis(16);

/// The surroundings and the pressure on memory, for the expert.
struct Now {
    surroundings: Arc<Surroundings>,
    budget: Arc<Budget>,
}

impl World for Now {
    fn look(&self, look: &mut dyn FnMut(&Places, &[ViewerState], Level)) {
        if self.surroundings.has_viewers() {
            look(&self.surroundings.places(), &self.surroundings.viewers(), self.budget.level());
        }
    }
}

/// The expert of what viewers come near to.
pub(super) fn expert(shared: &Shared) -> SpatialExpert {
    let now = Now { surroundings: Arc::clone(&shared.surroundings), budget: Arc::clone(&shared.budget) };
    SpatialExpert::new(shared.config.spatial, Box::new(now))
}

impl State {
    /// A viewer has moved, or the places have changed.
    pub(super) fn viewers_moved(&mut self, myself: &ActorRef<PredictorMessage>) {
        let now = self.shared.clock.now();
        let since = self.moved.map(|last: Instant| now.saturating_duration_since(last));
        if let Some(early) = since.and_then(|since| EVERY.checked_sub(since)).filter(|early| !early.is_zero()) {
            // Nobody tells again until it has looked, so that one such message is on its way at most.
            myself.send_after(early, || PredictorMessage::Moved);
            return;
        }
        self.moved = Some(now);
        self.shared.surroundings.looks(Looker::Prediction);
        self.guess_again();
    }
}
