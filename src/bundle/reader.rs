//! One generation, read-only. Opening reads the superblocks and the root page; everything else is found by descent.

mod walks;

use std::sync::Arc;

use super::page::PageRef;
use super::pages::{Pages, View};
use super::records::{AssetHead, AssetRow, BUILD_BYTES_MAX, ContentName, ContentRow, FolderRow, FrameRow};
use super::records::{PREFIX_BYTES, decode_build, key};
use super::root::{Root, SECTION_BYTES_MAX, SECTION_REQUIRED};
use super::superblock::{self, Superblock};
use super::tree::{self, Tree};
use super::values::{AssetRecord, BuildRecord, BundleInfo, ContentRecord, Dependency, FrameRef};
use super::{DICTIONARY_BYTES_MAX, FORMAT_MAJOR, HEAD_BYTES};
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};
use crate::storage::ReadAt;

/// One generation of a bundle: read-only, cheap to clone, shared by any number of threads.
#[derive(Clone)]
pub struct Bundle {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub view: View,
    pub root: Root,
    pub at: PageRef,
    pub info: BundleInfo,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle({}, generation {})", self.inner.info.file, self.inner.info.generation)
    }
}

impl Bundle {
    /// Opens the newest generation. Costs the same for ten assets and a million: the superblocks are read and the
    /// root page is checked, nothing else. With `mapping` the table of contents is mapped where the storage can be;
    /// without it pages are read, which is safe for files that others may truncate.
    ///
    /// # Errors
    /// [`Error::NotABundle`], [`Error::TooNew`], [`Error::Corrupt`] by what is found; [`Error::NotABundle`] also
    /// when no generation was ever committed.
    pub fn open(storage: Arc<dyn ReadAt>, mapping: bool) -> Result<Bundle> {
        let standing = superblock::read(&storage)?;
        Self::at(Arc::new(Pages::new(storage, mapping)), &standing.superblock)
    }

    /// The generation that a superblock names.
    pub(super) fn at(pages: Arc<Pages>, superblock: &Superblock) -> Result<Bundle> {
        if superblock.generation.0 == 0 {
            let why = "no generation was ever committed to it".into();
            return Err(Error::NotABundle { file: pages.file.clone(), why });
        }
        let file_bytes = pages.storage.len().map_err(|source| Error::io("read the length", &pages.file, source))?;
        let view = View::new(pages, superblock.end)?;
        let root = {
            let page = view.page(&superblock.root)?;
            Root::decode(&page).map_err(|fault| view.fault(&superblock.root, fault))?
        };
        Self::assemble(view, root, superblock, file_bytes.max(superblock.end))
    }

    pub(super) fn assemble(view: View, root: Root, superblock: &Superblock, file_bytes: u64) -> Result<Bundle> {
        if let Some(section) = root.sections.iter().find(|section| section.flags & SECTION_REQUIRED != 0) {
            let what = format!("section '{}'", section.tag.escape_ascii());
            return Err(Error::TooNew { file: view.pages.file.clone(), what });
        }
        let counters = &root.counters;
        let entries = |spec: &tree::TreeSpec| root.trees[usize::from(spec.number) - 1].map_or(0, |tree| tree.entries);
        let toc_bytes = root
            .trees
            .iter()
            .flatten()
            .map(|tree| tree.bytes)
            .chain(root.sections.iter().map(|section| u64::from(section.at.len)))
            .chain([u64::from(superblock.root.len), counters.dictionary_bytes])
            .fold(0, u64::saturating_add);
        let used = [HEAD_BYTES, counters.live_bytes, counters.padding_bytes, toc_bytes];
        let used = used.into_iter().fold(0, u64::saturating_add);
        let info = BundleInfo {
            file: view.pages.file.clone(),
            format: (FORMAT_MAJOR, superblock.minor),
            generation: superblock.generation,
            reserved: superblock.reserved,
            uuid: superblock.uuid,
            layout: root.layout,
            assets: entries(&tree::ASSETS),
            folders: entries(&tree::FOLDERS),
            contents: entries(&tree::CONTENTS),
            frames: entries(&tree::FRAMES),
            content_bytes: counters.content_bytes,
            live_bytes: counters.live_bytes,
            padding_bytes: counters.padding_bytes,
            toc_bytes,
            file_bytes,
            dead_bytes: file_bytes.saturating_sub(used),
            dictionaries: counters.next_dictionary.saturating_sub(1),
        };
        Ok(Bundle { inner: Arc::new(Inner { view, root, at: superblock.root, info }) })
    }

