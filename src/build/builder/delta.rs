//! What to look at: the difference between a tree, or some places of it, and what is known of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TreeBuilder;
use super::tree::{Failed, Known};
use crate::build::config::{self, Ignoring, Mistake, TreeConfig};
use crate::build::contents::ContentReader;
use crate::build::scan::{Link, Scan, Scanner, SourceFile, place_of, problem};
use crate::build::stats::{Remembered, Stamp};
use crate::build::{Progress, labels, source};
use crate::bundle::{AssetRecord, Bundle};
use crate::error::{Error, Result};
use crate::event::BuildFailure;
use crate::ids::{AssetPath, ContentHash};

/// A file to be read.
pub(super) struct Candidate {
    pub file: SourceFile,
    /// The hash of its bytes when it was built last.
    pub was: Option<ContentHash>,
    /// Whether it is built even when its bytes are what they were.
    pub force: bool,
}

/// What may differ.
#[derive(Default)]
pub(super) struct Delta {
    pub candidates: Vec<Candidate>,
    /// Assets of the bundle whose files are gone.
    pub gone: Vec<AssetPath>,
    /// What had been made beside each of these.
    pub gone_sources: Vec<Vec<AssetPath>>,
    pub put_folders: Vec<AssetPath>,
    pub remove_folders: Vec<AssetPath>,
    /// What cannot be read at all.
    pub failures: Vec<BuildFailure>,
    pub warnings: Vec<String>,
    /// For a whole tree: every asset of the bundle.
    pub base: Option<HashMap<AssetPath, AssetRecord>>,
    /// Where was looked, for parts of a tree.
    pub places: Vec<String>,
}

impl TreeBuilder {
    fn scanner<'a>(&'a self, ignoring: &'a Ignoring) -> Scanner<'a> {
        Scanner { fs: &*self.fs, root: &self.root, real_root: &self.real_root, ignoring, threads: self.threads }
    }

    /// Reads `flyloft.toml`. Answers what is wrong with it when that is tolerated: the last good one stays.
    fn load_config(&mut self) -> Result<Option<BuildFailure>> {
        let path = AssetPath::new(config::FILE_NAME)?;
        let at = self.root.join(config::FILE_NAME);
        let reader = self.reader();
        let text = match self.fs.stat(&at, true) {
            Ok(mut stat) => Some(reader.stable(&at, &mut stat)),
            Err(error) if super::is_missing(&error) => None,
            Err(error) => Some(Err(error)),
        };
        let hash = match &text {
            Some(Ok(bytes)) => Some(ContentHash::of(bytes)),
            _ => None,
        };
        if text.is_none() || hash.is_some() && hash == self.tree.config_hash {
            if text.is_none() {
                self.tree.config = TreeConfig::default();
                self.tree.config_hash = None;
            }
            return Ok(None);
        }
        let parsed = match text {
            None => Ok(TreeConfig::default()),
            Some(Err(error)) => Err(Mistake::whole(format!("it cannot be read: {error}"))),
            Some(Ok(bytes)) => self.parse_config(&bytes),
        };
        match parsed {
            Ok(config) => {
                self.tree.config = config;
                self.tree.config_hash = hash;
                Ok(None)
            }
            Err(mistake) if !self.options.tolerant => Err(mistake.into_error()),
            Err(mistake) => {
                if !self.tree.scanned && self.tree.config_hash.is_none() {
                    self.config_of_bundle(&path)?;
                }
                Ok(Some(mistake.into_failure()))
            }
        }
    }

    fn parse_config(&self, bytes: &[u8]) -> Result<TreeConfig, Mistake> {
        let text = std::str::from_utf8(bytes).map_err(|_| Mistake::whole("it is not UTF-8; save it as UTF-8"))?;
        TreeConfig::parse(text, &self.options.registry)
    }

