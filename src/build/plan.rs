//! Which bytes go into which frame. Pure: the same contents in the same order give the same plan, on every machine,
//! and a compaction that knows the contents from a bundle comes to the plan of a fresh pack.
//!
//! Small contents of a kind share frames. A content that is larger than a frame has frames of its own; what is left
//! over at its end shares one, unless the content is so large that it does not matter.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::arena::{Arenas, Lent};
use super::{graph, parallel};
use crate::ids::{AssetKind, AssetPath};

/// How many frames of a kind are filled at once: what does not fit into one may fit into the next.
const OPEN_MAX: usize = 4;
/// A kind of file has frames to itself from this many frames' worth of bytes on; below, all of an [`AssetKind`] share.
const OWN_GROUP_FRAMES: u64 = 8;
/// From this many frames on the end of a content has a frame of its own.
const OWN_TAIL_FRAMES: u64 = 16;

/// A content to be laid out.
#[derive(Clone, Debug)]
pub struct Item {
    /// The asset that it is laid out for: the first that has it.
    pub path: AssetPath,
    /// Its length.
    pub len: u64,
    /// Where it is cut, for large contents whose boundaries its bytes define: ascending, the last is `len`.
    pub cuts: Vec<u64>,
}

/// A part of a content in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which item.
    pub item: u32,
    /// Which of its bytes.
    pub range: Range<u64>,
}

/// A frame to be encoded: its pieces one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFrame {
    /// Frames of a group hold files of one kind; a dictionary is for a group.
    pub group: u32,
    /// Whether several contents share it.
    pub shared: bool,
    /// What it holds.
    pub pieces: Vec<Piece>,
}

impl PlannedFrame {
    /// Decoded bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.range.end - piece.range.start).sum()
    }
}

/// A whole plan.
#[derive(Debug, Default)]
pub struct Plan {
    /// The group of each item.
    pub groups: Vec<u32>,
    /// How many groups there are.
    pub group_count: u32,
    /// The frames in the order in which they are written.
    pub frames: Vec<PlannedFrame>,
}

/// The order in which assets are laid out: path order, but what one asset alone uses comes right after it.
///
/// `assets` are paths, in path order, and what each uses; what is not among them counts for nothing. Returns numbers of
/// assets.
pub fn order(threads: usize, assets: &[(&AssetPath, &[AssetPath])]) -> Vec<u32> {
    let mut arenas = Arenas::new(threads);
    let edges = edges(threads, assets, &arenas.lend());
    let leaders = graph::leaders(&edges);
    let mut order: Vec<u32> = (0..assets.len() as u32).collect();
    // Numbers are in path order, so that comparing them compares paths.
    let place = |asset: u32| (leaders[asset as usize], asset != leaders[asset as usize], asset);
    if !order.is_sorted_by_key(|&asset| place(asset)) {
        order.sort_unstable_by_key(|&asset| place(asset));
    }
    order
}

/// The numbers of the assets that each asset uses.
fn edges<'b>(threads: usize, assets: &[(&AssetPath, &[AssetPath])], lent: &Lent<'b>) -> Vec<Cow<'b, [u32]>> {
    let number: HashMap<&AssetPath, u32> =
        assets.iter().enumerate().map(|(number, (path, _))| (*path, number as u32)).collect();
    parallel::map(
        threads,
        assets,
        || (lent.arena(), Vec::new(), Vec::new()),
        |(arena, before, found), _, (_, uses)| {
            // Neighbouring assets mostly use the same ones, named in the same order.
            before.truncate(uses.len());
            for (index, path) in uses.iter().enumerate() {
                match before.get_mut(index) {
                    Some((last, _)) if *last == path => {}
                    Some(last) => *last = (path, number.get(path).copied()),
                    None => before.push((path, number.get(path).copied())),
                }
            }
            found.clear();
            found.extend(before.iter().filter_map(|(_, number)| *number));
            arena.list(found).map_or_else(|| Cow::Owned(found.clone()), Cow::Borrowed)
        },
    )
}

/// Lays out `items`, which are in layout order, in frames of at most `frame_bytes_max`.
pub fn plan(items: &[Item], frame_bytes_max: u64) -> Plan {
    let mut plan = Plan::default();
    (plan.groups, plan.group_count) = groups(items, frame_bytes_max);
    // With their bytes, since a frame of small contents has many pieces.
    let mut open: Vec<Vec<(u64, PlannedFrame)>> = vec![Vec::new(); plan.group_count as usize];
    for (number, item) in items.iter().enumerate() {
        let (number, group) = (number as u32, plan.groups[number]);
        let alone = |range| PlannedFrame { group, shared: false, pieces: vec![Piece { item: number, range }] };
        if !item.cuts.is_empty() {
            let starts = std::iter::once(0).chain(item.cuts.iter().copied());
            plan.frames.extend(starts.zip(&item.cuts).map(|(start, &end)| alone(start..end)));
            continue;
        }
        let mut start = 0;
        while item.len - start >= frame_bytes_max {
            plan.frames.push(alone(start..start + frame_bytes_max));
            start += frame_bytes_max;
        }
        if start == item.len {
            continue;
        }
        if start / frame_bytes_max >= OWN_TAIL_FRAMES {
            plan.frames.push(alone(start..item.len));
            continue;
        }
        let piece = Piece { item: number, range: start..item.len };
        let open = &mut open[group as usize];
        let len = item.len - start;
        if let Some((bytes, frame)) = open.iter_mut().find(|(bytes, _)| bytes + len <= frame_bytes_max) {
            *bytes += len;
            frame.shared = true;
            frame.pieces.push(piece);
            continue;
        }
        if open.len() == OPEN_MAX {
            // The fullest has the least use left; of equals the oldest.
            let fullest = (0..open.len()).max_by_key(|&at| (open[at].0, std::cmp::Reverse(at)));
            plan.frames.extend(fullest.map(|at| open.remove(at).1));
        }
        open.push((len, PlannedFrame { group, shared: false, pieces: vec![piece] }));
    }
    plan.frames.extend(open.into_iter().flatten().map(|(_, frame)| frame));
    plan
}

