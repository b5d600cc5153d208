//! Everything that a load needs to know of an asset, in one descent of each tree: its record and its place.

use std::ops::Range;

use super::Bundle;
use super::reader::Inner;
use super::records::{AssetHead, FolderRow, key};
use super::tree;
use super::values::{AssetRecord, Placement};
use crate::error::Result;
use crate::ids::{AssetId, AssetPath};

/// What [`Bundle::locate`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The asset.
    pub record: AssetRecord,
    /// Where the bytes of the range lie.
    pub placement: Placement,
    /// Whether it depends on anything.
    pub has_dependencies: bool,
}

impl Bundle {
    /// [`Bundle::asset`] and [`Bundle::placement`] in one. `path` is the path that was asked for, if it is known and
    /// `id` is its id: where it is the asset's, it is compared instead of being put together and hashed again.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a page on the way is, or the records contradict each other.
    pub fn locate(&self, id: AssetId, path: Option<&AssetPath>, range: Range<u64>) -> Result<Option<Found>> {
        let inner = &*self.inner;
        let Some(number) = inner.number(id)? else { return Ok(None) };
        let found = inner.head(number, |head| {
            let path = match path {
                Some(path) if inner.is_path(&head, path.as_str())? => path.clone(),
                _ => {
                    let path = inner.path_of(head.folder, head.name)?;
                    if path.id() != id {
                        let what = format_args!("asset {number} is not the one that its id names");
                        return Err(inner.corrupt(what));
                    }
                    path
                }
            };
            let (content, row) = inner.content_named(&head.content)?;
            let (kind, executable, len) = (head.kind, head.executable(), row.len);
            let record = AssetRecord { number, id, path, kind, executable, content, len };
            let placement = self.place(&content, &row, range)?;
            Ok(Found { record, placement, has_dependencies: head.has_dependencies() })
        })?;
        Ok(Some(found))
    }
}

impl Inner {
    /// Whether the asset stands at `path`, without putting its own path together.
    fn is_path(&self, head: &AssetHead<'_>, path: &str) -> Result<bool> {
        if head.name.is_empty() || head.name.contains('/') {
            return Ok(false);
        }
        let Some(front) = path.strip_suffix(head.name) else { return Ok(false) };
        if head.folder == 0 {
            return Ok(front.is_empty());
        }
        let same = |value: &[u8]| Some(front.strip_suffix('/') == Some(FolderRow::path(value)?));
        Ok(self.tree(&tree::FOLDERS).get(&key::number(head.folder), same)?.unwrap_or(false))
    }
}
