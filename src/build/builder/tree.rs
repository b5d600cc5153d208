//! What a builder knows of its tree: files as they were read last, what they may refer to, who read whom, what fails.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rollback::Held;
use crate::build::config::TreeConfig;
use crate::build::scan::{SourceFile, Twins};
use crate::build::stats::{Remembered, Stamp};
use crate::build::transform::Entry;
use crate::bundle::{BuildInput, BuildRecord};
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
    /// What was looked at before it failed: it is tried again once that is not so any more.
    pub inputs: Vec<BuildInput>,
    /// What it is in a cycle with: it is tried again when one of them changes.
    pub unit: Vec<AssetPath>,
}

impl Failed {
    /// A failure that waits for nothing but its file.
    pub fn new(failure: BuildFailure, path: Option<AssetPath>) -> Self {
        Self { failure, path, inputs: Vec::new(), unit: Vec::new() }
    }
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
    /// From what a transform read or asked for, to the assets that it did so for.
    readers: HashMap<AssetPath, BTreeSet<AssetPath>>,
    /// From folders that a transform listed ("" is the top), to the assets that it did so for.
    listers: HashMap<String, BTreeSet<AssetPath>>,
    /// From what was made beside a source, to the source.
    labelled: BTreeMap<AssetPath, AssetPath>,
    /// By the path of the failure.
    pub failures: BTreeMap<String, Failed>,
    /// What the stat cache said, until the first scan.
    pub remembered: HashMap<AssetPath, Remembered>,
    pub scanned: bool,
    /// Whether files look otherwise than the stat cache on the disk says.
    pub stats_differ: bool,
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

    /// As [`Tree::insert`] for each of them, none of which was known: in path order, which costs less than one by one.
    pub fn insert_sorted(&mut self, files: Vec<(AssetPath, Known)>) {
        for (path, known) in &files {
            for target in &known.weak {
                self.weak.entry(target.clone()).or_default().insert(path.clone());
            }
            if !path.as_str().is_ascii() {
                self.twins.insert(path);
            }
        }
        self.files.append(&mut files.into_iter().collect());
    }

