//! In which order contents are laid out when it is known what was asked for: what was asked for together lies together, so
//! that one frame, or one read of neighbours, brings what comes next.
//!
//! Assets are joined into chains, the pairs that followed each other most often first, as Karl Pettis and Robert C.
//! Hansen join the blocks of a program ("Profile guided code positioning", PLDI 1990): a pair joins two chains where it
//! stands at an end of each. Chains follow each other in the order of their first use. Only counts and first uses decide:
//! the same traces give the same order.

use std::collections::{HashMap, VecDeque};

use crate::error::Result;
use crate::ids::AssetId;
use crate::telemetry::accesses::{Access, Level};

/// How many accesses back another one counts as near.
const NEAR: usize = 4;
/// Neighbours that are remembered of an asset: of more the rarest are forgotten.
const NEIGHBOURS_MAX: usize = 32;

/// Learns from accesses which assets belong together.
#[derive(Default)]
pub struct AccessOrder {
    /// Assets by their first use.
    numbers: HashMap<AssetId, u32>,
    ids: Vec<AssetId>,
    /// For each asset the later ones near which it was used, and how often.
    near: Vec<Vec<(u32, u64)>>,
}

impl AccessOrder {
    /// Takes in the accesses of a trace. What failed, and what became of prefetches, does not count.
    ///
    /// # Errors
    /// The first error among them.
    pub fn learn(&mut self, trace: impl IntoIterator<Item = Result<Access>>) -> Result<()> {
        let mut last: VecDeque<u32> = VecDeque::with_capacity(NEAR);
        for access in trace {
            let access = access?;
            if !access.level.is_access() || access.level == Level::Failed {
                continue;
            }
            let next = self.ids.len() as u32;
            let number = *self.numbers.entry(access.id).or_insert(next);
            if number == next {
                self.ids.push(access.id);
                self.near.push(Vec::new());
            }
            if last.back() == Some(&number) {
                continue;
            }
            for (back, before) in last.iter().rev().enumerate() {
                if *before != number {
                    self.count(*before, number, (NEAR - back) as u64);
                }
            }
            if last.len() == NEAR {
                last.pop_front();
            }
            last.push_back(number);
        }
        Ok(())
    }

    fn count(&mut self, one: u32, other: u32, weight: u64) {
        let near = &mut self.near[one.min(other) as usize];
        let later = one.max(other);
        match near.iter().position(|(number, _)| *number == later) {
            Some(at) => near[at].1 += weight,
            None if near.len() < NEIGHBOURS_MAX => near.push((later, weight)),
            None => {
                // As in Metwally's Space-Saving: the rarest gives its place, and its count, to the newest.
                let rarest = (0..near.len()).min_by_key(|&at| (near[at].1, near[at].0)).unwrap_or(0);
                near[rarest] = (later, near[rarest].1 + weight);
            }
        }
    }

    /// How many assets were asked for.
    pub fn assets(&self) -> usize {
        self.ids.len()
    }

    /// The place of each asset that was asked for.
    pub fn places(&self) -> HashMap<AssetId, u32> {
        let order = self.order();
        order.into_iter().enumerate().map(|(place, number)| (self.ids[number as usize], place as u32)).collect()
    }

    fn order(&self) -> Vec<u32> {
        let mut pairs: Vec<(u64, u32, u32)> = Vec::new();
        for (one, near) in self.near.iter().enumerate() {
            pairs.extend(near.iter().map(|&(other, count)| (count, one as u32, other)));
        }
        pairs.sort_unstable_by_key(|&(count, one, other)| (std::cmp::Reverse(count), one, other));
        let mut chains = Chains::new(self.ids.len());
        for (_, one, other) in pairs {
            chains.join(one, other);
        }
        chains.order()
    }
}

/// Paths through the assets.
struct Chains {
    /// What stands beside each asset in its chain.
    beside: Vec<[Option<u32>; 2]>,
    /// Leads to the chain's own asset.
    parent: Vec<u32>,
}

impl Chains {
    fn new(assets: usize) -> Chains {
        Chains { beside: vec![[None; 2]; assets], parent: (0..assets as u32).collect() }
    }

