//! What followed the last few: contexts of one to four assets, the longest that is known counts most.
//!
//! Prediction by partial matching (Cleary and Witten, "Data Compression Using Adaptive Coding and Partial String
//! Matching", 1984), with the escape of PPM-C (Moffat, 1990), used for prefetching as by Vitter and Krishnan ("Optimal
//! Prefetching via Data Compression", FOCS 1991).

use serde::{Deserialize, Serialize};

use super::aged::{Aged, mixed};
use super::{Access, Due, Expert, ExpertKind, Guess, World, models};
use crate::ids::AssetId;

/// The longest context.
const ORDER_MAX: usize = 4;
/// Contexts that are remembered.
const CONTEXTS_MAX: usize = 128 << 10;
/// Successors that are remembered of each.
const SUCCESSORS_MAX: usize = 4;
/// The sum at which counts are halved.
const TOTAL_MAX: u16 = 64;
/// Guesses for the very next access.
const NEXT_MAX: usize = 4;
/// Below it nothing is guessed (S6's least share).
const CONFIDENCE_MIN: f32 = 0.1;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Context {
    /// Times that it was seen, and a successor with it.
    total: u16,
    next: Vec<(u64, u16)>,
}

impl Context {
    fn followed(&mut self, id: u64) {
        self.total += 1;
        if let Some((_, count)) = self.next.iter_mut().find(|(next, _)| *next == id) {
            *count += 1;
        } else if self.next.len() < SUCCESSORS_MAX {
            self.next.push((id, 1));
        } else {
            let weakest = self.next.iter_mut().min_by_key(|(_, count)| *count);
            let weakest = weakest.expect("there is no room, so there are some");
            match weakest.1 {
                0 | 1 => *weakest = (id, 1),
                _ => weakest.1 -= 1,
            }
        }
        if self.total >= TOTAL_MAX {
            self.total /= 2;
            self.next.iter_mut().for_each(|(_, count)| *count /= 2);
            self.next.retain(|(_, count)| *count > 0);
        }
    }

    fn is_sound(&self) -> bool {
        let counts: u32 = self.next.iter().map(|(_, count)| u32::from(*count)).sum();
        self.total < TOTAL_MAX
            && self.next.len() <= SUCCESSORS_MAX
            && self.next.iter().all(|(_, count)| *count > 0)
            && counts <= u32::from(TOTAL_MAX)
    }
}

/// The last accesses, the newest first; how many of them there are.
type Last = ([u64; ORDER_MAX], usize);

/// Guesses what followed the same accesses before, and what followed that.
#[derive(Debug)]
pub struct Pattern {
    contexts: Aged<Context>,
    last: Last,
}

impl Default for Pattern {
    fn default() -> Self {
        Self { contexts: Aged::new(CONTEXTS_MAX), last: ([0; ORDER_MAX], 0) }
    }
}

/// The key of the context of the last `order` accesses.
fn key(last: &Last, order: usize) -> u64 {
    last.0[..order].iter().fold(order as u64, |key, id| mixed(key.rotate_left(17) ^ id))
}

fn pushed(last: &Last, id: u64) -> Last {
    let mut ids = last.0;
    ids.rotate_right(1);
    ids[0] = id;
    (ids, (last.1 + 1).min(ORDER_MAX))
}

impl Pattern {
    /// What follows, with its share: that of the longest context, and of the shorter ones what is left for what is new.
    fn next(&self, last: &Last, shares: &mut Vec<(u64, f32)>) {
        shares.clear();
        let mut left = 1.0;
        for order in (1..=last.1).rev() {
            let Some(context) = self.contexts.get(key(last, order)) else { continue };
            let kinds = context.next.len() as f32;
            let whole = f32::from(context.total) + kinds;
            if context.next.is_empty() {
                continue;
            }
            for (id, count) in &context.next {
                let share = left * f32::from(*count) / whole;
                match shares.iter_mut().find(|(known, _)| known == id) {
                    Some((_, known)) => *known += share,
                    None => shares.push((*id, share)),
                }
            }
            left *= kinds / whole;
        }
        shares.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        shares.truncate(NEXT_MAX);
    }
}

