//! Many budgets and policies on one trace, in parallel.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::limit::{Aim, Limits};
use super::prefetch::{self, Predictor, Prefetched};
use super::recommend::{Recommendation, recommend};
use super::replay::{Figures, Replay};
use super::sample::{Sample, Sampled};
use super::trace::{Notes, Trace};
use crate::config::{EvictionConfig, EvictionObjective, EvictionPolicy};
use crate::error::{Error, Result};
use crate::platform::clock::{Clock, SystemClock};

/// Budgets that one study may have.
pub const SIZES_MAX: usize = 256;

/// Requests that prediction is tried on.
const PREFETCH_REQUESTS_MAX: usize = 1 << 20;

/// A budget to replay under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// This part of the trace's footprint.
    Share(f64),
    /// This many bytes.
    Bytes(u64),
}

/// What to replay.
#[derive(Clone, Debug)]
pub struct Study {
    /// Under which budgets, at most [`SIZES_MAX`]. Default 0.1, 0.3, 1, 3, 10, 30, 60 and 100 % of the footprint.
    pub sizes: Vec<Size>,
    /// Which policies. Default all.
    pub policies: Vec<EvictionPolicy>,
    /// Who prefetches, under the default policy. Default nobody is tried.
    pub predictors: Vec<Predictor>,
    /// How much of the trace. Default [`Sample::Auto`]. Prediction needs neighbours, so it is tried on the first requests,
    /// a million at most, instead.
    pub sample: Sample,
    /// Chooses the sample. Default 1.
    pub seed: u64,
    /// What a recommendation is good at, and what the adaptive policy makes the most of. Default [`EvictionObjective::Balanced`].
    pub objective: EvictionObjective,
    /// How many points of hit ratio the recommended budget may be below the largest. Default 1.
    pub within_points: f64,
}

impl Default for Study {
    fn default() -> Self {
        Self {
            sizes: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0].map(Size::Share).to_vec(),
            policies: EvictionPolicy::ALL.to_vec(),
            predictors: Vec::new(),
            sample: Sample::Auto,
            seed: 1,
            objective: EvictionObjective::Balanced,
            within_points: 1.0,
        }
    }
}

/// What came of a policy under a budget; ratios from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// The budget.
    pub budget_bytes: u64,
    /// Hits of requests.
    pub hit_ratio: f64,
    /// Bytes hit of bytes requested.
    pub byte_hit_ratio: f64,
    /// Evictions for each request.
    pub evictions_per_request: f64,
    /// Nanoseconds per request, several replays at once.
    pub ns_per_request: f64,
}

/// A policy's points, by growing budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The policy's name.
    pub policy: EvictionPolicy,
    /// One for each budget.
    pub points: Vec<Point>,
}

/// The offline limits under one budget; ratios from 0 to 1. [`Limits`] says what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LimitPoint {
    /// The budget.
    pub budget_bytes: u64,
    /// Hit ratio that a schedule with the whole future reaches.
    pub objects_reached: f64,
    /// Byte hit ratio that one reaches.
    pub bytes_reached: f64,
    /// Hit ratio that none exceeds.
    pub objects_bound: f64,
    /// Byte hit ratio that none exceeds.
    pub bytes_bound: f64,
}

/// All that came of a study.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Where the trace came from.
    pub trace: String,
    /// Its requests.
    pub requests: u64,
    /// Its objects.
    pub objects: u64,
    /// Bytes of all objects together.
    pub footprint_bytes: u64,
    /// Bytes of all requests together.
    pub requested_bytes: u64,
    /// What was seen while reading it.
    pub notes: Notes,
    /// The part of the objects that was replayed.
    pub sample_rate: f64,
    /// Requests that were replayed for each point.
    pub replayed_requests: u64,
    /// The policies.
    pub curves: Vec<Curve>,
    /// The limits, one for each budget.
    pub limits: Vec<LimitPoint>,
    /// What prefetching would have been worth, by predictor and budget.
    pub prefetch: Vec<Prefetched>,
    /// What to set.
    pub recommendation: Recommendation,
    /// Seconds that the study took.
    pub seconds: f64,
}

