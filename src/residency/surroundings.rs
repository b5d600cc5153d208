//! Where assets are and who looks at them: the places of the current generation and of the program, and the viewers.
//!
//! Writers are rare but for the viewers, who move every frame: a viewer writes its own words and tells at most once
//! that something has moved, until somebody has looked. Nothing here is owned by an actor, and nobody waits for a lock
//! to look: places and the list of viewers are swapped whole, and a viewer's words are guarded by a number that tells
//! when they changed while they were read (a seqlock; Boehm, "Can seqlocks get along with programming language memory
//! models?", MSPC 2012).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::Place;
use crate::ids::AssetId;
use crate::policy::eviction::{Seen, View};
use crate::policy::places::{Places, Sighting, ViewerState};
use crate::policy::schedule::Eye;
use crate::residency::table::ResidentTable;

/// Words of a viewer's state.
const WORDS: usize = 14;
/// Looks at a viewer that is just being written, at most: its writer may have been interrupted in the middle.
const LOOKS_MAX: usize = 64;

/// Who wants to know that a viewer moved. Each is told once, until it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looker {
    /// Scores what is queued.
    Schedule = 0,
    /// Asks ahead.
    Prediction = 1,
}

impl Looker {
    const ALL: [Looker; 2] = [Looker::Schedule, Looker::Prediction];
}

/// Called when a viewer moved and the looker has not been told since it last looked. Whether it could be told: one that
/// is down is told at the next move.
pub type OnMoved = Box<dyn Fn(Looker) -> bool + Send + Sync>;

/// The places and the viewers.
#[derive(Default)]
pub struct Surroundings {
    places: ArcSwap<Places>,
    viewers: ArcSwap<Vec<Arc<ViewerCell>>>,
    given: Mutex<Given>,
    told: [AtomicBool; 2],
    on_moved: OnceLock<OnMoved>,
}

/// What the places are made of.
#[derive(Default)]
struct Given {
    /// Of the bundle.
    bundle: Arc<Vec<(AssetId, Place)>>,
    /// Of the program. For the assets that it names they count instead of the bundle's.
    program: Vec<(AssetId, Place)>,
}

impl Surroundings {
    /// Sets what is called when a viewer moved. Once.
    pub fn on_moved(&self, call: OnMoved) {
        drop(self.on_moved.set(call));
    }

    /// The places now.
    pub fn places(&self) -> Arc<Places> {
        self.places.load_full()
    }

    /// Replaces the places that the bundle says.
    pub fn set_of_bundle(&self, places: Vec<(AssetId, Place)>) {
        let mut given = self.given.lock();
        if given.bundle.is_empty() && places.is_empty() {
            return;
        }
        given.bundle = Arc::new(places);
        self.rebuild(&given);
    }

    /// Replaces the places that the program says.
    pub fn set_of_program(&self, places: Vec<(AssetId, Place)>) {
        let mut given = self.given.lock();
        given.program = places;
        self.rebuild(&given);
    }

    fn rebuild(&self, given: &Given) {
        let named: HashSet<AssetId> = given.program.iter().map(|(id, _)| *id).collect();
        let bundle = given.bundle.iter().filter(|(id, _)| !named.contains(id));
        self.places.store(Arc::new(Places::new(bundle.chain(&given.program).cloned())));
        self.moved();
    }

    /// Adds a viewer, which is nowhere until it says where.
    pub fn enter(&self) -> Arc<ViewerCell> {
        let cell = Arc::new(ViewerCell::default());
        self.viewers.rcu(|viewers| {
            let mut viewers = Vec::clone(viewers);
            viewers.push(Arc::clone(&cell));
            viewers
        });
        cell
    }

    /// Takes a viewer out.
    pub fn leave(&self, cell: &Arc<ViewerCell>) {
        self.viewers.rcu(|viewers| {
            let mut viewers = Vec::clone(viewers);
            viewers.retain(|viewer| !Arc::ptr_eq(viewer, cell));
            viewers
        });
        self.moved();
    }

    /// Tells every looker that is not told yet.
    pub fn moved(&self) {
        let Some(call) = self.on_moved.get() else { return };
        for looker in Looker::ALL {
            // The load first: most updates find that it is told, and write nothing.
            let told = &self.told[looker as usize];
            if !told.load(Ordering::Relaxed) && !told.swap(true, Ordering::AcqRel) && !call(looker) {
                self.looks(looker);
            }
        }
    }

