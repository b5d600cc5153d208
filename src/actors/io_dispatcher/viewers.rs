//! What is queued is put in order anew when a viewer has moved: scores within a lane, and the lanes of those requests
//! that nobody named a priority for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::ActorRef;

use super::changes::own_score;
use super::{Pending, State};
use crate::ids::Priority;
use crate::messages::DispatcherMessage;
use crate::policy::places::Places;
use crate::policy::schedule::{Batch, Eye, Features, Scored, score, score_all};
use crate::residency::surroundings::Looker;
use crate::residency::{Lease, Located};

/// At most once in this time, however often viewers move.
const EVERY: Duration = Duration::from_millis(4);

/// What a rescoring uses again and again.
#[derive(Default)]
pub(super) struct Rescoring {
    batch: Batch,
    scored: Scored,
    /// Those that all that is queued was looked up in, or is looked up in again.
    places: Arc<Places>,
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
        let is_same = Arc::ptr_eq(&places, &rescoring.places);
        for pending in self.wanted.items_mut() {
            let Pending { lease, located, known, .. } = pending;
            let known = match known {
                Some(known) if is_same && !known.moves => known,
                known => known.insert(Box::new(look_up(&places, lease, located, &eyes))),
            };
            let since_s = -lease.waited(now).as_secs_f32();
            rescoring.batch.push(&Features { since_s, ..known.features });
        }
        rescoring.places = places;
        let schedule = &self.shared.config.schedule;
        score_all(&rescoring.batch, &eyes, 0.0, &schedule.weights, &mut rescoring.scored);
        let mut places = rescoring.scored.scores.iter().zip(&rescoring.scored.distances);
        self.wanted.rearrange(|_, pending| {
            let (score, distance) = places.next().expect("one for each item, in their order");
            let score = own_score(pending, &schedule.weights, now).unwrap_or(*score);
            let lease = &pending.lease;
            if distance.is_finite() {
                // One that somebody named a priority for stays in its lane.
                lease.follow_distance(schedule.distances.lane(*distance));
            }
            (lease.priority(), score)
        });
        self.rescoring = rescoring;
        self.shared.metrics.rescorings.one();
    }

    /// What is queued for a load, and its lane and score.
    pub(super) fn place_of(&self, lease: Lease, located: Arc<Located>, since: Instant) -> (Pending, Priority, f32) {
        if !self.shared.surroundings.has_viewers() {
            // Looked up when there is one.
            let priority = lease.priority();
            return (Self::pending(lease, located, None, since), priority, 0.0);
        }
        let (places, eyes) = (self.shared.surroundings.places(), self.shared.surroundings.eyes());
        let known = look_up(&places, &lease, &located, &eyes);
        let schedule = &self.shared.config.schedule;
        let since_s = -lease.waited(self.shared.clock.now()).as_secs_f32();
        let hints = Features { since_s, ..known.features }.hints(&eyes, 0.0);
        if let Some(distance) = hints.distance_m {
            lease.follow_distance(schedule.distances.lane(distance));
        }
        let priority = lease.priority();
        let known = Some(Box::new(known));
        (Self::pending(lease, located, known, since), priority, score(&hints, &schedule.weights))
    }

    fn pending(lease: Lease, located: Arc<Located>, known: Option<Box<Known>>, since: Instant) -> Pending {
        let deadline = lease.deadline();
        Pending { lease, located, known, since, deadline, score: 0.0 }
    }
}

/// What is known of a load, and whether it stays so when viewers move.
pub(super) struct Known {
    features: Features,
    /// It has several places, of which the nearest counts.
    moves: bool,
}

/// Looks the load up among the places. Its time is filled in when it is scored.
fn look_up(places: &Places, lease: &Lease, located: &Located, eyes: &[Eye]) -> Known {
    let sighting = places.sighting(lease.key().id, eyes);
    let features = Features {
        at: sighting.map(|sighting| (sighting.at, sighting.radius_m)),
        size_bytes: Some(located.record.len),
        since_s: 0.0,
        coarseness: sighting.map_or(0.0, |sighting| sighting.coarseness),
    };
    Known { features, moves: sighting.is_some_and(|sighting| !sighting.is_only) }
}
