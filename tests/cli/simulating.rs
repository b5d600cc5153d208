//! `simulate` as its users see it.

use std::fs;

use super::common::Tree;
use super::{flyloft, text};

/// 4,000 requests, half of them for ten objects.
fn trace() -> String {
    let mut text = String::from("time,id,size\n");
    for turn in 0..4_000u64 {
        let id = if turn % 2 == 0 { turn / 2 % 10 } else { 10 + turn * 7_919 % 1_500 };
        text += &format!("{turn},{id},{}\n", 100 + id * 37 % 900);
    }
    text
}

#[test]
fn a_trace_is_replayed_under_budgets_and_policies_and_a_configuration_is_recommended() {
    let tree = Tree::new();
    let (file, page) = (tree.outside("a.csv"), tree.outside("a.html"));
    fs::write(&file, trace()).unwrap();
    let call = ["simulate", text(&file), "--sizes", "1%,10%,64KiB", "--policies", "lru", "--report", text(&page)];
    let told = flyloft(&call).done();
    for part in ["4,000 requests", "hits %", "bytes %", "lru", "limit", "64.0 KiB", "[runtime]", "policy = \"lru\""] {
        assert!(told.contains(part), "'{part}' is not in: {told}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("a.csv") && page.contains("</svg>"));

    let found = flyloft(&["simulate", text(&file), "--sizes", "5%,100%", "--json"]).json();
    let one = &found["traces"][0];
    assert_eq!((one["requests"].as_u64(), one["sample_rate"].as_f64()), (Some(4_000), Some(1.0)));
    let curves = one["curves"].as_array().unwrap();
    let lru = curves.iter().find(|curve| curve["policy"] == "lru").unwrap();
    let whole = &lru["points"][1];
    assert_eq!(whole["budget_bytes"], one["footprint_bytes"]);
    assert_eq!(whole["hit_ratio"], one["limits"][1]["objects_reached"], "everything fits: only first requests miss");
    assert!(curves.len() > 1 && one["recommendation"]["budget_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn prefetching_is_tried_by_those_who_are_named() {
    let tree = Tree::new();
    let (file, page) = (tree.outside("a.csv"), tree.outside("a.html"));
    // A loop over a thousand objects.
    let text_of = |turn: u64| format!("{turn},{},1000\n", turn % 1_000);
    fs::write(&file, (0..10_000).map(text_of).collect::<String>()).unwrap();
    let call = ["simulate", text(&file), "--sizes", "10%", "--policies", "lru", "--predictors", "sequential,ensemble"];
    let told = flyloft(&[&call[..], &["--report", text(&page)]].concat()).done();
    assert!(told.contains("precision") && told.contains("\nsequential") && told.contains("\nensemble"), "{told}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Prefetching") && page.contains("Latencies of requests"));
    let found = flyloft(&[&call[..], &["--json"]].concat()).json();
    let prefetch = found["traces"][0]["prefetch"].as_array().unwrap().clone();
    let misses = |name: &str| {
        let one = prefetch.iter().find(|one| one["predictor"] == name).unwrap();
        one["misses"].as_u64().unwrap()
    };
    let none = misses("none");
    assert!(none > 8_000 && misses("sequential") < none / 2 && misses("ensemble") < none / 2);
    flyloft(&["simulate", text(&file), "--predictors", "oracle"]).refused(2, &["--predictors", "ensemble"]);
}

#[test]
fn a_budget_of_today_is_looked_at_from_a_tenth_to_twice_of_it() {
    let tree = Tree::new();
    let file = tree.outside("a.csv");
    fs::write(&file, trace()).unwrap();
    let found = flyloft(&["simulate", text(&file), "--budget", "100k", "--policies", "lru", "--json"]).json();
    let points = found["traces"][0]["curves"][0]["points"].as_array().unwrap().clone();
    let budgets: Vec<u64> = points.iter().map(|point| point["budget_bytes"].as_u64().unwrap()).collect();
    assert_eq!((budgets.len(), budgets[0], budgets[7]), (8, 10_240, 204_800));
}

#[test]
fn what_cannot_be_simulated_is_refused_in_one_line() {
    let tree = Tree::new();
    let write = |name: &str, bytes: &[u8]| {
        let file = tree.outside(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let good = write("good.csv", trace().as_bytes());
    let picture = write("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    let unsorted = write("unsorted.csv", b"5,1,10\n9,2,10\n6,1,10\n");
    let short = write("short.csv", b"5,1,10\n9,2\n");
    let refused = |call: &[&str], said: &[&str]| flyloft(&[&["simulate"], call].concat()).refused(2, said);
    refused(&[text(&tree.outside("gone.csv"))], &["gone.csv", "cannot open"]);
    refused(&[text(&picture)], &["picture.png", "no trace of a kind that is known"]);
    refused(&[text(&unsorted)], &["unsorted.csv", "line 3", "sort the trace"]);
    refused(&[text(&short)], &["short.csv", "line 2", "3 columns"]);
    refused(&[text(&good), "--format", "lirs"], &["good.csv", "line 1", "number of a block"]);
    refused(&[text(&good), "--format", "cvs"], &["--format", "csv, oracle-general"]);
    refused(&[text(&good), "--policies", "lru,clock"], &["--policies", "clock", "lru"]);
    refused(&[text(&good), "--sizes", "1%,no"], &["--sizes", "'no' is not a size"]);
    refused(&[text(&good), "--sizes", "-1%"], &["--sizes"]);
    refused(&[text(&good), "--sizes", "NaN%"], &["--sizes", "'NaN%'"]);
    refused(&[text(&good), "--sizes", "0"], &["sizes", "zero"]);
    refused(&[text(&good), "--sample", "2"], &["sample"]);
    refused(&[text(&good), "--within", "NaN"], &["within"]);
    refused(&[text(&good), "--objective", "speed"], &["--objective", "balanced"]);
    refused(&[text(&good), "--report", text(&tree.outside("no/such/folder.html"))], &["folder.html", "report"]);
}
