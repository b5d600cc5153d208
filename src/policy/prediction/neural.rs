//! A small network that is trained while it runs: it looks at what the others guess, at the asset, at the time of day and
//! at what the program tells of itself, and says how likely a guess is to come true.
//!
//! One hidden layer, logistic loss, stochastic gradient descent with the step of Adagrad (Duchi, Hazan and Singer, JMLR
//! 2011). The weights start from a fixed seed, so the same accesses give the same network.

use serde::{Deserialize, Serialize};

use super::aged::mixed;
use super::{Access, Due, ExpertKind, Guess, models};

/// Numbers that a program may tell of itself.
pub const FEATURES_MAX: usize = 32;
/// Numbers of our own: a guess of each other expert, then of the asset and of the time.
const OWN: usize = 16;
const INPUTS: usize = OWN + FEATURES_MAX;
const HIDDEN: usize = 16;
/// The most that a weight moves at once.
const STEP: f32 = 0.08;
/// The largest that a weight may become.
const WEIGHT_MAX: f32 = 32.0;
/// Of guesses whose outcome is known to be trained on again after each new one: what was seen once teaches little.
const KEPT: usize = 256;

/// Of guesses that went as expected every so many is trained on.
const KNOWN_EVERY: u64 = 4;
/// After every so many one of the last is trained on again.
const AGAIN_EVERY: u64 = 2;

/// What it looks at for one guess.
pub type Features = [f32; INPUTS];

/// How often an asset was used, and when last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    pub tick: u64,
    pub count: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Weights {
    hidden: Vec<f32>,
    out: Vec<f32>,
}

/// The network.
#[derive(Debug)]
pub struct Neural {
    /// For each hidden cell its inputs' weights and its bias, and the same for the squares of their gradients.
    hidden: [[f32; INPUTS + 1]; HIDDEN],
    squares: [[f32; INPUTS + 1]; HIDDEN],
    out: [f32; HIDDEN + 1],
    out_squares: [f32; HIDDEN + 1],
    host: [f32; FEATURES_MAX],
    /// Inputs that may be other than zero, besides the bias.
    width: usize,
    kept: Vec<(Features, bool)>,
    turn: u64,
}

impl Default for Neural {
    fn default() -> Self {
        let weight = |number: usize| (mixed(number as u64 + 1) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let hidden = |cell: usize| std::array::from_fn(|input| 0.4 * weight(cell * (INPUTS + 1) + input));
        Self {
            hidden: std::array::from_fn(hidden),
            squares: [[1e-3; INPUTS + 1]; HIDDEN],
            out: std::array::from_fn(|cell| if cell == HIDDEN { -1.0 } else { weight(10_000 + cell) }),
            out_squares: [1e-3; HIDDEN + 1],
            host: [0.0; FEATURES_MAX],
            width: OWN,
            kept: Vec::new(),
            turn: 0,
        }
    }
}

impl Neural {
    /// What the program tells of itself from now on. Large numbers are made small: what counts is below about 10.
    pub fn set_host(&mut self, features: &[f32]) {
        self.host = [0.0; FEATURES_MAX];
        self.width = self.width.max(OWN + features.len().min(FEATURES_MAX));
        for (to, from) in self.host.iter_mut().zip(features) {
            *to = if from.is_finite() { from.signum() * from.abs().ln_1p() } else { 0.0 };
        }
    }

    /// What it looks at: `guess` as the others made it, of which `by` says how sure each was, and how it was used before
    /// the present tick.
    pub fn features(
        &self,
        guess: &Guess,
        by: &[f32; ExpertKind::ALL.len()],
        bytes: u64,
        (tick, uses): (u64, Uses),
        access: &Access,
    ) -> Features {
        let mut all = [0.0; INPUTS];
        all[..6].copy_from_slice(&by[..6]);
        all[6] = by.iter().filter(|sure| **sure > 0.0).count() as f32 / 4.0;
        all[7] = (bytes as f32).ln_1p() / 20.0;
        let since = if uses.count == 0 { 20.0 } else { (tick.saturating_sub(uses.tick) as f32 + 1.0).log2() };
        all[8] = since / 20.0;
        all[9] = (uses.count as f32).ln_1p() / 8.0;
        let day = (access.wall_seconds % 86_400) as f32 / 86_400.0 * std::f32::consts::TAU;
        (all[10], all[11]) = (day.sin() / 2.0, day.cos() / 2.0);
        // 1970 began on a Thursday.
        all[12] = f32::from(u8::from(matches!((access.wall_seconds / 86_400 + 4) % 7, 0 | 6)));
        all[13] = match guess.due {
            Due::Requests(requests) => (requests as f32).ln_1p() / 8.0,
            Due::Time(time) => time.as_secs_f32().ln_1p() / 4.0,
        };
        all[14] = f32::from(u8::from(access.resident));
        all[15] = (access.bytes as f32).ln_1p() / 20.0;
        all[OWN..].copy_from_slice(&self.host);
        all
    }

    /// How likely that is to come true, 0 to 1.
    pub fn score(&self, features: &Features) -> f32 {
        self.forward(features).1
    }

    fn forward(&self, features: &Features) -> ([f32; HIDDEN], f32) {
        let cell = |weights: &[f32; INPUTS + 1]| {
            let sum = dot(&weights[..self.width], &features[..self.width]) + weights[INPUTS];
            if sum > 0.0 { sum } else { 0.1 * sum }
        };
        let hidden: [f32; HIDDEN] = std::array::from_fn(|number| cell(&self.hidden[number]));
        let sum = dot(&self.out[..HIDDEN], &hidden) + self.out[HIDDEN];
        (hidden, 1.0 / (1.0 + (-sum).exp()))
    }

