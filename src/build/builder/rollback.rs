//! Going back to an earlier generation: a new one with its tree. The files of the source tree stay as they are, and what
//! they were then does not undo it: each counts again when it is another than it was.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use super::delta::Delta;
use super::{Built, TreeBuilder};
use crate::build::NoProgress;
use crate::bundle::{AssetRecord, Bundle};
use crate::error::Result;
use crate::event::{ChangedAsset, ReloadTimings};
use crate::ids::{AssetPath, ContentHash, Generation};
use crate::limits;

/// What was gone back from: source files, by path, with what they were then, and folders.
#[derive(Clone, Debug, Default)]
pub(in crate::build) struct Held {
    files: BTreeMap<AssetPath, Option<ContentHash>>,
    folders: BTreeSet<AssetPath>,
}

impl Held {
    /// Whether a file is what it was when it was gone back from; `None` is no file. If it is not, it counts again.
    pub(super) fn holds(&mut self, path: &AssetPath, now: Option<ContentHash>) -> bool {
        match self.files.get(path) {
            Some(then) if *then == now => true,
            Some(_) => {
                self.files.remove(path);
                false
            }
            None => false,
        }
    }

    /// As [`Held::holds`], and nothing changes.
    pub(super) fn is_held(&self, path: &AssetPath, now: Option<ContentHash>) -> bool {
        self.files.get(path).is_some_and(|then| *then == now)
    }

    /// These count again: they were built from what changed.
    pub(super) fn release<'p>(&mut self, paths: impl Iterator<Item = &'p AssetPath>) {
        for path in paths {
            self.files.remove(path);
        }
    }

    /// Takes out of `delta` what is as it was.
    fn keep(&mut self, delta: &mut Delta) {
        delta.gone.retain(|path| {
            // What is made beside a source comes and goes with it.
            let source = path.source_and_label().map(|(source, _)| source);
            !source.is_some_and(|source| self.is_held(&source, None)) && !self.holds(path, None)
        });
        if delta.base.is_some() {
            delta.put_folders.retain(|path| !self.folders.contains(path));
            delta.remove_folders.retain(|path| !self.folders.contains(path));
        } else {
            // They came or went since.
            for path in delta.put_folders.iter().chain(&delta.remove_folders) {
                self.folders.remove(path);
            }
        }
    }
}

impl TreeBuilder {
    /// Takes out of `delta` what was gone back from and is as it was then.
    pub(super) fn keep_held(&mut self, delta: &mut Delta) {
        let mut held = std::mem::take(&mut self.tree.held);
        if held.files.is_empty() && held.folders.is_empty() {
            return;
        }
        if delta.base.is_some() {
            // A file that is not served is not among those that are gone; when it comes back it counts.
            let candidates: BTreeSet<&AssetPath> =
                delta.candidates.iter().map(|candidate| &candidate.file.path).collect();
            let failing: BTreeSet<&str> = delta.failures.iter().map(|failure| failure.path.as_str()).collect();
            let stands = |path: &AssetPath| {
                self.tree.files.contains_key(path) || candidates.contains(path) || failing.contains(path.as_str())
            };
            held.files.retain(|path, then| then.is_none() || stands(path));
        }
        held.keep(delta);
        self.tree.held = held;
    }

