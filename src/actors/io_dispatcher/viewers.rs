//! What is queued is put in order anew when a viewer has moved: scores within a lane, and the lanes of those requests
//! that nobody named a priority for.

use std::time::{Duration, Instant};

use ractor::ActorRef;

use super::{Pending, State};
use crate::ids::Priority;
use crate::messages::DispatcherMessage;
use crate::policy::places::Places;
use crate::policy::schedule::{Batch, Eye, Features, Scored, score, score_all};
use crate::residency::surroundings::Looker;

/// At most once in this time, however often viewers move.
const EVERY: Duration = Duration::from_millis(4);

/// What a rescoring uses again and again.
#[derive(Default)]
pub(super) struct Rescoring {
    batch: Batch,
    scored: Scored,
    last: Option<Instant>,
}

impl State {
    /// A viewer has moved, or the places have changed.
    pub(super) fn viewers_moved(&mut self, myself: &ActorRef<DispatcherMessage>) {
        let now = self.shared.clock.now();
        let since = self.rescoring.last.map(|last| now.saturating_duration_since(last));
        if let Some(early) = since.and_then(|since| EVERY.checked_sub(since)).filter(|early| !early.is_zero()) {
            // Nobody tells again until it has looked, so that one such message is on its way at most.
            myself.send_after(early, || DispatcherMessage::ViewersMoved);
            return;
        }
        self.rescoring.last = Some(now);
        self.shared.surroundings.looks(Looker::Schedule);
        if self.wanted.is_empty() {
            return;
        }
        let (places, eyes) = (self.shared.surroundings.places(), self.shared.surroundings.eyes());
        let mut rescoring = std::mem::take(&mut self.rescoring);
        rescoring.batch.clear();
        for pending in self.wanted.items() {
            rescoring.batch.push(&features(&places, pending, &eyes, now));
        }
        let schedule = &self.shared.config.schedule;
        score_all(&rescoring.batch, &eyes, 0.0, &schedule.weights, &mut rescoring.scored);
        let mut places = rescoring.scored.scores.iter().zip(&rescoring.scored.distances);
        self.wanted.rearrange(|_, pending| {
            let (score, distance) = places.next().expect("one for each item, in their order");
            let lease = &pending.lease;
            if distance.is_finite() {
                // One that somebody named a priority for stays in its lane.
                lease.follow_distance(schedule.distances.lane(*distance));
            }
            (lease.priority(), *score)
        });
        self.rescoring = rescoring;
        self.shared.metrics.rescorings.one();
    }

    /// The lane and the score at which a load is queued.
    pub(super) fn place_of(&self, pending: &Pending) -> (Priority, f32) {
        if !self.shared.surroundings.has_viewers() {
            return (pending.lease.priority(), 0.0);
        }
        let (places, eyes) = (self.shared.surroundings.places(), self.shared.surroundings.eyes());
        let hints = features(&places, pending, &eyes, self.shared.clock.now()).hints(&eyes, 0.0);
        let schedule = &self.shared.config.schedule;
        if let Some(distance) = hints.distance_m {
            pending.lease.follow_distance(schedule.distances.lane(distance));
        }
        (pending.lease.priority(), score(&hints, &schedule.weights))
    }
}

/// What is known of a load. Times count from now.
fn features(places: &Places, pending: &Pending, eyes: &[Eye], now: Instant) -> Features {
    let Pending { lease, located } = pending;
    let sighting = places.sighting(lease.key().id, eyes);
    Features {
        at: sighting.map(|sighting| (sighting.at, sighting.radius_m)),
        size_bytes: Some(located.record.len),
        since_s: -lease.waited(now).as_secs_f32(),
        coarseness: sighting.map_or(0.0, |sighting| sighting.coarseness),
    }
}
