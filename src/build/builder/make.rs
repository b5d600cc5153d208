//! From a source file to what is packed of it: the transform, if there is one, and what it depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::tree::{Failed, Tree};
use crate::build::config::Rule;
use crate::build::source::{Reader, Source};
use crate::build::transform::{Context, Input, TransformRegistry};
use crate::bundle::BuildRecord;
use crate::error::Error;
use crate::event::BuildFailure;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash};

/// What is packed of a source file.
pub(super) struct Output {
    pub path: AssetPath,
    pub id: AssetId,
    pub kind: AssetKind,
    /// Which source it was made of.
    pub source: usize,
    pub executable: bool,
    pub hash: ContentHash,
    pub len: u64,
    /// The bytes; `None` when they are those of the source file, which is read again.
    pub bytes: Option<Vec<u8>>,
    /// In path order.
    pub dependencies: Vec<AssetPath>,
    pub record: Option<Box<BuildRecord>>,
    pub warnings: Vec<String>,
}

/// What is needed to make outputs. Shared by the threads that do.
pub(super) struct Maker<'a> {
    pub tree: &'a Tree,
    pub registry: &'a TransformRegistry,
    pub reader: &'a Reader<'a>,
    /// Sources that were read in this build, in path order.
    pub sources: &'a [Source<'a>],
}

/// The source at a path, of sources in path order.
pub(super) fn source_of<'a, 'b>(sources: &'a [Source<'b>], path: &AssetPath) -> Option<&'a Source<'b>> {
    sources.binary_search_by(|source| source.file.path.cmp(path)).ok().map(|at| &sources[at])
}

/// Which references of the file before exist: neighbouring files mostly refer to the same ones, in the same order, and
/// looking a path up in a large tree costs more than comparing two.
#[derive(Default)]
pub(super) struct Exists {
    last: Vec<(AssetPath, bool)>,
}

impl Exists {
    /// Whether the tree has the file `target`, which is the reference at `index` of its file.
    fn look(&mut self, tree: &Tree, index: usize, target: &AssetPath) -> bool {
        if let Some((path, exists)) = self.last.get(index)
            && path == target
        {
            return *exists;
        }
        let exists = tree.files.contains_key(target);
        match self.last.get_mut(index) {
            Some(last) => *last = (target.clone(), exists),
            None => self.last.push((target.clone(), exists)),
        }
        exists
    }
}

/// What a file refers to only while that exists.
pub(super) fn weak(source: &Source<'_>) -> Vec<AssetPath> {
    if source.references.iter().all(|reference| reference.required) {
        return Vec::new();
    }
    let required: BTreeSet<&AssetPath> =
        source.references.iter().filter(|reference| reference.required).map(|reference| &reference.target).collect();
    let weak: BTreeSet<&AssetPath> = source
        .references
        .iter()
        .map(|reference| &reference.target)
        .filter(|target| !required.contains(target) && **target != source.file.path)
        .collect();
    weak.into_iter().cloned().collect()
}

