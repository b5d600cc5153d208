//! From curves to a configuration.

use std::str::FromStr;

use serde::Serialize;

use super::study::{Curve, Point};
use crate::config::EvictionPolicy;
use crate::limits;

/// What counts in a recommendation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Hits.
    Objects,
    /// Hits and bytes alike.
    #[default]
    Balanced,
    /// Bytes of hits.
    Bytes,
}

impl Objective {
    /// How good a point is, from 0 to 1.
    fn of(self, point: &Point) -> f64 {
        match self {
            Objective::Objects => point.hit_ratio,
            Objective::Balanced => 0.5 * (point.hit_ratio + point.byte_hit_ratio),
            Objective::Bytes => point.byte_hit_ratio,
        }
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "objects" => Ok(Objective::Objects),
            "balanced" => Ok(Objective::Balanced),
            "bytes" => Ok(Objective::Bytes),
            _ => Err(format!("'{text}' is no objective; known are objects, balanced, bytes")),
        }
    }
}

/// The smallest budget that does nearly as well as the largest, and the policy that does best with it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The budget.
    pub budget_bytes: u64,
    /// The policy.
    pub policy: EvictionPolicy,
    /// What it hits, from 0 to 1.
    pub hit_ratio: f64,
    /// Bytes that it hits, from 0 to 1.
    pub byte_hit_ratio: f64,
    /// Points below the best of the largest budget by what was aimed at.
    pub below_points: f64,
}

/// A policy other than the default must be this much better, in points: less is within what another day's trace differs.
const WORTH_POINTS: f64 = 0.25;

impl Recommendation {
    /// As lines of a flyloft.toml. A budget below the smallest that a runtime takes is that one there.
    pub fn toml(&self) -> String {
        let Self { policy, .. } = self;
        // A runtime has use for a little even where a small trace has not.
        let budget_bytes = self.budget_bytes.max(limits::BUDGET_BYTES_MIN);
        format!("[runtime]\nbudget_bytes = {budget_bytes}\n\n[runtime.eviction]\npolicy = \"{policy}\"\n")
    }
}

pub(super) fn recommend(curves: &[Curve], objective: Objective, within_points: f64) -> Recommendation {
    let budgets = curves.first().map_or(0, |curve| curve.points.len());
    let best = |at: usize| {
        let of = |curve: &Curve| objective.of(&curve.points[at]);
        let best = curves.iter().max_by(|one, other| of(one).total_cmp(&of(other)))?;
        let usual = curves.iter().find(|curve| curve.policy == EvictionPolicy::default());
        let chosen = usual.filter(|usual| 100.0 * (of(best) - of(usual)) < WORTH_POINTS).unwrap_or(best);
        Some((chosen.policy, chosen.points[at]))
    };
    let most = budgets.checked_sub(1).and_then(best).map_or(0.0, |(_, point)| objective.of(&point));
    let below = |point: &Point| 100.0 * (most - objective.of(point));
    let chosen = (0..budgets).filter_map(best).find(|(_, point)| below(point) <= within_points);
    let (policy, point) = chosen.unwrap_or_default();
    Recommendation {
        budget_bytes: point.budget_bytes,
        policy,
        hit_ratio: point.hit_ratio,
        byte_hit_ratio: point.byte_hit_ratio,
        below_points: below(&point).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(policy: EvictionPolicy, ratios: &[(f64, f64)]) -> Curve {
        let point = |(at, (hit_ratio, byte_hit_ratio)): (usize, &(f64, f64))| Point {
            budget_bytes: 100 << at,
            hit_ratio: *hit_ratio,
            byte_hit_ratio: *byte_hit_ratio,
            ..Point::default()
        };
        Curve { policy, points: ratios.iter().enumerate().map(point).collect() }
    }

    #[test]
    fn the_smallest_budget_that_is_near_enough_is_recommended() {
        let curves = [curve(EvictionPolicy::Lru, &[(0.1, 0.1), (0.49, 0.3), (0.5, 0.32), (0.5, 0.4)])];
        let check = |objective: Objective, within: f64, budget: u64| {
            assert_eq!(recommend(&curves, objective, within).budget_bytes, budget, "{objective:?} within {within}");
        };
        check(Objective::Objects, 1.5, 200);
        check(Objective::Objects, 0.5, 400);
        check(Objective::Bytes, 1.0, 800);
        check(Objective::Balanced, 100.0, 100);
        let told = recommend(&curves, Objective::Objects, 1.5);
        assert!((told.below_points - 1.0).abs() < 1e-9);
        assert_eq!(told.toml(), "[runtime]\nbudget_bytes = 8388608\n\n[runtime.eviction]\npolicy = \"lru\"\n");
    }
}