    /// The bundle's figures.
    pub fn info(&self) -> &BundleInfo {
        &self.inner.info
    }

    /// The generation that this is.
    pub fn generation(&self) -> Generation {
        self.inner.info.generation
    }

    /// The storage that frames are read from.
    pub fn storage(&self) -> &Arc<dyn ReadAt> {
        &self.inner.view.pages.storage
    }

    /// The asset with this id.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn asset(&self, id: AssetId) -> Result<Option<AssetRecord>> {
        let Some(number) = self.inner.number(id)? else { return Ok(None) };
        let record = self.inner.record(number)?;
        if record.id != id {
            return Err(self.inner.corrupt(format_args!("asset {number} is not the one that its id names")));
        }
        Ok(Some(record))
    }

    /// The asset at this path: found by its id, then the path must be equal.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn find(&self, path: &AssetPath) -> Result<Option<AssetRecord>> {
        let Some(number) = self.inner.number(path.id())? else { return Ok(None) };
        let record = self.inner.record(number)?;
        Ok((record.path == *path).then_some(record))
    }

    /// Every asset, in path order. Ends after the first error.
    pub fn assets(&self) -> impl Iterator<Item = Result<AssetRecord>> + '_ {
        walks::Assets::new(&self.inner, "")
    }

    /// The assets whose path is at least `from`, which need not be one, in path order: found without reading those
    /// before. Ends after the first error.
    pub fn assets_from(&self, from: &str) -> impl Iterator<Item = Result<AssetRecord>> + '_ {
        walks::Assets::new(&self.inner, from)
    }

    /// Every folder, the empty ones too, in path order. Ends after the first error.
    pub fn folders(&self) -> impl Iterator<Item = Result<AssetPath>> + '_ {
        let (mut paths, error) = match self.inner.folder_paths() {
            Ok(paths) => (paths, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        paths.sort_unstable();
        error.into_iter().chain(paths.into_iter().map(Ok))
    }

    /// The content with this hash.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn content(&self, hash: &ContentHash) -> Result<Option<ContentRecord>> {
        Ok(self.inner.content_row(hash)?.map(|row| ContentRecord {
            hash: *hash,
            len: row.len,
            references: row.references,
            extents: row.extents.map(|extents| extents.len() as u32),
        }))
    }

    /// Every content's hash and record, in the order of the hashes. Ends after the first error.
    pub fn contents(&self) -> impl Iterator<Item = Result<ContentRecord>> + '_ {
        walks::Scan::new(self.inner.tree(&tree::CONTENTS), |key, value| {
            let hash = ContentHash(key.as_slice().try_into().ok()?);
            let row = ContentRow::decode(value)?;
            let extents = row.extents.map(|extents| extents.len() as u32);
            Some(ContentRecord { hash, len: row.len, references: row.references, extents })
        })
    }

    /// Every live frame, by number: the order in which they were appended. Ends after the first error.
    pub fn frames(&self) -> impl Iterator<Item = Result<FrameRef>> + '_ {
        let inner = &*self.inner;
        walks::Scan::new(inner.tree(&tree::FRAMES), |key, value| FrameRow::decode(key::tail(key.as_slice())?, value))
            .map(|row| row.and_then(|row| inner.check_frame(row.frame)))
    }

    /// What an asset depends on, present or not, in path order. Empty when there is no such asset.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn dependencies(&self, id: AssetId) -> Result<Vec<Dependency>> {
        let Some(number) = self.inner.number(id)? else { return Ok(Vec::new()) };
        let row = self.inner.row(number)?;
        let (present, missing) = self.inner.dependency_lists(number, &row)?;
        let mut all = Vec::with_capacity(present.len() + missing.len());
        for target in present {
            all.push(Dependency { path: self.inner.path(target)?, present: true });
        }
        for id in missing {
            let key = key::id(AssetId(id));
            let read = |value: &[u8]| AssetPath::new(std::str::from_utf8(value).ok()?).ok();
            let path = self.inner.tree(&tree::WANTED).get(&key, read)?;
            let path = path.ok_or_else(|| self.inner.corrupt("a wanted path is not recorded"))?;
            all.push(Dependency { path, present: false });
        }
        all.sort_unstable();
        Ok(all)
    }

    /// The ids of an asset's present dependencies, without reading their paths twice: what a prefetch needs.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn dependency_ids(&self, id: AssetId) -> Result<Vec<AssetId>> {
        let Some(number) = self.inner.number(id)? else { return Ok(Vec::new()) };
        let row = self.inner.row(number)?;
        let (present, _) = self.inner.dependency_lists(number, &row)?;
        present.into_iter().map(|target| Ok(self.inner.path(target)?.id())).collect()
    }

    /// What depends on an asset, or on a path that has no asset yet.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn dependents(&self, id: AssetId) -> Result<Vec<AssetId>> {
        let (spec, prefix) = match self.inner.number(id)? {
            Some(number) => (&tree::DEPENDENTS, key::number(number).to_vec()),
            None => (&tree::WANTED, key::id(id).to_vec()),
        };
        let mut ids = Vec::new();
        for source in self.inner.sources(spec, &prefix)? {
            ids.push(self.inner.path(source)?.id());
        }
        Ok(ids)
    }

    /// How an asset's content came to be; `None` when it simply is its source file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page on the way is.
    pub fn build_record(&self, id: AssetId) -> Result<Option<BuildRecord>> {
        let Some(number) = self.inner.number(id)? else { return Ok(None) };
        if !self.inner.row(number)?.build {
            return Ok(None);
        }
        self.inner.build_record(number).map(Some)
    }

    /// A dictionary, checked and kept.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none of this number (0 stands for none), or it does not match its hash.
    pub fn dictionary(&self, number: u16) -> Result<Arc<[u8]>> {
        self.inner.dictionary(number)
    }

    /// The bytes of an optional section, checked; `None` when this generation has none of that tag.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it does not match its hash.
    pub fn section(&self, tag: [u8; 4]) -> Result<Option<Vec<u8>>> {
        let Some(section) = self.inner.root.sections.iter().find(|section| section.tag == tag) else {
            return Ok(None);
        };
        self.inner.check_range(section.at.offset, u64::from(section.at.len), "a section")?;
        if section.at.len as usize > SECTION_BYTES_MAX {
            return Err(self.inner.corrupt("a section is too long"));
        }
        self.inner.view.pages.read_checked(&section.at, "a section").map(Some)
    }
}

