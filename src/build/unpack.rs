//! Writing a bundle's assets out as files again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::contents::ContentReader;
use super::source::WHOLE_BYTES_MAX;
use super::{BuildOptions, labels, parallel};
use crate::bundle::{AssetRecord, Bundle};
use crate::error::{Error, Result};
use crate::platform::fs::{FileKind, FileSystem};

/// What unpacking did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackReport {
    /// Files written.
    pub files: u64,
    /// Folders, empty ones too.
    pub folders: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Assets that a transform made beside others (`scene.gltf#mesh/0`): they are no files, and are left out.
    pub labelled: u64,
}

/// Unpacks a whole generation into the folder `into`, which must not exist or be empty: then nothing that stands
/// there, a link least of all, can lead a write out of it.
///
/// A file gets the bytes that readers of the bundle see: where a transform built it, the built ones. What transforms
/// made beside files is left out, so that the folder can be packed again.
///
/// # Errors
/// [`Error::Config`] when the folder is not empty, [`Error::Corrupt`] when a content is damaged, [`Error::Io`].
pub fn unpack(fs: &dyn FileSystem, bundle: &Bundle, into: &Path) -> Result<UnpackReport> {
    match fs.stat(into, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", into, error)),
        Ok(stat) if stat.kind != FileKind::Dir => {
            return Err(Error::config("output", format!("'{}' is not a folder", into.display())));
        }
        Ok(_) => {
            let entries = fs.read_dir(into).map_err(|error| Error::io("list", into, error))?;
            if !entries.is_empty() {
                let why = format!("'{}' is not empty; unpack into a new folder", into.display());
                return Err(Error::config("output", why));
            }
        }
    }
    let make = |path: &Path| fs.create_dir_all(path).map_err(|error| Error::io("create the folder", path, error));
    make(into)?;
    let mut report = UnpackReport::default();
    // In the order of frames a frame is decoded once, mostly; but paths are in that order already, mostly, and each
    // thread writes runs of neighbours.
    let mut assets = bundle.assets().collect::<Result<Vec<_>>>()?;
    let labelled = labels::labelled(bundle, &assets)?;
    assets.retain(|asset| !labelled.contains(&asset.path));
    report.labelled = labelled.len() as u64;
    let beside = labels::folders(&labelled);
    for folder in bundle.folders() {
        let folder = folder?;
        if !beside.contains(&folder) {
            make(&into.join(folder.as_str()))?;
            report.folders += 1;
        }
    }
    let mut made = "";
    for asset in &assets {
        let folder = asset.path.folder();
        if folder != made {
            make(&into.join(folder))?;
            made = folder;
        }
        report.files += 1;
        report.bytes += asset.len;
    }
    let failed = AtomicBool::new(false);
    let threads = BuildOptions::default().threads();
    let written = parallel::map(
        threads,
        &assets,
        || ContentReader::new(bundle),
        |reader, _, asset| {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let written = file(fs, reader, asset, &into.join(asset.path.as_str()));
            failed.fetch_or(written.is_err(), Ordering::Relaxed);
            written
        },
    );
    written.into_iter().collect::<Result<()>>()?;
    Ok(report)
}

fn file(fs: &dyn FileSystem, reader: &mut ContentReader, asset: &AssetRecord, at: &Path) -> Result<()> {
    let failed = |error| Error::io("write", at, error);
    if asset.len <= WHOLE_BYTES_MAX {
        let mut bytes = Vec::with_capacity(asset.len as usize);
        reader.checked(&asset.content, asset.len, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        fs.write_new(at, &bytes, asset.executable).map_err(failed)?;
        return Ok(());
    }
    fs.write_new(at, &[], asset.executable).map_err(failed)?;
    let (storage, _lock) = fs.open_writer(at, false).map_err(failed)?;
    let mut offset = 0;
    let written = reader.checked(&asset.content, asset.len, &mut |part| {
        storage.write_all_at(offset, part).map_err(failed)?;
        offset += part.len() as u64;
        Ok(())
    });
    if written.is_err() {
        // A damaged file must not be left looking whole.
        let _ = fs.remove_file(at);
    }
    written
}
