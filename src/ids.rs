//! The names of things: paths, ids, kinds, hashes, generations, priorities.
//!
//! Everything here is a small value. Nothing here touches a file, a clock or a thread.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits;

/// How maps in memory hash: quickly, and under a seed of each map's own, since others choose paths and ids.
pub(crate) type Hashing = foldhash::fast::RandomState;

/// The virtual path of an asset: relative, `/`-separated, UTF-8, without `.`, `..` or empty parts.
///
/// Cheap to clone.
///
/// ```
/// use flyloft::AssetPath;
/// let path = AssetPath::new("textures/wall.png")?;
/// assert_eq!(path.as_str(), "textures/wall.png");
/// assert!(AssetPath::new("../secret").is_err());
/// # Ok::<(), flyloft::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetPath(Arc<str>);

impl AssetPath {
    /// Checks `path` and makes it an `AssetPath`.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] when it is empty, absolute, longer than
    /// [`limits::PATH_BYTES_MAX`], or has an empty, `.` or `..` part, a backslash or a NUL.
    pub fn new(path: &str) -> Result<Self, Error> {
        let refuse = |why| Error::InvalidPath { path: path.chars().take(200).collect(), why };
        if path.is_empty() {
            return Err(refuse("it is empty"));
        }
        if path.len() > limits::PATH_BYTES_MAX {
            return Err(refuse("it is longer than 4096 bytes"));
        }
        if path.contains('\0') {
            return Err(refuse("it contains a NUL"));
        }
        if path.contains('\\') {
            return Err(refuse("it contains a backslash; parts are separated by '/'"));
        }
        for part in path.split('/') {
            match part {
                "" => return Err(refuse("it is absolute or has an empty part")),
                "." | ".." => return Err(refuse("it has a '.' or '..' part")),
                _ => {}
            }
        }
        Ok(Self(path.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The stable id: the first 8 bytes of BLAKE3 of the path.
    pub fn id(&self) -> AssetId {
        AssetId::of_path(&self.0)
    }

    /// The kind that the file name's extension stands for.
    pub fn kind(&self) -> AssetKind {
        AssetKind::of_path(&self.0)
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The extension of the last part, if it has one, as written.
    pub fn extension(&self) -> Option<&str> {
        // From the end, where it is: this is asked of every path several times while a tree is packed.
        let bytes = self.0.as_bytes();
        let at = bytes.iter().rposition(|byte| matches!(byte, b'.' | b'/'))?;
        let is_extension = bytes[at] == b'.' && at > 0 && bytes[at - 1] != b'/';
        is_extension.then(|| &self.0[at + 1..])
    }

    /// The folder that holds the asset; empty at the top of the tree.
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The path of an asset that is made beside this one: `scene.gltf` with the label `mesh/0` is `scene.gltf#mesh/0`.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] when the label is none: it has parts as a path has, and no `#`.
    pub fn labelled(&self, label: &str) -> Result<AssetPath, Error> {
        AssetPath::new(label)?;
        if label.contains('#') {
            let path = label.chars().take(200).collect();
            return Err(Error::InvalidPath { path, why: "it contains a '#', and a label has none" });
        }
        AssetPath::new(&format!("{self}#{label}"))
    }

    /// The path before the last `#` and what stands behind it, where there is one: what the source and the label are if
    /// the asset was made beside another one. A file may have such a name too.
    pub fn source_and_label(&self) -> Option<(AssetPath, &str)> {
        let (source, label) = self.0.rsplit_once('#')?;
        AssetPath::new(label).ok()?;
        AssetPath::new(source).ok().map(|source| (source, label))
    }

    /// Resolves a reference written inside this asset, such as `../css/site.css`, against its folder.
    /// A leading `/` stands for the top of the tree. `None` when the reference leaves the tree or is not a path.
    pub fn resolve(&self, reference: &str) -> Option<AssetPath> {
        let (base, rest) = match reference.strip_prefix('/') {
            Some(rest) => ("", rest),
            None => (self.folder(), reference),
        };
        let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
        for part in rest.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        AssetPath::new(&parts.join("/")).ok()
    }
}

/// Ordered and hashed as its text is.
impl Borrow<str> for AssetPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AssetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for AssetPath {
    type Err = Error;
    fn from_str(path: &str) -> Result<Self, Error> {
        Self::new(path)
    }
}

impl Serialize for AssetPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AssetPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A stable 64-bit id: the first 8 bytes of BLAKE3 of the path, little-endian. The same in every run and process.
/// Written for people and JSON as 16 hexadecimal digits, since a JSON number of that size is rounded by many readers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId(pub u64);

impl AssetId {
    /// The id of the asset at `path`.
    pub fn of_path(path: &str) -> Self {
        let hash = blake3::hash(path.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }

    /// The id under which the asset of this id is resident as it is stored: see [`crate::Snapshot::load_stored`].
    /// The stored form of a stored form is the asset again.
    pub fn stored(self) -> Self {
        Self(self.0 ^ STORED)
    }
}

/// No extension that stands for a kind is longer.
const EXTENSION_BYTES_MAX: usize = 8;

/// Any number that is not small: "as stored" in ASCII, as it happens.
const STORED: u64 = u64::from_be_bytes(*b"asstored");

/// [`AssetId::of_path`].
impl From<&str> for AssetId {
    fn from(path: &str) -> Self {
        Self::of_path(path)
    }
}

/// [`AssetId::of_path`].
impl From<&String> for AssetId {
    fn from(path: &String) -> Self {
        Self::of_path(path)
    }
}

impl From<&AssetPath> for AssetId {
    fn from(path: &AssetPath) -> Self {
        path.id()
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssetId({:016x})", self.0)
    }
}

impl FromStr for AssetId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        u64::from_str_radix(text, 16).map(Self).map_err(|_| Error::Config {
            field: "asset id".into(),
            why: format!("'{text}' is not 16 hexadecimal digits"),
        })
    }
}

impl Serialize for AssetId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for AssetId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// What an asset is. Budgets and rules go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum AssetKind {
    /// Images and GPU textures.
    Texture = 0,
    /// Geometry: OBJ, glTF buffers, engine meshes.
    Mesh = 1,
    /// Sound and music.
    Audio = 2,
    /// Shader sources and binaries.
    Shader = 3,
    /// Scene descriptions: glTF, XML scenes, maps.
    Scene = 4,
    /// Text, markup, styles, scripts, data tables.
    Text = 5,
    /// Everything else.
    Other = 6,
}

impl AssetKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [AssetKind; 7] = [
        AssetKind::Texture,
        AssetKind::Mesh,
        AssetKind::Audio,
        AssetKind::Shader,
        AssetKind::Scene,
        AssetKind::Text,
        AssetKind::Other,
    ];

