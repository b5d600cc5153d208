//! Edits, looks, rollbacks, restarts of the builder and compactions in any order, beside a model of what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use flyloft::build::transform::{Context, Input, Labelled, NoParameters, Output, Transform, TransformRegistry};
use flyloft::build::{self, BuildOptions, Built, NoProgress, Task, TreeBuilder, Workshop};
use flyloft::bundle::Bundle;
use flyloft::platform::affinity::CpuSet;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::OsFileSystem;
use flyloft::platform::threads::{OsThreads, Pool};
use flyloft::{AssetPath, ContentHash, Error, Generation};
use proptest::prelude::*;

const PATHS: [&str; 7] = ["a.txt", "b.txt", "folder/c.txt", "folder/d.html", "deep/er/e.txt", "f.json", "g.mix"];
const CONFIG: &[u8] = b"[[transform]]\nglob = '*.mix'\nname = 'mix'\n";

/// Made of its own bytes and those of a.txt, with a part beside it that is of its own bytes alone, and one that comes
/// and goes.
struct Mix;

impl Transform for Mix {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        "mix"
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, context: &mut dyn Context) -> flyloft::Result<Output> {
        let beside = context.read(&AssetPath::new("a.txt")?).unwrap_or_default();
        let part = |label: &str| Labelled {
            label: label.into(),
            kind: None,
            bytes: input.bytes.to_vec(),
            dependencies: Vec::new(),
        };
        let labelled = if input.bytes.ends_with(b"1") { vec![part("own"), part("odd/1")] } else { vec![part("own")] };
        Ok(Output { bytes: [input.bytes, &beside].concat(), labelled, dependencies: Vec::new() })
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes edition so-and-so of a file.
    Write(usize, u8),
    Remove(usize),
    /// Touches a file without another content.
    Touch(usize),
    /// Builds what was touched.
    Update,
    Scan,
    /// Goes back by so many generations.
    Rollback(usize),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        6 => (path.clone(), 0..4u8).prop_map(|(path, edition)| Step::Write(path, edition)),
        2 => path.clone().prop_map(Step::Remove),
        1 => path.prop_map(Step::Touch),
        6 => Just(Step::Update),
        2 => Just(Step::Scan),
        3 => (1..5usize).prop_map(Step::Rollback),
        1 => Just(Step::Compact),
    ]
}

/// What a tree has: edition by path.
type Files = BTreeMap<&'static str, u8>;
/// What is served: what is made of each file that is there, by path.
type Served = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

fn bytes(path: &str, edition: u8) -> Vec<u8> {
    match path {
        "f.json" => format!("{{\"edition\":{edition}}}").into_bytes(),
        // It refers to others, which come and go.
        "folder/d.html" => format!("<img src=\"../a.txt\"><img src=\"c.txt\"> {edition}").into_bytes(),
        "g.mix" => format!("g{edition}").into_bytes(),
        _ => format!("{path}, edition {edition}").repeat(50).into_bytes(),
    }
}

/// What is made of a file.
fn made(path: &'static str, edition: u8, disk: &Files) -> BTreeMap<String, Vec<u8>> {
    let own = bytes(path, edition);
    if path != "g.mix" {
        return BTreeMap::from([(path.to_owned(), own)]);
    }
    let beside = disk.get("a.txt").map_or_else(Vec::new, |edition| bytes("a.txt", *edition));
    let mut made =
        BTreeMap::from([("g.mix".to_owned(), [&own[..], &beside].concat()), ("g.mix#own".to_owned(), own.clone())]);
    if edition == 1 {
        made.insert("g.mix#odd/1".to_owned(), own);
    }
    made
}

