//! From a source file to what is packed of it: the transform, if there is one, and what it depends on.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::tree::{Failed, Tree, names_hash};
use crate::build::actions::{self, ActionCache};
use crate::build::config::Rule;
use crate::build::source::{Reader, Source};
use crate::build::spill::{Body, Spill};
use crate::build::transform::{Context, Entry, Input, Labelled, Output as Made};
use crate::bundle::{BuildInput, BuildRecord, Bundle};
use crate::error::Error;
use crate::event::BuildFailure;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash};
use crate::limits;

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
    pub body: Body,
    /// In path order.
    pub dependencies: Vec<AssetPath>,
    pub record: Option<Box<BuildRecord>>,
    pub warnings: Vec<String>,
    /// Assets that were made beside it.
    pub labelled: Vec<Output>,
    /// Microseconds of its transforms.
    pub build_us: u64,
    /// Whether what it was built to was in the action cache.
    pub from_action_cache: bool,
    /// References to what no file is: known once all that is made beside files is.
    pub open: Vec<Open>,
}

impl Output {
    /// Without dependencies, and of the kind that its path says.
    fn new(path: AssetPath, source: usize, hash: ContentHash, len: u64, body: Body) -> Self {
        Self {
            id: path.id(),
            kind: path.kind(),
            path,
            source,
            executable: false,
            hash,
            len,
            body,
            dependencies: Vec::new(),
            record: None,
            warnings: Vec::new(),
            labelled: Vec::new(),
            build_us: 0,
            from_action_cache: false,
            open: Vec::new(),
        }
    }
}

/// A reference whose target is no file, but may be made beside one.
pub(super) struct Open {
    pub target: AssetPath,
    /// Whether it is a dependency also when there is no such asset, and then what is said about it.
    pub required: Option<String>,
}

