//! Functions from source bytes to built bytes: registered by name, versioned, chosen by glob in `flyloft.toml`.

mod command;
#[cfg(feature = "compress")]
mod compress;
#[cfg(feature = "minify")]
mod data;
#[cfg(feature = "gltf")]
mod gltf;
mod identity;
#[cfg(feature = "image")]
mod image;
#[cfg(feature = "minify")]
mod minify_css;
#[cfg(feature = "minify")]
mod minify_html;
mod minify_json;
mod minify_text;
mod registry;
#[cfg(feature = "shaders")]
mod shader;
mod text;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::ids::{AssetKind, AssetPath};

#[cfg(feature = "gltf")]
pub use self::gltf::Gltf;
#[cfg(feature = "image")]
pub use self::image::{
    Color as ImageColor, Filter as ImageFilter, Flip as ImageFlip, Format as ImageFormat, Image, ImageParameters,
};
pub use command::{Command, CommandParameters};
#[cfg(feature = "compress")]
pub use compress::{Coding, Compress, CompressParameters};
#[cfg(feature = "minify")]
pub use data::{Data, DataFormat, DataOutput, DataParameters};
pub use identity::Identity;
#[cfg(feature = "minify")]
pub use minify_css::MinifyCss;
#[cfg(feature = "minify")]
pub use minify_html::{HtmlParameters, MinifyHtml};
pub use minify_json::MinifyJson;
pub use minify_text::{LineEnds, MinifyText, TextParameters};
pub(super) use registry::Bound;
pub use registry::TransformRegistry;
#[cfg(feature = "shaders")]
pub use shader::{Language as ShaderLanguage, Shader, ShaderParameters, Stage as ShaderStage, Target as ShaderTarget};

/// What a transform works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The asset's path.
    pub path: &'a AssetPath,
    /// The source bytes; in a rule of several steps those that the step before made.
    pub bytes: &'a [u8],
}

impl Input<'_> {
    /// The error that says that this source does not build, and in which line.
    pub fn error(&self, transform: &str, line: Option<u32>, cause: impl Into<String>) -> Error {
        self.failure(transform, line, None, cause.into())
    }

    /// The error that says that this source does not build, and where: line and column count from 1.
    pub fn error_at(&self, transform: &str, line: u32, column: u32, cause: impl Into<String>) -> Error {
        self.failure(transform, Some(line), Some(column), cause.into())
    }

    fn failure(&self, transform: &str, line: Option<u32>, column: Option<u32>, cause: String) -> Error {
        Error::Build {
            path: self.path.as_str().to_owned(),
            line,
            column,
            transform: transform.to_owned(),
            cause: one_line(cause),
        }
    }
}

/// Something that stands directly in a folder of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its path, from the top of the tree.
    pub path: AssetPath,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// What a transform may look at besides its input. Whatever it looks at is a dependency: the asset is built again when
/// the answer would be another one.
pub trait Context {
    /// The source bytes of another file of the tree; `None` when there is none, and then the asset is built again
    /// once there is.
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>>;

    /// Whether the tree has such a file: a dependency on its existence alone, not on its bytes.
    fn exists(&mut self, path: &AssetPath) -> bool;

    /// What stands directly in a folder ("" is the top of the tree), in path order: a dependency on which names are
    /// there, not on what they hold. Nothing when there is no such folder.
    fn list(&mut self, folder: &str) -> Vec<Entry>;
}

/// What a transform makes of one input: the asset's own bytes, and perhaps assets of their own beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The built bytes of the asset itself.
    pub bytes: Vec<u8>,
    /// Further assets, at `SOURCE#LABEL`. They are read, change and go by themselves.
    pub labelled: Vec<Labelled>,
    /// What the built asset refers to besides what was read and what its source names.
    pub dependencies: Vec<AssetPath>,
}

/// An asset that a transform makes beside the one that it builds: `scene.gltf#mesh/0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// What stands behind the `#`: parts as those of an [`AssetPath`], and no other `#`. The labels of a source differ.
    pub label: String,
    /// What it is; by its extension where this is `None`.
    pub kind: Option<AssetKind>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it refers to.
    pub dependencies: Vec<AssetPath>,
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, labelled: Vec::new(), dependencies: Vec::new() }
    }
}

/// A versioned function from source bytes to built bytes.
///
/// It must be pure: the same input, parameters and files looked at give the same bytes, on every machine. Whoever
/// changes what it does raises its version, which builds every asset again that it made.
///
/// ```
/// use flyloft::build::transform::{Context, Input, Output, Transform, TransformRegistry};
///
/// struct Shout;
///
/// /// The parameters that a rule of flyloft.toml may give.
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Loudness {
///     #[serde(default)]
///     marks: u8,
/// }
///
/// impl Transform for Shout {
///     type Parameters = Loudness;
///     fn name(&self) -> &str {
///         "shout"
///     }
///     fn version(&self) -> u32 {
///         1
///     }
///     fn run(&self, input: Input<'_>, loudness: &Loudness, _: &mut dyn Context) -> flyloft::Result<Output> {
///         let mut bytes = input.bytes.to_ascii_uppercase();
///         bytes.extend(std::iter::repeat_n(b'!', loudness.marks.into()));
///         Ok(bytes.into())
///     }
/// }
///
/// TransformRegistry::with_builtins().register(Shout)?;
/// # Ok::<(), flyloft::Error>(())
/// ```
pub trait Transform: Send + Sync + 'static {
    /// What a rule of `flyloft.toml` may set, read once for each rule. Give every field a default where one makes
    /// sense, and refuse what is not known with `#[serde(deny_unknown_fields)]`, so that a misspelt parameter is an
    /// error at its place.
    type Parameters: DeserializeOwned + Send + Sync + 'static;

    /// The name that a rule gives: lower-case letters, digits and hyphens.
    fn name(&self) -> &str;

    /// Its version, from 1.
    fn version(&self) -> u32;

    /// Checks what the type of the parameters cannot say.
    ///
    /// # Errors
    /// What is wrong and what is expected, with the parameter's name in quotes: `'quality' is 200; expected 1 to 100`.
    fn check(&self, _parameters: &Self::Parameters) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Whether what it makes is worth a place in the action cache. Default yes; a transform that costs little more than
    /// reading a file says no.
    fn cached(&self) -> bool {
        true
    }

    /// Builds one asset. Runs on a build thread; may run for several assets at once.
    ///
    /// # Errors
    /// [`Error::Build`], best made with [`Input::error`]: the last good version of the asset stays.
    fn run(&self, input: Input<'_>, parameters: &Self::Parameters, context: &mut dyn Context) -> Result<Output>;
}

/// For transforms without parameters.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// Errors are one line.
pub(super) fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text }
}

/// A context without other files: to call a transform by itself, and for tests of transforms.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Context for NoFiles {
    fn read(&mut self, _path: &AssetPath) -> Option<Vec<u8>> {
        None
    }
    fn exists(&mut self, _path: &AssetPath) -> bool {
        false
    }
    fn list(&mut self, _folder: &str) -> Vec<Entry> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_the_file_and_the_place() {
        let path = AssetPath::new("a/b.txt").unwrap();
        let input = Input { path: &path, bytes: b"" };
        let check = |error: Error, expected: &str| assert_eq!(error.to_string(), expected);
        check(input.error("mine", Some(7), "first\nsecond"), "a/b.txt:7: mine: first second");
        check(input.error("mine", None, "first"), "a/b.txt: mine: first");
        check(input.error_at("mine", 7, 3, "first"), "a/b.txt:7:3: mine: first");
    }
}
