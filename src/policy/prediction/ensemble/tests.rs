//! What the ensemble promises, over a cache that is simulated beside it.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::config::ExpertsConfig;
use crate::policy::prediction::aged::mixed;
use crate::policy::prediction::{models, testing::access};

/// A cache of equal assets, the one that came first goes first; each asset its own rank.
struct Cache {
    assets: u64,
    room: usize,
    resident: HashMap<u64, bool>,
    order: VecDeque<u64>,
    uses: HashMap<u64, Vec<u64>>,
}

impl World for Cache {
    fn rank(&self, id: AssetId) -> Option<u64> {
        Some(id.0)
    }
    fn at(&self, rank: u64) -> Option<AssetId> {
        (rank < self.assets).then_some(AssetId(rank))
    }
    fn dependencies(&self, id: AssetId, into: &mut Vec<AssetId>) {
        into.extend(self.uses.get(&id.0).into_iter().flatten().copied().map(AssetId));
    }
    fn bytes(&self, _id: AssetId) -> Option<u64> {
        Some(1000)
    }
    fn is_resident(&self, id: AssetId) -> bool {
        self.resident.contains_key(&id.0)
    }
}

impl Cache {
    fn new(assets: u64, room: usize) -> Self {
        Self { assets, room, resident: HashMap::new(), order: VecDeque::new(), uses: HashMap::new() }
    }

    fn admit(&mut self, id: u64, speculative: bool, ensemble: &mut Ensemble) {
        if self.resident.insert(id, speculative).is_none() {
            self.order.push_back(id);
        }
        while self.resident.len() > self.room {
            let oldest = self.order.pop_front().unwrap();
            if self.resident.remove(&oldest) == Some(true) {
                ensemble.outcome(AssetId(oldest), Outcome::Wasted);
            }
        }
    }

    /// Runs the accesses; gives the misses.
    fn run(&mut self, ensemble: &mut Ensemble, accesses: impl IntoIterator<Item = u64>) -> u64 {
        let (mut misses, mut predicted) = (0, Vec::new());
        for id in accesses {
            let hit = self.resident.contains_key(&id);
            predicted.clear();
            ensemble.accessed(&Access { resident: hit, ..access(id) }, self, &mut predicted);
            misses += u64::from(!hit);
            self.admit(id, false, ensemble);
            if hit {
                self.resident.insert(id, false);
            }
            for predicted in &predicted {
                assert!(!self.is_resident(predicted.id), "what is there is not fetched");
                self.admit(predicted.id.0, true, ensemble);
            }
        }
        misses
    }
}

fn ensemble() -> Ensemble {
    Ensemble::new(&PredictionConfig::default())
}

fn random(seed: u64, assets: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |number: u64| mixed(mixed(seed) ^ number) % assets)
}

#[test]
fn streams_are_fetched_ahead_after_a_few_accesses() {
    let (mut cache, mut ensemble) = (Cache::new(100_000, 500), ensemble());
    let streams = (0..4000).map(|number| number / 4 + number % 4 * 20_000);
    let misses = cache.run(&mut ensemble, streams);
    let stats = ensemble.stats();
    assert!(misses < 100, "{misses} {stats:?}");
    assert!(stats.precision.unwrap() > 0.95 && stats.recall.unwrap() > 0.95, "{stats:?}");
}

#[test]
fn at_random_it_stops_within_a_thousand_requests_with_under_one_percent_wasted() {
    for assets in [500, 1_000_000] {
        let (mut cache, mut ensemble) = (Cache::new(assets, (assets / 50) as usize), ensemble());
        let misses = cache.run(&mut ensemble, random(assets, assets).take(1000));
        let early = ensemble.stats();
        assert!(early.prefetched * 100 < misses, "{assets}: {early:?}");
        let misses = cache.run(&mut ensemble, random(assets + 1, assets).take(5_000));
        let late = ensemble.stats();
        assert!((late.prefetched - early.prefetched) * 100 < misses, "{assets}: {late:?}");
    }
}

#[test]
fn after_a_stop_it_comes_back_without_having_spent_a_byte() {
    let (mut cache, mut ensemble) = (Cache::new(100_000, 500), ensemble());
    cache.run(&mut ensemble, 0..2000);
    cache.run(&mut ensemble, random(1, 100_000).take(5000));
    let before = ensemble.stats();
    assert!(before.experts.iter().all(|expert| expert.expert != ExpertKind::Clustered || !expert.active));
    let misses = cache.run(&mut ensemble, 50_000..52_000);
    assert!(misses < 200, "{misses} {:?}", ensemble.stats());
}