    /// A guess that looked like this came true, or did not. Trains on it, and now and then on one of the last again. Once
    /// it has seen many, of those that it expected to go as they went only one in a few teaches it anything.
    pub fn learn(&mut self, features: &Features, came_true: bool) {
        self.turn += 1;
        let said = self.score(features);
        let is_news = (said - f32::from(u8::from(came_true))).abs() > 0.25;
        if self.kept.len() >= KEPT && !is_news && !self.turn.is_multiple_of(KNOWN_EVERY) {
            return;
        }
        self.train(features, came_true);
        if self.kept.len() < KEPT {
            self.kept.push((*features, came_true));
            return;
        }
        if !self.turn.is_multiple_of(AGAIN_EVERY) {
            return;
        }
        let place = (mixed(self.turn) % KEPT as u64) as usize;
        let (again, was_true) = std::mem::replace(&mut self.kept[place], (*features, came_true));
        self.train(&again, was_true);
    }

    fn train(&mut self, features: &Features, came_true: bool) {
        let (hidden, said) = self.forward(features);
        let wrong = said - f32::from(u8::from(came_true));
        let step = |weight: &mut f32, square: &mut f32, gradient: f32| {
            *square += gradient * gradient;
            *weight = (*weight - STEP * gradient / square.sqrt()).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        };
        for (cell, value) in hidden.into_iter().enumerate() {
            let slope = if value > 0.0 { 1.0 } else { 0.1 };
            let down = wrong * self.out[cell] * slope;
            step(&mut self.out[cell], &mut self.out_squares[cell], wrong * value);
            let (weights, squares) = (&mut self.hidden[cell], &mut self.squares[cell]);
            step(&mut weights[INPUTS], &mut squares[INPUTS], down);
            let inputs = features[..self.width].iter().zip(&mut weights[..self.width]).zip(&mut squares[..self.width]);
            inputs.for_each(|((input, weight), square)| step(weight, square, down * input));
        }
        step(&mut self.out[HIDDEN], &mut self.out_squares[HIDDEN], wrong);
    }

    /// Its weights, to be given to [`Neural::restore`] in a later run.
    pub fn saved(&self) -> Vec<u8> {
        models::encode(&Weights { hidden: self.hidden.concat(), out: self.out.to_vec() })
    }

    /// Takes the weights of an earlier run; `None`, and nothing changes, where they are not to be understood.
    pub fn restore(&mut self, saved: &[u8]) -> Option<()> {
        let weights: Weights = models::decode(saved)?;
        let (cells, rest) = weights.hidden.as_chunks::<{ INPUTS + 1 }>();
        let hidden: [[f32; INPUTS + 1]; HIDDEN] = cells.try_into().ok().filter(|_| rest.is_empty())?;
        let out: [f32; HIDDEN + 1] = weights.out.try_into().ok()?;
        let sound = |weight: &f32| weight.is_finite() && weight.abs() <= WEIGHT_MAX;
        if !hidden.iter().flatten().chain(&out).all(sound) {
            return None;
        }
        (self.hidden, self.out) = (hidden, out);
        // What was learned is not thrown over by the first guess.
        (self.squares, self.out_squares) = ([[1.0; INPUTS + 1]; HIDDEN], [1.0; HIDDEN + 1]);
        Some(())
    }
}

/// The sum of products, in four parts that do not wait for each other.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0; 4];
    let (ones, rest) = one.as_chunks::<4>();
    let (others, other_rest) = other.as_chunks::<4>();
    for (one, other) in ones.iter().zip(others) {
        sums.iter_mut().zip(one.iter().zip(other)).for_each(|(sum, (one, other))| *sum += one * other);
    }
    let rest: f32 = rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(number: u64) -> (Features, bool) {
        let noise = |which: u64| (mixed(number * 31 + which) >> 40) as f32 / (1 << 24) as f32;
        let mut features = [0.0; INPUTS];
        features.iter_mut().enumerate().for_each(|(which, feature)| *feature = noise(which as u64));
        // True when exactly one of two holds: no weighing of the two alone can tell.
        let (one, other) = (noise(1) > 0.5, noise(OWN as u64) > 0.5);
        (features[1], features[OWN]) = (f32::from(u8::from(one)), f32::from(u8::from(other)));
        (features, one != other)
    }

    #[test]
    fn it_learns_what_no_weighing_of_its_inputs_can_tell_and_remembers_it() {
        let mut neural = Neural::default();
        neural.set_host(&[0.0; FEATURES_MAX]);
        for number in 0..20_000 {
            let (features, came_true) = example(number);
            neural.learn(&features, came_true);
        }
        let right = |neural: &Neural| {
            let is_right = |number: &u64| {
                let (features, came_true) = example(*number);
                (neural.score(&features) > 0.5) == came_true
            };
            (100_000..101_000u64).filter(is_right).count()
        };
        assert!(right(&neural) > 930, "{}", right(&neural));
        let mut again = Neural::default();
        again.set_host(&[0.0; FEATURES_MAX]);
        again.restore(&neural.saved()).unwrap();
        assert_eq!(right(&again), right(&neural));
    }

    #[test]
    fn weights_that_are_no_numbers_or_too_few_are_refused() {
        let mut neural = Neural::default();
        let mut bad = Weights { hidden: neural.hidden.concat(), out: neural.out.to_vec() };
        bad.out[0] = f32::NAN;
        assert!(neural.restore(&models::encode(&bad)).is_none());
        bad.out = Vec::new();
        assert!(neural.restore(&models::encode(&bad)).is_none());
        neural.set_host(&[f32::MAX, f32::NAN, -1.0]);
        assert!(neural.host.iter().all(|feature| feature.abs() < 100.0));
    }
}
