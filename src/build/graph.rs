//! The dependency graph as pure functions: units (cycles), an order in which dependencies come first, closures.
//!
//! Nothing here recurses, so that a chain of a million files is as safe as a short one.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::AssetPath;

/// The strongly connected components of the graph in which `edges[a]` are the nodes that `a` uses.
///
/// Dependencies come before what uses them; the members of a unit are in ascending order. A node that is in no cycle
/// is a unit of its own. Tarjan's algorithm, with its recursion unrolled onto a stack of our own.
pub fn units(edges: &[Vec<u32>]) -> Vec<Vec<u32>> {
    const UNSEEN: u32 = u32::MAX;
    let mut index = vec![UNSEEN; edges.len()];
    let mut low = vec![0_u32; edges.len()];
    let mut on_stack = vec![false; edges.len()];
    let mut stack = Vec::new();
    let mut found = Vec::new();
    let mut next = 0;
    // (node, how many of its edges were followed)
    let mut path: Vec<(u32, usize)> = Vec::new();
    for root in 0..edges.len() as u32 {
        if index[root as usize] != UNSEEN {
            continue;
        }
        path.push((root, 0));
        while let Some(&mut (node, ref mut followed)) = path.last_mut() {
            let at = node as usize;
            if *followed == 0 {
                index[at] = next;
                low[at] = next;
                next += 1;
                stack.push(node);
                on_stack[at] = true;
            }
            if let Some(&target) = edges[at].get(*followed) {
                *followed += 1;
                let target_at = target as usize;
                if index[target_at] == UNSEEN {
                    path.push((target, 0));
                } else if on_stack[target_at] {
                    low[at] = low[at].min(index[target_at]);
                }
                continue;
            }
            path.pop();
            if let Some(&(parent, _)) = path.last() {
                low[parent as usize] = low[parent as usize].min(low[at]);
            }
            if low[at] == index[at] {
                let mut unit = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    unit.push(member);
                    if member == node {
                        break;
                    }
                }
                unit.sort_unstable();
                found.push(unit);
            }
        }
    }
    found
}

/// Everything that is reached from `start` through `next`, `start` included.
pub fn closure(
    start: impl IntoIterator<Item = AssetPath>,
    mut next: impl FnMut(&AssetPath, &mut Vec<AssetPath>),
) -> BTreeSet<AssetPath> {
    let mut reached: BTreeSet<AssetPath> = BTreeSet::new();
    let mut waiting: VecDeque<AssetPath> = start.into_iter().collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop_front() {
        if reached.contains(&path) {
            continue;
        }
        next(&path, &mut found);
        waiting.extend(found.drain(..));
        reached.insert(path);
    }
    reached
}

/// For each node the node that it is laid out beside: what exactly one other node uses goes to that node, and so on
/// up the chain; everything else stands by itself.
///
/// `edges[a]` are the nodes that `a` uses.
pub fn leaders<E: AsRef<[u32]>>(edges: &[E]) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    const MANY: u32 = u32::MAX - 1;
    let mut user = vec![NONE; edges.len()];
    for (node, uses) in edges.iter().enumerate() {
        let node = node as u32;
        for &target in uses.as_ref() {
            let slot = &mut user[target as usize];
            if target != node && *slot != node {
                *slot = if *slot == NONE { node } else { MANY };
            }
        }
    }
    let mut leader: Vec<u32> = vec![NONE; edges.len()];
    let mut chain = Vec::new();
    for node in 0..edges.len() as u32 {
        chain.clear();
        let mut at = node;
        let top = loop {
            if leader[at as usize] != NONE {
                break leader[at as usize];
            }
            chain.push(at);
            match user[at as usize] {
                NONE | MANY => break at,
                // Only a cycle leads back into the chain: its first member in order leads it.
                up if chain.contains(&up) => break chain.iter().copied().min().unwrap_or(at),
                up => at = up,
            }
            if chain.len() >= CHAIN_MAX {
                break at;
            }
        };
        for &member in &chain {
            leader[member as usize] = top;
        }
    }
    leader
}

/// Chains of single users that are longer than this are cut: locality beyond it is worth nothing.
const CHAIN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> AssetPath {
        AssetPath::new(name).unwrap()
    }

    #[test]
    fn dependencies_come_before_what_uses_them() {
        // 0 uses 1 and 2, 1 uses 2.
        assert_eq!(units(&[vec![1, 2], vec![2], vec![]]), [vec![2], vec![1], vec![0]]);
    }

    #[test]
    fn a_cycle_is_one_unit() {
        assert_eq!(units(&[vec![1], vec![2], vec![0, 3], vec![]]), [vec![3], vec![0, 1, 2]]);
        assert_eq!(units(&[vec![0]]), [vec![0]]);
    }

    #[test]
    fn a_chain_of_a_million_does_not_overflow_the_stack() {
        let edges: Vec<Vec<u32>> = (0..1_000_000).map(|n| if n < 999_999 { vec![n + 1] } else { vec![] }).collect();
        let units = units(&edges);
        assert_eq!(units.len(), 1_000_000);
        assert_eq!(units[0], [999_999]);
        assert_eq!(leaders(&edges).len(), 1_000_000);
    }

    #[test]
    fn what_one_asset_alone_uses_is_laid_out_beside_it() {
        // 0 and 1 use 2; 1 uses 3; 3 uses 4.
        assert_eq!(leaders(&[vec![2], vec![2, 3], vec![], vec![4], vec![]]), [0, 1, 2, 1, 1]);
        // A cycle has a leader of its own.
        assert_eq!(leaders(&[vec![1], vec![0]]), [0, 0]);
    }

    #[test]
    fn a_closure_ends_in_a_cycle() {
        let reached = closure([path("a")], |at, into| match at.as_str() {
            "a" => into.push(path("b")),
            "b" => into.extend([path("a"), path("c")]),
            _ => {}
        });
        assert_eq!(reached, BTreeSet::from([path("a"), path("b"), path("c")]));
    }

    proptest! {
        #[test]
        fn units_are_what_reaches_each_other(edges in prop::collection::vec(prop::collection::vec(0_u32..12, 0..4), 12)) {
            let reach = |from: u32| {
                let mut seen = BTreeSet::from([from]);
                let mut waiting = vec![from];
                while let Some(at) = waiting.pop() {
                    for &to in &edges[at as usize] {
                        if seen.insert(to) {
                            waiting.push(to);
                        }
                    }
                }
                seen
            };
            let found = units(&edges);
            let mut place = [usize::MAX; 12];
            for (number, unit) in found.iter().enumerate() {
                for &member in unit {
                    prop_assert_eq!(place[member as usize], usize::MAX);
                    place[member as usize] = number;
                }
            }
            for a in 0..12_u32 {
                for b in 0..12_u32 {
                    let together = reach(a).contains(&b) && reach(b).contains(&a);
                    prop_assert_eq!(together, place[a as usize] == place[b as usize]);
                }
                for &uses in &edges[a as usize] {
                    prop_assert!(place[uses as usize] <= place[a as usize]);
                }
            }
        }
    }
}
