//! What a viewer comes near to is needed next.
//!
//! The viewer's way within the horizon is laid through the places of assets as a line of a few straight pieces; what
//! comes within reach of it is predicted, in the level of detail that its distance asks for at each time. The score is
//! the product of how soon, how near, how much in view and how important. The places are in an R*-tree (Beckmann et
//! al., "The R*-tree", SIGMOD 1990), so that a prediction costs what is near and not what there is.

use std::collections::HashMap;
use std::time::Duration;

use super::{Access, Due, Expert, ExpertKind, Guess};
use crate::config::SpatialConfig;
use crate::ids::{AssetId, Hashing};
use crate::policy::places::{Placed, Places, ViewerState, dot, length, sub};
use crate::policy::pressure::Level;

/// Straight pieces of the way.
const PIECES: usize = 8;
/// Places that are looked at for each piece, at most.
const LOOKED_AT_MAX: usize = 8192;
/// How long an acceleration is believed to last, in seconds.
const ACCELERATION_S: f32 = 1.0;
/// What is behind counts this much.
const BEHIND: f32 = 0.25;

/// Something that will be needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The asset, in its level of detail.
    pub id: AssetId,
    /// How sure and how urgent, from 0 to 1.
    pub score: f32,
    /// In how many seconds it comes within reach.
    pub time_s: f32,
    /// In how many seconds the viewer is nearest to it, going on as it does; not finite for who does not move.
    pub nearest_s: f32,
    /// How near it will be then, in metres.
    pub distance_m: f32,
}

/// Predicts what viewers come near to.
#[derive(Debug)]
pub struct Spatial {
    config: SpatialConfig,
    /// Places that were looked at for one viewer.
    near: Vec<u32>,
    /// The best of each asset, over all viewers of one prediction.
    best: HashMap<AssetId, Candidate, Hashing>,
}

impl Spatial {
    /// By this configuration, which is valid.
    pub fn new(config: SpatialConfig) -> Self {
        Self { config, near: Vec::new(), best: HashMap::default() }
    }

    /// Appends what the viewers will need within the horizon, the highest score first, none twice. Memory pressure asks
    /// for coarser levels of detail.
    pub fn predict(&mut self, places: &Places, viewers: &[ViewerState], pressure: Level, into: &mut Vec<Candidate>) {
        if !self.config.enabled || places.is_empty() {
            return;
        }
        let nearer = self.config.nearer(pressure as u8);
        for viewer in viewers {
            self.follow(places, viewer, nearer);
        }
        let first = into.len();
        into.extend(self.best.drain().map(|(_, candidate)| candidate));
        into[first..].sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        into.truncate(first + self.config.candidates_max);
    }

    fn follow(&mut self, places: &Places, viewer: &ViewerState, nearer: f32) {
        let horizon = self.config.horizon.as_secs_f32();
        let moves = horizon > 0.0
            && (viewer.velocity.is_some_and(|parts| parts != [0.0; 3]) || viewer.acceleration != [0.0; 3]);
        let pieces = if moves { PIECES } else { 1 };
        let time = |at: usize| if moves { horizon * at as f32 / PIECES as f32 } else { 0.0 };
        let way: [[f32; 3]; PIECES + 1] = std::array::from_fn(|at| position(viewer, time(at)));
        self.near.clear();
        for piece in way.windows(2).take(pieces) {
            places.along(piece[0], piece[1], self.config.reach_m, LOOKED_AT_MAX, &mut self.near);
        }
        self.near.sort_unstable();
        self.near.dedup();
        let view = View::of(viewer);
        // Taken out while it is walked, and put back for the next viewer.
        let near = std::mem::take(&mut self.near);
        for &place in &near {
            let Some(placed) = places.get(place) else { continue };
            for (at, piece) in way.windows(2).take(pieces).enumerate() {
                let begins = time(at);
                // Where the piece begins and where it comes nearest: later ones say what comes then. Its time is that of the
                // piece's beginning, so that nothing is predicted late.
                for from in [piece[0], nearest(piece[0], piece[1], placed.at)] {
                    self.consider(places, placed, from, begins, nearer, &view);
                }
            }
            let last = way[pieces];
            self.consider(places, placed, last, time(pieces), nearer, &view);
        }
        self.near = near;
    }

