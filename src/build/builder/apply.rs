//! From what may differ to a staged generation: read, transform, compare, stage.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::delta::{Candidate, Delta};
use super::make::{self, Exists, Maker, Output};
use super::tree::{Failed, Known, Tree};
use super::{BuildOptions, Built, TreeBuilder};
use crate::build::arena::{Arena, Arenas, Lent};
use crate::build::config::{Rule, TreeConfig};
use crate::build::source::{BEING_WRITTEN, Reader, Source, is_unfinished, open_folder};
use crate::build::spill::Spill;
use crate::build::stats::Stamp;
use crate::build::{Because, Progress, Why, graph, parallel};
use crate::bundle::{BuildInput, BuildRecord, Bundle};
use crate::error::{Error, Result};
use crate::event::{BuildFailure, ReloadTimings};
use crate::ids::{AssetPath, ContentHash, Generation};
use crate::platform::clock::Clock;
use crate::platform::fs::{FileKind, FileSystem};

/// So many sources at most are looked at one by one for whether they take long.
const FEW: usize = 256;

impl TreeBuilder {
    pub(super) fn reader(&self) -> Reader<'_> {
        reader(&*self.fs, &*self.clock, &self.root, &self.options)
    }

    pub(super) fn apply(&mut self, mut delta: Delta, started: Instant, progress: &dyn Progress) -> Result<Built> {
        let looked_at = self.clock.now();
        self.keep_held(&mut delta);
        let mut failed: Vec<Failed> = Vec::new();
        for failure in delta.failures.drain(..) {
            let path = AssetPath::new(&failure.path).ok();
            failed.push(Failed::new(failure, path));
        }
        self.refuse(&mut failed)?;

        // Read what may differ, then what must be built again because of it.
        let candidates = std::mem::take(&mut delta.candidates);
        let mut arenas = std::mem::take(&mut self.arenas);
        let mut arenas_again = Arenas::new(self.threads);
        if !arenas.is_for(self.threads) {
            arenas = Arenas::new(self.threads);
        }
        let mut sources = Vec::with_capacity(candidates.len());
        let mut changed: BTreeMap<AssetPath, Option<ContentHash>> = BTreeMap::new();
        let mut appeared: BTreeSet<AssetPath> = BTreeSet::new();
        for path in &delta.gone {
            delta.gone_sources.push(self.tree.labels_of(path));
            self.tree.remove(path);
            changed.insert(path.clone(), None);
        }
        let whole = delta.base.is_some();
        // Without a bundle nothing was built from anything yet, nor waits for anything.
        let first = self.bundle().is_none() && self.tree.failures.is_empty();
        let config = std::mem::take(&mut self.tree.config);
        let mut unfinished: BTreeSet<AssetPath> = BTreeSet::new();
        let mut because: BTreeMap<AssetPath, Because> = BTreeMap::new();
        let base = delta.base.as_ref();
        let take = |tree: &mut Tree, candidate: &Candidate, read: Result<_, BuildFailure>| {
            match read {
                Ok(source) => {
                    let source: Source<'_> = source;
                    let path = &source.file.path;
                    let old = know(tree, &source);
                    if tree.held.holds(path, Some(source.hash)) {
                        return;
                    }
                    let differs = candidate.was != Some(source.hash);
                    let was = old.map(|old| old.executable);
                    let was = was.or_else(|| Some(base?.get(path)?.executable));
                    let flipped = was != Some(source.file.stat.executable);
                    if differs && !first {
                        changed.insert(path.clone(), Some(source.hash));
                    }
                    if candidate.was.is_none() && !first {
                        appeared.insert(path.clone());
                        because.insert(path.clone(), Because::New);
                    } else if differs && !first {
                        because.insert(path.clone(), Because::SourceChanged);
                    }
                    // What a transform made of the same bytes stands.
                    let look = whole && (candidate.was.is_none() || config.rule(path).is_none());
                    if differs || flipped || candidate.force || look {
                        sources.push(source);
                    }
                }
                Err(failure) => {
                    let path = candidate.file.path.clone();
                    let unfinished_now = is_unfinished(&failure);
                    if unfinished_now {
                        unfinished.insert(path.clone());
                    }
                    // Its last good version stays for the moment, and it is looked at again. Who looks for a file that
                    // was never built is told why there is none.
                    if !unfinished_now || whole && candidate.was.is_none() && failure.cause == BEING_WRITTEN {
                        failed.push(Failed::new(failure, Some(path)));
                    }
                }
            }
        };
        let reader = reader(&*self.fs, &*self.clock, &self.root, &self.options);
        let lent = arenas.lend();
        read(self.threads, reader, &config, &candidates, &lent, progress, &mut self.tree, take);
        self.tree.config = config;
        drop(candidates);
        self.refuse(&mut failed)?;
        let sort = |sources: &mut Vec<Source<'_>>| sources.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        if !whole {
            sort(&mut sources);
        }
        let read = sources.len();
        let mut again = self.read_again(&changed, &delta, &appeared);
        again.retain(|path, _| make::source_of(&sources, path).is_none() && self.tree.files.contains_key(path));
        self.read_these(&again, &mut sources, &arenas_again.lend(), &mut failed, progress);
        self.tree.held.release(again.keys());
        because.append(&mut again);
        if sources.len() > read {
            sort(&mut sources);
        }
        debug_assert!(sources.is_sorted_by(|a, b| a.file.path <= b.file.path), "a tree is scanned in path order");

        // Build.
        let read_at = self.clock.now();
        let spill = Spill::new(Arc::clone(&self.fs), self.spill_path.clone(), self.options.outputs_bytes);
        let made = {
            let reader = self.reader();
            let (tree, bundle, actions) = (&self.tree, self.bundle(), self.actions.as_ref());
            let maker = Maker { tree, bundle, actions, spill: &spill, reader: &reader, sources: &sources };
            // What takes long goes to a thread of its own; a few other files are not worth waking one.
            let costly = |source: &&Source<'_>| tree.config.rule(&source.file.path).is_some_and(Rule::is_costly);
            let few = sources.len() <= FEW && sources.iter().filter(costly).nth(1).is_some();
            let make = |seen: &mut Exists, number, _: &Source<'_>| maker.make(number, seen);
            match few {
                true => parallel::map_all(self.threads, &sources, Exists::default, make),
                false => parallel::map(self.threads, &sources, Exists::default, make),
            }
        };
        // In the memory that they were made in: it is tens of megabytes of a large tree.
        let mut warnings = std::mem::take(&mut delta.warnings);
        let keep = |made: Result<Output, Box<Failed>>| match made {
            Ok(mut output) => {
                warnings.append(&mut output.warnings);
                Some(output)
            }
            Err(failure) => {
                failed.push(*failure);
                None
            }
        };
        let mut outputs: Vec<Output> = made.into_iter().filter_map(keep).collect();
        self.refuse(&mut failed)?;
        self.hold_back(&mut outputs, &mut failed);
        let touched: Vec<AssetPath> = match whole {
            true => Vec::new(),
            false => outputs.iter().map(|output| output.path.clone()).chain(delta.gone.iter().cloned()).collect(),
        };
        let whys = if first { Vec::new() } else { self.whys_of(&outputs, because) };
        let relabelled = self.labels(&mut outputs, &mut delta, &mut appeared);
        for output in &mut outputs {
            output.settle(|target| self.tree.has(target));
            warnings.append(&mut output.warnings);
        }
        let built_at = self.clock.now();

        // Stage.
        appeared.extend(delta.gone.iter().cloned());
        let mut places = std::mem::take(&mut delta.places);
        if !self.tree.failures.is_empty() && !whole {
            // What was built because of something else no longer fails either.
            places.extend(outputs.iter().map(|output| output.path.as_str().to_owned()));
        }
        let mut timings = ReloadTimings::default();
        let base = self.bundle().map(Bundle::generation);
        let staged = self.stage(outputs, (sources, &spill), &appeared, delta, &mut timings, progress);
        let (bundle, changed) = match staged {
            Ok(staged) => staged,
            Err(error) => {
                // The bundle is as it was; what it should have become is looked at again the next time.
                self.tree.redo.extend(touched);
                self.tree.scanned &= !whole && !relabelled;
                return Err(error);
            }
        };
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        timings.build_us = us(started, built_at);
        timings.look_us = us(started, looked_at);
        timings.read_us = us(looked_at, read_at);
        timings.transform_us = us(read_at, built_at);
        timings.stage_us = us(built_at, self.clock.now());
        let arena_stats = arenas.stats() + arenas_again.stats();
        arenas.reset();
        self.arenas = arenas;
        let healed = self.settle_failures(whole, &places, &unfinished, failed);
        let generation = self.bundle().map_or(Generation(0), Bundle::generation);
        self.whys.remember(whys.into_iter().map(|(path, why)| (path, Why { generation, ..why })));
        Ok(Built {
            bundle,
            base,
            changed,
            failures: self.failures(),
            unfinished: unfinished.iter().map(|path| self.root.join(path.as_str())).collect(),
            healed,
            warnings: self.tree.news(warnings, whole),
            spilled_bytes: spill.spilled_bytes(),
            arenas: arena_stats,
            timings,
        })
    }

    /// When strict, the first failure in path order is the answer.
    fn refuse(&self, failed: &mut [Failed]) -> Result<()> {
        if self.options.tolerant || failed.is_empty() {
            return Ok(());
        }
        failed.sort_by(|a, b| a.failure.path.cmp(&b.failure.path));
        let BuildFailure { path, line, column, transform, mut cause } = failed[0].failure.clone();
        if failed.len() > 1 {
            cause = format!("{cause} (and {} more)", failed.len() - 1);
        }
        Err(Error::Build { path, line, column, transform, cause })
    }

    /// What was built from something that changed, and what failed and may build now, with the reason.
    fn read_again<'a>(
        &'a self,
        changed: &BTreeMap<AssetPath, Option<ContentHash>>,
        delta: &Delta,
        appeared: &BTreeSet<AssetPath>,
    ) -> BTreeMap<AssetPath, Because> {
        let mut again: BTreeMap<AssetPath, Because> = BTreeMap::new();
        // A folder is listed once, however many looked at it.
        let listed: RefCell<HashMap<&Option<AssetPath>, ContentHash>> = RefCell::default();
        let is_stale = |input: &&'a BuildInput| match *input {
            BuildInput::Listed { folder, names } => {
                let mut listed = listed.borrow_mut();
                listed.entry(folder).or_insert_with(|| self.tree.names_in(folder)) != names
            }
            input => self.tree.is_stale(input),
        };
        // What was gone back to was made from what was there then: only what changes now counts.
        let moved = |input: &BuildInput| match input {
            BuildInput::Read { path, .. } | BuildInput::Exists { path, .. } => changed.contains_key(path),
            BuildInput::Listed { folder, .. } => {
                let folder = folder.as_ref().map_or("", AssetPath::as_str);
                let folders = delta.put_folders.iter().chain(&delta.remove_folders);
                appeared.iter().chain(&delta.gone).chain(folders).any(|path| path.folder() == folder)
            }
        };
        let mut look = |path: &AssetPath, record: &'a BuildRecord| {
            let held = self.tree.is_held(path);
            let stale = |input: &&'a BuildInput| is_stale(input) && (!held || moved(input));
            if let Some(input) = record.inputs.iter().find(stale) {
                again.insert(path.clone(), self.because_of(input));
            }
        };
        if delta.base.is_some() {
            // Of the whole tree nothing that was looked at is taken to be what it was.
            self.tree.records().for_each(|(path, record)| look(path, record));
        } else {
            let folders = delta.put_folders.iter().chain(&delta.remove_folders);
            let named = appeared.iter().chain(&delta.gone).chain(folders).map(|path| (path, true));
            let other = changed.keys().filter(|path| !appeared.contains(*path)).map(|path| (path, false));
            let lookers: BTreeSet<&AssetPath> =
                named.chain(other).flat_map(|(path, lists)| self.tree.lookers(path, lists)).collect();
            for path in lookers {
                self.tree.record(path).into_iter().for_each(|record| look(path, record));
            }
        }
        for failed in self.tree.failures.values() {
            if let Some(path) = &failed.path
                && (failed.unit.iter().any(|member| changed.contains_key(member))
                    || failed.inputs.iter().any(|input| is_stale(&input)))
            {
                again.entry(path.clone()).or_insert(Because::Forced);
            }
        }
        // What is made beside a source gives way to a file of its name, and the source says so.
        for path in appeared.iter().chain(&delta.put_folders) {
            for source in self.tree.sources_of_labels_at(path) {
                again.entry(source.clone()).or_insert_with(|| Because::InputAppeared { path: path.clone() });
            }
        }
        again
    }

    fn because_of(&self, input: &BuildInput) -> Because {
        match input {
            BuildInput::Read { path, hash: None } | BuildInput::Exists { path, exists: false } => {
                Because::InputAppeared { path: path.clone() }
            }
            BuildInput::Read { path, .. } if self.tree.files.contains_key(path) => {
                Because::InputChanged { path: path.clone() }
            }
            BuildInput::Read { path, .. } | BuildInput::Exists { path, .. } => {
                Because::InputGone { path: path.clone() }
            }
            BuildInput::Listed { folder, .. } => {
                Because::ListingChanged { folder: folder.as_ref().map_or(String::new(), ToString::to_string) }
            }
        }
    }

    /// Why each of these was built; what is no more than looked at again is left out.
    fn whys_of(&self, outputs: &[Output], mut because: BTreeMap<AssetPath, Because>) -> Vec<(AssetPath, Why)> {
        let why = |output: &Output| {
            let path = &output.path;
            let because = because.remove(path).or_else(|| {
                let rule = self.tree.config.rule(path)?;
                let Some(record) = self.tree.record(path) else { return Some(Because::TransformChanged) };
                Some(rule.differs_from(&record.steps).unwrap_or(Because::Forced))
            })?;
            let (from_action_cache, build_us) = (output.from_action_cache, output.build_us);
            Some((path.clone(), Why { generation: Generation(0), because, from_action_cache, build_us }))
        };
        outputs.iter().filter_map(why).collect()
    }

    /// Makes what was made beside sources outputs of their own, and what is no longer made, or whose source is gone,
    /// gone. `moved` gets what came and what went. Answers whether anything did.
    fn labels(&mut self, outputs: &mut Vec<Output>, delta: &mut Delta, moved: &mut BTreeSet<AssetPath>) -> bool {
        let moved_before = moved.len();
        let mut dropped: BTreeSet<AssetPath> = BTreeSet::new();
        for source in std::mem::take(&mut delta.gone_sources) {
            dropped.extend(source);
        }
        let mut made: Vec<Output> = Vec::new();
        for output in outputs.iter_mut() {
            let before = self.tree.labels_of(&output.path);
            let now: BTreeSet<&AssetPath> = output.labelled.iter().map(|labelled| &labelled.path).collect();
            dropped.extend(before.iter().filter(|label| !now.contains(label)).cloned());
            moved.extend(now.into_iter().filter(|label| !before.contains(label)).cloned());
            self.tree.set_record(&output.path, output.record.as_deref().cloned());
            made.append(&mut output.labelled);
        }
        if !made.is_empty() {
            outputs.append(&mut made);
            outputs.sort_by(|a, b| a.path.cmp(&b.path));
        }
        // A file of the same name is an asset of its own.
        dropped.retain(|label| !self.tree.has(label) && delta.gone.binary_search(label).is_err());
        delta.gone.retain(|path| !self.tree.has(path));
        let relabelled = moved.len() > moved_before || !dropped.is_empty();
        delta.gone.extend(dropped);
        relabelled
    }

    /// Reads sources again.
    fn read_these<'b>(
        &mut self,
        again: &BTreeMap<AssetPath, Because>,
        sources: &mut Vec<Source<'b>>,
        lent: &Lent<'b>,
        failed: &mut Vec<Failed>,
        progress: &dyn Progress,
    ) {
        let mut candidates = Vec::with_capacity(again.len());
        for path in again.keys() {
            let at = self.tree.files.get(path).and_then(|known| known.at.clone());
            let at = at.map_or_else(|| self.root.join(path.as_str()), |at| at.to_path_buf());
            match self.fs.stat(&at, true) {
                Ok(stat) if stat.kind == FileKind::File => {
                    let file = self.tree.source_file(path, stat);
                    candidates.push(Candidate { file, was: None, force: true });
                }
                // It is gone, or no file any more: that is a change of its own, which is still to come.
                Ok(_) | Err(_) => {}
            }
        }
        let config = std::mem::take(&mut self.tree.config);
        let take = |tree: &mut Tree, candidate: &Candidate, read| match read {
            Ok(source) => {
                know(tree, &source);
                sources.push(source);
            }
            Err(failure) => {
                let path = Some(candidate.file.path.clone());
                failed.push(Failed::new(failure, path));
            }
        };
        let reader = reader(&*self.fs, &*self.clock, &self.root, &self.options);
        read(self.threads, reader, &config, &candidates, lent, progress, &mut self.tree, take);
        self.tree.config = config;
    }

    /// What is in a cycle is one unit: when one of it does not build, the others wait for it with their last good
    /// versions, so that no reader sees new and old ones that refer to each other.
    fn hold_back(&self, outputs: &mut Vec<Output>, failed: &mut Vec<Failed>) {
        if failed.is_empty() && self.tree.failures.is_empty() || outputs.is_empty() {
            return;
        }
        // What failed before and is not built now does not build either.
        let now: BTreeSet<&AssetPath> = outputs
            .iter()
            .map(|output| &output.path)
            .chain(failed.iter().filter_map(|failed| failed.path.as_ref()))
            .collect();
        let still =
            self.tree.failures.values().filter(|failed| failed.path.as_ref().is_some_and(|path| !now.contains(path)));
        let still: Vec<&Failed> = still.collect();
        let mut number: HashMap<AssetPath, u32> = HashMap::new();
        // Outputs by their numbers, then what failed.
        let mut nodes: Vec<(AssetPath, Vec<AssetPath>)> = Vec::new();
        let mut add = |path: &AssetPath, beside: Vec<AssetPath>, uses: Vec<AssetPath>| {
            let at = nodes.len() as u32;
            nodes.push((path.clone(), uses));
            number.insert(path.clone(), at);
            // What is made beside a source comes and waits with it.
            for path in beside {
                number.entry(path).or_insert(at);
            }
        };
        for output in outputs.iter() {
            let beside: Vec<AssetPath> = output.labelled.iter().map(|labelled| labelled.path.clone()).collect();
            let all = std::iter::once(output).chain(&output.labelled);
            let uses = all.flat_map(|output| {
                output.dependencies.iter().chain(output.open.iter().map(|open| &open.target)).cloned()
            });
            add(&output.path, beside, uses.collect());
        }
        let made = outputs.len() as u32;
        for failed in failed.iter().chain(still) {
            if let Some(path) = &failed.path {
                // What it uses now is not known; what it used when it built last is.
                let beside = self.tree.labels_of(path);
                let before = std::iter::once(path).chain(&beside);
                let before = before.filter_map(|path| self.bundle()?.dependencies(path.id()).ok());
                let before = before.flatten().map(|dependency| dependency.path);
                let read = failed.inputs.iter().filter_map(|input| match input {
                    BuildInput::Read { path, .. } => Some(path.clone()),
                    BuildInput::Exists { .. } | BuildInput::Listed { .. } => None,
                });
                let uses = before.chain(read).chain(failed.unit.iter().cloned()).collect();
                add(path, beside, uses);
            }
        }
        let edges = nodes.iter().map(|(_, uses)| uses.iter().filter_map(|path| number.get(path).copied()).collect());
        let edges: Vec<Vec<u32>> = edges.collect();
        let path_of = |node: &u32| nodes[*node as usize].0.clone();
        let mut held: BTreeMap<u32, (AssetPath, Vec<AssetPath>)> = BTreeMap::new();
        for unit in graph::units(&edges) {
            let Some(bad) = unit.iter().find(|member| **member >= made) else { continue };
            let members: Vec<AssetPath> = unit.iter().map(path_of).collect();
            for member in unit.iter().filter(|member| **member < made) {
                held.insert(*member, (path_of(bad), members.clone()));
            }
        }
        for (member, (bad, unit)) in held.into_iter().rev() {
            let output = outputs.remove(member as usize);
            let cause = format!("it waits for '{bad}', which does not build and with which it is in a cycle");
            let failure = BuildFailure::new(output.path.as_str(), "cycle", cause);
            failed.push(Failed { failure, path: Some(output.path), inputs: Vec::new(), unit });
        }
    }
}

