//! A whole queue scored anew for another position of the viewer: nanoseconds for each request in it.
//!
//! ```sh
//! cargo bench --bench rescore
//! ```
//! `one by one` calls `score` for each request; `arrays` walks the same arrays as `vectors`, with the instructions that
//! every processor of this architecture has; `vectors` chooses the widest that this one has, at run time, which is what
//! the dispatcher does. `with lanes` is all of a rescoring: what is queued is put into arrays, scored, and put into its
//! lanes by distance, in order. Each row is one queue size with one viewer; the last ones have four viewers. The figures
//! are medians of rounds that alternate, in one process; the largest difference between the scores of `one by one` and
//! `vectors` is printed below the table.
//!
//! The second table is what asking ahead costs: a square world with a place every so many metres, a viewer that moves at
//! 30 m/s and looks ahead, three seconds of its way and 100 m around. `a distance` is how far an asset is from the viewer, as an
//! eviction policy asks for it.

mod support;

use std::hint::black_box;
use std::time::Instant;

use flyloft::config::SpatialConfig;
use flyloft::policy::places::{Places, ViewerState};
use flyloft::policy::prediction::Spatial;
use flyloft::policy::pressure::Level;
use flyloft::policy::schedule::{
    Batch, Eye, Features, LaneDistances, Lanes, Scored, Weights, score, score_all, score_all_plain,
};
use flyloft::{AssetId, Place, Priority};
use support::{count, head, median, row};

const ROUNDS: usize = 15;
/// Requests that are scored in each round of each way, at least.
const SCORED_MIN: usize = 2_000_000;

fn main() {
    println!("instructions: {:?}", pulp::Arch::new());
    head(&["requests", "viewers", "one by one, ns", "arrays, ns", "vectors, ns", "with lanes, ns"]);
    let mut worst = 0f32;
    for (len, viewers) in [(1_000, 1), (10_000, 1), (100_000, 1), (1_000_000, 1), (10_000, 4), (1_000_000, 4)] {
        worst = worst.max(measure(len, viewers));
    }
    println!("\nlargest difference between one by one and vectors: {worst:e}\n");
    head(&["places", "near the way", "a prediction, µs", "for each that it gives, ns", "a distance, ns"]);
    for (places, apart) in [(10_000, 20.0), (100_000, 20.0), (1_000_000, 20.0), (1_000_000, 10.0)] {
        predict(places, apart);
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: f32) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32 * below
    }

    fn place(&mut self) -> [f32; 3] {
        std::array::from_fn(|_| self.next(400.0) - 200.0)
    }
}