    /// From a point of the way, at a time.
    fn consider(&mut self, places: &Places, placed: &Placed, from: [f32; 3], time_s: f32, nearer: f32, view: &View) {
        let reach = self.config.reach_m;
        let distance_m = placed.distance(from);
        if distance_m > reach {
            return;
        }
        let (id, _) = places.level_at(placed, distance_m, nearer);
        let horizon = self.config.horizon.as_secs_f32();
        let soon = if horizon > 0.0 { 1.0 - 0.9 * time_s / horizon } else { 1.0 };
        let near = if reach > 0.0 { 1.0 - 0.6 * distance_m / reach } else { 1.0 };
        let seen = if distance_m > 0.0 { view.of_direction(sub(placed.at, from)) } else { 1.0 };
        let score = placed.importance * soon * near * seen;
        if score < self.config.score_least {
            return;
        }
        let candidate = Candidate { id, score, time_s, nearest_s: view.nearest_s(placed.at), distance_m };
        let best = self.best.entry(id).or_insert(candidate);
        let time_s = best.time_s.min(time_s);
        if score > best.score {
            *best = candidate;
        }
        best.time_s = time_s;
    }
}

/// What the expert is shown.
pub trait World: Send {
    /// Calls `look` with the places, the viewers and the pressure of now; not at all where there are no viewers.
    fn look(&self, look: &mut dyn FnMut(&Places, &[ViewerState], Level));
}

/// [`Spatial`] as an expert: when a viewer has moved it guesses what that comes near to.
pub struct SpatialExpert {
    spatial: Spatial,
    world: Box<dyn World>,
    candidates: Vec<Candidate>,
}

/// A guess is due when the viewer is nearest to it, within these bounds: who stands may turn, and who moves may stop.
const DUE_S: (f32, f32) = (1.0, 20.0);

impl SpatialExpert {
    /// By this configuration, which is valid, of what `world` shows.
    pub fn new(config: SpatialConfig, world: Box<dyn World>) -> Self {
        Self { spatial: Spatial::new(config), world, candidates: Vec::new() }
    }
}

impl Expert for SpatialExpert {
    fn kind(&self) -> ExpertKind {
        ExpertKind::Spatial
    }

    fn accessed(&mut self, _: &Access, _: &dyn super::World, _: u8, _: &mut Vec<Guess>) {
        // What is used says nothing about where viewers go.
    }

    fn passed(&mut self, _: Duration, world: &dyn super::World, distance: u8, into: &mut Vec<Guess>) {
        let Self { spatial, world: shown, candidates } = self;
        candidates.clear();
        shown.look(&mut |places, viewers, pressure| spatial.predict(places, viewers, pressure, candidates));
        // What is there already takes no place from what is not. The farther ahead it may look the more it names.
        let most = usize::from(distance) * GUESSES_PER_DISTANCE;
        let missing = candidates.iter().filter(|candidate| !world.is_resident(candidate.id)).take(most);
        into.extend(missing.map(|Candidate { id, score, nearest_s, .. }| {
            let due_s = if nearest_s.is_finite() { nearest_s.clamp(DUE_S.0, DUE_S.1) } else { DUE_S.1 };
            Guess { id: *id, confidence: *score, due: Due::Time(Duration::from_secs_f32(due_s)) }
        }));
    }
}

/// Guesses at once for each step of the distance that the ensemble allows.
const GUESSES_PER_DISTANCE: usize = 32;

/// How much of a direction is in view.
struct View {
    position: [f32; 3],
    velocity: [f32; 3],
    direction: [f32; 3],
    cos_half: f32,
}

impl View {
    fn of(viewer: &ViewerState) -> Self {
        let velocity = viewer.velocity.unwrap_or_default();
        let (position, direction) = (viewer.position, viewer.eye().direction);
        Self { position, velocity, direction, cos_half: viewer.half_angle.cos() }
    }

    /// When it is nearest to `at`, going on straight.
    fn nearest_s(&self, at: [f32; 3]) -> f32 {
        let squared = dot(self.velocity, self.velocity);
        if squared > 0.0 { (dot(sub(at, self.position), self.velocity) / squared).max(0.0) } else { f32::INFINITY }
    }

    /// 1 within the cone, less beside it, least behind. Who looks nowhere in particular sees everything.
    fn of_direction(&self, to: [f32; 3]) -> f32 {
        let far = length(to);
        if self.direction == [0.0; 3] || far == 0.0 {
            return 1.0;
        }
        let cos = (dot(to, self.direction) / far).clamp(-1.0, 1.0);
        if cos >= self.cos_half {
            return 1.0;
        }
        // Below the cone's edge, which lies above -1 since `cos` does not reach it.
        BEHIND + (1.0 - BEHIND) * (cos + 1.0) / (self.cos_half + 1.0)
    }
}

/// Where the viewer will be.
fn position(viewer: &ViewerState, time_s: f32) -> [f32; 3] {
    let velocity = viewer.velocity.unwrap_or_default();
    let speeding = time_s.min(ACCELERATION_S);
    let gained = speeding * speeding / 2.0 + (time_s - speeding) * speeding;
    std::array::from_fn(|axis| viewer.position[axis] + velocity[axis] * time_s + viewer.acceleration[axis] * gained)
}

