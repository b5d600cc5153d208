//! What prefetching would have been worth, as a table, and how long requests would have taken, as bars.

use std::fmt::{self, Write};

use super::super::prefetch::{Predictor, Prefetched};
use super::super::study::Findings;
use super::{bytes, count};

const BAR_HEIGHT: f64 = 120.0;
const BAR_WIDTH: f64 = 16.0;
const FOOT: f64 = 30.0;

pub fn write(page: &mut String, found: &Findings) -> fmt::Result {
    writeln!(
        page,
        "<h3>Prefetching</h3>\n<div class=\"scroll\"><table class=\"prefetch\">\n<thead><tr><th>budget</th>"
    )?;
    for name in ["predictor", "misses", "fewer misses", "prefetched", "precision", "recall", "late", "wasted"] {
        write!(page, "<th>{name}</th>")?;
    }
    writeln!(page, "</tr></thead>\n<tbody>")?;
    let mut sorted: Vec<&Prefetched> = found.prefetch.iter().collect();
    sorted.sort_by_key(|one| one.budget_bytes);
    let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    for one in &sorted {
        let nobody = one.predictor == Predictor::None;
        let fewer = if nobody { None } else { found.fewer_misses(one) };
        let recall = if nobody { None } else { Some(one.recall()) };
        writeln!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            bytes(one.budget_bytes),
            one.predictor.name(),
            count(one.misses),
            percent(fewer),
            count(one.prefetched),
            percent(one.precision()),
            percent(recall),
            count(one.late),
            bytes(one.wasted_bytes),
        )?;
    }
    writeln!(page, "</tbody></table></div>")?;
    latencies(page, &sorted, found.recommendation.budget_bytes)
}

/// At the recommended budget: without prefetching, and with the last predictor that was tried.
fn latencies(page: &mut String, sorted: &[&Prefetched], budget: u64) -> fmt::Result {
    let at_budget: Vec<&Prefetched> = sorted.iter().filter(|one| one.budget_bytes == budget).copied().collect();
    let mut shown: Vec<&Prefetched> = at_budget.iter().take(1).copied().collect();
    shown.extend(at_budget.iter().skip(1).last());
    if shown.is_empty() {
        return Ok(());
    }
    let used = |class: usize| shown.iter().any(|one| one.latencies[class] > 0);
    let last = (0..shown[0].latencies.len()).rev().find(|class| used(*class)).unwrap_or(0);
    let first = (1..=last).find(|class| used(*class)).unwrap_or(1);
    let classes: Vec<usize> = std::iter::once(0).chain(first..=last.max(first)).collect();
    let group = BAR_WIDTH * shown.len() as f64 + 14.0;
    let (width, height) = (group * classes.len() as f64, BAR_HEIGHT + FOOT);
    writeln!(page, "<figure><figcaption>Latencies of requests at {}</figcaption>", bytes(budget))?;
    writeln!(page, "<div class=\"legend\">")?;
    for (index, one) in shown.iter().enumerate() {
        writeln!(page, "<span class=\"s{index}\"><i></i>{}</span>", one.predictor.name())?;
    }
    writeln!(page, "</div>\n<svg class=\"bars\" style=\"max-width:{width}px\" viewBox=\"0 0 {width} {height}\">")?;
    for (place, class) in classes.iter().enumerate() {
        let name = match class {
            0 => "memory".to_owned(),
            class => span(1 << class),
        };
        let left = group * place as f64;
        for (index, one) in shown.iter().enumerate() {
            let share = one.latencies[*class] as f64 / one.requests.max(1) as f64;
            // What is there is seen, however little it is.
            let tall = if share > 0.0 { (share * BAR_HEIGHT).max(1.0) } else { 0.0 };
            let (x, y) = (left + 7.0 + BAR_WIDTH * index as f64, BAR_HEIGHT - tall);
            let tip = format!("{}: {:.2} % of requests, {name}", one.predictor.name(), 100.0 * share);
            writeln!(
                page,
                "<rect class=\"bar s{index}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" data-tip=\"{tip}\"/>",
                BAR_WIDTH - 2.0
            )?;
        }
        let (x, y) = (left + 0.5 * group, BAR_HEIGHT + 14.0);
        writeln!(page, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>")?;
    }
    writeln!(page, "</svg></figure>")
}

/// The upper end of a class, in few letters.
fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("≤{us}µs"),
        1_000..1_000_000 => format!("≤{}ms", us / 1_000),
        _ => format!("≤{}s", us / 1_000_000),
    }
}
