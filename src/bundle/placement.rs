//! From a content and a range to the pieces of frames that hold it.

use std::ops::Range;

use super::Bundle;
use super::bytes::{Fields, put_varint};
use super::reader::Inner;
use super::records::{ContentRow, Extent, key};
use super::tree;
use super::values::{AssetRecord, Piece, Placement};
use crate::error::Result;
use crate::ids::{AssetId, ContentHash};

/// An extent in the tree of extents; its key holds the content and the offset.
pub(crate) fn encode_extent(extent: &Extent) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    put_varint(&mut out, u64::from(extent.frame));
    put_varint(&mut out, u64::from(extent.from));
    put_varint(&mut out, u64::from(extent.len));
    out
}

pub(crate) fn decode_extent(value: &[u8]) -> Option<Extent> {
    let mut fields = Fields(value);
    let extent = Extent { frame: fields.varint_u32()?, from: fields.varint_u32()?, len: fields.varint_u32()? };
    (fields.0.is_empty() && extent.len > 0).then_some(extent)
}

impl Bundle {
    /// Where the bytes `range` of a content lie; `0..u64::MAX` for all of it. The pieces are cut to the range, so
    /// that together they hold exactly it, as far as the content reaches. `None` when there is no such content.
    /// A range of a large content costs one descent and the extents it touches.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a page on the way is, or the extents contradict the content's length.
    pub fn placement(&self, content: &ContentHash, range: Range<u64>) -> Result<Option<Placement>> {
        let inner = &*self.inner;
        let Some(row) = inner.content_row(content)? else { return Ok(None) };
        inner.placement_of(content, &row, range).map(Some)
    }

    /// What a load needs to know of an asset, in one pass over the table of contents: where the bytes `range` of its
    /// content lie, and the ids of what it depends on and is present, where `dependencies` asks for them.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a page on the way is, or what an asset names is not there.
    pub fn locate(&self, id: AssetId, range: Range<u64>, dependencies: bool) -> Result<Option<Found>> {
        let inner = &*self.inner;
        let Some(number) = inner.number(id)? else { return Ok(None) };
        let row = inner.row(number)?;
        let path = inner.path_of(row.folder, &row.name)?;
        if path.id() != id {
            return Err(inner.corrupt(format_args!("asset {number} is not the one that its id names")));
        }
        let (content, found) = inner.content_named(&row.content)?;
        let placement = inner.placement_of(&content, &found, range)?;
        let dependencies = if dependencies {
            let (present, _) = inner.dependency_lists(number, &row)?;
            present.into_iter().map(|target| inner.id(target)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        let (kind, executable, len) = (row.kind, row.executable, found.len);
        let record = AssetRecord { number, id, path, kind, executable, content, len };
        Ok(Some(Found { record, placement, dependencies }))
    }
}

/// An asset, where it lies and what it depends on: what [`Bundle::locate`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The asset.
    pub record: AssetRecord,
    /// Where its content lies, or the range of it that was asked for.
    pub placement: Placement,
    /// The ids of its present dependencies.
    pub dependencies: Vec<AssetId>,
}

impl Inner {
    fn placement_of(&self, content: &ContentHash, row: &ContentRow, range: Range<u64>) -> Result<Placement> {
        let start = range.start.min(row.len);
        let end = range.end.clamp(start, row.len);
        let mut walk = Walk { inner: self, content, start, end, at: 0, pieces: Vec::new() };
        match &row.extents {
            Some(extents) => {
                for extent in extents {
                    walk.extent(*extent)?;
                }
            }
            None if start < end => walk.tree()?,
            None => {}
        }
        let Walk { pieces, .. } = walk;
        Ok(Placement { content: *content, len: row.len, start, pieces })
    }
}

struct Walk<'b> {
    inner: &'b Inner,
    content: &'b ContentHash,
    start: u64,
    end: u64,
    /// Where in the content the next extent begins.
    at: u64,
    pieces: Vec<Piece>,
}

impl Walk<'_> {
    /// Takes the part of an extent that lies within the range.
    fn extent(&mut self, extent: Extent) -> Result<()> {
        let (first, after) = (self.at, self.at + u64::from(extent.len));
        self.at = after;
        if after <= self.start || first >= self.end {
            return Ok(());
        }
        let row = self.inner.frame_row(extent.frame)?;
        let row = row.ok_or_else(|| {
            self.inner
                .corrupt(format_args!("content {} needs frame {}, which is not there", self.content, extent.frame))
        })?;
        let frame = self.inner.check_frame(row.frame)?;
        if extent.from.checked_add(extent.len).is_none_or(|end| end > frame.decoded_len) {
            return Err(self
                .inner
                .corrupt(format_args!("content {} reaches past frame {}", self.content, extent.frame)));
        }
        // Both cuts are shorter than the extent, so they fit into 32 bits.
        let skip = self.start.saturating_sub(first) as u32;
        let cut = after.saturating_sub(self.end) as u32;
        self.pieces.push(Piece { frame, from: extent.from + skip, len: extent.len - skip - cut });
        Ok(())
    }

    fn tree(&mut self) -> Result<()> {
        let (inner, content) = (self.inner, self.content);
        let gap = || inner.corrupt(format_args!("the extents of content {content} have a gap"));
        let mut cursor = self.inner.tree(&tree::EXTENTS).seek(&key::extent(self.content, self.start), true)?;
        let mut begun = false;
        while self.at < self.end {
            let next = cursor.next_as(|key, value| {
                let (content, offset) = key.as_slice().split_first_chunk::<32>()?;
                let offset = u64::from_be_bytes(offset.try_into().ok()?);
                Some((ContentHash(*content), offset, decode_extent(value)?))
            })?;
            let Some((owner, offset, extent)) = next else { return Err(gap()) };
            if !begun {
                self.at = offset;
                begun = offset <= self.start;
            }
            if owner != *content || !begun || offset != self.at || offset > u64::MAX / 2 {
                return Err(gap());
            }
            self.extent(extent)?;
        }
        Ok(())
    }
}
