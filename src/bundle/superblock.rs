//! The two superblocks at the start of a bundle. Each stands alone: it names one root page. A commit overwrites the
//! older of the two, so a torn write leaves the other.

use std::sync::Arc;

use super::bytes::Fields;
use super::page::PageRef;
use super::{FORMAT_MAJOR, FORMAT_MINOR, HEAD_BYTES};
use crate::error::{Error, Result};
use crate::ids::Generation;
use crate::limits;
use crate::storage::ReadAt;

/// Bytes of one superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = limits::BLOCK_BYTES;
const MAGIC: [u8; 8] = *b"\x89LOFT\r\n\x1a";
const CHECKSUM_AT: usize = SUPERBLOCK_BYTES - 32;
/// Highest generation number; a writer never comes near it.
const GENERATION_MAX: u64 = u64::MAX / 2;
/// Features without which this version cannot read a bundle: none yet.
const INCOMPAT_KNOWN: u64 = 0;

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub minor: u16,
    pub compat: u64,
    pub incompat: u64,
    pub uuid: [u8; 16],
    /// 0 while no generation was committed; there is no root then.
    pub generation: Generation,
    pub reserved: Generation,
    pub root: PageRef,
    /// Everything this generation uses lies before this byte.
    pub end: u64,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_MAJOR.to_le_bytes());
        out.extend_from_slice(&self.minor.to_le_bytes());
        out.extend_from_slice(&(limits::BLOCK_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.compat.to_le_bytes());
        out.extend_from_slice(&self.incompat.to_le_bytes());
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.reserved.0.to_le_bytes());
        out.extend_from_slice(&self.root.encode());
        out.extend_from_slice(&self.end.to_le_bytes());
        out.resize(CHECKSUM_AT, 0);
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let mut fields = Fields(block);
        let (_magic, _major) = (fields.array::<8>()?, fields.u16()?);
        let minor = fields.u16()?;
        let _block = fields.u32()?;
        Some(Self {
            minor,
            compat: fields.u64()?,
            incompat: fields.u64()?,
            uuid: fields.array()?,
            generation: Generation(fields.u64()?),
            reserved: Generation(fields.u64()?),
            root: PageRef::decode(&mut fields)?,
            end: fields.u64()?,
        })
    }
}

/// One slot as found.
pub(crate) enum Slot {
    Valid(Superblock),
    /// Sound, but of a version or with a feature that is not known here.
    TooNew(Generation, String),
    /// Not a superblock, or a damaged one; and why.
    Bad(&'static str),
}

fn judge(block: &[u8]) -> Slot {
    if block.get(..8) != Some(&MAGIC) {
        return Slot::Bad("it does not begin with the magic number");
    }
    let (Some(body), Some(checksum)) = (block.get(..CHECKSUM_AT), block.get(CHECKSUM_AT..SUPERBLOCK_BYTES)) else {
        return Slot::Bad("it is cut off");
    };
    let sound = blake3::hash(body).as_bytes() == checksum;
    let major = Fields(&block[8..]).u16().unwrap_or(0);
    if !sound {
        return Slot::Bad("its superblock does not match its checksum");
    }
    let Some(superblock) = Superblock::decode(block) else { return Slot::Bad("it is cut off") };
    if major != FORMAT_MAJOR {
        return Slot::TooNew(superblock.generation, format!("format {major}.{}", superblock.minor));
    }
    let unknown = superblock.incompat & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Slot::TooNew(superblock.generation, format!("feature bits {unknown:#x}"));
    }
    Slot::Valid(superblock)
}

/// The standing superblock, and the slot (0 or 1) that the next commit overwrites.
pub(crate) struct Standing {
    pub superblock: Superblock,
    pub older: usize,
}

