//! Which assets are asked for: Zipf's law over their ranks, by a generator that repeats.

/// Ranks below `count`, the rank `r` with a likelihood of `1 / (r + 1)^exponent`.
pub struct Zipf {
    /// The likelihood of a rank up to this one.
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    pub fn new(count: usize, exponent: f64, seed: u64) -> Zipf {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        sums.iter_mut().for_each(|part| *part /= sum);
        Zipf { sums, state: seed }
    }

    /// The next rank.
    pub fn rank(&mut self) -> usize {
        let at = (self.word() >> 11) as f64 / (1u64 << 53) as f64;
        self.sums.partition_point(|sum| *sum < at).min(self.sums.len() - 1)
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014).
    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}
