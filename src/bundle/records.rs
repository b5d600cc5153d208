//! The records in the leaves: how keys and values of each tree are written.

use super::bytes::{Fields, put_string, put_varint, unzigzag, zigzag};
use super::values::{BuildInput, BuildRecord, BuildStep, Codec, FrameRef};
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash};
use crate::limits;

/// Bytes of a content's hash that name it in an asset's record, unless another content was there first.
pub(crate) const PREFIX_BYTES: usize = 6;
/// Extents that a content's record holds itself; more stand in the tree of extents.
pub(crate) const INLINE_EXTENTS_MAX: usize = 8;
/// Dependencies that an asset's record holds itself; more stand in the tree of dependencies.
pub(crate) const INLINE_DEPENDENCIES_MAX: usize = 64;
/// Bytes of one chunk of a build record.
pub(crate) const BUILD_CHUNK_BYTES: usize = 1024;
/// Largest build record.
pub(crate) const BUILD_BYTES_MAX: usize = 16 << 20;

/// What names a content in an asset's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentName {
    /// The first bytes of the hash: the content of that prefix that is not secondary.
    Prefix([u8; PREFIX_BYTES]),
    Whole([u8; 32]),
}

/// An asset's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssetRow {
    pub kind: AssetKind,
    pub executable: bool,
    pub build: bool,
    /// Whether dependencies stand in their own tree; the two lists are empty here then.
    pub spilled: bool,
    pub folder: u32,
    pub name: String,
    pub content: ContentName,
    /// Numbers of assets, ascending.
    pub dependencies: Vec<u32>,
    /// Ids of paths without an asset, ascending.
    pub missing: Vec<u64>,
}

/// The front of an asset's record, borrowed: what a lookup needs.
pub(crate) struct AssetHead<'v> {
    flags: u8,
    pub kind: AssetKind,
    pub folder: u32,
    pub name: &'v str,
    pub content: ContentName,
    rest: &'v [u8],
}

impl<'v> AssetHead<'v> {
    pub fn decode(value: &'v [u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let flags = fields.u8()?;
        let kind = AssetKind::from_number(flags & 7)?;
        let folder = fields.varint_u32()?;
        let name = fields.text()?;
        let content =
            if flags & WHOLE == 0 { ContentName::Prefix(fields.array()?) } else { ContentName::Whole(fields.array()?) };
        Some(Self { flags, kind, folder, name, content, rest: fields.0 })
    }

    pub fn executable(&self) -> bool {
        self.flags & EXECUTABLE != 0
    }

    /// Whether it names dependencies, present or not, here or in their own tree.
    pub fn has_dependencies(&self) -> bool {
        self.flags & (SPILLED | MISSING) != 0 || self.rest.first().is_some_and(|count| *count != 0)
    }
}

const EXECUTABLE: u8 = 1 << 3;
const WHOLE: u8 = 1 << 4;
const SPILLED: u8 = 1 << 5;
const BUILD: u8 = 1 << 6;
const MISSING: u8 = 1 << 7;

impl AssetRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = self.kind as u8 | if self.executable { EXECUTABLE } else { 0 };
        if matches!(self.content, ContentName::Whole(_)) {
            flags |= WHOLE;
        }
        if self.spilled {
            flags |= SPILLED;
        }
        if self.build {
            flags |= BUILD;
        }
        let missing = !self.spilled && !self.missing.is_empty();
        if missing {
            flags |= MISSING;
        }
        out.push(flags);
        put_varint(out, u64::from(self.folder));
        put_string(out, self.name.as_bytes());
        match &self.content {
            ContentName::Prefix(prefix) => out.extend_from_slice(prefix),
            ContentName::Whole(hash) => out.extend_from_slice(hash),
        }
        if self.spilled {
            return;
        }
        put_varint(out, self.dependencies.len() as u64);
        let mut previous = 0;
        for number in &self.dependencies {
            put_varint(out, u64::from(number - previous));
            previous = *number;
        }
        if missing {
            put_varint(out, self.missing.len() as u64);
            for id in &self.missing {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let AssetHead { flags, kind, folder, name, content, rest } = AssetHead::decode(value)?;
        let mut fields = Fields(rest);
        let (mut dependencies, mut missing) = (Vec::new(), Vec::new());
        if flags & SPILLED == 0 {
            let count = fields.varint()?;
            let mut previous = 0u32;
            for index in 0..count {
                let delta = fields.varint_u32()?;
                if index > 0 && delta == 0 {
                    return None;
                }
                previous = previous.checked_add(delta)?;
                dependencies.push(previous);
            }
            if flags & MISSING != 0 {
                for _ in 0..fields.varint()? {
                    missing.push(u64::from_le_bytes(fields.array()?));
                }
            }
        } else if flags & MISSING != 0 {
            return None;
        }
        fields.0.is_empty().then_some(Self {
            kind,
            executable: flags & EXECUTABLE != 0,
            build: flags & BUILD != 0,
            spilled: flags & SPILLED != 0,
            folder,
            name: name.to_owned(),
            content,
            dependencies,
            missing,
        })
    }
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub frame: u32,
    pub from: u32,
    pub len: u32,
}