/// Whether the file holds something, but no superblock ever was complete: its first writer ended before that, and nobody
/// can have read it. From the first one on both slots are written, and only the older one is ever overwritten.
///
/// # Errors
/// What the operating system says.
pub(crate) fn is_abandoned(storage: &dyn ReadAt) -> std::io::Result<bool> {
    let len = storage.len()?;
    let mut head = vec![0; len.min(HEAD_BYTES) as usize];
    storage.read_exact_at(0, &mut head)?;
    let (first, second) = head.split_at(head.len().min(SUPERBLOCK_BYTES));
    let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    // Anything else is somebody's file.
    let is_ours = is_blank(first) || first.starts_with(&MAGIC) || MAGIC.starts_with(first);
    Ok(len > 0 && is_ours && matches!(judge(&head), Slot::Bad(_)) && is_blank(second))
}

/// Reads both superblocks and chooses: the highest generation, then the highest reservation.
pub(crate) fn read(storage: &Arc<dyn ReadAt>) -> Result<Standing> {
    let file = storage.name();
    let io = |source| Error::io("read the superblocks", &file, source);
    let len = storage.len().map_err(io)?;
    let not = |why: &str| Error::NotABundle { file: file.clone(), why: why.into() };
    if len == 0 {
        return Err(not("it is empty"));
    }
    let mut head = vec![0; len.min(HEAD_BYTES) as usize];
    storage.read_exact_at(0, &mut head).map_err(io)?;
    let slots = [judge(&head), judge(head.get(SUPERBLOCK_BYTES..).unwrap_or(&[]))];
    let rank = |slot: &Slot| match slot {
        Slot::Valid(superblock) => Some((superblock.generation, superblock.reserved)),
        Slot::TooNew(generation, _) => Some((*generation, Generation(0))),
        Slot::Bad(_) => None,
    };
    let newest = if rank(&slots[1]) > rank(&slots[0]) { 1 } else { 0 };
    let superblock = match &slots[newest] {
        Slot::Valid(superblock) => superblock.clone(),
        Slot::TooNew(_, what) => return Err(Error::TooNew { file, what: what.clone() }),
        Slot::Bad(why) => {
            // A damaged first superblock says more than an absent second one.
            let begun = slots.iter().any(|slot| matches!(slot, Slot::Bad(why) if why.contains("checksum")));
            if begun {
                return Err(Error::corrupt(&file, "neither superblock matches its checksum"));
            }
            return Err(not(why));
        }
    };
    let Superblock { generation, reserved, root, end, .. } = &superblock;
    if reserved < generation || reserved.0 > GENERATION_MAX || *end < HEAD_BYTES {
        return Err(Error::corrupt(&file, "the superblock contradicts itself"));
    }
    // Before the first commit there may be one superblock alone: numbers were being reserved.
    if *end > len && generation.0 > 0 {
        return Err(Error::corrupt(&file, format!("it is truncated: {end} bytes are needed, {len} are there")));
    }
    if generation.0 > 0 {
        let root_end = root.offset.checked_add(u64::from(root.len));
        if root.offset < HEAD_BYTES || root_end.is_none_or(|root_end| root_end > *end) {
            return Err(Error::corrupt(&file, "the root page's address is outside of the bundle"));
        }
    }
    Ok(Standing { superblock, older: 1 - newest })
}

/// The superblocks that are not sound: where they stand and what is wrong with them.
pub(crate) fn damaged(storage: &Arc<dyn ReadAt>) -> Result<Vec<(u64, &'static str)>> {
    let mut head = vec![0; HEAD_BYTES as usize];
    let io = |source| Error::io("read the superblocks", storage.name(), source);
    storage.read_exact_at(0, &mut head).map_err(io)?;
    let slots = head.chunks(SUPERBLOCK_BYTES).enumerate();
    Ok(slots
        .filter_map(|(index, block)| match judge(block) {
            Slot::Bad(why) => Some(((index * SUPERBLOCK_BYTES) as u64, why)),
            Slot::Valid(_) | Slot::TooNew(..) => None,
        })
        .collect())
}

/// A new superblock's minor version.
pub(crate) const MINOR: u16 = FORMAT_MINOR;