fn measure(len: usize, viewers: usize) -> f32 {
    let (weights, lanes_by) = (Weights::default(), LaneDistances::default());
    let mut numbers = Numbers(7);
    let features = |numbers: &mut Numbers| Features {
        at: (numbers.next(1.0) > 0.1).then(|| (numbers.place(), numbers.next(5.0))),
        size_bytes: Some(numbers.next(8e6) as u64),
        since_s: numbers.next(10.0),
        coarseness: numbers.next(1.0),
    };
    let all: Vec<Features> = (0..len).map(|_| features(&mut numbers)).collect();
    let mut batch = Batch::default();
    all.iter().for_each(|features| batch.push(features));
    let mut lanes: Lanes<Features, u32> = Lanes::new();
    for (key, features) in all.iter().enumerate() {
        lanes.push(Priority::Low, 0.0, key as u32, *features);
    }
    let mut eyes: Vec<Eye> =
        (0..viewers).map(|_| Eye { position: numbers.place(), direction: [1.0, 0.0, 0.0] }).collect();
    let (mut single, mut scored, mut again) = (vec![0f32; len], Scored::default(), Batch::default());
    let times = SCORED_MIN.div_ceil(len);
    let mut figures: [Vec<f64>; 4] = Default::default();
    let mut now_s = 10.0;
    for _ in 0..ROUNDS {
        let mut time = |figure: usize, times: usize, each: &mut dyn FnMut(&[Eye], f32)| {
            let began = Instant::now();
            for _ in 0..times {
                // As a frame would: the viewers and the time move on.
                now_s += 1e-4;
                eyes.iter_mut().for_each(|eye| eye.position[0] += 1e-3);
                each(&eyes, now_s);
            }
            figures[figure].push(began.elapsed().as_nanos() as f64 / (times * len) as f64);
        };
        time(0, times.div_ceil(4), &mut |eyes, now_s| {
            for (score_of, features) in single.iter_mut().zip(&all) {
                *score_of = score(&features.hints(eyes, now_s), &weights);
            }
            black_box(&mut single);
        });
        time(1, times, &mut |eyes, now_s| {
            score_all_plain(&batch, eyes, now_s, &weights, &mut scored);
            black_box(&mut scored);
        });
        time(2, times, &mut |eyes, now_s| {
            score_all(&batch, eyes, now_s, &weights, &mut scored);
            black_box(&mut scored);
        });
        time(3, times.div_ceil(16), &mut |eyes, now_s| {
            again.clear();
            lanes.items().for_each(|features| again.push(features));
            score_all(&again, eyes, now_s, &weights, &mut scored);
            let mut places = scored.scores.iter().zip(&scored.distances);
            lanes.rearrange(|_, _| {
                let (score, distance) = places.next().expect("one for each item");
                (lanes_by.lane(*distance), *score)
            });
            black_box(lanes.lane_len(Priority::Critical));
        });
    }
    let figures = figures.map(|values| format!("{:.2}", median(values)));
    let [single_ns, plain_ns, vectors_ns, lanes_ns] = figures;
    row(&[count(len as f64), viewers.to_string(), single_ns, plain_ns, vectors_ns, lanes_ns]);
    score_all(&batch, &eyes, now_s, &weights, &mut scored);
    let one = |features: &Features| score(&features.hints(&eyes, now_s), &weights);
    all.iter().zip(&scored.scores).map(|(features, many)| (one(features) - many).abs()).fold(0.0, f32::max)
}

/// A world of places in a square, so many metres apart.
fn predict(count_of: usize, apart: f32) {
    let side = (count_of as f32).sqrt();
    let place = |number: usize| {
        let (x, z) = (number as f32 % side.floor(), (number as f32 / side).floor());
        (AssetId::of_path(&format!("house/{number}")), Place::at([x * apart, 0.0, z * apart]).radius_m(2.0))
    };
    let places = Places::new((0..count_of).map(place));
    let config = SpatialConfig { candidates_max: 4096, score_least: 0.0, ..SpatialConfig::default() };
    let mut spatial = Spatial::new(config);
    let (mut into, mut numbers) = (Vec::new(), Numbers(11));
    let (mut took, mut each, mut distances) = (Vec::new(), Vec::new(), Vec::new());
    let ids: Vec<AssetId> = (0..4096).map(|number| place(number * (count_of / 4096)).0).collect();
    for _ in 0..ROUNDS {
        let (mut given, began) = (0, Instant::now());
        for _ in 0..64 {
            let position = [numbers.next(side * apart), 0.0, numbers.next(side * apart)];
            let (velocity, direction) = (Some([30.0, 0.0, 0.0]), [1.0, 0.0, 0.0]);
            let viewer = ViewerState { velocity, direction, ..ViewerState::at(position) };
            into.clear();
            spatial.predict(&places, &[viewer], Level::Normal, &mut into);
            given += into.len();
            black_box(&into);
        }
        let nanos = began.elapsed().as_nanos() as f64;
        took.push(nanos / 64.0 / 1e3);
        each.push(nanos / given.max(1) as f64);
        let eyes = [Eye { position: [side * apart / 2.0, 0.0, 0.0], direction: [1.0, 0.0, 0.0] }];
        let began = Instant::now();
        for id in &ids {
            black_box(places.distance(*id, &eyes));
        }
        distances.push(began.elapsed().as_nanos() as f64 / ids.len() as f64);
    }
    let near =
        format!("{:.0} a prediction", median(took.iter().zip(&each).map(|(took, each)| took * 1e3 / each).collect()));
    let figures = [median(took), median(each), median(distances)].map(|value| format!("{value:.1}"));
    let [took, each, distance] = figures;
    row(&[format!("{}, {apart} m apart", count(count_of as f64)), near, took, each, distance]);
}
