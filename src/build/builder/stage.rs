//! From outputs to the next generation: only what differs is written, and what was written is read back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use super::TreeBuilder;
use super::delta::Delta;
use super::make::Output;
use crate::build::contents::ContentReader;
use crate::build::frames::{Bytes, Layer};
use crate::build::source::{Reader, Source, open_folder};
use crate::build::spill::{Body, Spill};
use crate::build::{Progress, config, parallel, plan};
use crate::bundle::{
    AssetPut, AssetRecord, BuildInput, Bundle, Changes, ContentPut, FrameRef, Laid, PLACES_TAG, Prepared, check_stored,
    encode_places,
};
use crate::error::{Error, Result};
use crate::event::{ChangedAsset, ReloadTimings};
use crate::ids::{AssetPath, ContentHash};
use crate::limits;
use crate::storage::ReadAt;

/// So few contents are checked by one thread, with the decoder of the last time.
const CHECKED_ALONE_MAX: usize = 8;
/// From this many new contents on, other threads work while the tables are made.
const BESIDE_MIN: usize = 1024;

type Staged = (Option<Bundle>, Vec<ChangedAsset>);

impl TreeBuilder {
    /// Stages what differs from the bundle of `outputs`, which are in path order. `moved` are the files that appeared or
    /// are gone.
    pub(super) fn stage(
        &mut self,
        outputs: Vec<Output>,
        (sources, spill): (Vec<Source<'_>>, &Spill),
        moved: &BTreeSet<AssetPath>,
        delta: Delta,
        timings: &mut ReloadTimings,
        progress: &dyn Progress,
    ) -> Result<Staged> {
        let began = self.clock.now();
        let Delta { gone, put_folders, remove_folders, base, .. } = delta;
        let mut changed = Vec::with_capacity(outputs.len());
        // In the memory that the outputs have.
        let mut puts = outputs
            .into_iter()
            .filter_map(|output| self.put_of(output, base.as_ref(), &mut changed).transpose())
            .collect::<Result<Vec<Output>>>()?;
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
        if !gone.is_empty() {
            changed.sort_by(|a, b| a.path.cmp(&b.path));
        }
        if self.options.tolerant && self.writer.next_generation() > self.writer.reserved() {
            // Readers may see the number before it is committed: after a crash it must not name anything else.
            let through = self.writer.next_generation().0 + limits::GENERATIONS_RESERVED;
            self.writer.reserve(crate::ids::Generation(through))?;
        }
        let before = self.writer.bundle().map(Bundle::generation);
        let new = self.new_contents(&mut puts)?;
        let mut put: Vec<AssetPut> =
            puts.into_iter().zip(&new.is_first).map(|(output, first)| put(output, *first)).collect();
        put.append(&mut kept);
        let changes = Changes { put, remove, put_folders, remove_folders };
        self.put_places(&changed, before.is_none())?;
        let many = new.contents.len() >= BESIDE_MIN;
        let preparation = self.writer.preparation();
        let (prepared, laid) = if many {
            // Most of the tables does not depend on where contents lie, and while a dictionary is trained there is
            // nothing else for a second thread to do: it begins once frames are planned, or will never be.
            std::thread::scope(|scope| {
                let (planned, wait) = mpsc::sync_channel::<()>(1);
                let preparing = scope.spawn(move || {
                    let _ = wait.recv();
                    preparation.prepare(changes)
                });
                let laid = self.lay_out(&new.contents, (&sources, spill), move || drop(planned), progress);
                (preparing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), laid)
            })
        } else {
            let laid = self.lay_out(&new.contents, (&sources, spill), || (), progress);
            (preparation.prepare(changes), laid)
        };
        let (laid, prepared) = (laid?, prepared?);
        if let Some(keeper) = &self.keeper {
            let index: HashMap<ContentHash, &Content> =
                new.contents.iter().map(|content| (content.hash, content)).collect();
            keeper.keep(&changed, &|hash| index.get(hash)?.in_memory(&sources));
        }
        let encoded = self.clock.now();
        let fresh: Vec<(ContentHash, u64)> = new.contents.iter().map(|content| (content.hash, content.len)).collect();
        let beside = !self.options.tolerant && many && self.writer.flush_appends().is_ok();
        let bundle = if beside {
            self.stage_beside(prepared, laid, new, sources, progress)?
        } else {
            self.writer.stage_prepared(prepared, laid)?
        };
        if Some(bundle.generation()) == before {
            return Ok((None, Vec::new()));
        }
        self.tree.deferred.clear();
        let written = self.clock.now();
        if !beside {
            self.validate(&bundle, &fresh, progress)?;
        }
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        timings.encode_us = us(began, encoded);
        timings.tables_us = us(encoded, written);
        timings.check_us = us(written, self.clock.now());
        Ok((Some(bundle), changed))
    }