/// Every asset that is served.
fn all(served: &Served) -> BTreeMap<String, Vec<u8>> {
    served.values().flatten().map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

struct World {
    _folder: tempfile::TempDir,
    root: PathBuf,
    workshop: Workshop,
    published: Bundle,
    disk: Files,
    /// The disk as it was looked at last.
    seen: Files,
    served: Served,
    held: BTreeMap<&'static str, Option<u8>>,
    touched: BTreeSet<&'static str>,
    /// What is served of g.mix may be this as well: what it was made of changed, but that is not served itself, and
    /// whether the builder remembers what it was depends on whether it was opened again since.
    either: Option<BTreeMap<String, Vec<u8>>>,
    /// Published generations that can be gone back to, and what they have.
    history: Vec<(Bundle, Served)>,
    compacted: Vec<(Bundle, Served)>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, store) = (folder.path().join("tree"), folder.path().join("store"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(root.join("always.txt"), b"always").unwrap();
        std::fs::write(root.join("flyloft.toml"), CONFIG).unwrap();
        let (tree, bundle) = (root.clone(), store.join("tree.loft"));
        let file = bundle.clone();
        let open = move || {
            let mut registry = TransformRegistry::with_builtins();
            registry.register(Mix)?;
            let registry = Arc::new(registry);
            let options = BuildOptions { tolerant: true, threads: 1, registry, ..BuildOptions::default() };
            TreeBuilder::open(Arc::new(OsFileSystem), Arc::new(SystemClock), &tree, &bundle, None, options)
        };
        let compact = move || build::compact(Arc::new(OsFileSystem), &file, &NoProgress);
        let pool = Arc::new(Pool::new("build-test", 1, &CpuSet::any(), &OsThreads).unwrap());
        let workshop = Workshop::new(&root, &store, pool, Box::new(open), Box::new(compact)).unwrap();
        let built = workshop.build_quietly(&Task { everything: true, ..Task::default() }).unwrap();
        let published = built.bundle.unwrap();
        let history = vec![(published.clone(), Served::new())];
        Self {
            _folder: folder,
            root,
            workshop,
            published,
            disk: Files::new(),
            seen: Files::new(),
            served: Served::new(),
            held: BTreeMap::new(),
            touched: BTreeSet::new(),
            either: None,
            history,
            compacted: Vec::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(path, edition) => {
                let path = PATHS[path];
                let file = self.root.join(path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, bytes(path, edition)).unwrap();
                self.disk.insert(path, edition);
                self.touched.insert(path);
            }
            Step::Remove(path) => {
                let path = PATHS[path];
                if self.disk.remove(path).is_some() {
                    std::fs::remove_file(self.root.join(path)).unwrap();
                    self.touched.insert(path);
                }
            }
            Step::Touch(path) => {
                let path = PATHS[path];
                if let Some(edition) = self.disk.get(path) {
                    std::fs::write(self.root.join(path), bytes(path, *edition)).unwrap();
                    self.touched.insert(path);
                }
            }
            Step::Update => {
                let paths = self.touched.iter().map(|path| self.root.join(path)).collect();
                self.look(Task { everything: false, paths });
            }
            Step::Scan => self.look(Task { everything: true, ..Task::default() }),
            Step::Rollback(back) => self.roll_back(back),
            Step::Compact => {
                self.taken_up();
                let built = self.workshop.compact().unwrap();
                self.compacted.append(&mut self.history);
                self.publish(built);
            }
        }
    }

    fn look(&mut self, task: Task) {
        self.taken_up();
        let built = self.workshop.build_quietly(&task).unwrap();
        self.publish(built);
    }

    /// What is served when the disk was looked at.
    fn taken_up(&mut self) {
        let mut counts: BTreeSet<&'static str> = BTreeSet::new();
        for path in PATHS {
            let now = self.disk.get(path).copied();
            if self.held.get(path).is_none_or(|held| *held != now) {
                counts.insert(path);
            }
        }
        let beside = self.disk.get("a.txt").map_or_else(Vec::new, |edition| bytes("a.txt", *edition));
        // Its own bytes are two.
        let is_stale = |made: &BTreeMap<String, Vec<u8>>| made["g.mix"][2..] != beside;
        let stale = self.served.get("g.mix").is_some_and(is_stale) && self.disk.contains_key("g.mix");
        if stale && counts.contains("a.txt") && self.disk.get("a.txt") != self.seen.get("a.txt") {
            // What is made of it is made again, where there is both what is served and what to make it of, and what is
            // served was made of something else.
            let held = !counts.contains("g.mix") && !self.served.contains_key("a.txt");
            self.either = self.served.get("g.mix").filter(|_| held).cloned();
            counts.insert("g.mix");
        }
        for path in counts {
            self.held.remove(path);
            match self.disk.get(path) {
                Some(edition) => drop(self.served.insert(path, made(path, *edition, &self.disk))),
                None => drop(self.served.remove(path)),
            }
        }
        self.seen = self.disk.clone();
        self.touched.clear();
    }

    fn roll_back(&mut self, back: usize) {
        let at = self.history.len().checked_sub(back + 1);
        let Some((to, files)) = at.map_or(self.compacted.last(), |at| self.history.get(at)).cloned() else { return };
        let built = match self.workshop.rollback(&self.published, &to) {
            Ok(built) => built,
            Err(error) => {
                assert!(at.is_none() && matches!(error, Error::NotRetained { .. }), "{error}");
                return;
            }
        };
        let before = self.served.clone();
        self.served = files;
        for path in PATHS {
            if before.get(path) != self.served.get(path) {
                self.held.insert(path, self.seen.get(path).copied());
            }
        }
        let changed: BTreeSet<String> = built.changed.iter().map(|change| change.path.to_string()).collect();
        let (before, after) = (all(&before), all(&self.served));
        let differs = |path: &&String| before.get(*path) != after.get(*path);
        let expected: BTreeSet<String> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
        assert_eq!(changed, expected);
        self.publish(built);
    }

    fn publish(&mut self, built: Built) {
        assert!(built.failures.is_empty(), "{:?}", built.failures);
        if let Some(before) = self.either.take() {
            let bundle = built.bundle.as_ref().unwrap_or(&self.published);
            let now = bundle.find(&AssetPath::new("g.mix").unwrap()).unwrap();
            if now.is_some_and(|now| now.content == ContentHash::of(&before["g.mix"])) {
                self.served.insert("g.mix", before);
                self.held.insert("g.mix", self.disk.get("g.mix").copied());
            }
        }
        if let Some(bundle) = built.bundle {
            assert!(bundle.generation() > self.published.generation(), "a number is never used twice");
            self.published = bundle.clone();
            self.history.push((bundle, self.served.clone()));
        }
        let served: BTreeMap<AssetPath, ContentHash> = self
            .published
            .assets()
            .map(|record| record.map(|record| (record.path, record.content)).unwrap())
            .filter(|(path, _)| !["always.txt", "flyloft.toml"].contains(&path.as_str()))
            .collect();
        let hash = |(path, bytes): (String, Vec<u8>)| (AssetPath::new(&path).unwrap(), ContentHash::of(&bytes));
        let expected: BTreeMap<AssetPath, ContentHash> = all(&self.served).into_iter().map(hash).collect();
        assert_eq!(served, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_served_is_what_was_gone_back_to_and_what_changed_since(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        let newest = world.published.clone();
        newest.verify(&mut |finding| panic!("{finding}")).unwrap();
        world.workshop.commit(&newest).unwrap();
        prop_assert!(newest.generation() >= Generation(1));
    }
}
