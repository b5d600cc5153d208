//! `explain`: why an asset is as it is.

mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use flyloft::build::{ADDRESS_FILE, Comparison};
use flyloft::builder::{STORE_ACTIONS, STORE_BUNDLE, STORE_STATS};
use flyloft::bundle::Bundle;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::runtime::Explanation;
use flyloft::{AssetPath, Error};
use serde::Serialize;

use crate::announced;
use crate::failure::{Answer, Failure, Result};
use crate::open;
use crate::output::Output;

/// Say why an asset was rebuilt, is resident, evicted, queued or failed
#[derive(Args)]
#[command(after_long_help = "\
Of a folder that `flyloft serve` or `flyloft watch` has open, the running program is asked. Otherwise the folder's store is
read; it is not written, and nothing is built. Status 1 when there is nothing of that path and it does not fail to build.")]
pub struct Call {
    /// The folder, or a bundle
    source: PathBuf,
    /// The asset; one part of it as `scene.gltf#mesh/0`
    path: String,
    /// The folder's store [default: one in your cache folder]
    #[arg(short, long)]
    store: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What is known, and who said so.
#[derive(Serialize)]
struct Told {
    /// The page of the program that was asked; `None` when the bundle on disk was read.
    server: Option<String>,
    /// The bundle that was read.
    bundle: Option<String>,
    #[serde(flatten)]
    explained: Explanation,
}

pub fn run(call: &Call) -> Result<Answer> {
    let path = AssetPath::new(&call.path)?;
    let told = if call.source.is_dir() {
        of_folder(call, &path)?
    } else {
        told(&open::bundle_of(&call.source, call.store.as_deref())?, &path)?
    };
    let found = told.explained.asset.is_some() || told.explained.failure.is_some();
    let mut output = Output::new();
    if call.json {
        output.json(&told)?;
    } else {
        let by = match (&told.server, &told.bundle) {
            (Some(server), _) => format!("says {server}"),
            (None, Some(bundle)) => format!("says {bundle}; nobody serves it now"),
            (None, None) => String::new(),
        };
        text::write(&told.explained, &by, &mut output)?;
    }
    output.finish()?;
    Ok(if found { Answer::Yes } else { Answer::No })
}

fn told(bundle: &Bundle, path: &AssetPath) -> Result<Told> {
    let explained = Explanation::of_bundle(bundle, path)?;
    Ok(Told { server: None, bundle: Some(bundle.info().file.clone()), explained })
}

fn of_folder(call: &Call, path: &AssetPath) -> Result<Told> {
    let store = open::store(&call.source, call.store.as_deref())?;
    if let Some(explained) = ask(&store, path)? {
        return Ok(explained);
    }
    let bundle = open::bundle_of(&call.source, Some(&store))?;
    let mut told = told(&bundle, path)?;
    let root = OsFileSystem.canonicalize(&call.source);
    let root = root.map_err(|error| Error::io("open", &call.source, error))?;
    let outputs = [STORE_BUNDLE, STORE_STATS, STORE_ACTIONS, ADDRESS_FILE].map(|name| store.join(name));
    let outputs = outputs.each_ref().map(PathBuf::as_path);
    // Nothing is run: commands are compared like other transforms.
    let registry = open::registry(true);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tree = Comparison::new(&OsFileSystem, &root, &outputs, &registry, threads)?;
    told.explained.pending = tree.pending(&bundle, path)?;
    told.explained.failure = tree.mistake;
    Ok(told)
}

/// Asks the program that serves the store, if one does.
fn ask(store: &Path, path: &AssetPath) -> Result<Option<Told>> {
    let Some(serving) = announced::find(store) else { return Ok(None) };
    let path: String = path.as_str().bytes().map(escaped).collect();
    let url = serving.url.clone();
    let refused = |why: String| Failure::unusable(format_args!("{url}: {why}"));
    let (status, body) = serving.get(&format!("/explain?path={path}")).map_err(|error| refused(error.to_string()))?;
    if status != 200 {
        return Err(refused(String::from_utf8_lossy(&body).trim().to_owned()));
    }
    let explained =
        serde_json::from_slice(&body).map_err(|error| refused(format!("its answer is not known: {error}")))?;
    Ok(Some(Told { server: Some(serving.url), bundle: None, explained }))
}

/// A byte of a query, as every server reads it.
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}
