//! How much of a budget is tied up, in four levels, without flapping between two of them, and what each level means for
//! what is about to be done.

mod outside;

pub use self::outside::{Outside, Seen};
pub use crate::event::PressureLevel as Level;
use crate::ids::Priority;

/// Where levels begin and end, in percent of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Where [`Level::Elevated`], [`Level::High`] and [`Level::Critical`] begin.
    pub percent: [u8; 3],
    /// A level ends only this many points of percentage below where it begins.
    pub hysteresis: u8,
}

impl Default for Thresholds {
    /// 70, 85 and 95, left 5 points below.
    fn default() -> Self {
        Self { percent: [70, 85, 95], hysteresis: 5 }
    }
}

impl Thresholds {
    /// The first byte at which `level` begins, and the first at which it still holds; both 0 for the least.
    pub fn bytes(&self, level: Level, total_bytes: u64) -> (u64, u64) {
        let Some(index) = (level as usize).checked_sub(1) else { return (0, 0) };
        let percent = self.percent[index];
        (part(total_bytes, percent), part(total_bytes, percent.saturating_sub(self.hysteresis)))
    }
}

/// So many percent of `bytes`, rounded up.
pub fn part(bytes: u64, percent: u8) -> u64 {
    u64::try_from((u128::from(bytes) * u128::from(percent)).div_ceil(100)).unwrap_or(u64::MAX)
}

/// The pressure on one budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    thresholds: Thresholds,
    level: Level,
}

impl Pressure {
    /// No pressure yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, level: Level::Normal }
    }

    /// The level as of the last [`Pressure::update`].
    pub fn level(&self) -> Level {
        self.level
    }

    /// Where levels begin and end.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Takes in how many of `total_bytes` are used; returns the new level if it is another one.
    ///
    /// A level is entered at its threshold and left some points below it. A budget of nothing is full.
    pub fn update(&mut self, used_bytes: u64, total_bytes: u64) -> Option<Level> {
        let mut level = Level::Normal;
        for candidate in Level::ALL {
            let (from, holds) = self.thresholds.bytes(candidate, total_bytes);
            if used_bytes >= if candidate <= self.level { holds } else { from } {
                level = candidate;
            }
        }
        (std::mem::replace(&mut self.level, level) != level).then_some(level)
    }

    /// The bytes at which there may be another level: that which is used to rise, and that below which it is to fall.
    pub fn bounds(&self, total_bytes: u64) -> (u64, u64) {
        let next = Level::ALL.get(self.level as usize + 1);
        let rise = next.map_or(u64::MAX, |next| self.thresholds.bytes(*next, total_bytes).0);
        (rise, self.thresholds.bytes(self.level, total_bytes).1)
    }
}

/// Whether something may be loaded that nobody asked for. From Elevated on only what has proven to help, by the measured
/// precision of who predicted it; at Critical nothing.
pub fn admits_speculation(level: Level, proven: bool) -> bool {
    match level {
        Level::Normal => true,
        Level::Elevated | Level::High => proven,
        Level::Critical => false,
    }
}

/// How far ahead to load, where `distance` is how far without pressure: half as far from High on, nothing at Critical.
pub fn prefetch_distance(level: Level, distance: usize) -> usize {
    match level {
        Level::Normal | Level::Elevated => distance,
        Level::High => distance.div_ceil(2),
        Level::Critical => 0,
    }
}

/// Whether a request that does not fit may wait for memory. At Critical the least urgent may not: what evictions leave to
/// it is all it gets.
pub fn may_wait(level: Level, priority: Priority) -> bool {
    level < Level::Critical || priority < Priority::Low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_begins_at_its_threshold_and_ends_five_points_below() {
        let mut pressure = Pressure::default();
        let mut seen = Vec::new();
        for used in [69, 70, 84, 85, 81, 80, 79, 95, 90, 89, 66, 65, 64, 70, 69] {
            seen.push(pressure.update(used, 100).map_or("", Level::name));
        }
        let expected = [
            "", "elevated", "", "high", "", "", "elevated", "critical", "", "high", "elevated", "", "normal",
            "elevated", "",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_budget_of_nothing_is_full_and_a_huge_one_does_not_overflow() {
        assert_eq!(Pressure::default().update(0, 0), Some(Level::Critical));
        assert_eq!(Pressure::default().update(u64::MAX, u64::MAX), Some(Level::Critical));
        assert_eq!((part(u64::MAX, 100), part(1001, 70), part(0, 70)), (u64::MAX, 701, 0));
    }

    #[test]
    fn each_level_takes_something_more_away() {
        let with = |level| {
            let speculation = [false, true].map(|proven| admits_speculation(level, proven));
            (speculation, prefetch_distance(level, 7), may_wait(level, Priority::Low))
        };
        assert_eq!(with(Level::Normal), ([true, true], 7, true));
        assert_eq!(with(Level::Elevated), ([false, true], 7, true));
        assert_eq!(with(Level::High), ([false, true], 4, true));
        assert_eq!(with(Level::Critical), ([false, false], 0, false));
        assert!(may_wait(Level::Critical, Priority::Medium));
    }

    proptest! {
        #[test]
        fn the_level_never_lies_by_more_than_the_hysteresis(
            uses in prop::collection::vec(0u64..=1200, 1..100),
            mut percent in prop::array::uniform3(1u8..=100),
            hysteresis in 0u8..20,
        ) {
            percent.sort_unstable();
            let mut pressure = Pressure::new(Thresholds { percent, hysteresis });
            for used in uses {
                let (rise, fall) = pressure.bounds(1000);
                let before = pressure.level();
                let changed = pressure.update(used, 1000);
                prop_assert_eq!(changed.is_some(), pressure.level() != before);
                // Nobody has to look as long as use stays between the two.
                prop_assert!(changed.is_none() || used >= rise || used < fall);
                let strict = percent.iter().filter(|t| used >= u64::from(**t) * 10).count();
                let loose = percent.iter().filter(|t| used >= u64::from(t.saturating_sub(hysteresis)) * 10).count();
                let level = pressure.level() as usize;
                prop_assert!(strict <= level && level <= loose);
            }
        }
    }
}
