//! A glTF file as parsed and checked, with the bytes of its buffers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gltf::json::validation::{Error as Invalid, Validate};
use gltf::json::{Path, Root};
use serde_json::Value;

use super::super::{Context, Input};
use crate::build::extract;
use crate::ids::AssetPath;

/// `glTF`, version and length; then each chunk with its length and type.
const GLB_HEADER_BYTES: usize = 12;
const GLB_CHUNK_HEADER_BYTES: usize = 8;

/// What is wrong, and at which path of the JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Such as `meshes[0].primitives[1].indices`; empty for the whole.
    pub path: String,
    pub cause: String,
    /// Line and column in the JSON, where the parser told them.
    pub place: Option<(usize, usize)>,
}

impl Fault {
    pub fn new(path: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { path: path.into(), cause: cause.into(), place: None }
    }

    fn of_parser(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line().max(1), error.column().max(1));
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let cause = text.strip_suffix(&place).unwrap_or(&text).to_owned();
        Self { path: String::new(), cause, place: Some((line, column)) }
    }
}

pub(super) type Outcome<T> = Result<T, Fault>;

/// The parts of a file: its JSON, and what a GLB carries along.
pub(super) struct Parts<'a> {
    pub json: &'a [u8],
    pub binary: Option<&'a [u8]>,
    /// Whether the file is the JSON, so that its lines are those of the file.
    pub is_text: bool,
}

impl<'a> Parts<'a> {
    pub fn of(bytes: &'a [u8]) -> Outcome<Self> {
        if !bytes.starts_with(b"glTF") {
            let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            return Ok(Self { json, binary: None, is_text: true });
        }
        let fault = |cause: &str| Fault::new("", cause);
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        match number(4) {
            Some(2) => {}
            version => return Err(fault(&format!("a GLB of version {}; expected 2", version.unwrap_or_default()))),
        }
        let len = number(8).and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= bytes.len());
        let bytes = &bytes[..len.ok_or_else(|| fault("the GLB is shorter than its header says"))?];
        let mut chunks = Vec::new();
        let mut at = GLB_HEADER_BYTES;
        while at < bytes.len() {
            let chunk = number(at).and_then(|len| {
                let start = at + GLB_CHUNK_HEADER_BYTES;
                let end = start.checked_add(usize::try_from(len).ok()?)?;
                Some((bytes.get(at + 4..start)?, bytes.get(start..end)?, end))
            });
            let (kind, chunk, end) = chunk.ok_or_else(|| fault("a chunk of the GLB is cut short"))?;
            chunks.push((kind, chunk));
            // Each chunk is a multiple of four bytes long; who forgot that is forgiven.
            at = end;
        }
        let json = chunks.first().filter(|(kind, _)| *kind == b"JSON").map(|(_, chunk)| *chunk);
        let binary = chunks.get(1).filter(|(kind, _)| *kind == b"BIN\0").map(|(_, chunk)| *chunk);
        let json = json.ok_or_else(|| fault("the first chunk of the GLB is not its JSON"))?;
        Ok(Self { json, binary, is_text: false })
    }
}

/// The document, once for its meaning and once as it was written.
pub(super) struct Document {
    pub root: Root,
    pub raw: Value,
    /// The bytes of each buffer, as long as it says.
    pub buffers: Vec<Vec<u8>>,
}

impl Document {
    /// Parses and checks the JSON and reads the buffers.
    pub fn read(input: Input<'_>, parts: &Parts<'_>, context: &mut dyn Context) -> Outcome<Self> {
        let raw: Value = serde_json::from_slice(parts.json).map_err(|error| Fault::of_parser(&error))?;
        match raw.pointer("/asset/version").and_then(Value::as_str) {
            Some(version) if version.starts_with("2.") => {}
            Some(version) => return Err(Fault::new("asset.version", format!("glTF {version}; expected 2.0"))),
            None => return Err(Fault::new("asset", "it says no version; expected 2.0")),
        }
        let root: Root = serde_json::from_slice(parts.json).map_err(|error| Fault::of_parser(&error))?;
        check(&root)?;
        let buffers = buffers(&root, input, parts.binary, context)?;
        Ok(Self { root, raw, buffers })
    }

