//! Who may name whom: each module's paths into the crate, against the table of layers.

use std::ops::Range;

use crate::source::{Source, closing, positions};

const FIRST_ROW: &[&str] = &["ids", "limits", "error", "event", "config", "storage"];

/// The actors. None may name another; supervision alone names them.
const ACTORS: &[&str] = &[
    "file_watcher",
    "rebuilder",
    "io_dispatcher",
    "io_worker",
    "decompressor",
    "cache_manager",
    "evictor",
    "predictor",
];

/// What a layer may name besides itself and the first row. A module that is not here is a part of the top: the
/// runtime, its builder and what they share. It may name everything, and nothing below may name it.
const LAYERS: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("bundle", &[]),
    ("platform", &[]),
    ("telemetry", &[]),
    ("build", &["policy", "bundle", "platform", "telemetry"]),
    ("residency", &["policy", "bundle", "platform", "telemetry"]),
    ("simulate", &["policy", "bundle", "platform", "telemetry"]),
    ("messages", &["bundle", "build", "residency", "platform"]),
    ("actors", &["policy", "bundle", "platform", "telemetry", "build", "residency", "messages"]),
];

/// Crates that a layer does without.
const WITHOUT: &[(&str, &[&str], &str)] = &[
    ("policy", &["tokio", "ractor"], "it decides and nothing else"),
    ("bundle", &["tokio", "ractor"], "it is a format: bytes in, values out"),
    ("residency", &["ractor"], "it outlives every actor"),
    ("simulate", &["tokio", "ractor"], "a replay is a plain loop"),
    ("build", &["ractor"], "it is driven by an actor and knows none"),
];

/// What neither the HTTP face nor the program may reach into, public or not.
const INSIDE: &[&str] = &["actors", "messages", "residency", "policy"];

/// What src/lib.rs offers: its public modules, and the modules that its root re-exports come from.
pub struct Public {
    modules: Vec<String>,
    /// (the name at the root, the module it comes from)
    names: Vec<(String, String)>,
}

impl Public {
    /// Reads `pub mod` and `pub use` of the crate's root.
    pub fn of(library: &Source) -> Self {
        let text = library.shipped.join("\n");
        let modules = positions(&text, "pub mod")
            .filter_map(|at| text[at + 7..].split_whitespace().next())
            .map(|name| name.trim_end_matches([';', '{']).to_owned());
        let names = uses(&text, "pub use").into_iter().filter_map(|(_, path)| {
            let path: Vec<String> = path.into_iter().filter(|part| part != "crate" && part != "self").collect();
            Some((path.last()?.clone(), path.first()?.clone()))
        });
        Self { modules: modules.collect(), names: names.collect() }
    }
}

/// The faults of one file of src/.
pub fn faults(source: &Source, public: &Public) -> Vec<String> {
    let place = module_of(&source.path);
    let Some(own) = place.first() else { return Vec::new() };
    let text = source.shipped.join("\n");
    let mut faults = Vec::new();
    for (line, target) in targets(&text, &place) {
        let Some(first) = target.first() else { continue };
        // A name re-exported at the root counts as what it is.
        let module = public.names.iter().find(|(name, _)| name == first).map_or(first, |(_, module)| module);
        if let Some(why) = refusal(own, &place, module, &target, public, first) {
            faults.push(source.fault(line, &format!("`{}`: {why}", target.join("::"))));
        }
    }
    for (layer, crates, why) in WITHOUT.iter().filter(|(layer, ..)| layer == own) {
        for name in *crates {
            for line in Source::places(&source.shipped, name) {
                faults.push(source.fault(line, &format!("`{name}` in {layer}: {why}")));
            }
        }
    }
    let opens = ["std::fs", "File::open", "File::create", "OpenOptions"];
    if matches!(own.as_str(), "policy" | "bundle") {
        for name in opens {
            for line in Source::places(&source.shipped, name) {
                faults.push(source.fault(line, &format!("`{name}` in {own}: bytes come through a trait")));
            }
        }
    }
    faults
}

/// Why a file of module `own` may not name `target`, if it may not.
fn refusal(
    own: &str,
    place: &[String],
    module: &str,
    target: &[String],
    public: &Public,
    first: &str,
) -> Option<String> {
    let is_actor = |name: &String| ACTORS.contains(&name.as_str());
    if module == "actors" && target.get(1).is_some_and(is_actor) {
        let supervision = place.get(1).is_some_and(|name| name == "supervision");
        let same = place.get(1) == target.get(1);
        if !supervision && !same {
            return Some("only supervision names an actor; others know its messages and its address".into());
        }
    }
    if own == "actors" && target.get(1).is_some_and(|name| name == "supervision") && place.get(1).is_some_and(is_actor)
    {
        return Some("an actor does not know who supervises it".into());
    }
    if own == module || (own != "bin" && FIRST_ROW.contains(&module)) {
        return None;
    }
    if own == "bin" || own == "serve" {
        if INSIDE.contains(&module) && module == first {
            return Some(format!("{own} uses the public API only"));
        }
        let offered =
            public.modules.iter().any(|name| name == first) || public.names.iter().any(|(name, _)| name == first);
        return (!offered).then(|| format!("src/lib.rs does not offer it, and {own} uses the public API only"));
    }
    if FIRST_ROW.contains(&own) {
        return Some("the first row names only itself".into());
    }
    if module == "serve" {
        return Some("nothing in the library stands above its HTTP face".into());
    }
    match LAYERS.iter().find(|(layer, _)| *layer == own) {
        Some((_, below)) if !below.contains(&module) => Some(format!("{own} stands below it or beside it")),
        _ => None,
    }
}

