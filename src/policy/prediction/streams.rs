//! Streams of accesses with a constant step, several of them interleaved: what sequential and strided prediction share.
//!
//! The detection is that of hardware stream prefetchers (Jouppi, "Improving Direct-Mapped Cache Performance by the Addition
//! of a Small Fully-Associative Cache and Prefetch Buffers", ISCA 1990), with the steps found in the history of the last
//! accesses (Nesbit and Smith, "Data Cache Prefetching Using a Global History Buffer", HPCA 2004).

use super::{Access, Due, Expert, ExpertKind, Guess, World};

/// Streams followed at once.
const STREAMS_MAX: usize = 32;
/// Accesses in which the beginning of a stream is looked for.
const RECENT: usize = 32;
/// A stream may skip so many of its members: they may have been hits, of which nobody told.
const SKIPS_MAX: u64 = 4;
/// The largest step.
const STEP_MAX: u64 = 1 << 20;

/// One stream.
#[derive(Clone, Copy, Debug)]
struct Stream {
    last: u64,
    step: i64,
    length: u32,
    /// When it went on last.
    tick: u64,
    /// Accesses from one member to the next, about.
    gap: f32,
}

/// The steps that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// One forwards.
    One,
    /// Any other.
    Others,
}

/// The streams there are now: the expert that guesses what comes next in them.
#[derive(Debug)]
pub struct Streams {
    steps: Steps,
    streams: Vec<Stream>,
    /// The last ranks, a ring.
    recent: [u64; RECENT],
    tick: u64,
}

impl Expert for Streams {
    fn kind(&self) -> ExpertKind {
        match self.steps {
            Steps::One => ExpertKind::Sequential,
            Steps::Others => ExpertKind::Strided,
        }
    }

    fn accessed(&mut self, access: &Access, world: &dyn World, distance: u8, into: &mut Vec<Guess>) {
        if let Some(rank) = world.rank(access.id) {
            self.follow(rank, world, distance, into);
        }
    }
}

impl Streams {
    /// No streams yet, of such steps.
    pub fn new(steps: Steps) -> Self {
        Self { steps, streams: Vec::new(), recent: [u64::MAX; RECENT], tick: 0 }
    }

    /// Takes in an access and appends what its stream comes to next.
    fn follow(&mut self, rank: u64, world: &dyn World, distance: u8, into: &mut Vec<Guess>) {
        self.tick += 1;
        let stream = self.goes_on(rank).or_else(|| self.begins(rank));
        self.recent[(self.tick % RECENT as u64) as usize] = rank;
        let Some(Stream { last, step, length, gap, .. }) = stream else { return };
        let sure = 1.0 - 1.0 / (length as f32 + 1.0);
        for ahead in 1..=i64::from(distance) {
            let Some(place) = step.checked_mul(ahead).and_then(|by| last.checked_add_signed(by)) else { return };
            let Some(id) = world.at(place) else { return };
            let due = (ahead as f32 * gap).clamp(1.0, 256.0) as u32;
            into.push(Guess { id, confidence: sure * 0.98f32.powi(ahead as i32 - 1), due: Due::Requests(due) });
        }
    }

    /// The stream that this one belongs to, moved on.
    fn goes_on(&mut self, rank: u64) -> Option<Stream> {
        let tick = self.tick;
        let fits = |stream: &Stream| {
            let by = rank.wrapping_sub(stream.last) as i64;
            let steps = by.checked_div(stream.step).filter(|steps| by == steps.wrapping_mul(stream.step))?;
            u64::try_from(steps).ok().filter(|steps| (1..=SKIPS_MAX).contains(steps))
        };
        let found = self.streams.iter_mut().filter_map(|stream| Some((fits(stream)?, stream)));
        let (_, stream) = found.min_by_key(|(steps, stream)| (*steps, u64::MAX - stream.tick))?;
        stream.gap += ((tick - stream.tick) as f32 - stream.gap) / 4.0;
        (stream.last, stream.tick, stream.length) = (rank, tick, stream.length.saturating_add(1));
        Some(*stream)
    }

    /// The stream that begins here: two in a row with a step of one, three with any other.
    fn begins(&mut self, rank: u64) -> Option<Stream> {
        let (step, length) = match self.steps {
            Steps::One => (self.was(rank.checked_sub(1)?).then_some(1)?, 2),
            Steps::Others => (self.step_to(rank)?, 3),
        };
        let stream = Stream { last: rank, step, length, tick: self.tick, gap: 1.0 };
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(stream);
        } else {
            // The one that stands still for longest.
            *self.streams.iter_mut().min_by_key(|stream| stream.tick)? = stream;
        }
        Some(stream)
    }

    fn step_to(&self, rank: u64) -> Option<i64> {
        let newest_first =
            (0..RECENT as u64).map(|back| self.recent[(self.tick.wrapping_sub(back + 1) % RECENT as u64) as usize]);
        let mut steps = newest_first.filter(|before| *before != u64::MAX).filter_map(|before| {
            let step = rank.wrapping_sub(before) as i64;
            (step != 0 && step != 1 && step.unsigned_abs() <= STEP_MAX).then_some((before, step))
        });
        steps
            .find(|(before, step)| before.checked_add_signed(-step).is_some_and(|first| self.was(first)))
            .map(|found| found.1)
    }

    fn was(&self, rank: u64) -> bool {
        self.recent.contains(&rank)
    }
}
