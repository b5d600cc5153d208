//! Where assets are, indexed: what is near a path, how far an asset is, and in which level of detail it is wanted.

use std::collections::HashMap;
use std::ops::Range;

use rstar::{AABB, PointDistance, RTree, RTreeObject};

use super::schedule::Eye;
use crate::config::{Level, METRES_MAX, Place};
use crate::error::{Error, Result};
use crate::ids::{AssetId, Hashing};

/// Places of one asset that are looked at one by one; more are found through a tree of their own.
const FEW: usize = 16;

/// Who looks at the places: where it is and how it moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewerState {
    /// Where it is, in metres.
    pub position: [f32; 3],
    /// How it moves, in metres per second; `None` has it worked out from positions. Default `None`.
    pub velocity: Option<[f32; 3]>,
    /// How that changes, in metres per second squared; it is followed for a second. Default none.
    pub acceleration: [f32; 3],
    /// Whereto it looks, of any length; all zero where that does not matter. Default all zero.
    pub direction: [f32; 3],
    /// Half of the angle that it sees, in radians, up to π. Default π / 4.
    pub half_angle: f32,
}

impl Default for ViewerState {
    fn default() -> Self {
        let none = [0.0; 3];
        let half_angle = std::f32::consts::FRAC_PI_4;
        Self { position: none, velocity: None, acceleration: none, direction: none, half_angle }
    }
}

impl ViewerState {
    /// Someone who stands at this position and looks nowhere in particular.
    pub fn at(position: [f32; 3]) -> Self {
        Self { position, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used: `viewer.position`.
    pub fn validate(&self) -> Result<()> {
        let vectors = [
            ("position", self.position),
            ("velocity", self.velocity.unwrap_or_default()),
            ("acceleration", self.acceleration),
            ("direction", self.direction),
        ];
        for (field, vector) in vectors {
            if vector.iter().any(|part| part.is_nan() || part.abs() > METRES_MAX) {
                let why = format!("{vector:?} is not three numbers within {METRES_MAX} of 0");
                return Err(Error::config(format!("viewer.{field}"), why));
            }
        }
        if !(0.0..=std::f32::consts::PI).contains(&self.half_angle) {
            return Err(Error::config("viewer.half_angle", format!("{} is not within 0 to π", self.half_angle)));
        }
        Ok(())
    }

    /// Its eye, with a direction of length 1.
    pub fn eye(&self) -> Eye {
        let length = length(self.direction);
        let direction = if length > 0.0 { self.direction.map(|part| part / length) } else { [0.0; 3] };
        Eye { position: self.position, direction }
    }
}

/// An asset in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The asset, at its finest.
    pub asset: AssetId,
    /// Its centre.
    pub at: [f32; 3],
    /// How far it reaches around that.
    pub radius_m: f32,
    /// How much it matters, from 0 to 1.
    pub importance: f32,
    levels: Range<u32>,
}

impl Placed {
    /// How far its surface is from there; 0 within it.
    pub fn distance(&self, from: [f32; 3]) -> f32 {
        (length(sub(self.at, from)) - self.radius_m).max(0.0)
    }
}

/// One of an asset's places, from the point of view of whoever is nearest to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// Its centre.
    pub at: [f32; 3],
    /// How far it reaches around that.
    pub radius_m: f32,
    /// How coarse the level is that the asset stands for there, from 0 to 1.
    pub coarseness: f32,
    /// How far it is from the nearest eye; infinite where there is none.
    pub distance_m: f32,
    /// Whether the asset has no other place: then another eye sees it there as well.
    pub is_only: bool,
}

/// The places of a tree's assets. Built once, then only looked at.
#[derive(Debug, Default)]
pub struct Places {
    tree: RTree<Spot>,
    placed: Vec<Placed>,
    levels: Vec<Level>,
    /// The places that an asset is shown at, itself or as a level of another.
    of: HashMap<AssetId, PlacesOf, Hashing>,
}

#[derive(Debug)]
enum PlacesOf {
    Few(Vec<Spot>),
    Many(RTree<Spot>),
}

