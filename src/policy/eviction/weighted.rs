//! A score of everything that is known, with weights that the program chooses: what game engines' streaming uses.
//!
//! Sources: the weights of age, size, priority and distance are those of texture and level streaming in game engines
//! (Chen: "Texture streaming in Titanfall 2", GDC 2018, and the streaming of Unreal and Unity); frequency and cost are
//! GDSF's (Cherkasova 1998). A score is a product, each property to the power of its weight:
//! `age^a * size^s * distance^d / (frequency^f * cost^c * 4^(p * urgency))`. The highest goes first.
//!
//! Distances change with every step of a viewer, so that no order would last. Victims are the worst of a sample instead,
//! as in Redis (Sanfilippo: "Random notes on improving the Redis LRU algorithm", 2016): of 16 drawn for each victim, and of
//! 16 that were the worst of those drawn before. Of few assets all are looked at, and the order is exact.

use std::collections::HashMap;

use super::{Admitted, Eviction, PolicyReport, Removal, Seen, Usage, View};
use crate::config::{EvictionPolicy, EvictionWeights};
use crate::ids::{AssetId, AssetKind, Hashing, Priority};

/// Assets drawn for each victim.
const DRAWN: usize = 16;
/// The worst of those drawn before that are kept.
const KEPT: usize = 16;
/// Of so many all are looked at.
const EXACT_MAX: usize = 64;
/// Held assets that are looked at again with each choice.
const HELD_LOOKS: usize = 2;
/// Bytes, microseconds and ticks that count as one: below them a doubling counts less.
const SIZE_UNIT: f32 = 4096.0;
const COST_UNIT: f32 = 100.0;
const KINDS: usize = AssetKind::ALL.len();

/// See the module's words.
#[derive(Debug)]
pub struct Weighted {
    weights: EvictionWeights,
    kinds: [Drawer; KINDS],
    places: HashMap<AssetId, (AssetKind, u32), Hashing>,
    /// The worst of those drawn before.
    kept: Vec<AssetId>,
    random: u64,
    /// Counts the choices, to tell what was named in this one.
    choices: u32,
}

/// The assets of a kind, to draw from. Those that were held when they were drawn are behind the others.
#[derive(Debug, Default)]
struct Drawer {
    known: Vec<Known>,
    /// How many are not held, as far as that was looked at.
    free: usize,
    /// Where the held ones are looked at next.
    next_held: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: AssetId,
    cost_us: f32,
    priority: Priority,
    /// The choice that named it last.
    named: u32,
}

/// Someone who may go, and how much so.
#[derive(Clone, Copy)]
struct Scored {
    score: f32,
    id: AssetId,
    weight: u64,
}

impl Drawer {
    fn swap(&mut self, a: usize, b: usize, places: &mut HashMap<AssetId, (AssetKind, u32), Hashing>) {
        self.known.swap(a, b);
        for at in [a, b] {
            if let Some(place) = places.get_mut(&self.known[at].id) {
                place.1 = at as u32;
            }
        }
    }
}

impl Weighted {
    /// Nothing is known. The weights are valid ones.
    pub fn new(weights: EvictionWeights) -> Self {
        Self {
            weights,
            kinds: Default::default(),
            places: HashMap::default(),
            kept: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            choices: 0,
        }
    }

