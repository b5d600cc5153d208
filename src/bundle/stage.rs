//! From changes of assets to changes of trees. Everything is worked out in memory, and the pages are collected
//! there; the writer writes them in one go and only then stands on the new generation.

mod assets;
mod contents;
mod folders;

use std::collections::BTreeMap;

use super::page::{PageRef, TreeSpec};
use super::reader::Inner;
use super::records::FrameRow;
use super::root::{Counters, Root, SECTION_KEPT, Section};
use super::tree::{self, TREE_COUNT, TREES};
use super::update::{self, Batch, PageSink};
use super::values::BuildRecord;
use super::writer::NewSection;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash};
use crate::limits;

/// What the next generation has that the last one had not.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Assets that are new or different. A path named twice counts as it is named last.
    pub put: Vec<AssetPut>,
    /// Assets that are gone; ids without an asset are ignored, as are those of `put`.
    pub remove: Vec<AssetId>,
    /// Folders that stay even when they hold nothing. The folders of assets exist without this.
    pub put_folders: Vec<AssetPath>,
    /// Folders that need not stay: they go when they hold nothing.
    pub remove_folders: Vec<AssetPath>,
}

/// An asset to put.
#[derive(Clone, Debug)]
pub struct AssetPut {
    /// Its path.
    pub path: AssetPath,
    /// Its kind.
    pub kind: AssetKind,
    /// Whether its source has the execute bit.
    pub executable: bool,
    /// Its content.
    pub content: ContentPut,
    /// What it depends on, whether it exists or not; in any order.
    pub dependencies: Vec<AssetPath>,
    /// How it was built; `None` when it simply is its source file.
    pub build: Option<BuildRecord>,
}

/// A content to put.
#[derive(Clone, Debug)]
pub enum ContentPut {
    /// One that the bundle has, or that comes with another asset of the same changes.
    Existing(ContentHash),
    /// One whose frames were put. If the bundle has it already, that one is used and these frames are not.
    New {
        /// BLAKE3 of the content.
        hash: ContentHash,
        /// Its length in bytes.
        len: u64,
        /// The frames that hold it, in order: number, first byte within the decoded frame, bytes. None yet when the
        /// changes are prepared before contents are laid out.
        pieces: Vec<(u32, u32, u32)>,
    },
}

impl ContentPut {
    /// The content's hash.
    pub fn hash(&self) -> ContentHash {
        match self {
            Self::Existing(hash) | Self::New { hash, .. } => *hash,
        }
    }
}

/// Where a new content came to lie: its hash, and its pieces as in [`ContentPut::New`].
pub type Laid = (ContentHash, Vec<(u32, u32, u32)>);

/// The next generation as far as it does not depend on where new contents lie.
pub(super) struct Ready {
    root: Root,
    batches: [Batch; TREE_COUNT],
    contents: contents::Contents,
}

pub(super) struct Input<'w> {
    pub base: Option<&'w Inner>,
    /// As the writer has it now: frames and dictionaries may have been put since `ready` was begun.
    pub root: &'w Root,
    pub pending: &'w BTreeMap<u32, FrameRow>,
    pub dictionaries: &'w [(u16, PageRef)],
    pub sections: &'w [NewSection],
    /// Where the first page will stand.
    pub at: u64,
    pub ready: Ready,
    /// The pieces of new contents that had none yet.
    pub laid: Vec<Laid>,
}

pub(super) struct Staged {
    pub root: Root,
    pub at: PageRef,
    pub pages: PageSink,
    /// Frames that were pending and are used now.
    pub used: Vec<u32>,
}

/// The stage of one generation.
struct Stage<'w> {
    base: Option<&'w Inner>,
    root: Root,
    batches: [Batch; TREE_COUNT],
    contents: contents::Contents,
    folders: folders::Folders,
}

/// Works out everything about the next generation but where its new contents lie.
pub(super) fn prepare(base: Option<&Inner>, root: Root, changes: Changes) -> Result<Ready> {
    let (batches, contents) = (Default::default(), contents::Contents::default());
    let mut stage = Stage { base, root, batches, contents, folders: folders::Folders::default() };
    stage.assets(changes)?;
    stage.finish_folders()?;
    let Stage { root, mut batches, contents, .. } = stage;
    batches.iter_mut().for_each(Batch::settle);
    Ok(Ready { root, batches, contents })
}

/// Works out the next generation; `None` when it would be the one that it builds on.
pub(super) fn finish(input: Input<'_>) -> Result<Option<Staged>> {
    let Input { base, root: now, pending, dictionaries, sections, at, ready, laid } = input;
    let Ready { mut root, batches, contents } = ready;
    root.counters = Counters {
        next_frame: now.counters.next_frame,
        next_dictionary: now.counters.next_dictionary,
        dictionary_bytes: now.counters.dictionary_bytes,
        ..root.counters
    };
    let mut stage = Stage { base, root, batches, contents, folders: folders::Folders::default() };
    stage.finish_contents(laid, pending)?;
    for (number, at) in dictionaries {
        stage.batch(&tree::DICTIONARIES).put(&number.to_be_bytes(), &at.encode());
    }
    let used = stage.finish_frames(pending)?;
    let Stage { mut root, mut batches, .. } = stage;
    let mut pages = PageSink::new(at);
    for (index, spec) in TREES.iter().enumerate() {
        let old = base.and_then(|base| base.root.trees[index].as_ref());
        let view = base.map(|base| &base.view);
        root.trees[index] = update::apply(view, spec, old, &mut batches[index], &mut pages)?;
    }
    set_sections(&mut root, sections, &mut pages);
    if base.is_some_and(|base| base.root.trees == root.trees && base.root.sections == root.sections) {
        return Ok(None);
    }
    let page = root.encode();
    if page.len() > limits::PAGE_BYTES_MAX {
        let why = "the root page would be too large".into();
        return Err(Error::Unsupported { what: "so many sections".into(), why });
    }
    let at = pages.add(&page);
    Ok(Some(Staged { root, at, pages, used }))
}

fn set_sections(root: &mut Root, sections: &[NewSection], pages: &mut PageSink) {
    root.sections.retain(|old| old.flags & SECTION_KEPT != 0 && !sections.iter().any(|new| new.tag == old.tag));
    for new in sections {
        if let Some(bytes) = &new.bytes {
            root.sections.push(Section { tag: new.tag, flags: SECTION_KEPT, at: pages.add(bytes) });
        }
    }
    root.sections.sort_by_key(|section| section.tag);
}

impl Stage<'_> {
    fn batch(&mut self, spec: &TreeSpec) -> &mut Batch {
        &mut self.batches[usize::from(spec.number) - 1]
    }
}
