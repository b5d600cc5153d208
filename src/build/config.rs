//! What `flyloft.toml` at the top of a tree says: what to ignore, how to transform, what depends on what.
//!
//! Every error says `flyloft.toml:LINE:COLUMN` and what was expected there. An unknown key is an error, since a
//! misspelt rule that is silently dropped is worse than one that is refused.

mod glob;
mod ignore;
mod parse;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::ids::AssetPath;

use super::scan::Exclude;
use super::transform::{Identity, TransformRegistry};
use glob::Globs;
pub use ignore::{IGNORE_FILE_NAME, Ignoring};
pub(super) use ignore::{Nearest, Patterns};

/// The name of the file, at the top of the tree.
pub const FILE_NAME: &str = "flyloft.toml";

/// Folders (and the files that stand for them) in which version controls keep their own data. They are no assets,
/// and always ignored, at any depth.
pub const VERSION_CONTROL: [&str; 5] = [".git", ".hg", ".svn", ".jj", ".bzr"];

/// One `[[transform]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    globs: Globs,
    /// The transform's name.
    pub name: String,
    /// Its parameters.
    pub parameters: toml::Table,
    /// Where the rule's name stands: `flyloft.toml:LINE:COLUMN`.
    pub place: String,
    /// Where each parameter stands, by name.
    parameter_places: BTreeMap<String, String>,
}

impl Rule {
    /// Whether the rule is about this asset.
    pub fn matches(&self, path: &AssetPath) -> bool {
        self.globs.matches(path.as_str(), false)
    }

    /// A hash of the parameters that is the same however they were written.
    pub fn parameters_hash(&self) -> [u8; 32] {
        parameters_hash(&self.parameters)
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
}

impl TreeConfig {
    /// Reads the text of a `flyloft.toml`.
    ///
    /// # Errors
    /// [`Error::Config`] with the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self> {
        parse::tree_config(text)
    }

    /// Checks that every rule names a transform that is registered and gives it parameters that it takes.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of the first that does not.
    pub fn check(&self, registry: &TransformRegistry) -> Result<()> {
        for rule in &self.rules {
            let Some(transform) = registry.get(&rule.name) else {
                let known: Vec<&str> = registry.names().collect();
                return Err(Error::config(
                    &rule.place,
                    format!("no transform is named '{}'; expected one of {}", rule.name, known.join(", ")),
                ));
            };
            if let Err(error) = transform.validate(&rule.parameters) {
                return Err(match error {
                    Error::Config { field, why } => {
                        let place = rule.parameter_places.get(&field).unwrap_or(&rule.place);
                        Error::config(place, format!("parameter '{field}': {why}"))
                    }
                    other => Error::config(&rule.place, other.to_string()),
                });
            }
        }
        Ok(())
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
        self.rules.iter().rev().find(|rule| rule.matches(path)).filter(|rule| rule.name != Identity::NAME)
    }

    /// Every rule, as written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What `[deps]` says that this asset uses.
    pub fn dependencies(&self, path: &AssetPath) -> &[AssetPath] {
        self.dependencies.get(path).map_or(&[], Vec::as_slice)
    }

    /// All of `[deps]`.
    pub fn all_dependencies(&self) -> impl Iterator<Item = (&AssetPath, &[AssetPath])> {
        self.dependencies.iter().map(|(path, uses)| (path, uses.as_slice()))
    }
}

#[cfg(test)]
mod tests;
