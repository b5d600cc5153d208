//! Findings as one page of HTML that needs nothing beside it: curves, limits, tables, and what to set.

mod chart;
mod prefetch;

use std::fmt::{self, Write};

use super::study::Findings;
use chart::{Chart, Line};

/// The page for some findings, one section each.
pub fn page(found: &[Findings]) -> String {
    let mut page = String::with_capacity(64 << 10);
    write(&mut page, found).expect("a string takes whatever is written to it");
    page
}

fn write(page: &mut String, found: &[Findings]) -> fmt::Result {
    let (style, script) = (include_str!("report/page.css"), include_str!("report/page.js"));
    writeln!(page, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>flyloft simulate</title>")?;
    writeln!(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(page, "<style>\n{style}</style>\n<main>\n<h1>What the cache would have hit</h1>")?;
    for (at, one) in found.iter().enumerate() {
        section(page, at, one)?;
    }
    writeln!(
        page,
        "<footer>Made by <code>flyloft simulate</code>. A <b>limit</b> is what a schedule with the whole future \
        reaches: Belady's rule with sizes. Nothing exceeds the <b>bound</b> (PFOO-L), and where a budget is small nothing \
        comes near it.</footer>\n</main>\n<div id=\"tip\" hidden></div>\n<script>\n{script}</script>\n</html>"
    )
}

fn section(page: &mut String, at: usize, found: &Findings) -> fmt::Result {
    writeln!(page, "<section>\n<h2>{}</h2>", Text(&found.trace))?;
    let sample = if found.sample_rate < 1.0 {
        format!("{:.2} % of the objects, {} requests", 100.0 * found.sample_rate, count(found.replayed_requests))
    } else {
        "everything".to_owned()
    };
    let facts = [
        ("requests", count(found.requests)),
        ("objects", count(found.objects)),
        ("footprint", bytes(found.footprint_bytes)),
        ("requested", bytes(found.requested_bytes)),
        ("replayed", sample),
        ("took", format!("{:.2} s", found.seconds)),
    ];
    writeln!(page, "<dl class=\"facts\">")?;
    for (name, value) in facts {
        writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    writeln!(page, "</dl>")?;
    notes(page, found)?;
    recommendation(page, found)?;
    let budgets: Vec<u64> = found.limits.iter().map(|limit| limit.budget_bytes).collect();
    let chart =
        Chart { budgets: &budgets, footprint_bytes: found.footprint_bytes, mark: found.recommendation.budget_bytes };
    writeln!(page, "<div class=\"legend\">")?;
    for (index, curve) in found.curves.iter().enumerate() {
        writeln!(page, "<span class=\"s{}\"><i></i>{}</span>", index % chart::COLORS, Text(curve.policy.name()))?;
    }
    writeln!(page, "<span class=\"limit\"><i></i>limit</span><span class=\"bound\"><i></i>bound</span></div>")?;
    writeln!(page, "<div class=\"charts\">")?;
    for (title, by_bytes) in [("Requests hit", false), ("Bytes hit", true)] {
        let line = |curve: &super::Curve| {
            let ratio = |point: &super::Point| if by_bytes { point.byte_hit_ratio } else { point.hit_ratio };
            Line { name: curve.policy.name().to_owned(), ratios: curve.points.iter().map(ratio).collect() }
        };
        let of_limits = |pick: fn(&super::LimitPoint) -> f64| found.limits.iter().map(pick).collect::<Vec<f64>>();
        let (reached, bound) = match by_bytes {
            false => (of_limits(|limit| limit.objects_reached), of_limits(|limit| limit.objects_bound)),
            true => (of_limits(|limit| limit.bytes_reached), of_limits(|limit| limit.bytes_bound)),
        };
        let lines: Vec<Line> = found.curves.iter().map(line).collect();
        chart.draw(page, title, &lines, &reached, &bound)?;
    }
    writeln!(page, "</div>")?;
    table(page, at, found)?;
    if !found.prefetch.is_empty() {
        prefetch::write(page, found)?;
    }
    writeln!(page, "</section>")
}

fn notes(page: &mut String, found: &Findings) -> fmt::Result {
    let notes = found.notes;
    let mut said = Vec::new();
    if notes.zero_sizes > 0 {
        said.push(format!("{} requests of size zero count as one byte.", count(notes.zero_sizes)));
    }
    if notes.resized > 0 {
        said.push(format!(
            "{} requests have another size than before; an object's largest counts.",
            count(notes.resized)
        ));
    }
    if notes.late > 0 {
        said.push(format!("{} requests are a little out of order and replayed as they stand.", count(notes.late)));
    }
    if notes.cut_short {
        said.push("The file ends within a block and was read up to there.".to_owned());
    }
    if said.is_empty() { Ok(()) } else { writeln!(page, "<p class=\"note\">{}</p>", said.join(" ")) }
}

fn recommendation(page: &mut String, found: &Findings) -> fmt::Result {
    let one = &found.recommendation;
    writeln!(
        page,
        "<div class=\"advice\"><div><b>{}</b> with <b>{}</b> hits {:.2} % of requests and {:.2} % of bytes, {:.2} points \
         below the largest budget replayed.</div><pre>{}</pre></div>",
        bytes(one.budget_bytes),
        one.policy,
        100.0 * one.hit_ratio,
        100.0 * one.byte_hit_ratio,
        one.below_points,
        Text(one.toml().trim_end())
    )
}

/// Every figure of the curves.
fn table(page: &mut String, at: usize, found: &Findings) -> fmt::Result {
    writeln!(page, "<details><summary>Figures</summary>\n<div class=\"scroll\"><table id=\"figures-{at}\">")?;
    write!(page, "<thead><tr><th>budget</th><th>of footprint</th>")?;
    for curve in &found.curves {
        write!(page, "<th colspan=\"2\">{}</th>", Text(curve.policy.name()))?;
    }
    writeln!(page, "<th colspan=\"2\">limit</th><th colspan=\"2\">bound</th></tr>")?;
    write!(page, "<tr><th></th><th></th>")?;
    for _ in 0..found.curves.len() + 2 {
        write!(page, "<th>hits %</th><th>bytes %</th>")?;
    }
    writeln!(page, "</tr></thead>\n<tbody>")?;
    for (at, limit) in found.limits.iter().enumerate() {
        let share = 100.0 * limit.budget_bytes as f64 / found.footprint_bytes.max(1) as f64;
        write!(page, "<tr><th>{}</th><td>{share:.3} %</td>", bytes(limit.budget_bytes))?;
        let points = found.curves.iter().map(|curve| (curve.points[at].hit_ratio, curve.points[at].byte_hit_ratio));
        let limits = [(limit.objects_reached, limit.bytes_reached), (limit.objects_bound, limit.bytes_bound)];
        for (hits, bytes) in points.chain(limits) {
            write!(page, "<td>{:.2}</td><td>{:.2}</td>", 100.0 * hits, 100.0 * bytes)?;
        }
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</tbody></table></div></details>")
}

/// Text as HTML shows it, in content and in attributes.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// A count with its thousands apart.
fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with three digits or so.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::super::{Study, Synthetic, Trace};
    use super::*;

    #[test]
    fn a_page_needs_nothing_beside_it_and_shows_names_as_they_are() {
        let trace = Synthetic::Zipf { exponent: 0.9 }.trace(3_000, 400, 5);
        let mut found = Study::default().run(&trace, &|_, _| ()).unwrap();
        found.trace = "<script>alert('a')</script>&\"b\"".into();
        let page = page(&[found.clone(), found.clone()]);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert_eq!((page.matches("<svg").count(), page.matches("<script>").count()), (4, 1));
        assert!(page.contains("&lt;script&gt;alert(&#39;a&#39;)&lt;/script&gt;&amp;&quot;b&quot;"));
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("budget_bytes = "), "what to set is there");
        let table = page.split("id=\"figures-0\"").nth(1).unwrap().split("</table>").next().unwrap();
        assert_eq!(table.matches("<tr>").count(), 2 + found.limits.len());
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn one_budget_and_one_request_make_a_page_too() {
        let trace = Trace::from_reader(&b"0,1,1\n"[..], "t", None).unwrap();
        let study = Study { sizes: vec![super::super::Size::Share(1.0)], ..Study::default() };
        let page = page(&[study.run(&trace, &|_, _| ()).unwrap()]);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