    /// What the tree says of places goes with the `flyloft.toml` that says it: one that was gone back from, or does not
    /// build, says nothing new.
    fn put_places(&mut self, changed: &[ChangedAsset], first: bool) -> Result<()> {
        let is_it = |changed: &ChangedAsset| changed.path.as_str() == config::FILE_NAME;
        if !first && !changed.iter().any(is_it) {
            return Ok(());
        }
        let places = self.tree.config.places().iter().map(|(path, place)| (path.id(), place.clone()));
        self.writer.put_section(PLACES_TAG, encode_places(&places.collect::<Vec<_>>()))
    }

    /// Makes the tables of a large generation while other threads free what was read, flush the frames and check them:
    /// making tables is the work of one thread.
    fn stage_beside(
        &mut self,
        prepared: Prepared,
        laid: Vec<Laid>,
        new: New,
        sources: Vec<Source<'_>>,
        progress: &dyn Progress,
    ) -> Result<Bundle> {
        let frames = self.writer.put_frames();
        let (storage, committer) = (self.writer.storage(), self.writer.committer());
        let (threads, writer) = (self.threads, &mut self.writer);
        let (staged, checked) = std::thread::scope(|scope| {
            scope.spawn(move || drop((new, sources)));
            scope.spawn(move || committer.flush_ahead());
            let checking = scope.spawn(|| check_frames(&*storage, &frames, threads, progress));
            let staged = writer.stage_prepared(prepared, laid);
            (staged, checking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let staged = staged?;
        checked.inspect_err(|error| self.broken = Some(error.clone()))?;
        Ok(staged)
    }

    /// The output if it must be put; what a reader sees of it goes to `changed`.
    fn put_of(
        &mut self,
        output: Output,
        base: Option<&HashMap<AssetPath, AssetRecord>>,
        changed: &mut Vec<ChangedAsset>,
    ) -> Result<Option<Output>> {
        let old = self.old(base, &output.path)?;
        let differs = old.as_ref().is_none_or(|old| old.content != output.hash || old.executable != output.executable);
        if differs {
            changed.push(ChangedAsset {
                path: output.path.clone(),
                id: output.id,
                old: old.as_ref().map(|old| old.content),
                new: Some(output.hash),
            });
        }
        let Some(old) = old else { return Ok(Some(output)) };
        if differs || self.dependencies_differ(&old, &output)? {
            return Ok(Some(output));
        }
        if !self.record_differs(&old, &output)? {
            return Ok(None);
        }
        if self.options.tolerant {
            // Nothing that a reader sees: it is written along with the next thing that is.
            self.tree.deferred.insert(output.path);
            return Ok(None);
        }
        Ok(Some(output))
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
        Ok(bundle.build_record(old.id)?.as_ref() != output.record.as_deref())
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
                let is_read = |input: &BuildInput| matches!(input, BuildInput::Read { path, .. } if path == target);
                let stays = self.tree.has(target)
                    || self.tree.record(source).is_some_and(|record| record.inputs.iter().any(is_read))
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

    /// The contents that the bundle has not, in layout order. Takes their bytes out of `outputs`, which are in path
    /// order.
    fn new_contents(&self, outputs: &mut [Output]) -> Result<New> {
        let uses: Vec<(&AssetPath, &[AssetPath])> =
            outputs.iter().map(|output| (&output.path, output.dependencies.as_slice())).collect();
        let mut order = plan::order(self.threads, &uses);
        if let Some(places) = &self.options.order {
            // Stable: those without a place stay in their order, behind the others.
            let place = |at: &u32| places.get(&uses[*at as usize].0.id()).copied().unwrap_or(u32::MAX);
            order.sort_by_cached_key(place);
        }
        let mut seen: HashSet<ContentHash> = HashSet::with_capacity(outputs.len());
        let mut new = New { contents: Vec::with_capacity(outputs.len()), is_first: vec![false; outputs.len()] };
        for at in order {
            let output = &mut outputs[at as usize];
            let known = match self.bundle() {
                Some(bundle) => bundle.content(&output.hash)?.is_some(),
                None => false,
            };
            if !known && seen.insert(output.hash) {
                new.is_first[at as usize] = true;
                new.contents.push(Content {
                    path: output.path.clone(),
                    hash: output.hash,
                    len: output.len,
                    body: std::mem::replace(&mut output.body, Body::Stored),
                    source: output.source,
                });
            }
        }
        Ok(new)
    }

    /// Writes new contents, and answers where each lies. Calls `planned` when it is known which frames there will be.
    fn lay_out(
        &mut self,
        new: &[Content],
        (sources, spill): (&[Source<'_>], &Spill),
        planned: impl FnOnce(),
        progress: &dyn Progress,
    ) -> Result<Vec<Laid>> {
        let train = self.writer.bundle().is_none();
        if !train {
            for content in new {
                self.learn_dictionary(&content.path)?;
            }
        }
        let contents: Vec<(AssetPath, u64)> = new.iter().map(|content| (content.path.clone(), content.len)).collect();
        let below = open_folder(&*self.fs, &self.root, new.len());
        let reader = Reader {
            fs: &*self.fs,
            clock: &*self.clock,
            root: &self.root,
            below: below.as_deref(),
            wary: false,
            keep: AtomicU64::new(0),
        };
        let unsure = contents.iter().map(|_| AtomicBool::new(false)).collect();
        let bytes = Fresh { contents: new, sources, spill, reader: &reader, unsure };
        let mut layer = Layer {
            writer: &mut self.writer,
            encoders: &self.encoders,
            dictionaries: &mut self.dictionaries,
            threads: self.threads,
            train,
            progress,
        };
        let pieces = layer.lay_out(&contents, &bytes, planned)?;
        bytes.check(self.threads)?;
        Ok(new.iter().map(|content| content.hash).zip(pieces).collect())
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

/// The put of an output, whose content is laid out for it if it is the `first` that has it.
fn put(output: Output, first: bool) -> AssetPut {
    let Output { path, kind, executable, hash, len, dependencies, record, .. } = output;
    let content = if first { ContentPut::New { hash, len, pieces: Vec::new() } } else { ContentPut::Existing(hash) };
    AssetPut { path, kind, executable, content, dependencies, build: record.map(|record| *record) }
}

/// The new contents of a build.
struct New {
    /// In layout order.
    contents: Vec<Content>,
    /// For each output whether its content is among them because of it.
    is_first: Vec<bool>,
}

/// A content that the bundle has not.
struct Content {
    /// The asset that it is laid out for: the first that has it.
    path: AssetPath,
    hash: ContentHash,
    len: u64,
    body: Body,
    /// Which source it is made of.
    source: usize,
}

impl Content {
    /// Its bytes, if they are in memory.
    fn in_memory<'s>(&'s self, sources: &'s [Source<'_>]) -> Option<&'s [u8]> {
        match &self.body {
            Body::Memory(bytes) => Some(bytes),
            Body::Source => sources.get(self.source)?.bytes.as_deref(),
            Body::Spilled(_) | Body::Stored => None,
        }
    }
}

/// The bytes of new contents.
struct Fresh<'a> {
    contents: &'a [Content],
    sources: &'a [Source<'a>],
    spill: &'a Spill,
    reader: &'a Reader<'a>,
    /// Which were read again without it being certain that they are what they were.
    unsure: Vec<AtomicBool>,
}

impl Fresh<'_> {
    fn source(&self, number: usize) -> Result<&Source<'_>> {
        let content = &self.contents[number];
        self.sources.get(content.source).ok_or_else(|| changed(&content.path, "its source was not read"))
    }

    /// What was not kept was read a second time: it must have been what it was the first.
    fn check(&self, threads: usize) -> Result<()> {
        let unsure = |number: &usize| self.unsure[*number].load(Ordering::Relaxed);
        let again: Vec<usize> = (0..self.contents.len()).filter(unsure).collect();
        let checked = parallel::map(
            threads,
            &again,
            || (),
            |(), _, &number| {
                let source = self.source(number)?;
                match self.reader.is_same(source) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(changed(&source.file.path, "it changed while it was packed; pack again")),
                    Err(failure) => Err(changed(&source.file.path, &failure.cause)),
                }
            },
        );
        checked.into_iter().collect()
    }
}

fn changed(path: &AssetPath, cause: &str) -> Error {
    Error::build(path.as_str(), "read", cause)
}

impl Bytes for Fresh<'_> {
    fn borrow(&self, number: usize) -> Option<&[u8]> {
        self.contents[number].in_memory(self.sources)
    }

    fn read(&self, number: usize, range: Range<u64>, into: &mut Vec<u8>) -> Result<()> {
        if let Body::Spilled(offset) = self.contents[number].body {
            let start = into.len();
            into.resize(start + (range.end - range.start) as usize, 0);
            return self.spill.read(offset + range.start, &mut into[start..]);
        }
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
