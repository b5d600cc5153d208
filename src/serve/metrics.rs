//! `/metrics`: every figure in Prometheus's text format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Face;
use super::traffic::Traffic;
use crate::bundle::TablesReport;
use crate::runtime::ActorState;
use crate::runtime::{EngineStatus, Health, Stats, Status};
use crate::runtime::{ExpertStats, PredictionStats};
use crate::telemetry::{LaneReport, Quantiles};

pub(super) async fn text(State(face): State<Arc<Face>>) -> Response {
    let body = render(&face.runtime.status(), &face.runtime.stats(), &face.traffic);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

fn render(status: &Status, stats: &Stats, served: &Traffic) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    runtime(&mut page, status);
    loads(&mut page, stats);
    priorities(&mut page, stats);
    memory(&mut page, stats);
    prediction(&mut page, &stats.prediction);
    requests(&mut page, stats);
    bandwidth(&mut page, stats);
    engines(&mut page, status);
    tables(&mut page, &status.tables);
    traffic(&mut page, served);
    page.0
}

fn runtime(page: &mut Page, status: &Status) {
    let up = u64::from(status.health == Health::Running);
    page.gauge("up", "Whether the runtime works", up);
    page.gauge("generation", "The generation that readers see", status.generation.0);
    page.gauge("assets", "Assets in that generation", status.assets);
    page.gauge("live_generations", "Generations that somebody holds", status.live_generations);
    page.gauge("build_failures", "Source files that do not build now", status.failures.len());
    page.gauge("uptime_seconds", "Seconds since the start", status.uptime_seconds);
    page.family("actor_up", "Whether an actor works", "gauge");
    for actor in &status.actors {
        page.sample("actor_up", &[("actor", &actor.name)], u64::from(actor.state == ActorState::Up));
    }
    page.family("actor_restarts_total", "Restarts of an actor", "counter");
    for actor in &status.actors {
        page.sample("actor_restarts_total", &[("actor", &actor.name)], actor.restarts);
    }
}

fn loads(page: &mut Page, stats: &Stats) {
    let metrics = &stats.metrics;
    page.counter("hits_total", "Gets and loads answered from memory at once", metrics.hits);
    page.counter("misses_total", "Gets that found nothing and loads that had to ask", metrics.misses);
    page.counter("reads_total", "Reads sent to the engines", metrics.reads);
    page.counter("read_bytes_total", "Bytes of those reads", metrics.read_bytes);
    page.counter("frames_total", "Frames that came with those reads", metrics.frames);
    page.counter("decoded_bytes_total", "Bytes decoded", metrics.decoded_bytes);
    page.counter("corrupt_total", "Frames or contents that did not match their hash", metrics.corrupt);
    page.counter("item_panics_total", "Panics caught while working on one item", metrics.item_panics);
    page.counter("evictions_total", "Assets evicted", metrics.evictions);
    page.counter("evicted_bytes_total", "Bytes evicted", metrics.evicted_bytes);
    page.counter("reads_dropped_total", "Planned reads that nobody waited for any more", metrics.reads_dropped);
    page.counter("memory_waits_total", "Loads that waited for memory", metrics.memory_waits);
    page.counter("prefetches_total", "Prefetches asked for", metrics.prefetches);
    page.counter("reloads_total", "Generations published", metrics.reloads);
    page.summary("load_latency_seconds", "From request to answer, for loads that were not hits", metrics.load_latency);
    page.summary("reload_latency_seconds", "From the first event to the publication", metrics.reload_latency);
}

fn priorities(page: &mut Page, stats: &Stats) {
    let by_priority = &stats.metrics.by_priority;
    let mut family = |name: &str, help: &str, kind: &str, value: fn(&LaneReport) -> u64| {
        page.family(name, help, kind);
        for (priority, lane) in by_priority {
            page.sample(name, &[("priority", priority.name())], value(lane));
        }
    };
    family("completions_total", "Loads answered, by priority", "counter", |lane| lane.completions);
    family("priority_reads_total", "Reads that completed, by priority", "counter", |lane| lane.reads);
    family("priority_read_bytes_total", "Bytes of those reads", "counter", |lane| lane.read_bytes);
    family("queued", "Loads and planned reads that wait, by priority", "gauge", |lane| lane.queued);
    let name = "priority_queue_latency_seconds";
    by_lane(page, stats, name, "From a load's way out of the ledger to its read", |lane| lane.queue_latency);
    by_lane(page, stats, "priority_load_latency_seconds", "From request to answer, by priority", |lane| {
        lane.load_latency
    });
    let rate = &stats.metrics.rate;
    page.gauge("read_bytes_per_second", "Bytes read in the last whole second", rate.bytes_per_second);
    page.gauge("read_bytes_per_second_peak", "The most of any second", rate.bytes_per_second_peak);
    page.gauge("reads_per_second", "Reads in the last whole second", rate.reads_per_second);
    page.gauge("reads_per_second_peak", "The most of any second", rate.reads_per_second_peak);
}