impl Maker<'_> {
    /// Makes the output of a source. A failure, or a panic of the transform, is that of this file alone.
    pub fn make(&self, number: usize, seen: &mut Exists) -> Result<Output, Failed> {
        let source = &self.sources[number];
        let path = &source.file.path;
        let (mut dependencies, warnings) = self.references(source, seen);
        let mut output = Output {
            path: path.clone(),
            id: path.id(),
            kind: path.kind(),
            source: number,
            executable: source.file.stat.executable,
            hash: source.hash,
            len: source.file.stat.len,
            bytes: None,
            dependencies: Vec::new(),
            record: None,
            warnings,
        };
        if let Some(rule) = self.tree.config.rule(path) {
            let mut inputs = Inputs { maker: self, own: path, read: BTreeMap::new(), problem: None };
            let bytes = self.transform(source, rule, &mut inputs).map_err(|failure| Failed {
                failure,
                path: Some(path.clone()),
                inputs: inputs.read.keys().cloned().collect(),
            })?;
            let read: Vec<_> = inputs.read.into_iter().collect();
            dependencies.extend(read.iter().map(|(input, _)| input.clone()));
            output.hash = ContentHash::of(&bytes);
            output.len = bytes.len() as u64;
            output.bytes = Some(bytes);
            output.record = Some(Box::new(BuildRecord {
                transform: rule.name.clone(),
                version: self.registry.get(&rule.name).map_or(0, |transform| transform.version()),
                parameters: rule.parameters_hash(),
                source: source.hash,
                inputs: read,
            }));
        }
        dependencies.sort_unstable();
        dependencies.dedup();
        output.dependencies = dependencies;
        Ok(output)
    }

    /// What the file names and what `[deps]` says, in no order, and a warning for each that does not exist.
    fn references(&self, source: &Source<'_>, seen: &mut Exists) -> (Vec<AssetPath>, Vec<String>) {
        let path = &source.file.path;
        let mut dependencies = Vec::with_capacity(source.references.len());
        let mut warnings = Vec::new();
        for (index, reference) in source.references.iter().enumerate() {
            let target = &reference.target;
            if target == path {
                continue;
            }
            let exists = seen.look(self.tree, index, target);
            if !exists && !reference.required {
                continue;
            }
            // A page may well refer to the folder that it stands in.
            if !exists && !self.tree.folders.contains(target) {
                let line = reference.line.map_or(String::new(), |line| format!(":{line}"));
                warnings.push(format!("{path}{line}: depends on '{target}', which does not exist"));
            }
            dependencies.push(target.clone());
        }
        for target in self.tree.config.dependencies(path) {
            if target == path {
                continue;
            }
            if !self.tree.files.contains_key(target) {
                warnings.push(format!("flyloft.toml: '{path}' depends on '{target}', which does not exist"));
            }
            dependencies.push(target.clone());
        }
        (dependencies, warnings)
    }

    fn transform(&self, source: &Source<'_>, rule: &Rule, inputs: &mut Inputs<'_>) -> Result<Vec<u8>, BuildFailure> {
        let path = &source.file.path;
        let failed = |transform: &str, line: Option<u32>, cause: String| BuildFailure {
            path: path.as_str().to_owned(),
            line,
            transform: transform.to_owned(),
            cause,
        };
        let Some(transform) = self.registry.get(&rule.name) else {
            return Err(failed(&rule.name, None, "no such transform is registered".into()));
        };
        let again;
        let bytes = match &source.bytes {
            Some(bytes) => &bytes[..],
            None => {
                let mut stat = source.file.stat;
                let read = self.reader.stable(&self.reader.place(&source.file), &mut stat);
                again = read.map_err(|error| failed("read", None, error.to_string()))?;
                if ContentHash::of(&again) != source.hash {
                    return Err(failed("read", None, "it changed while it was built".into()));
                }
                &again
            }
        };
        let input = Input { path, bytes, parameters: &rule.parameters };
        let run = catch_unwind(AssertUnwindSafe(|| transform.run(input, inputs)));
        if let Some(problem) = inputs.problem.take() {
            return Err(failed(&rule.name, None, problem));
        }
        match run {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(Error::Build { line, transform, cause, .. })) => Err(failed(&transform, line, cause)),
            Ok(Err(error)) => Err(failed(&rule.name, None, error.to_string())),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                let text = text.unwrap_or_else(|| "for no stated reason".into());
                Err(failed(&rule.name, None, format!("it panicked: {}", text.replace('\n', " "))))
            }
        }
    }
}

/// What one transform reads besides its source.
struct Inputs<'a> {
    maker: &'a Maker<'a>,
    own: &'a AssetPath,
    read: BTreeMap<AssetPath, Option<ContentHash>>,
    problem: Option<String>,
}

impl Context for Inputs<'_> {
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>> {
        let Some(known) = self.maker.tree.files.get(path) else {
            self.read.insert(path.clone(), None);
            return None;
        };
        if path != self.own {
            self.read.insert(path.clone(), Some(known.source));
        }
        if let Some(bytes) = source_of(self.maker.sources, path).and_then(|source| source.bytes.as_ref()) {
            return Some(bytes.to_vec());
        }
        let reader = self.maker.reader;
        let at = known.at.as_deref().map_or_else(|| reader.root.join(path.as_str()), Into::into);
        let read = reader.fs.stat(&at, true).and_then(|mut stat| reader.stable(&at, &mut stat));
        match read {
            Ok(bytes) if ContentHash::of(&bytes) == known.source => Some(bytes),
            Ok(_) => {
                self.problem = Some(format!("'{path}' changed while it was read for it"));
                None
            }
            Err(error) => {
                self.problem = Some(format!("cannot read '{path}': {error}"));
                None
            }
        }
    }
}
