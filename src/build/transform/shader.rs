//! `shader`: WGSL and GLSL with their includes resolved, parsed and validated, and perhaps translated.
//!
//! An error names the file and line in which it stands, also in an included one.

mod include;

use std::collections::BTreeMap;

use naga::back::{spv, wgsl};
use naga::front::glsl;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, Span};
use serde::Deserialize;

use super::{Context, Input, Output, Transform};
use crate::error::{Error, Result};
use crate::ids::AssetPath;
use crate::platform::threads;

use include::{Origin, Whole};

/// How deep brackets may nest. The parsers go as deep, by calling themselves.
const NESTING_MAX: usize = 64;
/// The most operators of one expression, between brackets, commas and semicolons: each may be a step deeper.
const OPERATORS_MAX: usize = 1000;
/// The most `else` of one block: a chain of them is as deep as it is long.
const ELSE_MAX: usize = 1000;
/// A stack on which what is within these bounds is parsed, validated and written, also by an unoptimised build.
const STACK_BYTES: usize = 64 << 20;

/// The transform `shader`; see [`ShaderParameters`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Shader;

impl Shader {
    /// Its name.
    pub const NAME: &'static str = "shader";
}

/// What a shader is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// That of WebGPU.
    Wgsl,
    /// That of Vulkan: `#version 440` and above.
    Glsl,
}

/// Which stage a GLSL shader is for. A WGSL shader says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `.vert`
    Vertex,
    /// `.frag`
    Fragment,
    /// `.comp`
    Compute,
}

/// What is made of a shader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Its source with all that it includes. The default.
    #[default]
    Source,
    /// WGSL, whatever it was written in.
    Wgsl,
    /// SPIR-V 1.0, little-endian, without names.
    Spirv,
}

/// What a rule asks of a shader.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShaderParameters {
    /// What it is written in. Default: by its extension, `wgsl` or `glsl`, `vert`, `frag`, `comp` and the like.
    pub language: Option<Language>,
    /// The stage of a GLSL shader. Default: by its name, such as `sky.frag` or `sky.frag.glsl`.
    pub stage: Option<Stage>,
    /// What is made of it. Default `source`.
    pub output: Target,
    /// Whether it is parsed and validated. Without that only includes are resolved, in any language. Default `true`.
    pub check: bool,
    /// Folders, from the top of the tree, in which includes are looked up. Default none.
    pub include_folders: Vec<String>,
    /// What GLSL is told by `#define`, by name. Default none.
    pub defines: BTreeMap<String, String>,
}

impl Default for ShaderParameters {
    fn default() -> Self {
        Self {
            language: None,
            stage: None,
            output: Target::Source,
            check: true,
            include_folders: Vec::new(),
            defines: BTreeMap::new(),
        }
    }
}

