//! What a bundle answers: plain values, owned, cheap to move between threads.

use serde::{Deserialize, Serialize};

use crate::config::Layout;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash, Generation};

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Store = 0,
    /// One LZ4 block.
    Lz4 = 1,
    /// One Zstandard frame, perhaps with a dictionary.
    Zstd = 2,
}

impl Codec {
    /// The codec with this number, as stored in a bundle.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Store, Self::Lz4, Self::Zstd].get(usize::from(number)).copied()
    }

    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Where a frame lies and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// The frame's number; never reused within a bundle.
    pub number: u32,
    /// The first stored byte, from the start of the file.
    pub offset: u64,
    /// Stored bytes, at most [`crate::limits::FRAME_BYTES_MAX`].
    pub stored_len: u32,
    /// Decoded bytes, at most [`crate::limits::FRAME_BYTES_MAX`].
    pub decoded_len: u32,
    /// How it is stored.
    pub codec: Codec,
    /// The dictionary that decodes it; 0 for none.
    pub dictionary: u16,
    /// BLAKE3 of the stored bytes.
    pub stored_hash: [u8; 32],
}

/// A part of a decoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The frame.
    pub frame: FrameRef,
    /// The first byte within the decoded frame.
    pub from: u32,
    /// How many bytes; never 0, and never past the end of the frame.
    pub len: u32,
}

/// Where a content, or a range of it, lies: the concatenation of its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The content.
    pub content: ContentHash,
    /// Length of the whole content, in bytes.
    pub len: u64,
    /// Where in the content the first byte of the first piece stands. The pieces are cut to the range that was
    /// asked for, so this is the start of that range, or `len` where the range lies beyond the end.
    pub start: u64,
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
}

impl Placement {
    /// The bytes that the pieces hold together.
    pub fn piece_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.len)).sum()
    }
}

/// One asset of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetRecord {
    /// Its number: what dependencies name it by inside the bundle. Stable while the asset exists.
    pub number: u32,
    /// Its id.
    pub id: AssetId,
    /// Its path.
    pub path: AssetPath,
    /// Its kind.
    pub kind: AssetKind,
    /// Whether the source file had the execute bit.
    pub executable: bool,
    /// Its content.
    pub content: ContentHash,
    /// Length of the content, in bytes.
    pub len: u64,
}

/// One content of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRecord {
    /// Its hash.
    pub hash: ContentHash,
    /// Its length, in bytes.
    pub len: u64,
    /// How many assets have it.
    pub references: u32,
    /// How many extents it has, if they are few; `None` when they stand in a tree of their own.
    pub extents: Option<u32>,
}

/// What an asset depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// The path.
    pub path: AssetPath,
    /// Whether an asset of that path exists in this generation.
    pub present: bool,
}

/// How an asset's content came to be; kept for assets that are not simply their source file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The transforms that made it, in the order in which they were run.
    pub steps: Vec<BuildStep>,
    /// Hash of the source file.
    pub source: ContentHash,
    /// What else they looked at, each once, in order.
    pub inputs: Vec<BuildInput>,
    /// Labels of the assets that they made beside it, in order: the asset `a.gltf` with the label `mesh/0` has beside it
    /// `a.gltf#mesh/0`.
    pub labels: Vec<String>,
}

/// One transform that made an asset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStep {
    /// Its name.
    pub transform: String,
    /// Its version.
    pub version: u32,
    /// Hash of its parameters.
    pub parameters: [u8; 32],
}

/// Something that a transform looked at besides its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BuildInput {
    /// It read a file, or asked for one that did not exist.
    Read {
        /// The file.
        path: AssetPath,
        /// The hash that it had; `None` where it did not exist.
        hash: Option<ContentHash>,
    },
    /// It asked whether there is a file.
    Exists {
        /// The file.
        path: AssetPath,
        /// The answer.
        exists: bool,
    },
    /// It listed a folder.
    Listed {
        /// The folder; `None` is the top of the tree.
        folder: Option<AssetPath>,
        /// BLAKE3 of the names in it.
        names: ContentHash,
    },
}

/// A bundle's figures. Reading them costs nothing: they stand in the root page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleInfo {
    /// The storage's name.
    pub file: String,
    /// Major and minor version of the format.
    pub format: (u16, u16),
    /// This generation.
    pub generation: Generation,
    /// The highest generation number that is reserved; at least this generation.
    pub reserved: Generation,
    /// Names the bundle: derived from the root hash of its first generation.
    pub uuid: [u8; 16],
    /// How frames are laid out.
    pub layout: Layout,
    /// Assets.
    pub assets: u64,
    /// Folders, empty ones and those that hold something.
    pub folders: u64,
    /// Distinct contents.
    pub contents: u64,
    /// Live frames.
    pub frames: u64,
    /// Decoded bytes of the contents, each counted once.
    pub content_bytes: u64,
    /// Stored bytes of the live frames.
    pub live_bytes: u64,
    /// Bytes between live frames that only align them.
    pub padding_bytes: u64,
    /// Bytes of this generation's table of contents: pages, root, sections and dictionaries.
    pub toc_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the file that this generation does not use; compaction gives them back.
    pub dead_bytes: u64,
    /// Dictionaries.
    pub dictionaries: u16,
}
