//! What viewers come near to is asked for ahead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::ActorRef;

use super::State;
use crate::config::SpatialConfig;
use crate::ids::{AssetId, Hashing};
use crate::messages::{DispatcherMessage, PredictorMessage, Prefetch};
use crate::policy::prediction::Spatial;
use crate::policy::prediction::spatial::Candidate;
use crate::residency::surroundings::Looker;

/// At most once in this time, however often viewers move: a frame.
const EVERY: Duration = Duration::from_millis(16);
/// What was asked for is not asked for again for so long, whatever became of it: it may be on its way, refused, or no
/// asset at all.
const ASKED_AGAIN: Duration = Duration::from_millis(500);
/// Assets that were asked for are forgotten when there are this many, once they are older than that.
const ASKED_MAX: usize = 16 << 10;

/// What viewers are predicted by.
pub(super) struct Ahead {
    spatial: Spatial,
    candidates: Vec<Candidate>,
    asked: HashMap<AssetId, Instant, Hashing>,
    last: Option<Instant>,
}

impl Ahead {
    pub(super) fn new(config: SpatialConfig) -> Self {
        Self { spatial: Spatial::new(config), candidates: Vec::new(), asked: HashMap::default(), last: None }
    }
}

impl State {
    /// A viewer has moved, or the places have changed.
    pub(super) fn viewers_moved(&mut self, myself: &ActorRef<PredictorMessage>) {
        let now = self.shared.clock.now();
        let since = self.ahead.last.map(|last| now.saturating_duration_since(last));
        if let Some(early) = since.and_then(|since| EVERY.checked_sub(since)).filter(|early| !early.is_zero()) {
            // Nobody tells again until it has looked, so that one such message is on its way at most.
            myself.send_after(early, || PredictorMessage::Moved);
            return;
        }
        self.shared.surroundings.looks(Looker::Prediction);
        let Self { shared, ahead, .. } = self;
        ahead.last = Some(now);
        let (places, viewers) = (shared.surroundings.places(), shared.surroundings.viewers());
        ahead.candidates.clear();
        ahead.spatial.predict(&places, &viewers, shared.pressure(), &mut ahead.candidates);
        if ahead.asked.len() > ASKED_MAX {
            ahead.asked.retain(|_, asked| now.saturating_duration_since(*asked) < ASKED_AGAIN);
        }
        let live = shared.generations.current();
        let mut wishes = Vec::new();
        for Candidate { id, .. } in &ahead.candidates {
            let lately = ahead.asked.get(id).is_some_and(|asked| now.saturating_duration_since(*asked) < ASKED_AGAIN);
            if lately || shared.table.candidate(*id).is_some() {
                continue;
            }
            ahead.asked.insert(*id, now);
            wishes.push(Prefetch { live: Arc::clone(&live), id: *id });
        }
        if !wishes.is_empty() {
            // A wish that is lost costs nothing but the wait it would have saved.
            shared.addresses.dispatcher.hint(DispatcherMessage::Prefetch(wishes));
        }
    }
}
