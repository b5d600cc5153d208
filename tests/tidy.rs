//! The house's style as a test that reads the source: layers, walls, and what may stand where.
//!
//! Each rule is a function from one parsed file to its faults, so that each can be tried on made-up bad text beside
//! it. The lexer in `tidy/source.rs` blanks comments and literals, so that no rule is fooled by prose.

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// The Rust files below `folder` of the project, in path order. A folder that does not exist has none.
fn rust_files(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting = vec![root.join(folder)];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                // A package below, such as benches/peers, may have been built in place.
                if path.file_name().is_none_or(|name| name != "target") {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    let mut files: Vec<Source> = found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a readable UTF-8 source file");
            let name = path.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/");
            Source::new(&name, &text)
        })
        .collect();
    let tests: Vec<String> = files.iter().flat_map(Source::test_modules).collect();
    for file in &mut files {
        let module = file.path.trim_end_matches(".rs");
        if tests
            .iter()
            .any(|test| module.strip_prefix(test.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            file.belongs_to_tests();
        }
    }
    files
}

/// Applies `rule` to every file and fails with all faults, one per line.
fn hold(files: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    let faults: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_layer_imports_a_higher_one() {
    let files = rust_files("src");
    let library = files.iter().find(|file| file.path == "src/lib.rs").expect("src/lib.rs exists");
    let public = layers::Public::of(library);
    hold(&files, |file| layers::faults(file, &public));
}

#[test]
fn unsafe_code_stands_behind_its_walls_and_says_why_it_is_sound() {
    hold(&rust_files("src"), rules::unsafe_is_walled);
    for folder in ["tests", "examples", "benches"] {
        hold(&rust_files(folder), rules::unsafe_is_walled);
    }
}

#[test]
fn only_the_clock_reads_the_time() {
    hold(&rust_files("src"), rules::time_is_an_argument);
}

#[test]
fn tasks_and_threads_are_spawned_where_someone_owns_them() {
    hold(&rust_files("src"), rules::spawns_are_owned);
}

#[test]
fn every_queue_has_a_bound() {
    hold(&rust_files("src"), rules::queues_are_bounded);
}

#[test]
fn nothing_unwraps_or_panics_outside_tests() {
    hold(&rust_files("src"), rules::no_unwrap);
}

#[test]
fn nothing_is_left_to_do() {
    for folder in ["src", "tests", "examples", "benches"] {
        hold(&rust_files(folder), rules::nothing_left_to_do);
    }
}

#[test]
fn nothing_sleeps() {
    for folder in ["src", "tests"] {
        hold(&rust_files(folder), rules::nothing_sleeps);
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    for folder in ["src", "tests", "examples", "benches"] {
        hold(&rust_files(folder), rules::files_are_short);
    }
}

#[test]
fn every_file_says_why_it_is_there() {
    for folder in ["src", "examples", "benches"] {
        hold(&rust_files(folder), rules::files_open_with_a_doc);
    }
}

#[test]
fn every_actor_states_its_contract() {
    hold(&rust_files("src/actors"), rules::actors_state_their_contract);
}

#[test]
fn every_dependency_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a readable file of the project");
    let faults = rules::dependencies_are_accounted_for(&read("Cargo.toml"), &read("docs/dependencies.md"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
