//! Random histories of a bundle against a plain map, and `verify` as the judge of the tables.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::bundle::testing::{Memory, asset, content, load, noise, path, writer};
use crate::bundle::{Bundle, BundleWriter, Changes};
use crate::config::Layout;
use crate::ids::{AssetPath, ContentHash};

/// One asset of the model.
#[derive(Clone, Debug)]
struct Want {
    seed: u64,
    len: usize,
    dependencies: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, Want),
    Remove(usize),
    Folder(usize, bool),
}

const NAMES: usize = 24;

fn name(at: usize) -> AssetPath {
    // Some folders deep, some at the top; the order of numbers is not the order of paths.
    let folder = ["", "z/", "a/b/", "a/b/c/", "a.b/"][at % 5];
    path(&format!("{folder}{}", (at * 7) % NAMES))
}

fn bytes(want: &Want) -> Vec<u8> {
    noise(want.seed, want.len)
}

fn change() -> impl Strategy<Value = Change> {
    let put = (0..NAMES, 0u64..6, 0usize..40, prop::collection::btree_set(0..NAMES, 0..6))
        .prop_map(|(at, seed, len, dependencies)| Change::Put(at, Want { seed, len: len * 150, dependencies }));
    prop_oneof![
        6 => put,
        3 => (0..NAMES).prop_map(Change::Remove),
        1 => (0..4usize, any::<bool>()).prop_map(|(at, put)| Change::Folder(at, put)),
    ]
}

const FOLDERS: [&str; 4] = ["a/b", "empty", "empty/inner", "z"];

fn check(bundle: &Bundle, model: &BTreeMap<usize, Want>, explicit: &BTreeSet<usize>) {
    let mut paths: Vec<_> = model.keys().map(|at| name(*at)).collect();
    paths.sort();
    let found: Vec<_> = bundle.assets().map(|asset| asset.unwrap().path).collect();
    assert_eq!(found, paths);
    for from in paths.iter().map(AssetPath::as_str).chain(["", "a/", "a/b", "a/b/c/1!", "m", "~"]) {
        let found: Vec<_> = bundle.assets_from(from).map(|asset| asset.unwrap().path).collect();
        assert_eq!(found, paths.iter().filter(|path| path.as_str() >= from).cloned().collect::<Vec<_>>(), "{from}");
    }
    let mut folders = BTreeSet::new();
    let named = explicit.iter().map(|at| path(FOLDERS[*at]));
    let above = |path: &AssetPath| {
        let text = path.as_str().to_owned();
        let cuts: Vec<_> = text.match_indices('/').map(|(at, _)| text[..at].to_owned()).collect();
        cuts
    };
    for folder in named.clone() {
        folders.extend(above(&folder));
        folders.insert(folder.as_str().to_owned());
    }
    folders.extend(paths.iter().flat_map(above));
    let found: BTreeSet<_> = bundle.folders().map(|folder| folder.unwrap().as_str().to_owned()).collect();
    assert_eq!(found, folders);
    for (at, want) in model {
        let record = bundle.find(&name(*at)).unwrap().unwrap();
        assert_eq!(load(bundle, &record.content, 0..u64::MAX).unwrap().unwrap(), bytes(want));
        let mut expected: Vec<_> = want.dependencies.iter().map(|to| (name(*to), model.contains_key(to))).collect();
        expected.sort();
        let found: Vec<_> =
            bundle.dependencies(record.id).unwrap().into_iter().map(|found| (found.path, found.present)).collect();
        assert_eq!(found, expected);
    }
    for at in 0..NAMES {
        let expected: BTreeSet<_> = model
            .iter()
            .filter(|(_, want)| want.dependencies.contains(&at))
            .map(|(from, _)| name(*from).id())
            .collect();
        let found: BTreeSet<_> = bundle.dependents(name(at).id()).unwrap().into_iter().collect();
        assert_eq!(found, expected);
        assert_eq!(bundle.find(&name(at)).unwrap().is_some(), model.contains_key(&at));
    }
    let mut findings = Vec::new();
    let verified = bundle.verify(&mut |finding| findings.push(finding.to_string())).unwrap();
    findings.retain(|finding| !finding.starts_with("superblock"));
    assert_eq!(findings, [""; 0]);
    let info = bundle.info();
    assert_eq!((verified.assets, verified.contents, verified.frames), (info.assets, info.contents, info.frames));
    assert_eq!(verified.content_bytes, info.content_bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_what_a_map_would_hold(
        history in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..8),
        reopen in any::<bool>(),
    ) {
        let (memory, mut writer) = writer(Layout::Access);
        // The head must be there for `verify` to read, also before the first commit.
        let mut model = BTreeMap::new();
        let mut explicit = BTreeSet::new();
        for step in history {
            let mut changes = Changes::default();
            let (mut touched, mut folders) = (BTreeSet::new(), BTreeSet::new());
            for change in step {
                match change {
                    Change::Put(at, want) if touched.insert(at) => {
                        let dependencies: Vec<_> = want.dependencies.iter().map(|to| name(*to)).collect();
                        let dependencies: Vec<_> = dependencies.iter().map(AssetPath::as_str).collect();
                        let put = content(&mut writer, &bytes(&want), 500);
                        changes.put.push(asset(name(at).as_str(), put, &dependencies));
                        model.insert(at, want);
                    }
                    Change::Remove(at) if touched.insert(at) => {
                        changes.remove.push(name(at).id());
                        model.remove(&at);
                    }
                    Change::Folder(at, true) if folders.insert(at) => {
                        changes.put_folders.push(path(FOLDERS[at]));
                        explicit.insert(at);
                    }
                    Change::Folder(at, false) if folders.insert(at) => {
                        changes.remove_folders.push(path(FOLDERS[at]));
                        explicit.remove(&at);
                    }
                    _ => {}
                }
            }
            let bundle = writer.stage(changes).unwrap();
            writer.committer().commit(&bundle).unwrap();
            check(&bundle, &model, &explicit);
            if reopen {
                writer = BundleWriter::open(memory.clone()).unwrap();
            }
        }
        check(&Bundle::open(Memory::with(memory.bytes()), false).unwrap(), &model, &explicit);
    }
}

#[test]
fn the_same_changes_make_the_same_bytes() {
    let make = || {
        let (memory, mut writer) = writer(Layout::Dense);
        let mut put = Vec::new();
        for at in 0..500 {
            let bytes = noise(at % 300, 100 + at as usize);
            let put_content = content(&mut writer, &bytes, 1000);
            let dependency = format!("{}", (at * 31) % 700);
            put.push(asset(&format!("{}/{at}", at % 9), put_content, &[&dependency]));
        }
        // The order in which assets are named does not matter.
        if put.len() % 2 == 0 {
            put.reverse();
        }
        let bundle = writer.stage(Changes { put, ..Changes::default() }).unwrap();
        writer.committer().commit(&bundle).unwrap();
        memory.bytes()
    };
    assert_eq!(make(), make());
    assert_ne!(ContentHash::of(&make()), ContentHash::of(b""));
}
