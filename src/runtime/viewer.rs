//! Viewers: who tells the runtime where it is each frame, so that what is near comes first and what lies ahead is there
//! in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Runtime;
use crate::actors::Shared;
use crate::config::{PLACES_MAX, Place};
use crate::error::{Error, Result};
use crate::ids::AssetId;
use crate::residency::surroundings::ViewerCell;

pub use crate::policy::places::ViewerState;

/// Updates closer together than this are one step to whoever works out a velocity.
const STEP_MIN: Duration = Duration::from_millis(1);
/// A step longer than this says nothing about the velocity: the program stood still.
const STEP_MAX: Duration = Duration::from_secs(1);
/// A velocity that is worked out takes on this much of each step's.
const SMOOTHING: f32 = 0.5;
/// Faster by this much than so far, in metres per second, and many times so: it has not moved there but jumped.
const JUMP: f32 = 100.0;
/// How many times faster.
const JUMP_TIMES: f32 = 10.0;

/// Somebody who moves through the places of assets. While it lives, requests that name no priority are ordered by the
/// distance from it, and what it comes near to is asked for ahead. It is gone when it is dropped.
///
/// ```no_run
/// # fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
/// use flyloft::{Place, ViewerState};
/// runtime.set_places([("models/tower.glb", Place::at([120.0, 0.0, 40.0]).radius_m(8.0))])?;
/// let mut camera = runtime.viewer();
/// for frame in 0..600 {
///     let position = [frame as f32 * 0.2, 2.0, 40.0];
///     camera.update(ViewerState { direction: [1.0, 0.0, 0.0], ..ViewerState::at(position) })?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Viewer {
    shared: Arc<Shared>,
    cell: Arc<ViewerCell>,
    /// When and where it was, for a velocity that is to be worked out.
    before: Option<(Instant, [f32; 3])>,
    velocity: [f32; 3],
}

impl Viewer {
    /// Says where it is now: once a frame. The latest word counts. It takes no lock, allocates nothing and waits for nobody;
    /// at most once in a few milliseconds it wakes whoever has to look. A velocity that is not given is worked out from
    /// the positions and the times between; the first word, and one that jumps, has none.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the field that cannot be used: `viewer.position`. What was said before counts
    /// on.
    pub fn update(&mut self, state: ViewerState) -> Result<()> {
        state.validate()?;
        let velocity = match state.velocity {
            Some(velocity) => {
                self.before = None;
                velocity
            }
            None => {
                let now = self.shared.clock.now();
                self.work_out(state.position, now)
            }
        };
        self.cell.write(&ViewerState { velocity: Some(velocity), ..state });
        self.shared.surroundings.moved();
        Ok(())
    }

    fn work_out(&mut self, position: [f32; 3], now: Instant) -> [f32; 3] {
        let Some((then, was)) = self.before else {
            (self.before, self.velocity) = (Some((now, position)), [0.0; 3]);
            return self.velocity;
        };
        let step = now.saturating_duration_since(then);
        if step < STEP_MIN {
            return self.velocity;
        }
        self.before = Some((now, position));
        let seconds = step.as_secs_f32();
        let newest: [f32; 3] = std::array::from_fn(|axis| (position[axis] - was[axis]) / seconds);
        let speed = |velocity: [f32; 3]| velocity.iter().map(|part| part * part).sum::<f32>().sqrt();
        let jumped = speed(newest) > JUMP + JUMP_TIMES * speed(self.velocity);
        if step > STEP_MAX || jumped {
            self.velocity = [0.0; 3];
        } else if self.velocity == [0.0; 3] {
            self.velocity = newest;
        } else {
            self.velocity =
                std::array::from_fn(|axis| self.velocity[axis] + SMOOTHING * (newest[axis] - self.velocity[axis]));
        }
        self.velocity
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.surroundings.leave(&self.cell);
    }
}

impl Runtime {
    /// A viewer, which is nowhere until its first [`Viewer::update`]. There may be several: of each asset the nearest
    /// counts.
    pub fn viewer(&self) -> Viewer {
        let cell = self.shared().surroundings.enter();
        Viewer { shared: Arc::clone(self.shared()), cell, before: None, velocity: [0.0; 3] }
    }

    /// Says where assets are, instead of what the program said before. For the assets named here it counts instead of what
    /// the tree says of them in flyloft.toml; an asset may be named with several places. Ids that no asset has are as
    /// good as not named.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the field of the first place that cannot be used, and `places` when there are
    /// more than [`PLACES_MAX`]. Then nothing changes.
    pub fn set_places<A: Into<AssetId>>(&self, places: impl IntoIterator<Item = (A, Place)>) -> Result<()> {
        let mut all = Vec::new();
        for (asset, place) in places {
            place.validate()?;
            if all.len() == PLACES_MAX {
                return Err(Error::config("places", format!("there are more than {PLACES_MAX}")));
            }
            all.push((asset.into(), place));
        }
        self.shared().surroundings.set_of_program(all);
        Ok(())
    }

    /// How far the asset is from the nearest viewer, in metres, by the nearest of its places; `None` without a viewer, and
    /// for what has no place.
    pub fn distance(&self, asset: impl Into<AssetId>) -> Option<f32> {
        self.shared().surroundings.distance(asset.into())
    }

    /// The level of detail in which the asset is to be asked for now, by the distance from the nearest viewer and the
    /// pressure on memory, which brings coarser levels nearer: 0 for the asset itself, 1 for the first of its place's
    /// levels. 0 without a viewer, and for what has no place.
    ///
    /// ```no_run
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let levels = ["models/tower.glb", "models/tower-far.glb"];
    /// let tower = runtime.request(levels[runtime.level_of_detail(levels[0])]).send();
    /// # drop(tower);
    /// # }
    /// ```
    pub fn level_of_detail(&self, asset: impl Into<AssetId>) -> usize {
        self.shared().surroundings.level_of_detail(asset.into(), self.shared().nearer())
    }
}
