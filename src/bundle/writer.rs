//! The one writer of a bundle: appends frames, stages generations. Nothing it does changes a byte that a reader of a
//! committed generation may look at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::codec::EncodedFrame;
use super::commit::Committer;
use super::page::PageRef;
use super::pages::{Pages, View};
use super::places::PLACES_TAG;
use super::reader::Bundle;
use super::records::{FrameRow, key};
use super::root::{Counters, Root, SECTION_BYTES_MAX, SECTIONS_MAX, Section};
use super::stage::{self, Changes, Laid};
use super::superblock::{self, MINOR, Superblock};
use super::tree;
use super::update::PageSink;
use super::values::{Codec, FrameRef};
use super::{DICTIONARY_BYTES_MAX, HEAD_BYTES};
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::ids::Generation;
use crate::limits;
use crate::storage::{ReadAt, WriteAt};

/// Appended bytes are written when this many have gathered: many small frames are few writes.
const BUFFER_BYTES: usize = 4 << 20;
/// `dense` aligns a frame only when the padding is at most this part of it.
const DENSE_PADDING_PART: usize = 256;

/// What is fixed when a bundle is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// How frames are laid out.
    pub layout: Layout,
    /// The number of the first generation. 1 but for a compacted bundle, which goes on counting.
    pub first: Generation,
}

impl Params {
    /// A bundle of this layout whose first generation is 1.
    pub fn new(layout: Layout) -> Self {
        Self { layout, first: Generation(1) }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::new(Layout::default())
    }
}

/// Appends to a bundle. There must be only one for a file: whoever opens the storage for it sees to that.
pub struct BundleWriter {
    pages: Arc<Pages>,
    committer: Committer,
    /// The newest staged generation.
    current: Option<Bundle>,
    /// What the next generation starts from.
    root: Root,
    next_generation: Generation,
    /// Bytes appended and not yet written, and where the first of them belongs.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Frames that were put and that no staged generation uses yet.
    pending: BTreeMap<u32, FrameRow>,
    pending_hashes: HashMap<[u8; 32], u32>,
    dictionaries: Vec<(u16, PageRef)>,
    sections: Vec<NewSection>,
}

/// What the next generation is worked out from. Owns all of it: the writer may put frames meanwhile.
pub struct Preparation {
    base: Option<Bundle>,
    root: Root,
}

impl Preparation {
    /// Works out everything about the next generation that does not depend on where new contents lie.
    ///
    /// # Errors
    /// Those of [`BundleWriter::stage`] but for writing.
    pub fn prepare(self, changes: Changes) -> Result<Prepared> {
        let ready = stage::prepare(self.base.as_ref().map(|base| &*base.inner), self.root, changes)?;
        Ok(Prepared { base: self.base.as_ref().map(Bundle::generation), ready })
    }
}

/// Changes that [`Preparation::prepare`] worked out, for [`BundleWriter::stage_prepared`].
pub struct Prepared {
    /// The generation that they change.
    base: Option<Generation>,
    ready: stage::Ready,
}

/// A section to be set, or removed where there are no bytes.
pub(super) struct NewSection {
    pub tag: [u8; 4],
    pub bytes: Option<Vec<u8>>,
}

impl BundleWriter {
    /// Begins a bundle in an empty storage. Nothing is readable before the first commit.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the storage is not empty.
    pub fn create(storage: Arc<dyn WriteAt>, params: Params) -> Result<Self> {
        let len = storage.len().map_err(|source| Error::io("read the length", storage.name(), source))?;
        if len != 0 {
            let why = format!("it holds {len} bytes already");
            return Err(Error::Unsupported { what: format!("creating a bundle in {}", storage.name()), why });
        }
        let committer = Committer::new(Arc::clone(&storage), None);
        let first = Generation(params.first.0.max(1));
        Ok(Self::with(storage, committer, None, Root::new(params.layout), first, HEAD_BYTES))
    }

