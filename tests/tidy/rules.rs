//! The rules that look at one file at a time, each with a bad text that it must catch.

use crate::source::Source;

const LINES_MAX: usize = 600;

/// A fault for each of `needles` wherever it stands in `lines`.
fn banned(source: &Source, lines: &[String], needles: &[&str], why: &str) -> Vec<String> {
    let mut places: Vec<(usize, &str)> = needles
        .iter()
        .flat_map(|needle| Source::places(lines, needle).into_iter().map(move |line| (line, *needle)))
        .collect();
    places.sort_unstable();
    places.into_iter().map(|(line, needle)| source.fault(line, &format!("`{needle}`: {why}"))).collect()
}

fn within(source: &Source, folders: &[&str]) -> bool {
    folders.iter().any(|folder| source.path.starts_with(folder))
}

/// `unsafe` only under src/platform and in the part of the resident table that readers look through without a lock, and
/// above each use a comment that names the invariant it rests on.
pub fn unsafe_is_walled(source: &Source) -> Vec<String> {
    let walled = within(source, &["src/platform.rs", "src/platform/", "src/residency/hold.rs", "src/residency/hold/"]);
    Source::places(&source.code, "unsafe")
        .into_iter()
        .filter_map(|line| {
            if !walled {
                Some(source.fault(line, "`unsafe` stands in src/platform and src/residency/hold alone"))
            } else if !explained(source, line) {
                Some(source.fault(line, "`unsafe` without a `SAFETY:` comment right above it"))
            } else {
                None
            }
        })
        .collect()
}

/// Whether the line says SAFETY, or the comments and attributes right above its statement do.
fn explained(source: &Source, line: usize) -> bool {
    let says = |index: usize| {
        let text = &source.lines[index];
        text.contains("SAFETY:") || text.contains("# Safety")
    };
    let mut index = line - 1;
    if says(index) {
        return true;
    }
    let mut statement_lines = 0;
    while index > 0 {
        index -= 1;
        let text = source.lines[index].trim();
        if says(index) {
            return true;
        }
        if text.starts_with("//") || text.starts_with("#[") {
            continue;
        }
        // A statement may begin a few lines before the block in it; an end of another statement is the limit.
        statement_lines += 1;
        if statement_lines > 4 || text.is_empty() || text.ends_with(';') || text.ends_with('}') {
            return false;
        }
    }
    false
}

/// Time is an argument; the clock alone reads it.
pub fn time_is_an_argument(source: &Source) -> Vec<String> {
    if source.path == "src/platform/clock.rs" {
        return Vec::new();
    }
    banned(source, &source.shipped, &["Instant::now", "SystemTime::now"], "ask the clock that is passed in")
}

/// A task or thread belongs to someone who stops it: spawns stand in the platform, under supervision and at the rim.
pub fn spawns_are_owned(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    if !within(source, &["src/serve", "src/bin/", "src/actors/supervision", "src/platform/"]) {
        let tasks = ["tokio::spawn", "task::spawn", "spawn_blocking", "spawn_local"];
        faults.extend(banned(source, &source.shipped, &tasks, "spawn it under supervision or on the platform's pool"));
    }
    if !within(source, &["src/bin/", "src/platform/"]) {
        let threads = ["thread::spawn", "thread::Builder"];
        faults.extend(banned(source, &source.shipped, &threads, "threads come from platform's `Threads`"));
    }
    faults
}

/// Queues are bounded. The platform's pool and driver are bounded by the credit of their users, the reaper by the
/// budget: what waits in it is still charged.
pub fn queues_are_bounded(source: &Source) -> Vec<String> {
    if within(source, &["src/platform/", "src/residency/reaper.rs"]) {
        return Vec::new();
    }
    let queues = ["unbounded_channel", "unbounded", "UnboundedSender", "mpsc::channel()", "SegQueue"];
    banned(source, &source.shipped, &queues, "a queue has a bound; a permit travels with each item")
}

/// Nothing shipped unwraps; an invariant that is proved says why in `expect`.
pub fn no_unwrap(source: &Source) -> Vec<String> {
    banned(
        source,
        &source.shipped,
        &[".unwrap()", ".unwrap_err()", "panic!"],
        "return an error, or `expect(\"why it holds\")`",
    )
}

