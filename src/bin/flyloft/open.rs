//! What several commands do first: open a bundle, start an async runtime.

use std::fs::File;
use std::future::Future;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use flyloft::build::transform::TransformRegistry;
use flyloft::builder::{STORE_BUNDLE, default_store};
use flyloft::bundle::{AssetRecord, Bundle};
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::telemetry::accesses::TraceReader;
use flyloft::{AssetPath, Error};
use tokio::runtime::Builder;

use crate::failure::{Failure, Result};

/// The newest generation of a bundle file. Its pages are read, not mapped: another program may truncate the file.
pub fn bundle(file: &Path) -> Result<Bundle> {
    if file.is_dir() {
        let (file, why) = (file.display(), "it is a directory, not a bundle; `flyloft pack` makes one from it");
        return Err(Failure::unusable(format_args!("{file}: {why}")));
    }
    let storage = OsFileSystem.open(file).map_err(|error| Error::io("open", file, error))?;
    Ok(Bundle::open(storage, false)?)
}

/// A trace of accesses.
pub fn trace(file: &Path) -> Result<TraceReader<BufReader<File>>> {
    let opened = File::open(file).map_err(|error| Error::io("open", file, error))?;
    Ok(TraceReader::new(BufReader::with_capacity(64 << 10, opened), &file.display().to_string())?)
}

/// The store of a folder: the one that is named, or its default.
pub fn store(folder: &Path, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(store) = named {
        return Ok(store.to_owned());
    }
    let real = OsFileSystem.canonicalize(folder).map_err(|error| Error::io("open", folder, error))?;
    Ok(default_store(&real)?)
}

/// A bundle, or what the store of a folder has: what was built from it the last time.
pub fn bundle_of(source: &Path, named: Option<&Path>) -> Result<Bundle> {
    if !source.is_dir() {
        if named.is_some() {
            return Err(Failure::unusable("--store: a bundle is its own; leave it out or name a folder"));
        }
        return bundle(source);
    }
    let store = store(source, named)?;
    let file = store.join(STORE_BUNDLE);
    if !file.exists() {
        let (folder, store) = (source.display(), store.display());
        let why = format!("nothing was built from it yet in {store}; `flyloft watch {folder}` builds it");
        return Err(Failure::unusable(format_args!("{folder}: {why}")));
    }
    bundle(&file)
}

/// The transforms that a flyloft.toml may name; those that run programs where that is allowed.
pub fn registry(allow_commands: bool) -> TransformRegistry {
    let mut registry = TransformRegistry::with_builtins();
    if allow_commands {
        registry.allow_commands();
    }
    registry
}

/// The asset that the user named.
pub fn asset(bundle: &Bundle, path: &str) -> Result<AssetRecord> {
    let missing = || {
        let file = &bundle.info().file;
        Failure::no(format_args!("{file}: '{path}' is not in it; `flyloft ls {file}` lists what is"))
    };
    bundle.find(&AssetPath::new(path)?)?.ok_or_else(missing)
}

/// Runs `future` to its end on an executor of the program's own.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    // Where there is one core, a scheduler that shares work among several has nobody to share it with.
    let one = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if one { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let executor = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::unusable(format_args!("the executor cannot start: {error}")))?;
    let result = executor.block_on(future);
    // What still runs in the background has nobody to report to.
    executor.shutdown_background();
    result
}
