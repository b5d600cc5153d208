//! How urgent one request is within its lane, from what the caller knows about it.

use std::time::Duration;

use crate::config::Weights;

/// What is known about a request. What is not known counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hints {
    /// How far the viewer is, in metres.
    pub distance_m: Option<f32>,
    /// The dot product of the direction of view and the direction to it, both of length 1; behind counts as 0.
    pub view: Option<f32>,
    /// Its size, in bytes.
    pub size_bytes: Option<u64>,
    /// How long it waits already.
    pub waited: Duration,
    /// How coarse the level of detail asked for is, from 0 (finest) to 1 (coarsest): coarse ones come first, since
    /// they show something soonest.
    pub coarseness: Option<f32>,
}

/// After this long the time waited counts in full.
pub(super) const WAITED_FULL: Duration = Duration::from_secs(5);

/// The weighted sum of the hints: higher is sooner. Finite for finite weights.
pub fn score(hints: &Hints, weights: &Weights) -> f32 {
    let fraction = |value: f32| if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    let near = hints.distance_m.map_or(0.0, |distance| fraction(1.0 / (distance.max(0.0) + 1.0)));
    let size = hints.size_bytes.map_or(0.0, |bytes| 1.0 / (bytes as f32 / 1e6 + 1.0));
    let waited = fraction(hints.waited.as_secs_f32() / WAITED_FULL.as_secs_f32());
    weights.distance * near
        + weights.view * fraction(hints.view.unwrap_or(0.0))
        + weights.size * size
        + weights.waited * waited
        + weights.coarseness * fraction(hints.coarseness.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_seen_small_waiting_and_coarse_each_raise_the_score() {
        let weights = Weights::default();
        let base = Hints {
            distance_m: Some(20.0),
            view: Some(0.1),
            size_bytes: Some(4_000_000),
            waited: Duration::from_secs(1),
            coarseness: Some(0.2),
        };
        let before = score(&base, &weights);
        let check = |change: fn(&mut Hints)| {
            let mut hints = base;
            change(&mut hints);
            assert!(score(&hints, &weights) > before, "{hints:?}");
        };
        check(|hints| hints.distance_m = Some(10.0));
        check(|hints| hints.view = Some(0.9));
        check(|hints| hints.size_bytes = Some(1_000));
        check(|hints| hints.waited = Duration::from_secs(5));
        check(|hints| hints.coarseness = Some(1.0));
    }

    #[test]
    fn hints_out_of_range_stay_finite() {
        let hints = Hints {
            distance_m: Some(f32::NAN),
            view: Some(-3.0),
            size_bytes: Some(u64::MAX),
            waited: Duration::MAX,
            coarseness: Some(f32::INFINITY),
        };
        assert!(score(&hints, &Weights::default()).is_finite());
        let alone = Hints { distance_m: Some(-5.0), ..Hints::default() };
        assert_eq!(score(&alone, &Weights::default()), 1.0);
        let aged = Hints { waited: Duration::from_secs(60), ..Hints::default() };
        assert_eq!(score(&aged, &Weights::default()), 0.5);
    }
}