impl Findings {
    /// The share of the misses that nobody's prefetching leaves which is gone with `one`; `None` where that was not tried.
    pub fn fewer_misses(&self, one: &Prefetched) -> Option<f64> {
        let nobody = |other: &&Prefetched| {
            other.predictor == Predictor::None && other.budget_bytes == one.budget_bytes && other.misses > 0
        };
        let without = self.prefetch.iter().find(nobody)?;
        Some(1.0 - one.misses as f64 / without.misses as f64)
    }
}

/// One replay, or one limit.
#[derive(Clone, Copy)]
enum Job {
    Policy(usize, usize),
    Reached(usize, Aim),
    Bounds(Aim),
    Prefetch(Predictor, usize),
}

impl Study {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if self.sizes.is_empty() || self.sizes.len() > SIZES_MAX {
            return Err(Error::config(
                "sizes",
                format!("expected 1 to {SIZES_MAX} budgets, found {}", self.sizes.len()),
            ));
        }
        for size in &self.sizes {
            match *size {
                Size::Share(share) if !(share > 0.0 && share <= 1000.0) => {
                    return Err(Error::config("sizes", format!("{} % is no part of a footprint", 100.0 * share)));
                }
                Size::Bytes(0) => return Err(Error::config("sizes", "a budget of zero holds nothing")),
                _ => {}
            }
        }
        if self.policies.is_empty() {
            return Err(Error::config("policies", "there is none to replay"));
        }
        if let Sample::Rate(rate) = self.sample
            && !(rate > 0.0 && rate <= 1.0)
        {
            return Err(Error::config("sample", format!("{rate} is not above 0 and at most 1")));
        }
        if !(0.0..=100.0).contains(&self.within_points) {
            let why = format!("{} is no number of points from 0 to 100", self.within_points);
            return Err(Error::config("within", why));
        }
        Ok(())
    }

    /// Replays all of it on every core; `progress` hears how many of how many replays are done.
    ///
    /// # Errors
    /// As [`Study::validate`]; [`Error::Config`] for `sample` when nothing of the trace is in it.
    pub fn run(&self, trace: &Trace, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Findings> {
        self.validate()?;
        let clock = SystemClock;
        let began = clock.now();
        let footprint_bytes = trace.footprint_bytes();
        let mut budgets: Vec<u64> = self.sizes.iter().map(|size| size.of(footprint_bytes)).collect();
        budgets.sort_unstable();
        budgets.dedup();
        let sampled = Sampled::of(trace, self.sample.rate(trace), self.seed);
        if sampled.trace.requests().is_empty() {
            return Err(Error::config("sample", "nothing of the trace is in it; choose a larger rate or another seed"));
        }
        let limits = Limits::new(&sampled.trace);
        let jobs = self.jobs(budgets.len());
        let done = in_parallel(&jobs, progress, |job| match *job {
            Job::Policy(policy, budget) => {
                let replay = Replay::new(&sampled.trace, sampled.budget(budgets[budget]));
                let config =
                    EvictionConfig { policy: self.policies[policy], objective: self.objective, ..Default::default() };
                Done::Figures(replay.run_as(&config))
            }
            Job::Reached(budget, aim) => Done::Figures(limits.reached(sampled.budget(budgets[budget]), aim)),
            Job::Prefetch(predictor, budget) => {
                let (budget, policy) = (budgets[budget], EvictionPolicy::default());
                Done::Prefetched(Box::new(prefetch::replay(trace, PREFETCH_REQUESTS_MAX, budget, policy, predictor)))
            }
            Job::Bounds(aim) => {
                let scaled: Vec<u64> = budgets.iter().map(|budget| sampled.budget(*budget)).collect();
                Done::Bounds(limits.bounds(&scaled, aim))
            }
        });
        let mut prefetch = Vec::new();
        let point = |budget: usize| LimitPoint { budget_bytes: budgets[budget], ..LimitPoint::default() };
        let mut limits: Vec<LimitPoint> = (0..budgets.len()).map(point).collect();
        let mut curves: Vec<Curve> =
            self.policies.iter().map(|policy| Curve { policy: *policy, points: Vec::new() }).collect();
        for (job, done) in jobs.iter().zip(done) {
            match (job, done) {
                (Job::Policy(policy, budget), Done::Figures(figures)) => {
                    let (hit_ratio, byte_hit_ratio) = sampled.ratios(&figures);
                    curves[*policy].points.push(Point {
                        budget_bytes: budgets[*budget],
                        hit_ratio,
                        byte_hit_ratio,
                        evictions_per_request: figures.evictions as f64 / figures.requests.max(1) as f64,
                        ns_per_request: figures.ns_per_request,
                    });
                }
                (Job::Reached(budget, aim), Done::Figures(figures)) => {
                    let (objects, bytes) = sampled.ratios(&figures);
                    match aim {
                        Aim::Objects => limits[*budget].objects_reached = objects,
                        Aim::Bytes => limits[*budget].bytes_reached = bytes,
                    }
                }
                (Job::Bounds(Aim::Objects), Done::Bounds(ratios)) => {
                    let whole = |ratio| sampled.of_whole(ratio, Aim::Objects);
                    limits.iter_mut().zip(ratios).for_each(|(limit, ratio)| limit.objects_bound = whole(ratio));
                }
                (Job::Bounds(Aim::Bytes), Done::Bounds(ratios)) => {
                    let whole = |ratio| sampled.of_whole(ratio, Aim::Bytes);
                    limits.iter_mut().zip(ratios).for_each(|(limit, ratio)| limit.bytes_bound = whole(ratio));
                }
                (Job::Prefetch(..), Done::Prefetched(prefetched)) => prefetch.push(*prefetched),
                // A job's answer is of its own kind.
                _ => {}
            }
        }
        Ok(Findings {
            trace: trace.name().to_owned(),
            requests: trace.requests().len() as u64,
            objects: trace.objects().len() as u64,
            footprint_bytes,
            requested_bytes: trace.requested_bytes(),
            notes: trace.notes(),
            sample_rate: sampled.rate,
            replayed_requests: sampled.trace.requests().len() as u64,
            recommendation: recommend(&curves, self.objective, self.within_points),
            curves,
            limits,
            prefetch,
            seconds: clock.now().saturating_duration_since(began).as_secs_f64(),
        })
    }

    /// The largest budgets last: they take least.
    fn jobs(&self, budgets: usize) -> Vec<Job> {
        let aims = [Aim::Objects, Aim::Bytes];
        let of_budget = |budget| {
            let policies = (0..self.policies.len()).map(move |policy| Job::Policy(policy, budget));
            policies.chain(aims.map(|aim| Job::Reached(budget, aim)))
        };
        let prefetch = self.predictors.iter().flat_map(|one| (0..budgets).map(|budget| Job::Prefetch(*one, budget)));
        let others = aims.map(Job::Bounds).into_iter().chain((0..budgets).flat_map(of_budget));
        // Those that take longest first.
        prefetch.chain(others).collect()
    }
}

