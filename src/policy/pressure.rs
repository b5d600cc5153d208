//! How full a budget is, in four levels, without flapping between two of them.

/// The percentages of a budget at which [`Level::Elevated`], [`Level::High`] and [`Level::Critical`] begin.
pub const THRESHOLDS_PERCENT: [u8; 3] = [70, 85, 95];
/// A level ends only this many points of percentage below where it begins.
pub const HYSTERESIS_PERCENT: u8 = 5;

/// How full a budget is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Below 70 %: nothing to do.
    #[default]
    Normal = 0,
    /// From 70 %: speculative loads are held back.
    Elevated = 1,
    /// From 85 %: make room ahead of what comes.
    High = 2,
    /// From 95 %: every load will have to wait for an eviction.
    Critical = 3,
}

impl Level {
    const ALL: [Level; 4] = [Level::Normal, Level::Elevated, Level::High, Level::Critical];

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// The pressure on one budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    level: Level,
}

impl Pressure {
    /// No pressure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level as of the last [`Pressure::update`].
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes in how many of `total_bytes` are used; returns the new level if it is another one.
    ///
    /// A level is entered at its threshold and left 5 points below it. A budget of nothing is full.
    pub fn update(&mut self, used_bytes: u64, total_bytes: u64) -> Option<Level> {
        let reached = |percent: u8| u128::from(used_bytes) * 100 >= u128::from(total_bytes) * u128::from(percent);
        let mut level = Level::Normal;
        for (index, threshold) in THRESHOLDS_PERCENT.iter().enumerate() {
            let candidate = Level::ALL[index + 1];
            let needed = if candidate <= self.level { threshold - HYSTERESIS_PERCENT } else { *threshold };
            if reached(needed) {
                level = candidate;
            }
        }
        (std::mem::replace(&mut self.level, level) != level).then_some(level)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_begins_at_its_threshold_and_ends_five_points_below() {
        let mut pressure = Pressure::new();
        let mut seen = Vec::new();
        for used in [69, 70, 84, 85, 81, 80, 79, 95, 90, 89, 66, 65, 64, 70, 69] {
            seen.push(pressure.update(used, 100).map(Level::name));
        }
        assert_eq!(
            seen,
            [
                None,
                Some("elevated"),
                None,
                Some("high"),
                None,
                None,
                Some("elevated"),
                Some("critical"),
                None,
                Some("high"),
                Some("elevated"),
                None,
                Some("normal"),
                Some("elevated"),
                None
            ]
        );
    }

    #[test]
    fn a_budget_of_nothing_is_full_and_a_huge_one_does_not_overflow() {
        assert_eq!(Pressure::new().update(0, 0), Some(Level::Critical));
        assert_eq!(Pressure::new().update(u64::MAX, u64::MAX), Some(Level::Critical));
    }

    proptest! {
        #[test]
        fn the_level_never_lies_by_more_than_the_hysteresis(uses in prop::collection::vec(0u64..=1200, 1..100)) {
            let mut pressure = Pressure::new();
            for used in uses {
                pressure.update(used, 1000);
                let strict = THRESHOLDS_PERCENT.iter().filter(|t| used >= u64::from(**t) * 10).count();
                let loose = THRESHOLDS_PERCENT.iter().filter(|t| used >= u64::from(**t - HYSTERESIS_PERCENT) * 10).count();
                let level = pressure.level() as usize;
                prop_assert!(strict <= level && level <= loose);
            }
        }
    }
}
