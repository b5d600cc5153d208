//! Folders: which exist, their numbers, and how many members each has.

use std::collections::{BTreeMap, HashMap};

use super::Stage;
use crate::bundle::records::{FolderRow, key};
use crate::bundle::tree;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath};

/// Folders that a stage looked at, as they will be.
#[derive(Default)]
pub(super) struct Folders {
    numbers: HashMap<String, u32>,
    rows: BTreeMap<u32, FolderRow>,
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Stage<'_> {
    /// The number of a folder that exists, or will after what this stage did so far.
    fn folder_number(&mut self, path: &str) -> Result<Option<u32>> {
        if path.is_empty() {
            return Ok(Some(0));
        }
        if let Some(number) = self.folders.numbers.get(path) {
            return Ok(Some(*number));
        }
        let Some(base) = self.base else { return Ok(None) };
        let id = key::id(AssetId::of_path(path));
        let number = base.tree(&tree::FOLDER_IDS).get(&id, |value| Some(u32::from_le_bytes(value.try_into().ok()?)))?;
        let Some(number) = number else { return Ok(None) };
        let row = base.folder(number)?.ok_or_else(|| base.corrupt(format_args!("folder {number} has no record")))?;
        if row.path != path {
            return Err(Error::Unsupported {
                what: format!("the folder '{path}'"),
                why: format!("its id is that of the folder '{}'", row.path),
            });
        }
        self.folders.numbers.insert(path.to_owned(), number);
        self.folders.rows.insert(number, row);
        Ok(Some(number))
    }

    /// The number of a folder, which comes to be with its parents if it is not there.
    fn folder_made(&mut self, path: &str) -> Result<u32> {
        if let Some(number) = self.folder_number(path)? {
            return Ok(number);
        }
        let number = self.root.counters.next_folder;
        self.root.counters.next_folder = number.checked_add(1).ok_or_else(|| Error::Unsupported {
            what: format!("the folder '{path}'"),
            why: "folder numbers are used up; compact the bundle".into(),
        })?;
        self.folders.numbers.insert(path.to_owned(), number);
        self.folders.rows.insert(number, FolderRow { explicit: false, members: 0, path: path.to_owned() });
        let parent = self.folder_made(parent_of(path))?;
        self.folder_joined(parent);
        Ok(number)
    }

    pub(super) fn folder_joined(&mut self, number: u32) {
        if let Some(row) = self.folders.rows.get_mut(&number) {
            row.members = row.members.saturating_add(1);
        }
    }

    /// A new asset stands in this folder.
    pub(super) fn folder_enter(&mut self, path: &str) -> Result<u32> {
        let number = self.folder_made(path)?;
        self.folder_joined(number);
        Ok(number)
    }

    /// An asset of this folder is gone. Whether the folder goes with it is seen at the end.
    pub(super) fn folder_leave(&mut self, path: &str) -> Result<()> {
        if let Some(number) = self.folder_number(path)?
            && let Some(row) = self.folders.rows.get_mut(&number)
        {
            row.members = row.members.saturating_sub(1);
        }
        Ok(())
    }

    /// Marks folders as staying or not.
    pub(super) fn folders_explicit(&mut self, paths: Vec<AssetPath>, explicit: bool) -> Result<()> {
        for path in paths {
            let path = path.as_str();
            let number = if explicit { Some(self.folder_made(path)?) } else { self.folder_number(path)? };
            if let Some(row) = number.and_then(|number| self.folders.rows.get_mut(&number)) {
                row.explicit = explicit;
            }
        }
        Ok(())
    }

    /// Writes the records of folders that were looked at. One without members that need not stay is gone, and is one
    /// member less to the folder that it was in.
    pub(super) fn finish_folders(&mut self) -> Result<()> {
        let is_gone = |row: &FolderRow| row.members == 0 && !row.explicit;
        let mut gone: Vec<u32> =
            self.folders.rows.iter().filter(|(_, row)| is_gone(row)).map(|(number, _)| *number).collect();
        while let Some(number) = gone.pop() {
            let Some(row) = self.folders.rows.remove(&number) else { continue };
            self.folders.numbers.remove(&row.path);
            self.batch(&tree::FOLDERS).delete(&key::number(number));
            self.batch(&tree::FOLDER_IDS).delete(&key::id(AssetId::of_path(&row.path)));
            let parent = parent_of(&row.path);
            self.folder_leave(parent)?;
            if let Some(parent) = self.folder_number(parent)?
                && self.folders.rows.get(&parent).is_some_and(is_gone)
                && !gone.contains(&parent)
            {
                gone.push(parent);
            }
        }
        let mut value = Vec::new();
        for (number, row) in std::mem::take(&mut self.folders.rows) {
            value.clear();
            row.encode(&mut value);
            self.batch(&tree::FOLDERS).put(&key::number(number), &value);
            self.batch(&tree::FOLDER_IDS).put(&key::id(AssetId::of_path(&row.path)), &number.to_le_bytes());
        }
        Ok(())
    }
}