/// What is needed to make outputs. Shared by the threads that do.
pub(super) struct Maker<'a> {
    pub tree: &'a Tree,
    pub bundle: Option<&'a Bundle>,
    pub actions: Option<&'a ActionCache>,
    pub spill: &'a Spill,
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
    pub fn make(&self, number: usize, seen: &mut Exists) -> Result<Output, Box<Failed>> {
        let source = &self.sources[number];
        let path = &source.file.path;
        let mut output = Output::new(path.clone(), number, source.hash, source.file.stat.len, Body::Source);
        output.executable = source.file.stat.executable;
        self.references(source, seen, &mut output);
        if let Some(rule) = self.tree.config.rule(path) {
            let mut inputs =
                Inputs { maker: self, own: path, files: BTreeMap::new(), folders: BTreeMap::new(), problem: None };
            let started = self.reader.clock.now();
            let made = self.made(source, rule, &mut inputs, &mut output.from_action_cache);
            output.build_us = (self.reader.clock.now() - started).as_micros() as u64;
            let made = made.map_err(|failure| inputs.failed(path, failure))?;
            let labels = self.labelled(number, made.labelled, &mut inputs, &mut output).map_err(|cause| {
                let step = rule.names().last().unwrap_or_default();
                inputs.failed(path, BuildFailure::new(path.as_str(), step, cause))
            })?;
            let read = inputs.files.iter().filter(|(_, seen)| matches!(seen, Seen::Read(_)));
            output.dependencies.extend(read.map(|(input, _)| input.clone()));
            self.refer(made.dependencies, &mut output);
            let kept = self.keep(made.bytes);
            (output.hash, output.len, output.body) =
                kept.map_err(|cause| inputs.failed(path, BuildFailure::new(path.as_str(), "keep", cause)))?;
            output.record = Some(Box::new(BuildRecord {
                steps: rule.recorded(),
                source: source.hash,
                inputs: inputs.recorded(),
                labels,
            }));
        }
        output.dependencies.sort_unstable();
        output.dependencies.dedup();
        Ok(output)
    }

    /// Keeps what was made until it is written, with its hash and length. What the bundle has already is not kept.
    fn keep(&self, bytes: Vec<u8>) -> Result<(ContentHash, u64, Body), String> {
        let (hash, len) = (ContentHash::of(&bytes), bytes.len() as u64);
        let stored = self.bundle.is_some_and(|bundle| bundle.content(&hash).is_ok_and(|content| content.is_some()));
        let body = if stored { Body::Stored } else { self.spill.keep(bytes).map_err(|error| error.to_string())? };
        Ok((hash, len, body))
    }

    /// What the file names and what `[deps]` says, in no order, and a warning for each that does not exist.
    fn references(&self, source: &Source<'_>, seen: &mut Exists, output: &mut Output) {
        let path = &source.file.path;
        output.dependencies.reserve(source.references.len());
        for (index, reference) in source.references.iter().enumerate() {
            let target = &reference.target;
            if target == path {
                continue;
            }
            // A page may well refer to the folder that it stands in.
            if seen.look(self.tree, index, target) || reference.required && self.tree.folders.contains(target) {
                output.dependencies.push(target.clone());
                continue;
            }
            let warning = || {
                let line = reference.line.map_or(String::new(), |line| format!(":{line}"));
                format!("{path}{line}: depends on '{target}', which does not exist")
            };
            output.missing(target, reference.required.then(warning));
        }
        for target in self.tree.config.dependencies(path) {
            if target == path {
                continue;
            }
            if self.tree.files.contains_key(target) {
                output.dependencies.push(target.clone());
            } else {
                let warning = format!("flyloft.toml: '{path}' depends on '{target}', which does not exist");
                output.missing(target, Some(warning));
            }
        }
    }

    /// What a transform says that an asset refers to.
    fn refer(&self, targets: Vec<AssetPath>, output: &mut Output) {
        for target in targets {
            if target == output.path {
                continue;
            }
            if self.tree.files.contains_key(&target) {
                output.dependencies.push(target);
            } else {
                let warning = format!("{}: depends on '{target}', which does not exist", output.path);
                output.missing(&target, Some(warning));
            }
        }
    }

    /// The assets made beside the one of a source, as outputs of their own; answers their labels, in order.
    fn labelled(
        &self,
        number: usize,
        labelled: Vec<Labelled>,
        inputs: &mut Inputs<'_>,
        output: &mut Output,
    ) -> Result<Vec<String>, String> {
        if labelled.len() > limits::LABELS_MAX {
            return Err(format!(
                "it makes {} labelled assets; at most {} are kept",
                labelled.len(),
                limits::LABELS_MAX
            ));
        }
        let mut labels = BTreeSet::new();
        for Labelled { label, kind, bytes, dependencies } in labelled {
            let path = output.path.labelled(&label).map_err(|error| format!("the label '{label}': {error}"))?;
            // What stands at the path, or where its folder would have to be.
            let mut at = Some(path.clone());
            while let Some(place) = at.filter(|place| place.as_str().len() > output.path.as_str().len()) {
                if self.tree.files.contains_key(&place) || place == path && self.tree.folders.contains(&place) {
                    // Once that is gone it is tried again.
                    inputs.files.insert(place.clone(), Seen::Exists(true));
                    return Err(format!(
                        "'{place}' is in the tree, so that the asset '{path}' has no place; rename one"
                    ));
                }
                at = AssetPath::new(place.folder()).ok();
            }
            let (hash, len, body) = self.keep(bytes)?;
            let mut made = Output::new(path, number, hash, len, body);
            made.kind = kind.unwrap_or(made.kind);
            self.refer(dependencies, &mut made);
            made.dependencies.sort_unstable();
            made.dependencies.dedup();
            if !labels.insert(label.clone()) {
                return Err(format!("it makes two assets with the label '{label}'"));
            }
            output.labelled.push(made);
        }
        Ok(labels.into_iter().collect())
    }

    /// What a rule makes of a source: from the action cache, or by running its transforms.
    fn made(
        &self,
        source: &Source<'_>,
        rule: &Rule,
        inputs: &mut Inputs<'_>,
        from_action_cache: &mut bool,
    ) -> Result<Made, BuildFailure> {
        let Some(actions) = self.actions.filter(|_| rule.is_costly()) else { return self.run(source, rule, inputs) };
        let key = actions::key(&source.file.path, &source.hash, &rule.recorded());
        if let Some((made, seen)) = actions.find(&key, |input| !self.tree.is_stale(input)) {
            *from_action_cache = true;
            inputs.see(seen);
            return Ok(made);
        }
        let made = self.run(source, rule, inputs)?;
        actions.store(&key, &inputs.recorded(), &made);
        Ok(made)
    }

    fn run(&self, source: &Source<'_>, rule: &Rule, inputs: &mut Inputs<'_>) -> Result<Made, BuildFailure> {
        let path = &source.file.path;
        let _large = self.spill.admit(source.file.stat.len);
        let again;
        let mut bytes: Cow<'_, [u8]> = match &source.bytes {
            Some(bytes) => Cow::Borrowed(&bytes[..]),
            None => {
                let mut stat = source.file.stat;
                let read = self.reader.stable(&self.reader.place(&source.file), &mut stat);
                again = read.map_err(|error| BuildFailure::new(path.as_str(), "read", error.to_string()))?;
                if ContentHash::of(&again) != source.hash {
                    return Err(BuildFailure::new(path.as_str(), "read", "it changed while it was built"));
                }
                Cow::Owned(again)
            }
        };
        let mut made = Made::default();
        for step in rule.steps() {
            let name = step.transform.name();
            let input = Input { path, bytes: &bytes };
            let run = catch_unwind(AssertUnwindSafe(|| step.transform.run(input, inputs)));
            if let Some(problem) = inputs.problem.take() {
                return Err(BuildFailure::new(path.as_str(), name, problem));
            }
            let output = match run {
                Ok(Ok(output)) => output,
                Ok(Err(Error::Build { line, column, transform, cause, .. })) => {
                    return Err(BuildFailure { path: path.as_str().to_owned(), line, column, transform, cause });
                }
                Ok(Err(error)) => return Err(BuildFailure::new(path.as_str(), name, error.to_string())),
                Err(panic) => {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                    let text = text.unwrap_or_else(|| "for no stated reason".into()).replace('\n', " ");
                    return Err(BuildFailure::new(path.as_str(), name, format!("it panicked: {text}")));
                }
            };
            bytes = Cow::Owned(output.bytes);
            made.labelled.extend(output.labelled);
            made.dependencies.extend(output.dependencies);
        }
        made.bytes = bytes.into_owned();
        Ok(made)
    }
}

