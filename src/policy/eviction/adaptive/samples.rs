//! Assets looked at that the model has yet to learn the outcome of: a ring, each asset in it at most once.

use super::super::Usage;
use super::model::Features;
use crate::ids::AssetId;

/// Where a sample is, counted from 1 so that none takes no more room.
pub(super) type Ticket = std::num::NonZeroU32;

/// What an asset was like when it was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub id: AssetId,
    /// When it was looked at.
    pub tick: u32,
    /// When it had been used last.
    pub last: u32,
    /// How often it had been used since its admission.
    uses: u16,
    pub features: Features,
    /// Its outcome is not known yet.
    open: bool,
}

impl Sample {
    pub fn new(id: AssetId, tick: u32, usage: Usage, features: Features) -> Self {
        Self { id, tick, last: usage.tick(), uses: usage.uses(), features, open: true }
    }

    /// Ticks until its first use after it was looked at, as far as the last gaps tell; `None` when there was none.
    pub fn waited(&self, usage: Usage) -> Option<f32> {
        let since = usage.tick().wrapping_sub(self.tick);
        if since == 0 || since > u32::MAX / 2 {
            return None;
        }
        let gaps = usage.gaps().map(|gap| gap.ticks().unwrap_or(0));
        // The uses since, from the last one back: two gaps are known, the others are taken to be alike.
        let first = match usage.uses().saturating_sub(self.uses) {
            0 | 1 => since,
            2 => since.saturating_sub(gaps[0]),
            3 => since.saturating_sub(gaps[0]).saturating_sub(gaps[1]),
            many => since.saturating_sub(gaps[0]).saturating_sub(gaps[1]) / (u32::from(many) - 2),
        };
        Some(first.max(1) as f32)
    }
}

/// Samples that can be open.
const SAMPLES_MAX: usize = 1 << 14;

/// The open samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Samples {
    ring: Vec<Sample>,
    /// The oldest, and how many there are from it on.
    oldest: usize,
    len: usize,
}

impl Samples {
    /// Samples that there is room for.
    pub const MAX: usize = SAMPLES_MAX;

    /// Takes one in. `None` when there is no room.
    pub fn push(&mut self, sample: Sample) -> Option<Ticket> {
        if self.len == SAMPLES_MAX {
            return None;
        }
        let place = (self.oldest + self.len) % SAMPLES_MAX;
        if place == self.ring.len() {
            self.ring.push(sample);
        } else {
            self.ring[place] = sample;
        }
        self.len += 1;
        Ticket::new(place as u32 + 1)
    }

    /// The sample of this asset, while its outcome is not known.
    pub fn open(&self, ticket: Ticket, id: AssetId) -> Option<Sample> {
        self.ring.get(ticket.get() as usize - 1).filter(|sample| sample.open && sample.id == id).copied()
    }

    /// Its outcome is known.
    pub fn close(&mut self, ticket: Ticket) {
        if let Some(sample) = self.ring.get_mut(ticket.get() as usize - 1) {
            sample.open = false;
        }
    }

    /// Takes out the oldest if it is open for at least this long, or closed; in the second case it is nobody's any more.
    pub fn pop(&mut self, now: u32, age_min: u32) -> Option<Option<Sample>> {
        let sample = self.ring.get_mut(self.oldest).filter(|_| self.len > 0)?;
        if sample.open && now.wrapping_sub(sample.tick) < age_min {
            return None;
        }
        let open = std::mem::replace(&mut sample.open, false);
        let sample = *sample;
        self.oldest = (self.oldest + 1) % SAMPLES_MAX;
        self.len -= 1;
        Some(open.then_some(sample))
    }

    pub fn memory_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<Sample>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: u64, tick: u32) -> Sample {
        Sample::new(AssetId(id), tick, Usage::new(tick), Features::default())
    }

    #[test]
    fn the_first_use_after_it_was_looked_at_is_found_from_the_last_gaps() {
        let usage = Usage::new(10);
        let sample = Sample::new(AssetId(1), 20, usage, Features::default());
        assert_eq!(sample.waited(usage), None);
        let once = usage.used(26);
        assert_eq!(sample.waited(once), Some(6.0));
        let twice = once.used(30);
        assert_eq!(sample.waited(twice), Some(6.0));
        let thrice = twice.used(38);
        assert_eq!(sample.waited(thrice), Some(6.0));
        assert_eq!(sample.waited(thrice.used(46)), Some(5.0), "a half of what the two known gaps leave");
    }

    #[test]
    fn the_oldest_come_out_when_they_are_old_enough_or_closed() {
        let mut samples = Samples::default();
        let first = samples.push(sample(1, 10)).unwrap();
        samples.push(sample(2, 11)).unwrap();
        assert!(samples.pop(15, 10).is_none());
        assert!(samples.open(first, AssetId(2)).is_none() && samples.open(first, AssetId(1)).is_some());
        samples.close(first);
        assert!(samples.open(first, AssetId(1)).is_none());
        assert!(samples.pop(15, 10).is_some_and(|open| open.is_none()));
        assert!(samples.pop(15, 10).is_none());
        assert_eq!(samples.pop(21, 10).flatten().map(|sample| sample.id), Some(AssetId(2)));
        assert!(samples.pop(99, 0).is_none());
    }

    #[test]
    fn there_is_room_for_so_many_and_the_ring_goes_round() {
        let mut samples = Samples::default();
        for round in 0..3u32 {
            let taken = (0..SAMPLES_MAX + 5).filter(|id| samples.push(sample(*id as u64, round)).is_some()).count();
            assert_eq!(taken, SAMPLES_MAX);
            while samples.pop(round + 1, 0).is_some() {}
        }
        assert_eq!(samples.ring.len(), SAMPLES_MAX);
    }
}
