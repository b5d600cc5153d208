//! What the program builds, and does not build twice.
#![cfg(unix)]

use std::fs;

use super::common::Tree;
use super::{flyloft, text};

/// A program that writes down each of its runs, and makes one asset beside the one that it builds.
#[test]
fn what_a_command_made_is_taken_from_the_action_cache_by_other_packings() {
    let tree = Tree::new();
    let runs = tree.outside("runs");
    let script = "echo $0 >> $1 && tr a-z A-Z < $2 > $3 && cp $2 $4/part";
    let argv = format!("['sh', '-c', '{script}', 'run', '{}', '{{input}}', '{{output}}', '{{outputs}}']", text(&runs));
    let rule = format!("[[transform]]\nglob = '*.up'\nname = 'command'\nparameters = {{ argv = {argv} }}\n");
    tree.write("flyloft.toml", rule.as_bytes());
    tree.write("a.up", b"first");
    let ran = || fs::read_to_string(&runs).map_or(0, |text| text.lines().count());
    let (cache, root) = (tree.outside("actions"), tree.root());
    let pack = |name: &str| {
        let bundle = tree.outside(name);
        let call =
            ["pack", text(&root), "-o", text(&bundle), "--allow-commands", "--action-cache", text(&cache), "--json"];
        flyloft(&call).done();
        let cat = |asset: &str| flyloft(&["cat", text(&bundle), asset]).done();
        (cat("a.up"), cat("a.up#part"))
    };
    let first = || ("FIRST".to_owned(), "first".to_owned());
    assert_eq!((pack("a.loft"), ran()), (first(), 1));
    assert_eq!((pack("b.loft"), ran()), (first(), 1));
    tree.write("a.up", b"second");
    assert_eq!((pack("a.loft").0.as_str(), ran()), ("SECOND", 2));
    tree.write("a.up", b"first");
    assert_eq!((pack("a.loft"), ran()), (first(), 2));

    // What was made beside files is no file.
    let (bundle, into) = (tree.outside("a.loft"), tree.outside("out"));
    let said = flyloft(&["unpack", text(&bundle), "-o", text(&into)]).done();
    assert!(said.contains("1 asset made beside files left out"), "{said}");
    assert_eq!(fs::read(into.join("a.up")).unwrap(), b"FIRST");
    assert!(!into.join("a.up#part").exists());
}