/// In place of the number of inline extents: they stand in the tree of extents.
const MANY: u8 = INLINE_EXTENTS_MAX as u8 + 1;

/// A content's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentRow {
    /// Another content was first to have this prefix: assets name this one by its whole hash.
    pub secondary: bool,
    pub references: u32,
    pub len: u64,
    /// `None`: they stand in the tree of extents.
    pub extents: Option<Vec<Extent>>,
}

impl ContentRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Almost every content has one reference and one extent: both fit into the flags.
        let inline = self.extents.as_ref().map_or(MANY, |extents| extents.len() as u8);
        let single = self.references == 1;
        out.push(u8::from(self.secondary) | u8::from(single) << 1 | inline << 2);
        if !single {
            put_varint(out, u64::from(self.references));
        }
        put_varint(out, self.len);
        let Some(extents) = &self.extents else { return };
        let mut previous = 0;
        for (index, extent) in extents.iter().enumerate() {
            put_varint(out, zigzag(i64::from(extent.frame) - previous));
            previous = i64::from(extent.frame);
            put_varint(out, u64::from(extent.from));
            if index + 1 < extents.len() {
                put_varint(out, u64::from(extent.len));
            }
        }
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let flags = fields.u8()?;
        let inline = flags >> 2;
        if inline > MANY {
            return None;
        }
        let references = if flags & 2 != 0 { 1 } else { fields.varint_u32()? };
        let len = fields.varint()?;
        if len > limits::ASSET_BYTES_MAX {
            return None;
        }
        let mut extents = None;
        if inline != MANY {
            let count = inline;
            let mut list = Vec::with_capacity(usize::from(count));
            let (mut previous, mut rest) = (0i64, len);
            for index in 0..count {
                let frame = previous.checked_add(unzigzag(fields.varint()?))?;
                previous = frame;
                let from = fields.varint_u32()?;
                let len = if index + 1 < count { fields.varint()? } else { rest };
                rest = rest.checked_sub(len)?;
                if len == 0 {
                    return None;
                }
                list.push(Extent { frame: u32::try_from(frame).ok()?, from, len: u32::try_from(len).ok()? });
            }
            if rest != 0 {
                return None;
            }
            extents = Some(list);
        }
        fields.0.is_empty().then_some(Self { secondary: flags & 1 != 0, references, len, extents })
    }
}

/// A frame's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRow {
    /// Extents that use it, over all contents.
    pub users: u32,
    /// Bytes before it that align it.
    pub padding: u32,
    pub frame: FrameRef,
}

impl FrameRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let frame = &self.frame;
        out.push(frame.codec as u8 | u8::from(frame.dictionary != 0) << 2 | u8::from(self.padding != 0) << 3);
        put_varint(out, u64::from(self.users));
        put_varint(out, frame.offset);
        put_varint(out, u64::from(frame.stored_len));
        put_varint(out, u64::from(frame.decoded_len));
        if frame.dictionary != 0 {
            put_varint(out, u64::from(frame.dictionary));
        }
        if self.padding != 0 {
            put_varint(out, u64::from(self.padding));
        }
        out.extend_from_slice(&frame.stored_hash);
    }

    /// Decodes and bounds the lengths; whether it lies within the file is for whoever knows the file.
    pub fn decode(number: u32, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let flags = fields.u8()?;
        if flags > 15 {
            return None;
        }
        let codec = Codec::from_number(flags & 3)?;
        let users = fields.varint_u32()?;
        let offset = fields.varint()?;
        let (stored_len, decoded_len) = (fields.varint_u32()?, fields.varint_u32()?);
        let dictionary = if flags & 4 != 0 { u16::try_from(fields.varint()?).ok()? } else { 0 };
        let padding = if flags & 8 != 0 { fields.varint_u32()? } else { 0 };
        let stored_hash = fields.array()?;
        let bounded = |len: u32| len > 0 && len as usize <= limits::FRAME_BYTES_MAX;
        let sound = fields.0.is_empty()
            && bounded(stored_len)
            && bounded(decoded_len)
            && padding < limits::BLOCK_BYTES as u32
            && (dictionary == 0 || codec == Codec::Zstd)
            && (codec != Codec::Store || stored_len == decoded_len);
        let frame = FrameRef { number, offset, stored_len, decoded_len, codec, dictionary, stored_hash };
        sound.then_some(Self { users, padding, frame })
    }
}

/// A folder's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderRow {
    /// Put by name: it stays when it is empty.
    pub explicit: bool,
    /// Assets and folders directly in it.
    pub members: u32,
    pub path: String,
}

impl FolderRow {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.explicit));
        put_varint(out, u64::from(self.members));
        out.extend_from_slice(self.path.as_bytes());
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let flags = fields.u8()?;
        let members = fields.varint_u32()?;
        let path = std::str::from_utf8(fields.0).ok()?;
        (flags < 2).then(|| Self { explicit: flags == 1, members, path: path.to_owned() })
    }

    /// The path alone, borrowed.
    pub fn path(value: &[u8]) -> Option<&str> {
        let mut fields = Fields(value);
        let (_flags, _members) = (fields.u8()?, fields.varint_u32()?);
        std::str::from_utf8(fields.0).ok()
    }
}