    /// Marsaglia's xorshift, 2003.
    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * below as u128) >> 64) as usize
    }

    fn score(&self, known: &Known, seen: &Seen, tick: u32) -> f32 {
        let weights = &self.weights;
        let age = tick.wrapping_sub(seen.usage.tick());
        // A hit may have been later than the look at the clock.
        let age = if age > u32::MAX / 2 { 0 } else { age };
        let doublings = |value: f32, unit: f32| (1.0 + (value / unit).max(0.0)).log2().min(64.0);
        let cost = if known.cost_us.is_nan() { 0.0 } else { known.cost_us };
        let distance = seen.distance.filter(|distance| !distance.is_nan()).unwrap_or(0.0);
        let urgency = Priority::Low as u8 - known.priority as u8;
        weights.age * doublings(age as f32, 1.0)
            + weights.size * doublings(seen.weight as f32, SIZE_UNIT)
            + weights.distance * doublings(distance, 1.0)
            - weights.frequency * doublings(f32::from(seen.usage.uses()), 1.0)
            - weights.cost * doublings(cost, COST_UNIT)
            - weights.priority * 2.0 * f32::from(urgency)
    }

    fn forget(&mut self, id: AssetId) {
        let Some((kind, at)) = self.places.remove(&id) else { return };
        let drawer = &mut self.kinds[kind as usize];
        let (mut at, last) = (at as usize, drawer.known.len() - 1);
        if at < drawer.free {
            // The last of the free ones fills the gap, and the last of the held ones that one's.
            drawer.free -= 1;
            drawer.swap(at, drawer.free, &mut self.places);
            at = drawer.free;
        }
        drawer.swap(at, last, &mut self.places);
        drawer.known.pop();
    }

    /// What may go, with its score. What is held goes behind the others, what is lost is forgotten.
    fn judge(&mut self, id: AssetId, view: &dyn View) -> Option<Scored> {
        let &(kind, at) = self.places.get(&id)?;
        let Some(seen) = view.look(id) else {
            self.forget(id);
            return None;
        };
        let drawer = &mut self.kinds[kind as usize];
        let mut at = at as usize;
        if seen.pinned != (at >= drawer.free) {
            // To the border between the two, which moves over it.
            drawer.free -= usize::from(seen.pinned);
            drawer.swap(at, drawer.free, &mut self.places);
            at = drawer.free;
            drawer.free += usize::from(!seen.pinned);
        }
        let known = drawer.known[at];
        if seen.pinned || known.named == self.choices {
            return None;
        }
        Some(Scored { score: self.score(&known, &seen, view.tick()), id, weight: seen.weight })
    }

    fn kinds_of(kind: Option<AssetKind>) -> impl Iterator<Item = usize> {
        (0..KINDS).filter(move |of| kind.is_none_or(|kind| kind as usize == *of))
    }

    fn name(&mut self, scored: Scored, freed_bytes: &mut u64, into: &mut Vec<AssetId>) {
        if let Some((kind, at)) = self.places.get(&scored.id) {
            self.kinds[*kind as usize].known[*at as usize].named = self.choices;
        }
        into.push(scored.id);
        *freed_bytes = freed_bytes.saturating_add(scored.weight);
    }

    /// Everyone, the worst first.
    fn choose_exactly(
        &mut self,
        want: u64,
        mut freed: u64,
        kind: Option<AssetKind>,
        view: &dyn View,
        into: &mut Vec<AssetId>,
    ) {
        let ids = Self::kinds_of(kind).flat_map(|of| self.kinds[of].known.iter().map(|known| known.id));
        let ids: Vec<AssetId> = ids.collect();
        let mut all: Vec<Scored> = ids.into_iter().filter_map(|id| self.judge(id, view)).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        for scored in all {
            if freed >= want {
                break;
            }
            self.name(scored, &mut freed, into);
        }
    }

    /// The worst of those drawn, until it is enough; gives what came free.
    fn choose_from_samples(
        &mut self,
        want: u64,
        kind: Option<AssetKind>,
        view: &dyn View,
        into: &mut Vec<AssetId>,
    ) -> u64 {
        let mut freed = 0;
        let mut best: Vec<Scored> = Vec::with_capacity(KEPT + DRAWN);
        let (meant, others): (Vec<AssetId>, Vec<AssetId>) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|id| self.places.get(id).is_some_and(|place| kind.is_none_or(|kind| kind == place.0)));
        best.extend(meant.into_iter().filter_map(|id| self.judge(id, view)));
        while freed < want {
            for _ in 0..DRAWN {
                let mut left = match Self::kinds_of(kind).map(|of| self.kinds[of].free).sum() {
                    0 => break,
                    free => self.draw(free),
                };
                for of in Self::kinds_of(kind) {
                    if left < self.kinds[of].free {
                        let id = self.kinds[of].known[left].id;
                        if best.iter().all(|scored| scored.id != id)
                            && let Some(scored) = self.judge(id, view)
                        {
                            best.push(scored);
                        }
                        break;
                    }
                    left -= self.kinds[of].free;
                }
            }
            best.sort_unstable_by(|a, b| a.score.total_cmp(&b.score).then(b.id.cmp(&a.id)));
            let Some(worst) = best.pop() else { break };
            self.name(worst, &mut freed, into);
            best.drain(..best.len().saturating_sub(KEPT));
        }
        self.kept = best.into_iter().map(|scored| scored.id).collect();
        let room = KEPT - self.kept.len();
        self.kept.extend(others.into_iter().filter(|id| self.places.contains_key(id)).take(room));
        freed
    }
}

impl Eviction for Weighted {
    fn admitted(&mut self, asset: &Admitted) {
        let Admitted { id, kind, cost_us, priority, .. } = *asset;
        self.forget(id);
        let drawer = &mut self.kinds[kind as usize];
        let known = Known { id, cost_us, priority, named: self.choices };
        self.places.insert(id, (kind, drawer.known.len() as u32));
        drawer.known.push(known);
        let last = drawer.known.len() - 1;
        drawer.swap(drawer.free, last, &mut self.places);
        drawer.free += 1;
    }

    fn removed(&mut self, id: AssetId, _why: Removal, _last: Option<Usage>) {
        self.forget(id);
    }

