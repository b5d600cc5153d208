//! `simulate`: replays traces against budgets and policies, and says what to set.

use std::path::PathBuf;

use clap::Args;
use flyloft::build::Progress;
use flyloft::simulate::{Findings, Format, Objective, Policy, Predictor, Sample, Size, Study, Trace};
use serde::Serialize;

use crate::failure::{Answer, Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::size;

/// Budgets in percent of `--budget` where `--sizes` says nothing.
const OF_BUDGET: [u32; 8] = [10, 25, 50, 75, 100, 125, 150, 200];

/// Replay traces of accesses under many budgets and policies, and say what to set
#[derive(Args)]
pub struct Call {
    /// The traces: what --trace wrote; CSV with time,id,size; oracleGeneral; ARC's or LIRS's text; each also as .zst
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Budgets: parts of the footprint (or of --budget) such as 1%, or bytes such as 64MiB
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "SIZES")]
    sizes: Vec<String>,
    /// The budget of today: sizes in percent are parts of it [default sizes then: 10% to 200%]
    #[arg(short, long, value_parser = size::parse)]
    budget: Option<u64>,
    /// Eviction policies [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    policies: Vec<String>,
    /// Who prefetches, under the default policy: sequential, strided, clustered, pattern, ensemble, or all [default: nobody]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    predictors: Vec<String>,
    /// How the traces are written [default: told by their content]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The part of the objects that is replayed, such as 0.1 or 10%; auto samples large traces
    #[arg(long, default_value = "auto", value_name = "RATE")]
    sample: String,
    /// Chooses the sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the recommended configuration is good at: objects, bytes, or balanced
    #[arg(long, default_value = "balanced")]
    objective: String,
    /// Points of hit ratio that the recommended budget may be below the largest
    #[arg(long, default_value_t = 1.0, value_name = "POINTS")]
    within: f64,
    /// Write a page with curves to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(call: &Call) -> Result<Answer> {
    let study = study(call)?;
    let format = call.format.as_deref().map(|name| option("--format", name.parse::<Format>())).transpose()?;
    // A report that cannot be written is known before hours are spent; what was there stays until there is a new one.
    if let Some(report) = &call.report {
        writable(report)?;
    }
    let mut found = Vec::new();
    for file in &call.traces {
        let trace = Trace::open(file, format)?;
        let bar = Bar::new();
        let what = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let progress = |done: u64, of: u64| bar.step(done, of, &what);
        found.push(study.run(&trace, &progress)?);
    }
    if let Some(report) = &call.report {
        let page = flyloft::simulate::page(&found);
        std::fs::write(report, page).map_err(|error| unwritable(report, error))?;
    }
    let mut output = Output::new();
    if call.json {
        #[derive(Serialize)]
        struct All<'a> {
            traces: &'a [Findings],
        }
        output.json(&All { traces: &found })?;
    } else {
        for (at, one) in found.iter().enumerate() {
            if at > 0 {
                output.line("")?;
            }
            print(one, &mut output)?;
        }
        if let Some(report) = &call.report {
            output.line(format_args!("\nreport      {}", report.display()))?;
        }
    }
    output.finish()?;
    Ok(Answer::Yes)
}

fn study(call: &Call) -> Result<Study> {
    let mut study = Study { seed: call.seed, within_points: call.within, ..Study::default() };
    let share = |share: f64| match call.budget {
        // Rounded up: a part of a budget is not nothing.
        Some(budget) => Size::Bytes((budget as f64 * share).ceil() as u64),
        None => Size::Share(share),
    };
    if !call.sizes.is_empty() {
        let parse = |text: &String| match text.trim().strip_suffix('%') {
            Some(number) => {
                let percent = number.trim().parse::<f64>().ok().filter(|percent| *percent > 0.0 && percent.is_finite());
                let refused = || Failure::unusable(format_args!("--sizes: '{text}' is no part; write 1% or 64MiB"));
                percent.map(|percent| share(percent / 100.0)).ok_or_else(refused)
            }
            None => option("--sizes", size::parse(text.trim())).map(Size::Bytes),
        };
        study.sizes = call.sizes.iter().map(parse).collect::<Result<_>>()?;
    } else if call.budget.is_some() {
        study.sizes = OF_BUDGET.map(|percent| share(f64::from(percent) / 100.0)).to_vec();
    }
    if !call.policies.is_empty() {
        let parse = |name: &String| option("--policies", name.trim().parse::<Policy>());
        study.policies = call.policies.iter().map(parse).collect::<Result<_>>()?;
    }
    if call.predictors == ["all"] {
        study.predictors = Predictor::ALL.to_vec();
    } else if !call.predictors.is_empty() {
        // What they are measured by.
        study.predictors = vec![Predictor::None];
        for name in &call.predictors {
            let predictor = option("--predictors", name.trim().parse::<Predictor>())?;
            if !study.predictors.contains(&predictor) {
                study.predictors.push(predictor);
            }
        }
    }
    study.sample = Sample::parse(&call.sample)?;
    study.objective = option("--objective", call.objective.parse::<Objective>())?;
    study.validate()?;
    Ok(study)
}