    /// The kind with this number, as stored in a bundle.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The kind that a path's extension stands for; [`AssetKind::Other`] when it is not known.
    pub fn of_path(path: &str) -> Self {
        let Some(at) = path.bytes().rposition(|byte| matches!(byte, b'.' | b'/')) else { return Self::Other };
        let (mut lower, extension) = ([0; EXTENSION_BYTES_MAX], &path.as_bytes()[at + 1..]);
        let Some(lower) = lower.get_mut(..extension.len()).filter(|_| path.as_bytes()[at] == b'.') else {
            return Self::Other;
        };
        lower.copy_from_slice(extension);
        lower.make_ascii_lowercase();
        match std::str::from_utf8(lower).unwrap_or_default() {
            "png" | "jpg" | "jpeg" | "webp" | "avif" | "gif" | "bmp" | "tga" | "dds" | "ktx" | "ktx2" | "basis"
            | "hdr" | "exr" | "ico" | "svg" | "tif" | "tiff" => Self::Texture,
            "obj" | "mtl" | "glb" | "bin" | "fbx" | "stl" | "ply" | "b3d" | "spm" | "sol" | "mesh" => Self::Mesh,
            "ogg" | "oga" | "mp3" | "wav" | "flac" | "opus" | "aac" | "m4a" => Self::Audio,
            "glsl" | "vert" | "frag" | "geom" | "comp" | "tesc" | "tese" | "wgsl" | "hlsl" | "spv" | "metal" => {
                Self::Shader
            }
            "gltf" | "scene" | "map" | "usd" | "usda" | "usdc" => Self::Scene,
            "txt" | "md" | "html" | "htm" | "css" | "js" | "mjs" | "json" | "toml" | "ron" | "yaml" | "yml" | "xml"
            | "csv" | "ts" | "lua" | "cfg" | "ini" | "po" => Self::Text,
            _ => Self::Other,
        }
    }

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Texture => "texture",
            Self::Mesh => "mesh",
            Self::Audio => "audio",
            Self::Shader => "shader",
            Self::Scene => "scene",
            Self::Text => "text",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for AssetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// BLAKE3 of uncompressed bytes: identity survives recompression.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 8 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| Error::Config {
            field: "content hash".into(),
            why: format!("'{text}' is not 64 hexadecimal digits"),
        })
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// One consistent version of the whole tree, numbered from 1. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How urgent a load is. Smaller is more urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Priority {
    /// Needed for this frame.
    Critical = 0,
    /// Needed for the next frame.
    High = 1,
    /// Needed soon.
    #[default]
    Medium = 2,
    /// Speculative: prefetches.
    Low = 3,
}

