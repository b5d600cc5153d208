//! Writing a bundle anew from its own contents: as if it were freshly packed, but for its generation number.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::builder::{self, Progress};
use super::contents::ContentReader;
use super::frames::{Bytes, Dictionaries, Encoders, Layer};
use super::parallel::{self, lock};
use super::{labels, pack, plan};
use crate::bundle::{AssetPut, AssetRecord, Bundle, BundleWriter, Changes, ContentPut, PLACES_TAG, Params};
use crate::error::{Error, Result};
use crate::ids::{AssetPath, ContentHash, Generation};
use crate::platform::fs::FileSystem;

/// What compaction did.
#[derive(Clone, Debug)]
pub struct CompactReport {
    /// The generation that the bundle has now.
    pub generation: Generation,
    /// Bytes of the file before.
    pub before_bytes: u64,
    /// Bytes of the file now.
    pub after_bytes: u64,
}

/// Compacts the bundle at `path`. Readers keep the file that they opened; the next one opens the compacted file.
///
/// # Errors
/// [`Error::Locked`] when a writer has the bundle; those of reading it, when it is damaged; those of writing. The
/// bundle is as it was then.
pub fn compact(fs: Arc<dyn FileSystem>, path: &Path, progress: &dyn Progress) -> Result<CompactReport> {
    let (storage, lock) = builder::open_writer(&*fs, path, false)?;
    let old_writer = BundleWriter::open(storage)?;
    let Some(old) = old_writer.bundle().cloned() else {
        return Err(Error::NotABundle {
            file: path.display().to_string(),
            why: "it has no generation yet; pack into it first".into(),
        });
    };
    let temporary = pack::temporary(path)?;
    pack::clear(&*fs, &temporary)?;
    let compacted = rewrite(&*fs, &old, old_writer.next_generation(), path, &temporary, progress);
    if compacted.is_err() {
        // The cause matters more than what is left behind.
        let _ = fs.remove_file(&temporary);
    }
    drop(lock);
    compacted
}

fn rewrite(
    fs: &dyn FileSystem,
    old: &Bundle,
    next: Generation,
    path: &Path,
    temporary: &Path,
    progress: &dyn Progress,
) -> Result<CompactReport> {
    let (storage, lock) = builder::open_writer(fs, temporary, true)?;
    let layout = old.info().layout;
    let mut writer = BundleWriter::create(storage, Params { first: next, ..Params::new(layout) })?;
    let assets: Vec<AssetRecord> = {
        let mut assets = old.assets().collect::<Result<Vec<_>>>()?;
        assets.sort_by(|a, b| a.path.cmp(&b.path));
        assets
    };
    let beside = labels::folders(&labels::labelled(old, &assets)?);
    let mut dependencies = Vec::with_capacity(assets.len());
    for asset in &assets {
        let mut uses: Vec<AssetPath> = old.dependencies(asset.id)?.into_iter().map(|is| is.path).collect();
        uses.sort_unstable();
        dependencies.push(uses);
    }
    let threads = parallel::cores();
    let fresh = fresh(threads, &assets, &dependencies);
    let contents: Vec<(AssetPath, u64)> = fresh.iter().map(|&at| (assets[at].path.clone(), assets[at].len)).collect();
    let bytes = Old { bundle: old, assets: &assets, fresh: &fresh, readers: Mutex::default() };
    let mut dictionaries = Dictionaries::default();
    let mut layer = Layer {
        writer: &mut writer,
        encoders: &Encoders::new(layout),
        dictionaries: &mut dictionaries,
        threads,
        train: true,
        progress,
    };
    let pieces = layer.lay_out(&contents, &bytes, || ())?;
    let mut placed: HashMap<usize, Vec<(u32, u32, u32)>> = fresh.iter().copied().zip(pieces).collect();
    let mut put = Vec::with_capacity(assets.len());
    for (at, (asset, dependencies)) in assets.into_iter().zip(dependencies).enumerate() {
        put.push(AssetPut {
            path: asset.path,
            kind: asset.kind,
            executable: asset.executable,
            content: match placed.remove(&at) {
                Some(pieces) => ContentPut::New { hash: asset.content, len: asset.len, pieces },
                None => ContentPut::Existing(asset.content),
            },
            dependencies,
            build: old.build_record(asset.id)?,
        });
    }
    let mut put_folders = old.folders().collect::<Result<Vec<_>>>()?;
    put_folders.retain(|folder| !beside.contains(folder));
    writer.put_section(PLACES_TAG, old.section(PLACES_TAG)?)?;
    let bundle = writer.stage(Changes { put, remove: Vec::new(), put_folders, remove_folders: Vec::new() })?;
    writer.committer().commit(&bundle)?;
    fs.rename(temporary, path).map_err(|error| Error::io("rename to it", path, error))?;
    pack::sync_folder(fs, path)?;
    drop(lock);
    Ok(CompactReport {
        generation: bundle.generation(),
        before_bytes: old.info().file_bytes,
        after_bytes: bundle.info().file_bytes,
    })
}

/// The assets whose contents are laid out, in layout order: the first of each content.
fn fresh(threads: usize, assets: &[AssetRecord], dependencies: &[Vec<AssetPath>]) -> Vec<usize> {
    let uses: Vec<(&AssetPath, &[AssetPath])> =
        assets.iter().zip(dependencies).map(|(asset, uses)| (&asset.path, uses.as_slice())).collect();
    let mut seen: HashSet<ContentHash> = HashSet::new();
    let order = plan::order(threads, &uses).into_iter().map(|at| at as usize);
    order.filter(|&at| seen.insert(assets[at].content)).collect()
}

/// The contents of the old bundle.
struct Old<'a> {
    bundle: &'a Bundle,
    assets: &'a [AssetRecord],
    fresh: &'a [usize],
    /// One for each thread that reads at the same time.
    readers: Mutex<Vec<ContentReader>>,
}

impl Bytes for Old<'_> {
    fn borrow(&self, _number: usize) -> Option<&[u8]> {
        None
    }

    fn read(&self, number: usize, range: Range<u64>, into: &mut Vec<u8>) -> Result<()> {
        let asset = &self.assets[self.fresh[number]];
        let mut reader = lock(&self.readers).pop().unwrap_or_else(|| ContentReader::new(self.bundle));
        let mut sink = |part: &[u8]| {
            into.extend_from_slice(part);
            Ok(())
        };
        // A small content is read whole, and then it is checked whole.
        let read = if range == (0..asset.len) {
            reader.checked(&asset.content, asset.len, &mut sink)
        } else {
            reader.content(&asset.content, range, &mut sink)
        };
        lock(&self.readers).push(reader);
        read
    }
}