fn by_lane(page: &mut Page, stats: &Stats, name: &str, help: &str, of: fn(&LaneReport) -> Quantiles) {
    page.family(name, help, "summary");
    for (priority, lane) in &stats.metrics.by_priority {
        let (quantiles, label) = (of(lane), ("priority", priority.name()));
        for (quantile, us) in [("0.5", quantiles.p50_us), ("0.95", quantiles.p95_us), ("0.99", quantiles.p99_us)] {
            page.sample(name, &[label, ("quantile", quantile)], us as f64 / 1e6);
        }
        page.sample(&format!("{name}_sum"), &[label], quantiles.sum_us as f64 / 1e6);
        page.sample(&format!("{name}_count"), &[label], quantiles.count);
    }
}

fn prediction(page: &mut Page, stats: &PredictionStats) {
    let mut family = |name: &str, help: &str, kind: &str, value: fn(&ExpertStats) -> u64| {
        page.family(name, help, kind);
        for expert in &stats.experts {
            page.sample(name, &[("expert", expert.expert.name())], value(expert));
        }
    };
    family("predicted_total", "Prefetches that were predicted", "counter", |expert| expert.prefetched);
    family("predicted_bytes_total", "Bytes of those", "counter", |expert| expert.prefetched_bytes);
    family("predicted_used_total", "Those that were asked for", "counter", |expert| expert.used);
    family("predicted_late_total", "Those asked for before they had come", "counter", |expert| expert.late);
    family("predicted_wasted_total", "Those that nobody asked for", "counter", |expert| expert.wasted);
    family("predicted_wasted_bytes_total", "Bytes of those", "counter", |expert| expert.wasted_bytes);
    family("predictor_active", "Whether an expert is believed now", "gauge", |expert| u64::from(expert.active));
    family("predictor_distance", "How far ahead an expert looks", "gauge", |expert| u64::from(expert.distance));
}

fn memory(page: &mut Page, stats: &Stats) {
    let budget = &stats.budget;
    page.gauge("budget_bytes", "Bytes that may be charged", budget.total);
    page.gauge("budget_reserve_bytes", "The part of them for reads in flight", budget.reserve);
    page.gauge("pressure_level", "How short memory is: 0 normal, 1 elevated, 2 high, 3 critical", budget.level as u8);
    page.gauge("charged_bytes", "Bytes charged for contents", budget.charged);
    page.gauge("charged_io_bytes", "Bytes charged for reads in flight", budget.charged_io);
    page.gauge("charged_peak_bytes", "The most that was ever charged", budget.peak);
    page.family("charged_kind_bytes", "Bytes charged for contents, by kind", "gauge");
    for (kind, bytes) in &budget.by_kind {
        page.sample("charged_kind_bytes", &[("kind", kind.name())], bytes);
    }
    page.gauge("resident_assets", "Assets in memory", stats.resident);
}

fn requests(page: &mut Page, stats: &Stats) {
    let ledger = &stats.ledger;
    page.family("requests_open", "Requests that are not answered yet", "gauge");
    for (priority, open) in &ledger.open_by_priority {
        page.sample("requests_open", &[("priority", priority.name())], open);
    }
    page.family("requests_total", "Requests accepted", "counter");
    let origins = [
        ("user", ledger.joined_by_user),
        ("predictor", ledger.joined_by_predictor),
        ("system", ledger.joined_by_system),
    ];
    for (origin, count) in origins {
        page.sample("requests_total", &[("origin", origin)], count);
    }
    page.family("requests_ended_total", "How requests ended", "counter");
    let ends = [
        ("answered", ledger.answered),
        ("failed", ledger.failed),
        ("cancelled", ledger.cancelled),
        ("expired", ledger.expired),
        ("quarantined", ledger.quarantined),
        ("closed", ledger.closed),
    ];
    for (end, count) in ends {
        page.sample("requests_ended_total", &[("end", end)], count);
    }
    page.counter("requests_merged_total", "Requests that joined work which was open already", ledger.merged);
    page.counter("requests_given_back_total", "Times that work on a request began again", ledger.given_back);
    page.counter("requests_refused_total", "Requests refused at the limit", ledger.refused);
    page.gauge("quarantined", "Assets in quarantine", ledger.in_quarantine);
}

