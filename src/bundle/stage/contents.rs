//! Contents and frames: counting references, so that what nothing uses any more goes, and goes exactly.

use std::collections::{BTreeMap, HashSet};

use super::{ContentPut, Laid, Stage};
use crate::bundle::placement::{decode_extent, encode_extent};
use crate::bundle::records::{ContentName, ContentRow, Extent, FrameRow, INLINE_EXTENTS_MAX, PREFIX_BYTES, key};
use crate::bundle::tree;
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::limits;

/// Frame number, first byte, bytes.
type Pieces = Vec<(u32, u32, u32)>;

/// What a stage does to contents and frames.
#[derive(Default)]
pub(super) struct Contents {
    changes: Vec<([u8; 32], Change)>,
    /// Extents more or fewer that use a frame, and whether one of them is of a content with several.
    users: BTreeMap<u32, (i64, bool)>,
    /// New contents that another one of the same prefix preceded.
    secondary: HashSet<[u8; 32]>,
    /// Contents to be written, in the order of their hashes.
    new: Vec<New>,
}

/// A content that the base has not.
struct New {
    hash: [u8; 32],
    secondary: bool,
    references: u32,
    len: u64,
    pieces: Pieces,
}

enum Change {
    /// One asset more has it.
    Put(Option<(u64, Pieces)>),
    /// One asset fewer.
    Drop,
}

fn prefix_of(hash: &[u8; 32]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&hash[..PREFIX_BYTES]);
    prefix
}