#[test]
fn declared_dependencies_are_believed_until_they_prove_wrong() {
    let (mut cache, mut used) = (Cache::new(100_000, 2000), ensemble());
    for scene in 0..50 {
        cache.uses.insert(mixed(scene) % 1000, (0..10).map(|part| 1000 + mixed(scene * 10 + part) % 90_000).collect());
    }
    let uses = cache.uses.clone();
    let scenes = || (0..50).map(|scene| mixed(scene) % 1000);
    let all = scenes().flat_map(|scene| std::iter::once(scene).chain(uses[&scene].iter().copied()));
    let misses = cache.run(&mut used, all);
    assert!(misses <= 55, "{misses} {:?}", used.stats());
    let mut unused = ensemble();
    cache.run(&mut unused, random(3, 1000).filter(|id| uses.contains_key(id)).take(2000));
    let stats = unused.stats();
    assert!(stats.prefetched < 50, "nobody asks for what they use: {stats:?}");
}

#[test]
fn what_was_learned_is_there_after_a_restart() {
    let config = PredictionConfig::default();
    let (mut cache, mut first) = (Cache::new(100_000, 200), ensemble());
    let tour: Vec<u64> = (0..3000).map(|step| mixed(step % 1000) % 100_000).collect();
    cache.run(&mut first, tour.iter().copied());
    let saved = first.save();
    let fresh = Cache::new(100_000, 200).run(&mut ensemble(), tour[..500].iter().copied());
    let mut again = Ensemble::restore(&config, &saved).unwrap();
    let learned = Cache::new(100_000, 200).run(&mut again, tour[..500].iter().copied());
    assert!(fresh > 480 && learned < 50, "{fresh} {learned}");
    assert_eq!(again.likely(3).len(), 3);
}

#[test]
fn large_assets_are_left_alone_and_experts_that_are_off_say_nothing() {
    let config = PredictionConfig { largest_bytes: 999, ..PredictionConfig::default() };
    let mut small = Ensemble::new(&config);
    Cache::new(1000, 100).run(&mut small, 0..1000);
    assert_eq!(small.stats().prefetched, 0);
    let experts = ExpertsConfig { pattern: true, ..ExpertsConfig::none() };
    let mut pattern = Ensemble::new(&PredictionConfig { experts, ..PredictionConfig::default() });
    Cache::new(1000, 100).run(&mut pattern, 0..1000);
    let stats = pattern.stats();
    assert_eq!((stats.prefetched, stats.experts.len()), (0, 1), "a tour that never comes back: {stats:?}");
}

/// An expert that is as sure as can be of whatever it is told.
struct Told(Vec<f32>);

impl Expert for Told {
    fn kind(&self) -> ExpertKind {
        ExpertKind::Spatial
    }
    fn accessed(&mut self, _access: &Access, _world: &dyn World, _distance: u8, into: &mut Vec<Guess>) {
        for (id, confidence) in (500..).zip(&self.0) {
            into.push(Guess { id: AssetId(id), confidence: *confidence, due: Due::Time(Duration::from_millis(1)) });
        }
    }
}

#[test]
fn a_confidence_that_is_no_number_is_none() {
    let mut ensemble = Ensemble::new(&PredictionConfig { experts: ExpertsConfig::none(), ..Default::default() });
    ensemble.add(Box::new(Told(vec![f32::NAN, -1.0, f32::INFINITY, 0.5])));
    Cache::new(1000, 100).run(&mut ensemble, 0..1);
    assert_eq!(ensemble.open.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn books_add_up_and_memory_is_bounded(
        accesses in prop::collection::vec(0u64..200, 0..300),
        room in 1usize..100,
    ) {
        let (mut cache, mut ensemble) = (Cache::new(200, room), ensemble());
        cache.uses = (0..50).map(|id| (id, vec![id + 50, id + 51])).collect();
        cache.run(&mut ensemble, accesses.iter().copied());
        let stats = ensemble.stats();
        prop_assert_eq!(stats.accesses, accesses.len() as u64);
        prop_assert_eq!(stats.prefetched, stats.used + stats.wasted + ensemble.fetched.len() as u64);
        prop_assert!(ensemble.fetched.len() <= room);
        let again = Ensemble::restore(&PredictionConfig::default(), &ensemble.save());
        prop_assert!(again.is_ok());
    }

    #[test]
    fn hostile_models_are_refused_or_harmless(mut body in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
        let config = PredictionConfig::default();
        drop(Ensemble::restore(&config, &models::sealed(&body)));
        // Of sound ones with one byte changed, sealed anew.
        let (mut cache, mut ensemble) = (Cache::new(100, 10), ensemble());
        cache.run(&mut ensemble, (0..60).map(|number| number % 20));
        body = models::opened(&ensemble.save()).unwrap().to_vec();
        let place = at * body.len() / 300;
        body[place] = body[place].wrapping_add(at as u8 | 1);
        if let Ok(mut changed) = Ensemble::restore(&config, &models::sealed(&body)) {
            Cache::new(100, 10).run(&mut changed, 0..50);
        }
    }
}
