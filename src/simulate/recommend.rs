//! From curves to a configuration.

use serde::Serialize;

use super::study::{Curve, Point};
use crate::config::{EvictionObjective as Objective, EvictionPolicy};
use crate::limits;

/// How good a point is for this objective, from 0 to 1.
fn of(objective: Objective, point: &Point) -> f64 {
    match objective {
        Objective::Objects => point.hit_ratio,
        Objective::Balanced => 0.5 * (point.hit_ratio + point.byte_hit_ratio),
        Objective::Bytes => point.byte_hit_ratio,
    }
}

/// The smallest budget that does nearly as well as the largest, and the policy that does best with it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The budget.
    pub budget_bytes: u64,
    /// The policy.
    pub policy: EvictionPolicy,
    /// What the adaptive policy made the most of.
    pub objective: Objective,
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
    /// As lines of a flyloft.toml. What a runtime sets aside for reading comes on top of what was replayed, and no budget is
    /// below the smallest that it takes.
    pub fn toml(&self) -> String {
        let Self { policy, objective, .. } = self;
        // An eighth of the whole is a seventh of the rest.
        let reserve = (self.budget_bytes / 7).clamp(limits::IO_RESERVE_BYTES_MIN, limits::IO_RESERVE_BYTES_MAX);
        let budget_bytes = self.budget_bytes.saturating_add(reserve).max(limits::BUDGET_BYTES_MIN);
        let mut text = format!(
            "[runtime]\n# {} to hold assets, the rest to read them.\nbudget_bytes = {budget_bytes}\n\n\
             [runtime.eviction]\npolicy = \"{policy}\"\n",
            budget_bytes - reserve
        );
        if *policy == EvictionPolicy::Adaptive && *objective != Objective::default() {
            text += &format!("objective = \"{objective}\"\n");
        }
        text
    }
}

pub(super) fn recommend(curves: &[Curve], objective: Objective, within_points: f64) -> Recommendation {
    let budgets = curves.first().map_or(0, |curve| curve.points.len());
    let best = |at: usize| {
        let good = |curve: &Curve| of(objective, &curve.points[at]);
        let best = curves.iter().max_by(|one, other| good(one).total_cmp(&good(other)))?;
        let usual = curves.iter().find(|curve| curve.policy == EvictionPolicy::default());
        let chosen = usual.filter(|usual| 100.0 * (good(best) - good(usual)) < WORTH_POINTS).unwrap_or(best);
        Some((chosen.policy, chosen.points[at]))
    };
    let most = budgets.checked_sub(1).and_then(best).map_or(0.0, |(_, point)| of(objective, &point));
    let below = |point: &Point| 100.0 * (most - of(objective, point));
    let chosen = (0..budgets).filter_map(best).find(|(_, point)| below(point) <= within_points);
    let (policy, point) = chosen.unwrap_or_default();
    Recommendation {
        budget_bytes: point.budget_bytes,
        policy,
        objective,
        hit_ratio: point.hit_ratio,
        byte_hit_ratio: point.byte_hit_ratio,
        below_points: below(&point).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuntimeConfig;

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
        let lines = "budget_bytes = 8388608\n\n[runtime.eviction]\npolicy = \"lru\"\n";
        assert!(told.toml().ends_with(lines), "{}", told.toml());
        // What is to hold assets is what is left of it beside the reserve.
        let large = Recommendation { budget_bytes: 70 << 20, policy: EvictionPolicy::Adaptive, ..told };
        let config = RuntimeConfig { budget_bytes: 80 << 20, ..RuntimeConfig::default() };
        assert_eq!(config.resident_bytes_max(), 70 << 20);
        let lines = "budget_bytes = 83886080\n\n[runtime.eviction]\npolicy = \"adaptive\"\nobjective = \"objects\"\n";
        assert!(large.toml().ends_with(lines), "{}", large.toml());
    }
}
