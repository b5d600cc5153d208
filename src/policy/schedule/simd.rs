//! A whole queue scored at once for new positions of the viewers: what [`super::score`] says of each, from arrays.
//!
//! What does not change while a request waits is worked out when it is put in; the rest is a few vector instructions
//! for eight or sixteen requests at a time. `pulp` compiles the loop once per instruction set and chooses at run time.
//! No operation is fused with another, so that every machine gets the same scores.

use super::Hints;
use super::score::WAITED_FULL;
use crate::config::Weights;

/// From where and whereto a viewer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Eye {
    /// Where it is.
    pub position: [f32; 3],
    /// Whereto it looks, of length 1; all zero where that is not known, and then nothing is seen.
    pub direction: [f32; 3],
}

/// What is known of one request, for a [`Batch`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Where its asset is, and how far it reaches around; `None` where that is not known.
    pub at: Option<([f32; 3], f32)>,
    /// Its size, in bytes, if that is known.
    pub size_bytes: Option<u64>,
    /// When it was asked for, in seconds on the clock of `now_s`.
    pub since_s: f32,
    /// How coarse its level of detail is, from 0 (finest) to 1 (coarsest).
    pub coarseness: f32,
}

impl Features {
    /// How far its surface is from an eye, and how much that looks at it. Within it, it is seen.
    pub fn sight(&self, eye: &Eye) -> Option<(f32, f32)> {
        let (at, radius) = self.at?;
        Some(sight(eye, at[0], at[1], at[2], radius))
    }

    /// The same as hints, for the nearest of the eyes and the one that looks at it most.
    pub fn hints(&self, eyes: &[Eye], now_s: f32) -> Hints {
        let sights = || eyes.iter().filter_map(|eye| self.sight(eye));
        Hints {
            distance_m: sights().map(|(distance, _)| distance).reduce(f32::min),
            view: sights().map(|(_, view)| view).reduce(f32::max),
            size_bytes: self.size_bytes,
            waited: std::time::Duration::from_secs_f32((now_s - self.since_s).clamp(0.0, 1e9)),
            coarseness: Some(self.coarseness),
        }
    }
}

/// Requests as arrays, one for each thing that is known. Twenty-eight bytes a request.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    x: Vec<f32>,
    y: Vec<f32>,
    z: Vec<f32>,
    /// Not-a-number where the place is not known.
    radius: Vec<f32>,
    /// `1 / (size in MB + 1)`, 0 where the size is not known.
    smallness: Vec<f32>,
    since_s: Vec<f32>,
    coarseness: Vec<f32>,
}

impl Batch {
    /// Adds a request, in the next place.
    pub fn push(&mut self, features: &Features) {
        let ([x, y, z], radius) = features.at.unwrap_or(([0.0; 3], f32::NAN));
        self.x.push(x);
        self.y.push(y);
        self.z.push(z);
        self.radius.push(radius);
        self.smallness.push(features.size_bytes.map_or(0.0, |bytes| 1.0 / (bytes as f32 / 1e6 + 1.0)));
        self.since_s.push(features.since_s);
        self.coarseness.push(fraction(features.coarseness));
    }

    /// Takes out the request at `place`; the last one takes its place.
    pub fn swap_remove(&mut self, place: usize) {
        let Self { x, y, z, radius, smallness, since_s, coarseness } = self;
        for array in [x, y, z, radius, smallness, since_s, coarseness] {
            array.swap_remove(place);
        }
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }

    /// Takes out all of them, and keeps the memory.
    pub fn clear(&mut self) {
        let Self { x, y, z, radius, smallness, since_s, coarseness } = self;
        for array in [x, y, z, radius, smallness, since_s, coarseness] {
            array.clear();
        }
    }
}

/// What a batch scored.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// The score of each request: higher is sooner.
    pub scores: Vec<f32>,
    /// How far each is from the nearest eye; infinite where its place is not known or there is no eye.
    pub distances: Vec<f32>,
}

impl Scored {
    fn resize(&mut self, len: usize) {
        self.scores.resize(len, 0.0);
        self.distances.resize(len, 0.0);
    }
}

/// Scores every request of the batch, with the widest vectors that this machine has. The same as
/// [`super::score`] of [`Features::hints`], but for the last digits.
pub fn score_all(batch: &Batch, eyes: &[Eye], now_s: f32, weights: &Weights, into: &mut Scored) {
    into.resize(batch.len());
    // The choice of instructions is a load of a static; on the first call it asks the processor.
    pulp::Arch::new().dispatch(All { batch, eyes, now_s, weights, into });
}

/// [`score_all`] one request after the other, with the instructions that every processor of this architecture has: for
/// comparison.
pub fn score_all_plain(batch: &Batch, eyes: &[Eye], now_s: f32, weights: &Weights, into: &mut Scored) {
    into.resize(batch.len());
    score_from(0, batch, eyes, now_s, weights, into);
}

