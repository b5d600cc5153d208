//! What `flyloft.toml` at the top of a tree says: what to ignore, how to transform, what depends on what, what is where.
//!
//! Every error says `flyloft.toml:LINE:COLUMN` and what was expected there. An unknown key is an error, since a
//! misspelt rule that is silently dropped is worse than one that is refused.

mod glob;
mod ignore;
mod near;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::bundle::BuildStep;
use crate::config::{Place, RuntimeSettings};
use crate::error::Error;
use crate::event::BuildFailure;
use crate::ids::AssetPath;

use super::Because;
use super::scan::Exclude;
use super::transform::{Bound, Identity, TransformRegistry};
use glob::Globs;
pub use ignore::{IGNORE_FILE_NAME, Ignoring};
pub(super) use ignore::{Nearest, Patterns};

/// The name of the file, at the top of the tree.
pub const FILE_NAME: &str = "flyloft.toml";

/// Folders (and the files that stand for them) in which version controls keep their own data. They are no assets,
/// and always ignored, at any depth.
pub const VERSION_CONTROL: [&str; 5] = [".git", ".hg", ".svn", ".jj", ".bzr"];

/// What is wrong with a `flyloft.toml`, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The bytes of the text that it is about; empty where it is about the whole text.
    pub span: Range<usize>,
    /// The line of the first of them, from 1; `None` where it is about the whole text.
    pub line: Option<u32>,
    /// The column of the first of them, in characters from 1.
    pub column: Option<u32>,
    /// What is wrong and what was expected. One line.
    pub message: String,
}

impl Mistake {
    /// As an error: its field says where.
    pub fn into_error(self) -> Error {
        let at = self.line.zip(self.column).map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        Error::config(format!("{FILE_NAME}{at}"), self.message)
    }

    /// It as the failure of the file.
    pub fn into_failure(self) -> BuildFailure {
        let (path, transform) = (FILE_NAME.into(), "config".into());
        BuildFailure { path, line: self.line, column: self.column, transform, cause: self.message }
    }

    /// A mistake about the whole text.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { span: 0..0, line: None, column: None, message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clone().into_error().fmt(f)
    }
}

/// One `[[transform]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    globs: Globs,
    /// The transforms that are run one after the other, each on the bytes that the one before made; at least one.
    steps: Vec<Step>,
}

/// One transform of a rule.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub transform: Bound,
    /// A hash of the parameters that is the same however they were written.
    pub parameters: [u8; 32],
}

impl Rule {
    /// Whether the rule is about this asset.
    pub fn matches(&self, path: &AssetPath) -> bool {
        self.globs.matches(path.as_str(), false)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The names of its transforms, in the order in which they are run.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.transform.name())
    }

    /// Whether what it makes costs much more than reading the file.
    pub(super) fn is_costly(&self) -> bool {
        self.steps.iter().any(|step| step.transform.cached())
    }

    /// What a build record says of it.
    pub fn recorded(&self) -> Vec<BuildStep> {
        let step = |step: &Step| BuildStep {
            transform: step.transform.name().to_owned(),
            version: step.transform.version(),
            parameters: step.parameters,
        };
        self.steps.iter().map(step).collect()
    }

    /// Whether an asset with these steps in its build record was built as it would be by this rule.
    pub fn is_recorded_as(&self, steps: &[BuildStep]) -> bool {
        self.steps.len() == steps.len()
            && self.steps.iter().zip(steps).all(|(step, recorded)| {
                step.transform.name() == recorded.transform
                    && step.transform.version() == recorded.version
                    && step.parameters == recorded.parameters
            })
    }

    /// How an asset with these steps in its build record was built otherwise than by this rule.
    pub(super) fn differs_from(&self, steps: &[BuildStep]) -> Option<Because> {
        if self.is_recorded_as(steps) {
            return None;
        }
        let same = |(step, recorded): (&Step, &BuildStep)| {
            step.transform.name() == recorded.transform && step.transform.version() == recorded.version
        };
        let same = self.steps.len() == steps.len() && self.steps.iter().zip(steps).all(same);
        Some(if same { Because::ParametersChanged } else { Because::TransformChanged })
    }

    /// Whether it leaves files as they are.
    fn is_identity(&self) -> bool {
        self.names().all(|name| name == Identity::NAME)
    }
}