    /// The items of a list as they were written.
    pub fn list(&self, name: &str) -> &[Value] {
        self.raw.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

fn check(root: &Root) -> Outcome<()> {
    // The validator looks these up without asking whether they are there.
    for (at, mesh) in root.meshes.iter().enumerate() {
        for (primitive, attributes) in mesh.primitives.iter().map(|primitive| &primitive.attributes).enumerate() {
            if let Some((name, _)) = attributes.iter().find(|(_, index)| index.value() >= root.accessors.len()) {
                let path = format!("meshes[{at}].primitives[{primitive}].attributes[\"{}\"]", name.to_string());
                return Err(Fault::new(path, said(Invalid::IndexOutOfBounds)));
            }
        }
    }
    let mut faults = Vec::new();
    root.validate(root, Path::new, &mut |path, invalid| {
        // What an extension adds goes along as it is, so that it need not be known; see below for those that matter.
        if invalid != Invalid::Unsupported {
            faults.push(Fault::new(path().as_str(), said(invalid)));
        }
    });
    for (at, name) in root.extensions_required.iter().enumerate() {
        if name.ends_with("_compression") {
            let cause = format!("{name} keeps meshes in a way that is not read here: write them without it");
            faults.push(Fault::new(format!("extensionsRequired[{at}]"), cause));
        }
    }
    let more = faults.len().saturating_sub(1);
    let Some(mut first) = faults.into_iter().next() else { return Ok(()) };
    if more > 0 {
        first.cause.push_str(&format!("; {more} more such faults"));
    }
    Err(first)
}

fn said(invalid: Invalid) -> &'static str {
    match invalid {
        Invalid::IndexOutOfBounds => "it points at something that is not there",
        Invalid::Invalid => "it has a value that glTF does not allow",
        Invalid::Missing => "it is missing",
        Invalid::Oversize => "it is too large",
        Invalid::Unsupported => "it is not supported",
    }
}

fn buffers(root: &Root, input: Input<'_>, binary: Option<&[u8]>, context: &mut dyn Context) -> Outcome<Vec<Vec<u8>>> {
    let read = |(at, buffer): (usize, &gltf::json::Buffer)| {
        let path = format!("buffers[{at}]");
        let mut bytes = match (&buffer.uri, binary) {
            (Some(uri), _) => {
                resource(uri, input.path, context).map_err(|cause| Fault::new(format!("{path}.uri"), cause))?
            }
            (None, Some(binary)) if at == 0 => binary.to_vec(),
            (None, _) => return Err(Fault::new(path, "it has no uri, and the file carries no bytes for it")),
        };
        let expected = usize::try_from(buffer.byte_length.0).unwrap_or(usize::MAX);
        if bytes.len() < expected {
            let cause = format!("it has {} bytes; expected byteLength, {expected}", bytes.len());
            return Err(Fault::new(path, cause));
        }
        bytes.truncate(expected);
        Ok(bytes)
    };
    root.buffers.iter().enumerate().map(read).collect()
}

/// The bytes that a URI stands for: within itself, or those of another file of the tree.
fn resource(uri: &str, from: &AssetPath, context: &mut dyn Context) -> Result<Vec<u8>, String> {
    if let Some(bytes) = within(uri) {
        return bytes;
    }
    let path = extract::target(from, uri).ok_or_else(|| format!("{uri:?} is no file of the tree"))?;
    context.read(&path).ok_or_else(|| format!("there is no {path}"))
}

/// The bytes of a `data:` URI; `None` when it is none.
pub(super) fn within(uri: &str) -> Option<Result<Vec<u8>, String>> {
    let (head, data) = match uri.strip_prefix("data:")?.split_once(',') {
        Some(parts) => parts,
        None => return Some(Err("a data URI without a comma".into())),
    };
    if !head.ends_with(";base64") {
        return Some(Ok(extract::percent_decoded(data.as_bytes()).into_owned()));
    }
    Some(STANDARD.decode(data).map_err(|error| format!("a data URI that is not base64: {error}")))
}