    pub fn remove(&mut self, path: &AssetPath) {
        self.stats_differ = true;
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

    pub fn records(&self) -> impl Iterator<Item = (&AssetPath, &BuildRecord)> {
        self.records.iter()
    }

    pub fn set_record(&mut self, path: &AssetPath, record: Option<BuildRecord>) {
        if record.is_none() && !self.records.contains_key(path) {
            return;
        }
        if let Some(old) = self.records.remove(path) {
            for input in &old.inputs {
                match input {
                    BuildInput::Read { path: input, .. } | BuildInput::Exists { path: input, .. } => {
                        forget(&mut self.readers, input, path);
                    }
                    BuildInput::Listed { folder, .. } => forget(&mut self.listers, name_of(folder), path),
                }
            }
            for label in labels(path, &old) {
                self.labelled.remove(&label);
            }
        }
        let Some(record) = record else { return };
        for input in &record.inputs {
            match input {
                BuildInput::Read { path: input, .. } | BuildInput::Exists { path: input, .. } => {
                    self.readers.entry(input.clone()).or_default().insert(path.clone());
                }
                BuildInput::Listed { folder, .. } => {
                    self.listers.entry(name_of(folder).to_owned()).or_default().insert(path.clone());
                }
            }
        }
        self.labelled.extend(labels(path, &record).map(|label| (label, path.clone())));
        self.records.insert(path.clone(), record);
    }

    /// The paths of what was made beside a source when it was built last.
    pub fn labels_of(&self, source: &AssetPath) -> Vec<AssetPath> {
        self.records.get(source).map_or(Vec::new(), |record| labels(source, record).collect())
    }

    /// The source beside which this was made.
    pub fn source_of_label(&self, path: &AssetPath) -> Option<&AssetPath> {
        self.labelled.get(path)
    }

    /// The sources of what was made at a path, or below it: where something else stands now, they do not build.
    pub fn sources_of_labels_at<'a>(&'a self, path: &'a AssetPath) -> impl Iterator<Item = &'a AssetPath> {
        let own = self.labelled.get(path);
        let below = below(path).into_iter().flat_map(|(start, prefix)| {
            self.labelled
                .range((Bound::Included(start), Bound::Unbounded))
                .take_while(move |(path, _)| path.as_str().starts_with(&prefix))
                .map(|(_, source)| source)
        });
        own.into_iter().chain(below)
    }

    /// Everything that was made beside a source.
    pub fn all_labelled(&self) -> impl Iterator<Item = (&AssetPath, &AssetPath)> {
        self.labelled.iter()
    }

    /// Whether there is such an asset: a file, or what was made beside one.
    pub fn has(&self, path: &AssetPath) -> bool {
        self.files.contains_key(path) || self.labelled.contains_key(path)
    }

    /// The assets for which something at `path` was looked at, and those for which the folder that it stands in was
    /// listed, if what `lists` says is that the names in there differ.
    pub fn lookers<'a>(&'a self, path: &'a AssetPath, lists: bool) -> impl Iterator<Item = &'a AssetPath> {
        let listers = if lists { self.listers.get(path.folder()) } else { None };
        self.readers.get(path).into_iter().chain(listers).flatten()
    }

    /// Whether a transform that looked at this would see something else now.
    pub fn is_stale(&self, input: &BuildInput) -> bool {
        match input {
            BuildInput::Read { path, hash } => self.files.get(path).map(|known| known.source) != *hash,
            BuildInput::Exists { path, exists } => self.files.contains_key(path) != *exists,
            BuildInput::Listed { folder, names } => self.names_in(folder) != *names,
        }
    }

    /// A hash of what stands directly in a folder.
    pub fn names_in(&self, folder: &Option<AssetPath>) -> ContentHash {
        names_hash(&self.entries(name_of(folder)))
    }

    /// Whether its file is what it was when it was gone back from.
    pub fn is_held(&self, path: &AssetPath) -> bool {
        self.held.is_held(path, self.files.get(path).map(|known| known.source))
    }

    /// What stands directly in a folder, in path order.
    pub fn entries(&self, folder: &str) -> Vec<Entry> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let files =
            direct(&prefix, |from| self.files.range::<str, _>((from, Bound::Unbounded)).next().map(|(path, _)| path));
        let folders = direct(&prefix, |from| self.folders.range::<str, _>((from, Bound::Unbounded)).next());
        let files = files.into_iter().map(|path| Entry { path, is_folder: false });
        let mut entries: Vec<Entry> =
            files.chain(folders.into_iter().map(|path| Entry { path, is_folder: true })).collect();
        entries.sort_unstable();
        entries
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

/// The paths that stand directly below a prefix, found by jumping over what stands deeper: `next` answers the first path
/// from there on.
fn direct<'a>(prefix: &str, next: impl Fn(Bound<&str>) -> Option<&'a AssetPath>) -> Vec<AssetPath> {
    let mut found = Vec::new();
    let mut from = Bound::Included(prefix.to_owned());
    while let Some(path) = next(from.as_ref().map(String::as_str)) {
        let Some(rest) = path.as_str().strip_prefix(prefix) else { break };
        from = match rest.split_once('/') {
            None => {
                found.push(path.clone());
                Bound::Excluded(path.as_str().to_owned())
            }
            // '0' comes right after '/'.
            Some((name, _)) => Bound::Included(format!("{prefix}{name}0")),
        };
    }
    found
}

/// A hash of the names in a folder and of which of them are folders. It is kept in bundles: may not change.
pub(in crate::build) fn names_hash(entries: &[Entry]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(entry.path.file_name().as_bytes()).update(if entry.is_folder { b"/\0" } else { b"\0" });
    }
    ContentHash(*hasher.finalize().as_bytes())
}

/// The paths of what a source's record says was made beside it.
fn labels<'a>(source: &'a AssetPath, record: &'a BuildRecord) -> impl Iterator<Item = AssetPath> + 'a {
    record.labels.iter().filter_map(|label| source.labelled(label).ok())
}

fn name_of(folder: &Option<AssetPath>) -> &str {
    folder.as_ref().map_or("", AssetPath::as_str)
}

/// The first path that can be below a folder, and what all paths below it start with. No name starts with a NUL.
fn below(folder: &AssetPath) -> Option<(AssetPath, String)> {
    let prefix = format!("{folder}/");
    AssetPath::new(&format!("{prefix}\u{1}")).ok().map(|start| (start, prefix))
}

fn forget<K, Q>(index: &mut HashMap<K, BTreeSet<AssetPath>>, key: &Q, value: &AssetPath)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
