//! The root page: counters, parameters, the root of each tree, and tagged sections. It is all that opening reads.

use super::bytes::Fields;
use super::page::{CHILD_BYTES, Fault, PageRef};
use super::tree::{TREE_COUNT, TREES, TreeRoot};
use crate::config::Layout;
use crate::limits;

const MAGIC: [u8; 4] = *b"LRT1";
/// Most sections of a bundle: what fits into a root page beside everything else.
pub(crate) const SECTIONS_MAX: usize = 256;
/// Largest section.
pub(crate) const SECTION_BYTES_MAX: usize = 64 << 20;

/// A reader that does not know a section with this flag must not use the bundle.
pub(crate) const SECTION_REQUIRED: u32 = 1;
/// A writer that does not know a section with this flag carries it into the next generation.
pub(crate) const SECTION_KEPT: u32 = 2;

/// A section that a reader may skip unless it is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub tag: [u8; 4],
    pub flags: u32,
    pub at: PageRef,
}

/// Running totals, kept exact by the writer so that opening needs to count nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// The number the next new asset gets.
    pub next_asset: u32,
    /// Assets numbered below this stand in path order.
    pub ordered: u32,
    pub next_folder: u32,
    pub next_frame: u32,
    pub next_dictionary: u16,
    /// Decoded bytes of all contents.
    pub content_bytes: u64,
    /// Stored bytes of all live frames.
    pub live_bytes: u64,
    /// Alignment bytes before live frames.
    pub padding_bytes: u64,
    pub dictionary_bytes: u64,
}

/// A generation's root page, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub layout: Layout,
    pub counters: Counters,
    pub trees: [Option<TreeRoot>; TREE_COUNT],
    pub sections: Vec<Section>,
}

impl Root {
    pub fn new(layout: Layout) -> Self {
        // Folder 0 is the top of the tree, dictionary 0 is none.
        let counters = Counters { next_folder: 1, next_dictionary: 1, ..Counters::default() };
        Self { layout, counters, trees: [None; TREE_COUNT], sections: Vec::new() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let counters = &self.counters;
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&MAGIC);
        out.push(match self.layout {
            Layout::Access => 0,
            Layout::Dense => 1,
        });
        out.push(0);
        out.extend_from_slice(&counters.next_dictionary.to_le_bytes());
        for number in [counters.next_asset, counters.ordered, counters.next_folder, counters.next_frame] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for total in [counters.content_bytes, counters.live_bytes, counters.padding_bytes, counters.dictionary_bytes] {
            out.extend_from_slice(&total.to_le_bytes());
        }
        let present =
            || TREES.iter().zip(&self.trees).filter_map(|(spec, root)| root.as_ref().map(|root| (spec, root)));
        out.extend_from_slice(&(present().count() as u16).to_le_bytes());
        out.extend_from_slice(&(self.sections.len() as u16).to_le_bytes());
        for (spec, root) in present() {
            out.extend_from_slice(&[spec.number, root.level]);
            out.extend_from_slice(&root.page.encode());
            out.extend_from_slice(&root.entries.to_le_bytes());
            out.extend_from_slice(&root.bytes.to_le_bytes());
        }
        for section in &self.sections {
            out.extend_from_slice(&section.tag);
            out.extend_from_slice(&section.flags.to_le_bytes());
            out.extend_from_slice(&section.at.encode());
        }
        out
    }

    /// Decodes a root page that matched its hash.
    pub fn decode(page: &[u8]) -> Result<Self, Fault> {
        const SHORT: Fault = "the root page is cut off";
        let mut fields = Fields(page);
        if fields.array() != Some(MAGIC) {
            return Err("the root page does not begin with its mark");
        }
        let mut read = || {
            let layout = match fields.u8()? {
                0 => Some(Layout::Access),
                1 => Some(Layout::Dense),
                _ => None,
            };
            fields.u8()?;
            let next_dictionary = fields.u16()?;
            let (next_asset, ordered, next_folder, next_frame) =
                (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
            let (content_bytes, live_bytes, padding_bytes, dictionary_bytes) =
                (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
            let counters = Counters {
                next_asset,
                ordered,
                next_folder,
                next_frame,
                next_dictionary,
                content_bytes,
                live_bytes,
                padding_bytes,
                dictionary_bytes,
            };
            Some((layout, counters, fields.u16()?, fields.u16()?))
        };
        let (layout, counters, tree_count, section_count) = read().ok_or(SHORT)?;
        let layout = layout.ok_or("the root page names an unknown layout")?;
        let mut trees = [None; TREE_COUNT];
        let mut previous = 0;
        for _ in 0..tree_count {
            let (number, level) = (fields.u8().ok_or(SHORT)?, fields.u8().ok_or(SHORT)?);
            let page = PageRef::decode(&mut fields).ok_or(SHORT)?;
            let (entries, bytes) = (fields.u64().ok_or(SHORT)?, fields.u64().ok_or(SHORT)?);
            if number <= previous {
                return Err("the root page names its trees out of order");
            }
            previous = number;
            if usize::from(level) >= limits::TREE_DEPTH_MAX {
                return Err("the root page names a tree that is too deep");
            }
            // Trees of a later minor version are skipped: what must be understood has a feature bit.
            if let Some(slot) = trees.get_mut(usize::from(number) - 1) {
                *slot = Some(TreeRoot { page, level, entries, bytes });
            }
        }
        if usize::from(section_count) > SECTIONS_MAX || fields.0.len() != usize::from(section_count) * (8 + CHILD_BYTES)
        {
            return Err("the root page has another length than its counts say");
        }
        let mut sections = Vec::with_capacity(usize::from(section_count));
        for _ in 0..section_count {
            let (tag, flags) = (fields.array().ok_or(SHORT)?, fields.u32().ok_or(SHORT)?);
            let at = PageRef::decode(&mut fields).ok_or(SHORT)?;
            sections.push(Section { tag, flags, at });
        }
        Ok(Self { layout, counters, trees, sections })
    }
}
