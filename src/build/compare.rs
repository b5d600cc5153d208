//! What building a tree now would do to one asset of a bundle, and why: for those who ask. Nothing is built or written.

use std::path::Path;

use super::Because;
use super::builder::names_hash;
use super::config::{self, Mistake, TreeConfig};
use super::scan::{Exclude, Scan, Scanner, SourceFile};
use super::transform::{Entry, TransformRegistry};
use crate::bundle::{BuildInput, Bundle};
use crate::error::{Error, Result};
use crate::event::BuildFailure;
use crate::ids::{AssetPath, ContentHash};
use crate::platform::fs::FileSystem;

/// A tree and the rules that it is built by.
pub struct Comparison<'a> {
    fs: &'a dyn FileSystem,
    root: &'a Path,
    config: TreeConfig,
    /// What stands in it.
    scan: Scan,
    /// What is wrong with the tree's `flyloft.toml`: then the bundle's rules are not known to be those of the tree.
    pub mistake: Option<BuildFailure>,
}

impl<'a> Comparison<'a> {
    /// Reads the `flyloft.toml` of the tree at `root`, which has no links in it, and lists the tree by `threads` threads.
    /// `outputs` are files that we write ourselves.
    ///
    /// # Errors
    /// [`Error::Io`] when the tree cannot be listed, or the file is there and cannot be read.
    pub fn new(
        fs: &'a dyn FileSystem,
        root: &'a Path,
        outputs: &[&Path],
        registry: &TransformRegistry,
        threads: usize,
    ) -> Result<Comparison<'a>> {
        let file = root.join(config::FILE_NAME);
        let bytes = match fs.read(&file) {
            Ok(bytes) => bytes,
            Err(error) if super::builder::is_missing(&error) => Vec::new(),
            Err(error) => return Err(Error::io("read", &file, error)),
        };
        let parsed = match std::str::from_utf8(&bytes) {
            Ok(text) => TreeConfig::parse(text, registry),
            Err(_) => Err(Mistake::whole("it is not UTF-8; save it as UTF-8")),
        };
        let (config, mistake) = match parsed {
            Ok(config) => (config, None),
            Err(mistake) => (TreeConfig::default(), Some(mistake.into_failure())),
        };
        let ignoring = config.ignoring(&Exclude::new(fs, root, outputs.iter().copied()));
        let scan = Scanner { fs, root, real_root: root, ignoring: &ignoring, threads }.tree()?;
        Ok(Comparison { fs, root, config, scan, mistake })
    }

    /// Why the asset at `path` would be built, or go, if the tree were built now: every reason there is. What was made
    /// beside a source goes by that. Nothing where the tree's rules are not known.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bundle is; [`Error::Io`] when a file of the tree cannot be read.
    pub fn pending(&self, bundle: &Bundle, path: &AssetPath) -> Result<Vec<Because>> {
        if self.mistake.is_some() {
            return Ok(Vec::new());
        }
        let source = self.source(bundle, path)?;
        let now = self.hash(&source)?;
        let (Some(record), Some(now)) = (bundle.find(&source)?, now) else {
            let there = bundle.find(&source)?.is_some();
            return Ok(match (there, now) {
                (false, Some(_)) => vec![Because::New],
                (true, None) => vec![Because::SourceGone],
                _ => Vec::new(),
            });
        };
        let built = bundle.build_record(source.id())?;
        let mut because = Vec::new();
        if built.as_ref().map_or(record.content, |built| built.source) != now {
            because.push(Because::SourceChanged);
        }
        match (self.config.rule(&source), &built) {
            (None, None) => {}
            (Some(rule), Some(built)) => because.extend(rule.differs_from(&built.steps)),
            _ => because.push(Because::TransformChanged),
        }
        for input in built.iter().flat_map(|built| &built.inputs) {
            because.extend(self.differs(input)?);
        }
        Ok(because)
    }

    /// The file that an asset is, or was made beside.
    fn source(&self, bundle: &Bundle, path: &AssetPath) -> Result<AssetPath> {
        if let Some((source, label)) = path.source_and_label()
            && let Some(built) = bundle.build_record(source.id())?
            && built.labels.iter().any(|made| made == label)
        {
            return Ok(source);
        }
        Ok(path.clone())
    }

    fn file(&self, path: &AssetPath) -> Option<&SourceFile> {
        // A scan is in path order.
        self.scan.files.binary_search_by(|file| file.path.cmp(path)).ok().map(|at| &self.scan.files[at])
    }

    /// The hash of the tree's file at `path`; `None` where the tree has none.
    fn hash(&self, path: &AssetPath) -> Result<Option<ContentHash>> {
        let Some(file) = self.file(path) else { return Ok(None) };
        let at = file.at.as_deref().map_or_else(|| self.root.join(path.as_str()), Path::to_owned);
        match self.fs.read(&at) {
            Ok(bytes) => Ok(Some(ContentHash::of(&bytes))),
            Err(error) if super::builder::is_missing(&error) => Ok(None),
            Err(error) => Err(Error::io("read", &at, error)),
        }
    }

    fn differs(&self, input: &BuildInput) -> Result<Option<Because>> {
        Ok(match input {
            BuildInput::Read { path, hash } => match (hash, self.hash(path)?) {
                (None, Some(_)) => Some(Because::InputAppeared { path: path.clone() }),
                (Some(_), None) => Some(Because::InputGone { path: path.clone() }),
                (before, now) => (*before != now).then(|| Because::InputChanged { path: path.clone() }),
            },
            BuildInput::Exists { path, exists } => match (exists, self.file(path).is_some()) {
                (false, true) => Some(Because::InputAppeared { path: path.clone() }),
                (true, false) => Some(Because::InputGone { path: path.clone() }),
                _ => None,
            },
            BuildInput::Listed { folder, names } => {
                let name = folder.as_ref().map_or("", AssetPath::as_str);
                let differs = names_hash(&self.entries(name)) != *names;
                differs.then(|| Because::ListingChanged { folder: name.to_owned() })
            }
        })
    }

    /// What stands directly in a folder.
    fn entries(&self, folder: &str) -> Vec<Entry> {
        let entry = |path: &AssetPath, is_folder| Entry { path: path.clone(), is_folder };
        let files = self.scan.files.iter().map(|file| entry(&file.path, false));
        let folders = self.scan.folders.iter().map(|path| entry(path, true));
        let mut entries: Vec<Entry> = files.chain(folders).filter(|entry| entry.path.folder() == folder).collect();
        entries.sort_unstable();
        entries
    }
}
