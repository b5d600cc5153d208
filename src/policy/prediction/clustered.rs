//! What is used together: a table of which assets were used shortly after which, whatever came between.
//!
//! As in "C-Miner: Mining Block Correlations in Storage Systems" (Li, Chen, Srinivasan, Zhou, FAST 2004), but counted
//! online, and each asset's successors bounded as frequent items of a stream are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::aged::Aged;
use super::{Access, Due, Expert, ExpertKind, Guess, World, models};
use crate::ids::AssetId;

/// Accesses within which two are used together.
const WINDOW: usize = 8;
/// Assets that are remembered.
const ASSETS_MAX: usize = 32 << 10;
/// Successors that are remembered of each.
const SUCCESSORS_MAX: usize = 8;
/// Uses at which counts are halved, so that what was long ago counts less.
const USES_MAX: u16 = 64;
/// Uses before anything is guessed.
const USES_MIN: u16 = 2;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    uses: u16,
    next: Vec<Successor>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Successor {
    id: u64,
    count: u16,
    /// Accesses until it, about, in eighths.
    due: u16,
}

/// Guesses what was often used shortly after.
#[derive(Debug)]
pub struct Clustered {
    known: Aged<Known>,
    /// The last accesses, the newest first.
    window: VecDeque<u64>,
}

impl Default for Clustered {
    fn default() -> Self {
        Self { known: Aged::new(ASSETS_MAX), window: VecDeque::with_capacity(WINDOW + 1) }
    }
}

impl Known {
    fn followed(&mut self, id: u64, after: usize) {
        let after = (after * 8) as u16;
        if let Some(successor) = self.next.iter_mut().find(|successor| successor.id == id) {
            successor.count = successor.count.saturating_add(1);
            successor.due = (successor.due * 3 + after) / 4;
        } else if self.next.len() < SUCCESSORS_MAX {
            self.next.push(Successor { id, count: 1, due: after });
        } else {
            // Each newcomer costs the weakest one; who was seen but once makes room.
            let weakest = self.next.iter_mut().min_by_key(|successor| successor.count);
            let weakest = weakest.expect("there is no room, so there are some");
            match weakest.count {
                0 | 1 => *weakest = Successor { id, count: 1, due: after },
                _ => weakest.count -= 1,
            }
        }
    }

    fn used(&mut self) {
        self.uses += 1;
        if self.uses >= USES_MAX {
            self.uses /= 2;
            self.next.iter_mut().for_each(|successor| successor.count /= 2);
            self.next.retain(|successor| successor.count > 0);
        }
    }
}

impl Expert for Clustered {
    fn kind(&self) -> ExpertKind {
        ExpertKind::Clustered
    }

    fn accessed(&mut self, access: &Access, _world: &dyn World, distance: u8, into: &mut Vec<Guess>) {
        let id = access.id.0;
        if self.window.contains(&id) {
            return;
        }
        for (back, before) in self.window.iter().enumerate() {
            self.known.entry(*before, Known::default).followed(id, back + 1);
        }
        let known = self.known.entry(id, Known::default);
        if known.uses >= USES_MIN {
            let from = into.len();
            into.extend(known.next.iter().filter(|successor| successor.count >= 2).map(|successor| Guess {
                id: AssetId(successor.id),
                confidence: (f32::from(successor.count) / f32::from(known.uses)).min(1.0),
                due: Due::Requests(u32::from(successor.due).div_ceil(8).max(1)),
            }));
            into[from..].sort_by(|one, other| other.confidence.total_cmp(&one.confidence));
            into.truncate(from + usize::from(distance).min(SUCCESSORS_MAX));
        }
        known.used();
        self.window.push_front(id);
        self.window.truncate(WINDOW);
    }

    fn saved(&self) -> Vec<u8> {
        let worth = |(_, known): &(u64, &Known)| known.uses >= USES_MIN;
        let all: Vec<(u64, &Known)> = self.known.iter().filter(worth).collect();
        models::encode(&all)
    }

    fn restore(&mut self, saved: &[u8]) -> Option<()> {
        let all: Vec<(u64, Known)> = models::decode(saved)?;
        let sound = |known: &Known| known.uses < USES_MAX && known.next.len() <= SUCCESSORS_MAX;
        if all.len() > ASSETS_MAX || !all.iter().all(|(_, known)| sound(known)) {
            return None;
        }
        for (id, mut known) in all {
            known.next.retain(|successor| successor.count > 0 && successor.due <= 8 * WINDOW as u16);
            self.known.entry(id, || known);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Numbered, guesses};
    use super::*;

    #[test]
    fn what_is_used_together_in_any_order_is_guessed_together() {
        let mut expert = Clustered::default();
        let world = Numbered(1000);
        for round in 0..6u64 {
            let (one, other) = if round % 2 == 0 { (11, 12) } else { (12, 11) };
            [10, one, other].into_iter().for_each(|id| drop(guesses(&mut expert, id, &world, 8)));
            // What comes between is another thing each time.
            (0..12).for_each(|other| drop(guesses(&mut expert, 100 + 12 * round + other, &world, 8)));
        }
        let mut guessed = guesses(&mut expert, 10, &world, 2);
        guessed.sort_unstable();
        assert_eq!(guessed, [11, 12]);
        let mut again = Clustered::default();
        again.restore(&expert.saved()).unwrap();
        let mut guessed = guesses(&mut again, 10, &world, 2);
        guessed.sort_unstable();
        assert_eq!(guessed, [11, 12], "after a restart as before");
        assert!(again.restore(b"nonsense").is_none());
    }
}
