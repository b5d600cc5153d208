//! What every policy must hold to, as one suite that each policy's tests run.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Admitted, Eviction, Removal, Seen, Usage, View};
use crate::ids::{AssetId, AssetKind, Priority};

/// One resident asset of a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct One {
    pub usage: Usage,
    pub weight: u64,
    pub kind: AssetKind,
    pub pinned: bool,
    pub distance: Option<f32>,
}

/// What is resident in a test, and what time it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub resident: BTreeMap<AssetId, One>,
    pub tick: u32,
}

impl View for World {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let One { usage, weight, kind, pinned, distance } = *self.resident.get(&id)?;
        Some(Seen { usage, weight, kind, pinned, distance })
    }

    fn tick(&self) -> u32 {
        self.tick
    }
}

impl World {
    /// One at this tick, with nothing resident.
    pub fn at(tick: u32) -> Self {
        Self { tick, ..Self::default() }
    }

    /// Makes it resident, as the runtime does.
    pub fn admit(&mut self, policy: &mut dyn Eviction, id: u64, weight: u64, kind: AssetKind) {
        self.admit_as(policy, &Admitted { weight, kind, ..admitted(id) });
    }

    /// As [`World::admit`], with all that is told of it but the tick.
    pub fn admit_as(&mut self, policy: &mut dyn Eviction, asset: &Admitted) {
        let Admitted { id, weight, kind, .. } = *asset;
        let one = One { usage: Usage::new(self.tick), weight, kind, pinned: false, distance: None };
        self.resident.insert(id, one);
        policy.admitted(&Admitted { tick: self.tick, ..*asset });
    }

    /// Hits it, if it is there.
    pub fn hit(&mut self, id: u64) -> bool {
        let tick = self.tick;
        let one = self.resident.get_mut(&AssetId(id));
        one.map(|one| one.usage = one.usage.used(tick)).is_some()
    }

    /// Holds it, or lets it go.
    pub fn pin(&mut self, id: u64, pinned: bool) {
        if let Some(one) = self.resident.get_mut(&AssetId(id)) {
            one.pinned = pinned;
        }
    }

    /// Takes it out, and says so.
    pub fn remove(&mut self, policy: &mut dyn Eviction, id: u64, why: Removal) {
        if let Some(one) = self.resident.remove(&AssetId(id)) {
            policy.removed(AssetId(id), why, Some(one.usage));
        }
    }

    /// What the policy names, checked against everything that it promises.
    pub fn choose(&self, policy: &mut dyn Eviction, want: u64, kind: Option<AssetKind>) -> Vec<u64> {
        // What is in the vector already is not the policy's.
        let mut chosen = vec![AssetId(u64::MAX)];
        policy.choose(want, kind, self, &mut chosen);
        assert_eq!(chosen.remove(0), AssetId(u64::MAX), "it appends");
        let mut bytes = 0;
        for id in &chosen {
            let one = self.resident.get(id).expect("it names what the view has");
            assert!(!one.pinned, "{id} is held");
            assert!(kind.is_none_or(|kind| one.kind == kind), "{id} is of another kind");
            assert!(bytes < want, "{id} is more than is wanted");
            bytes += one.weight;
        }
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len(), "none twice: {chosen:?}");
        let can = |one: &&One| !one.pinned && kind.is_none_or(|kind| one.kind == kind);
        let there: u64 = self.resident.values().filter(can).map(|one| one.weight).sum();
        assert!(bytes >= want.min(there), "{bytes} of {want} bytes, and {there} are there");
        chosen.into_iter().map(|id| id.0).collect()
    }

    /// Evicts what the policy names until so many bytes came free; gives what went.
    pub fn evict(&mut self, policy: &mut dyn Eviction, want: u64, kind: Option<AssetKind>) -> Vec<u64> {
        let chosen = self.choose(policy, want, kind);
        chosen.iter().for_each(|id| self.remove(policy, *id, Removal::Evicted));
        chosen
    }

    /// Bytes that are resident.
    pub fn bytes(&self) -> u64 {
        self.resident.values().map(|one| one.weight).sum()
    }

    /// A request under a budget, as the runtime answers it: whether it was a hit.
    pub fn request(&mut self, policy: &mut dyn Eviction, budget: u64, id: u64, weight: u64) -> bool {
        self.tick = self.tick.wrapping_add(1);
        if self.hit(id) {
            return true;
        }
        let over = (self.bytes() + weight).saturating_sub(budget);
        if over > 0 {
            self.evict(policy, over, None);
        }
        if weight <= budget {
            self.admit(policy, id, weight, KIND);
        }
        false
    }
}

