//! From outputs to the next generation: only what differs is written, and what was written is read back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::TreeBuilder;
use super::delta::Delta;
use super::make::Output;
use crate::build::arena::Arena;
use crate::build::contents::ContentReader;
use crate::build::frames::{Bytes, Layer};
use crate::build::source::{Reader, Source};
use crate::build::{Progress, parallel, plan};
use crate::bundle::{AssetPut, AssetRecord, Bundle, Changes, ContentPut, FrameRef, check_stored};
use crate::error::{Error, Result};
use crate::event::ChangedAsset;
use crate::ids::{AssetPath, ContentHash};
use crate::limits;
use crate::storage::ReadAt;

/// So few contents are checked by one thread, with the decoder of the last time.
const CHECKED_ALONE_MAX: usize = 8;
/// From this many new contents on, other threads work while the tables are made.
const BESIDE_MIN: usize = 1024;

type Staged = (Option<Bundle>, Vec<ChangedAsset>);

impl TreeBuilder {
    /// Stages what differs from the bundle. `moved` are the files that appeared or are gone.
    pub(super) fn stage(
        &mut self,
        outputs: Vec<Output>,
        sources: &mut HashMap<AssetPath, Source>,
        moved: &BTreeSet<AssetPath>,
        delta: Delta,
        progress: &dyn Progress,
    ) -> Result<Staged> {
        let Delta { gone, put_folders, remove_folders, base, .. } = delta;
        let mut changed = Vec::new();
        let mut puts: Vec<Output> = Vec::with_capacity(outputs.len());
        for output in outputs {
            self.tree.set_record(&output.path, output.record.clone());
            let old = self.old(base.as_ref(), &output.path)?;
            let Some(old) = old else {
                changed.push(ChangedAsset {
                    id: output.path.id(),
                    path: output.path.clone(),
                    old: None,
                    new: Some(output.hash),
                });
                puts.push(output);
                continue;
            };
            let differs = old.content != output.hash || old.executable != output.executable;
            if differs {
                changed.push(ChangedAsset {
                    path: output.path.clone(),
                    id: old.id,
                    old: Some(old.content),
                    new: Some(output.hash),
                });
            }
            if differs || self.dependencies_differ(&old, &output)? {
                puts.push(output);
            } else if self.record_differs(&old, &output)? {
                if self.options.tolerant {
                    // Nothing that a reader sees: it is written along with the next thing that is.
                    self.tree.deferred.insert(output.path);
                } else {
                    puts.push(output);
                }
            }
        }
        let mut remove = Vec::new();
        for path in &gone {
            if let Some(old) = self.old(base.as_ref(), path)? {
                remove.push(old.id);
                changed.push(ChangedAsset { path: path.clone(), id: old.id, old: Some(old.content), new: None });
            }
        }
        let mut kept = self.weak_puts(moved, &puts)?;
        if puts.is_empty()
            && kept.is_empty()
            && remove.is_empty()
            && put_folders.is_empty()
            && remove_folders.is_empty()
        {
            return Ok((None, Vec::new()));
        }
        kept.append(&mut self.deferred_puts(&puts, &kept)?);
        changed.sort_by(|a, b| a.path.cmp(&b.path));
        if self.options.tolerant && self.writer.next_generation() > self.writer.reserved() {
            // Readers may see the number before it is committed: after a crash it must not name anything else.
            let through = self.writer.next_generation().0 + limits::GENERATIONS_RESERVED;
            self.writer.reserve(crate::ids::Generation(through))?;
        }
        let before = self.writer.bundle().map(Bundle::generation);
        let (mut put, fresh) = self.lay_out(puts, sources, progress)?;
        put.append(&mut kept);
        let read = std::mem::take(sources);
        let changes = Changes { put, remove, put_folders, remove_folders };
        let beside = !self.options.tolerant && fresh.len() >= BESIDE_MIN && self.writer.flush_appends().is_ok();
        let bundle = if beside {
            self.stage_beside(changes, read, progress)?
        } else {
            drop(read);
            self.writer.stage(changes)?
        };
        if Some(bundle.generation()) == before {
            return Ok((None, Vec::new()));
        }
        self.tree.deferred.clear();
        if !beside {
            self.validate(&bundle, &fresh, progress)?;
        }
        Ok((Some(bundle), changed))
    }