impl Expert for Pattern {
    fn kind(&self) -> ExpertKind {
        ExpertKind::Pattern
    }

    fn accessed(&mut self, access: &Access, _world: &dyn World, distance: u8, into: &mut Vec<Guess>) {
        let id = access.id.0;
        for order in 1..=self.last.1 {
            self.contexts.entry(key(&self.last, order), Context::default).followed(id);
        }
        self.last = pushed(&self.last, id);
        let (mut last, mut sure) = (self.last, 1.0);
        let mut shares = Vec::with_capacity(ORDER_MAX * SUCCESSORS_MAX);
        for ahead in 1..=u32::from(distance) {
            self.next(&last, &mut shares);
            // Of what may come next all are guessed, and only the likeliest is gone on from.
            let Some((likeliest, share)) = shares.first().copied() else { return };
            let guessed = if ahead == 1 { &shares[..] } else { &shares[..1] };
            let guessed = guessed.iter().map(|(id, share)| (AssetId(*id), sure * share));
            let guessed = guessed.filter(|(_, confidence)| *confidence >= CONFIDENCE_MIN);
            into.extend(guessed.map(|(id, confidence)| Guess { id, confidence, due: Due::Requests(ahead) }));
            sure *= share;
            if sure < CONFIDENCE_MIN {
                return;
            }
            last = pushed(&last, likeliest);
        }
    }

    fn saved(&self) -> Vec<u8> {
        // What was seen once is most of it and says least.
        let all: Vec<(u64, &Context)> = self.contexts.iter().filter(|(_, context)| context.total >= 2).collect();
        models::encode(&all)
    }

    fn restore(&mut self, saved: &[u8]) -> Option<()> {
        let all: Vec<(u64, Context)> = models::decode(saved)?;
        if all.len() > CONTEXTS_MAX || !all.iter().all(|(_, context)| context.is_sound()) {
            return None;
        }
        for (key, context) in all {
            self.contexts.entry(key, || context);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Numbered, guesses};
    use super::*;

    #[test]
    fn a_longer_context_tells_apart_what_a_shorter_one_does_not() {
        let mut expert = Pattern::default();
        let world = Numbered(1000);
        for _ in 0..8 {
            for id in [1, 5, 2, 8, 3, 5, 4, 8] {
                guesses(&mut expert, id, &world, 1);
            }
        }
        guesses(&mut expert, 1, &world, 1);
        assert_eq!(guesses(&mut expert, 5, &world, 1)[0], 2, "5 leads to 2 after 1, and to 4 after 3");
        assert_eq!(guesses(&mut expert, 2, &world, 3)[0], 8);
        let mut again = Pattern::default();
        again.restore(&expert.saved()).unwrap();
        guesses(&mut again, 3, &world, 1);
        assert_eq!(guesses(&mut again, 5, &world, 1)[0], 4, "after a restart as before");
    }

    #[test]
    fn a_chain_is_followed_to_the_distance() {
        let mut expert = Pattern::default();
        let world = Numbered(1000);
        let chain = [7, 300, 12, 45, 900, 33];
        for _ in 0..10 {
            chain.iter().for_each(|id| drop(guesses(&mut expert, *id, &world, 1)));
        }
        assert_eq!(guesses(&mut expert, 7, &world, 4), [300, 12, 45, 900]);
    }

    #[test]
    fn what_is_not_to_be_understood_is_refused() {
        let mut expert = Pattern::default();
        assert!(expert.restore(&[0xff; 40]).is_none());
        let unsound = vec![(1u64, Context { total: 9, next: vec![(1, 0)] })];
        assert!(expert.restore(&models::encode(&unsound)).is_none());
    }
}
