//! The transforms that rules may name, and one bound to the parameters of a rule.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

#[cfg(feature = "compress")]
use super::Compress;
use super::{Command, Context, Identity, Input, MinifyJson, MinifyText, Output, Transform, one_line};
#[cfg(feature = "minify")]
use super::{Data, MinifyCss, MinifyHtml};
use crate::error::{Error, Result};

/// Built-in transforms that are there with a feature of this crate alone, each with the feature.
const FEATURES: [(&str, &str); 7] = [
    ("compress", "compress"),
    ("data", "minify"),
    ("gltf", "gltf"),
    ("image", "image"),
    ("minify-css", "minify"),
    ("minify-html", "minify"),
    ("shader", "shaders"),
];

/// Longest name of a transform, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why parameters are refused, and where in the text.
#[derive(Debug)]
pub(in crate::build) struct Refused {
    pub span: Option<Range<usize>>,
    pub message: String,
}

type Parameters = Box<dyn Any + Send + Sync>;

/// A transform whose type of parameters is no longer known to who holds it.
trait Erased: Send + Sync {
    fn name(&self) -> &str;
    fn version(&self) -> u32;
    fn cached(&self) -> bool;
    fn parse(&self, table: Spanned<DeTable<'_>>) -> Result<Parameters, Refused>;
    /// `parameters` are what [`Erased::parse`] of the same transform answered.
    fn run(&self, input: Input<'_>, parameters: &(dyn Any + Send + Sync), context: &mut dyn Context) -> Result<Output>;
}

impl<T: Transform> Erased for T {
    fn name(&self) -> &str {
        Transform::name(self)
    }

    fn version(&self) -> u32 {
        Transform::version(self)
    }

    fn cached(&self) -> bool {
        Transform::cached(self)
    }

    fn parse(&self, table: Spanned<DeTable<'_>>) -> Result<Parameters, Refused> {
        let keys: Vec<(String, Range<usize>)> =
            table.get_ref().keys().map(|key| (key.get_ref().to_string(), key.span())).collect();
        let whole = table.span();
        let parameters = T::Parameters::deserialize(toml::de::Deserializer::from(table))
            .map_err(|error| Refused { span: error.span(), message: one_line(error.message().to_owned()) })?;
        self.check(&parameters).map_err(|message| {
            let named = keys.into_iter().find(|(key, _)| message.contains(&format!("'{key}'")));
            Refused { span: Some(named.map_or(whole, |(_, span)| span)), message: one_line(message) }
        })?;
        Ok(Box::new(parameters))
    }

    fn run(&self, input: Input<'_>, parameters: &(dyn Any + Send + Sync), context: &mut dyn Context) -> Result<Output> {
        let Some(parameters) = parameters.downcast_ref::<T::Parameters>() else {
            return Err(input.error(Transform::name(self), None, "its parameters are of another type"));
        };
        Transform::run(self, input, parameters, context)
    }
}

/// A transform with the parameters of a rule.
#[derive(Clone)]
pub(in crate::build) struct Bound {
    transform: Arc<dyn Erased>,
    parameters: Arc<dyn Any + Send + Sync>,
}

impl Bound {
    pub fn name(&self) -> &str {
        self.transform.name()
    }

    pub fn version(&self) -> u32 {
        self.transform.version()
    }

    /// Whether what it makes is worth a place in the action cache.
    pub fn cached(&self) -> bool {
        self.transform.cached()
    }

    pub fn run(&self, input: Input<'_>, context: &mut dyn Context) -> Result<Output> {
        self.transform.run(input, &*self.parameters, context)
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.version())
    }
}

/// The transforms that rules may name.
#[derive(Clone, Default)]
pub struct TransformRegistry {
    by_name: HashMap<Box<str>, Arc<dyn Erased>, RandomState>,
}

impl TransformRegistry {
    /// No transform at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The built-in ones, as far as the features of this crate go.
    pub fn with_builtins() -> Self {
        let mut registry = Self::new();
        registry.builtins().expect("the built-in names are valid and differ");
        registry
    }

    fn builtins(&mut self) -> Result<()> {
        self.register(Identity)?;
        self.register(MinifyJson)?;
        self.register(MinifyText)?;
        self.register(Command::refused())?;
        #[cfg(feature = "minify")]
        {
            self.register(MinifyCss)?;
            self.register(MinifyHtml)?;
            self.register(Data)?;
        }
        #[cfg(feature = "compress")]
        self.register(Compress)?;
        #[cfg(feature = "gltf")]
        self.register(super::Gltf)?;
        #[cfg(feature = "image")]
        self.register(super::Image)?;
        #[cfg(feature = "shaders")]
        self.register(super::Shader)?;
        Ok(())
    }

    /// Lets rules run the programs that they name, as whoever runs this: see [`Command`]. Until then each is refused.
    pub fn allow_commands(&mut self) {
        self.by_name.insert(Command::NAME.into(), Arc::new(Command::allowed()));
    }