/// No stub and no test that does not run.
pub fn nothing_left_to_do(source: &Source) -> Vec<String> {
    let mut faults = banned(source, &source.code, &["todo!", "unimplemented!"], "finish it");
    faults.extend(banned(source, &source.code, &["#[ignore", "#![ignore"], "a test runs or is not there"));
    faults
}

/// No thread sleeps: tests wait on gates, actors on their clock.
pub fn nothing_sleeps(source: &Source) -> Vec<String> {
    banned(source, &source.code, &["thread::sleep", "sleep_ms"], "wait on a gate, a channel or the clock")
}

/// A file past the limit is two files.
pub fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.lines.len();
    if lines <= LINES_MAX {
        return Vec::new();
    }
    vec![source.fault(LINES_MAX + 1, &format!("{lines} lines; split it, {LINES_MAX} is the limit"))]
}

/// The first line says why the file is there.
pub fn files_open_with_a_doc(source: &Source) -> Vec<String> {
    match source.lines.first() {
        Some(line) if line.starts_with("//!") && line.len() > 4 => Vec::new(),
        _ => vec![source.fault(1, "it does not open with a `//!` sentence that says why it is there")],
    }
}

/// A file that implements an actor opens with the actor's contract.
pub fn actors_state_their_contract(source: &Source) -> Vec<String> {
    let implements = |line: &String| {
        let line = line.trim_start();
        line.starts_with("impl") && (line.contains(" Actor for ") || line.contains("ThreadLocalActor for "))
    };
    if !source.shipped.iter().any(implements) {
        return Vec::new();
    }
    let header: String =
        source.lines.iter().take_while(|line| line.starts_with("//!")).map(|line| line.to_lowercase() + "\n").collect();
    ["role", "owns", "receives", "sends", "on restart", "bounds"]
        .into_iter()
        .filter(|word| !header.contains(word))
        .map(|word| source.fault(1, &format!("the actor's header does not say '{word}'")))
        .collect()
}

/// Every direct dependency of the manifest has a line in docs/dependencies.md, and nothing else has.
pub fn dependencies_are_accounted_for(manifest: &str, document: &str) -> Vec<String> {
    let mut section = "";
    let mut wanted = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.trim_end_matches(']');
        } else if section.ends_with("dependencies")
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once('=')
        {
            wanted.push(name.trim().trim_matches('"').split('.').next().unwrap_or_default());
        }
    }
    let told: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split('`').next())
        .collect();
    let mut faults: Vec<String> = wanted
        .iter()
        .filter(|name| !told.contains(name))
        .map(|name| format!("docs/dependencies.md: no line for `{name}`: say why it, and what else was considered"))
        .collect();
    let stale = told.iter().filter(|name| !wanted.contains(name));
    faults.extend(stale.map(|name| format!("docs/dependencies.md: `{name}` is not a dependency any more")));
    faults
}

/// Asserts that `rule` finds exactly the faults at `lines` of `text` as the file `path`.
#[cfg(test)]
#[track_caller]
fn check(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, lines: &[usize]) {
    let faults = rule(&Source::new(path, text));
    let expected: Vec<String> = lines.iter().map(|line| format!("{path}:{line}: ")).collect();
    let fits =
        faults.len() == lines.len() && faults.iter().zip(&expected).all(|(fault, start)| fault.starts_with(start));
    assert!(fits, "expected faults at {lines:?}, got {faults:#?}");
}

#[test]
fn unsafe_elsewhere_or_unexplained_is_a_fault() {
    let bare = "fn f() {\n    let x = unsafe { g() };\n}\n";
    check(unsafe_is_walled, "src/residency/table.rs", bare, &[2]);
    check(unsafe_is_walled, "src/platform/memory.rs", bare, &[2]);
    let explained = "fn f() {\n    // SAFETY: the buffer outlives the read (invariant 15).\n    #[allow(unsafe_code)]\n    let x =\n        unsafe { g() };\n}\n";
    check(unsafe_is_walled, "src/platform/memory.rs", explained, &[]);
    let stale = "// SAFETY: of something else.\nlet a = 1;\nlet x = unsafe { g() };\n";
    check(unsafe_is_walled, "src/platform/memory.rs", stale, &[3]);
    check(unsafe_is_walled, "src/lib.rs", "#![deny(unsafe_code)]\n// unsafe\n", &[]);
}

