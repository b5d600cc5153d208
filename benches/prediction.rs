//! `cargo bench --bench prediction [-- TRACES]`: what prediction is worth, expert by expert and together, over generated
//! accesses and over the traces of a folder (CSV `time,id,size`, `.zst` or not; default ../shared/traces where there is one).
//!
//! A cache of a part of the footprint, the one that was used least recently goes first, is driven with and without
//! prefetches. A prefetch makes room as a load does. Everything is counted, nothing is timed but a prediction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flyloft::config::{ExpertsConfig, PredictionConfig};
use flyloft::policy::eviction::{Admitted, Eviction, Lru, Removal, Seen, Usage, View};
use flyloft::policy::prediction::{Access, Ensemble, ExpertKind, Outcome, PredictionStats, World};
use flyloft::{AssetId, AssetKind, Priority};

/// A trace: what is asked for, and how large each thing is.
struct Trace {
    name: String,
    requests: Vec<u32>,
    sizes: Vec<u64>,
    /// What each thing is known to use.
    uses: HashMap<u32, Vec<u32>>,
}

/// A generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Small numbers are likelier, by about one over their size.
    fn skewed(&mut self, bound: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((bound as f64).powf(unit) as u64 - 1).min(bound - 1)
    }
}

const OBJECTS: u64 = 20_000;
const REQUESTS: usize = 100_000;

fn generated() -> Vec<Trace> {
    let numbers = || Numbers(7);
    let trace = |name: &str, requests: Vec<u64>, uses: HashMap<u32, Vec<u32>>| {
        let mut sizes = numbers();
        let sizes = (0..OBJECTS).map(|_| 4096 << sizes.below(5)).collect();
        let requests = requests.into_iter().map(|id| id as u32).collect();
        Trace { name: name.into(), requests, sizes, uses }
    };
    let streams = |numbers: &mut Numbers, step: u64, at_once: usize, length: u64| -> Vec<u64> {
        let mut open: Vec<(u64, u64)> = vec![(0, 0); at_once];
        let mut requests = Vec::with_capacity(REQUESTS);
        while requests.len() < REQUESTS {
            let stream = &mut open[numbers.below(at_once as u64) as usize];
            if stream.1 == 0 {
                *stream = (numbers.below(OBJECTS), length / 2 + numbers.below(length));
            }
            requests.push(stream.0);
            *stream = ((stream.0 + step) % OBJECTS, stream.1 - 1);
        }
        requests
    };
    let random =
        |numbers: &mut Numbers, count: usize| -> Vec<u64> { (0..count).map(|_| numbers.below(OBJECTS)).collect() };
    // Each thing has a few that follow it, the first of them mostly.
    let sessions = |numbers: &mut Numbers, count: usize| -> Vec<u64> {
        let mut at = 0;
        let next = |at: u64, which: u64| Numbers(at * 8 + which).below(OBJECTS);
        let step = |_| {
            at = match numbers.below(20) {
                0 => numbers.below(OBJECTS),
                1..=15 => next(at, 0),
                other => next(at, other - 15),
            };
            at
        };
        (0..count).map(step).collect()
    };
    // Groups of things that are used together, in any order, with others between them.
    let clusters = |numbers: &mut Numbers, count: usize| -> Vec<u64> {
        let mut requests = Vec::with_capacity(count);
        while requests.len() < count {
            let group = numbers.skewed(2000);
            let mut of = Numbers(group);
            let mut members: Vec<u64> = (0..6).map(|_| of.below(OBJECTS)).collect();
            while !members.is_empty() {
                let place = numbers.below(members.len() as u64) as usize;
                requests.push(members.swap_remove(place));
                if numbers.below(8) == 0 {
                    requests.push(numbers.below(OBJECTS));
                }
            }
        }
        requests.truncate(count);
        requests
    };
    let mut scenes = HashMap::new();
    let mut of = Numbers(11);
    for scene in 0..1000u32 {
        scenes.insert(scene, (0..12).map(|_| 1000 + of.below(OBJECTS - 1000) as u32).collect::<Vec<u32>>());
    }
    let mut visits = Vec::with_capacity(REQUESTS);
    let mut which = numbers();
    while visits.len() < REQUESTS {
        let scene = which.below(1000) as u32;
        visits.push(u64::from(scene));
        visits.extend(scenes[&scene].iter().map(|part| u64::from(*part)));
    }
    let mut phases = Vec::new();
    let mut phase = numbers();
    for _ in 0..2 {
        phases.extend(streams(&mut phase, 1, 4, 60).into_iter().take(REQUESTS / 8));
        phases.extend(random(&mut phase, REQUESTS / 8));
        phases.extend(sessions(&mut phase, REQUESTS / 8));
        phases.extend(clusters(&mut phase, REQUESTS / 8));
    }
    let mut own = numbers();
    vec![
        trace("sequential", streams(&mut own, 1, 1, 200), HashMap::new()),
        trace("strided", streams(&mut own, 37, 1, 100), HashMap::new()),
        trace("interleaved", streams(&mut own, 1, 8, 100), HashMap::new()),
        trace("sessions", sessions(&mut own, REQUESTS), HashMap::new()),
        trace("clusters", clusters(&mut own, REQUESTS), HashMap::new()),
        trace("scenes", visits, scenes),
        trace("phases", phases, HashMap::new()),
        trace("skewed", (0..REQUESTS).map(|_| own.skewed(OBJECTS)).collect(), HashMap::new()),
        trace("random", random(&mut own, REQUESTS), HashMap::new()),
    ]
}

