//! Hit ratios of the eviction policies beside the offline limits, and nanoseconds per request. Markdown.
//!
//! ```sh
//! cargo bench --bench cache                              # ../shared/traces if there, and made-up ones
//! cargo bench --bench cache -- FOLDER|TRACE.. --policies lru,adaptive --sizes 0.1%,1%,10% --no-made-up
//! scripts/cache.sh                                       # the same beside moka, mini-moka, quick_cache and foyer
//! ```

#[path = "cache/table.rs"]
mod table;

fn main() {
    table::run(&[]);
}
