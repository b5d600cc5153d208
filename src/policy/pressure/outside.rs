//! How small a budget has to be so that others have memory: it gives way at once, and comes back slowly.
//!
//! From the shrink threshold on the budget gives way by what is used beyond it, at most by half at a time, since what is
//! freed shows only at the next look. From the emergency threshold on it is as small as it can be: what nobody holds goes.
//! Well below the shrink threshold it grows again, by a small part of what it is to be, as long as it is then full and
//! memory would still be below the threshold.

use super::part;

/// Where the budget gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The part of the memory that this process may use from which on it shrinks, in percent.
    pub shrink_percent: u8,
    /// The part from which on it is as small as it can be.
    pub emergency_percent: u8,
    /// The part of the last 10 s in which something waited for memory, from which on it shrinks, in percent.
    pub stall_percent: u8,
}

/// What was seen, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Memory in use, of which the budget's is a part.
    pub used: u64,
    /// All of it.
    pub limit: u64,
    /// The part of the last 10 s in which something waited, in percent.
    pub stalled_percent: f32,
    /// Charged to the budget.
    pub charged: u64,
    /// What the budget is to be when there is enough memory.
    pub asked: u64,
}

/// Points of percentage below the shrink threshold at which it may grow again.
const GROW_BELOW: u8 = 5;
/// It grows by this part of what it is to be at a time.
const GROW_PART: u64 = 20;
/// Where it does not shrink below, short of an emergency: this part of what it is to be.
const SHRINK_PART_MIN: u64 = 8;

impl Outside {
    /// The most bytes that the budget may be from now on, where it was `ceiling` before; `None` for no such bound.
    pub fn ceiling(&self, seen: &Seen, ceiling: Option<u64>) -> Option<u64> {
        let Seen { used, limit, charged, asked, .. } = *seen;
        let now = ceiling.unwrap_or(asked).min(asked);
        if used >= part(limit, self.emergency_percent) {
            return Some(0);
        }
        let stalls = seen.stalled_percent >= f32::from(self.stall_percent);
        let beyond = used.saturating_sub(part(limit, self.shrink_percent));
        if used >= part(limit, self.shrink_percent) || stalls {
            // What stalls give no figure for: an eighth.
            let by = if beyond > 0 { beyond } else { now / 8 };
            let charged = charged.min(now);
            return Some(charged.saturating_sub(by).max(charged / 2).max(asked / SHRINK_PART_MIN).min(now));
        }
        let ceiling = ceiling?;
        let room = part(limit, self.shrink_percent.saturating_sub(GROW_BELOW)).saturating_sub(used);
        let unused = ceiling.saturating_sub(charged);
        let grown = ceiling.saturating_add((asked / GROW_PART).max(1).min(room.saturating_sub(unused)));
        (grown < asked).then_some(grown)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Outside = Outside { shrink_percent: 75, emergency_percent: 90, stall_percent: 10 };

    fn seen(used: u64, charged: u64) -> Seen {
        Seen { used, limit: 1000, stalled_percent: 0.0, charged, asked: 400 }
    }

    #[test]
    fn it_gives_way_from_75_percent_on_and_is_as_small_as_can_be_from_90_on() {
        let check = |used, charged, ceiling, expected| {
            assert_eq!(RULES.ceiling(&seen(used, charged), ceiling), expected, "{used} {charged} {ceiling:?}");
        };
        check(749, 400, None, None);
        check(750, 400, None, Some(350));
        check(800, 400, None, Some(350));
        check(899, 400, None, Some(251));
        check(899, 200, Some(300), Some(100));
        check(899, 60, Some(100), Some(50));
        check(900, 400, None, Some(0));
        // It comes back slowly, and not while it would be given back again.
        check(740, 50, Some(50), Some(50));
        check(690, 50, Some(50), Some(60));
        check(300, 50, Some(50), Some(70));
        check(690, 50, Some(60), Some(60));
        check(300, 380, Some(390), None);
    }

    #[test]
    fn stalls_shrink_it_whatever_the_sums_say() {
        let stalled = Seen { stalled_percent: 10.0, ..seen(100, 400) };
        assert_eq!(RULES.ceiling(&stalled, None), Some(350));
        assert_eq!(RULES.ceiling(&Seen { charged: 350, ..stalled }, Some(350)), Some(307));
        assert_eq!(RULES.ceiling(&Seen { stalled_percent: 9.9, ..stalled }, None), None);
    }

    proptest! {
        #[test]
        fn it_settles_below_the_threshold_beside_any_other_use_and_comes_back_when_that_is_gone(others in 0u64..740) {
            // The budget's use is what it may be, and the rest is others'.
            let mut ceiling = None;
            let asked = 400u64;
            let use_now = |ceiling: Option<u64>| ceiling.unwrap_or(asked).min(asked);
            for _ in 0..60 {
                let charged = use_now(ceiling);
                ceiling = RULES.ceiling(&seen(others + charged, charged), ceiling);
            }
            let charged = use_now(ceiling);
            prop_assert!(others + charged < 750 || charged <= asked / SHRINK_PART_MIN, "{} of {}", charged, others);
            prop_assert!(charged == asked || others + charged + asked / GROW_PART >= 700, "{} of {}", charged, others);
            for _ in 0..30 {
                let charged = use_now(ceiling);
                ceiling = RULES.ceiling(&seen(charged, charged), ceiling);
            }
            prop_assert_eq!(ceiling, None);
        }
    }
}