/// A place in a tree.
#[derive(Clone, Copy, Debug)]
struct Spot {
    at: [f32; 3],
    radius: f32,
    place: u32,
}

impl RTreeObject for Spot {
    type Envelope = AABB<[f32; 3]>;

    fn envelope(&self) -> Self::Envelope {
        around(self.at, self.at, self.radius)
    }
}

impl PointDistance for Spot {
    fn distance_2(&self, point: &[f32; 3]) -> f32 {
        let distance = (length(sub(self.at, *point)) - self.radius).max(0.0);
        distance * distance
    }
}

impl Places {
    /// The index of these places. Those that cannot be used are left out.
    pub fn new(all: impl IntoIterator<Item = (AssetId, Place)>) -> Self {
        let mut places = Self::default();
        let mut of: HashMap<AssetId, Vec<Spot>, Hashing> = HashMap::default();
        let mut spots = Vec::new();
        for (asset, place) in all.into_iter().filter(|(_, place)| place.fault().is_none()) {
            let spot = Spot { at: place.at, radius: place.radius_m, place: places.placed.len() as u32 };
            let first = places.levels.len() as u32;
            let mut add = |id: AssetId| {
                let spots = of.entry(id).or_default();
                // A level may be the same asset as another one.
                if spots.last().is_none_or(|last| last.place != spot.place) {
                    spots.push(spot);
                }
            };
            add(asset);
            place.levels.iter().for_each(|level| add(level.asset));
            places.levels.extend(place.levels);
            let Place { at, radius_m, importance, .. } = Place { levels: Vec::new(), ..place };
            let levels = first..places.levels.len() as u32;
            places.placed.push(Placed { asset, at, radius_m, importance, levels });
            spots.push(spot);
        }
        places.tree = RTree::bulk_load(spots);
        let many = |spots: Vec<Spot>| {
            if spots.len() > FEW { PlacesOf::Many(RTree::bulk_load(spots)) } else { PlacesOf::Few(spots) }
        };
        places.of = of.into_iter().map(|(id, spots)| (id, many(spots))).collect();
        places
    }