/// A build record as one byte string, which is then cut into chunks.
pub(crate) fn encode_build(record: &BuildRecord) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, record.steps.len() as u64);
    for step in &record.steps {
        put_string(&mut out, step.transform.as_bytes());
        put_varint(&mut out, u64::from(step.version));
        out.extend_from_slice(&step.parameters);
    }
    out.extend_from_slice(&record.source.0);
    put_varint(&mut out, record.inputs.len() as u64);
    for input in &record.inputs {
        let (path, kind, hash) = match input {
            BuildInput::Read { path, hash: None } => (path.as_str(), NOT_READ, None),
            BuildInput::Read { path, hash: Some(hash) } => (path.as_str(), READ, Some(hash)),
            BuildInput::Exists { path, exists: false } => (path.as_str(), NOT_THERE, None),
            BuildInput::Exists { path, exists: true } => (path.as_str(), THERE, None),
            BuildInput::Listed { folder, names } => {
                (folder.as_ref().map_or("", AssetPath::as_str), LISTED, Some(names))
            }
        };
        put_string(&mut out, path.as_bytes());
        out.push(kind);
        out.extend_from_slice(hash.map_or(&[], |hash| &hash.0));
    }
    put_varint(&mut out, record.labels.len() as u64);
    for label in &record.labels {
        put_string(&mut out, label.as_bytes());
    }
    out
}

/// Kinds of inputs of a build.
const NOT_READ: u8 = 0;
const READ: u8 = 1;
const NOT_THERE: u8 = 2;
const THERE: u8 = 3;
const LISTED: u8 = 4;

pub(crate) fn decode_build(bytes: &[u8]) -> Option<BuildRecord> {
    let mut fields = Fields(bytes);
    let mut record = BuildRecord::default();
    for _ in 0..fields.varint()? {
        let transform = fields.text()?.to_owned();
        let (version, parameters) = (fields.varint_u32()?, fields.array()?);
        record.steps.push(BuildStep { transform, version, parameters });
    }
    record.source = ContentHash(fields.array()?);
    for _ in 0..fields.varint()? {
        let (path, kind) = (fields.text()?, fields.u8()?);
        let file = || AssetPath::new(path).ok();
        record.inputs.push(match kind {
            NOT_READ => BuildInput::Read { path: file()?, hash: None },
            READ => BuildInput::Read { path: file()?, hash: Some(ContentHash(fields.array()?)) },
            NOT_THERE => BuildInput::Exists { path: file()?, exists: false },
            THERE => BuildInput::Exists { path: file()?, exists: true },
            LISTED => {
                let folder = if path.is_empty() { None } else { Some(file()?) };
                BuildInput::Listed { folder, names: ContentHash(fields.array()?) }
            }
            _ => return None,
        });
    }
    for _ in 0..fields.varint()? {
        let label = fields.text()?;
        AssetPath::new(label).ok()?;
        record.labels.push(label.to_owned());
    }
    fields.0.is_empty().then_some(record)
}

/// Keys are big-endian, so that their byte order is the order of the numbers; an id's bytes are those of the hash.
pub(crate) mod key {
    use super::*;

    pub fn number(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    pub fn id(id: AssetId) -> [u8; 8] {
        id.0.to_le_bytes()
    }

    pub fn pair(first: u32, second: u32) -> [u8; 8] {
        (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
    }

    pub fn extent(content: &ContentHash, offset: u64) -> [u8; 40] {
        let mut key = [0; 40];
        key[..32].copy_from_slice(&content.0);
        key[32..].copy_from_slice(&offset.to_be_bytes());
        key
    }

    pub fn frame_hash(hash: &[u8; 32], number: u32) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&hash[..8]);
        key[8..].copy_from_slice(&number.to_be_bytes());
        key
    }

    pub fn wanted(id: u64, source: u32) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&id.to_le_bytes());
        key[8..].copy_from_slice(&source.to_be_bytes());
        key
    }

    pub fn spilled_present(source: u32, target: u32) -> [u8; 9] {
        let mut key = [0; 9];
        key[..4].copy_from_slice(&source.to_be_bytes());
        key[5..].copy_from_slice(&target.to_be_bytes());
        key
    }

    pub fn spilled_missing(source: u32, id: u64) -> [u8; 13] {
        let mut key = [0; 13];
        key[..4].copy_from_slice(&source.to_be_bytes());
        key[4] = 1;
        key[5..].copy_from_slice(&id.to_le_bytes());
        key
    }

    pub fn build(number: u32, chunk: u16) -> [u8; 6] {
        let mut key = [0; 6];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key[4..].copy_from_slice(&chunk.to_be_bytes());
        key
    }

    /// The last four bytes of a key as a number.
    pub fn tail(key: &[u8]) -> Option<u32> {
        key.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// The first four bytes of a key as a number.
    pub fn head(key: &[u8]) -> Option<u32> {
        key.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }
}
