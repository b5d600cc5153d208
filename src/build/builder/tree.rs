//! What a builder knows of its tree: files as they were read last, what they may refer to, who read whom, what fails.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rollback::Held;
use crate::build::config::TreeConfig;
use crate::build::scan::{SourceFile, Twins};
use crate::build::stats::{Remembered, Stamp};
use crate::bundle::BuildRecord;
use crate::event::BuildFailure;
use crate::ids::{AssetPath, ContentHash};

/// A source file as it was read last.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub stamp: Stamp,
    /// Whether the stamp tells whether it changed.
    pub trusted: bool,
    pub source: ContentHash,
    pub executable: bool,
    /// Where its bytes are when not at its own path.
    pub at: Option<Arc<Path>>,
    /// What it refers to only while that exists.
    pub weak: Vec<AssetPath>,
}

/// A source file that does not build.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub failure: BuildFailure,
    /// The asset, where it has a path.
    pub path: Option<AssetPath>,
    /// What it is tried again for, besides itself: what it read, or what it is in a cycle with.
    pub inputs: Vec<AssetPath>,
}

#[derive(Default)]
pub(super) struct Tree {
    pub config: TreeConfig,
    /// The hash of the `flyloft.toml` that `config` comes from.
    pub config_hash: Option<ContentHash>,
    pub files: BTreeMap<AssetPath, Known>,
    pub folders: BTreeSet<AssetPath>,
    /// Links, and where they lead if that is within the tree.
    pub links: BTreeMap<AssetPath, Option<PathBuf>>,
    pub twins: Twins,
    /// From what may be referred to, to who does.
    weak: HashMap<AssetPath, BTreeSet<AssetPath>>,
    /// How transformed assets were built last.
    records: HashMap<AssetPath, BuildRecord>,
    /// From what was read by a transform, to the assets that it was read for.
    readers: HashMap<AssetPath, BTreeSet<AssetPath>>,
    /// By the path of the failure.
    pub failures: BTreeMap<String, Failed>,
    /// What the stat cache said, until the first scan.
    pub remembered: HashMap<AssetPath, Remembered>,
    pub scanned: bool,
    /// What must be looked at again since staging it failed.
    pub redo: BTreeSet<AssetPath>,
    /// Assets whose build record alone differs from the bundle's: written with the next generation.
    pub deferred: BTreeSet<AssetPath>,
    /// What was gone back from, and does not undo that as long as it stays as it is.
    pub held: Held,
    /// Warnings that were told.
    pub told: HashSet<String>,
}

/// Warnings remembered in order to tell each once.
const TOLD_MAX: usize = 1 << 16;

impl Tree {
    /// The warnings that are news. A scan of the whole tree finds again what was told before; a file that is read
    /// since it changed is told about every time.
    pub fn news(&mut self, mut warnings: Vec<String>, whole: bool) -> Vec<String> {
        if whole {
            warnings.retain(|warning| !self.told.contains(warning));
        }
        for warning in &warnings {
            if self.told.len() < TOLD_MAX {
                self.told.insert(warning.clone());
            }
        }
        warnings
    }

    /// Answers what was known of the file before.
    pub fn insert(&mut self, path: AssetPath, known: Known) -> Option<Known> {
        for target in &known.weak {
            self.weak.entry(target.clone()).or_default().insert(path.clone());
        }
        if !path.as_str().is_ascii() {
            self.twins.insert(&path);
        }
        let old = self.files.insert(path.clone(), known)?;
        let kept: Vec<AssetPath> = self.files[&path].weak.clone();
        self.forget_weak(&path, old.weak.iter().filter(|target| !kept.contains(target)));
        Some(old)
    }

    pub fn remove(&mut self, path: &AssetPath) {
        if let Some(old) = self.files.remove(path) {
            self.forget_weak(path, old.weak.iter());
        }
        self.twins.remove(path);
        self.set_record(path, None);
        self.deferred.remove(path);
    }

    fn forget_weak<'a>(&mut self, path: &AssetPath, targets: impl Iterator<Item = &'a AssetPath>) {
        for target in targets {
            forget(&mut self.weak, target, path);
        }
    }

    /// Who may refer to `target`.
    pub fn weak_sources(&self, target: &AssetPath) -> impl Iterator<Item = &AssetPath> {
        self.weak.get(target).into_iter().flatten()
    }

    pub fn record(&self, path: &AssetPath) -> Option<&BuildRecord> {
        self.records.get(path)
    }

    pub fn set_record(&mut self, path: &AssetPath, record: Option<BuildRecord>) {
        let old = match record {
            Some(record) => {
                for (input, _) in &record.inputs {
                    self.readers.entry(input.clone()).or_default().insert(path.clone());
                }
                self.records.insert(path.clone(), record)
            }
            None => self.records.remove(path),
        };
        for (input, _) in old.into_iter().flat_map(|old| old.inputs) {
            let still = self.records.get(path).is_some_and(|record| record.inputs.iter().any(|(is, _)| *is == input));
            if !still {
                forget(&mut self.readers, &input, path);
            }
        }
    }

    /// The transformed assets for which `input` was read when it was not what it is now.
    pub fn stale_readers(&self, input: &AssetPath, now: Option<ContentHash>) -> impl Iterator<Item = &AssetPath> {
        self.readers.get(input).into_iter().flatten().filter(move |reader| {
            let record = self.records.get(*reader);
            record.is_some_and(|record| record.inputs.iter().any(|(path, hash)| path == input && *hash != now))
        })
    }

    /// The files at and below a place.
    pub fn files_below(&self, place: &AssetPath) -> Vec<AssetPath> {
        let own = self.files.contains_key(place).then(|| place.clone());
        let below = below(place).into_iter().flat_map(|(start, prefix)| {
            self.files
                .range((Bound::Included(start), Bound::Unbounded))
                .map(|(path, _)| path)
                .take_while(move |path| path.as_str().starts_with(&prefix))
                .cloned()
        });
        own.into_iter().chain(below).collect()
    }

    /// The folders at and below a place.
    pub fn folders_below(&self, place: &AssetPath) -> Vec<AssetPath> {
        let own = self.folders.contains(place).then(|| place.clone());
        let below = below(place).into_iter().flat_map(|(start, prefix)| {
            self.folders
                .range((Bound::Included(start), Bound::Unbounded))
                .take_while(move |path| path.as_str().starts_with(&prefix))
                .cloned()
        });
        own.into_iter().chain(below).collect()
    }

    /// The file as a scan would find it.
    pub fn source_file(&self, path: &AssetPath, stat: crate::platform::fs::FileStat) -> SourceFile {
        SourceFile { path: path.clone(), at: self.files.get(path).and_then(|known| known.at.clone()), stat }
    }
}

/// The first path that can be below a folder, and what all paths below it start with. No name starts with a NUL.
fn below(folder: &AssetPath) -> Option<(AssetPath, String)> {
    let prefix = format!("{folder}/");
    AssetPath::new(&format!("{prefix}\u{1}")).ok().map(|start| (start, prefix))
}

fn forget(index: &mut HashMap<AssetPath, BTreeSet<AssetPath>>, key: &AssetPath, value: &AssetPath) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