    fn choose(&mut self, want_bytes: u64, kind: Option<AssetKind>, view: &dyn View, into: &mut Vec<AssetId>) {
        self.choices = self.choices.wrapping_add(1);
        if want_bytes == 0 {
            return;
        }
        for of in Self::kinds_of(kind) {
            for _ in 0..HELD_LOOKS {
                let drawer = &mut self.kinds[of];
                let held = drawer.known.len() - drawer.free;
                if held > 0 {
                    drawer.next_held = (drawer.next_held + 1) % held;
                    let id = drawer.known[drawer.free + drawer.next_held].id;
                    self.judge(id, view);
                }
            }
        }
        let all: usize = Self::kinds_of(kind).map(|of| self.kinds[of].known.len()).sum();
        let freed = if all > EXACT_MAX { self.choose_from_samples(want_bytes, kind, view, into) } else { 0 };
        if freed < want_bytes {
            // There are few, or few that are not held: those that no sample met are among all.
            self.choose_exactly(want_bytes, freed, kind, view, into);
        }
    }

    fn report(&self) -> PolicyReport {
        let known: usize = self.kinds.iter().map(|drawer| drawer.known.capacity()).sum();
        let held: usize = self.kinds.iter().map(|drawer| drawer.known.len() - drawer.free).sum();
        PolicyReport {
            name: EvictionPolicy::Weighted.name().to_owned(),
            residents: self.places.len(),
            ghosts: 0,
            memory_bytes: known * size_of::<Known>()
                + self.places.capacity() * (size_of::<(AssetId, (AssetKind, u32))>() + 1),
            figures: vec![("held when drawn".into(), held as f64)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{KIND, World, admitted, conforms};
    use super::*;

    conforms!(Weighted::new(EvictionWeights::default()));

    const NOTHING: EvictionWeights =
        EvictionWeights { age: 0.0, frequency: 0.0, size: 0.0, priority: 0.0, distance: 0.0, cost: 0.0 };

    /// Who goes first of 0 to 4, each of which has more of one property than the one before.
    fn order(weights: EvictionWeights, make: fn(&mut World, &mut Weighted, u64)) -> Vec<u64> {
        let (mut policy, mut world) = (Weighted::new(weights), World::at(100));
        (0..5).for_each(|id| make(&mut world, &mut policy, id));
        world.choose(&mut policy, u64::MAX, None)
    }

    #[test]
    fn each_property_counts_as_its_weight_says() {
        let (up, down) = ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]);
        assert_eq!(
            order(EvictionWeights { age: 1.0, ..NOTHING }, |world, policy, id| {
                world.admit(policy, id, 10, KIND);
                world.tick += 1;
            }),
            up
        );
        assert_eq!(
            order(EvictionWeights { frequency: 1.0, ..NOTHING }, |world, policy, id| {
                world.admit(policy, id, 10, KIND);
                for _ in 0..id {
                    world.tick += 1;
                    world.hit(id);
                }
            }),
            up
        );
        assert_eq!(
            order(EvictionWeights { size: 1.0, ..NOTHING }, |world, policy, id| {
                world.admit(policy, id, 10 << id, KIND);
            }),
            down
        );
        assert_eq!(
            order(EvictionWeights { cost: 1.0, ..NOTHING }, |world, policy, id| {
                world.admit_as(policy, &Admitted { cost_us: 100.0 * id as f32, ..admitted(id) });
            }),
            up
        );
        assert_eq!(
            order(EvictionWeights { distance: 1.0, ..NOTHING }, |world, policy, id| {
                world.admit(policy, id, 10, KIND);
                world.resident.get_mut(&AssetId(id)).unwrap().distance = Some(id as f32);
            }),
            down
        );
        let urgent = order(EvictionWeights { priority: 1.0, ..NOTHING }, |world, policy, id| {
            let priority = Priority::ALL[3 - (id as usize).min(3)];
            world.admit_as(policy, &Admitted { priority, ..admitted(id) });
        });
        assert_eq!(urgent, up);
    }

    #[test]
    fn of_many_those_that_go_are_among_the_worst() {
        let weights = EvictionWeights { age: 1.0, ..NOTHING };
        let (mut policy, mut world) = (Weighted::new(weights), World::default());
        for id in 0..10_000 {
            world.admit(&mut policy, id, 10, KIND);
            world.tick += 1;
        }
        let gone = world.evict(&mut policy, 10_000, None);
        let among = gone.iter().filter(|id| **id < 2_000).count();
        assert!(among > 950, "{among} of 1000 among the oldest fifth");
    }

    #[test]
    fn what_is_far_away_goes_as_soon_as_it_is_far_away() {
        let weights = EvictionWeights { distance: 1.0, ..NOTHING };
        let (mut policy, mut world) = (Weighted::new(weights), World::default());
        for id in 0..50 {
            world.admit(&mut policy, id, 10, KIND);
            world.resident.get_mut(&AssetId(id)).unwrap().distance = Some(id as f32);
        }
        assert_eq!(world.choose(&mut policy, 20, None), [49, 48]);
        for (id, one) in &mut world.resident {
            one.distance = Some((id.0 as f32 - 30.0).abs());
        }
        assert_eq!(world.choose(&mut policy, 20, None), [0, 1]);
    }
}
