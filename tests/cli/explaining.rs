//! `flyloft explain`: of a bundle, of a folder that nobody serves, and of one that is served, in each state of an asset.

#[cfg(unix)]
use std::fs;

use serde_json::Value;

#[cfg(unix)]
use crate::serving::Serving;
use crate::{flyloft, packed, stage, text};

#[test]
fn a_bundle_says_what_an_asset_is_and_who_uses_it() {
    let tree = stage();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    tree.write("data/menu.json", b"{ \"a\": [] }");
    let bundle = packed(&tree, "a.loft");
    let explain = |path: &str| flyloft(&["explain", text(&bundle), path]);
    let page = explain("index.html").done();
    assert!(page.starts_with("index.html: generation 1, says "), "{page}");
    for line in ["  asset     text, ", "  uses      css/site.css, img/gone.png\n", "  missing   img/gone.png\n"] {
        assert!(page.contains(line), "'{line}' is not in: {page}");
    }
    assert!(explain("css/site.css").done().contains("  used by   index.html\n"));
    assert!(explain("data/menu.json").done().contains("  built     by minify-json"));
    let gone = explain("img/gone.png");
    assert_eq!(gone.status, Some(1), "{}", gone.err);
    assert!(gone.out.contains("none of this path") && gone.out.contains("used by   index.html"), "{}", gone.out);
    let document = flyloft(&["explain", text(&bundle), "css/site.css", "--json"]).json();
    assert_eq!((&document["asset"]["kind"], &document["used_by"]["count"]), (&"text".into(), &1.into()));
    assert_eq!((&document["server"], &document["residency"]), (&Value::Null, &Value::Null));
    explain("../x").refused(2, &["'../x' is not an asset path"]);
    let store = flyloft(&["explain", text(&bundle), "index.html", "--store", "x"]);
    store.refused(2, &["--store"]);
}

#[cfg(unix)]
#[test]
fn a_served_folder_says_where_the_bytes_are_and_why_something_fails() {
    let tree = stage();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    tree.write("a.json", b"{ }");
    tree.write("bad.json", b"{");
    let (root, store) = (tree.root(), tree.store());
    let explain = |path: &str| {
        let ran = flyloft(&["explain", text(&root), path, "--store", text(&store), "--json"]);
        (ran.status, ran.json())
    };
    flyloft(&["explain", text(&root), "a.json", "--store", text(&store)]).refused(2, &["nothing was built"]);
    let mut serving = Serving::start(&[text(&root), "--watch", "--store", text(&store), "--budget", "16MiB"]);
    let line = serving.line();
    assert!(line.starts_with("failed: bad.json:1:1: ") && line.ends_with("; it never built"), "{line}");

    let (status, css) = explain("css/site.css");
    assert_eq!((status, &css["residency"]["state"]), (Some(0), &"not_loaded".into()));
    assert!(css["server"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{css}");
    assert!(serving.get("/a/css/site.css").contains("teal"));
    let (_, css) = explain("css/site.css");
    assert_eq!((&css["residency"]["state"], &css["last_change"]), (&"resident".into(), &Value::Null));
    tree.replace("css/site.css", b"body { color: plum }\n");
    assert!(serving.line().starts_with("generation 2: "));
    let (_, css) = explain("css/site.css");
    assert_eq!((&css["generation"], &css["last_change"]["generation"]), (&2.into(), &2.into()));
    assert_eq!(css["last_change"]["new"], css["asset"]["content"]);
    assert_eq!(css["residency"]["state"], "resident");
    assert_eq!(
        (&css["built"]["generation"], &css["built"]["because"]["reason"]),
        (&2.into(), &"source_changed".into())
    );
    let said = flyloft(&["explain", text(&root), "css/site.css", "--store", text(&store)]).done();
    assert!(said.contains("  rebuilt   in generation 2: its source changed"), "{said}");

    // One that never built has a cause and nothing else; one that stopped building has its last good version too.
    let (status, bad) = explain("bad.json");
    assert_eq!((status, &bad["asset"], &bad["failure"]["line"]), (Some(0), &Value::Null, &1.into()));
    tree.replace("a.json", b"[");
    assert!(serving.line().starts_with("failed: a.json:1"));
    let (_, a) = explain("a.json");
    assert!(a["asset"].is_object() && a["failure"]["transform"] == "minify-json", "{a}");
    let said = flyloft(&["explain", text(&root), "a.json", "--store", text(&store)]).done();
    assert!(said.contains("  fails     a.json:1:1: minify-json: ") && said.contains("its last good version"), "{said}");
    assert_eq!(explain("nowhere.txt").0, Some(1));
    assert!(serving.get("/explain?path=..").starts_with("HTTP/1.1 400"));

    assert_eq!(serving.stop("-TERM").0, Some(0));
    let (_, css) = explain("css/site.css");
    assert_eq!((&css["server"], &css["generation"]), (&Value::Null, &2.into()));
    // What a killed server left behind leads nowhere, and is not believed.
    let (pid, url) = (1, "http://127.0.0.1:9/");
    fs::write(store.join("serving.json"), format!("{{\"pid\":{pid},\"url\":\"{url}\",\"address\":\"127.0.0.1:9\"}}"))
        .unwrap();
    assert_eq!(explain("css/site.css").1["server"], Value::Null);
}

#[cfg(unix)]
#[test]
fn a_folder_that_nobody_serves_says_what_building_it_would_do_and_why() {
    let tree = stage();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.json'\nname = 'minify-json'\n");
    tree.write("a.json", b"{ }");
    let (root, store) = (tree.root(), tree.store());
    let serving = Serving::start(&[text(&root), "--store", text(&store)]);
    assert_eq!(serving.stop("-TERM").0, Some(0));
    let pending = |path: &str| {
        let document = flyloft(&["explain", text(&root), path, "--store", text(&store), "--json"]).json();
        let reasons = document["pending"].as_array().unwrap().iter();
        reasons.map(|because| because["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pending("a.json"), [] as [&str; 0]);
    assert_eq!(pending("css/site.css"), [] as [&str; 0]);
    tree.write("a.json", b"{ \"a\": 1 }");
    tree.write("new.txt", b"new");
    tree.remove("run.sh");
    tree.write("flyloft.toml", b"ignore = 'css/'\n");
    assert_eq!(pending("a.json"), ["source_changed", "transform_changed"]);
    assert_eq!(pending("new.txt"), ["new"]);
    assert_eq!(pending("run.sh"), ["source_gone"]);
    assert_eq!(pending("css/site.css"), ["source_gone"]);
    let said = flyloft(&["explain", text(&root), "run.sh", "--store", text(&store)]).done();
    assert!(said.contains("nobody serves it now") && said.contains("  pending   its source is gone\n"), "{said}");
    // Rules that cannot be read are no rules to compare by.
    tree.write("flyloft.toml", b"ignored = 'css/'\n");
    let document = flyloft(&["explain", text(&root), "a.json", "--store", text(&store), "--json"]).json();
    assert_eq!((&document["failure"]["path"], &document["failure"]["line"]), (&"flyloft.toml".into(), &1.into()));
    assert_eq!(document["pending"].as_array().unwrap().len(), 0);
}