/// A group for each extension with enough bytes, and one for what is left of each kind.
fn groups(items: &[Item], frame_bytes_max: u64) -> (Vec<u32>, u32) {
    let extension = |path: &AssetPath| path.extension().unwrap_or("").to_ascii_lowercase();
    let mut number: HashMap<String, u32> = HashMap::new();
    let mut bytes: Vec<u64> = Vec::new();
    let mut last: Option<(String, u32)> = None;
    let of: Vec<u32> = items
        .iter()
        .map(|item| {
            // Neighbours mostly have the same extension.
            let same = |(last, _): &&(String, u32)| item.path.extension().unwrap_or("") == last;
            let found = last.as_ref().filter(same).map(|(_, number)| *number).unwrap_or_else(|| {
                let found = *number.entry(extension(&item.path)).or_insert_with(|| {
                    bytes.push(0);
                    bytes.len() as u32 - 1
                });
                last = Some((item.path.extension().unwrap_or("").to_owned(), found));
                found
            });
            bytes[found as usize] += item.len;
            found
        })
        .collect();
    let mut renumbered: BTreeMap<(bool, u32), u32> = BTreeMap::new();
    let groups = of
        .iter()
        .zip(items)
        .map(|(&extension, item)| {
            let own = bytes[extension as usize] >= OWN_GROUP_FRAMES * frame_bytes_max;
            let key = if own { extension } else { kind(&item.path) as u32 };
            let next = renumbered.len() as u32;
            *renumbered.entry((own, key)).or_insert(next)
        })
        .collect();
    (groups, renumbered.len() as u32)
}

fn kind(path: &AssetPath) -> AssetKind {
    path.kind()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(path: &str, len: u64) -> Item {
        Item { path: AssetPath::new(path).unwrap(), len, cuts: Vec::new() }
    }

    #[test]
    fn small_contents_of_a_kind_share_a_frame_and_kinds_do_not_mix() {
        let plan = plan(&[item("a.txt", 10), item("b.png", 10), item("c.txt", 20), item("d.md", 5)], 64);
        let pieces: Vec<Vec<u32>> =
            plan.frames.iter().map(|frame| frame.pieces.iter().map(|piece| piece.item).collect()).collect();
        assert_eq!(pieces, [vec![0, 2, 3], vec![1]]);
    }

    #[test]
    fn the_end_of_a_content_shares_a_frame_unless_the_content_is_very_large() {
        let plan = plan(&[item("a.txt", 100), item("b.txt", 20), item("c.txt", 64 * 20 + 1)], 64);
        let lens: Vec<(bool, u64)> = plan.frames.iter().map(|frame| (frame.shared, frame.bytes())).collect();
        let mut expected = vec![(false, 64)];
        expected.extend([(false, 64); 20]);
        expected.push((false, 1));
        expected.push((true, 56));
        assert_eq!(lens, expected);
    }

    #[test]
    fn an_empty_content_needs_no_frame() {
        assert!(plan(&[item("a", 0)], 64).frames.is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_of_every_content_is_in_exactly_one_frame(
            lens in prop::collection::vec((0_u64..300, 0_usize..4), 0..60)
        ) {
            let items: Vec<Item> = lens
                .iter()
                .enumerate()
                .map(|(number, (len, kind))| item(&format!("{number}.{}", ["txt", "png", "obj", "x"][*kind]), *len))
                .collect();
            let plan = plan(&items, 64);
            let mut seen = vec![0; items.len()];
            for frame in &plan.frames {
                prop_assert!(frame.bytes() <= 64 && frame.bytes() > 0);
                for piece in &frame.pieces {
                    prop_assert_eq!(plan.groups[piece.item as usize], frame.group);
                }
            }
            let mut ranges: Vec<&Piece> = plan.frames.iter().flat_map(|frame| &frame.pieces).collect();
            ranges.sort_by_key(|piece| (piece.item, piece.range.start));
            for piece in ranges {
                prop_assert_eq!(seen[piece.item as usize], piece.range.start);
                seen[piece.item as usize] = piece.range.end;
            }
            for (item, seen) in items.iter().zip(seen) {
                prop_assert_eq!(item.len, seen);
            }
        }
    }
}