/// The point of the way from `from` to `to` that is nearest to `centre`.
fn nearest(from: [f32; 3], to: [f32; 3], centre: [f32; 3]) -> [f32; 3] {
    let way = sub(to, from);
    let squared = dot(way, way);
    let part = if squared > 0.0 { (dot(sub(centre, from), way) / squared).clamp(0.0, 1.0) } else { 0.0 };
    std::array::from_fn(|axis| from[axis] + way[axis] * part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Place;

    /// A place every 10 m along the x axis, numbered.
    fn row(count: u64) -> Places {
        Places::new((0..count).map(|number| (AssetId(number), Place::at([number as f32 * 10.0, 0.0, 0.0]))))
    }

    fn predict(config: SpatialConfig, places: &Places, viewer: ViewerState, pressure: Level) -> Vec<Candidate> {
        let mut into = Vec::new();
        Spatial::new(config).predict(places, &[viewer], pressure, &mut into);
        into
    }

    fn config() -> SpatialConfig {
        SpatialConfig { reach_m: 15.0, score_least: 0.0, ..SpatialConfig::default() }
    }

    fn ids(candidates: &[Candidate]) -> Vec<u64> {
        let mut ids: Vec<u64> = candidates.iter().map(|candidate| candidate.id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_lies_on_the_way_is_predicted_the_sooner_the_higher() {
        let places = row(100);
        let viewer = ViewerState { velocity: Some([20.0, 0.0, 0.0]), ..ViewerState::at([200.0, 0.0, 0.0]) };
        let ahead = predict(config(), &places, viewer, Level::Normal);
        assert_eq!(ids(&ahead), (19..=27).collect::<Vec<_>>(), "three seconds of 20 m, and 15 m around");
        let of = |id: u64| *ahead.iter().find(|candidate| candidate.id.0 == id).unwrap();
        assert!(of(21).score > of(23).score && of(23).score > of(26).score);
        assert!(of(21).time_s < of(24).time_s && of(24).time_s < of(27).time_s);
        assert!(of(27).time_s <= (270.0 - 200.0 - 15.0) / 20.0, "not later than it comes within reach");
        let standing = predict(config(), &places, ViewerState::at([200.0, 0.0, 0.0]), Level::Normal);
        assert_eq!(ids(&standing), [19, 20, 21]);
    }

    #[test]
    fn an_acceleration_is_followed_for_a_second() {
        let places = row(100);
        let viewer = ViewerState { acceleration: [10.0, 0.0, 0.0], ..ViewerState::at([0.0; 3]) };
        let far = ids(&predict(config(), &places, viewer, Level::Normal));
        assert_eq!(far.last(), Some(&4), "25 m in three seconds, and 15 m around");
    }

    #[test]
    fn what_is_in_view_comes_before_what_is_behind() {
        let places = row(3);
        let viewer = ViewerState { direction: [3.0, 0.0, 0.0], ..ViewerState::at([10.0, 0.0, 0.0]) };
        let seen = predict(config(), &places, viewer, Level::Normal);
        assert_eq!(seen.iter().map(|candidate| candidate.id.0).collect::<Vec<_>>(), [1, 2, 0]);
        assert!((seen[1].score - 4.0 * seen[2].score).abs() < 1e-5);
    }

    #[test]
    fn under_pressure_the_level_of_detail_asked_for_goes_down() {
        let place = Place::at([30.0, 0.0, 0.0]).level(40.0, "middle").level(80.0, "coarse");
        let places = Places::new([(AssetId::of_path("fine"), place)]);
        let asked = |pressure| {
            let config = SpatialConfig { coarser: 2.0, ..SpatialConfig::default() };
            predict(config, &places, ViewerState::at([0.0; 3]), pressure)[0].id
        };
        assert_eq!(asked(Level::Normal), AssetId::of_path("fine"));
        assert_eq!(asked(Level::Elevated), AssetId::of_path("middle"));
        assert_eq!(asked(Level::Critical), AssetId::of_path("coarse"));
    }

    #[test]
    fn who_comes_nearer_is_offered_the_levels_on_the_way() {
        let place = Place::at([100.0, 0.0, 0.0]).level(20.0, "middle").level(60.0, "coarse");
        let places = Places::new([(AssetId::of_path("fine"), place)]);
        let viewer = ViewerState { velocity: Some([40.0, 0.0, 0.0]), ..ViewerState::at([0.0; 3]) };
        let config = SpatialConfig { score_least: 0.0, ..SpatialConfig::default() };
        let levels = predict(config, &places, viewer, Level::Normal);
        let time = |id: &str| {
            let id = AssetId::of_path(id);
            levels.iter().find(|candidate| candidate.id == id).unwrap().time_s
        };
        assert!(time("coarse") < time("middle") && time("middle") < time("fine"));
    }

    #[test]
    fn what_scores_too_little_matters_little_or_is_too_many_is_left_out() {
        let places = row(100);
        let viewer = ViewerState::at([500.0, 0.0, 0.0]);
        let few = SpatialConfig { candidates_max: 4, ..SpatialConfig::default() };
        assert_eq!(predict(few, &places, viewer, Level::Normal).len(), 4);
        let near = SpatialConfig { score_least: 0.9, ..SpatialConfig::default() };
        assert_eq!(ids(&predict(near, &places, viewer, Level::Normal)), [49, 50, 51]);
        let off = SpatialConfig { enabled: false, ..SpatialConfig::default() };
        assert!(predict(off, &places, viewer, Level::Normal).is_empty());
        let unimportant = Places::new([(AssetId(1), Place::at([500.0, 0.0, 0.0]).importance(0.05))]);
        assert!(predict(SpatialConfig::default(), &unimportant, viewer, Level::Normal).is_empty());
    }

    struct Shown {
        places: Places,
        viewers: Vec<ViewerState>,
    }

    impl World for Shown {
        fn look(&self, look: &mut dyn FnMut(&Places, &[ViewerState], Level)) {
            look(&self.places, &self.viewers, Level::Normal);
        }
    }

    /// Of these assets the even ones are in memory.
    struct HalfThere;

    impl super::super::World for HalfThere {
        fn rank(&self, _: AssetId) -> Option<u64> {
            None
        }
        fn at(&self, _: u64) -> Option<AssetId> {
            None
        }
        fn dependencies(&self, _: AssetId, _: &mut Vec<AssetId>) {}
        fn bytes(&self, _: AssetId) -> Option<u64> {
            None
        }
        fn is_resident(&self, id: AssetId) -> bool {
            id.0.is_multiple_of(2)
        }
    }

    #[test]
    fn as_an_expert_it_guesses_what_is_not_there_and_when_the_viewer_is_nearest() {
        let viewer = ViewerState { velocity: Some([10.0, 0.0, 0.0]), ..ViewerState::at([0.0; 3]) };
        let shown = Shown { places: row(100), viewers: vec![viewer] };
        let mut expert = SpatialExpert::new(config(), Box::new(shown));
        let mut into = Vec::new();
        expert.passed(Duration::ZERO, &HalfThere, 1, &mut into);
        into.sort_by_key(|guess: &Guess| guess.id);
        assert_eq!(into.iter().map(|guess| guess.id.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            into.iter().map(|guess| guess.due).collect::<Vec<_>>(),
            [1, 3].map(|s| Due::Time(Duration::from_secs(s)))
        );
        assert!(into[0].confidence > into[1].confidence);
        let far = SpatialConfig { reach_m: 500.0, ..config() };
        let shown = Shown { places: row(1000), viewers: vec![viewer] };
        into.clear();
        SpatialExpert::new(far, Box::new(shown)).passed(Duration::ZERO, &HalfThere, 1, &mut into);
        assert!(into.len() <= GUESSES_PER_DISTANCE);
    }

    proptest! {
        #[test]
        fn every_place_within_reach_of_the_way_is_predicted_and_no_other(
            all in prop::collection::vec((prop::array::uniform3(-200f32..200.0), 0f32..10.0), 1..120),
            from in prop::array::uniform3(-100f32..100.0),
            velocity in prop::array::uniform3(-50f32..50.0),
            seconds in 0u64..10,
        ) {
            let place = |(i, (at, radius)): (usize, &([f32; 3], f32))| {
                (AssetId(i as u64), Place::at(*at).radius_m(*radius))
            };
            let places = Places::new(all.iter().enumerate().map(place));
            let horizon = Duration::from_secs(seconds);
            let config = SpatialConfig { horizon, candidates_max: 4096, ..config() };
            let viewer = ViewerState { velocity: Some(velocity), ..ViewerState::at(from) };
            let predicted = predict(config, &places, viewer, Level::Normal);
            prop_assert!(predicted.iter().all(|candidate| (0.0..=1.0).contains(&candidate.score)));
            let to = position(&viewer, seconds as f32);
            for (i, (at, radius)) in all.iter().enumerate() {
                let gap = length(sub(nearest(from, to, *at), *at)) - radius - 15.0;
                let is_there = predicted.iter().any(|candidate| candidate.id.0 == i as u64);
                // At the edge the pieces may round to the other side.
                prop_assert!(gap.abs() < 1e-2 || is_there == (gap < 0.0), "{} is {} from reach", i, gap);
            }
        }
    }
}