/// Scores those from `first` on, one after the other.
fn score_from(first: usize, batch: &Batch, eyes: &[Eye], now_s: f32, weights: &Weights, into: &mut Scored) {
    for i in first..batch.len() {
        let (mut nearest, mut seen) = (f32::INFINITY, 0.0);
        for eye in eyes {
            let (distance, view) = sight(eye, batch.x[i], batch.y[i], batch.z[i], batch.radius[i]);
            // Comparisons with what is not a number are false: what has no place stays as far away as it was.
            nearest = if distance < nearest { distance } else { nearest };
            seen = if view > seen { view } else { seen };
        }
        let waited = fraction((now_s - batch.since_s[i]) * (1.0 / WAITED_FULL.as_secs_f32()));
        into.distances[i] = nearest;
        into.scores[i] = weights.distance * (1.0 / (nearest + 1.0))
            + weights.view * seen
            + weights.size * batch.smallness[i]
            + weights.waited * waited
            + weights.coarseness * batch.coarseness[i];
    }
}

/// [`score_from`] in vectors; what is left over goes one after the other. The operations and their order are the same.
struct All<'b> {
    batch: &'b Batch,
    eyes: &'b [Eye],
    now_s: f32,
    weights: &'b Weights,
    into: &'b mut Scored,
}

impl pulp::WithSimd for All<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { batch, eyes, now_s, weights, into } = self;
        let ((x, _), (y, _), (z, _)) =
            (S::as_simd_f32s(&batch.x), S::as_simd_f32s(&batch.y), S::as_simd_f32s(&batch.z));
        let ((radius, _), (smallness, _)) = (S::as_simd_f32s(&batch.radius), S::as_simd_f32s(&batch.smallness));
        let ((since, _), (coarseness, _)) = (S::as_simd_f32s(&batch.since_s), S::as_simd_f32s(&batch.coarseness));
        let (scores, left_over) = S::as_mut_simd_f32s(&mut into.scores);
        let (distances, _) = S::as_mut_simd_f32s(&mut into.distances);
        let left_over = left_over.len();
        let splat = |value: f32| simd.splat_f32s(value);
        let (zero, one, infinite) = (splat(0.0), splat(1.0), splat(f32::INFINITY));
        let (now, per_wait) = (splat(now_s), splat(1.0 / WAITED_FULL.as_secs_f32()));
        let of_distance = splat(weights.distance);
        let of_view = splat(weights.view);
        let of_size = splat(weights.size);
        let of_waited = splat(weights.waited);
        let of_coarseness = splat(weights.coarseness);
        // A comparison with what is not a number is false, so that zero is chosen.
        let fraction = |value| {
            let least = simd.select_f32s(simd.greater_than_f32s(value, zero), value, zero);
            simd.select_f32s(simd.less_than_f32s(least, one), least, one)
        };
        // One length for all, so that the loop checks it once.
        let len = scores.len();
        let (x, y, z, radius) = (&x[..len], &y[..len], &z[..len], &radius[..len]);
        let (smallness, since, coarseness) = (&smallness[..len], &since[..len], &coarseness[..len]);
        let distances = &mut distances[..len];
        for i in 0..len {
            let (mut nearest, mut seen) = (infinite, zero);
            for eye in eyes {
                let ([ex, ey, ez], [ax, ay, az]) = (eye.position.map(splat), eye.direction.map(splat));
                let (x, y, z) = (simd.sub_f32s(x[i], ex), simd.sub_f32s(y[i], ey), simd.sub_f32s(z[i], ez));
                let dot = |[a, b, c]: [S::f32s; 3], [d, e, f]: [S::f32s; 3]| {
                    simd.add_f32s(simd.add_f32s(simd.mul_f32s(a, d), simd.mul_f32s(b, e)), simd.mul_f32s(c, f))
                };
                let centre = simd.sqrt_f32s(dot([x, y, z], [x, y, z]));
                let along = dot([x, y, z], [ax, ay, az]);
                let distance = simd.sub_f32s(centre, radius[i]);
                let outside = fraction(simd.div_f32s(along, centre));
                let view = simd.select_f32s(simd.greater_than_f32s(distance, zero), outside, one);
                let view = simd.select_f32s(simd.greater_than_or_equal_f32s(radius[i], zero), view, zero);
                let distance = simd.select_f32s(simd.less_than_f32s(distance, zero), zero, distance);
                nearest = simd.select_f32s(simd.less_than_f32s(distance, nearest), distance, nearest);
                seen = simd.select_f32s(simd.greater_than_f32s(view, seen), view, seen);
            }
            let near = simd.div_f32s(one, simd.add_f32s(nearest, one));
            let waited = fraction(simd.mul_f32s(simd.sub_f32s(now, since[i]), per_wait));
            let mut score = simd.mul_f32s(of_distance, near);
            score = simd.add_f32s(score, simd.mul_f32s(of_view, seen));
            score = simd.add_f32s(score, simd.mul_f32s(of_size, smallness[i]));
            score = simd.add_f32s(score, simd.mul_f32s(of_waited, waited));
            score = simd.add_f32s(score, simd.mul_f32s(of_coarseness, coarseness[i]));
            scores[i] = score;
            distances[i] = nearest;
        }
        score_from(batch.len() - left_over, batch, eyes, now_s, weights, into);
    }
}