/// A hash of a transform's parameters that is the same however they were written; all zero when there are none.
/// It is kept in bundles, so how values are fed to it may not change.
pub fn parameters_hash(parameters: &toml::Table) -> [u8; 32] {
    if parameters.is_empty() {
        return [0; 32];
    }
    let mut hasher = blake3::Hasher::new();
    feed_table(&mut hasher, parameters);
    *hasher.finalize().as_bytes()
}

/// Each value as a letter for its type, then its bytes; what has no fixed length after its length.
fn feed(hasher: &mut blake3::Hasher, value: &toml::Value) {
    match value {
        toml::Value::String(text) => feed_bytes(hasher, b's', text.as_bytes()),
        toml::Value::Integer(integer) => drop(hasher.update(b"i").update(&integer.to_le_bytes())),
        toml::Value::Float(float) => drop(hasher.update(b"f").update(&float.to_bits().to_le_bytes())),
        toml::Value::Boolean(value) => drop(hasher.update(b"b").update(&[u8::from(*value)])),
        toml::Value::Datetime(value) => feed_bytes(hasher, b'd', value.to_string().as_bytes()),
        toml::Value::Array(items) => {
            hasher.update(b"a").update(&(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(hasher, item));
        }
        toml::Value::Table(table) => feed_table(hasher, table),
    }
}

/// A table keeps its keys in order.
fn feed_table(hasher: &mut blake3::Hasher, table: &toml::Table) {
    hasher.update(b"t").update(&(table.len() as u64).to_le_bytes());
    for (key, value) in table {
        feed_bytes(hasher, b'k', key.as_bytes());
        feed(hasher, value);
    }
}

fn feed_bytes(hasher: &mut blake3::Hasher, letter: u8, bytes: &[u8]) {
    hasher.update(&[letter]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// A whole `flyloft.toml`. The default is that of a tree without one.
#[derive(Clone, Debug, Default)]
pub struct TreeConfig {
    ignore: Patterns,
    rules: Vec<Rule>,
    dependencies: BTreeMap<AssetPath, Vec<AssetPath>>,
    places: Vec<(AssetPath, Place)>,
    runtime: RuntimeSettings,
}

impl TreeConfig {
    /// Every mistake in the text of a `flyloft.toml`, in the order of the text: for who shows them.
    pub fn mistakes(text: &str, registry: &TransformRegistry) -> Vec<Mistake> {
        parse::tree_config(text, registry).1
    }

    /// Reads the text of a `flyloft.toml`, whose rules may name the transforms of `registry` with parameters that these
    /// take.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str, registry: &TransformRegistry) -> Result<Self, Mistake> {
        let (config, mistakes) = parse::tree_config(text, registry);
        mistakes.into_iter().next().map_or(Ok(config), Err)
    }

    /// What is ignored, without the ignore files of the tree; `exclude` is our own output.
    pub(super) fn ignoring(&self, exclude: &Exclude) -> Ignoring {
        Ignoring::new(self.ignore.clone(), exclude.clone())
    }

    /// Whether the file or folder at this path, relative to the tree and `/`-separated, is ignored, as far as
    /// `flyloft.toml` says: it or a folder above it is a version control's own or matches a pattern of `ignore`.
    pub fn ignores(&self, path: &str, is_folder: bool) -> bool {
        self.ignoring(&Exclude::default()).ignores(path, is_folder)
    }

    /// The rule for this asset: of those that match, the last one, so that exceptions stand below what they except.
    /// `None` where no rule matches or the last one says `identity`.
    pub fn rule(&self, path: &AssetPath) -> Option<&Rule> {
        self.rules.iter().rev().find(|rule| rule.matches(path)).filter(|rule| !rule.is_identity())
    }

    /// Every rule, as written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What `[deps]` says that this asset uses.
    pub fn dependencies(&self, path: &AssetPath) -> &[AssetPath] {
        self.dependencies.get(path).map_or(&[], Vec::as_slice)
    }

    /// What `[places]` says, in path order.
    pub fn places(&self) -> &[(AssetPath, Place)] {
        &self.places
    }

    /// What `[runtime]` sets: for whoever starts a runtime over the tree.
    pub fn runtime(&self) -> &RuntimeSettings {
        &self.runtime
    }

    /// All of `[deps]`.
    pub fn all_dependencies(&self) -> impl Iterator<Item = (&AssetPath, &[AssetPath])> {
        self.dependencies.iter().map(|(path, uses)| (path, uses.as_slice()))
    }
}

#[cfg(test)]
mod tests;
