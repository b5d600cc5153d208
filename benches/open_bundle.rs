//! Opening a bundle of a million assets beside one of ten: the open itself, and the first look-ups after it.
//!
//! ```sh
//! cargo bench --bench open_bundle [-- ASSETS]
//! ```
//! Warm: medians of many rounds in which the bundles take turns. Cold: medians of a few rounds, the page cache emptied
//! before each open, which needs root; without it the row says what was dropped; then once more with the tables put into
//! memory as a part of the open (`tables.populate`). The bundles are made by the public API in a temporary folder,
//! without a file per asset.

mod support;

use std::path::{Path, PathBuf};

use flyloft::AssetPath;
use flyloft::bundle::Bundle;
use flyloft::config::TablesConfig;
use support::{count, drop_all, head, median, row, shuffled, small_assets, small_path, storage, timed};

const ROUNDS: usize = 500;
const COLD_ROUNDS: usize = 7;
/// Look-ups after the first two, where they are timed.
const MORE: usize = 2_000;

fn main() {
    let large = support::args().first().and_then(|first| first.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sizes = [10, large];
    let bundles: Vec<PathBuf> = sizes.iter().map(|assets| small_assets(folder.path(), *assets)).collect();

    head(&["bundle", "bytes", "open, µs", "p99", "first look-up, µs", "look-up after it, µs", "2,000 more, ms"]);
    let as_it_is = TablesConfig::default();
    let mut warm: Vec<Vec<[f64; 4]>> = vec![Vec::new(); sizes.len()];
    for round in 0..ROUNDS + ROUNDS / 10 {
        for (index, bundle) in bundles.iter().enumerate() {
            let times = once(bundle, sizes[index], round, &as_it_is, 0);
            // The first rounds warm up.
            if round >= ROUNDS / 10 {
                warm[index].push(times);
            }
        }
    }
    let medians = print("warm", &bundles, &sizes, &warm);
    let mut how = "";
    for (what, tables) in [("cold", as_it_is), ("cold, populated", TablesConfig { populate: true, ..as_it_is })] {
        let mut cold: Vec<Vec<[f64; 4]>> = vec![Vec::new(); sizes.len()];
        for round in 0..COLD_ROUNDS {
            for (index, bundle) in bundles.iter().enumerate() {
                how = drop_all([bundle.clone()]);
                cold[index].push(once(bundle, sizes[index], round, &tables, MORE));
            }
        }
        print(what, &bundles, &sizes, &cold);
    }
    println!();
    println!("cold: {how}");
    println!(
        "open, warm, {} assets beside 10: {:.2} times as long (goal: at most 2, and under 1 ms: {:.3} ms)",
        count(large as f64),
        medians[1] / medians[0],
        medians[1] / 1e3
    );
}

/// Microseconds of an open, of the first look-up after it, of one more, and of `more` of them anywhere.
fn once(file: &Path, assets: usize, round: usize, tables: &TablesConfig, more: usize) -> [f64; 4] {
    let (first, second) = (small_path(round * 7919 % assets), small_path((round * 7919 + 3) % assets));
    let (open, (bundle, prepared)) = timed(|| {
        let bundle = Bundle::open(storage(file), true).expect("it is a bundle");
        let prepared = bundle.prepare_tables(tables).expect("its tables are sound");
        (bundle, prepared)
    });
    assert_eq!(prepared.report().refused, None);
    let find = |path: &str| {
        let path = AssetPath::new(path).expect("a path");
        timed(|| bundle.find(&path).expect("it is read").expect("it is there")).0
    };
    let (first, second) = (find(&first), find(&second));
    let anywhere = if more == 0 { Vec::new() } else { shuffled(assets, round as u64) };
    let paths: Vec<String> = anywhere.iter().cycle().take(more).map(|index| small_path(*index)).collect();
    let more = paths.iter().map(|path| find(path)).sum();
    [open, first, second, more].map(|took| took.as_secs_f64() * 1e6)
}

/// Prints the rows; answers the medians of the open.
fn print(what: &str, bundles: &[PathBuf], sizes: &[usize], times: &[Vec<[f64; 4]>]) -> Vec<f64> {
    let mut medians = Vec::new();
    for ((file, assets), times) in bundles.iter().zip(sizes).zip(times) {
        let of = |column: usize| times.iter().map(|times| times[column]).collect::<Vec<f64>>();
        let bytes = std::fs::metadata(file).expect("it is there").len();
        medians.push(median(of(0)));
        row(&[
            format!("{} assets, {what}", count(*assets as f64)),
            count(bytes as f64),
            format!("{:.1}", median(of(0))),
            format!("{:.1}", support::quantile(of(0), 0.99)),
            format!("{:.1}", median(of(1))),
            format!("{:.1}", median(of(2))),
            if median(of(3)) < 1.0 { String::new() } else { format!("{:.2}", median(of(3)) / 1e3) },
        ]);
    }
    medians
}