#[test]
fn time_read_outside_the_clock_is_a_fault() {
    let text = "fn f() { let a = std::time::Instant::now(); }\nfn g() { SystemTime::now(); }\n#[cfg(test)]\nmod tests {\n    fn h() { Instant::now(); }\n}\n";
    check(time_is_an_argument, "src/actors/evictor.rs", text, &[1, 2]);
    check(time_is_an_argument, "src/platform/clock.rs", text, &[]);
}

#[test]
fn a_spawn_that_nobody_owns_is_a_fault() {
    let text = "fn f() { tokio::spawn(async {}); }\nfn g() { std::thread::spawn(|| ()); }\nfn h() { tokio::task::spawn_blocking(k); }\n";
    check(spawns_are_owned, "src/actors/rebuilder.rs", text, &[1, 3, 2]);
    check(spawns_are_owned, "src/serve/http.rs", text, &[2]);
    check(spawns_are_owned, "src/platform/threads.rs", text, &[]);
}

#[test]
fn a_queue_without_a_bound_is_a_fault() {
    let text = "let (a, b) = tokio::sync::mpsc::unbounded_channel();\nlet c = crossbeam_channel::unbounded::<u8>();\nlet d = mpsc::channel();\nlet e = mpsc::channel(8);\n";
    check(queues_are_bounded, "src/runtime.rs", text, &[1, 2, 3]);
    check(queues_are_bounded, "src/platform/threads.rs", text, &[]);
}

#[test]
fn an_unwrap_outside_tests_is_a_fault() {
    let text = "/// a.unwrap()\nfn f() { a.unwrap(); }\nfn g() { a.unwrap_or_default(); b.expect(\"it was checked\"); }\nfn h() { panic!(\"no\") }\n#[test]\nfn t() { a.unwrap() }\n";
    check(no_unwrap, "src/ids.rs", text, &[2, 4]);
}

#[test]
fn a_stub_or_an_ignored_test_is_a_fault() {
    check(nothing_left_to_do, "src/ids.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n", &[1, 2]);
    check(nothing_left_to_do, "tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", &[2]);
}

#[test]
fn a_sleep_is_a_fault_in_tests_too() {
    check(nothing_sleeps, "tests/a.rs", "#[test]\nfn f() { std::thread::sleep(d); }\n", &[2]);
}

#[test]
fn a_long_file_is_a_fault() {
    check(files_are_short, "src/a.rs", &"//! x\n".repeat(600), &[]);
    check(files_are_short, "src/a.rs", &"//! x\n".repeat(601), &[601]);
}

#[test]
fn a_file_without_a_reason_is_a_fault() {
    check(files_open_with_a_doc, "src/a.rs", "use std::fmt;\n", &[1]);
    check(files_open_with_a_doc, "src/a.rs", "", &[1]);
    check(files_open_with_a_doc, "src/a.rs", "//! Why.\n", &[]);
}

#[test]
fn an_actor_without_its_contract_is_a_fault() {
    let body = "impl Actor for Evictor {}\n";
    let whole = "//! Role: r. Owns: o.\n//! Receives a, sends b.\n//! On restart: rebuilt.\n//! Bounds: 1.\n";
    check(actors_state_their_contract, "src/actors/evictor.rs", &format!("{whole}{body}"), &[]);
    check(actors_state_their_contract, "src/actors/evictor.rs", &format!("//! Role: r.\n{body}"), &[1; 5]);
    check(actors_state_their_contract, "src/actors/address.rs", "//! No actor.\n", &[]);
}

#[test]
fn a_dependency_without_a_reason_and_a_reason_without_a_dependency_are_faults() {
    let manifest = "[dependencies]\n# bytes\nblake3 = \"1\"\nzstd = { version = \"1\" }\n\n[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n[features]\ncli = []\n";
    let faults =
        dependencies_are_accounted_for(manifest, "| `blake3` | x | y |\n| `libc` | x | y |\n| `moka` | x | y |\n");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("`zstd`") && faults[1].contains("`moka`"), "{faults:?}");
}