/// The traces of a folder. What cannot be read ends the bench with its name.
fn found(folder: &Path) -> Vec<Trace> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    files.sort();
    let is_trace = |file: &&PathBuf| {
        let name = file.to_string_lossy();
        name.ends_with(".csv") || name.ends_with(".csv.zst")
    };
    files.iter().filter(is_trace).map(|file| read(file)).collect()
}

fn read(file: &Path) -> Trace {
    let mut text = String::new();
    let bytes = std::fs::read(file).expect("the trace is there");
    if file.extension().is_some_and(|extension| extension == "zst") {
        zstd::Decoder::new(&bytes[..]).expect("zstd").read_to_string(&mut text).expect("the trace is whole");
    } else {
        text = String::from_utf8(bytes).expect("the trace is text");
    }
    let rows = text.lines().skip(1).map(|line| {
        let mut fields = line.split(',').skip(1).map(|field| field.parse::<u64>().expect("a number"));
        (fields.next().expect("an id"), fields.next().expect("a size").max(1))
    });
    let rows: Vec<(u64, u64)> = rows.collect();
    // Things are numbered in the order of their ids, as assets are by their paths.
    let ranks: BTreeMap<u64, u64> = rows.iter().copied().collect();
    let sizes = ranks.values().copied().collect();
    let ranks: HashMap<u64, u32> = ranks.keys().copied().zip(0..).collect();
    let name = file.file_name().unwrap_or_default().to_string_lossy().replace(".csv", "").replace(".zst", "");
    Trace { name, requests: rows.iter().map(|(id, _)| ranks[id]).collect(), sizes, uses: HashMap::new() }
}

/// A cache under a budget.
struct Cache<'t> {
    trace: &'t Trace,
    budget: u64,
    charged: u64,
    tick: u32,
    resident: Vec<Option<Usage>>,
    speculative: HashSet<u32>,
    policy: Lru,
    victims: Vec<AssetId>,
}

impl View for Cache<'_> {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let usage = self.resident[id.0 as usize]?;
        let weight = self.trace.sizes[id.0 as usize];
        Some(Seen { usage, weight, kind: AssetKind::Other, pinned: false, distance: None })
    }
    fn tick(&self) -> u32 {
        self.tick
    }
}

impl World for Cache<'_> {
    fn rank(&self, id: AssetId) -> Option<u64> {
        Some(id.0)
    }
    fn at(&self, rank: u64) -> Option<AssetId> {
        (rank < self.trace.sizes.len() as u64).then_some(AssetId(rank))
    }
    fn dependencies(&self, id: AssetId, into: &mut Vec<AssetId>) {
        into.extend(self.trace.uses.get(&(id.0 as u32)).into_iter().flatten().map(|id| AssetId(u64::from(*id))));
    }
    fn bytes(&self, id: AssetId) -> Option<u64> {
        Some(self.trace.sizes[id.0 as usize])
    }
    fn is_resident(&self, id: AssetId) -> bool {
        self.resident[id.0 as usize].is_some()
    }
}