/// The kind of an asset that says none.
pub(super) const KIND: AssetKind = AssetKind::Text;

/// An asset with nothing special about it.
pub(super) fn admitted(id: u64) -> Admitted {
    let (weight, kind, priority) = (10, KIND, Priority::Medium);
    Admitted { id: AssetId(id), weight, kind, tick: 0, cost_us: 100.0, priority, speculative: false }
}

/// How many of these requests, each of 1 byte, a policy answers from a budget of so many.
pub(super) fn hits(policy: &mut dyn Eviction, budget: u64, requests: impl IntoIterator<Item = u64>) -> usize {
    let mut world = World::default();
    requests.into_iter().filter(|id| world.request(policy, budget, *id, 1)).count()
}

/// Numbers that look random: the same for the same seed (Vigna's splitmix64, 2015).
pub(super) fn random(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Requests for `count` things of which the first are the most wanted: about one over the rank (Zipf, 1949).
pub(super) fn skewed(seed: u64, count: u64) -> impl Iterator<Item = u64> {
    let largest = (count as f64).ln();
    random(seed).map(move |number| (((number >> 11) as f64 / (1u64 << 53) as f64 * largest).exp() - 1.0) as u64)
}

#[derive(Clone, Debug)]
enum Step {
    Admit {
        id: u64,
        weight: u64,
        kind: usize,
        speculative: bool,
    },
    Hit(u64),
    Pin(u64, bool),
    Gone(u64),
    /// It leaves the view, and nobody says so.
    Lost(u64),
    Choose(u64, Option<usize>),
    Evict(u64, Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::option::of(0usize..3);
    prop_oneof![
        6 => (0u64..60, 0u64..50, 0usize..3, any::<bool>())
            .prop_map(|(id, weight, kind, speculative)| Step::Admit { id, weight, kind, speculative }),
        8 => (0u64..60).prop_map(Step::Hit),
        2 => (0u64..60, any::<bool>()).prop_map(|(id, pinned)| Step::Pin(id, pinned)),
        1 => (0u64..60).prop_map(Step::Gone),
        1 => (0u64..60).prop_map(Step::Lost),
        2 => (0u64..600, kind()).prop_map(|(bytes, kind)| Step::Choose(bytes, kind)),
        3 => (0u64..200, kind()).prop_map(|(bytes, kind)| Step::Evict(bytes, kind)),
    ]
}

/// Whatever comes, goes, is used and held: each choice is checked by [`World::choose`].
pub(super) fn choices_keep_their_promises(make: &dyn Fn() -> Box<dyn Eviction>) {
    let steps = prop::collection::vec(step(), 1..400);
    let first = prop_oneof![Just(0u32), Just(u32::MAX - 90), Just(u32::MAX / 2 - 40)];
    let mut runner = proptest::test_runner::TestRunner::default();
    let result = runner.run(&(steps, first), |(steps, first)| {
        let (mut policy, mut world) = (make(), World::at(first));
        for step in steps {
            world.tick = world.tick.wrapping_add(1);
            let kind_of = |kind: Option<usize>| kind.map(|kind| AssetKind::ALL[kind]);
            match step {
                Step::Admit { id, weight, kind, speculative } => {
                    // What an asset is does not change while it is resident; what it weighs may.
                    let kind = world.resident.get(&AssetId(id)).map_or(AssetKind::ALL[kind], |one| one.kind);
                    world.admit_as(&mut *policy, &Admitted { weight, kind, speculative, ..admitted(id) });
                }
                Step::Hit(id) => _ = world.hit(id),
                Step::Pin(id, pinned) => world.pin(id, pinned),
                Step::Gone(id) => world.remove(&mut *policy, id, Removal::Gone),
                Step::Lost(id) => _ = world.resident.remove(&AssetId(id)),
                Step::Choose(bytes, kind) => _ = world.choose(&mut *policy, bytes, kind_of(kind)),
                Step::Evict(bytes, kind) => _ = world.evict(&mut *policy, bytes, kind_of(kind)),
            }
        }
        // Choosing removed nothing: everything that nobody holds can still be had.
        world.choose(&mut *policy, u64::MAX, None);
        world.choose(&mut *policy, u64::MAX, None);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What the view does not have any more is forgotten when it comes up.
pub(super) fn what_the_view_lost_is_forgotten(make: &dyn Fn() -> Box<dyn Eviction>) {
    let (mut policy, mut world) = (make(), World::default());
    for id in 0..1000 {
        world.admit(&mut *policy, id, 10, KIND);
    }
    assert_eq!(policy.report().residents, 1000);
    world.resident.retain(|id, _| id.0 >= 990);
    assert_eq!(world.choose(&mut *policy, u64::MAX, None).len(), 10);
    assert_eq!(policy.report().residents, 10);
    policy.removed(AssetId(5), Removal::Gone, None);
    policy.removed(AssetId(5_000), Removal::Evicted, Some(Usage::new(1)));
    assert_eq!(policy.report().residents, 10, "what is not known can go, too");
}

/// A million come and go, 1,000 at a time: the memory of it stays that of 1,000 and of a bounded past.
pub(super) fn memory_stays_bounded(make: &dyn Fn() -> Box<dyn Eviction>) {
    let (mut policy, mut world) = (make(), World::default());
    for id in 0..1_000_000u64 {
        world.tick = world.tick.wrapping_add(1);
        world.admit(&mut *policy, id, 10, AssetKind::ALL[(id % 3) as usize]);
        if id % 2 == 0 {
            world.hit(id.saturating_sub(id % 700));
        }
        if id % 100 == 99 && id >= 1000 {
            world.evict(&mut *policy, 970, None);
            world.remove(&mut *policy, id - 50, Removal::Gone);
            let over = world.resident.len().saturating_sub(1000) as u64;
            world.evict(&mut *policy, over * 10, Some(AssetKind::ALL[1]));
        }
    }
    let report = policy.report();
    assert_eq!(report.residents, world.resident.len());
    assert!(report.memory_bytes < 8 << 20, "{report:?}");
}

/// What is held when room is needed costs nothing much, however much of it there is.
pub(super) fn what_is_held_is_passed_over_at_little_cost(make: &dyn Fn() -> Box<dyn Eviction>) {
    struct Counting<'a>(&'a World, std::cell::Cell<usize>);
    impl View for Counting<'_> {
        fn look(&self, id: AssetId) -> Option<Seen> {
            self.1.set(self.1.get() + 1);
            self.0.look(id)
        }
        fn tick(&self) -> u32 {
            self.0.tick
        }
    }
    let (mut policy, mut world) = (make(), World::default());
    for id in 0..4000 {
        world.tick += 1;
        world.admit(&mut *policy, id, 10, KIND);
        world.pin(id, id < 2000);
    }
    let mut looks = 0;
    for _ in 0..1000 {
        let view = Counting(&world, std::cell::Cell::new(0));
        let mut chosen = Vec::new();
        policy.choose(10, None, &view, &mut chosen);
        looks += view.1.get();
        world.tick += 1;
        chosen.iter().for_each(|id| world.remove(&mut *policy, id.0, Removal::Evicted));
    }
    assert_eq!(world.resident.len(), 3000);
    assert!(looks < 1000 * 100, "{looks} looks for 1000 victims");
}

/// Assets that are asked for again and again stay, against a few that are not.
pub(super) fn what_is_used_often_is_kept(make: &dyn Fn() -> Box<dyn Eviction>) {
    let mut policy = make();
    let hits = hits(&mut *policy, 100, skewed(1, 10_000).take(20_000));
    // Any 100 of the 10,000 would give 200; the best 100 give about half of 20,000.
    assert!(hits > 5_000, "{hits}");
}

/// The tests that hold a policy to all of this. `$make` makes one, boxed or not.
macro_rules! conforms {
    ($make:expr) => {
        mod conformance {
            use super::*;

            fn make() -> Box<dyn Eviction> {
                Box::new($make)
            }

            #[test]
            fn choices_keep_their_promises() {
                crate::policy::eviction::conformance::choices_keep_their_promises(&make);
            }

            #[test]
            fn what_the_view_lost_is_forgotten() {
                crate::policy::eviction::conformance::what_the_view_lost_is_forgotten(&make);
            }

            #[test]
            fn memory_stays_bounded() {
                crate::policy::eviction::conformance::memory_stays_bounded(&make);
            }

            #[test]
            fn what_is_held_is_passed_over_at_little_cost() {
                crate::policy::eviction::conformance::what_is_held_is_passed_over_at_little_cost(&make);
            }

            #[test]
            fn what_is_used_often_is_kept() {
                crate::policy::eviction::conformance::what_is_used_often_is_kept(&make);
            }
        }
    };
}
pub(super) use conforms;