impl Inner {
    pub fn tree(&self, spec: &'static tree::TreeSpec) -> Tree<'_> {
        Tree { view: &self.view, spec, root: self.root.trees[usize::from(spec.number) - 1].as_ref() }
    }

    pub fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        self.view.pages.corrupt(what)
    }

    /// Whether bytes of this generation can lie there.
    pub fn check_range(&self, offset: u64, len: u64, what: &str) -> Result<()> {
        let fits = offset >= HEAD_BYTES && offset.checked_add(len).is_some_and(|end| end <= self.view.end);
        if fits { Ok(()) } else { Err(self.corrupt(format_args!("{what} at byte {offset} is outside of the bundle"))) }
    }

    pub fn number(&self, id: AssetId) -> Result<Option<u32>> {
        self.tree(&tree::IDS).get(&key::id(id), |value| Some(u32::from_le_bytes(value.try_into().ok()?)))
    }

    pub fn find_row(&self, number: u32) -> Result<Option<AssetRow>> {
        self.tree(&tree::ASSETS).get(&key::number(number), AssetRow::decode)
    }

    pub fn row(&self, number: u32) -> Result<AssetRow> {
        self.find_row(number)?.ok_or_else(|| self.corrupt(format_args!("asset {number} is named but has no record")))
    }

