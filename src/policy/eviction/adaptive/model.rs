//! How soon an asset is asked for again: a regression that learns while the cache runs.
//!
//! What it says of an asset is the discounted time to the next use, `E[exp(-t / horizon)]`: 1 for what is asked for at
//! once, 0 for what never comes back. Such a figure can be learned long before it is known whether an asset comes back:
//! after a part of the horizon without a use, the rest of the answer is what the model itself says of the asset as it is
//! then (temporal differences: Sutton, "Learning to predict by the methods of temporal differences", 1988). Waiting for
//! the whole answer, as LRB does (Song et al., "Learning Relaxed Belady for Content Distribution Network Caching", NSDI
//! 2020, whose features these are: age, gaps, uses, size), would take a cache that is 10 % of what is asked for a large
//! part of its life.
//!
//! The regression is logistic over crossed features, hashed into one table per cross, with a step size for each weight
//! (AdaGrad: Duchi et al., 2011). It starts from a guess, so that a cache that has learned nothing evicts what is old
//! and seldom used.

use super::super::{Gap, Usage};

/// What is known of an asset at one time, each as a small number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// The level ([`Gap`]) of the time since the last use.
    pub age: u8,
    /// The levels of the times between the last uses, the newest first; 0 where there was none.
    pub gaps: [u8; 3],
    /// How often it was asked for, as far as is remembered; stays at 255.
    pub uses: u8,
    /// The level of its weight.
    pub size: u8,
    /// Its kind's number.
    pub kind: u8,
}

/// What was known of an asset before it became resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// How often it was asked for, the request that it was loaded for included.
    pub uses: u8,
    /// The levels of the times between the last uses up to that one.
    pub gaps: [u8; 2],
}

impl Features {
    /// Of an asset of this weight and kind that was used like this, now.
    pub fn of(past: Past, usage: Usage, weight: u32, kind: u8, now: u32) -> Self {
        let [first, second] = usage.gaps().map(Gap::level);
        let gaps = match usage.uses() {
            0 => [past.gaps[0], past.gaps[1], 0],
            1 => [first, past.gaps[0], past.gaps[1]],
            _ => [first, second, past.gaps[0]],
        };
        let uses = (u32::from(past.uses) + u32::from(usage.uses())).min(255) as u8;
        let age = level(now.wrapping_sub(usage.tick()));
        Self { age, gaps, uses, size: level(weight), kind }
    }

    /// Where its weights are, one in each table.
    fn places(&self) -> [usize; CROSSES] {
        let [age, size, kind] = [self.age, self.size, self.kind].map(u32::from);
        let (age_half, age_power) = (age / 2, age / 4);
        let first_half = u32::from(self.gaps[0]).div_ceil(2);
        let [first, second, third] = self.gaps.map(|gap| u32::from(gap).div_ceil(4));
        let uses = match u32::from(self.uses) {
            few @ 0..6 => few,
            many => 4 + (u32::BITS - many.leading_zeros()),
        };
        let size_power = size / 4;
        let crosses = [
            (age_half, 0),
            (age_half, first_half),
            (age_power, uses),
            (first, second),
            (age_power, size_power),
            (uses, size_power),
            (age_power, first * 16 + uses),
            (age_power, first * 64 + second),
            (first, second * 64 + third),
            (size, kind),
        ];
        let mut places = [0; CROSSES];
        for (table, (one, other)) in crosses.into_iter().enumerate() {
            places[table] = table << TABLE_BITS | hash(one, other, table as u32);
        }
        places
    }
}

/// The level of this many ticks or bytes.
pub(super) fn level(number: u32) -> u8 {
    Gap::of(number).level()
}

/// The middle of what a level stands for, about.
fn number(level: u8) -> f32 {
    ((f32::from(level) - 1.0) / 8.0).exp2()
}

const CROSSES: usize = 10;
/// Weights of one cross, as a power of two.
const TABLE_BITS: u32 = 12;
/// How far a weight moves for the first mistake.
const STEP: f32 = 0.2;
/// How far the constant moves for every mistake.
const CONSTANT_STEP: f32 = 0.02;

fn hash(one: u32, other: u32, table: u32) -> usize {
    let mixed = one.wrapping_mul(0x9e37_79b1) ^ other.wrapping_mul(0x85eb_ca6b) ^ table.wrapping_mul(0xc2b2_ae35);
    (mixed.wrapping_mul(0x27d4_eb2f) >> (u32::BITS - TABLE_BITS)) as usize
}

