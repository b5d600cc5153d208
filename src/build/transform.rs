//! Functions from source bytes to built bytes: registered by name, versioned, chosen by glob in `flyloft.toml`.

mod identity;
mod minify_json;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::AssetPath;

pub use identity::Identity;
pub use minify_json::MinifyJson;

/// Longest name of a transform, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a transform works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The asset's path.
    pub path: &'a AssetPath,
    /// The source bytes.
    pub bytes: &'a [u8],
    /// The parameters that the rule gives; checked by [`Transform::validate`] before.
    pub parameters: &'a toml::Table,
}

impl Input<'_> {
    /// The error that says that this source does not build, and where.
    pub fn error(&self, transform: &str, line: Option<u32>, cause: impl Into<String>) -> Error {
        Error::Build {
            path: self.path.as_str().to_owned(),
            line,
            transform: transform.to_owned(),
            cause: one_line(cause.into()),
        }
    }
}

/// What a transform may look at besides its input. Everything read is a dependency: the asset is built again when it
/// changes.
pub trait Context {
    /// The source bytes of another file of the tree; `None` when there is none, and then the asset is built again
    /// once there is.
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>>;
}

/// A versioned function from source bytes to built bytes.
///
/// It must be pure: the same input, parameters and files read give the same bytes, on every machine. Whoever changes
/// what it does raises its version, which builds every asset again that it made.
pub trait Transform: Send + Sync {
    /// The name that a rule gives: lower-case letters, digits and hyphens.
    fn name(&self) -> &str;

    /// Its version, from 1.
    fn version(&self) -> u32;

    /// Checks the parameters of a rule.
    ///
    /// # Errors
    /// [`Error::Config`] that names the parameter. [`only_parameters`] refuses unknown ones.
    fn validate(&self, parameters: &toml::Table) -> Result<()>;

    /// Builds one asset. Runs on a build thread; may run for several assets at once.
    ///
    /// # Errors
    /// [`Error::Build`], best made with [`Input::error`]: the last good version of the asset stays.
    fn run(&self, input: Input<'_>, context: &mut dyn Context) -> Result<Vec<u8>>;
}

/// Refuses every parameter that is not one of `known`, by name.
///
/// # Errors
/// [`Error::Config`] that names the first unknown parameter and the known ones.
pub fn only_parameters(transform: &str, parameters: &toml::Table, known: &[&str]) -> Result<()> {
    let Some(unknown) = parameters.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let expected = if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
    Err(Error::config(unknown.clone(), format!("'{transform}' has no such parameter; {expected}")))
}

/// The transforms that rules may name.
#[derive(Clone, Default)]
pub struct TransformRegistry {
    by_name: BTreeMap<String, Arc<dyn Transform>>,
}

impl TransformRegistry {
    /// No transform at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The built-in ones: `identity` and `minify-json`.
    pub fn with_builtins() -> Self {
        let mut registry = Self::new();
        let builtins: [Arc<dyn Transform>; 2] = [Arc::new(Identity), Arc::new(MinifyJson)];
        for transform in builtins {
            registry.register(transform).expect("the built-in names are valid and differ");
        }
        registry
    }

    /// Adds a transform.
    ///
    /// # Errors
    /// [`Error::Config`] when its name is not one, or is taken, or its version is 0.
    pub fn register(&mut self, transform: Arc<dyn Transform>) -> Result<()> {
        let name = transform.name();
        let spelled = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(spelled) {
            let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
            return Err(Error::config(
                "transform",
                format!("{shown:?} is not a name: up to {NAME_BYTES_MAX} lower-case letters, digits and hyphens"),
            ));
        }
        if transform.version() == 0 {
            return Err(Error::config("transform", format!("'{name}' has version 0; versions count from 1")));
        }
        if self.by_name.contains_key(name) {
            return Err(Error::config("transform", format!("'{name}' is registered already")));
        }
        self.by_name.insert(name.to_owned(), transform);
        Ok(())
    }

    /// The transform of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Transform>> {
        self.by_name.get(name)
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for TransformRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.by_name.iter().map(|(name, transform)| (name, transform.version()))).finish()
    }
}

/// Errors are one line.
pub(super) fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text }
}

/// A context without other files, for tests of transforms.
#[cfg(test)]
pub(crate) struct NoFiles;

#[cfg(test)]
impl Context for NoFiles {
    fn read(&mut self, _path: &AssetPath) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, u32);

    impl Transform for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn version(&self) -> u32 {
            self.1
        }
        fn validate(&self, parameters: &toml::Table) -> Result<()> {
            only_parameters(self.0, parameters, &["level", "mode"])
        }
        fn run(&self, input: Input<'_>, _context: &mut dyn Context) -> Result<Vec<u8>> {
            Err(input.error(self.0, Some(7), "first\nsecond"))
        }
    }

    #[test]
    fn a_name_is_registered_once_and_must_be_a_name() {
        let mut registry = TransformRegistry::with_builtins();
        assert_eq!(registry.names().collect::<Vec<_>>(), ["identity", "minify-json"]);
        registry.register(Arc::new(Named("mine", 1))).unwrap();
        assert!(registry.get("mine").is_some() && registry.get("other").is_none());
        let mut check = |transform: Named, expected: &str| {
            let error = registry.register(Arc::new(transform)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Named("mine", 2), "'mine' is registered already");
        check(Named("No Spaces", 1), "is not a name");
        check(Named("", 1), "is not a name");
        check(Named("zero", 0), "versions count from 1");
    }

    #[test]
    fn an_unknown_parameter_is_refused_by_name_with_the_known_ones() {
        let parameters: toml::Table = toml::from_str("level = 1\nmod = 'x'").unwrap();
        let error = Named("mine", 1).validate(&parameters).unwrap_err().to_string();
        assert_eq!(error, "mod: 'mine' has no such parameter; it takes level, mode");
    }

    #[test]
    fn a_failure_is_one_line_with_the_file_and_its_line() {
        let path = AssetPath::new("a/b.txt").unwrap();
        let input = Input { path: &path, bytes: b"", parameters: &toml::Table::new() };
        let error = Named("mine", 1).run(input, &mut NoFiles).unwrap_err();
        assert_eq!(error.to_string(), "a/b.txt:7: mine: first second");
    }
}
