//! What hits leave behind for a policy: one word beside the asset, written with one relaxed store.
//!
//! A policy is not told of hits. It reads this word when it looks at an asset, so that the hit path costs the same
//! whatever the policy is.

/// When an asset was used last, in how many ticks it was used, and the times between its last uses. Eight bytes.
///
/// Uses within one tick count as one: a tick passes when something is loaded, so that a burst without any need of
/// room says no more than one use does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage(u64);

const USES_AT: u32 = 32;
const GAPS_AT: u32 = 48;

impl Usage {
    /// That of an asset which becomes resident at `tick` and was not used since.
    pub fn new(tick: u32) -> Self {
        Self(u64::from(tick))
    }

    /// From [`Usage::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As one word.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The tick of the last use, or of the admission when there was none.
    pub fn tick(self) -> u32 {
        self.0 as u32
    }

    /// Ticks since the admission in which it was used; stays at 65,535.
    pub fn uses(self) -> u16 {
        (self.0 >> USES_AT) as u16
    }

    /// The times between the last uses, the newest first, the admission counted as a use.
    pub fn gaps(self) -> [Gap; 2] {
        [Gap((self.0 >> GAPS_AT) as u8), Gap((self.0 >> (GAPS_AT + 8)) as u8)]
    }

    /// After a use at `tick`. The same when it was used in that tick already, or later: a thread may look at the clock
    /// and then be late.
    #[inline]
    #[must_use]
    pub fn used(self, tick: u32) -> Self {
        let gap = tick.wrapping_sub(self.tick());
        if gap == 0 || gap > u32::MAX / 2 {
            return self;
        }
        let uses = u64::from(self.uses().saturating_add(1));
        let gaps = (self.0 >> GAPS_AT) & 0xff;
        Self(u64::from(tick) | uses << USES_AT | u64::from(Gap::of(gap).0) << GAPS_AT | gaps << (GAPS_AT + 8))
    }
}

/// A number of ticks in a byte: its power of two and three digits below, so at most an eighth too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gap(u8);

impl Gap {
    /// `ticks`, at least 1.
    #[inline]
    pub fn of(ticks: u32) -> Self {
        let ticks = ticks.max(1);
        let power = ticks.ilog2();
        let below = ((u64::from(ticks) << 3) >> power) as u8 & 7;
        Self((power as u8) << 3 | below).or_least()
    }

    /// Zero stands for nothing known: a gap of one tick is told apart by its own smallest step.
    fn or_least(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The byte: 0 when it is not known, else growing by 8 from one power of two to the next.
    pub fn level(self) -> u8 {
        self.0
    }

    /// About how many ticks; `None` when there was no such gap.
    pub fn ticks(self) -> Option<u32> {
        let level = self.0.checked_sub(1)?;
        let (power, below) = (level >> 3, u64::from(level & 7));
        Some((((8 + below) << power) >> 3) as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_use_moves_the_tick_counts_once_and_keeps_the_last_two_gaps() {
        let usage = Usage::new(10);
        assert_eq!((usage.tick(), usage.uses(), usage.gaps()), (10, 0, [Gap(0); 2]));
        let usage = usage.used(14).used(14);
        assert_eq!((usage.tick(), usage.uses(), usage.gaps()[0].ticks()), (14, 1, Some(4)));
        let usage = usage.used(30);
        assert_eq!((usage.uses(), usage.gaps().map(Gap::ticks)), (2, [Some(16), Some(4)]));
        assert_eq!(usage.used(29), usage, "a late one changes nothing");
    }

    #[test]
    fn ticks_wrap() {
        let usage = Usage::new(u32::MAX).used(2);
        assert_eq!((usage.tick(), usage.uses(), usage.gaps()[0].ticks()), (2, 1, Some(3)));
    }

    proptest! {
        #[test]
        fn a_gap_is_at_most_an_eighth_too_low_and_keeps_the_order(ticks in 1u32..u32::MAX, more in 1u32..1000) {
            let kept = Gap::of(ticks).ticks().unwrap();
            prop_assert!(kept <= ticks && u64::from(ticks - kept) * 8 <= u64::from(ticks));
            prop_assert!(Gap::of(ticks) <= Gap::of(ticks.saturating_add(more)));
        }

        #[test]
        fn bits_come_back(bits in any::<u64>()) {
            prop_assert_eq!(Usage::from_bits(bits).to_bits(), bits);
        }
    }
}