impl Transform for Shader {
    type Parameters = ShaderParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, parameters: &ShaderParameters) -> std::result::Result<(), String> {
        if !parameters.check && parameters.output != Target::Source {
            return Err(
                "'check' is false; what is not checked cannot be translated: expected 'output' = \"source\"".into()
            );
        }
        if let Some(folder) = parameters.include_folders.iter().find(|folder| AssetPath::new(folder).is_err()) {
            return Err(format!("'include_folders' has {folder:?}; expected paths from the top of the tree"));
        }
        let is_name = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
        };
        if let Some(name) = parameters.defines.keys().find(|name| !is_name(name)) {
            return Err(format!("'defines' has {name:?}; expected letters, digits and underscores"));
        }
        if let Some((name, _)) = parameters.defines.iter().find(|(_, value)| value.contains(['\n', '\r', '\\'])) {
            return Err(format!("'defines' has more than a line of text for {name:?}"));
        }
        if parameters.language == Some(Language::Wgsl) && !parameters.defines.is_empty() {
            return Err("'defines' are for GLSL; WGSL has none".into());
        }
        Ok(())
    }

    fn run(&self, input: Input<'_>, parameters: &ShaderParameters, context: &mut dyn Context) -> Result<Output> {
        let refuse = |cause: &str| input.error(Self::NAME, None, cause);
        let text = std::str::from_utf8(input.bytes).map_err(|_| refuse("it is not UTF-8"))?;
        let language = parameters.language.or_else(|| language_of(input.path));
        let comments_nest = language == Some(Language::Wgsl);
        let mut whole = include::whole(input.path, text, &parameters.include_folders, comments_nest, context)
            .map_err(|broken| failure(input, &broken.file, broken.origin, None, broken.cause))?;
        if !parameters.defines.is_empty() {
            if language == Some(Language::Wgsl) {
                return Err(refuse("the rule gives 'defines', which are for GLSL; WGSL has none"));
            }
            let lines = parameters.defines.iter().map(|(name, value)| format!("#define {name} {value}"));
            whole.define(&lines.collect::<Vec<_>>());
        }
        if !parameters.check {
            return Ok(whole.text.into_bytes().into());
        }
        let language = language.ok_or_else(|| {
            refuse("its extension does not say what it is written in: give 'language', \"wgsl\" or \"glsl\"")
        })?;
        let stage = parameters.stage.or_else(|| stage_of(input.path));
        let text = &whole.text;
        let translated = bounded(text).and_then(|()| {
            let translate = || translate(text, language, stage, parameters.output);
            let refuse = |error| Fault { at: None, cause: format!("no thread to parse it on: {error}") };
            threads::with_stack(STACK_BYTES, translate).map_err(refuse)?
        });
        match translated {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Ok(whole.text.into_bytes().into()),
            Err(fault) => Err(fault.in_the_sources(input, &whole)),
        }
    }
}

/// Checks a shader and makes of it what is asked for; `None` when that is the text itself.
fn translate(
    text: &str,
    language: Language,
    stage: Option<Stage>,
    target: Target,
) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let (module, info) = checked(text, language, stage)?;
    let refuse = |format: &str, error: &dyn std::error::Error| Fault {
        at: None,
        cause: format!("it cannot be written as {format}: {}", causes(error)),
    };
    Ok(match (target, language) {
        (Target::Source, _) | (Target::Wgsl, Language::Wgsl) => None,
        (Target::Wgsl, Language::Glsl) => {
            let text = wgsl::write_string(&module, &info, wgsl::WriterFlags::empty());
            Some(text.map_err(|error| refuse("WGSL", &error))?.into_bytes())
        }
        (Target::Spirv, _) => {
            // What the library chooses by itself, but for what depends on how it was built.
            let options = spv::Options {
                flags: spv::WriterFlags::ADJUST_COORDINATE_SPACE | spv::WriterFlags::CLAMP_FRAG_DEPTH,
                fake_missing_bindings: false,
                ..spv::Options::default()
            };
            let words = spv::write_vec(&module, &info, &options, None).map_err(|error| refuse("SPIR-V", &error))?;
            Some(words.into_iter().flat_map(u32::to_le_bytes).collect())
        }
    })
}

/// What is wrong, and where in the whole text.
struct Fault {
    at: Option<usize>,
    cause: String,
}

impl Fault {
    fn new(span: Option<Span>, cause: String) -> Self {
        Self { at: span.and_then(Span::to_range).map(|range| range.start), cause }
    }

    fn in_the_sources(self, input: Input<'_>, whole: &Whole) -> Error {
        match self.at.and_then(|at| whole.origin(at)) {
            Some((origin, column)) => failure(input, &whole.files[origin.file], origin, Some(column), self.cause),
            None => input.error(Shader::NAME, None, self.cause),
        }
    }
}

/// The error at its place in the shader itself, or in the shader's line that includes the file at fault.
fn failure(input: Input<'_>, file: &AssetPath, origin: Origin, column: Option<u32>, cause: String) -> Error {
    if origin.line == 0 {
        return input.error(Shader::NAME, None, format!("in the rule's 'defines': {cause}"));
    }
    match column {
        Some(column) if origin.file == 0 => input.error_at(Shader::NAME, origin.line, column, cause),
        _ if origin.file == 0 => input.error(Shader::NAME, Some(origin.line), cause),
        column => {
            let column = column.map(|column| format!(":{column}")).unwrap_or_default();
            let place = format!("{file}:{}{column}", origin.line);
            input.error(Shader::NAME, Some(origin.shader_line), format!("{place}: {cause}"))
        }
    }
}

