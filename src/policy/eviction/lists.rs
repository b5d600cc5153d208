//! Queues of assets from which any one can be taken at once: nodes of one slab, linked by their places in it.
//!
//! There is a queue for each segment and kind. Every node has the number of its queueing, so that the queues of a segment,
//! taken together, are one queue over all kinds: its oldest is the oldest of seven.

use std::collections::HashMap;

use crate::ids::{AssetId, AssetKind, Hashing};

/// No place.
const NONE: u32 = u32::MAX;
const KINDS: usize = AssetKind::ALL.len();

/// A place in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32);

/// One asset, with what its policy keeps of it.
#[derive(Debug)]
struct Node<T> {
    id: AssetId,
    weight: u64,
    /// Grows with each queueing; the order within a queue.
    number: u64,
    newer: u32,
    older: u32,
    kind: u8,
    segment: u8,
    linked: bool,
    data: T,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    bytes: u64,
}

/// Queues for `SEGMENTS` segments.
#[derive(Debug)]
pub(super) struct Lists<T, const SEGMENTS: usize> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    index: HashMap<AssetId, u32, Hashing>,
    queues: [[Queue; KINDS]; SEGMENTS],
    numbers: u64,
}

impl<T, const SEGMENTS: usize> Default for Lists<T, SEGMENTS> {
    fn default() -> Self {
        let queue = Queue { newest: NONE, oldest: NONE, bytes: 0 };
        let queues = [[queue; KINDS]; SEGMENTS];
        Self { nodes: Vec::new(), free: Vec::new(), index: HashMap::default(), queues, numbers: 0 }
    }
}