fn option<T, E: std::fmt::Display>(name: &str, parsed: Result<T, E>) -> Result<T> {
    parsed.map_err(|error| {
        let said = error.to_string();
        // The option is the field here.
        let why =
            said.split_once(": ").filter(|(field, _)| field.starts_with("eviction.")).map_or(&*said, |said| said.1);
        Failure::unusable(format_args!("{name}: {why}"))
    })
}

fn writable(report: &PathBuf) -> Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(report);
    opened.map(drop).map_err(|error| unwritable(report, error))
}

fn unwritable(report: &std::path::Path, error: std::io::Error) -> Failure {
    Failure::unusable(format_args!("{}: cannot write the report: {error}", report.display()))
}

fn print(found: &Findings, output: &mut Output) -> Result<()> {
    let mut field = |name: &str, value: String| output.line(format_args!("{name:<12}{value}"));
    field("trace", found.trace.clone())?;
    let (requests, objects) = (size::counted(found.requests, "request"), size::counted(found.objects, "object"));
    field("holds", format!("{requests} for {objects}, {} in all", size::bytes(found.footprint_bytes)))?;
    let notes = found.notes;
    if notes.zero_sizes + notes.resized + notes.late > 0 || notes.cut_short {
        let mut said = Vec::new();
        if notes.zero_sizes > 0 {
            said.push(format!("{} of size zero, counted as 1 byte", size::counted(notes.zero_sizes, "request")));
        }
        if notes.resized > 0 {
            said.push(format!(
                "{} with another size than before; the largest counts",
                size::counted(notes.resized, "request")
            ));
        }
        if notes.late > 0 {
            let late = size::counted(notes.late, "request");
            said.push(format!("{late} a little out of order, replayed as they stand in the file"));
        }
        if notes.cut_short {
            said.push("the file ends within a block: read up to there".to_owned());
        }
        field("notes", said.join("; "))?;
    }
    if found.sample_rate < 1.0 {
        let replayed = size::counted(found.replayed_requests, "request");
        field("sample", format!("{:.2} % of the objects, {replayed}", 100.0 * found.sample_rate))?;
    }
    for (title, by_bytes) in [("hits %", false), ("bytes %", true)] {
        let mut line = format!("\n{title:<10}{:>12}", "");
        found.curves.iter().for_each(|curve| line += &format!("{:>11}", curve.policy.name()));
        output.line(line + &format!("{:>11}{:>11}", "limit", "bound"))?;
        for (at, limit) in found.limits.iter().enumerate() {
            let share = 100.0 * limit.budget_bytes as f64 / found.footprint_bytes as f64;
            let mut line = format!("{:>10}{:>12}", size::bytes(limit.budget_bytes), format!("({share:.2} %)"));
            let points = found.curves.iter().map(|curve| curve.points[at]);
            let (reached, bound) = match by_bytes {
                false => (limit.objects_reached, limit.objects_bound),
                true => (limit.bytes_reached, limit.bytes_bound),
            };
            let ratios = points.map(|point| if by_bytes { point.byte_hit_ratio } else { point.hit_ratio });
            ratios.chain([reached, bound]).for_each(|ratio| line += &format!("{:>11.2}", 100.0 * ratio));
            output.line(line)?;
        }
    }
    if !found.prefetch.is_empty() {
        prefetch(found, output)?;
    }
    let recommended = &found.recommendation;
    let (hits, bytes) = (100.0 * recommended.hit_ratio, 100.0 * recommended.byte_hit_ratio);
    let below = recommended.below_points;
    let budget = size::bytes(recommended.budget_bytes);
    output.line(format_args!(
        "\nrecommended {budget} with {}: {hits:.2} % of requests, {bytes:.2} % of bytes; {below:.2} points below the largest budget",
        recommended.policy
    ))?;
    for line in recommended.toml().lines() {
        output.line(if line.is_empty() { String::new() } else { format!("  {line}") })?;
    }
    output.line(format_args!("\ntook        {:.2} s", found.seconds))
}

fn prefetch(found: &Findings, output: &mut Output) -> Result<()> {
    output.line(format_args!(
        "\n{:<12}{:>12}{:>10}{:>12}{:>11}{:>9}{:>12}{:>14}",
        "prefetch", "budget", "misses", "prefetched", "precision", "recall", "wasted", "fewer misses"
    ))?;
    for one in found.prefetch.iter().filter(|one| one.predictor != Predictor::None) {
        let precision = one.precision().map_or("-".to_owned(), |precision| format!("{:.1} %", 100.0 * precision));
        output.line(format_args!(
            "{:<12}{:>12}{:>10}{:>12}{:>11}{:>9}{:>12}{:>14}",
            one.predictor.name(),
            size::bytes(one.budget_bytes),
            size::count(one.misses),
            size::count(one.prefetched),
            precision,
            format!("{:.1} %", 100.0 * one.recall()),
            size::bytes(one.wasted_bytes),
            found.fewer_misses(one).map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
        ))?;
    }
    Ok(())
}