    /// The last good `flyloft.toml` is in the bundle, since it is an asset.
    fn config_of_bundle(&mut self, path: &AssetPath) -> Result<()> {
        let Some(bundle) = self.bundle() else { return Ok(()) };
        let Some(record) = bundle.find(path)? else { return Ok(()) };
        if record.len > source::WHOLE_BYTES_MAX {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let mut sink = |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        ContentReader::new(bundle).checked(&record.content, record.len, &mut sink)?;
        if let Ok(config) = self.parse_config(&bytes) {
            self.tree.config = config;
            self.tree.config_hash = Some(record.content);
        }
        Ok(())
    }

    pub(super) fn delta_of_tree(&mut self, progress: &dyn Progress) -> Result<Delta> {
        let mut delta = Delta::default();
        delta.failures.extend(self.load_config()?);
        let ignoring = self.tree.config.ignoring(&self.exclude);
        let (scan, base) = std::thread::scope(|scope| {
            // Read while the tree is looked at.
            let bundle = self.bundle().cloned();
            let base = scope.spawn(move || base_of(bundle.as_ref()));
            let scan = self.scanner(&ignoring).tree();
            (scan, base.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (scan, base) = (scan?, base?);
        progress.step(0, scan.files.len() as u64, "scan");
        let config_fails = !delta.failures.is_empty();
        let Scan { files, folders, links, problems, warnings, ignore_files } = scan;
        let ignoring = ignoring.with_files(ignore_files);
        if *self.ignoring != ignoring {
            self.ignoring = Arc::new(ignoring);
        }
        delta.failures.extend(problems);
        delta.warnings = warnings;
        let distrust = self.config_differs(&base, config_fails)?;
        self.forget_tree(links);
        self.load_records(&base)?;

        // Twins first: neither of two is packed.
        for path in files.iter().map(|file| &file.path).chain(&folders) {
            self.tree.twins.insert(path);
        }
        for path in files.iter().map(|file| &file.path).chain(&folders) {
            if let Some(other) = self.tree.twins.twin(path) {
                delta.failures.push(twin_problem(path, other));
            }
        }
        let failing: BTreeSet<String> = delta.failures.iter().map(|failure| failure.path.clone()).collect();
        // Files of which the bundle has an asset. Mostly those are all of its assets.
        let both = files.iter().filter(|file| base.contains_key(&file.path)).count();
        let paths: Vec<AssetPath> =
            if base.len() == both { Vec::new() } else { files.iter().map(|file| file.path.clone()).collect() };
        let is_empty = files.is_empty();
        let mut unchanged: Vec<(AssetPath, Known)> = Vec::with_capacity(both);
        delta.candidates.reserve(files.len());
        for file in files {
            if !failing.is_empty() && failing.contains(file.path.as_str()) {
                continue;
            }
            let record = base.get(&file.path);
            let (was, current) = self.was(&file.path, record);
            let remembered = self.tree.remembered.remove(&file.path);
            match (record, remembered) {
                (Some(record), Some(remembered))
                    if !distrust
                        && current
                        && remembered.stamp == Stamp::of(&file.stat)
                        && was == Some(remembered.source)
                        && record.executable == file.stat.executable =>
                {
                    let known = Known {
                        stamp: remembered.stamp,
                        trusted: true,
                        source: remembered.source,
                        executable: record.executable,
                        at: file.at,
                        weak: remembered.weak,
                    };
                    unchanged.push((file.path, known));
                }
                _ => {
                    let force = distrust || !current;
                    delta.candidates.push(Candidate { file, was, force });
                }
            }
        }
        self.tree.insert_sorted(unchanged);
        // What stands at or below a problem is not gone: it keeps its last good version.
        let kept = |path: &AssetPath| {
            failing.iter().any(|bad| path.as_str().strip_prefix(bad.as_str()).is_some_and(starts_part))
        };
        let stands = |path: &AssetPath| paths.binary_search(path).is_ok() || kept(path);
        // What is made beside a source goes when that is built and does not make it any more, or with it.
        let beside = |path: &AssetPath| self.tree.source_of_label(path).is_some_and(stands);
        let is_gone = |path: &AssetPath| !stands(path) && !beside(path);
        if base.len() > both {
            delta.gone = base.keys().filter(|path| is_gone(path)).cloned().collect();
            delta.gone.sort();
        }
        let folders: BTreeSet<AssetPath> = folders.into_iter().collect();
        let mut had = BTreeSet::new();
        if let Some(bundle) = self.bundle() {
            for folder in bundle.folders() {
                had.insert(folder?);
            }
        }
        for folder in labels::folders(self.tree.all_labelled().map(|(path, _)| path)) {
            had.remove(&folder);
        }
        delta.put_folders = folders.difference(&had).cloned().collect();
        delta.remove_folders = had.difference(&folders).filter(|path| !kept(path)).cloned().collect();
        self.tree.folders = folders;
        delta.base = Some(base);
        self.tree.remembered = HashMap::new();
        if is_empty && self.tree.folders.is_empty() && delta.failures.is_empty() {
            if !self.options.tolerant {
                let path = self.root.display().to_string();
                return Err(Error::build(path, "scan", "the folder is empty; there is nothing to pack"));
            }
            delta.warnings.push(format!("{}: the folder is empty", self.root.display()));
        }
        Ok(delta)
    }

    /// Whether the bundle was built with another `flyloft.toml`: then no file is as it should be before it is looked
    /// at again.
    fn config_differs(&self, base: &HashMap<AssetPath, AssetRecord>, config_fails: bool) -> Result<bool> {
        let path = AssetPath::new(config::FILE_NAME)?;
        let differs = base.get(&path).map(|record| record.content) != self.tree.config_hash;
        Ok(!config_fails && differs && !self.tree.held.is_held(&path, self.tree.config_hash))
    }

    /// Begins a whole scan: what is known of files becomes what is remembered of them.
    fn forget_tree(&mut self, links: Vec<Link>) {
        let files = std::mem::take(&mut self.tree.files);
        let trusted = files.into_iter().filter(|(_, known)| known.trusted);
        self.tree
            .remembered
            .extend(trusted.map(|(path, known)| {
                (path, Remembered { stamp: known.stamp, source: known.source, weak: known.weak })
            }));
        for path in std::mem::take(&mut self.tree.redo) {
            self.tree.remembered.remove(&path);
        }
        let old = std::mem::take(&mut self.tree);
        self.tree.config = old.config;
        self.tree.config_hash = old.config_hash;
        self.tree.remembered = old.remembered;
        self.tree.failures = old.failures;
        self.tree.told = old.told;
        self.tree.held = old.held;
        self.tree.stats_differ = old.stats_differ;
        self.tree.links = links.into_iter().map(|link| (link.path, link.target)).collect();
        self.tree.scanned = true;
    }

    fn load_records(&mut self, base: &HashMap<AssetPath, AssetRecord>) -> Result<()> {
        let Some(bundle) = self.writer.bundle().cloned() else { return Ok(()) };
        for path in base.keys() {
            // What was made beside a source whose rule is gone must be known too: it goes once the source is built.
            let beside = path.source_and_label().map(|(source, _)| source).filter(|source| base.contains_key(source));
            let own = self.tree.config.rule(path).is_some().then(|| path.clone());
            for path in beside.into_iter().chain(own) {
                if self.tree.record(&path).is_none() {
                    let built = bundle.build_record(path.id())?;
                    self.tree.set_record(&path, built);
                }
            }
        }
        Ok(())
    }

    /// The hash of the source that an asset was built from, and whether it was built the way it would be now.
    fn was(&self, path: &AssetPath, record: Option<&AssetRecord>) -> (Option<ContentHash>, bool) {
        let Some(record) = record else { return (None, true) };
        match self.tree.config.rule(path) {
            None => (Some(record.content), true),
            Some(rule) => match self.tree.record(path) {
                None => (Some(record.content), false),
                Some(built) => (Some(built.source), rule.is_recorded_as(&built.steps)),
            },
        }
    }

    /// `None` when the whole tree must be looked at: its configuration or its top folder changed.
    pub(super) fn delta_of_paths(&mut self, changed: &BTreeSet<PathBuf>) -> Result<Option<Delta>> {
        let mut delta = Delta::default();
        let mut places: BTreeSet<AssetPath> = std::mem::take(&mut self.tree.redo);
        let redo = places.clone();
        for path in changed {
            let Some(inside) = self.inside(path) else { continue };
            let real = self.real_root.join(inside);
            let Some(inside) = place_of(inside) else {
                self.unnamed(path, &mut delta);
                continue;
            };
            let inside = &*inside;
            if inside.is_empty() {
                self.tree.redo = redo;
                return Ok(None);
            }
            if self.ignoring.is_of_no_interest(Path::new(inside), false) {
                continue;
            }
            // What an ignore file says, or no longer says, is found by looking at everything.
            if inside.rsplit('/').next() == Some(config::IGNORE_FILE_NAME) || self.ignoring.has_files_in(inside) {
                self.tree.redo = redo;
                return Ok(None);
            }
            let leads_there = |target: &PathBuf| target.starts_with(&real) || real.starts_with(target);
            let links = self.tree.links.iter().filter(|(_, target)| target.as_ref().is_some_and(leads_there));
            places.extend(links.map(|(link, _)| link.clone()));
            match AssetPath::new(inside) {
                Ok(path) => drop(places.insert(path)),
                Err(error) => delta.failures.push(problem(inside, error.to_string())),
            }
        }
        let config_path = AssetPath::new(config::FILE_NAME)?;
        if places.contains(&config_path) {
            let before = self.tree.config_hash;
            match self.load_config() {
                Ok(Some(failure)) => {
                    delta.failures.push(failure);
                    places.remove(&config_path);
                    delta.places.push(config::FILE_NAME.into());
                }
                Ok(None) if self.tree.config_hash != before => {
                    self.tree.redo = redo;
                    return Ok(None);
                }
                Ok(None) => {}
                Err(error) => {
                    self.tree.redo = redo;
                    return Err(error);
                }
            }
        }
        if !self.look(places, &redo, &mut delta)? {
            self.tree.redo = redo;
            return Ok(None);
        }
        Ok(Some(delta))
    }

    fn inside<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        path.strip_prefix(&self.root).or_else(|_| path.strip_prefix(&self.real_root)).ok()
    }

    /// A path that is no text can only be a problem, or one that is gone.
    fn unnamed(&self, path: &Path, delta: &mut Delta) {
        let name = crate::build::scan::one_line(path);
        if self.fs.stat(path, false).is_ok() {
            delta.failures.push(problem(&name, "its name is not UTF-8; rename it or ignore it"));
        }
        delta.places.push(name);
    }

    /// Looks at places, at what is below them, and at links that lead to what is new there. `false` when ignore files
    /// turned up: then nothing short of looking at everything will do.
    fn look(&mut self, mut places: BTreeSet<AssetPath>, redo: &BTreeSet<AssetPath>, delta: &mut Delta) -> Result<bool> {
        let mut candidates: BTreeMap<AssetPath, Candidate> = BTreeMap::new();
        let mut gone: BTreeSet<AssetPath> = BTreeSet::new();
        let (mut put_folders, mut remove_folders) = (BTreeSet::new(), BTreeSet::new());
        let mut looked: BTreeSet<AssetPath> = BTreeSet::new();
        let mut appeared = false;
        // Files that changed and have other names: a change is told by the name that it was made by.
        let mut linked: BTreeSet<(u64, u64)> = BTreeSet::new();
        while let Some(place) = places.pop_first() {
            let covered = |done: &AssetPath| place.as_str().strip_prefix(done.as_str()).is_some_and(starts_part);
            if looked.range::<AssetPath, _>(..=&place).next_back().is_some_and(covered) {
                continue;
            }
            let (place, scan) = self.scanner(&self.ignoring).place(&place);
            if !scan.ignore_files.is_empty() {
                return Ok(false);
            }
            let problems: BTreeSet<&str> = scan.problems.iter().map(|problem| problem.path.as_str()).collect();
            let kept =
                |path: &AssetPath| problems.iter().any(|bad| path.as_str().strip_prefix(bad).is_some_and(starts_part));
            let found: BTreeSet<&AssetPath> = scan.files.iter().map(|file| &file.path).collect();
            let folders: BTreeSet<&AssetPath> = scan.folders.iter().collect();
            for path in self.tree.files_below(&place) {
                if !found.contains(&path) && !kept(&path) {
                    gone.insert(path);
                }
            }
            // Not known as a file, yet in the bundle: it failed, or its removal did.
            let failing = self.tree.failures.values().filter_map(|failed| failed.path.as_ref());
            for path in failing.chain(redo).chain([&place]) {
                let here = path.as_str().strip_prefix(place.as_str()).is_some_and(starts_part);
                if here && !found.contains(path) && !kept(path) && self.is_file(path)? {
                    gone.insert(path.clone());
                }
            }
            for path in self.tree.folders_below(&place) {
                if !folders.contains(&path) && !kept(&path) {
                    remove_folders.insert(path);
                }
            }
            for folder in &scan.folders {
                self.with_parents(folder, &mut put_folders);
                self.tree.twins.insert(folder);
            }
            for file in &scan.files {
                if let Ok(parent) = AssetPath::new(file.path.folder()) {
                    self.with_parents(&parent, &mut put_folders);
                }
                let known = self.tree.files.get(&file.path);
                appeared |= known.is_none();
                let failed = self.tree.failures.contains_key(file.path.as_str());
                let force = failed || redo.contains(&file.path);
                let same = known.is_some_and(|known| {
                    known.trusted
                        && known.stamp == Stamp::of(&file.stat)
                        && known.executable == file.stat.executable
                        && known.at == file.at
                });
                if !same && file.stat.links > 1 {
                    linked.extend(Stamp::of(&file.stat).file());
                }
                if !same || force {
                    let was = known.map(|known| known.source);
                    self.tree.twins.insert(&file.path);
                    candidates.insert(file.path.clone(), Candidate { file: file.clone(), was, force });
                }
            }
            for path in self.links_below(&place) {
                self.tree.links.remove(&path);
            }
            self.tree.links.extend(scan.links.iter().map(|link| (link.path.clone(), link.target.clone())));
            delta.warnings.extend(scan.warnings);
            delta.failures.extend(scan.problems);
            delta.places.push(place.as_str().to_owned());
            looked.insert(place);
            if places.is_empty() && !linked.is_empty() {
                let is_linked = |known: &Known| known.stamp.file().is_some_and(|file| linked.contains(&file));
                let names = self.tree.files.iter().filter(|(path, known)| is_linked(known) && !looked.contains(*path));
                places.extend(names.map(|(path, _)| path.clone()).collect::<Vec<_>>());
                linked.clear();
            }
            if places.is_empty() && appeared {
                // Links that led nowhere may lead to what is new.
                appeared = false;
                let dangling =
                    self.tree.links.iter().filter(|(path, target)| target.is_none() && !looked.contains(*path));
                places.extend(dangling.map(|(path, _)| path.clone()).collect::<Vec<_>>());
            }
        }
        gone.retain(|path| !candidates.contains_key(path));
        self.look_at_twins(&gone, &remove_folders, &mut candidates, delta);
        put_folders.retain(|folder| !self.tree.folders.contains(folder));
        remove_folders.retain(|folder| !put_folders.contains(folder));
        for folder in &put_folders {
            self.tree.folders.insert(folder.clone());
        }
        for folder in &remove_folders {
            self.tree.folders.remove(folder);
        }
        delta.candidates = candidates.into_values().collect();
        delta.gone = gone.into_iter().collect();
        delta.put_folders = put_folders.into_iter().collect();
        delta.remove_folders = remove_folders.into_iter().collect();
        Ok(true)
    }

    /// Whether the bundle has an asset there that comes from a file of that path.
    fn is_file(&self, path: &AssetPath) -> Result<bool> {
        Ok(match self.bundle() {
            Some(bundle) if self.tree.source_of_label(path).is_none() => bundle.find(path)?.is_some(),
            Some(_) | None => false,
        })
    }

    fn links_below(&self, place: &AssetPath) -> Vec<AssetPath> {
        let below = |path: &&AssetPath| path.as_str().strip_prefix(place.as_str()).is_some_and(starts_part);
        self.tree.links.keys().filter(below).cloned().collect()
    }

    fn with_parents(&self, folder: &AssetPath, into: &mut BTreeSet<AssetPath>) {
        let mut folder = Some(folder.clone());
        while let Some(path) = folder.filter(|path| !self.tree.folders.contains(path)) {
            folder = AssetPath::new(path.folder()).ok();
            into.insert(path);
        }
    }

    /// A path with a twin does not build, nor does the twin; when one goes the other does again.
    fn look_at_twins(
        &mut self,
        gone: &BTreeSet<AssetPath>,
        gone_folders: &BTreeSet<AssetPath>,
        candidates: &mut BTreeMap<AssetPath, Candidate>,
        delta: &mut Delta,
    ) {
        let mut freed = Vec::new();
        for path in gone.iter().chain(gone_folders).filter(|path| !path.as_str().is_ascii()) {
            self.tree.twins.remove(path);
            freed.extend(self.tree.twins.alike(path).cloned());
        }
        for path in freed {
            if self.tree.twins.twin(&path).is_none() && self.tree.failures.contains_key(path.as_str()) {
                delta.places.push(path.as_str().to_owned());
                if let Ok(stat) = self.fs.stat(&self.root.join(path.as_str()), true)
                    && stat.kind == crate::platform::fs::FileKind::File
                {
                    let was = self.tree.files.get(&path).map(|known| known.source);
                    let file = SourceFile { path: path.clone(), at: None, stat };
                    candidates.insert(path, Candidate { file, was, force: true });
                }
            }
        }
        let mut twins = Vec::new();
        for path in candidates.keys().filter(|path| !path.as_str().is_ascii()) {
            if let Some(other) = self.tree.twins.twin(path) {
                twins.push(path.clone());
                delta.failures.push(twin_problem(path, other));
                delta.failures.push(twin_problem(other, path));
            }
        }
        for path in twins {
            candidates.remove(&path);
        }
    }

    /// Failures that no longer stand after looking at `places`, or at the whole tree. Those of what is unfinished do:
    /// nothing is known of it yet.
    pub(super) fn settle_failures(
        &mut self,
        whole: bool,
        places: &[String],
        unfinished: &BTreeSet<AssetPath>,
        now: Vec<Failed>,
    ) -> Vec<AssetPath> {
        let now: BTreeMap<String, Failed> =
            now.into_iter().map(|failed| (failed.failure.path.clone(), failed)).collect();
        let looked_at =
            |path: &str| whole || places.iter().any(|place| path.strip_prefix(place.as_str()).is_some_and(starts_part));
        let is_unfinished = |path: &str| unfinished.iter().any(|open| open.as_str() == path);
        let settled = |path: &&String| looked_at(path) && !now.contains_key(*path) && !is_unfinished(path);
        let settled: Vec<String> = self.tree.failures.keys().filter(settled).cloned().collect();
        let mut healed = Vec::new();
        for path in settled {
            self.tree.failures.remove(&path);
            // What failed and is gone did not heal.
            if let Ok(path) = AssetPath::new(&path)
                && self.tree.files.contains_key(&path)
            {
                healed.push(path);
            }
        }
        self.tree.failures.extend(now);
        healed
    }
}

/// Every asset of a bundle.
fn base_of(bundle: Option<&Bundle>) -> Result<HashMap<AssetPath, AssetRecord>> {
    let Some(bundle) = bundle else { return Ok(HashMap::new()) };
    let mut base = HashMap::with_capacity(bundle.info().assets.min(1 << 24) as usize);
    for record in bundle.assets() {
        let record = record?;
        base.insert(record.path.clone(), record);
    }
    Ok(base)
}

fn twin_problem(path: &AssetPath, other: &AssetPath) -> BuildFailure {
    // Both look the same: what is not ASCII is spelled out.
    let other: String = other
        .as_str()
        .chars()
        .map(|c| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() })
        .collect();
    problem(path.as_str(), format!("it differs from '{other}' only in Unicode normalisation; rename one"))
}

/// Whether what follows a prefix of a path begins a new part of it.
fn starts_part(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}