impl Size {
    fn of(self, footprint_bytes: u64) -> u64 {
        match self {
            Size::Share(share) => ((footprint_bytes as f64 * share) as u64).max(1),
            Size::Bytes(bytes) => bytes,
        }
    }
}

enum Done {
    Figures(Figures),
    Bounds(Vec<f64>),
    Prefetched(Box<Prefetched>),
}

/// The results of `jobs`, in their order, on every core.
fn in_parallel<J: Sync, R: Send>(
    jobs: &[J],
    progress: &(dyn Fn(u64, u64) + Sync),
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len()).max(1);
    let (next, finished) = (AtomicUsize::new(0), AtomicU64::new(0));
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    let body = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return };
            let result = work(job);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
            progress(finished.fetch_add(1, Ordering::Relaxed) + 1, jobs.len() as u64);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(body);
        }
        body();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Synthetic;
    use super::*;

    fn findings(study: &Study, trace: &Trace) -> Findings {
        study.run(trace, &|_, _| ()).unwrap()
    }

    #[test]
    fn limits_stand_above_every_policy_and_ratios_grow_with_the_budget() {
        let trace = Synthetic::Zipf { exponent: 0.9 }.trace(20_000, 3_000, 5);
        let found = findings(&Study::default(), &trace);
        assert_eq!((found.curves.len(), found.sample_rate), (EvictionPolicy::ALL.len(), 1.0));
        stand_above(&found);
        // Of a sample, too: what it lacks of the whole's requests is made up for in all of them.
        let sample = Sample::Rate(0.2);
        stand_above(&findings(&Study { sample, ..Study::default() }, &trace));
    }

    fn stand_above(found: &Findings) {
        for (at, limit) in found.limits.iter().enumerate() {
            assert!(limit.objects_bound + 1e-9 >= limit.objects_reached, "{limit:?}");
            assert!(limit.bytes_bound + 1e-9 >= limit.bytes_reached, "{limit:?}");
            for curve in &found.curves {
                let point = curve.points[at];
                assert!(point.hit_ratio <= limit.objects_bound + 1e-9, "{} {point:?} {limit:?}", curve.policy);
                assert!(point.byte_hit_ratio <= limit.bytes_bound + 1e-9, "{} {point:?} {limit:?}", curve.policy);
            }
        }
    }

    #[test]
    fn with_room_for_everything_nothing_is_evicted() {
        let trace = Synthetic::Zipf { exponent: 0.9 }.trace(20_000, 3_000, 5);
        let found = findings(&Study::default(), &trace);
        let lru = &found.curves.iter().find(|curve| curve.policy == EvictionPolicy::Lru).unwrap().points;
        assert!(lru.windows(2).all(|pair| pair[0].hit_ratio <= pair[1].hit_ratio), "{lru:?}");
        let most = lru.last().unwrap();
        assert_eq!((most.budget_bytes, most.evictions_per_request), (trace.footprint_bytes(), 0.0));
    }

    #[test]
    fn the_same_study_finds_the_same_and_says_how_far_it_is() {
        let trace = Synthetic::Drift.trace(20_000, 3_000, 5);
        let study = Study { sample: Sample::Rate(0.3), sizes: vec![Size::Bytes(1 << 22)], ..Study::default() };
        let heard = Mutex::new(Vec::new());
        let one = study.run(&trace, &|done, of| heard.lock().unwrap().push((done, of))).unwrap();
        let again = findings(&study, &trace);
        let ratios = |found: &Findings| {
            let point = |curve: &Curve| (curve.points[0].hit_ratio, curve.points[0].byte_hit_ratio);
            found.curves.iter().map(point).collect::<Vec<_>>()
        };
        assert_eq!((ratios(&one), &one.limits), (ratios(&again), &again.limits));
        let jobs = EvictionPolicy::ALL.len() as u64 + 4;
        assert!(heard.into_inner().unwrap().contains(&(jobs, jobs)));
    }

    #[test]
    fn what_cannot_be_studied_is_refused_by_name() {
        let trace = Synthetic::Loop.trace(100, 10, 1);
        let check = |field: &str, change: fn(&mut Study)| {
            let mut study = Study::default();
            change(&mut study);
            let error = study.run(&trace, &|_, _| ()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        };
        check("sizes", |study| study.sizes.clear());
        check("sizes", |study| study.sizes = vec![Size::Share(f64::NAN)]);
        check("sizes", |study| study.sizes = vec![Size::Bytes(0)]);
        check("policies", |study| study.policies.clear());
        check("sample", |study| study.sample = Sample::Rate(-0.5));
        check("sample", |study| study.sample = Sample::Rate(1e-12));
        check("within", |study| study.within_points = f64::NAN);
    }
}