    /// The looker is about to look: it is told of what moves from here on.
    pub fn looks(&self, looker: Looker) {
        self.told[looker as usize].swap(false, Ordering::AcqRel);
    }

    /// Whether anybody looks at all.
    pub fn has_viewers(&self) -> bool {
        !self.viewers.load().is_empty()
    }

    /// Where the viewers are and how they move.
    pub fn viewers(&self) -> Vec<ViewerState> {
        self.viewers.load().iter().filter_map(|cell| cell.read()).collect()
    }

    /// From where and whereto the viewers look.
    pub fn eyes(&self) -> Vec<Eye> {
        self.viewers.load().iter().filter_map(|cell| cell.read()).map(|viewer| viewer.eye()).collect()
    }

    /// Where the asset is, as the nearest viewer sees it; `None` without a viewer, and for what has no place.
    pub fn sighting(&self, id: AssetId) -> Option<Sighting> {
        let places = self.places.load();
        if places.is_empty() || !self.has_viewers() {
            return None;
        }
        let eyes = self.eyes();
        places.sighting(id, &eyes).filter(|_| !eyes.is_empty())
    }

    /// How far the asset is from the nearest viewer, in metres; `None` without a viewer, and for what has no place.
    pub fn distance(&self, id: AssetId) -> Option<f32> {
        self.sighting(id).map(|sighting| sighting.distance_m)
    }

    /// The level in which the asset, at the nearest of its places, is to be shown now: 0 for the asset itself. Distances of
    /// levels count divided by `nearer`.
    pub fn level_of_detail(&self, id: AssetId, nearer: f32) -> usize {
        self.places.load().level_of(id, &self.eyes(), nearer)
    }
}

/// What is resident, as an eviction policy sees it that may go by distance: the places and the viewers of the moment at
/// which it was made.
pub struct Viewed<'t> {
    table: &'t ResidentTable,
    places: Arc<Places>,
    eyes: Vec<Eye>,
}

impl<'t> Viewed<'t> {
    /// The table, with the surroundings of now. Without places or viewers a look at it costs what one at the table does.
    pub fn new(table: &'t ResidentTable, surroundings: &Surroundings) -> Self {
        let places = surroundings.places();
        let eyes = if places.is_empty() { Vec::new() } else { surroundings.eyes() };
        Self { table, places, eyes }
    }
}

impl View for Viewed<'_> {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let seen = self.table.look(id)?;
        let distance = if self.eyes.is_empty() { None } else { self.places.distance(id, &self.eyes) };
        Some(Seen { distance, ..seen })
    }

    fn tick(&self) -> u32 {
        self.table.tick()
    }
}

/// What a viewer last said. One writes, whoever wants reads; nobody waits.
#[derive(Default)]
pub struct ViewerCell {
    /// Odd while it is written; 0 before the first time.
    number: AtomicU32,
    words: [AtomicU32; WORDS],
}

impl ViewerCell {
    /// Says where it is. `state` is valid; only one thread at a time may call this, or readers may see parts of both.
    pub fn write(&self, state: &ViewerState) {
        let number = self.number.load(Ordering::Relaxed);
        self.number.store(number.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words(state)) {
            word.store(value, Ordering::Relaxed);
        }
        // Never 0 again: that would say that it was never written.
        let done = match number.wrapping_add(2) {
            0 => 2,
            done => done,
        };
        self.number.store(done, Ordering::Release);
    }

    /// What was said last; `None` before the first time, and when its writer is interrupted in the middle, who will tell
    /// that it moved when it is done.
    pub fn read(&self) -> Option<ViewerState> {
        for _ in 0..LOOKS_MAX {
            let number = self.number.load(Ordering::Acquire);
            if number == 0 {
                return None;
            }
            let words: [u32; WORDS] = std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if number.is_multiple_of(2) && self.number.load(Ordering::Relaxed) == number {
                return Some(state(words));
            }
            std::hint::spin_loop();
        }
        None
    }
}