    /// Opens a bundle to append to it. Bytes after the last committed generation, left by a crash, stay where they
    /// are and count as dead.
    ///
    /// # Errors
    /// Those of [`Bundle::open`]; a bundle without a committed generation but with reserved numbers is fine.
    pub fn open(storage: Arc<dyn WriteAt>) -> Result<Self> {
        let read: Arc<dyn ReadAt> = Arc::clone(&storage) as _;
        let standing = superblock::read(&read)?;
        let len = storage.len().map_err(|source| Error::io("read the length", storage.name(), source))?;
        let superblock = standing.superblock.clone();
        let committer = Committer::new(Arc::clone(&storage), Some(standing));
        let next = superblock.generation.max(superblock.reserved).next();
        let end = len.max(superblock.end);
        let root = Root::new(Layout::default());
        let mut writer = Self::with(storage, committer, None, root, next, end);
        if superblock.generation.0 > 0 {
            let bundle = Bundle::at(Arc::clone(&writer.pages), &superblock)?;
            writer.root = bundle.inner.root.clone();
            writer.current = Some(bundle);
        }
        Ok(writer)
    }

    fn with(
        storage: Arc<dyn WriteAt>,
        committer: Committer,
        current: Option<Bundle>,
        root: Root,
        next_generation: Generation,
        end: u64,
    ) -> Self {
        Self {
            pages: Arc::new(Pages::new(storage as _, true)),
            committer,
            current,
            root,
            next_generation,
            buffer: Vec::new(),
            buffer_at: end,
            pending: BTreeMap::new(),
            pending_hashes: HashMap::new(),
            dictionaries: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// The newest staged generation; after opening, the committed one.
    pub fn bundle(&self) -> Option<&Bundle> {
        self.current.as_ref()
    }

    /// How frames are laid out.
    pub fn layout(&self) -> Layout {
        self.root.layout
    }

    /// The number that the next staged generation gets.
    pub fn next_generation(&self) -> Generation {
        self.next_generation
    }

    /// The highest number that is durably reserved.
    pub fn reserved(&self) -> Generation {
        self.committer.reserved()
    }

    /// Commits what this writer stages; may be used from another thread.
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    fn standing(&self) -> Option<Generation> {
        Some(self.committer.committed()).filter(|generation| generation.0 > 0)
    }

    /// Appends a dictionary and gives it its number, from 1. It is part of the bundle from the next stage on.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`] from writing; [`Error::Unsupported`] for an empty or too large one.
    pub fn put_dictionary(&mut self, bytes: Vec<u8>) -> Result<u16> {
        if bytes.is_empty() || bytes.len() > DICTIONARY_BYTES_MAX {
            let why = format!("it must have 1 to {DICTIONARY_BYTES_MAX} bytes");
            return Err(Error::Unsupported { what: format!("a dictionary of {} bytes", bytes.len()), why });
        }
        let number = self.root.counters.next_dictionary;
        let Some(next) = number.checked_add(1) else {
            return Err(Error::Unsupported { what: "another dictionary".into(), why: "65,535 are there".into() });
        };
        let offset = self.append(&bytes, 0)?;
        self.root.counters.next_dictionary = next;
        let total = &mut self.root.counters.dictionary_bytes;
        *total = total.saturating_add(bytes.len() as u64);
        let at = PageRef { offset, len: bytes.len() as u32, hash: *blake3::hash(&bytes).as_bytes() };
        self.dictionaries.push((number, at));
        Ok(number)
    }

    /// Sets an optional section, under a tag of four bytes, or removes it. It is part of the next generation.
    /// Readers that do not know the tag skip it; a writer that changes the bundle without setting it again keeps it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it is too large, or there are too many.
    pub fn put_section(&mut self, tag: [u8; 4], bytes: Option<Vec<u8>>) -> Result<()> {
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > SECTION_BYTES_MAX) {
            let why = format!("a section has at most {SECTION_BYTES_MAX} bytes");
            return Err(Error::Unsupported { what: format!("section '{}'", tag.escape_ascii()), why });
        }
        self.sections.retain(|section| section.tag != tag);
        if self.sections.len() + self.root.sections.len() >= SECTIONS_MAX {
            let why = format!("there are {SECTIONS_MAX} already");
            return Err(Error::Unsupported { what: format!("section '{}'", tag.escape_ascii()), why });
        }
        self.sections.push(NewSection { tag, bytes });
        Ok(())
    }

    /// Appends a frame and gives it its number. A frame with the same stored bytes that the bundle has already, or
    /// that was put before, is not appended again: its number is the answer.
    ///
    /// Stored frames of 4 KiB and more begin at a multiple of 4 KiB; in the `dense` layout only where little
    /// padding does it.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`] from writing, and the frame is not part of the bundle then;
    /// [`Error::Unsupported`] when it is empty or larger than the layout allows.
    pub fn put_frame(&mut self, frame: &EncodedFrame) -> Result<u32> {
        let most = self.root.layout.frame_bytes_max();
        let (stored_len, decoded_len) = (frame.stored.len(), frame.decoded_len as usize);
        let within = (1..=most).contains(&decoded_len) && (1..=limits::FRAME_BYTES_MAX).contains(&stored_len);
        if !within || (frame.codec == Codec::Store && stored_len != decoded_len) {
            let why = format!("a frame of this layout has 1 to {most} bytes");
            return Err(Error::Unsupported { what: format!("a frame of {decoded_len} bytes"), why });
        }
        if let Some(number) = self.known(frame)? {
            return Ok(number);
        }
        let number = self.root.counters.next_frame;
        let Some(next) = number.checked_add(1) else {
            return Err(Error::Unsupported { what: "another frame".into(), why: "numbers are used up".into() });
        };
        let padding = self.padding(frame);
        let offset = self.append(&frame.stored, padding)?;
        self.root.counters.next_frame = next;
        let at = FrameRef {
            number,
            offset,
            stored_len: stored_len as u32,
            decoded_len: frame.decoded_len,
            codec: frame.codec,
            dictionary: frame.dictionary,
            stored_hash: frame.stored_hash,
        };
        self.pending.insert(number, FrameRow { users: 0, padding: padding as u32, frame: at });
        self.pending_hashes.insert(frame.stored_hash, number);
        Ok(number)
    }

    /// A frame with these stored bytes that decodes the same way.
    fn known(&mut self, frame: &EncodedFrame) -> Result<Option<u32>> {
        let same = |row: &FrameRow| {
            let known = &row.frame;
            known.stored_hash == frame.stored_hash
                && known.stored_len as usize == frame.stored.len()
                && known.decoded_len == frame.decoded_len
                && (known.codec, known.dictionary) == (frame.codec, frame.dictionary)
        };
        if let Some(number) = self.pending_hashes.get(&frame.stored_hash)
            && self.pending.get(number).is_some_and(same)
        {
            return Ok(Some(*number));
        }
        let Some(bundle) = &self.current else { return Ok(None) };
        let prefix = &frame.stored_hash[..8];
        let mut cursor = bundle.inner.tree(&tree::FRAME_HASHES).seek(prefix, false)?;
        while let Some((at, _)) = cursor.next()? {
            if !at.as_slice().starts_with(prefix) {
                break;
            }
            let Some(number) = key::tail(at.as_slice()) else { break };
            if let Some(row) = bundle.inner.frame_row(number)?
                && same(&row)
            {
                // Held here, so that it can be used even if the next stage drops its last user.
                self.pending.insert(number, FrameRow { users: 0, ..row });
                self.pending_hashes.insert(frame.stored_hash, number);
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The frames that were put and that no staged generation uses yet, in order.
    pub fn put_frames(&self) -> Vec<FrameRef> {
        self.pending.values().map(|row| row.frame).collect()
    }

    /// What it writes to; appended bytes are there after [`BundleWriter::flush_appends`].
    pub fn storage(&self) -> Arc<dyn ReadAt> {
        Arc::clone(&self.committer.shared.storage) as _
    }

    fn padding(&self, frame: &EncodedFrame) -> usize {
        let len = frame.stored.len();
        if frame.codec != Codec::Store || len < limits::BLOCK_BYTES {
            return 0;
        }
        let end = self.end();
        let padding = (end.next_multiple_of(limits::BLOCK_BYTES as u64) - end) as usize;
        match self.root.layout {
            Layout::Dense if padding > len / DENSE_PADDING_PART => 0,
            _ => padding,
        }
    }

    /// Where the next appended byte belongs.
    fn end(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    fn append(&mut self, bytes: &[u8], padding: usize) -> Result<u64> {
        if self.buffer.len() + padding + bytes.len() > BUFFER_BYTES {
            // When this fails nothing has changed: the bytes are written by a later try.
            self.flush_appends()?;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(if self.current.is_none() { BUFFER_BYTES } else { padding + bytes.len() });
        }
        self.buffer.resize(self.buffer.len() + padding, 0);
        let offset = self.end();
        self.buffer.extend_from_slice(bytes);
        Ok(offset)
    }

    /// Writes appended frames that are still in memory, so that they can be read from the storage.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`]; the frames stay in memory and are written by a later try.
    pub fn flush_appends(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.committer.shared.write(self.buffer_at, &self.buffer, self.standing())?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the pages of the next generation and answers it, readable but not durable: see
    /// [`BundleWriter::committer`]. Changes that change nothing answer the generation that is there.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`] from writing, [`Error::Corrupt`] from the pages that it builds on,
    /// [`Error::Unsupported`] and [`Error::NotFound`] for changes that cannot be. The writer stands where it stood.
    pub fn stage(&mut self, changes: Changes) -> Result<Bundle> {
        let prepared = self.preparation().prepare(changes)?;
        self.stage_prepared(prepared, Vec::new())
    }

    /// What it takes to prepare the next generation on another thread, while frames are put.
    pub fn preparation(&self) -> Preparation {
        Preparation { base: self.current.clone(), root: self.root.clone() }
    }

    /// Like [`BundleWriter::stage`], with changes that were prepared since the last generation. `laid` says where new
    /// contents lie that were put without pieces.
    ///
    /// # Errors
    /// Those of [`BundleWriter::stage`]; [`Error::Unsupported`] when another generation was staged since.
    pub fn stage_prepared(&mut self, prepared: Prepared, laid: Vec<Laid>) -> Result<Bundle> {
        if prepared.base != self.current.as_ref().map(Bundle::generation) {
            let why = "another generation was staged since".into();
            return Err(Error::Unsupported { what: "staging what was prepared".into(), why });
        }
        let staged = stage::finish(stage::Input {
            base: self.current.as_ref().map(|bundle| &*bundle.inner),
            root: &self.root,
            pending: &self.pending,
            dictionaries: &self.dictionaries,
            sections: &self.sections,
            at: self.end(),
            ready: prepared.ready,
            laid,
        })?;
        if let (None, Some(current)) = (&staged, &self.current) {
            self.sections.clear();
            return Ok(current.clone());
        }
        self.complete(staged.expect("only what builds on a generation can change nothing"))
    }

    /// Stages a generation whose assets and folders are those of `old`, an earlier generation of this bundle: a root page
    /// that names the trees of `old` and its places. Numbers of assets, folders and frames go on from where they are, and
    /// dictionaries and other sections stay as they are. The answer is the generation that is there when it has these trees already.
    ///
    /// # Errors
    /// [`Error::NotRetained`] when `old` is of another bundle, as it is after the bundle was compacted; those of writing.
    pub fn stage_again(&mut self, old: &Bundle) -> Result<Bundle> {
        let Some(current) = self.current.as_ref().filter(|_| self.has_pages_of(old)) else {
            let why = "the bundle was compacted since".into();
            return Err(Error::NotRetained { generation: old.generation(), why });
        };
        let now = &self.root;
        let mut root = old.inner.root.clone();
        root.counters = Counters {
            next_asset: now.counters.next_asset,
            next_folder: now.counters.next_folder,
            next_frame: now.counters.next_frame,
            next_dictionary: now.counters.next_dictionary,
            dictionary_bytes: now.counters.dictionary_bytes,
            ..root.counters
        };
        let dictionaries = usize::from(tree::DICTIONARIES.number) - 1;
        root.trees[dictionaries] = now.trees[dictionaries];
        let places = |section: &&Section| section.tag == PLACES_TAG;
        root.sections = now.sections.iter().filter(|section| !places(section)).cloned().collect();
        root.sections.extend(old.inner.root.sections.iter().find(places).cloned());
        root.sections.sort_by_key(|section| section.tag);
        if root.trees == now.trees {
            return Ok(current.clone());
        }
        let mut pages = PageSink::new(self.end());
        let at = pages.add(&root.encode());
        self.complete(stage::Staged { root, at, pages, used: Vec::new() })
    }

    /// Whether the pages of `old` stand where it says in this very file. A compacted bundle may have the same uuid: it is
    /// as if freshly packed. A root page that is where it was names pages that are where they were.
    fn has_pages_of(&self, old: &Bundle) -> bool {
        let view = &old.inner.view;
        if Arc::ptr_eq(&view.pages, &self.pages) {
            return true;
        }
        view.end <= self.buffer_at
            && View::new(Arc::clone(&self.pages), self.buffer_at).is_ok_and(|own| own.page(&old.inner.at).is_ok())
    }

    /// Writes the pages of a staged generation, and stands on it from then on.
    fn complete(&mut self, staged: stage::Staged) -> Result<Bundle> {
        let standing = self.standing();
        let toc = staged.pages.bytes;
        if let Err(error) = self.flush_appends() {
            return Err(match error {
                Error::DiskFull { path, needed_bytes, standing } => {
                    Error::DiskFull { path, needed_bytes: needed_bytes + toc.len() as u64, standing }
                }
                error => error,
            });
        }
        self.committer.shared.write(self.buffer_at, &toc, standing)?;
        let end = self.buffer_at + toc.len() as u64;
        let generation = self.next_generation;
        let mut uuid = [0; 16];
        match &self.current {
            Some(bundle) => uuid = bundle.inner.info.uuid,
            None => {
                let mut hasher = blake3::Hasher::new_derive_key("flyloft bundle uuid, format 1");
                uuid.copy_from_slice(&hasher.update(&staged.at.hash).finalize().as_bytes()[..16]);
            }
        }
        let committed = self.committer.superblock();
        let superblock = Superblock {
            minor: MINOR,
            uuid,
            generation,
            reserved: committed.reserved.max(generation),
            root: staged.at,
            end,
            ..committed
        };
        let view = View::new(Arc::clone(&self.pages), end)?;
        let bundle = Bundle::assemble(view, staged.root.clone(), &superblock, end)?;
        self.buffer_at = end;
        self.next_generation = generation.next();
        self.root = staged.root;
        for number in staged.used {
            if let Some(row) = self.pending.remove(&number) {
                self.pending_hashes.remove(&row.frame.stored_hash);
            }
        }
        self.dictionaries.clear();
        self.sections.clear();
        self.current = Some(bundle.clone());
        Ok(bundle)
    }

    /// Durably reserves every generation number up to `through`: after a crash, numbering goes on behind it, so
    /// that a number which readers may have seen never names other content.
    ///
    /// # Errors
    /// [`Error::DiskFull`] and [`Error::Io`].
    pub fn reserve(&mut self, through: Generation) -> Result<()> {
        self.committer.reserve(through)
    }
}
