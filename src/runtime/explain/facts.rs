//! What a table of contents says of one asset, as plain values that travel as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bundle::{BuildInput, BuildRecord, BuildStep, Bundle, Piece};
use crate::error::Result;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash};

/// Paths that a list names at most; its count says how many there are.
const NAMED_MAX: usize = 100;

/// An asset of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetFacts {
    /// Its id.
    pub id: AssetId,
    /// Its kind.
    pub kind: AssetKind,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its content.
    pub content: ContentHash,
    /// Whether its file has the execute bit.
    pub executable: bool,
    /// How many frames hold its bytes, by how they are stored.
    pub frames: BTreeMap<String, u64>,
    /// Its share of what those frames take in the file, in bytes.
    pub stored_bytes: u64,
    /// What it depends on.
    pub uses: Users,
    /// What it depends on and does not exist, the first of it.
    pub missing: Vec<AssetPath>,
    /// How it was made; `None` when it simply is its source file.
    pub build: Option<BuildFacts>,
}

/// Assets at the other end of a dependency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// How many.
    pub count: u64,
    /// The first of them, in path order.
    pub first: Vec<AssetPath>,
}

/// How an asset was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The source file: another one where this was made beside it, as a labelled part.
    pub source: AssetPath,
    /// The hash of the source file that it was made of.
    pub hash: ContentHash,
    /// The transforms, each on what the one before made.
    pub steps: Vec<StepFacts>,
    /// Files that were read besides the source.
    pub read: Users,
    /// Files that were looked for and not there.
    pub absent: Users,
    /// Folders that were listed; empty for the top of the tree.
    pub listed: Vec<String>,
    /// Labels of what was made beside it.
    pub labels: Vec<String>,
}

/// One transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFacts {
    /// Its name.
    pub transform: String,
    /// Its version.
    pub version: u32,
}

impl AssetFacts {
    /// What `bundle` has at `path`.
    pub(super) fn of(bundle: &Bundle, path: &AssetPath) -> Result<Option<AssetFacts>> {
        let Some(record) = bundle.find(path)? else { return Ok(None) };
        let placement = bundle.placement(&record.content, 0..u64::MAX)?;
        let pieces = placement.map(|placement| placement.pieces).unwrap_or_default();
        let stored = |piece: &Piece| {
            let (stored, decoded) = (u64::from(piece.frame.stored_len), u64::from(piece.frame.decoded_len.max(1)));
            (u64::from(piece.len) * stored).div_ceil(decoded)
        };
        let mut frames = BTreeMap::new();
        for piece in &pieces {
            *frames.entry(piece.frame.codec.name().to_owned()).or_default() += 1;
        }
        let dependencies = bundle.dependencies(record.id)?;
        let missing = dependencies.iter().filter(|dependency| !dependency.present);
        let missing = missing.map(|dependency| dependency.path.clone()).take(NAMED_MAX).collect();
        Ok(Some(AssetFacts {
            id: record.id,
            kind: record.kind,
            bytes: record.len,
            content: record.content,
            executable: record.executable,
            frames,
            stored_bytes: pieces.iter().map(stored).sum(),
            uses: Users::new(dependencies.into_iter().map(|dependency| dependency.path)),
            missing,
            build: BuildFacts::of(bundle, path)?,
        }))
    }
}

impl Users {
    /// What depends on `path` in `bundle`.
    pub(super) fn of(bundle: &Bundle, path: &AssetPath) -> Result<Users> {
        let mut users = Vec::new();
        for id in bundle.dependents(path.id())? {
            users.extend(bundle.asset(id)?.map(|record| record.path));
        }
        users.sort_unstable();
        Ok(Users::new(users.into_iter()))
    }

    fn new(paths: impl Iterator<Item = AssetPath>) -> Users {
        let mut users = Users::default();
        for path in paths {
            users.count += 1;
            if users.first.len() < NAMED_MAX {
                users.first.push(path);
            }
        }
        users
    }
}

impl BuildFacts {
    /// How the asset at `path` was made: by its own record, or by that of the source that it was made beside.
    fn of(bundle: &Bundle, path: &AssetPath) -> Result<Option<BuildFacts>> {
        if let Some(record) = bundle.build_record(path.id())? {
            return Ok(Some(Self::new(path.clone(), record)));
        }
        let Some((source, label)) = path.source_and_label() else { return Ok(None) };
        let record = bundle.build_record(source.id())?;
        let record = record.filter(|record| record.labels.iter().any(|made| made == label));
        Ok(record.map(|record| Self::new(source, record)))
    }

    fn new(source: AssetPath, record: BuildRecord) -> BuildFacts {
        let (mut read, mut absent, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for input in record.inputs {
            match input {
                BuildInput::Read { path, hash: Some(_) } | BuildInput::Exists { path, exists: true } => read.push(path),
                BuildInput::Read { path, hash: None } | BuildInput::Exists { path, exists: false } => absent.push(path),
                BuildInput::Listed { folder, .. } => listed.push(folder.map_or(String::new(), |path| path.to_string())),
            }
        }
        listed.truncate(NAMED_MAX);
        let mut labels = record.labels;
        labels.truncate(NAMED_MAX);
        let step = |step: BuildStep| StepFacts { transform: step.transform, version: step.version };
        BuildFacts {
            source,
            hash: record.source,
            steps: record.steps.into_iter().map(step).collect(),
            read: Users::new(read.into_iter()),
            absent: Users::new(absent.into_iter()),
            listed,
            labels,
        }
    }
}
