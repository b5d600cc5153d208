//! What an ensemble has learned, as bytes, and back. What it did is not part of it: a new run counts anew.

use serde::{Deserialize, Serialize};

use super::track::{LEVELS, Level};
use super::{Ensemble, THRESHOLD, USES_MAX, Uses};
use crate::config::PredictionConfig;
use crate::policy::prediction::{ExpertKind, models};

/// Assets whose uses are written.
const SAVED_USES_MAX: usize = 8 << 10;

#[derive(Serialize, Deserialize)]
struct Saved {
    threshold: f32,
    experts: Vec<SavedExpert>,
    /// The most used last.
    uses: Vec<(u64, u32)>,
}

#[derive(Serialize, Deserialize)]
struct SavedExpert {
    kind: ExpertKind,
    distance: u8,
    levels: [Level; LEVELS],
    model: Vec<u8>,
}

impl Ensemble {
    /// What it has learned. Models that would make it too long are left out, the largest first.
    pub fn save(&self) -> Vec<u8> {
        let model = |kind: ExpertKind| match kind {
            ExpertKind::Neural => self.neural.as_ref().map(|neural| neural.saved()),
            _ => self.experts.iter().find(|expert| expert.kind() == kind).map(|expert| expert.saved()),
        };
        let expert = |track: &super::Track| SavedExpert {
            kind: track.stats.expert,
            distance: track.distance,
            levels: track.levels,
            model: model(track.stats.expert).unwrap_or_default(),
        };
        let mut experts: Vec<SavedExpert> = self.tracks.iter().map(expert).collect();
        while experts.iter().map(|expert| expert.model.len()).sum::<usize>() > models::MODELS_BYTES_MAX / 2 {
            let largest = experts.iter_mut().max_by_key(|expert| expert.model.len());
            largest.expect("an ensemble has experts").model = Vec::new();
        }
        let mut uses: Vec<(f32, u64, u32)> =
            self.uses.iter().map(|(id, uses)| (self.heat(uses), id, uses.count)).collect();
        uses.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let from = uses.len().saturating_sub(SAVED_USES_MAX);
        let uses = uses[from..].iter().map(|(_, id, count)| (*id, *count)).collect();
        models::sealed(&models::encode(&Saved { threshold: self.threshold, experts, uses }))
    }

    /// A new ensemble that has learned what these bytes say.
    ///
    /// # Errors
    /// Why they are not what [`Ensemble::save`] gave; the reason is a sentence's end.
    pub fn restore(config: &PredictionConfig, saved: &[u8]) -> Result<Self, &'static str> {
        let saved: Saved = models::decode(models::opened(saved)?).ok_or("it does not hold what its version should")?;
        let unsound = Err("it holds values that no model has");
        let (least, most, _) = THRESHOLD;
        if !(least.min(config.threshold)..=most.max(config.threshold)).contains(&saved.threshold)
            || saved.uses.len() > USES_MAX
        {
            return unsound;
        }
        let mut ensemble = Self::new(config);
        ensemble.threshold = saved.threshold;
        for expert in saved.experts {
            if !expert.levels.iter().all(Level::is_sound) {
                return unsound;
            }
            let track = &mut ensemble.tracks[expert.kind as usize];
            (track.levels, track.distance) = (expert.levels, expert.distance.clamp(1, config.distance));
            let restored = match expert.kind {
                _ if expert.model.is_empty() => Some(()),
                ExpertKind::Neural => ensemble.neural.as_mut().map_or(Some(()), |neural| neural.restore(&expert.model)),
                kind => {
                    let found = ensemble.experts.iter_mut().find(|other| other.kind() == kind);
                    found.map_or(Some(()), |found| found.restore(&expert.model))
                }
            };
            if restored.is_none() {
                return unsound;
            }
        }
        for (id, count) in saved.uses {
            ensemble.uses.entry(id, || Uses { tick: 0, count });
        }
        Ok(ensemble)
    }
}