fn words(state: &ViewerState) -> [u32; WORDS] {
    let [px, py, pz] = state.position;
    let [vx, vy, vz] = state.velocity.unwrap_or_default();
    let [ax, ay, az] = state.acceleration;
    let [dx, dy, dz] = state.direction;
    let knows_velocity = u32::from(state.velocity.is_some());
    let [px, py, pz, vx, vy, vz, ax, ay, az, dx, dy, dz, half] =
        [px, py, pz, vx, vy, vz, ax, ay, az, dx, dy, dz, state.half_angle].map(f32::to_bits);
    [px, py, pz, vx, vy, vz, ax, ay, az, dx, dy, dz, half, knows_velocity]
}

fn state(words: [u32; WORDS]) -> ViewerState {
    let vector = |at: usize| std::array::from_fn(|axis| f32::from_bits(words[at + axis]));
    ViewerState {
        position: vector(0),
        velocity: (words[13] != 0).then(|| vector(3)),
        acceleration: vector(6),
        direction: vector(9),
        half_angle: f32::from_bits(words[12]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::residency::testing::World;

    #[test]
    fn a_looker_is_told_once_until_it_looks() {
        let surroundings = Surroundings::default();
        let told: Arc<[AtomicUsize; 2]> = Arc::default();
        let count = Arc::clone(&told);
        surroundings.on_moved(Box::new(move |looker| {
            count[looker as usize].fetch_add(1, Ordering::Relaxed);
            true
        }));
        let told = || [0, 1].map(|looker: usize| told[looker].load(Ordering::Relaxed));
        surroundings.moved();
        surroundings.moved();
        assert_eq!(told(), [1, 1]);
        surroundings.looks(Looker::Schedule);
        surroundings.moved();
        assert_eq!(told(), [2, 1]);
    }

    #[test]
    fn a_viewer_sees_what_has_a_place_from_its_first_word_until_it_leaves() {
        let surroundings = Surroundings::default();
        let (near, far) = (AssetId::of_path("near"), AssetId::of_path("far"));
        let place = |x: f32| Place::at([x, 0.0, 0.0]);
        surroundings.set_of_bundle(vec![(near, place(500.0)), (far, place(1000.0))]);
        surroundings.set_of_program(vec![(near, place(10.0))]);
        assert_eq!(surroundings.distance(near), None, "nobody looks");
        let cell = surroundings.enter();
        assert_eq!(surroundings.distance(near), None, "it has not said where it is");
        cell.write(&ViewerState::at([4.0, 0.0, 0.0]));
        assert_eq!(surroundings.distance(near), Some(6.0), "the program's word counts");
        assert_eq!(surroundings.distance(far), Some(996.0));
        assert_eq!(surroundings.distance(AssetId::of_path("none")), None);
        let other = surroundings.enter();
        other.write(&ViewerState::at([1000.0, 0.0, 0.0]));
        assert_eq!(surroundings.distance(far), Some(0.0));
        surroundings.set_of_program(Vec::new());
        assert_eq!(surroundings.distance(near), Some(496.0));
        surroundings.leave(&other);
        surroundings.leave(&cell);
        assert_eq!((surroundings.distance(far), surroundings.has_viewers()), (None, false));
    }

    #[test]
    fn a_policy_sees_how_far_what_is_resident_is() {
        let world = World::new();
        world.publish(&[("near", Some(b"bytes"))]);
        let near = AssetId::of_path("near");
        let surroundings = Surroundings::default();
        surroundings.set_of_program(vec![(near, Place::at([10.0, 0.0, 0.0]))]);
        let distance = || Viewed::new(&world.table, &surroundings).look(near).unwrap().distance;
        assert_eq!(distance(), None);
        surroundings.enter().write(&ViewerState::at([4.0, 0.0, 0.0]));
        assert_eq!(distance(), Some(6.0));
        assert_eq!(Viewed::new(&world.table, &surroundings).look(AssetId::of_path("near by")), None);
    }

    #[test]
    fn a_state_comes_back_whole_however_often_it_is_written_meanwhile() {
        let state_of = |number: u32| {
            let number = number as f32;
            let velocity = (number % 2.0 == 0.0).then_some([number; 3]);
            let (acceleration, direction) = ([number; 3], [number; 3]);
            ViewerState { position: [number; 3], velocity, acceleration, direction, half_angle: number }
        };
        let cell = ViewerCell::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..200_000).for_each(|number| cell.write(&state_of(number)));
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if let Some(read) = cell.read() {
                    assert_eq!(read, state_of(read.half_angle as u32));
                }
            }
        });
        assert_eq!(cell.read(), Some(state_of(199_999)));
    }
}