    /// Places there are.
    pub fn len(&self) -> usize {
        self.placed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    /// Where the asset is, as seen from the nearest of the eyes; without an eye, its first place. `None` for one that has
    /// no place.
    pub fn sighting(&self, id: AssetId, eyes: &[Eye]) -> Option<Sighting> {
        let of = self.of.get(&id)?;
        let nearest = eyes.iter().filter_map(|eye| of.nearest(eye.position)).min_by(|a, b| a.0.total_cmp(&b.0));
        let (distance_m, spot) = nearest.or_else(|| Some((f32::INFINITY, of.first()?)))?;
        let placed = self.placed.get(spot.place as usize)?;
        let coarseness = self.coarseness(placed, id);
        let is_only = matches!(of, PlacesOf::Few(spots) if spots.len() == 1);
        Some(Sighting { at: placed.at, radius_m: placed.radius_m, coarseness, distance_m, is_only })
    }

    /// How far the asset is from the nearest of the eyes; `None` for one that has no place, and without eyes.
    pub fn distance(&self, id: AssetId, eyes: &[Eye]) -> Option<f32> {
        let of = self.of.get(&id)?;
        eyes.iter().filter_map(|eye| of.nearest(eye.position)).map(|(distance, _)| distance).reduce(f32::min)
    }

    /// What is shown at a place from this far away, and how coarse that is, from 0 to 1. Distances of levels count
    /// divided by `nearer`, at least 1: more of it asks for coarser levels.
    pub fn level_at(&self, placed: &Placed, distance_m: f32, nearer: f32) -> (AssetId, f32) {
        let levels = self.levels_of(placed);
        let passed = self.passed(placed, distance_m, nearer);
        match passed.checked_sub(1).and_then(|at| levels.get(at)) {
            Some(level) => (level.asset, passed as f32 / levels.len() as f32),
            None => (placed.asset, 0.0),
        }
    }

    /// Appends the places whose bounds meet those of the way from `from` to `to` and `reach` around it, `most` at most.
    pub fn along(&self, from: [f32; 3], to: [f32; 3], reach: f32, most: usize, into: &mut Vec<u32>) {
        let bounds = around(from, to, reach);
        into.extend(self.tree.locate_in_envelope_intersecting(bounds).take(most).map(|spot| spot.place));
    }

    /// A place by its number from [`Places::along`].
    pub fn get(&self, place: u32) -> Option<&Placed> {
        self.placed.get(place as usize)
    }

    /// The level in which the asset is to be shown at the nearest of its places: 0 for itself, also without eyes and for
    /// what has no place.
    pub fn level_of(&self, id: AssetId, eyes: &[Eye], nearer: f32) -> usize {
        let Some(of) = self.of.get(&id) else { return 0 };
        let nearest = eyes.iter().filter_map(|eye| of.nearest(eye.position)).min_by(|a, b| a.0.total_cmp(&b.0));
        let placed = nearest.and_then(|(distance, spot)| Some((distance, self.get(spot.place)?)));
        placed
            .filter(|(_, placed)| placed.asset == id)
            .map_or(0, |(distance, placed)| self.passed(placed, distance, nearer))
    }

    /// Levels whose distance is reached.
    fn passed(&self, placed: &Placed, distance_m: f32, nearer: f32) -> usize {
        self.levels_of(placed).iter().take_while(|level| distance_m >= level.distance_m / nearer).count()
    }

    fn levels_of(&self, placed: &Placed) -> &[Level] {
        self.levels.get(placed.levels.start as usize..placed.levels.end as usize).unwrap_or_default()
    }

    fn coarseness(&self, placed: &Placed, id: AssetId) -> f32 {
        if placed.asset == id {
            return 0.0;
        }
        let levels = self.levels_of(placed);
        let at = levels.iter().position(|level| level.asset == id).map_or(0, |at| at + 1);
        at as f32 / levels.len().max(1) as f32
    }
}

impl PlacesOf {
    fn nearest(&self, from: [f32; 3]) -> Option<(f32, Spot)> {
        let with = |spot: &Spot| (spot.distance_2(&from).sqrt(), *spot);
        match self {
            Self::Few(spots) => spots.iter().map(with).min_by(|a, b| a.0.total_cmp(&b.0)),
            Self::Many(tree) => tree.nearest_neighbor(from).map(with),
        }
    }

