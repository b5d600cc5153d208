//! What can be observed: events for subscribers, counters and histograms for pages, names for spans.
//!
//! Spans: `load` (one per request, with its number, through every stage), `reload` (one per generation), `restart`
//! (one per restart). They are plain `tracing` spans: a console or OpenTelemetry layer attaches with no change here.

pub mod accesses;
pub mod costs;
pub mod events;
pub mod histogram;
pub mod lanes;
pub mod metrics;
pub mod reloads;
mod shards;

pub use accesses::{Access, Accesses, Level, Moment, Noted, Tap};
pub use costs::{Costs, Rates};
pub use events::{Events, Subscription};
pub use histogram::{Histogram, Quantiles};
pub use lanes::{LaneReport, PriorityMetrics, RateReport};
pub use metrics::{Counter, Metrics, MetricsReport};
pub use reloads::{ReloadQueue, Reloads};
