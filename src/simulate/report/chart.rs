//! Ratios over budgets as SVG. What a pointer shows is in attributes; page.js puts it beside the pointer.

use std::fmt::{self, Write};

use super::{Text, bytes};

/// Colours that page.css has.
pub const COLORS: usize = 8;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 38.0;

/// A named curve: one ratio for each budget.
pub struct Line {
    pub name: String,
    pub ratios: Vec<f64>,
}

/// Where the budgets stand.
pub struct Chart<'a> {
    pub budgets: &'a [u64],
    pub footprint_bytes: u64,
    /// A budget that is marked.
    pub mark: u64,
}

impl Chart<'_> {
    /// By its logarithm: each doubling is as wide as the others.
    fn x(&self, budget: u64) -> f64 {
        let log = |bytes: u64| (bytes.max(1) as f64).log2();
        let first = self.budgets.first().copied().map_or(0.0, log);
        let last = self.budgets.last().copied().map_or(0.0, log);
        let share = if last > first { (log(budget) - first) / (last - first) } else { 0.5 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn path(&self, ratios: &[f64], top: f64) -> String {
        let mut path = String::new();
        for (at, (budget, ratio)) in self.budgets.iter().zip(ratios).enumerate() {
            let letter = if at == 0 { 'M' } else { 'L' };
            path += &format!("{letter}{:.1} {:.1}", self.x(*budget), y(*ratio, top));
        }
        path
    }

    pub fn draw(&self, page: &mut String, title: &str, lines: &[Line], reached: &[f64], bound: &[f64]) -> fmt::Result {
        let most =
            lines.iter().flat_map(|line| &line.ratios).chain(bound).chain(reached).fold(0.0f64, |a, b| a.max(*b));
        // Up to the next tenth, so that small ratios have room.
        let top = ((most * 10.0).ceil() / 10.0).clamp(0.1, 1.0);
        writeln!(page, "<figure><figcaption>{title}</figcaption>")?;
        writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title} over budgets\">")?;
        let steps = if top > 0.5 { 5 } else { 4 };
        for step in 0..=steps {
            let ratio = top * f64::from(step) / f64::from(steps);
            let (y, right) = (y(ratio, top), WIDTH - RIGHT);
            writeln!(page, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")?;
            let (at, percent) = (LEFT - 6.0, 100.0 * ratio);
            writeln!(page, "<text class=\"y\" x=\"{at}\" y=\"{:.1}\">{percent:.0}%</text>", y + 4.0)?;
        }
        let mut free = f64::NEG_INFINITY;
        for (at, budget) in self.budgets.iter().enumerate() {
            let x = self.x(*budget);
            // Labels that would touch are left out; the pointer tells.
            if x < free {
                continue;
            }
            free = x + 62.0;
            let anchor = match at {
                0 if self.budgets.len() > 1 => "start",
                _ if x > WIDTH - 40.0 => "end",
                _ => "middle",
            };
            let (share, below) = (share(*budget, self.footprint_bytes), HEIGHT - BOTTOM + 16.0);
            writeln!(page, "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"{anchor}\">{}</text>", bytes(*budget))?;
            let below = below + 14.0;
            writeln!(page, "<text class=\"dim\" x=\"{x:.1}\" y=\"{below}\" text-anchor=\"{anchor}\">{share}</text>")?;
        }
        let (x, foot) = (self.x(self.mark), HEIGHT - BOTTOM);
        writeln!(page, "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{foot}\"/>")?;
        writeln!(page, "<path class=\"bound\" d=\"{}\"/>", self.path(bound, top))?;
        writeln!(page, "<path class=\"limit\" d=\"{}\"/>", self.path(reached, top))?;
        // The first policy is drawn last, on top.
        for (index, line) in lines.iter().enumerate().rev() {
            let color = index % COLORS;
            writeln!(page, "<path class=\"curve s{color}\" d=\"{}\"/>", self.path(&line.ratios, top))?;
            for (budget, ratio) in self.budgets.iter().zip(&line.ratios) {
                let (x, y) = (self.x(*budget), y(*ratio, top));
                writeln!(page, "<circle class=\"s{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>")?;
            }
        }
        self.stripes(page, lines, reached, bound)?;
        writeln!(page, "</svg></figure>")
    }

    /// One for each budget, from halfway to its neighbours: what a pointer over it is told.
    fn stripes(&self, page: &mut String, lines: &[Line], reached: &[f64], bound: &[f64]) -> fmt::Result {
        let place: Vec<f64> = self.budgets.iter().map(|budget| self.x(*budget)).collect();
        for (at, budget) in self.budgets.iter().enumerate() {
            let left = if at == 0 { LEFT } else { 0.5 * (place[at - 1] + place[at]) };
            let right = place.get(at + 1).map_or(WIDTH - RIGHT, |next| 0.5 * (place[at] + next));
            let mut tip = format!("{}, {}", bytes(*budget), share(*budget, self.footprint_bytes));
            let mut all: Vec<(&str, f64)> = lines.iter().map(|line| (line.name.as_str(), line.ratios[at])).collect();
            all.sort_by(|one, other| other.1.total_cmp(&one.1));
            all.insert(0, ("limit", reached[at]));
            all.insert(0, ("bound", bound[at]));
            for (name, ratio) in all {
                write!(tip, "\n{:.2} %  {name}", 100.0 * ratio)?;
            }
            let (width, height) = ((right - left).max(1.0), HEIGHT - TOP - BOTTOM);
            writeln!(
                page,
                "<rect class=\"stripe\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" data-x=\"{:.1}\" data-tip=\"{}\"/>",
                place[at],
                Text(&tip)
            )?;
        }
        Ok(())
    }
}

fn y(ratio: f64, top: f64) -> f64 {
    TOP + (1.0 - (ratio / top).clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
}

fn share(budget: u64, footprint: u64) -> String {
    let percent = 100.0 * budget as f64 / footprint.max(1) as f64;
    if percent >= 10.0 {
        format!("{percent:.0}%")
    } else if percent >= 1.0 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.2}%")
    }
}