fn checked(text: &str, language: Language, stage: Option<Stage>) -> std::result::Result<(Module, ModuleInfo), Fault> {
    let module = match language {
        Language::Wgsl => naga::front::wgsl::parse_str(text).map_err(|error| {
            let (span, label) = error.labels().next().map_or((None, ""), |(span, label)| (Some(span), label));
            let label = if label.is_empty() { String::new() } else { format!(": {label}") };
            let notes: String = error.notes().map(|note| format!("; {note}")).collect();
            Fault::new(span, format!("{}{label}{notes}", error.message()))
        })?,
        Language::Glsl => {
            let stage = match stage {
                Some(Stage::Vertex) => naga::ShaderStage::Vertex,
                Some(Stage::Fragment) => naga::ShaderStage::Fragment,
                Some(Stage::Compute) => naga::ShaderStage::Compute,
                None => {
                    let cause = "its name does not say which stage it is for: give 'stage', \"vertex\", \"fragment\" \
                                 or \"compute\"";
                    return Err(Fault { at: None, cause: cause.into() });
                }
            };
            glsl::Frontend::default().parse(&glsl::Options::from(stage), text).map_err(|errors| {
                match errors.errors.first() {
                    Some(error) => Fault::new(Some(error.meta), causes(error)),
                    None => Fault { at: None, cause: "it is not GLSL".into() },
                }
            })?
        }
    };
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|error| {
        let span = error.spans().next().map(|(span, _)| *span);
        Fault::new(span, causes(error.as_inner()))
    })?;
    Ok((module, info))
}

/// An error and what is behind it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Refuses what would take a parser deeper than its stack allows: no shader that a person wrote comes near.
fn bounded(text: &str) -> std::result::Result<(), Fault> {
    let fault = |at, cause: String| Err(Fault { at: Some(at), cause });
    let bytes = text.as_bytes();
    // The number of `else` in each block that is open.
    let mut blocks = vec![0];
    let (mut nesting, mut operators, mut at) = (0usize, 0, 0);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        // Comments are drawn with operators.
        if rest.starts_with(b"//") || rest.starts_with(b"/*") {
            let end: &[u8] = if rest[1] == b'/' { b"\n" } else { b"*/" };
            at += memchr::memmem::find(&rest[2..], end).map_or(rest.len(), |len| len + 2 + end.len());
            continue;
        }
        match byte {
            b'(' | b'[' | b'{' => nesting += 1,
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^' | b'<' | b'>' | b'=' | b'!' | b'~' | b'?' => {
                operators += 1;
            }
            b'e' if rest.starts_with(b"else") => *blocks.last_mut().expect("the outermost is never closed") += 1,
            _ => {}
        }
        match byte {
            b'{' => blocks.push(0),
            b'}' if blocks.len() > 1 => drop(blocks.pop()),
            _ => {}
        }
        if matches!(byte, b',' | b';' | b'{' | b'}') {
            operators = 0;
        }
        if nesting > NESTING_MAX {
            return fault(at, format!("brackets nest more than {NESTING_MAX} deep"));
        }
        if operators > OPERATORS_MAX {
            return fault(at, format!("an expression has more than {OPERATORS_MAX} operators"));
        }
        if blocks.last().is_some_and(|count| *count > ELSE_MAX) {
            return fault(at, format!("a block has more than {ELSE_MAX} 'else'"));
        }
        at += 1;
    }
    Ok(())
}

fn language_of(path: &AssetPath) -> Option<Language> {
    match path.extension()?.to_ascii_lowercase().as_str() {
        "wgsl" => Some(Language::Wgsl),
        "glsl" | "vert" | "frag" | "comp" | "vs" | "fs" | "cs" | "vsh" | "fsh" => Some(Language::Glsl),
        _ => None,
    }
}

fn stage_of(path: &AssetPath) -> Option<Stage> {
    let name = path.file_name().to_ascii_lowercase();
    let name = name.strip_suffix(".glsl").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "vert" | "vs" | "vsh" => Some(Stage::Vertex),
        "frag" | "fs" | "fsh" => Some(Stage::Fragment),
        "comp" | "cs" => Some(Stage::Compute),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
