//! What assets weigh and what loading them costs, as a measure for the next one.

/// How far a cost may be from what is usual for the weight before it counts no further.
const COST_RATIO_MAX: f32 = 16.0;

/// What loading usually costs, by weight.
#[derive(Debug)]
pub(super) struct Costs {
    /// The mean weight of what was asked for of late.
    pub mean_weight: f32,
    /// For each power of two of the weight: the logarithm of the cost, of late, and how many it is the mean of.
    usual: [(f32, u32); 33],
}

impl Default for Costs {
    fn default() -> Self {
        Self { mean_weight: 0.0, usual: [(0.0, 0); 33] }
    }
}

impl Costs {
    /// So many requests were for assets of this weight.
    pub fn asked(&mut self, weight: u32, times: u16) {
        let part = if self.mean_weight == 0.0 { 1.0 } else { (0.001 * f32::from(times)).min(0.1) };
        self.mean_weight += part * (weight as f32 - self.mean_weight);
    }

    pub fn loaded(&mut self, weight: u32, cost_us: f32) {
        self.asked(weight, 1);
        if cost_us > 0.0 && cost_us.is_finite() {
            let (mean, count) = &mut self.usual[power(weight)];
            *count = count.saturating_add(1).min(1000);
            *mean += (cost_us.ln() - *mean) / *count as f32;
        }
    }

    /// What loading costs beside what it usually costs at this weight.
    pub fn ratio(&self, weight: u32, cost_us: f32) -> f32 {
        let (mean, count) = self.usual[power(weight)];
        if count == 0 || cost_us <= 0.0 || !cost_us.is_finite() {
            return 1.0;
        }
        (cost_us.ln() - mean).exp().clamp(1.0 / COST_RATIO_MAX, COST_RATIO_MAX)
    }
}

fn power(weight: u32) -> usize {
    (u32::BITS - weight.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_counts_beside_what_is_usual_for_the_weight() {
        let mut costs = Costs::default();
        assert_eq!(costs.ratio(1000, 5.0), 1.0, "nothing is usual yet");
        for _ in 0..100 {
            costs.loaded(1000, 10.0);
            costs.loaded(1_000_000, 1000.0);
        }
        assert!((costs.ratio(1000, 10.0) - 1.0).abs() < 0.01);
        assert!((costs.ratio(1000, 40.0) - 4.0).abs() < 0.01);
        assert!((costs.ratio(1_000_000, 1000.0) - 1.0).abs() < 0.01);
        assert_eq!(costs.ratio(1000, 1e9), COST_RATIO_MAX);
        for none in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            costs.loaded(1000, none);
            assert_eq!(costs.ratio(1000, none), 1.0);
        }
        assert!((costs.ratio(1000, 10.0) - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_mean_weight_is_that_of_the_requests() {
        let mut costs = Costs::default();
        for _ in 0..20_000 {
            costs.loaded(3000, 1.0);
            costs.asked(1000, 3);
        }
        assert!((costs.mean_weight - 1500.0).abs() < 100.0, "{}", costs.mean_weight);
    }
}