impl<'t> Cache<'t> {
    fn new(trace: &'t Trace, budget: u64) -> Self {
        let resident = vec![None; trace.sizes.len()];
        let policy = Lru::new();
        let (speculative, victims) = (HashSet::new(), Vec::new());
        Cache { trace, budget, charged: 0, tick: 0, resident, speculative, policy, victims }
    }

    fn admit(&mut self, id: u32, speculative: bool, mut wasted: impl FnMut(AssetId)) {
        let weight = self.trace.sizes[id as usize];
        if weight > self.budget {
            return;
        }
        while self.charged + weight > self.budget {
            let mut policy = std::mem::take(&mut self.policy);
            let mut victims = std::mem::take(&mut self.victims);
            victims.clear();
            policy.choose(self.charged + weight - self.budget, None, self, &mut victims);
            assert!(!victims.is_empty(), "something can go");
            for victim in &victims {
                self.resident[victim.0 as usize] = None;
                self.charged -= self.trace.sizes[victim.0 as usize];
                policy.removed(*victim, Removal::Evicted, None);
                if self.speculative.remove(&(victim.0 as u32)) {
                    wasted(*victim);
                }
            }
            (self.policy, self.victims) = (policy, victims);
        }
        self.charged += weight;
        self.resident[id as usize] = Some(Usage::new(self.tick));
        if speculative {
            self.speculative.insert(id);
        }
        let (id, kind, tick) = (AssetId(u64::from(id)), AssetKind::Other, self.tick);
        let cost_us = 100.0 + weight as f32 / 1000.0;
        self.policy.admitted(&Admitted { id, weight, kind, tick, cost_us, priority: Priority::Medium, speculative });
    }
}

/// What a run came to.
struct Run {
    misses: u64,
    missed_bytes: u64,
    stats: PredictionStats,
    /// Nanoseconds of each call of the ensemble.
    each_ns: f64,
    /// What was fetched ahead, and of that wasted, and what was loaded, in the first thousand requests and after.
    early: (u64, u64, u64),
}

fn run(trace: &Trace, part: f64, config: Option<&PredictionConfig>, all: bool, requests: usize) -> Run {
    let footprint: u64 = trace.sizes.iter().sum();
    let mut cache = Cache::new(trace, ((footprint as f64 * part) as u64).max(1));
    let mut ensemble = config.map(Ensemble::new);
    let (mut misses, mut missed_bytes, mut predicted) = (0, 0, Vec::new());
    let (mut spent, mut calls) = (Duration::ZERO, 0u64);
    let mut early = (0, 0, 0);
    for (number, id) in trace.requests.iter().copied().take(requests).enumerate() {
        if number == 1000
            && let Some(ensemble) = &ensemble
        {
            let stats = ensemble.stats();
            early = (stats.prefetched_bytes, stats.wasted_bytes, missed_bytes);
        }
        cache.tick = cache.tick.wrapping_add(1);
        let place = id as usize;
        let hit = cache.resident[place].is_some();
        let first = cache.speculative.remove(&id);
        if let Some(usage) = cache.resident[place] {
            cache.resident[place] = Some(usage.used(cache.tick));
        } else {
            misses += 1;
            missed_bytes += trace.sizes[place];
        }
        predicted.clear();
        if let Some(ensemble) = &mut ensemble
            && (all || !hit || first)
        {
            let (id, bytes, kind) = (AssetId(u64::from(id)), trace.sizes[place], AssetKind::Other);
            let now = Duration::from_micros(number as u64);
            let access = Access { id, bytes, kind, resident: hit, now, wall_seconds: number as u64 / 100 };
            let began = Instant::now();
            ensemble.accessed(&access, &cache, &mut predicted);
            spent += began.elapsed();
            calls += 1;
        }
        if !hit {
            cache.admit(id, false, |victim| tell(&mut ensemble, victim));
        }
        for predicted in predicted.drain(..) {
            cache.admit(predicted.id.0 as u32, true, |victim| tell(&mut ensemble, victim));
        }
    }
    let stats = ensemble.map(|ensemble| ensemble.stats()).unwrap_or_default();
    Run { misses, missed_bytes, stats, each_ns: spent.as_nanos() as f64 / calls.max(1) as f64, early }
}

