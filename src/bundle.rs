//! The file format: bytes in, values out. `docs/format.md` is its specification.
//!
//! A bundle holds frames, appended and never changed, and for each generation a table of contents: a copy-on-write
//! set of trees whose pages are hashed, so that a new generation writes only what changed and a reader trusts a page
//! because its parent names its hash. [`Bundle`] reads one generation; [`BundleWriter`] appends the next;
//! a [`Committer`] makes it the one that the next reader opens.
//!
//! Nothing here opens files, looks at a clock or starts a thread: bytes come through [`crate::storage`].

mod ahead;
mod bytes;
mod codec;
mod commit;
mod index;
mod locate;
mod page;
mod pages;
mod placement;
mod places;
mod reader;
mod records;
mod root;
mod stage;
mod stored;
mod superblock;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod update;
mod values;
mod verify;
mod writer;

pub use ahead::{PreparedTables, TablesReport};
pub use codec::{Decoder, EncodeHint, EncodedFrame, Encoder, check_stored};
pub use commit::Committer;
pub use locate::Found;
pub use places::{PLACES_TAG, encode_places};
pub use reader::Bundle;
pub use stage::{AssetPut, Changes, ContentPut, Laid};
pub(crate) use superblock::is_abandoned;
pub use values::{
    AssetRecord, BuildInput, BuildRecord, BuildStep, BundleInfo, Codec, ContentRecord, Dependency, FrameRef,
};
pub use values::{Piece, Placement};
pub use verify::{Finding, Verified};
pub use writer::{BundleWriter, Params, Preparation, Prepared};

/// Major version of the format: another one is not readable here.
pub const FORMAT_MAJOR: u16 = 1;
/// Minor version of the format: what it adds may be skipped.
pub const FORMAT_MINOR: u16 = 0;
/// Bytes of the two superblocks, before the first frame.
pub(crate) const HEAD_BYTES: u64 = 2 * crate::limits::BLOCK_BYTES as u64;
/// Largest dictionary.
pub const DICTIONARY_BYTES_MAX: usize = 1 << 20;
