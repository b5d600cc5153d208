//! `flyloft watch`: a line or a document for each generation, and a command that is run after it. Stopped by a signal,
//! which is why these tests are for where there are signals.
#![cfg(unix)]

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::serving::Serving;
use crate::{flyloft, stage, text};

/// Reads from a named pipe: waits until somebody has written to it and closed it again.
fn told(pipe: &Path) -> String {
    let mut said = String::new();
    fs::File::open(pipe).unwrap().read_to_string(&mut said).unwrap();
    said
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Documents up to and including the first of this type.
fn until(watching: &mut Serving, kind: &str) -> Vec<Value> {
    let mut documents: Vec<Value> = Vec::new();
    while documents.last().is_none_or(|document| document["type"] != kind) {
        documents.push(serde_json::from_str(&watching.line()).unwrap());
    }
    documents
}

#[test]
fn each_generation_is_a_line_with_its_timings() {
    let tree = stage();
    let (root, store) = (tree.root(), tree.store());
    let mut watching = Serving::run(&["watch", text(&root), "--store", text(&store)]);
    assert!(watching.line().ends_with(": generation 1, 4 assets"));
    let line = watching.line();
    assert!(line.starts_with("store ") && line.contains("; page http://127.0.0.1:"), "{line}");
    tree.replace("css/site.css", b"body { color: plum }\n");
    let line = watching.line();
    assert!(line.starts_with("generation 2: 1 changed in ") && line.ends_with("): css/site.css"), "{line}");
    for step in ["settle ", "build ", "stage ", "publish "] {
        assert!(line.contains(step), "{line}");
    }
    tree.replace("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    assert!(watching.line().ends_with("): +flyloft.toml"));
    tree.replace("a.json", b"{");
    assert!(watching.line().starts_with("failed: a.json:1:1: minify-json: "));
    tree.replace("a.json", b"{}");
    let lines = [watching.line(), watching.line()];
    assert!(lines.iter().any(|line| line == "healed: a.json builds again"), "{lines:?}");
    assert!(store.join("serving.json").exists());
    assert_eq!(watching.stop("-TERM"), (Some(0), String::new()));
    assert!(!store.join("serving.json").exists());
}

#[test]
fn the_command_runs_at_the_start_and_for_each_generation_with_what_changed() {
    let tree = stage();
    let (root, store, pipe_path) = (tree.root(), tree.store(), tree.outside("pipe"));
    pipe(&pipe_path);
    let command = format!(
        "printf '%s|%s|%s|%s|%s' \"$FLYLOFT_GENERATION\" \"$FLYLOFT_CHANGED\" \"$FLYLOFT_CHANGED_TOTAL\" \"$FLYLOFT_ROOT\" \
         \"$FLYLOFT_STORE\" > '{}'; echo said; exit 3",
        text(&pipe_path)
    );
    let mut watching = Serving::run(&["watch", text(&root), "--store", text(&store), "--json", "--exec", &command]);
    let first = until(&mut watching, "watching").pop().unwrap();
    assert_eq!((&first["generation"], &first["assets"]), (&1.into(), &4.into()));
    let (root, store) = (text(&root), text(&store));
    assert_eq!(told(&pipe_path), format!("1|||{root}|{store}"));
    // What the command says is not among the documents.
    let ended = until(&mut watching, "command_ended").pop().unwrap();
    assert_eq!((&ended["generation"], &ended["status"], &ended["signal"]), (&1.into(), &3.into(), &Value::Null));
    tree.replace("css/site.css", b"body { color: plum }\n");
    assert_eq!(told(&pipe_path), format!("2|css/site.css|1|{root}|{store}"));
    let documents = until(&mut watching, "command_ended");
    let published = documents.iter().find(|document| document["type"] == "published").unwrap();
    assert_eq!(published["changed"][0]["path"], "css/site.css");
    assert!(published["timings"]["build_us"].is_u64(), "{published}");
    assert_eq!(watching.stop("-INT").0, Some(0));
}

#[test]
fn what_changes_during_a_run_leads_to_one_more_after_it() {
    let tree = stage();
    let (root, store) = (tree.root(), tree.store());
    let (begun, go) = (tree.outside("begun"), tree.outside("go"));
    pipe(&begun);
    pipe(&go);
    // Each run tells what it is for, then waits to be let go.
    let command = format!("echo \"$FLYLOFT_CHANGED\" > '{}'; cat '{}' > /dev/null", text(&begun), text(&go));
    let arguments = ["watch", text(&root), "--store", text(&store), "--json", "--postpone", "--exec", &command];
    let mut watching = Serving::run(&arguments);
    until(&mut watching, "watching");
    let mut edition = 0;
    let mut next = |watching: &mut Serving, path: &str| {
        edition += 1;
        let bytes = format!("{path}, edition {edition}");
        let hash = blake3::hash(bytes.as_bytes()).to_hex().to_string();
        tree.replace(path, bytes.as_bytes());
        // The generation that has these bytes: how many there are until then is the watcher's business.
        loop {
            let published = until(watching, "published").pop().unwrap();
            let changed = published["changed"].as_array().unwrap().iter();
            if changed.into_iter().any(|change| change["new"] == hash.as_str()) {
                return published["generation"].clone();
            }
        }
    };
    let first = next(&mut watching, "css/site.css");
    assert_eq!(told(&begun), "css/site.css\n");
    next(&mut watching, "run.sh");
    next(&mut watching, "img/noise.bin");
    let last = next(&mut watching, "run.sh");
    fs::write(&go, "").unwrap();
    let ended = until(&mut watching, "command_ended").pop().unwrap();
    assert_eq!(ended["generation"], first);
    assert_eq!(told(&begun), "img/noise.bin\nrun.sh\n");
    fs::write(&go, "").unwrap();
    let ended = until(&mut watching, "command_ended").pop().unwrap();
    assert_eq!(ended["generation"], last);
    // The next one never comes to its end by itself: it ends with the program, and so does what it started.
    next(&mut watching, "css/site.css");
    assert_eq!(told(&begun), "css/site.css\n");
    let (status, rest) = watching.stop("-TERM");
    let ended: Value = serde_json::from_str(rest.lines().last().unwrap_or_default()).unwrap();
    assert_eq!((status, &ended["type"], &ended["signal"]), (Some(0), &"command_ended".into(), &15.into()));
}

#[test]
fn a_watch_that_cannot_begin_is_one_line() {
    let tree = stage();
    let (root, missing) = (tree.root(), tree.outside("missing"));
    flyloft(&["watch", text(&missing)]).refused(2, &["missing", "not a folder"]);
    flyloft(&["watch", text(&root), "--postpone"]).refused(2, &["--exec"]);
    flyloft(&["watch", text(&root), "--settle", "soon"]).refused(2, &["'soon' is not a time"]);
    assert!(flyloft(&["watch", "--help"]).done().contains("FLYLOFT_CHANGED"));
}
