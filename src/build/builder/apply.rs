//! From what may differ to a staged generation: read, transform, compare, stage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::delta::{Candidate, Delta};
use super::make::{self, Exists, Maker, Output};
use super::tree::{Failed, Known, Tree};
use super::{BuildOptions, Built, TreeBuilder};
use crate::build::arena::{Arena, Arenas, Lent};
use crate::build::config::TreeConfig;
use crate::build::source::{BEING_WRITTEN, Reader, Source, open_folder};
use crate::build::stats::Stamp;
use crate::build::{Progress, graph, parallel};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::event::{BuildFailure, ReloadTimings};
use crate::ids::{AssetPath, ContentHash};
use crate::platform::clock::Clock;
use crate::platform::fs::{FileKind, FileSystem};

impl TreeBuilder {
    pub(super) fn reader(&self) -> Reader<'_> {
        reader(&*self.fs, &*self.clock, &self.root, &self.options)
    }

    pub(super) fn apply(&mut self, mut delta: Delta, started: Instant, progress: &dyn Progress) -> Result<Built> {
        let looked_at = self.clock.now();
        let mut failed: Vec<Failed> = Vec::new();
        for failure in delta.failures.drain(..) {
            let path = AssetPath::new(&failure.path).ok();
            failed.push(Failed { failure, path, inputs: Vec::new() });
        }
        self.refuse(&mut failed)?;

        // Read what may differ, then what must be built again because of it.
        let candidates = std::mem::take(&mut delta.candidates);
        let mut arenas = [Arenas::new(self.threads), Arenas::new(self.threads)];
        let [first_arenas, later_arenas] = &mut arenas;
        let mut sources = Vec::with_capacity(candidates.len());
        let mut changed: BTreeMap<AssetPath, Option<ContentHash>> = BTreeMap::new();
        let mut appeared: BTreeSet<AssetPath> = BTreeSet::new();
        for path in &delta.gone {
            self.tree.remove(path);
            changed.insert(path.clone(), None);
        }
        let whole = delta.base.is_some();
        // Without a bundle nothing was built from anything yet, nor waits for anything.
        let first = self.bundle().is_none() && self.tree.failures.is_empty();
        let config = std::mem::take(&mut self.tree.config);
        let mut unfinished: BTreeSet<PathBuf> = BTreeSet::new();
        let root = self.root.clone();
        let take = |tree: &mut Tree, candidate: &Candidate, read: Result<_, BuildFailure>| {
            match read {
                Ok(source) => {
                    let source: Source<'_> = source;
                    let path = &source.file.path;
                    let old = know(tree, &source);
                    let differs = candidate.was != Some(source.hash);
                    let flipped = old.is_none_or(|old| old.executable != source.file.stat.executable);
                    if differs && !first {
                        changed.insert(path.clone(), Some(source.hash));
                    }
                    if candidate.was.is_none() && !first {
                        appeared.insert(path.clone());
                    }
                    if differs || flipped || candidate.force || whole {
                        sources.push(source);
                    }
                }
                Err(failure) => {
                    let path = candidate.file.path.clone();
                    let is_open = failure.cause == BEING_WRITTEN;
                    if is_open {
                        unfinished.insert(root.join(path.as_str()));
                    }
                    // Its last good version stays for the moment; that it is closed is a change of its own.
                    if !is_open || candidate.was.is_none() && whole {
                        failed.push(Failed { failure, path: Some(path), inputs: Vec::new() });
                    }
                }
            }
        };
        let reader = reader(&*self.fs, &*self.clock, &self.root, &self.options);
        let lent = first_arenas.lend();
        read(self.threads, reader, &config, &candidates, &lent, progress, &mut self.tree, take);
        self.tree.config = config;
        drop(candidates);
        self.refuse(&mut failed)?;
        let sort = |sources: &mut Vec<Source<'_>>| sources.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        if !whole {
            sort(&mut sources);
        }
        let read = sources.len();
        self.read_again(&changed, &mut sources, &later_arenas.lend(), &mut failed, progress);
        if sources.len() > read {
            sort(&mut sources);
        }
        debug_assert!(sources.is_sorted_by(|a, b| a.file.path <= b.file.path), "a tree is scanned in path order");

        // Build.
        let read_at = self.clock.now();
        let made = {
            let reader = self.reader();
            let maker =
                Maker { tree: &self.tree, registry: &self.options.registry, reader: &reader, sources: &sources };
            parallel::map(self.threads, &sources, Exists::default, |seen, number, _| maker.make(number, seen))
        };
        // In the memory that they were made in: it is tens of megabytes of a large tree.
        let mut warnings = std::mem::take(&mut delta.warnings);
        let keep = |made: Result<Output, Failed>| match made {
            Ok(mut output) => {
                warnings.append(&mut output.warnings);
                Some(output)
            }
            Err(failure) => {
                failed.push(failure);
                None
            }
        };
        let mut outputs: Vec<Output> = made.into_iter().filter_map(keep).collect();
        self.refuse(&mut failed)?;
        self.hold_back(&mut outputs, &mut failed);
        let built_at = self.clock.now();

        // Stage.
        appeared.extend(delta.gone.iter().cloned());
        let touched: Vec<AssetPath> = match whole {
            true => Vec::new(),
            false => outputs.iter().map(|output| output.path.clone()).chain(delta.gone.iter().cloned()).collect(),
        };
        let mut places = std::mem::take(&mut delta.places);
        if !self.tree.failures.is_empty() && !whole {
            // What was built because of something else no longer fails either.
            places.extend(outputs.iter().map(|output| output.path.as_str().to_owned()));
        }
        let mut timings = ReloadTimings::default();
        let base = self.bundle().map(Bundle::generation);
        let (bundle, changed) = match self.stage(outputs, sources, &appeared, delta, &mut timings, progress) {
            Ok(staged) => staged,
            Err(error) => {
                // The bundle is as it was; what it should have become is looked at again the next time.
                self.tree.redo.extend(touched);
                self.tree.scanned &= !whole;
                return Err(error);
            }
        };
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        timings.build_us = us(started, built_at);
        timings.look_us = us(started, looked_at);
        timings.read_us = us(looked_at, read_at);
        timings.transform_us = us(read_at, built_at);
        timings.stage_us = us(built_at, self.clock.now());
        let healed = self.settle_failures(whole, &places, failed);
        Ok(Built {
            bundle,
            base,
            changed,
            failures: self.failures(),
            unfinished,
            healed,
            warnings: self.tree.news(warnings, whole),
            arenas: first_arenas.stats() + later_arenas.stats(),
            timings,
        })
    }

    /// When strict, the first failure in path order is the answer.
    fn refuse(&self, failed: &mut [Failed]) -> Result<()> {
        if self.options.tolerant || failed.is_empty() {
            return Ok(());
        }
        failed.sort_by(|a, b| a.failure.path.cmp(&b.failure.path));
        let BuildFailure { path, line, transform, mut cause } = failed[0].failure.clone();
        if failed.len() > 1 {
            cause = format!("{cause} (and {} more)", failed.len() - 1);
        }
        Err(Error::Build { path, line, transform, cause })
    }

    /// Reads what was built from something that changed, and what failed and may build now.
    fn read_again<'b>(
        &mut self,
        changed: &BTreeMap<AssetPath, Option<ContentHash>>,
        sources: &mut Vec<Source<'b>>,
        lent: &Lent<'b>,
        failed: &mut Vec<Failed>,
        progress: &dyn Progress,
    ) {
        let mut again: BTreeSet<AssetPath> = BTreeSet::new();
        for (path, now) in changed {
            again.extend(self.tree.stale_readers(path, *now).cloned());
        }
        for failure in self.tree.failures.values() {
            if let Some(path) = &failure.path
                && failure.inputs.iter().any(|input| changed.contains_key(input))
            {
                again.insert(path.clone());
            }
        }
        again.retain(|path| make::source_of(sources, path).is_none() && self.tree.files.contains_key(path));
        let mut candidates = Vec::with_capacity(again.len());
        for path in again {
            let at = self.tree.files.get(&path).and_then(|known| known.at.clone());
            let at = at.map_or_else(|| self.root.join(path.as_str()), |at| at.to_path_buf());
            match self.fs.stat(&at, true) {
                Ok(stat) if stat.kind == FileKind::File => {
                    let file = self.tree.source_file(&path, stat);
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
                failed.push(Failed { failure, path, inputs: Vec::new() });
            }
        };
        let reader = reader(&*self.fs, &*self.clock, &self.root, &self.options);
        read(self.threads, reader, &config, &candidates, lent, progress, &mut self.tree, take);
        self.tree.config = config;
    }

    /// What is in a cycle is one unit: when one of it does not build, the others wait for it with their last good
    /// versions, so that no reader sees new and old ones that refer to each other.
    fn hold_back(&self, outputs: &mut Vec<Output>, failed: &mut Vec<Failed>) {
        if failed.is_empty() || outputs.is_empty() {
            return;
        }
        let mut number: HashMap<AssetPath, u32> = HashMap::new();
        let mut edges: Vec<Vec<AssetPath>> = Vec::new();
        let mut add = |path: &AssetPath, uses: Vec<AssetPath>| {
            number.entry(path.clone()).or_insert_with(|| {
                edges.push(uses);
                edges.len() as u32 - 1
            });
        };
        for output in outputs.iter() {
            add(&output.path, output.dependencies.clone());
        }
        let made = outputs.len() as u32;
        for failed in failed.iter() {
            if let Some(path) = &failed.path {
                // What it uses now is not known; what it used when it built last is.
                let before = self.bundle().and_then(|bundle| bundle.dependencies(path.id()).ok());
                let before = before.into_iter().flatten().map(|dependency| dependency.path);
                add(path, before.chain(failed.inputs.iter().cloned()).collect());
            }
        }
        let edges: Vec<Vec<u32>> =
            edges.iter().map(|uses| uses.iter().filter_map(|path| number.get(path).copied()).collect()).collect();
        let mut held: BTreeMap<u32, (AssetPath, Vec<AssetPath>)> = BTreeMap::new();
        let path_of: HashMap<u32, &AssetPath> = number.iter().map(|(path, number)| (*number, path)).collect();
        for unit in graph::units(&edges) {
            let Some(bad) = unit.iter().find(|member| **member >= made) else { continue };
            let members: Vec<AssetPath> = unit.iter().map(|member| path_of[member].clone()).collect();
            for member in unit.iter().filter(|member| **member < made) {
                held.insert(*member, (path_of[bad].clone(), members.clone()));
            }
        }
        for (member, (bad, unit)) in held.into_iter().rev() {
            let output = outputs.remove(member as usize);
            let failure = BuildFailure {
                path: output.path.as_str().to_owned(),
                line: None,
                transform: "cycle".into(),
                cause: format!("it waits for '{bad}', which does not build and with which it is in a cycle"),
            };
            failed.push(Failed { failure, path: Some(output.path), inputs: unit });
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
    tree.insert(path.clone(), known)
}
