//! What a trace file looks like: docs/trace.md is the specification. Shared by its writer and its reader.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{AssetId, AssetKind, AssetPath};

/// The first bytes of a trace.
pub(super) const MAGIC: &[u8; 8] = b"FLYTRACE";
/// The version that is written, and the only one that is read.
pub(super) const VERSION: u16 = 1;
/// Bytes before the first block.
pub(super) const FILE_HEADER_BYTES: usize = 32;
/// Bytes before a block's own.
pub(super) const BLOCK_HEADER_BYTES: usize = 24;
/// Most bytes of a block, decoded.
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a block, as it is stored.
pub(super) const STORED_BYTES_MAX: usize = BLOCK_BYTES_MAX + (BLOCK_BYTES_MAX >> 7) + 1024;
/// Most entries of a block.
pub(super) const ENTRIES_MAX: usize = 1 << 16;
/// Most assets of a trace. Accesses to others are not written, and counted as missed.
pub(super) const ASSETS_MAX: usize = 1 << 22;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Block {
    /// Assets, numbered on from those before.
    Assets = 1,
    /// Accesses to assets of earlier blocks.
    Accesses = 2,
    /// Nothing follows.
    End = 3,
}

/// How an asset's frames are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Coding {
    /// As they are.
    Stored = 1,
    /// With LZ4.
    Lz4 = 2,
    /// With Zstandard.
    Zstd = 3,
}

impl Coding {
    /// Every coding, in the order of their numbers, which begin at 1.
    pub const ALL: [Coding; 3] = [Coding::Stored, Coding::Lz4, Coding::Zstd];
}

/// An asset that a trace names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedAsset {
    /// Its id.
    pub id: AssetId,
    /// Whether it is the asset as it is stored, which is resident beside the asset itself.
    pub stored: bool,
    /// Its path; `None` for what was asked for and not there.
    pub path: Option<AssetPath>,
    /// Its bytes in memory; 0 where they are not known.
    pub bytes: u64,
    /// Its kind.
    pub kind: AssetKind,
    /// How most of it is stored in the bundle, where that is known: what loading it costs.
    pub coding: Option<Coding>,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEnd {
    /// As it was meant to.
    Whole {
        /// Accesses in it.
        accesses: u64,
        /// Accesses that came too fast to be written.
        missed: u64,
    },
    /// In the middle: who wrote it was stopped, or it is a part of a file.
    Cut {
        /// Up to which byte of the file it was read.
        at: u64,
    },
}

impl fmt::Display for TraceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceEnd::Whole { accesses, missed: 0 } => write!(f, "{accesses} accesses"),
            TraceEnd::Whole { accesses, missed } => write!(f, "{accesses} accesses, and {missed} that came too fast"),
            TraceEnd::Cut { at } => write!(f, "cut off: what stands after byte {at} is not a whole block"),
        }
    }
}

/// The first 8 bytes of BLAKE3 of both parts, one after the other.
pub(super) fn checksum(first: &[u8], second: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(first).update(second);
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    short
}

/// Appends a number, seven bits to the byte, the lowest first.
pub(super) fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Takes such a number from the front.
pub(super) fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Small numbers of either sign as small numbers.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Back from [`zigzag`].
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_overlong_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            assert_eq!(take(&mut &bytes[..]), Some(number));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take(&mut &[0xff; 10][..]), None);
        for number in [0, 1, -1, 2, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }
}