/// The distance to the surface, at least 0, and the view of it within 0 and 1.
#[inline(always)]
fn sight(eye: &Eye, x: f32, y: f32, z: f32, radius: f32) -> (f32, f32) {
    let (x, y, z) = (x - eye.position[0], y - eye.position[1], z - eye.position[2]);
    let centre = (x * x + y * y + z * z).sqrt();
    let along = x * eye.direction[0] + y * eye.direction[1] + z * eye.direction[2];
    let distance = centre - radius;
    // Not-a-number for a radius that is none, and no view then either.
    let outside = fraction(along / centre);
    let view = if distance > 0.0 { outside } else { 1.0 };
    let view = if radius >= 0.0 { view } else { 0.0 };
    (if distance < 0.0 { 0.0 } else { distance }, view)
}

/// Within 0 and 1; not-a-number is 0.
#[inline(always)]
fn fraction(value: f32) -> f32 {
    let least = if value > 0.0 { value } else { 0.0 };
    if least < 1.0 { least } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::schedule::score;

    fn place() -> impl Strategy<Value = [f32; 3]> {
        prop::array::uniform3(-500.0f32..500.0)
    }

    fn features() -> impl Strategy<Value = Features> {
        let at = prop::option::weighted(0.8, (place(), 0.0f32..20.0));
        let size = prop::option::weighted(0.8, 0u64..100 << 20);
        (at, size, 0.0f32..100.0, 0.0f32..=1.0).prop_map(|(at, size_bytes, since_s, coarseness)| Features {
            at,
            size_bytes,
            since_s,
            coarseness,
        })
    }

    fn eye() -> impl Strategy<Value = Eye> {
        (place(), place()).prop_map(|(position, [x, y, z])| {
            let length = (x * x + y * y + z * z).sqrt().max(1e-3);
            Eye { position, direction: [x / length, y / length, z / length] }
        })
    }

    proptest! {
        #[test]
        fn a_batch_scores_as_one_after_the_other_does(
            all in prop::collection::vec(features(), 0..1200),
            eyes in prop::collection::vec(eye(), 0..4),
        ) {
            let weights = Weights { distance: 2.0, view: 0.75, ..Weights::default() };
            let (mut batch, mut scored, mut plain) = (Batch::default(), Scored::default(), Scored::default());
            all.iter().for_each(|features| batch.push(features));
            score_all(&batch, &eyes, 101.5, &weights, &mut scored);
            score_all_plain(&batch, &eyes, 101.5, &weights, &mut plain);
            for (i, features) in all.iter().enumerate() {
                let hints = features.hints(&eyes, 101.5);
                let one = score(&hints, &weights);
                prop_assert!((scored.scores[i] - one).abs() <= 1e-6 * (1.0 + one), "{features:?}: {} {one}", scored.scores[i]);
                prop_assert_eq!(scored.scores[i], plain.scores[i]);
                prop_assert_eq!(scored.distances[i], hints.distance_m.unwrap_or(f32::INFINITY));
            }
        }
    }

    #[test]
    fn what_is_taken_out_of_a_batch_leaves_the_others_as_they_were() {
        let at = |x: f32| Features { at: Some(([x, 0.0, 0.0], 0.0)), ..Features::default() };
        let mut batch = Batch::default();
        [3.0, 1.0, 2.0].iter().for_each(|x| batch.push(&at(*x)));
        batch.swap_remove(0);
        let mut scored = Scored::default();
        score_all(&batch, &[Eye::default()], 0.0, &Weights::default(), &mut scored);
        assert_eq!(scored.distances, [2.0, 1.0]);
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn who_stands_within_something_sees_it_at_no_distance() {
        let inside = Features { at: Some(([1.0, 0.0, 0.0], 5.0)), ..Features::default() };
        assert_eq!(inside.sight(&Eye::default()), Some((0.0, 1.0)));
        assert_eq!(Features::default().sight(&Eye::default()), None);
        let here = Features { at: Some(([0.0; 3], 0.0)), ..Features::default() };
        assert_eq!(here.sight(&Eye::default()), Some((0.0, 1.0)), "no division by nothing");
    }
}