    /// Stages a generation with the tree of `to`, an earlier generation of the same bundle. `published` is what readers
    /// see now: what differs from it is what changed.
    ///
    /// # Errors
    /// [`crate::Error::NotRetained`] when the bundle was compacted since; those of reading the tables and of writing.
    pub fn rollback(&mut self, published: &Bundle, to: &Bundle) -> Result<Built> {
        self.check_sound()?;
        let started = self.clock.now();
        if !self.tree.scanned {
            // What it goes back from must be known, so that it can stay as it is. Nobody sees what comes of this.
            self.scan(&NoProgress)?;
        }
        let mut differs = differences(published, to)?;
        if let Some(newest) = self.bundle().filter(|newest| newest.generation() != published.generation()) {
            let known: BTreeSet<AssetPath> = differs.iter().map(|change| change.path.clone()).collect();
            differs.extend(differences(newest, to)?.into_iter().filter(|change| !known.contains(&change.path)));
            differs.sort_by(|a, b| a.path.cmp(&b.path));
        }
        let folders = self.folders_that_differ(to)?;
        let found_at = self.clock.now();
        if self.options.tolerant && self.writer.next_generation() > self.writer.reserved() {
            let through = self.writer.next_generation().0 + limits::GENERATIONS_RESERVED;
            self.writer.reserve(Generation(through))?;
        }
        let bundle = self.writer.stage_again(to)?;
        for path in sources_of(&differs, [published, &bundle])? {
            let record = bundle.build_record(path.id())?;
            self.tree.set_record(&path, record);
            self.tree.deferred.remove(&path);
            let now = self.tree.files.get(&path).map(|known| known.source);
            self.tree.held.files.insert(path, now);
        }
        self.tree.held.folders.extend(folders);
        let is_new = bundle.generation() != published.generation();
        Ok(Built {
            bundle: is_new.then_some(bundle),
            changed: differs,
            failures: self.failures(),
            timings: ReloadTimings {
                build_us: (found_at - started).as_micros() as u64,
                stage_us: (self.clock.now() - found_at).as_micros() as u64,
                ..ReloadTimings::default()
            },
            ..Built::default()
        })
    }

    fn folders_that_differ(&self, to: &Bundle) -> Result<Vec<AssetPath>> {
        let Some(newest) = self.bundle() else { return Ok(Vec::new()) };
        let one: BTreeSet<AssetPath> = newest.folders().collect::<Result<_>>()?;
        let other: BTreeSet<AssetPath> = to.folders().collect::<Result<_>>()?;
        Ok(one.symmetric_difference(&other).cloned().collect())
    }

    /// What was gone back from and counts as it is.
    pub(in crate::build) fn held(&self) -> &Held {
        &self.tree.held
    }

    /// Goes on with what another builder of the same tree held.
    pub(in crate::build) fn hold(&mut self, held: Held) {
        self.tree.held = held;
    }
}

/// The source files that these are made of: their own, or that which they are made beside.
fn sources_of(differs: &[ChangedAsset], of: [&Bundle; 2]) -> Result<BTreeSet<AssetPath>> {
    let mut sources = BTreeSet::new();
    for change in differs {
        let mut beside = None;
        if let Some((source, label)) = change.path.source_and_label() {
            for bundle in of {
                let record = bundle.build_record(source.id())?;
                if record.is_some_and(|record| record.labels.iter().any(|made| made == label)) {
                    beside = Some(source.clone());
                }
            }
        }
        sources.insert(beside.unwrap_or_else(|| change.path.clone()));
    }
    Ok(sources)
}

/// The assets that are not the same in both, in path order.
fn differences(old: &Bundle, new: &Bundle) -> Result<Vec<ChangedAsset>> {
    let mut differ = Vec::new();
    let (mut old, mut new) = (old.assets().peekable(), new.assets().peekable());
    loop {
        let (before, after) = pair(&mut old, &mut new)?;
        let Some(either) = before.as_ref().or(after.as_ref()) else { return Ok(differ) };
        let (path, id) = (either.path.clone(), either.id);
        let seen = |record: &AssetRecord| (record.content, record.executable);
        if before.as_ref().map(seen) != after.as_ref().map(seen) {
            let content = |record: Option<AssetRecord>| record.map(|record| record.content);
            differ.push(ChangedAsset { path, id, old: content(before), new: content(after) });
        }
    }
}

/// The next path of two lists in path order, with what either has of it.
fn pair(
    old: &mut Peekable<impl Iterator<Item = Result<AssetRecord>>>,
    new: &mut Peekable<impl Iterator<Item = Result<AssetRecord>>>,
) -> Result<(Option<AssetRecord>, Option<AssetRecord>)> {
    let order = match (old.peek(), new.peek()) {
        (Some(Ok(old)), Some(Ok(new))) => old.path.cmp(&new.path),
        // An error is taken at once, wherever it is.
        (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
        _ => Ordering::Greater,
    };
    let before = if order.is_le() { old.next().transpose()? } else { None };
    let after = if order.is_ge() { new.next().transpose()? } else { None };
    Ok((before, after))
}