impl Output {
    /// A reference to what no file is. `required` is the warning about it where it is a dependency all the same.
    fn missing(&mut self, target: &AssetPath, required: Option<String>) {
        if target.as_str().contains('#') {
            self.open.push(Open { target: target.clone(), required });
        } else if let Some(warning) = required {
            self.warnings.push(warning);
            self.dependencies.push(target.clone());
        }
    }

    /// Settles the open references once it is known what is made beside files.
    pub fn settle(&mut self, is_made: impl Fn(&AssetPath) -> bool) {
        if self.open.is_empty() {
            return;
        }
        for Open { target, required } in std::mem::take(&mut self.open) {
            if is_made(&target) {
                self.dependencies.push(target);
            } else if let Some(warning) = required {
                self.warnings.push(warning);
                self.dependencies.push(target);
            }
        }
        self.dependencies.sort_unstable();
        self.dependencies.dedup();
    }
}

/// What was seen of a file.
#[derive(Clone, Copy)]
enum Seen {
    Read(Option<ContentHash>),
    Exists(bool),
}

/// What the transforms of one rule look at besides their source.
struct Inputs<'a> {
    maker: &'a Maker<'a>,
    own: &'a AssetPath,
    files: BTreeMap<AssetPath, Seen>,
    /// Hashes of the names in folders; "" is the top.
    folders: BTreeMap<String, ContentHash>,
    problem: Option<String>,
}

impl Inputs<'_> {
    fn recorded(&self) -> Vec<BuildInput> {
        let files = self.files.iter().map(|(path, seen)| match *seen {
            Seen::Read(hash) => BuildInput::Read { path: path.clone(), hash },
            Seen::Exists(exists) => BuildInput::Exists { path: path.clone(), exists },
        });
        let folders = self
            .folders
            .iter()
            .map(|(folder, names)| BuildInput::Listed { folder: AssetPath::new(folder).ok(), names: *names });
        files.chain(folders).collect()
    }

    /// What earlier runs looked at, as if it had been looked at now.
    fn see(&mut self, inputs: Vec<BuildInput>) {
        for input in inputs {
            match input {
                BuildInput::Read { path, hash } => drop(self.files.insert(path, Seen::Read(hash))),
                BuildInput::Exists { path, exists } => drop(self.files.insert(path, Seen::Exists(exists))),
                BuildInput::Listed { folder, names } => {
                    self.folders.insert(folder.map_or(String::new(), |folder| folder.to_string()), names);
                }
            }
        }
    }

    fn failed(&self, path: &AssetPath, failure: BuildFailure) -> Box<Failed> {
        Box::new(Failed { failure, path: Some(path.clone()), inputs: self.recorded(), unit: Vec::new() })
    }

    /// It is not what it was when the tree was looked at: the asset is built again whatever changes next.
    fn unstable(&mut self, path: &AssetPath, problem: String) {
        // No file has this hash.
        self.files.insert(path.clone(), Seen::Read(Some(ContentHash::default())));
        self.problem = Some(problem);
    }
}

impl Context for Inputs<'_> {
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>> {
        let Some(known) = self.maker.tree.files.get(path) else {
            self.files.insert(path.clone(), Seen::Read(None));
            return None;
        };
        if path != self.own {
            self.files.insert(path.clone(), Seen::Read(Some(known.source)));
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
                self.unstable(path, format!("'{path}' changed while it was read for it"));
                None
            }
            Err(error) => {
                self.unstable(path, format!("cannot read '{path}': {error}"));
                None
            }
        }
    }

    fn exists(&mut self, path: &AssetPath) -> bool {
        let exists = self.maker.tree.files.contains_key(path);
        if path != self.own {
            // Having read it says more.
            self.files.entry(path.clone()).or_insert(Seen::Exists(exists));
        }
        exists
    }

    fn list(&mut self, folder: &str) -> Vec<Entry> {
        if !folder.is_empty() && AssetPath::new(folder).is_err() {
            return Vec::new();
        }
        let entries = self.maker.tree.entries(folder);
        self.folders.insert(folder.to_owned(), names_hash(&entries));
        entries
    }
}