/// The regression.
#[derive(Debug)]
pub(super) struct Model {
    weights: Vec<f32>,
    /// For each weight the squares of its mistakes so far: the more, the smaller its steps.
    mistakes: Vec<f32>,
    constant: f32,
    /// How often it learned.
    pub lessons: u64,
    /// The square of its mistake, of late.
    pub mistake: f32,
}

impl Model {
    pub fn new() -> Self {
        let (weights, mistakes) = (vec![0.0; CROSSES << TABLE_BITS], vec![0.0; CROSSES << TABLE_BITS]);
        Self { weights, mistakes, constant: 0.0, lessons: 0, mistake: 0.0 }
    }

    /// The discounted time to the next use, 0 to 1.
    pub fn foretell(&self, of: &Features, horizon: f32) -> f32 {
        self.at(&of.places(), of, horizon)
    }

    fn at(&self, places: &[usize; CROSSES], of: &Features, horizon: f32) -> f32 {
        let learned: f32 = places.iter().map(|place| self.weights[*place]).sum();
        let odds = self.constant + guess(of, horizon) + learned;
        1.0 / (1.0 + (-odds).exp())
    }

    /// It was `truth`.
    pub fn learn(&mut self, of: &Features, horizon: f32, truth: f32) {
        let places = of.places();
        let mistake = truth - self.at(&places, of, horizon);
        self.constant += CONSTANT_STEP * mistake;
        for place in places {
            let mistakes = &mut self.mistakes[place];
            *mistakes += mistake * mistake;
            self.weights[place] += STEP * mistake / (1.0 + *mistakes).sqrt();
        }
        self.lessons += 1;
        self.mistake += (mistake * mistake - self.mistake) / 1000.0;
    }

    pub fn memory_bytes(&self) -> usize {
        2 * self.weights.len() * size_of::<f32>()
    }
}

/// The logarithm of the odds to start from: the more uses and the shorter the expected wait, the higher.
fn guess(of: &Features, horizon: f32) -> f32 {
    let age = number(of.age);
    // Never seen before: nothing says that it comes back within the horizon.
    let gap = if of.gaps[0] == 0 { age.max(4.0 * horizon) } else { number(of.gaps[0]) };
    let wait = age.max(gap / 2.0);
    (f32::from(of.uses.clamp(1, 16)) / (1.0 + wait / horizon)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: f32 = 100.0;

    fn features(age: u32, gap: u32, uses: u8) -> Features {
        Features { age: level(age), gaps: [level(gap); 3], uses, size: level(1000), kind: 0 }
    }

    #[test]
    fn before_it_learned_the_recent_and_the_often_used_come_back_sooner() {
        let model = Model::new();
        let foretell = |age, gap, uses| model.foretell(&features(age, gap, uses), HORIZON);
        assert!(foretell(10, 50, 3) > foretell(1000, 50, 3));
        assert!(foretell(10, 50, 9) > foretell(10, 50, 3));
        assert!(foretell(10, 50, 3) > foretell(10, 5000, 3));
    }

    #[test]
    fn it_learns_that_the_old_come_back_where_they_do() {
        let mut model = Model::new();
        for _ in 0..500 {
            model.learn(&features(1000, 1010, 3), HORIZON, 0.9);
            model.learn(&features(10, 1010, 3), HORIZON, 0.01);
        }
        let (old, young) = (features(1000, 1010, 3), features(10, 1010, 3));
        assert!(model.foretell(&old, HORIZON) > 0.7, "{}", model.foretell(&old, HORIZON));
        assert!(model.foretell(&young, HORIZON) < 0.2, "{}", model.foretell(&young, HORIZON));
        assert_eq!(model.lessons, 1000);
    }

    #[test]
    fn gaps_go_on_from_before_the_admission() {
        let past = Past { uses: 2, gaps: [9, 17] };
        let usage = Usage::new(100);
        assert_eq!(Features::of(past, usage, 1, 0, 100).gaps, [9, 17, 0]);
        let usage = usage.used(101);
        assert_eq!(Features::of(past, usage, 1, 0, 101).gaps, [level(1), 9, 17]);
        let usage = usage.used(103);
        let features = Features::of(past, usage, 1, 0, 110);
        assert_eq!((features.gaps, features.uses), ([level(2), level(1), 9], 4));
        assert_eq!(features.age, level(7));
    }

    #[test]
    fn every_feature_has_its_place() {
        let most = Features { age: 255, gaps: [255; 3], uses: 255, size: 255, kind: 255 };
        for features in [most, Features::default()] {
            let places = features.places();
            assert!(places.iter().enumerate().all(|(table, place)| place >> TABLE_BITS == table));
            assert!(Model::new().foretell(&features, 1.0).is_finite());
        }
    }
}
