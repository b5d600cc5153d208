//! Hit ratios of Flyloft's eviction policies beside other caches and beside the offline limits, on the same traces.
//!
//! ```sh
//! scripts/cache.sh                             # ../shared/traces if there, and made-up ones
//! scripts/cache.sh FOLDER|TRACE..              # others; so does FLYLOFT_TRACES
//! scripts/cache.sh --sizes 0.1%,1% --policies lru,adaptive --no-made-up --peers moka
//! ```
//! Budgets are parts of a trace's footprint. Every cache gets the same requests, weights and budget; after each request
//! what it holds is looked at, and a cache that held more than its budget is marked. Markdown.

mod subjects;
#[path = "../../../cache/table.rs"]
mod table;

fn main() {
    table::run(&subjects::PEERS);
}