fn bandwidth(page: &mut Page, stats: &Stats) {
    let bandwidth = &stats.bandwidth;
    page.family("sent_bytes_total", "Bytes sent to be read, by priority", "counter");
    for (priority, bytes) in &bandwidth.sent_bytes {
        page.sample("sent_bytes_total", &[("priority", priority.name())], bytes);
    }
    let limit = bandwidth.bytes_per_second.map_or(f64::INFINITY, |bytes| bytes as f64);
    let limit = if limit.is_finite() { limit.to_string() } else { "+Inf".to_owned() };
    page.gauge("bandwidth_limit_bytes_per_second", "Bytes that may be read in a second", limit);
    let held = bandwidth.throttled_us as f64 / 1e6;
    page.family("bandwidth_held_seconds_total", "How long reads were held back by that", "counter");
    page.sample("bandwidth_held_seconds_total", &[], held);
}

fn engines(page: &mut Page, status: &Status) {
    let mut family = |name: &str, help: &str, kind: &str, value: fn(&EngineStatus) -> u64| {
        page.family(name, help, kind);
        for engine in &status.engines {
            let node = engine.node.to_string();
            page.sample(name, &[("node", &node), ("engine", engine.engine)], value(engine));
        }
    };
    family("engine_in_flight", "Reads with an engine now", "gauge", |engine| engine.in_flight as u64);
    family("engine_failed_total", "Reads that ended with an error", "counter", |engine| engine.stats.failed);
    family("engine_reads_total", "Reads that ended", "counter", |engine| engine.stats.completed);
    family("decode_jobs_total", "Jobs of decoding on its node", "counter", |engine| engine.decoding.finished);
    let queued = |engine: &EngineStatus| engine.decoding.queued.iter().sum::<usize>() as u64;
    family("decode_jobs_queued", "Jobs of decoding that wait on its node", "gauge", queued);
}

fn tables(page: &mut Page, tables: &TablesReport) {
    page.gauge("tables_bytes", "Bytes of the tables of contents, where they are prepared", tables.bytes);
    page.gauge("tables_populated_bytes", "Bytes that were put into memory ahead", tables.populated_bytes);
    page.gauge("tables_locked_bytes", "Bytes of the tables that are locked in memory", tables.locked_bytes);
    page.gauge("tables_refused", "Whether not all of what was asked for was done", u64::from(tables.refused.is_some()));
}

fn traffic(page: &mut Page, traffic: &Traffic) {
    page.gauge("http_connections", "Connections that are open", traffic.connections());
    page.family("http_responses_total", "Responses about assets, by status", "counter");
    for (status, count) in traffic.statuses() {
        page.sample("http_responses_total", &[("status", status)], count);
    }
    page.family("http_representations_total", "Responses about assets, by the encoding of the asset", "counter");
    for (encoding, responses, _) in traffic.encodings() {
        page.sample("http_representations_total", &[("encoding", encoding)], responses);
    }
    page.family("http_asset_bytes_total", "Bytes of assets in those responses, as sent", "counter");
    for (encoding, _, bytes) in traffic.encodings() {
        page.sample("http_asset_bytes_total", &[("encoding", encoding)], bytes);
    }
}

/// The text so far. Every name gets the prefix `flyloft_`.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        self.push(format_args!("# HELP flyloft_{name} {help}.\n# TYPE flyloft_{name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.push(format_args!("flyloft_{name}"));
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.push(format_args!("{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' }));
        }
        self.push(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "gauge");
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, "counter");
        self.sample(name, &[], value);
    }

    fn summary(&mut self, name: &str, help: &str, quantiles: Quantiles) {
        self.family(name, help, "summary");
        for (quantile, us) in [("0.5", quantiles.p50_us), ("0.95", quantiles.p95_us), ("0.99", quantiles.p99_us)] {
            self.sample(name, &[("quantile", quantile)], us as f64 / 1e6);
        }
        self.sample(&format!("{name}_sum"), &[], quantiles.sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[], quantiles.count);
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_says_what_it_is_and_a_label_is_escaped() {
        let mut page = Page(String::new());
        page.family("x", "Help", "gauge");
        page.sample("x", &[("a", "b\"c\\d\n"), ("e", "f")], 1.5);
        let text = "# HELP flyloft_x Help.\n# TYPE flyloft_x gauge\nflyloft_x{a=\"b\\\"c\\\\d\\n\",e=\"f\"} 1.5\n";
        assert_eq!(page.0, text);
    }

    #[test]
    fn a_summary_is_in_seconds() {
        let mut page = Page(String::new());
        page.summary("s", "Help", Quantiles { count: 2, sum_us: 3000, p50_us: 1000, p95_us: 2000, p99_us: 2000 });
        assert!(page.0.contains("flyloft_s{quantile=\"0.5\"} 0.001\n"), "{}", page.0);
        assert!(page.0.contains("flyloft_s_sum 0.003\nflyloft_s_count 2\n"), "{}", page.0);
    }
}
