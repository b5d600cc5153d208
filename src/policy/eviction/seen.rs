//! Whether an asset was used since a policy looked at it last.

use super::Usage;

/// What an asset's hits had left when it was looked at last.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastLook(Usage);

impl LastLook {
    /// At its admission.
    pub fn new(tick: u32) -> Self {
        Self(Usage::new(tick))
    }

    /// In how many ticks it was used since the last look, which this one is from now on.
    pub fn uses_until(&mut self, now: Usage) -> u32 {
        let before = std::mem::replace(&mut self.0, now);
        if now == before || now.uses() == 0 {
            return 0;
        }
        // A count that stays at its end, or began anew, tells of one use at least.
        u32::from(now.uses().saturating_sub(before.uses())).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_count_once_and_an_admission_is_none() {
        let mut look = LastLook::new(5);
        assert_eq!(look.uses_until(Usage::new(6)), 0, "admitted by a clock that was ahead");
        let twice = Usage::new(6).used(7).used(9);
        assert_eq!((look.uses_until(twice), look.uses_until(twice)), (2, 0));
        assert_eq!(look.uses_until(twice.used(10)), 1);
        assert_eq!(look.uses_until(Usage::new(11).used(12)), 1, "it was replaced");
        let full = (0..70_000u32).fold(Usage::new(0), |usage, tick| usage.used(tick + 1));
        assert_eq!(look.uses_until(full), 65_534);
        assert_eq!((look.uses_until(full.used(70_001)), look.uses_until(full.used(70_001))), (1, 0));
    }
}
