//! After an asset is loaded, what it uses is needed next.
//!
//! What was predicted lately is not predicted again, which also ends cycles. A prediction that comes back as loaded
//! predicts its own dependencies one step further, to a depth: the whole of a scene follows its first file, and one
//! page does not pull in all that is linked together.

use std::collections::{HashMap, HashSet};

use super::{Loaded, Outcome, Prediction};
use crate::ids::AssetId;

/// The bounds of a [`DependencyPrediction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Steps from an asset that someone asked for. Default 3.
    pub depth_max: u8,
    /// Predictions remembered: between this many and half of it. Default 16,384.
    pub remembered_max: usize,
    /// Predictions made of one asset. Default 256.
    pub fan_out_max: usize,
    /// Predictions made in one call. Default 4,096.
    pub batch_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { depth_max: 3, remembered_max: 16 << 10, fan_out_max: 256, batch_max: 4 << 10 }
    }
}

/// Predicts the dependencies of what was loaded.
#[derive(Debug, Default)]
pub struct DependencyPrediction {
    bounds: Bounds,
    /// Predictions and how many steps each is from what was asked for. When the younger half is full it becomes the
    /// older one, whose predictions are forgotten: ages without a clock.
    younger: HashMap<AssetId, u8>,
    older: HashMap<AssetId, u8>,
}

impl DependencyPrediction {
    /// Nothing was predicted yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, younger: HashMap::new(), older: HashMap::new() }
    }

    /// Predictions remembered.
    pub fn remembered(&self) -> usize {
        self.younger.len() + self.older.len()
    }

    fn depth(&self, id: AssetId) -> Option<u8> {
        self.younger.get(&id).or_else(|| self.older.get(&id)).copied()
    }

    fn remember(&mut self, id: AssetId, depth: u8) {
        if self.younger.len() >= (self.bounds.remembered_max / 2).max(1) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.older.remove(&id);
        self.younger.insert(id, depth);
    }
}

impl Prediction for DependencyPrediction {
    fn loaded(&mut self, batch: &[Loaded], into: &mut Vec<AssetId>) {
        let here: HashSet<AssetId> = batch.iter().map(|loaded| loaded.id).collect();
        let mut room = self.bounds.batch_max;
        for loaded in batch {
            let depth = self.depth(loaded.id).unwrap_or(0).saturating_add(1);
            if depth > self.bounds.depth_max {
                continue;
            }
            let mut fan_out = self.bounds.fan_out_max;
            for id in &loaded.dependencies {
                if room == 0 {
                    return;
                }
                if fan_out == 0 {
                    break;
                }
                if here.contains(id) || self.depth(*id).is_some() {
                    continue;
                }
                self.remember(*id, depth);
                into.push(*id);
                room -= 1;
                fan_out -= 1;
            }
        }
    }

    fn outcome(&mut self, id: AssetId, outcome: Outcome) {
        match outcome {
            // Someone asked for it: from here on it counts as asked for, and its dependencies start anew.
            Outcome::Used => {
                let halves = [&mut self.younger, &mut self.older];
                halves.into_iter().filter_map(|half| half.get_mut(&id)).for_each(|depth| *depth = 0);
            }
            // It is not there any more, so it may be predicted again.
            Outcome::Wasted | Outcome::Dropped => {
                self.younger.remove(&id);
                self.older.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loaded(id: u64, dependencies: &[u64]) -> Loaded {
        Loaded { id: AssetId(id), dependencies: dependencies.iter().copied().map(AssetId).collect() }
    }

    fn predict(prediction: &mut DependencyPrediction, batch: &[Loaded]) -> Vec<u64> {
        let mut into = Vec::new();
        prediction.loaded(batch, &mut into);
        into.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn what_was_loaded_predicts_what_it_uses_once() {
        let mut prediction = DependencyPrediction::default();
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2, 3, 2]), loaded(3, &[4])]), [2, 4]);
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2, 3])]), [3], "3 was loaded, not predicted");
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2, 3])]), [0; 0]);
        prediction.outcome(AssetId(2), Outcome::Wasted);
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2, 3])]), [2]);
    }

    #[test]
    fn a_chain_is_followed_to_its_depth_and_further_once_someone_asks() {
        let mut prediction = DependencyPrediction::default();
        for id in 0..3 {
            assert_eq!(predict(&mut prediction, &[loaded(id, &[id + 1])]), [id + 1]);
        }
        assert_eq!(predict(&mut prediction, &[loaded(3, &[4])]), [0; 0], "three steps from what was asked for");
        prediction.outcome(AssetId(3), Outcome::Used);
        assert_eq!(predict(&mut prediction, &[loaded(3, &[4])]), [4]);
    }

    #[test]
    fn a_cycle_ends() {
        let mut prediction = DependencyPrediction::default();
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2])]), [2]);
        assert_eq!(predict(&mut prediction, &[loaded(2, &[1])]), [1]);
        assert_eq!(predict(&mut prediction, &[loaded(1, &[2])]), [0; 0]);
    }

    proptest! {
        #[test]
        fn memory_and_predictions_are_bounded(
            batches in prop::collection::vec(
                prop::collection::vec((0u64..500, prop::collection::vec(0u64..500, 0..40)), 0..20), 0..40),
        ) {
            let bounds = Bounds { depth_max: 2, remembered_max: 64, fan_out_max: 8, batch_max: 32 };
            let mut prediction = DependencyPrediction::new(bounds);
            for batch in batches {
                let batch: Vec<Loaded> = batch.iter().map(|(id, uses)| loaded(*id, uses)).collect();
                let predicted = predict(&mut prediction, &batch);
                prop_assert!(predicted.len() <= 32 && prediction.remembered() <= 64);
                let distinct: HashSet<&u64> = predicted.iter().collect();
                prop_assert_eq!(distinct.len(), predicted.len());
            }
        }
    }
}
