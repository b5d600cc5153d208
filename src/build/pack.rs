//! Packing a tree into a file: new, or one generation more.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arena::ArenaStats;
use super::builder::{self, BuildOptions, Progress, TreeBuilder};
use crate::error::{Error, Result};
use crate::event::BuildFailure;
use crate::ids::Generation;
use crate::platform::clock::Clock;
use crate::platform::fs::FileSystem;

/// What packing did.
#[derive(Clone, Debug)]
pub struct PackReport {
    /// The generation that the bundle has now.
    pub generation: Generation,
    /// Assets in it.
    pub assets: u64,
    /// Bytes of the source files.
    pub source_bytes: u64,
    /// Bytes of the bundle.
    pub file_bytes: u64,
    /// Bytes that this packing appended; all of them for a new bundle.
    pub appended_bytes: u64,
    /// Bytes of what transforms made that had to wait in a file.
    pub spilled_bytes: u64,
    /// What arenas held while it was built.
    pub arenas: ArenaStats,
    /// Whether the bundle was up to date and not touched.
    pub unchanged: bool,
    /// What does not build; only with [`BuildOptions::tolerant`].
    pub failures: Vec<BuildFailure>,
    /// Dependencies on nothing, links that are not followed.
    pub warnings: Vec<String>,
}

/// Packs the tree at `root` into the bundle `out`.
///
/// A missing file is written beside its name and renamed when it is complete and durable. An existing bundle gets a
/// new generation appended, or is not touched when nothing differs.
///
/// # Errors
/// Those of [`TreeBuilder::open`] and [`TreeBuilder::scan`], and of committing. The bundle is as it was then; a
/// missing one is still missing.
pub fn pack(
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    root: &Path,
    out: &Path,
    options: BuildOptions,
    progress: &dyn Progress,
) -> Result<PackReport> {
    match fs.stat(out, true) {
        Ok(_) => {
            let mut builder = TreeBuilder::open(Arc::clone(&fs), clock, root, out, None, options)?;
            run(&mut builder, progress)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Said before anything is written beside the bundle.
            fs.read_dir(root).map_err(|error| Error::io("list", root, error))?;
            let folder = folder_of(out);
            fs.stat(folder, true).map_err(|error| Error::io("write into the folder", folder, error))?;
            let temporary = temporary(out)?;
            clear(&*fs, &temporary)?;
            let packed = fresh(&fs, clock, root, out, &temporary, options, progress);
            if packed.is_err() {
                // The cause matters more than what is left behind, and the next packing clears it.
                let _ = fs.remove_file(&temporary);
            }
            packed
        }
        Err(error) => Err(Error::io("look at", out, error)),
    }
}

fn fresh(
    fs: &Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    root: &Path,
    out: &Path,
    temporary: &Path,
    options: BuildOptions,
    progress: &dyn Progress,
) -> Result<PackReport> {
    let mut builder = TreeBuilder::open_beside(Arc::clone(fs), clock, root, temporary, None, Some(out), options)?;
    let report = run(&mut builder, progress)?;
    if fs.stat(out, false).is_ok() {
        // Another packing was faster. What it made is not replaced unseen.
        return Err(Error::Locked { path: out.to_owned() });
    }
    fs.rename(temporary, out).map_err(|error| Error::io("rename to it", out, error))?;
    sync_folder(&**fs, out)?;
    Ok(report)
}

fn run(builder: &mut TreeBuilder, progress: &dyn Progress) -> Result<PackReport> {
    let before = builder.bundle().map(|bundle| bundle.info().file_bytes).unwrap_or(0);
    let mut built = builder.scan(progress)?;
    let source_bytes = builder.source_bytes();
    // Without stats to be saved this only sees to the action cache.
    builder.save_stats()?;
    let used = (builder.take_tree(), std::mem::take(&mut built.changed));
    if let Some(bundle) = &built.bundle {
        progress.step(0, 1, "write");
        std::thread::scope(|scope| {
            scope.spawn(move || drop(used));
            builder.committer().commit(bundle)
        })?;
        progress.step(1, 1, "write");
    }
    let Some(bundle) = builder.bundle() else {
        return Err(Error::Unsupported { what: "packing".into(), why: "nothing in the tree builds".into() });
    };
    let info = bundle.info();
    Ok(PackReport {
        generation: info.generation,
        assets: info.assets,
        source_bytes,
        file_bytes: info.file_bytes,
        appended_bytes: info.file_bytes - before.min(info.file_bytes),
        spilled_bytes: built.spilled_bytes,
        arenas: built.arenas,
        unchanged: built.bundle.is_none(),
        failures: built.failures,
        warnings: built.warnings,
    })
}

/// Where a new bundle is written before it has its name.
pub(super) fn temporary(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        return Err(Error::config("output", format!("'{}' does not name a file", out.display())));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new.tmp");
    Ok(out.with_file_name(temporary))
}

/// Removes what a packing that was interrupted left behind; one that still runs is not disturbed.
pub(super) fn clear(fs: &dyn FileSystem, temporary: &Path) -> Result<()> {
    if fs.stat(temporary, false).is_err() {
        return Ok(());
    }
    let (_, lock) = builder::open_writer(fs, temporary, false)?;
    let removed = fs.remove_file(temporary).map_err(|error| Error::io("remove", temporary, error));
    drop(lock);
    removed
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn sync_folder(fs: &dyn FileSystem, file: &Path) -> Result<()> {
    let folder = folder_of(file);
    fs.sync_dir(folder).map_err(|error| Error::io("flush", folder, error))
}