    fn first(&self) -> Option<Spot> {
        match self {
            Self::Few(spots) => spots.first().copied(),
            Self::Many(tree) => tree.iter().min_by_key(|spot| spot.place).copied(),
        }
    }
}

/// The bounds of the way from `from` to `to` and `reach` around it.
fn around(from: [f32; 3], to: [f32; 3], reach: f32) -> AABB<[f32; 3]> {
    let lower = std::array::from_fn(|axis| from[axis].min(to[axis]) - reach);
    let upper = std::array::from_fn(|axis| from[axis].max(to[axis]) + reach);
    AABB::from_corners(lower, upper)
}

pub(super) fn sub(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn length(a: [f32; 3]) -> f32 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn eye(position: [f32; 3]) -> Eye {
        Eye { position, direction: [0.0; 3] }
    }

    #[test]
    fn an_asset_is_as_far_as_its_nearest_place_is_from_the_nearest_eye() {
        let at = |x: f32| Place::at([x, 0.0, 0.0]).radius_m(1.0).level(50.0, "far");
        let many = (0..100).map(|i| (AssetId::of_path("tree"), at(1000.0 + i as f32)));
        let places = Places::new([(AssetId::of_path("one"), at(10.0))].into_iter().chain(many));
        let from = |id: &str, eyes: &[f32]| {
            let eyes: Vec<Eye> = eyes.iter().map(|x| eye([*x, 0.0, 0.0])).collect();
            places.distance(AssetId::of_path(id), &eyes)
        };
        assert_eq!(from("one", &[0.0]), Some(9.0));
        assert_eq!(from("one", &[0.0, 10.5]), Some(0.0), "within it");
        assert_eq!(from("tree", &[1050.0, 0.0]), Some(0.0));
        assert_eq!(from("tree", &[0.0]), Some(999.0));
        assert_eq!(from("far", &[0.0]), Some(9.0), "a level is where its asset is");
        assert_eq!((from("one", &[]), from("none", &[0.0])), (None, None));
        let sighting = places.sighting(AssetId::of_path("far"), &[eye([0.0; 3])]).unwrap();
        assert_eq!((sighting.coarseness, sighting.distance_m, sighting.at[0]), (1.0, 9.0, 10.0));
        assert_eq!(places.sighting(AssetId::of_path("tree"), &[]).unwrap().distance_m, f32::INFINITY);
    }

    #[test]
    fn levels_go_by_distance_and_come_nearer_under_pressure() {
        let place = Place::at([0.0; 3]).level(10.0, "middle").level(40.0, "far");
        let places = Places::new([(AssetId::of_path("near"), place)]);
        let level = |distance: f32, nearer: f32| places.level_at(places.get(0).unwrap(), distance, nearer);
        let [near, middle, far] = ["near", "middle", "far"].map(AssetId::of_path);
        assert_eq!([9.9, 10.0, 39.0, 40.0, 1e6].map(|at| level(at, 1.0).0), [near, middle, middle, far, far]);
        let wanted = |x: f32, nearer: f32| places.level_of(near, &[eye([x, 0.0, 0.0])], nearer);
        assert_eq!([wanted(9.0, 1.0), wanted(9.0, 2.0), wanted(50.0, 1.0)], [0, 1, 2]);
        assert_eq!((places.level_of(near, &[], 1.0), places.level_of(middle, &[eye([50.0; 3])], 1.0)), (0, 0));
        assert_eq!([4.9, 5.0, 20.0].map(|at| level(at, 2.0)), [(near, 0.0), (middle, 0.5), (far, 1.0)]);
    }

    #[test]
    fn a_place_that_cannot_be_used_is_left_out() {
        let all = [Place::at([f32::NAN; 3]), Place::at([1.0; 3])];
        let places = Places::new(all.map(|place| (AssetId(1), place)));
        assert_eq!((places.len(), Places::default().is_empty()), (1, true));
    }

    #[test]
    fn what_is_no_viewer_is_refused_by_name() {
        ViewerState::at([1.0, 2.0, 3.0]).validate().unwrap();
        let check = |field: &str, change: fn(&mut ViewerState)| {
            let mut viewer = ViewerState::default();
            change(&mut viewer);
            let error = viewer.validate().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check("viewer.position", |viewer| viewer.position[1] = f32::NAN);
        check("viewer.velocity", |viewer| viewer.velocity = Some([0.0, f32::INFINITY, 0.0]));
        check("viewer.acceleration", |viewer| viewer.acceleration[0] = f32::NAN);
        check("viewer.direction", |viewer| viewer.direction[2] = 1e30);
        check("viewer.half_angle", |viewer| viewer.half_angle = 4.0);
    }

    proptest! {
        #[test]
        fn a_way_meets_what_a_look_at_every_place_finds(
            all in prop::collection::vec((prop::array::uniform3(-100f32..100.0), 0f32..10.0), 0..200),
            from in prop::array::uniform3(-100f32..100.0),
            to in prop::array::uniform3(-100f32..100.0),
        ) {
            let place = |(i, (at, radius)): (usize, &([f32; 3], f32))| {
                (AssetId(i as u64), Place::at(*at).radius_m(*radius))
            };
            let places = Places::new(all.iter().enumerate().map(place));
            let mut found = Vec::new();
            places.along(from, to, 20.0, usize::MAX, &mut found);
            found.sort_unstable();
            let meets = |(at, radius): &([f32; 3], f32)| {
                (0..3).all(|axis| {
                    let (low, high) = (from[axis].min(to[axis]) - 20.0, from[axis].max(to[axis]) + 20.0);
                    at[axis] + radius >= low && at[axis] - radius <= high
                })
            };
            let expected: Vec<u32> = (0..all.len()).filter(|i| meets(&all[*i])).map(|i| i as u32).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