    /// Makes the tables of a large generation while other threads free what was read, flush the frames and check them:
    /// making tables is the work of one thread.
    fn stage_beside(
        &mut self,
        changes: Changes,
        read: HashMap<AssetPath, Source>,
        progress: &dyn Progress,
    ) -> Result<Bundle> {
        let frames = self.writer.put_frames();
        let (storage, committer) = (self.writer.storage(), self.writer.committer());
        let (threads, writer) = (self.threads, &mut self.writer);
        let (staged, checked) = std::thread::scope(|scope| {
            scope.spawn(move || drop(read));
            scope.spawn(move || committer.flush_ahead());
            let checking = scope.spawn(|| check_frames(&*storage, &frames, threads, progress));
            let staged = writer.stage(changes);
            (staged, checking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let staged = staged?;
        checked.inspect_err(|error| self.broken = Some(error.clone()))?;
        Ok(staged)
    }

    fn old(&self, base: Option<&HashMap<AssetPath, AssetRecord>>, path: &AssetPath) -> Result<Option<AssetRecord>> {
        match (base, self.bundle()) {
            (Some(base), _) => Ok(base.get(path).cloned()),
            (None, Some(bundle)) => bundle.find(path),
            (None, None) => Ok(None),
        }
    }

    fn dependencies_differ(&self, old: &AssetRecord, output: &Output) -> Result<bool> {
        let Some(bundle) = self.bundle() else { return Ok(true) };
        let mut before: Vec<AssetPath> = bundle.dependencies(old.id)?.into_iter().map(|is| is.path).collect();
        before.sort_unstable();
        Ok(before != output.dependencies)
    }

    fn record_differs(&self, old: &AssetRecord, output: &Output) -> Result<bool> {
        let Some(bundle) = self.bundle() else { return Ok(true) };
        Ok(bundle.build_record(old.id)? != output.record)
    }

    /// Puts of assets that may refer to what appeared or is gone, with their dependencies as they are now.
    fn weak_puts(&self, moved: &BTreeSet<AssetPath>, puts: &[Output]) -> Result<Vec<AssetPut>> {
        let mut affected: BTreeMap<&AssetPath, Vec<&AssetPath>> = BTreeMap::new();
        for target in moved {
            for source in self.tree.weak_sources(target) {
                affected.entry(source).or_default().push(target);
            }
        }
        if affected.is_empty() {
            return Ok(Vec::new());
        }
        let put: HashSet<&AssetPath> = puts.iter().map(|output| &output.path).collect();
        let mut weak = Vec::new();
        for (source, targets) in affected.into_iter().filter(|(source, _)| !put.contains(source)) {
            let Some(mut again) = self.put_again(source)? else { continue };
            let before = again.dependencies.clone();
            for target in targets {
                let read =
                    self.tree.record(source).is_some_and(|record| record.inputs.iter().any(|(is, _)| is == target));
                let stays = self.tree.files.contains_key(target)
                    || read
                    || self.tree.config.dependencies(source).contains(target);
                match again.dependencies.binary_search(target) {
                    Ok(at) if !stays => drop(again.dependencies.remove(at)),
                    Err(at) if stays => again.dependencies.insert(at, target.clone()),
                    _ => {}
                }
            }
            if again.dependencies != before {
                weak.push(again);
            }
        }
        Ok(weak)
    }

    /// Puts of assets whose build records are newer than the bundle's.
    fn deferred_puts(&self, puts: &[Output], kept: &[AssetPut]) -> Result<Vec<AssetPut>> {
        let mut deferred = Vec::new();
        for path in &self.tree.deferred {
            let put = puts.iter().any(|output| output.path == *path) || kept.iter().any(|put| put.path == *path);
            if !put && let Some(again) = self.put_again(path)? {
                deferred.push(again);
            }
        }
        Ok(deferred)
    }

    /// The put that changes nothing of an asset but its build record.
    fn put_again(&self, path: &AssetPath) -> Result<Option<AssetPut>> {
        let Some(bundle) = self.bundle() else { return Ok(None) };
        let Some(old) = bundle.find(path)? else { return Ok(None) };
        let mut dependencies: Vec<AssetPath> = bundle.dependencies(old.id)?.into_iter().map(|is| is.path).collect();
        dependencies.sort_unstable();
        let build = match self.tree.record(path) {
            Some(record) => Some(record.clone()),
            None => bundle.build_record(old.id)?,
        };
        Ok(Some(AssetPut {
            path: old.path,
            kind: old.kind,
            executable: old.executable,
            content: ContentPut::Existing(old.content),
            dependencies,
            build,
        }))
    }

    /// Writes the contents that the bundle has not, and answers the puts, and each new content with its length.
    #[allow(clippy::type_complexity)]
    fn lay_out(
        &mut self,
        mut outputs: Vec<Output>,
        sources: &mut HashMap<AssetPath, Source>,
        progress: &dyn Progress,
    ) -> Result<(Vec<AssetPut>, Vec<(ContentHash, u64)>)> {
        outputs.sort_by(|a, b| a.path.cmp(&b.path));
        let number: HashMap<&AssetPath, u32> =
            outputs.iter().enumerate().map(|(number, output)| (&output.path, number as u32)).collect();
        let edges: Vec<Vec<u32>> = parallel::map(
            self.threads,
            &outputs,
            || (),
            |(), _, output| output.dependencies.iter().filter_map(|path| number.get(path).copied()).collect(),
        );
        let paths: Vec<&AssetPath> = outputs.iter().map(|output| &output.path).collect();
        let order = plan::order(&paths, &edges);
        drop((number, edges, paths));
        let mut seen: HashSet<ContentHash> = HashSet::with_capacity(outputs.len());
        let mut fresh = Vec::with_capacity(outputs.len());
        for at in order {
            let output = &outputs[at as usize];
            let known = match self.bundle() {
                Some(bundle) => bundle.content(&output.hash)?.is_some(),
                None => false,
            };
            if !known && seen.insert(output.hash) {
                fresh.push(at as usize);
            }
        }
        if self.bundle().is_some() {
            for &at in &fresh {
                self.learn_dictionary(&outputs[at].path)?;
            }
        }
        let contents: Vec<(AssetPath, u64)> =
            fresh.iter().map(|&at| (outputs[at].path.clone(), outputs[at].len)).collect();
        let reader =
            Reader { fs: &*self.fs, clock: &*self.clock, root: &self.root, wary: false, keep: AtomicU64::new(0) };
        let read = fresh.iter().map(|&at| sources.get(&outputs[at].path)).collect();
        let unsure = fresh.iter().map(|_| AtomicBool::new(false)).collect();
        let bytes = Fresh { outputs: &outputs, fresh: &fresh, sources: read, reader: &reader, unsure };
        let train = self.writer.bundle().is_none();
        let mut layer = Layer {
            writer: &mut self.writer,
            encoders: &self.encoders,
            dictionaries: &mut self.dictionaries,
            threads: self.threads,
            train,
            progress,
        };
        let pieces = layer.lay_out(&contents, &bytes)?;
        bytes.check(self.threads)?;
        let mut placed: Vec<Option<Vec<(u32, u32, u32)>>> = vec![None; outputs.len()];
        for (&at, pieces) in fresh.iter().zip(pieces) {
            placed[at] = Some(pieces);
        }
        let new = fresh.iter().map(|&at| (outputs[at].hash, outputs[at].len)).collect();
        let puts = outputs
            .drain(..)
            .enumerate()
            .map(|(at, output)| AssetPut {
                kind: output.path.kind(),
                path: output.path,
                executable: output.executable,
                content: match placed[at].take() {
                    Some(pieces) => ContentPut::New { hash: output.hash, len: output.len, pieces },
                    None => ContentPut::Existing(output.hash),
                },
                dependencies: output.dependencies,
                build: output.record,
            })
            .collect();
        Ok((puts, new))
    }

    /// Finds the dictionary that small files like this one have in the bundle: that of its last version.
    fn learn_dictionary(&mut self, path: &AssetPath) -> Result<()> {
        let extension = path.extension().unwrap_or("").to_ascii_lowercase();
        if self.dictionaries.by_extension.contains_key(&extension) {
            return Ok(());
        }
        let Some(bundle) = self.bundle() else { return Ok(()) };
        if bundle.info().dictionaries == 0 {
            return Ok(());
        }
        let Some(old) = bundle.find(path)? else { return Ok(()) };
        let Some(placement) = bundle.placement(&old.content, 0..u64::MAX)? else { return Ok(()) };
        let used = placement.pieces.iter().map(|piece| piece.frame.dictionary).find(|number| *number != 0);
        let Some(number) = used else { return Ok(()) };
        let bytes = bundle.dictionary(number)?.to_vec();
        self.dictionaries.bytes.insert(number, bytes);
        self.dictionaries.by_extension.insert(extension, number);
        Ok(())
    }

    /// Reads back what was written: each new content decodes to its hash.
    fn validate(&mut self, bundle: &Bundle, fresh: &[(ContentHash, u64)], progress: &dyn Progress) -> Result<()> {
        let total = fresh.len() as u64;
        if !self.options.tolerant {
            return self.validate_stored(bundle, fresh, progress);
        }
        if fresh.len() <= CHECKED_ALONE_MAX {
            let checker = self.checker.take().map(|checker| checker.moved_to(bundle));
            let mut checker = checker.unwrap_or_else(|| ContentReader::new(bundle));
            let checked = fresh.iter().try_for_each(|(hash, len)| checker.checked(hash, *len, &mut |_| Ok(())));
            self.checker = Some(checker);
            return checked.inspect_err(|error| self.broken = Some(error.clone()));
        }
        let checked = parallel::map(
            self.threads,
            fresh,
            || ContentReader::new(bundle),
            |reader, number, (hash, len)| {
                progress.step(number as u64 + 1, total, "check");
                reader.checked(hash, *len, &mut |_| Ok(()))
            },
        );
        checked.into_iter().collect::<Result<()>>().inspect_err(|error| self.broken = Some(error.clone()))
    }
}

impl TreeBuilder {
    /// For packing, which publishes nothing and which `verify` can follow: each frame that was written is read back
    /// and its stored bytes are checked, but not decoded.
    fn validate_stored(
        &mut self,
        bundle: &Bundle,
        fresh: &[(ContentHash, u64)],
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut frames: BTreeMap<u32, FrameRef> = BTreeMap::new();
        if fresh.len() as u64 * 4 > bundle.info().contents {
            for frame in bundle.frames() {
                let frame = frame?;
                frames.insert(frame.number, frame);
            }
        } else {
            for (hash, _) in fresh {
                let placement = bundle.placement(hash, 0..u64::MAX)?;
                let pieces = placement.into_iter().flat_map(|placement| placement.pieces);
                frames.extend(pieces.map(|piece| (piece.frame.number, piece.frame)));
            }
        }
        let frames: Vec<FrameRef> = frames.into_values().collect();
        let checked = check_frames(&**bundle.storage(), &frames, self.threads, progress);
        checked.inspect_err(|error| self.broken = Some(error.clone()))
    }
}

/// Reads frames back and checks their stored bytes.
fn check_frames(storage: &dyn ReadAt, frames: &[FrameRef], threads: usize, progress: &dyn Progress) -> Result<()> {
    let (file, total) = (storage.name(), frames.len() as u64);
    let checked = parallel::map(threads, frames, Vec::new, |stored, number, frame| {
        progress.step(number as u64 + 1, total, "check");
        stored.resize(frame.stored_len as usize, 0);
        let what = || format!("read {} bytes at {}", frame.stored_len, frame.offset);
        storage.read_exact_at(frame.offset, stored).map_err(|error| Error::io(what(), &file, error))?;
        check_stored(frame, stored, &file)
    });
    checked.into_iter().collect()
}

/// The new contents of a build.
struct Fresh<'a> {
    outputs: &'a [Output],
    /// Which outputs they are.
    fresh: &'a [usize],
    /// What each was made of.
    sources: Vec<Option<&'a Source>>,
    reader: &'a Reader<'a>,
    /// Which were read again without it being certain that they are what they were.
    unsure: Vec<AtomicBool>,
}

impl Fresh<'_> {
    fn source(&self, number: usize) -> Result<&Source> {
        self.sources[number].ok_or_else(|| changed(&self.outputs[self.fresh[number]].path, "its source was not read"))
    }

    /// What was not kept was read a second time: it must have been what it was the first.
    fn check(&self, threads: usize) -> Result<()> {
        let unsure = |number: &usize| self.unsure[*number].load(Ordering::Relaxed);
        let again: Vec<usize> = (0..self.fresh.len()).filter(unsure).collect();
        let checked = parallel::map(threads, &again, Arena::default, |arena, _, &number| {
            let source = self.source(number)?;
            match self.reader.is_same(source, arena) {
                Ok(true) => Ok(()),
                Ok(false) => Err(changed(&source.file.path, "it changed while it was packed; pack again")),
                Err(failure) => Err(changed(&source.file.path, &failure.cause)),
            }
        });
        checked.into_iter().collect()
    }
}

fn changed(path: &AssetPath, cause: &str) -> Error {
    Error::Build { path: path.as_str().to_owned(), line: None, transform: "read".into(), cause: cause.into() }
}

impl Bytes for Fresh<'_> {
    fn borrow(&self, number: usize) -> Option<&[u8]> {
        let output = &self.outputs[self.fresh[number]];
        match &output.bytes {
            Some(bytes) => Some(bytes),
            None => self.sources[number]?.bytes.as_deref(),
        }
    }

    fn read(&self, number: usize, range: Range<u64>, into: &mut Vec<u8>) -> Result<()> {
        let source = self.source(number)?;
        let read = if range == (0..source.file.stat.len) {
            self.reader.whole(source, into)
        } else {
            self.reader.range(&source.file, range, into).map(|()| false)
        };
        let read = read.map(|same| self.unsure[number].fetch_or(!same, Ordering::Relaxed)).map(drop);
        read.map_err(|error| changed(&source.file.path, &error.to_string()))
    }
}