/// The module path of a file: `src/build/extract/obj.rs` is build, extract, obj. The crate's root has none;
/// every file of the program is in `bin`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    if path == "lib" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

/// Every path in `text` that leads into the crate, from its root: (line, segments).
fn targets(text: &str, place: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let root = if place[0] == "bin" { "flyloft" } else { "crate" };
    let inline = inline_modules(text);
    // Where a position stands: in the file's module, or in one that is written out inside it.
    let place_at = |at: usize| {
        let inner = inline.iter().filter(|(body, _)| body.contains(&at)).map(|(_, name)| name.clone());
        place.iter().cloned().chain(inner).collect::<Vec<String>>()
    };
    for (at, path) in uses(text, "use") {
        found.extend(absolute(&path, &place_at(at), root).map(|path| (line_of(text, at), path)));
    }
    // Paths inside code, and inside `use` once more, which does no harm.
    for start in [root, "super"] {
        for at in positions(text, start) {
            if text[..at].ends_with("::") || !text[at + start.len()..].starts_with("::") {
                continue;
            }
            let end = text[at..]
                .find(|one: char| !one.is_alphanumeric() && one != '_' && one != ':')
                .map_or(text.len(), |end| at + end);
            let path: Vec<String> =
                text[at..end].split("::").map(str::to_owned).filter(|part| !part.is_empty()).collect();
            let line = line_of(text, at);
            found.extend(absolute(&path, &place_at(at), root).map(|path| (line, path)));
        }
    }
    found.sort();
    found.dedup();
    // `use crate::a::{b, c}` was seen as `crate::a` too: the longer paths say it all.
    let all = found.clone();
    found.retain(|(line, path)| {
        !all.iter().any(|(other, longer)| other == line && longer.len() > path.len() && longer.starts_with(path))
    });
    found
}

/// The modules written out inside the text, outer before inner: the range of each body, and its name.
fn inline_modules(text: &str) -> Vec<(Range<usize>, String)> {
    positions(text, "mod")
        .filter_map(|at| {
            let open = at + text[at..].find(['{', ';']).filter(|open| text[at + open..].starts_with('{'))?;
            let name = text[at + 3..open].trim();
            Some((open..closing(text.as_bytes(), open), name.to_owned()))
        })
        .collect()
}

/// The path from the crate's root, or `None` for one that leads to another crate.
fn absolute(path: &[String], place: &[String], root: &str) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        first if first == root => Some(path[1..].to_vec()),
        "self" => Some([place, &path[1..]].concat()),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            Some([&place[..place.len().saturating_sub(up)], &path[up..]].concat())
        }
        // A child of the module, named without `self::`.
        first if place == ["actors"] && (ACTORS.contains(&first) || first == "supervision") => {
            Some([place, path].concat())
        }
        _ => None,
    }
}

/// The paths of the `use` declarations in `text`, groups taken apart: (position, segments).
fn uses(text: &str, keyword: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in positions(text, keyword) {
        let tree = &text[at + keyword.len()..];
        let Some(end) = tree.find(';').filter(|_| tree.starts_with(char::is_whitespace)) else { continue };
        let mut paths = Vec::new();
        take_apart(&mut Vec::new(), &tree[..end], &mut paths);
        found.extend(paths.into_iter().map(|path| (at, path)));
    }
    found
}