    /// Adds a transform.
    ///
    /// # Errors
    /// [`Error::Config`] when its name is not one, or is taken, or its version is 0.
    pub fn register<T: Transform>(&mut self, transform: T) -> Result<()> {
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
        self.by_name.insert(name.into(), Arc::new(transform));
        Ok(())
    }

    /// Runs the transform of this name once, without a rule: for tests and tools.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no transform of the name, [`Error::Build`] when its parameters are of another type
    /// than `P` or it fails.
    pub fn call<P: Send + Sync + 'static>(
        &self,
        name: &str,
        input: Input<'_>,
        parameters: &P,
        context: &mut dyn Context,
    ) -> Result<Output> {
        let transform = self.by_name.get(name);
        let transform =
            transform.ok_or_else(|| Error::config("transform", format!("no transform is named '{name}'")))?;
        transform.run(input, parameters, context)
    }

    /// Whether there is a transform of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The version of the transform of this name.
    pub fn version(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).map(|transform| transform.version())
    }

    /// Every name, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Why a rule cannot name this one, of which there is none.
    pub(in crate::build) fn unknown(&self, name: &str) -> String {
        match FEATURES.iter().find(|(known, _)| *known == name) {
            Some((_, feature)) => format!(
                "the transform '{name}' is not built in: build with the feature '{feature}', or with 'transforms' for \
                 all of them"
            ),
            None => format!("no transform is named '{name}'; expected one of {}", self.names().join(", ")),
        }
    }

    /// The transform of this name with the parameters of a table; `None` when there is none of the name.
    pub(in crate::build) fn bind(
        &self,
        name: &str,
        parameters: Spanned<DeTable<'_>>,
    ) -> Option<Result<Bound, Refused>> {
        let transform = Arc::clone(self.by_name.get(name)?);
        Some(transform.parse(parameters).map(|parameters| Bound { transform, parameters: parameters.into() }))
    }
}

impl fmt::Debug for TransformRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.names().into_iter().map(|name| (name, self.version(name)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NoFiles, NoParameters};
    use super::*;
    use crate::ids::AssetPath;

    struct Named(&'static str, u32);

    impl Transform for Named {
        type Parameters = NoParameters;
        fn name(&self) -> &str {
            self.0
        }
        fn version(&self) -> u32 {
            self.1
        }
        fn run(&self, input: Input<'_>, _: &NoParameters, _context: &mut dyn Context) -> Result<Output> {
            Ok(input.bytes.to_vec().into())
        }
    }

    #[test]
    fn a_call_by_name_is_refused_parameters_of_another_type() {
        let registry = TransformRegistry::with_builtins();
        let path = AssetPath::new("a.txt").unwrap();
        let input = Input { path: &path, bytes: b"text" };
        let called = registry.call("identity", input, &NoParameters {}, &mut NoFiles);
        assert_eq!(called.unwrap().bytes, b"text");
        let error = registry.call("identity", input, &7_u32, &mut NoFiles).unwrap_err().to_string();
        assert_eq!(error, "a.txt: identity: its parameters are of another type");
        let error = registry.call("identical", input, &NoParameters {}, &mut NoFiles).unwrap_err().to_string();
        assert_eq!(error, "transform: no transform is named 'identical'");
    }

    #[test]
    fn what_a_feature_would_bring_is_told_with_the_feature() {
        let mut registry = TransformRegistry::new();
        let expected = "the transform 'shader' is not built in: build with the feature 'shaders', or with 'transforms' \
                        for all of them";
        assert_eq!(registry.unknown("shader"), expected);
        registry.register(Identity).unwrap();
        assert_eq!(registry.unknown("shaders"), "no transform is named 'shaders'; expected one of identity");
        let builtin = TransformRegistry::with_builtins();
        for (name, feature) in FEATURES {
            let enabled = match feature {
                "compress" => cfg!(feature = "compress"),
                "gltf" => cfg!(feature = "gltf"),
                "image" => cfg!(feature = "image"),
                "minify" => cfg!(feature = "minify"),
                "shaders" => cfg!(feature = "shaders"),
                other => panic!("{other}"),
            };
            assert_eq!(builtin.contains(name), enabled, "{name}");
        }
    }

    #[test]
    fn a_name_is_registered_once_and_must_be_a_name() {
        let mut registry = TransformRegistry::new();
        registry.register(Named("mine", 3)).unwrap();
        registry.register(Identity).unwrap();
        assert_eq!(registry.names(), ["identity", "mine"]);
        assert!(registry.contains("mine") && !registry.contains("other"));
        assert_eq!((registry.version("mine"), registry.version("other")), (Some(3), None));
        let mut check = |transform: Named, expected: &str| {
            let error = registry.register(transform).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Named("mine", 2), "'mine' is registered already");
        check(Named("No Spaces", 1), "is not a name");
        check(Named("", 1), "is not a name");
        check(Named("zero", 0), "versions count from 1");
    }
}