impl Priority {
    /// Every priority, the most urgent first.
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::High, Priority::Medium, Priority::Low];

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// Who asked for a load. Counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Origin {
    /// The program that embeds the runtime, or an HTTP client.
    #[default]
    User = 0,
    /// The predictor.
    Predictor = 1,
    /// The runtime itself: reloads, streams.
    System = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_escapes_is_refused() {
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "./a", "a\\b", "a\0b"] {
            assert!(matches!(AssetPath::new(bad), Err(Error::InvalidPath { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_resolves_against_the_folder_and_never_leaves_the_tree() {
        let page = AssetPath::new("docs/guide/index.html").unwrap();
        let resolve = |reference: &str| page.resolve(reference).map(|path| path.as_str().to_owned());
        assert_eq!(resolve("../css/site.css").as_deref(), Some("docs/css/site.css"));
        assert_eq!(resolve("/logo.png").as_deref(), Some("logo.png"));
        assert_eq!(resolve("./a/./b").as_deref(), Some("docs/guide/a/b"));
        assert_eq!(resolve("../../../x"), None);
        assert_eq!(resolve(""), Some("docs/guide".into()));
    }

    #[test]
    fn a_label_is_a_path_behind_a_hash_sign() {
        let scene = AssetPath::new("a/scene.gltf").unwrap();
        let mesh = scene.labelled("mesh/0").unwrap();
        assert_eq!(mesh.as_str(), "a/scene.gltf#mesh/0");
        assert_eq!(mesh.source_and_label(), Some((scene.clone(), "mesh/0")));
        assert_eq!(scene.source_and_label(), None);
        for bad in ["", "a#b", "/a", "a/", "../a", "a//b"] {
            assert!(scene.labelled(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_the_same_in_every_run() {
        let hash = blake3::hash(b"a/b.png");
        let first: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap();
        assert_eq!(AssetPath::new("a/b.png").unwrap().id().0, u64::from_le_bytes(first));
    }

    #[test]
    fn an_id_survives_json_as_text() {
        let id = AssetId::of_path("a/b.png");
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<AssetId>(&json).unwrap(), id);
    }

    #[test]
    fn a_hash_survives_text() {
        let hash = ContentHash::of(b"x");
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
        assert!("zz".parse::<ContentHash>().is_err());
    }
}
