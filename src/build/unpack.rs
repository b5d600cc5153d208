//! Writing a bundle's assets out as files again.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::ContentReader;
use super::source::WHOLE_BYTES_MAX;
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
}

/// Unpacks a whole generation into the folder `into`, which must not exist or be empty: then nothing that stands
/// there, a link least of all, can lead a write out of it.
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
    for folder in bundle.folders() {
        make(&into.join(folder?.as_str()))?;
        report.folders += 1;
    }
    let mut reader = ContentReader::new(bundle);
    // In the order of frames a frame is decoded once, mostly; but paths are in that order already, mostly.
    let mut made: BTreeMap<String, ()> = BTreeMap::new();
    for asset in bundle.assets() {
        let asset = asset?;
        let folder = asset.path.folder();
        if !folder.is_empty() && !made.contains_key(folder) {
            make(&into.join(folder))?;
            made.insert(folder.to_owned(), ());
        }
        file(fs, &mut reader, &asset, &into.join(asset.path.as_str()))?;
        report.files += 1;
        report.bytes += asset.len;
    }
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