fn reader<'a>(fs: &'a dyn FileSystem, clock: &'a dyn Clock, root: &'a Path, options: &BuildOptions) -> Reader<'a> {
    Reader { fs, clock, root, below: None, wary: options.tolerant, keep: AtomicU64::new(options.cache_bytes) }
}

/// Reads candidates by several threads, each into an arena of its own. `take` gets each with what is known of the tree,
/// in order, while others are read.
#[allow(clippy::too_many_arguments)]
fn read<'b>(
    threads: usize,
    reader: Reader<'_>,
    config: &TreeConfig,
    candidates: &[Candidate],
    lent: &Lent<'b>,
    progress: &dyn Progress,
    tree: &mut Tree,
    mut take: impl FnMut(&mut Tree, &Candidate, Result<Source<'b>, BuildFailure>),
) {
    let total = candidates.len() as u64;
    let done = AtomicU64::new(0);
    let below = open_folder(reader.fs, reader.root, candidates.len());
    let reader = Reader { below: below.as_deref(), ..reader };
    let work = |arena: &mut Arena<'b>, candidate: &Candidate| {
        // What is identical to what was built last is not needed in memory.
        let known = candidate.was.filter(|_| config.rule(&candidate.file.path).is_none());
        let source = reader.source(&candidate.file, known, arena);
        progress.step(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total, "read");
        source
    };
    parallel::map_taken(threads, candidates, || lent.arena(), work, |candidate, read| take(tree, candidate, read));
}

/// Makes what was read what is known; answers what was known before.
fn know(tree: &mut Tree, source: &Source<'_>) -> Option<Known> {
    let path = &source.file.path;
    let known = Known {
        stamp: Stamp::of(&source.file.stat),
        trusted: source.trusted,
        source: source.hash,
        executable: source.file.stat.executable,
        at: source.file.at.clone(),
        weak: make::weak(source),
    };
    tree.stats_differ = true;
    tree.insert(path.clone(), known)
}