impl<T, const SEGMENTS: usize> Lists<T, SEGMENTS> {
    /// Assets in it.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<T>>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.capacity() * (size_of::<(AssetId, u32)>() + 1)
    }

    /// Where an asset is.
    pub fn find(&self, id: AssetId) -> Option<At> {
        self.index.get(&id).map(|at| At(*at))
    }

    /// Puts an asset that is not there at the newest end of a queue.
    pub fn insert(&mut self, id: AssetId, segment: usize, kind: AssetKind, weight: u64, data: T) -> At {
        let (kind, segment_number) = (kind as u8, segment as u8);
        let (number, newer, older, linked) = (0, NONE, NONE, false);
        let node = Node { id, weight, number, newer, older, kind, segment: segment_number, linked, data };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.index.insert(id, at);
        self.link_newest(At(at), segment);
        At(at)
    }

    /// Takes an asset out; gives the segment that it was in.
    pub fn remove(&mut self, id: AssetId) -> Option<usize> {
        let at = self.index.remove(&id)?;
        self.unlink(At(at));
        self.free.push(at);
        Some(self.segment(At(at)))
    }

    /// Takes it out of its queue; it stays known, and its segment is remembered.
    pub fn unlink(&mut self, At(at): At) {
        let node = &mut self.nodes[at as usize];
        if !std::mem::replace(&mut node.linked, false) {
            return;
        }
        let (newer, older, weight) = (node.newer, node.older, node.weight);
        let queue = &mut self.queues[usize::from(node.segment)][usize::from(node.kind)];
        queue.bytes -= weight;
        match self.nodes.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => queue.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => queue.oldest = newer,
        }
    }

    /// Puts what is in no queue at the newest end of a segment's.
    pub fn link_newest(&mut self, At(at): At, segment: usize) {
        self.numbers += 1;
        let node = &mut self.nodes[at as usize];
        let queue = &mut self.queues[segment][usize::from(node.kind)];
        (node.segment, node.linked, node.number) = (segment as u8, true, self.numbers);
        (node.newer, node.older) = (NONE, queue.newest);
        queue.bytes += node.weight;
        let before = std::mem::replace(&mut queue.newest, at);
        match self.nodes.get_mut(before as usize) {
            Some(before) => before.newer = at,
            None => queue.oldest = at,
        }
    }

    /// Puts what was unlinked from the oldest end of its queue back there: the last unlinked first.
    pub fn link_oldest(&mut self, At(at): At) {
        let node = &mut self.nodes[at as usize];
        let queue = &mut self.queues[usize::from(node.segment)][usize::from(node.kind)];
        node.linked = true;
        (node.newer, node.older) = (queue.oldest, NONE);
        queue.bytes += node.weight;
        let before = std::mem::replace(&mut queue.oldest, at);
        match self.nodes.get_mut(before as usize) {
            Some(before) => before.older = at,
            None => queue.newest = at,
        }
    }

    /// To the newest end of a segment's queue.
    pub fn move_to(&mut self, at: At, segment: usize) {
        self.unlink(at);
        self.link_newest(at, segment);
    }

    /// What an asset weighs from now on.
    pub fn set_weight(&mut self, At(at): At, weight: u64) {
        let node = &mut self.nodes[at as usize];
        let before = std::mem::replace(&mut node.weight, weight);
        if node.linked {
            let queue = &mut self.queues[usize::from(node.segment)][usize::from(node.kind)];
            queue.bytes = queue.bytes - before + weight;
        }
    }

    /// The oldest of a segment, of this kind if one is given.
    pub fn oldest(&self, segment: usize, kind: Option<AssetKind>) -> Option<At> {
        let queues = &self.queues[segment];
        let oldest = match kind {
            Some(kind) => queues[kind as usize].oldest,
            None => {
                let oldest = queues.iter().map(|queue| queue.oldest).filter(|oldest| *oldest != NONE);
                oldest.min_by_key(|oldest| self.nodes[*oldest as usize].number)?
            }
        };
        (oldest != NONE).then_some(At(oldest))
    }

    /// The next newer one of its queue.
    pub fn newer(&self, At(at): At) -> Option<At> {
        let newer = self.nodes[at as usize].newer;
        (newer != NONE).then_some(At(newer))
    }

    /// The bytes of a segment, of this kind if one is given.
    pub fn bytes(&self, segment: usize, kind: Option<AssetKind>) -> u64 {
        match kind {
            Some(kind) => self.queues[segment][kind as usize].bytes,
            None => self.queues[segment].iter().map(|queue| queue.bytes).sum(),
        }
    }

    pub fn id(&self, At(at): At) -> AssetId {
        self.nodes[at as usize].id
    }

    pub fn kind(&self, At(at): At) -> AssetKind {
        AssetKind::ALL[usize::from(self.nodes[at as usize].kind)]
    }

    pub fn number(&self, At(at): At) -> u64 {
        self.nodes[at as usize].number
    }

    pub fn segment(&self, At(at): At) -> usize {
        usize::from(self.nodes[at as usize].segment)
    }

    pub fn is_linked(&self, At(at): At) -> bool {
        self.nodes[at as usize].linked
    }

    pub fn data(&mut self, At(at): At) -> &mut T {
        &mut self.nodes[at as usize].data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_of_all_kinds_together_are_one_queue() {
        let mut lists = Lists::<(), 2>::default();
        for id in 0..20u64 {
            lists.insert(AssetId(id), 0, AssetKind::ALL[(id % 3) as usize], id, ());
        }
        let third = lists.find(AssetId(3)).unwrap();
        lists.move_to(third, 0);
        assert_eq!(lists.remove(AssetId(4)), Some(0));
        let mut seen = Vec::new();
        let mut taken = Vec::new();
        while let Some(at) = lists.oldest(0, None) {
            seen.push(lists.id(at).0);
            lists.unlink(at);
            taken.push(at);
        }
        let expected: Vec<u64> = (0..20).filter(|id| *id != 4 && *id != 3).chain([3]).collect();
        assert_eq!((seen, lists.bytes(0, None)), (expected, 0));
        taken.into_iter().rev().for_each(|at| lists.link_oldest(at));
        assert_eq!(lists.bytes(0, None), (0..20).sum::<u64>() - 4);
        assert_eq!(lists.oldest(0, Some(AssetKind::ALL[1])).map(|at| lists.id(at).0), Some(1));
        let first = lists.oldest(0, None).unwrap();
        assert_eq!((lists.id(first).0, lists.newer(first).map(|at| lists.id(at).0)), (0, Some(6)));
        lists.set_weight(first, 100);
        assert_eq!((lists.bytes(0, Some(AssetKind::ALL[0])), lists.len()), (100 + 6 + 9 + 12 + 15 + 18 + 3, 19));
    }
}