/// `a::{b, c::d as e}` is `a::b` and `a::c::d`.
fn take_apart(before: &mut Vec<String>, tree: &str, into: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let depth = before.len();
    match tree.find('{') {
        Some(open) if tree.ends_with('}') => {
            before.extend(tree[..open].split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()));
            let inside = &tree[open + 1..tree.len() - 1];
            let (mut start, mut level) = (0, 0);
            for (at, one) in inside.char_indices().chain([(inside.len(), ',')]) {
                match one {
                    '{' => level += 1,
                    '}' => level -= 1,
                    ',' if level == 0 => {
                        if !inside[start..at].trim().is_empty() {
                            take_apart(before, &inside[start..at], into);
                        }
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        }
        _ => {
            let path = tree.split_whitespace().next().unwrap_or_default();
            let own = path.split("::").filter(|part| !part.is_empty() && *part != "*").map(str::to_owned);
            let mut whole = before.clone();
            whole.extend(own);
            if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
                whole.pop();
            }
            into.push(whole);
        }
    }
    before.truncate(depth);
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Asserts that `text` as the file `path` has exactly the faults that name `expected`, in order.
#[cfg(test)]
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let library = "pub mod ids;\npub mod bundle;\npub mod actors;\npub mod runtime;\nmod residency;\npub use error::{Error, Result};\npub use residency::Asset;\n";
    let public = Public::of(&Source::new("src/lib.rs", library));
    let found = faults(&Source::new(path, text), &public);
    let fits = found.len() == expected.len() && found.iter().zip(expected).all(|(fault, part)| fault.contains(part));
    assert!(fits, "expected {expected:?}, got {found:#?}");
}

#[test]
fn a_layer_that_reaches_up_is_a_fault() {
    check("src/ids.rs", "use crate::error::Error;\nuse crate::bundle::Bundle;\n", &["src/ids.rs:2: `bundle::Bundle`"]);
    check(
        "src/policy/eviction.rs",
        "use crate::{ids, platform::{clock, io::Driver}};\n",
        &["platform::clock", "platform::io::Driver"],
    );
    check("src/bundle/toc.rs", "fn f() { crate::build::pack() }\n", &["`build::pack`"]);
    check("src/residency/table.rs", "use crate::build::scan;\nuse crate::policy::eviction;\n", &["`build::scan`"]);
    check(
        "src/messages/rebuilder.rs",
        "use crate::build::Built;\nuse crate::actors::Context;\n",
        &["`actors::Context`"],
    );
    check("src/actors/rebuilder.rs", "use crate::runtime::Runtime;\n", &["`runtime::Runtime`"]);
    check("src/runtime.rs", "use crate::actors::supervision::tree;\nuse crate::residency::Asset;\n", &[]);
    check("src/runtime.rs", "use crate::serve::router;\n", &["`serve::router`"]);
}

#[test]
fn a_path_by_way_of_super_or_the_root_is_seen_too() {
    check("src/policy/settle.rs", "use super::super::build::plan;\n", &["`build::plan`"]);
    check("src/policy/settle.rs", "use super::restart;\n", &[]);
    check("src/policy.rs", "mod outer {\n    mod inner {\n        use super::super::restart;\n    }\n}\n", &[]);
    check("src/policy.rs", "mod inner {\n    fn f() { super::super::build::g() }\n}\n", &["`build::g`"]);
    check("src/bundle/toc.rs", "use crate::Asset;\nuse crate::Error;\n", &["`Asset`"]);
}

#[test]
fn an_actor_that_names_a_sibling_is_a_fault() {
    check("src/actors/evictor.rs", "use super::predictor::Predictor;\n", &["only supervision"]);
    check("src/actors/evictor.rs", "use crate::actors::evictor::state::Queue;\n", &[]);
    check("src/actors/evictor/state.rs", "fn f() { super::super::rebuilder::g() }\n", &["only supervision"]);
    check("src/actors/supervision/tree.rs", "use crate::actors::{evictor, predictor};\n", &[]);
    check("src/actors.rs", "pub mod evictor;\npub use evictor::Evictor;\n", &["only supervision"]);
    check("src/actors/evictor.rs", "use super::supervision::Tree;\n", &["who supervises it"]);
    check("src/runtime.rs", "use crate::actors::evictor::Evictor;\n", &["only supervision"]);
}

#[test]
fn tests_may_name_what_they_like() {
    check("src/policy/settle.rs", "#[cfg(test)]\nmod tests {\n    use crate::platform::clock;\n}\n", &[]);
}

#[test]
fn policy_and_bundle_do_without_runtimes_and_files() {
    check("src/policy/lru.rs", "use tokio::sync::Mutex;\n", &["`tokio`"]);
    check("src/bundle/writer.rs", "use std::fs::File;\nfn f() { File::open(p); }\n", &["`std::fs`", "`File::open`"]);
    check("src/residency/ledger.rs", "use ractor::ActorRef;\n", &["`ractor`"]);
}

#[test]
fn the_face_and_the_program_use_what_the_library_offers() {
    check("src/serve/http.rs", "use crate::runtime::Runtime;\nuse crate::Asset;\n", &[]);
    check(
        "src/serve/http.rs",
        "use crate::residency::Ledger;\nuse crate::build::scan;\n",
        &["residency::Ledger", "build::scan"],
    );
    check("src/bin/flyloft/pack.rs", "use flyloft::bundle::Bundle;\nuse flyloft::Asset;\nuse crate::output;\n", &[]);
    check("src/bin/flyloft/pack.rs", "use flyloft::actors::supervision;\n", &["actors::supervision"]);
}
