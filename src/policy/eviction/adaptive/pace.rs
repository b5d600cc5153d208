//! How fast the cache turns over, which is how far ahead it pays to look.

use super::SAMPLES_PER_CHOICE;
use super::samples::Samples;

/// How fast the cache turns over.
#[derive(Debug)]
pub(super) struct Pace {
    /// Ticks for each victim.
    victim_ticks: f32,
    /// Ticks for each choice.
    choice_ticks: f32,
    /// When the last choice was.
    last: Option<u32>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { victim_ticks: 1.0, choice_ticks: 1.0, last: None }
    }
}

impl Pace {
    /// So many victims were chosen.
    pub fn chose(&mut self, now: u32, victims: usize, residents: usize) {
        if let Some(last) = self.last.replace(now) {
            let ticks = now.wrapping_sub(last) as f32;
            self.choice_ticks += 0.01 * (ticks - self.choice_ticks);
            let victims = victims.max(1) as f32;
            let part = (1.0 / residents.max(1) as f32).clamp(0.001, 0.05) * victims.min(8.0);
            self.victim_ticks = (self.victim_ticks + part * (ticks / victims - self.victim_ticks)).max(0.01);
        }
    }

    /// Ticks until all that is resident is replaced, about.
    pub fn turnover(&self, residents: usize) -> f32 {
        (residents as f32 * self.victim_ticks).max(1.0)
    }

    /// How many samples a choice may take so that each can wait for `step` ticks.
    pub fn samples(&self, step: f32) -> f32 {
        (0.9 * Samples::MAX as f32 / step * self.choice_ticks.max(0.1)).min(SAMPLES_PER_CHOICE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turnover_follows_the_victims() {
        let mut pace = Pace::default();
        for choice in 0..2000u32 {
            pace.chose(choice * 20, 2, 100);
        }
        assert!((pace.turnover(100) - 1000.0).abs() < 10.0, "{}", pace.turnover(100));
        assert!(pace.turnover(0) >= 1.0);
    }

    #[test]
    fn samples_are_as_many_as_there_is_room_for() {
        let mut pace = Pace::default();
        assert_eq!(pace.samples(64.0), SAMPLES_PER_CHOICE);
        let step = 1_000_000.0;
        assert!(pace.samples(step) * step < Samples::MAX as f32);
        for choice in 0..2000u32 {
            pace.chose(choice * 100, 1, 100);
        }
        assert_eq!(pace.samples(step / 10.0), SAMPLES_PER_CHOICE, "choices are rare");
    }
}
