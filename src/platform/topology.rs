//! NUMA nodes and their processors, as far as this process may use them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::affinity::{self, CpuSet};

/// Processor and node numbers above this are not believed: no kernel is built for more.
const NUMBER_MAX: usize = 8191;

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The operating system's number; there may be holes.
    pub number: usize,
    /// The processors of the node that this process may use, ascending.
    pub cpus: Vec<usize>,
    /// The node's memory in bytes; 0 where it is not known.
    pub memory_bytes: u64,
}

/// What the machine looks like to this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The nodes with processors for this process, by number; never empty. A machine without NUMA is one node.
    pub nodes: Vec<Node>,
    /// Nodes with memory and no processor for this process.
    pub memory_only: Vec<Node>,
}

impl Topology {
    /// This machine, within the calling thread's affinity mask.
    pub fn detect() -> Self {
        Self::read(Path::new("/sys"), &affinity::allowed())
    }

    /// Reads the tree that Linux shows at `/sys` from `sysfs`. What is missing or malformed there is passed over: every
    /// processor of `allowed` ends up in exactly one node.
    pub fn read(sysfs: &Path, allowed: &CpuSet) -> Self {
        let mut left: BTreeSet<usize> = if allowed.is_any() {
            (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
        } else {
            allowed.cpus().collect()
        };
        let (mut nodes, mut memory_only) = (Vec::new(), Vec::new());
        for number in node_numbers(&sysfs.join("devices/system/node")) {
            let folder = sysfs.join(format!("devices/system/node/node{number}"));
            let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
            let cpus: Vec<usize> = parse_list(&text("cpulist")).into_iter().filter(|cpu| left.remove(cpu)).collect();
            let node = Node { number, cpus, memory_bytes: parse_memory(&text("meminfo")) };
            if !node.cpus.is_empty() {
                nodes.push(node);
            } else if node.memory_bytes > 0 {
                memory_only.push(node);
            }
        }
        match nodes.first_mut() {
            Some(first) => {
                first.cpus.extend(left);
                first.cpus.sort_unstable();
            }
            None => {
                // All memory is one node's, whatever the tree says of it: someone must read.
                let memory_bytes = memory_only.iter().map(|node| node.memory_bytes).sum();
                memory_only.clear();
                nodes.push(Node { number: 0, cpus: left.into_iter().collect(), memory_bytes });
            }
        }
        Self { nodes, memory_only }
    }

    /// The number of processors that this process may use.
    pub fn cpu_count(&self) -> usize {
        self.nodes.iter().map(|node| node.cpus.len()).sum()
    }
}

fn node_numbers(folder: &Path) -> BTreeSet<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    let number = |name: &str| name.strip_prefix("node")?.parse().ok().filter(|number| *number <= NUMBER_MAX);
    entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect()
}

/// The kernel's list form: `0-3,8,10-11`. Parts that make no sense are passed over.
fn parse_list(text: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            numbers.extend(from..=to.min(NUMBER_MAX));
        }
    }
    numbers
}

/// The line `Node 0 MemTotal:  1234 kB`.
fn parse_memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.split_once("MemTotal:"));
    let kib = line.and_then(|(_, value)| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A made-up tree of nodes: number, cpulist, MemTotal in kB.
    fn tree(nodes: &[(usize, &str, u64)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (number, cpulist, kib) in nodes {
            let folder = root.path().join(format!("devices/system/node/node{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cpulist"), format!("{cpulist}\n")).unwrap();
            let meminfo = format!("Node {number} MemTotal:       {kib} kB\nNode {number} MemFree: 1 kB\n");
            fs::write(folder.join("meminfo"), meminfo).unwrap();
        }
        if !nodes.is_empty() {
            // What stands beside the nodes in the real tree.
            fs::write(root.path().join("devices/system/node/online"), "0\n").unwrap();
            fs::create_dir_all(root.path().join("devices/system/node/power")).unwrap();
        }
        root
    }

    fn check(nodes: &[(usize, &str, u64)], allowed: &[usize], expected: &[(usize, &[usize])], memory_only: &[usize]) {
        let root = tree(nodes);
        let topology = Topology::read(root.path(), &allowed.iter().copied().collect());
        let got: Vec<_> = topology.nodes.iter().map(|node| (node.number, node.cpus.as_slice())).collect();
        assert_eq!(got, expected);
        let got: Vec<_> = topology.memory_only.iter().map(|node| node.number).collect();
        assert_eq!(got, memory_only);
    }

    #[test]
    fn machines_of_one_two_and_four_nodes_are_read() {
        check(&[(0, "0-1", 8)], &[0, 1], &[(0, &[0, 1])], &[]);
        check(
            &[(0, "0-1,4-5", 8), (1, "2-3,6-7", 8)],
            &[0, 1, 2, 3, 4, 5, 6, 7],
            &[(0, &[0, 1, 4, 5]), (1, &[2, 3, 6, 7])],
            &[],
        );
        let four = [(0, "0", 1), (1, "1", 1), (2, "2", 1), (3, "3", 1)];
        check(&four, &[0, 1, 2, 3], &[(0, &[0]), (1, &[1]), (2, &[2]), (3, &[3])], &[]);
        let root = tree(&[(0, "0", 1024)]);
        assert_eq!(Topology::read(root.path(), &CpuSet::one(0)).nodes[0].memory_bytes, 1 << 20);
    }

    #[test]
    fn holes_and_nodes_of_memory_alone_are_kept_apart() {
        check(&[(0, "0-1", 8), (4, "", 64), (8, "2-3", 8)], &[0, 1, 2, 3], &[(0, &[0, 1]), (8, &[2, 3])], &[4]);
        check(&[(0, "", 64)], &[0, 1], &[(0, &[0, 1])], &[]);
    }

    #[test]
    fn only_processors_that_may_be_used_count() {
        check(&[(0, "0-3", 8), (1, "4-7", 8)], &[5, 6], &[(1, &[5, 6])], &[0]);
        check(&[(0, "0-3", 8), (1, "4-7", 8)], &[1, 9], &[(0, &[1, 9])], &[1]);
    }

    #[test]
    fn a_tree_that_is_missing_or_makes_no_sense_is_one_node() {
        check(&[], &[0, 1, 2], &[(0, &[0, 1, 2])], &[]);
        check(&[(0, "zero", 0), (1, "3-1,-,x-y,,", 0)], &[0, 2], &[(0, &[0, 2])], &[]);
        check(&[(0, "0-99999999999", 1), (1, "0-1", 1)], &[0, 1], &[(0, &[0, 1])], &[1]);
        let here = Topology::detect();
        assert!(here.cpu_count() >= 1 && !here.nodes.is_empty());
    }

    proptest! {
        #[test]
        fn every_allowed_processor_is_in_exactly_one_node(
            lists in prop::collection::vec("[0-9,\\-]{0,12}", 0..4),
            allowed in prop::collection::btree_set(0usize..64, 1..16),
        ) {
            let nodes: Vec<_> = lists.iter().enumerate().map(|(number, list)| (number, list.as_str(), 1)).collect();
            let topology = Topology::read(tree(&nodes).path(), &allowed.iter().copied().collect());
            let mut cpus: Vec<usize> = topology.nodes.iter().flat_map(|node| node.cpus.clone()).collect();
            cpus.sort_unstable();
            prop_assert_eq!(cpus, allowed.into_iter().collect::<Vec<_>>());
            prop_assert!(topology.nodes.iter().all(|node| !node.cpus.is_empty()));
        }
    }
}