    fn chain(&mut self, asset: u32) -> u32 {
        let mut at = asset;
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// Joins the chains of two assets, if both stand at an end of different ones.
    fn join(&mut self, one: u32, other: u32) {
        let free = |beside: &[Option<u32>; 2]| beside.iter().position(Option::is_none);
        let (Some(at), Some(there)) = (free(&self.beside[one as usize]), free(&self.beside[other as usize])) else {
            return;
        };
        let (first, second) = (self.chain(one), self.chain(other));
        if first == second {
            return;
        }
        self.beside[one as usize][at] = Some(other);
        self.beside[other as usize][there] = Some(one);
        let (low, high) = (first.min(second), first.max(second));
        self.parent[high as usize] = low;
    }

    /// Every asset: chain after chain by first use, each from its end that was used first.
    fn order(&self) -> Vec<u32> {
        let mut order = Vec::with_capacity(self.beside.len());
        let mut done = vec![false; self.beside.len()];
        for asset in 0..self.beside.len() as u32 {
            if done[asset as usize] {
                continue;
            }
            let ends = [self.end(asset, 0), self.end(asset, 1)];
            let (mut before, mut at) = (None, Some(ends[0].min(ends[1])));
            while let Some(here) = at {
                order.push(here);
                done[here as usize] = true;
                at = self.beside[here as usize].iter().flatten().copied().find(|&next| Some(next) != before);
                before = Some(here);
            }
        }
        order
    }

    /// The end of the chain of `asset` in one direction.
    fn end(&self, asset: u32, direction: usize) -> u32 {
        let mut here = asset;
        let mut next = self.beside[asset as usize][direction];
        while let Some(there) = next {
            let before = std::mem::replace(&mut here, there);
            next = self.beside[here as usize].iter().flatten().copied().find(|&next| next != before);
        }
        here
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Origin, Priority};

    fn access(id: u64, level: Level) -> Result<Access> {
        let (priority, origin) = (Priority::Medium, Origin::User);
        Ok(Access { id: AssetId(id), stored: false, at_us: 0, weight: 1, level, priority, origin, latency_us: 0 })
    }

    fn order(traces: &[&[u64]]) -> Vec<u64> {
        let mut order = AccessOrder::default();
        for trace in traces {
            order.learn(trace.iter().map(|id| access(*id, Level::Hit))).unwrap();
        }
        let mut places: Vec<(u32, u64)> = order.places().into_iter().map(|(id, place)| (place, id.0)).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, id)| id).collect()
    }

    #[test]
    fn what_is_asked_for_together_lies_together_whatever_came_first() {
        // Two groups in turns at first, then each by itself, often.
        let mut trace = vec![1, 11, 2, 12, 3, 13];
        for _ in 0..10 {
            trace.extend([1, 2, 3, 50, 51, 52, 53, 11, 12, 13, 60, 61, 62, 63]);
        }
        let order = order(&[&trace]);
        let at = |id| order.iter().position(|other| *other == id).unwrap();
        for (one, other) in [(1, 2), (2, 3), (11, 12), (12, 13)] {
            assert_eq!(at(one).abs_diff(at(other)), 1, "{order:?}");
        }
    }

    #[test]
    fn a_straight_reading_keeps_its_order() {
        assert_eq!(order(&[&[5, 4, 3, 2, 1]]), [5, 4, 3, 2, 1]);
        assert_eq!(order(&[&[5, 4], &[9, 8]]), [5, 4, 9, 8]);
    }

    #[test]
    fn what_failed_and_what_became_of_prefetches_does_not_count() {
        let mut order = AccessOrder::default();
        order.learn([access(1, Level::Failed), access(2, Level::PrefetchUsed), access(3, Level::Loaded)]).unwrap();
        assert_eq!(order.places(), HashMap::from([(AssetId(3), 0)]));
    }

    proptest! {
        #[test]
        fn every_asset_has_one_place_and_the_order_is_the_same_again(trace in prop::collection::vec(0u64..60, 0..400)) {
            let first = order(&[&trace]);
            prop_assert_eq!(&first, &order(&[&trace]));
            let (mut sorted, mut known) = (first.clone(), trace);
            sorted.sort_unstable();
            known.sort_unstable();
            known.dedup();
            prop_assert_eq!(sorted, known);
        }
    }
}