impl Stage<'_> {
    /// An asset has this content now.
    pub(super) fn content_put(&mut self, content: ContentPut) -> ContentHash {
        let hash = content.hash();
        let new = match content {
            ContentPut::Existing(_) => None,
            ContentPut::New { len, pieces, .. } => Some((len, pieces)),
        };
        self.contents.changes.push((hash.0, Change::Put(new)));
        hash
    }

    /// An asset had this content.
    pub(super) fn content_dropped(&mut self, hash: &ContentHash) {
        self.contents.changes.push((hash.0, Change::Drop));
    }

    /// Counts the references of contents: writes the records of old ones where they changed, and finds the new ones.
    pub(super) fn count_contents(&mut self) -> Result<()> {
        let mut changes = std::mem::take(&mut self.contents.changes);
        changes.sort_by_key(|(hash, _)| *hash);
        let mut gone = HashSet::new();
        let mut new = Vec::new();
        let mut value = Vec::new();
        let mut changes = changes.into_iter().peekable();
        while let Some((hash, first)) = changes.next() {
            let (mut delta, mut pieces) = (0, None);
            let mut next = Some(first);
            while let Some(change) = next {
                match change {
                    Change::Put(new) => {
                        delta += 1;
                        pieces = pieces.or(new);
                    }
                    Change::Drop => delta -= 1,
                }
                next = changes.next_if(|(next, _)| *next == hash).map(|(_, change)| change);
            }
            let old = match self.base {
                Some(base) => base.content_row(&ContentHash(hash))?,
                None => None,
            };
            let references = old.as_ref().map_or(0, |row| i64::from(row.references)) + delta;
            let Ok(references) = u32::try_from(references) else {
                let what = format!("{references} references to content {}", ContentHash(hash));
                return Err(Error::Unsupported { what, why: "they cannot be counted".into() });
            };
            match (old, references, pieces) {
                (Some(row), 0, _) => {
                    self.content_gone(&hash, &row)?;
                    gone.insert(hash);
                }
                (Some(row), _, _) if row.references != references => {
                    value.clear();
                    ContentRow { references, ..row }.encode(&mut value);
                    self.batch(&tree::CONTENTS).put(&hash, &value);
                }
                (None, 1.., Some((len, pieces))) => new.push((hash, references, len, pieces)),
                (None, 1.., None) => {
                    let what = format!("the content {}", ContentHash(hash));
                    return Err(Error::Unsupported {
                        what,
                        why: "it is named as existing, but the bundle has none".into(),
                    });
                }
                _ => {}
            }
        }
        let mut taken: Option<[u8; PREFIX_BYTES]> = None;
        self.contents.new.reserve(new.len());
        for (hash, references, len, pieces) in new {
            let prefix = prefix_of(&hash);
            let there = match self.base {
                Some(base) => base.primary(&prefix)?.is_some_and(|(first, _)| !gone.contains(&first.0)),
                None => false,
            };
            let secondary = there || taken == Some(prefix);
            taken = Some(prefix);
            if secondary {
                self.contents.secondary.insert(hash);
            }
            self.contents.new.push(New { hash, secondary, references, len, pieces });
        }
        Ok(())
    }

    /// Writes the records of new contents; `laid` says where those lie that were not laid out before.
    pub(super) fn finish_contents(&mut self, mut laid: Vec<Laid>, pending: &BTreeMap<u32, FrameRow>) -> Result<()> {
        laid.sort_unstable_by_key(|(hash, _)| hash.0);
        let mut laid = laid.into_iter().peekable();
        let mut value = Vec::with_capacity(64);
        for mut content in std::mem::take(&mut self.contents.new) {
            while laid.next_if(|(hash, _)| hash.0 < content.hash).is_some() {}
            if content.pieces.is_empty()
                && let Some((_, pieces)) = laid.next_if(|(hash, _)| hash.0 == content.hash)
            {
                content.pieces = pieces;
            }
            self.content_new(&content, pending, &mut value)?;
        }
        Ok(())
    }

    fn content_new(&mut self, new: &New, pending: &BTreeMap<u32, FrameRow>, value: &mut Vec<u8>) -> Result<()> {
        let New { hash, secondary, references, len, pieces } = new;
        let (len, hash) = (*len, ContentHash(*hash));
        let refuse = |why: String| Error::Unsupported { what: format!("the content {hash}"), why };
        let sum: u64 = pieces.iter().map(|(_, _, len)| u64::from(*len)).sum();
        if sum != len || len > limits::ASSET_BYTES_MAX {
            return Err(refuse(format!("its pieces have {sum} bytes together, not {len}")));
        }
        let several = pieces.len() > 1;
        for (number, from, len) in pieces {
            let row = self.frame(*number, pending)?.ok_or_else(|| refuse(format!("frame {number} was never put")))?;
            if *len == 0 || from.checked_add(*len).is_none_or(|end| end > row.frame.decoded_len) {
                return Err(refuse(format!("it reaches past the end of frame {number}")));
            }
            let users = self.contents.users.entry(*number).or_default();
            users.0 += 1;
            users.1 |= several;
        }
        let extents = pieces.iter().map(|(frame, from, len)| Extent { frame: *frame, from: *from, len: *len });
        let inline = (pieces.len() <= INLINE_EXTENTS_MAX).then(|| extents.clone().collect());
        if inline.is_none() {
            let mut at = 0;
            for extent in extents {
                let batch = &mut self.batches[usize::from(tree::EXTENTS.number) - 1];
                batch.put(&key::extent(&hash, at), &encode_extent(&extent));
                at += u64::from(extent.len);
            }
        }
        value.clear();
        ContentRow { secondary: *secondary, references: *references, len, extents: inline }.encode(value);
        self.batch(&tree::CONTENTS).put(&hash.0, value);
        let counters = &mut self.root.counters;
        counters.content_bytes = counters.content_bytes.saturating_add(len);
        Ok(())
    }

    fn content_gone(&mut self, hash: &[u8; 32], row: &ContentRow) -> Result<()> {
        self.batch(&tree::CONTENTS).delete(hash);
        let counters = &mut self.root.counters;
        counters.content_bytes = counters.content_bytes.saturating_sub(row.len);
        if let Some(extents) = &row.extents {
            for extent in extents {
                self.contents.users.entry(extent.frame).or_default().0 -= 1;
            }
            return Ok(());
        }
        let Some(base) = self.base else { return Ok(()) };
        let mut cursor = base.tree(&tree::EXTENTS).seek(hash, false)?;
        while let Some((at, extent)) = cursor.next_as(|key, value| Some((*key, decode_extent(value)?)))? {
            if !at.as_slice().starts_with(hash) {
                break;
            }
            self.batch(&tree::EXTENTS).delete(at.as_slice());
            self.contents.users.entry(extent.frame).or_default().0 -= 1;
        }
        Ok(())
    }

    /// What an asset's record calls its content.
    pub(super) fn content_name(&self, hash: &ContentHash) -> Result<ContentName> {
        let secondary = (!self.contents.secondary.is_empty() && self.contents.secondary.contains(&hash.0))
            || match self.base {
                Some(base) => base.content_row(hash)?.is_some_and(|row| row.secondary),
                None => false,
            };
        Ok(if secondary { ContentName::Whole(hash.0) } else { ContentName::Prefix(prefix_of(&hash.0)) })
    }

    fn frame(&self, number: u32, pending: &BTreeMap<u32, FrameRow>) -> Result<Option<FrameRow>> {
        match (pending.get(&number), self.base) {
            (Some(row), _) => Ok(Some(*row)),
            (None, Some(base)) => base.frame_row(number),
            (None, None) => Ok(None),
        }
    }

    /// Writes the records of frames whose users changed, and answers those that were pending.
    pub(super) fn finish_frames(&mut self, all: &BTreeMap<u32, FrameRow>) -> Result<Vec<u32>> {
        let mut used = Vec::new();
        let mut value = Vec::new();
        for (number, (delta, several)) in std::mem::take(&mut self.contents.users) {
            let old = match self.base {
                Some(base) => base.frame_row(number)?,
                None => None,
            };
            let pending = all.get(&number).copied();
            let Some(row) = old.or(pending) else { continue };
            let users = i64::from(old.map_or(0, |row| row.users)) + delta;
            let Ok(users) = u32::try_from(users) else {
                let what = format!("{users} users of frame {number}");
                return Err(Error::Unsupported { what, why: "they cannot be counted".into() });
            };
            let counters = &mut self.root.counters;
            let (stored, padding) = (u64::from(row.frame.stored_len), u64::from(row.padding));
            if users == 0 {
                if old.is_some() {
                    counters.live_bytes = counters.live_bytes.saturating_sub(stored);
                    counters.padding_bytes = counters.padding_bytes.saturating_sub(padding);
                    self.batch(&tree::FRAMES).delete(&key::number(number));
                    self.batch(&tree::FRAME_HASHES).delete(&key::frame_hash(&row.frame.stored_hash, number));
                }
                continue;
            }
            if old.is_none() {
                counters.live_bytes = counters.live_bytes.saturating_add(stored);
                counters.padding_bytes = counters.padding_bytes.saturating_add(padding);
            }
            if pending.is_some() {
                used.push(number);
            }
            value.clear();
            FrameRow { users, ..row }.encode(&mut value);
            self.batch(&tree::FRAMES).put(&key::number(number), &value);
            if several {
                self.batch(&tree::FRAME_HASHES).put(&key::frame_hash(&row.frame.stored_hash, number), &[]);
            }
        }
        Ok(used)
    }
}