    pub fn folder(&self, number: u32) -> Result<Option<FolderRow>> {
        self.tree(&tree::FOLDERS).get(&key::number(number), FolderRow::decode)
    }

    /// The path of an asset: its folder's path and its name. Checked, since a hostile name might escape.
    pub fn path_of(&self, folder: u32, name: &str) -> Result<AssetPath> {
        if name.contains('/') {
            return Err(self.corrupt("an asset's name has a '/'"));
        }
        let path = if folder == 0 {
            AssetPath::new(name)
        } else {
            let join = |value: &[u8]| Some(AssetPath::new(&format!("{}/{name}", FolderRow::path(value)?)));
            let joined = self.tree(&tree::FOLDERS).get(&key::number(folder), join)?;
            joined.ok_or_else(|| self.corrupt(format_args!("folder {folder} has no record")))?
        };
        path.map_err(|error| self.corrupt(error))
    }

    /// The path of an asset by its number.
    pub fn path(&self, number: u32) -> Result<AssetPath> {
        self.head(number, |head| self.path_of(head.folder, head.name))
    }

    fn head<R>(&self, number: u32, read: impl FnOnce(AssetHead<'_>) -> Result<R>) -> Result<R> {
        let found = self.tree(&tree::ASSETS).get(&key::number(number), |value| Some(read(AssetHead::decode(value)?)));
        found?.unwrap_or_else(|| Err(self.corrupt(format_args!("asset {number} is named but has no record"))))
    }

    pub fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>> {
        self.tree(&tree::CONTENTS).get(&hash.0, ContentRow::decode)
    }

    /// The hash and record of the content that an asset's record names.
    pub fn content_named(&self, name: &ContentName) -> Result<(ContentHash, ContentRow)> {
        let missing = || self.corrupt("an asset's content has no record");
        match name {
            ContentName::Whole(hash) => {
                let hash = ContentHash(*hash);
                Ok((hash, self.content_row(&hash)?.ok_or_else(missing)?))
            }
            ContentName::Prefix(prefix) => self.primary(prefix)?.ok_or_else(missing),
        }
    }

    /// The content of this prefix that is not secondary.
    pub fn primary(&self, prefix: &[u8; PREFIX_BYTES]) -> Result<Option<(ContentHash, ContentRow)>> {
        let tree = self.tree(&tree::CONTENTS);
        let read = |key: &[u8], value: &[u8]| {
            let hash: [u8; 32] = key.try_into().ok()?;
            Some((hash, if hash.starts_with(prefix) { Some(ContentRow::decode(value)?) } else { None }))
        };
        // Nearly always it is the only one, and stands where the prefix leads.
        match tree.near(prefix, read)? {
            Some((_, None)) => return Ok(None),
            Some((hash, Some(row))) if !row.secondary => return Ok(Some((ContentHash(hash), row))),
            _ => {}
        }
        let mut cursor = tree.seek(prefix, false)?;
        while let Some((hash, row)) = cursor.next_as(|key, value| read(key.as_slice(), value))? {
            match row {
                None => break,
                Some(row) if !row.secondary => return Ok(Some((ContentHash(hash), row))),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    pub fn record(&self, number: u32) -> Result<AssetRecord> {
        self.head(number, |head| self.record_of(number, head))
    }

    fn record_of(&self, number: u32, head: AssetHead<'_>) -> Result<AssetRecord> {
        let path = self.path_of(head.folder, head.name)?;
        let (content, found) = self.content_named(&head.content)?;
        let (kind, executable, len) = (head.kind, head.executable(), found.len);
        Ok(AssetRecord { number, id: path.id(), path, kind, executable, content, len })
    }

    /// The two dependency lists of an asset: numbers of assets, and ids of wanted paths; wherever they stand.
    pub fn dependency_lists(&self, number: u32, row: &AssetRow) -> Result<(Vec<u32>, Vec<u64>)> {
        if !row.spilled {
            return Ok((row.dependencies.clone(), row.missing.clone()));
        }
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        let mut cursor = self.tree(&tree::DEPENDENCIES).seek(&key::number(number), false)?;
        while let Some((at, _)) = cursor.next()? {
            match at.as_slice() {
                [a, b, c, d, rest @ ..] if [*a, *b, *c, *d] == key::number(number) => match rest {
                    [0, target @ ..] if target.len() == 4 => present.extend(key::tail(target)),
                    [1, id @ ..] if id.len() == 8 => {
                        missing.extend(id.try_into().map(u64::from_le_bytes));
                    }
                    _ => return Err(self.corrupt("a dependency cannot be read")),
                },
                _ => break,
            }
        }
        Ok((present, missing))
    }

    /// The sources under a prefix of the trees DEPENDENTS and WANTED.
    pub fn sources(&self, spec: &'static tree::TreeSpec, prefix: &[u8]) -> Result<Vec<u32>> {
        let mut sources = Vec::new();
        let mut cursor = self.tree(spec).seek(prefix, false)?;
        while let Some((at, _)) = cursor.next()? {
            match at.as_slice().strip_prefix(prefix) {
                None => break,
                Some([]) => {}
                Some(rest) if rest.len() == 4 => sources.extend(key::tail(rest)),
                Some(_) => return Err(self.corrupt("a dependent cannot be read")),
            }
        }
        Ok(sources)
    }

    pub fn frame_row(&self, number: u32) -> Result<Option<FrameRow>> {
        self.tree(&tree::FRAMES).get(&key::number(number), |value| FrameRow::decode(number, value))
    }

    pub fn check_frame(&self, frame: FrameRef) -> Result<FrameRef> {
        self.check_range(frame.offset, u64::from(frame.stored_len), "a frame")?;
        if frame.decoded_len as usize > self.root.layout.frame_bytes_max() {
            return Err(self.corrupt(format_args!("frame {} is larger than the layout allows", frame.number)));
        }
        Ok(frame)
    }

    pub fn build_record(&self, number: u32) -> Result<BuildRecord> {
        let mut bytes = Vec::new();
        let mut cursor = self.tree(&tree::BUILD).seek(&key::build(number, 0), false)?;
        while let Some((at, chunk)) = cursor.next()? {
            if key::head(at.as_slice()) != Some(number) {
                break;
            }
            if bytes.len() + chunk.len() > BUILD_BYTES_MAX {
                return Err(self.corrupt(format_args!("the build record of asset {number} is too long")));
            }
            bytes.extend_from_slice(chunk);
        }
        decode_build(&bytes).ok_or_else(|| self.corrupt(format_args!("asset {number} has no readable build record")))
    }

    pub fn dictionary(&self, number: u16) -> Result<Arc<[u8]>> {
        let at = self.dictionary_ref(number)?;
        let pages = &self.view.pages;
        if let Some(bytes) = pages.dictionaries.lock().get(&at) {
            return Ok(Arc::clone(bytes));
        }
        let bytes: Arc<[u8]> = pages.read_checked(&at, &format!("dictionary {number}"))?.into();
        pages.keep_dictionary(at, &bytes);
        Ok(bytes)
    }

    fn dictionary_ref(&self, number: u16) -> Result<PageRef> {
        let at = self
            .tree(&tree::DICTIONARIES)
            .get(&number.to_be_bytes(), |value| PageRef::decode(&mut super::bytes::Fields(value)))?;
        let at = at.ok_or_else(|| self.corrupt(format_args!("there is no dictionary {number}")))?;
        self.check_range(at.offset, u64::from(at.len), "a dictionary")?;
        if at.len as usize > DICTIONARY_BYTES_MAX {
            return Err(self.corrupt(format_args!("dictionary {number} is too long")));
        }
        Ok(at)
    }

    fn folder_paths(&self) -> Result<Vec<AssetPath>> {
        let mut paths = Vec::new();
        let mut cursor = self.tree(&tree::FOLDERS).cursor()?;
        while let Some(row) = cursor.next_as(|_, value| FolderRow::decode(value))? {
            paths.push(AssetPath::new(&row.path).map_err(|error| self.corrupt(error))?);
        }
        Ok(paths)
    }
}
