//! The upper pages of a tree, unfolded: a lookup finds its way through the root and the level below it in sorted
//! arrays instead of walking entries, which is most of what a descent costs.
//!
//! Bounded by construction: two levels of each tree, of which a page holds some dozens of children. A tree that is
//! hardly used is not unfolded: every new generation of a store begins with nothing here, and is asked little.
//!
//! An unfolded page says what its bytes said when it was unfolded. A hostile page that lies about its order gives wrong
//! answers of its own making, as it does to [`super::page::search`]; what it cannot say is left to that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::page::{PageRef, Position};
use super::tree::{Tree, TreeRoot, child};

/// Lookups after which a tree's upper pages are unfolded; tests unfold at once, to walk both ways.
const USES_MIN: u32 = if cfg!(test) { 2 } else { 16 };
/// Levels that are unfolded.
const LEVELS: usize = 2;
/// Bytes of a key that are compared at once.
const HEAD: usize = 8;

/// What is unfolded of one tree of one generation.
#[derive(Default)]
pub(crate) struct Index {
    uses: AtomicU32,
    root: OnceLock<Node>,
}

/// One interior page. Empty when it cannot be unfolded: then its bytes are searched, which says what is wrong.
#[derive(Default)]
struct Node {
    /// The first bytes of each child's first key, as a big-endian number, shorter keys filled up with zeros.
    heads: Box<[u64]>,
    children: Box<[Child]>,
}

struct Child {
    /// Length of its first key.
    key_len: u8,
    at: PageRef,
    below: OnceLock<Node>,
}

impl Index {
    /// The page to go on with from the root towards `key`, and its level.
    pub fn lead(&self, tree: &Tree<'_>, root: &TreeRoot, key: &[u8]) -> (PageRef, u8) {
        let (mut at, mut level) = (root.page, root.level);
        if level == 0 || !self.is_used() {
            return (at, level);
        }
        let mut place = &self.root;
        for _ in 0..LEVELS {
            if level == 0 {
                break;
            }
            let node = place.get_or_init(|| Node::unfold(tree, &at, level).unwrap_or_default());
            let Some(child) = node.choose(key) else { break };
            (at, level, place) = (child.at, level - 1, &child.below);
        }
        (at, level)
    }

    fn is_used(&self) -> bool {
        // Once it is used enough nobody writes here any more.
        self.uses.load(Ordering::Relaxed) >= USES_MIN || self.uses.fetch_add(1, Ordering::Relaxed) + 1 >= USES_MIN
    }
}

impl Node {
    /// `None` where anything is amiss.
    fn unfold(tree: &Tree<'_>, at: &PageRef, level: u8) -> Option<Self> {
        let page = tree.view.page(at).ok()?;
        let mut position = Position::start(&page, tree.spec).ok().filter(|position| position.level == level)?;
        let (mut heads, mut children) = (Vec::new(), Vec::new());
        while let Some(payload) = position.next(&page).ok()? {
            let key = position.key.as_slice();
            heads.push(head(key));
            let key_len = u8::try_from(key.len()).ok()?;
            children.push(Child { key_len, at: child(payload).ok()?, below: OnceLock::new() });
        }
        Some(Self { heads: heads.into(), children: children.into() })
    }

    /// The last child whose first key is at most `key`, or the first child; `None` where only whole keys tell.
    fn choose(&self, key: &[u8]) -> Option<&Child> {
        let wanted = head(key);
        let after = self.heads.partition_point(|head| *head <= wanted);
        let chosen = after.saturating_sub(1);
        let child = self.children.get(chosen)?;
        let equal = *self.heads.get(chosen)? == wanted;
        let same = key.len() <= HEAD && usize::from(child.key_len) == key.len();
        (!equal || (same && (chosen == 0 || self.heads[chosen - 1] != wanted))).then_some(child)
    }
}

fn head(key: &[u8]) -> u64 {
    match key.first_chunk::<HEAD>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; HEAD];
            head[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(head)
        }
    }
}