fn tell(ensemble: &mut Option<Ensemble>, wasted: AssetId) {
    if let Some(ensemble) = ensemble {
        ensemble.outcome(wasted, Outcome::Wasted);
    }
}

fn only(kind: ExpertKind) -> PredictionConfig {
    let mut experts = ExpertsConfig::none();
    match kind {
        ExpertKind::Dependency => experts.dependency = true,
        ExpertKind::Sequential => experts.sequential = true,
        ExpertKind::Strided => experts.strided = true,
        ExpertKind::Clustered => experts.clustered = true,
        ExpertKind::Pattern => experts.pattern = true,
        ExpertKind::Spatial => experts.spatial = true,
        ExpertKind::Neural => experts.neural = true,
    }
    PredictionConfig { experts, ..PredictionConfig::default() }
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn main() {
    let folders: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).map(PathBuf::from).collect();
    let all = std::env::var_os("OBSERVE_ALL").is_some();
    let mut traces = generated();
    if folders.is_empty() {
        traces.extend(found(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces")));
    }
    folders.iter().for_each(|folder| traces.extend(found(folder)));
    println!("accesses told of: {}\n", if all { "all" } else { "misses, and first uses of what was prefetched" });
    println!("| trace | cache % | who | misses saved % | precision % | recall % | wasted bytes % | ns |");
    println!("|---|--:|---|--:|--:|--:|--:|--:|");
    let mut worst: (f64, String) = (f64::NEG_INFINITY, String::new());
    for trace in &traces {
        for part in [0.01, 0.1] {
            let plain = run(trace, part, None, all, usize::MAX);
            let mut best: (f64, &str) = (f64::NEG_INFINITY, "nobody");
            let singles = ExpertKind::ALL.into_iter().filter(|kind| *kind != ExpertKind::Spatial);
            let whole = (None, "ensemble", PredictionConfig::default());
            for (kind, name, config) in singles.map(|kind| (Some(kind), kind.name(), only(kind))).chain([whole]) {
                let ran = run(trace, part, Some(&config), all, usize::MAX);
                let saved = 1.0 - ran.misses as f64 / plain.misses.max(1) as f64;
                let stats = &ran.stats;
                let wasted = stats.wasted_bytes as f64 / (ran.missed_bytes + stats.prefetched_bytes).max(1) as f64;
                let told = |share: Option<f64>| share.map_or("-".into(), percent);
                if kind.is_some() {
                    if saved > best.0 {
                        best = (saved, name);
                    }
                } else {
                    let behind = best.0.max(0.0) - saved;
                    if behind > worst.0 {
                        worst = (behind, format!("{} at {} %, behind {}", trace.name, 100.0 * part, best.1));
                    }
                }
                if stats.prefetched > 0 || kind.is_none() {
                    println!(
                        "| {} | {} | {name} | {} | {} | {} | {} | {:.0} |",
                        trace.name,
                        100.0 * part,
                        percent(saved),
                        told(stats.precision),
                        told(stats.recall),
                        percent(wasted),
                        ran.each_ns,
                    );
                }
            }
        }
    }
    println!("\nthe ensemble is at most {:.2} points below the best single expert ({})", 100.0 * worst.0, worst.1);
    let random = traces.iter().find(|trace| trace.name == "random").expect("it was generated");
    for part in [0.01, 0.1] {
        let ran = run(random, part, Some(&PredictionConfig::default()), all, usize::MAX);
        let ((early, _, loaded), stats) = (ran.early, &ran.stats);
        let late = stats.prefetched_bytes - early;
        println!(
            "random, cache {} %: {:.3} % of the bytes of the first 1,000 requests were prefetched, {:.4} % of all after them; wasted {:.4} % in all",
            100.0 * part,
            100.0 * early as f64 / (early + loaded).max(1) as f64,
            100.0 * late as f64 / (late + ran.missed_bytes - loaded).max(1) as f64,
            100.0 * stats.wasted_bytes as f64 / (stats.prefetched_bytes + ran.missed_bytes).max(1) as f64,
        );
    }
}
