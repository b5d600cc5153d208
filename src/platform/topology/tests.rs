//! The parser on made-up trees; tests/topology.rs has those of real machines.

use std::fs;

use proptest::prelude::*;

use super::*;

/// A made-up tree of nodes: number, cpulist, MemTotal in kB.
fn tree(nodes: &[(usize, &str, u64)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (number, cpulist, kib) in nodes {
        let meminfo = format!("Node {number} MemTotal:       {kib} kB\nNode {number} MemFree: 1 kB\n");
        put(&root, &format!("devices/system/node/node{number}/cpulist"), &format!("{cpulist}\n"));
        put(&root, &format!("devices/system/node/node{number}/meminfo"), &meminfo);
    }
    if !nodes.is_empty() {
        // What stands beside the nodes in the real tree.
        put(&root, "devices/system/node/online", "0\n");
        put(&root, "devices/system/node/power/control", "auto\n");
    }
    root
}

fn put(root: &tempfile::TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
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
fn only_processors_that_may_be_used_count() {
    check(&[(0, "0-3", 8), (1, "4-7", 8)], &[5, 6], &[(1, &[5, 6])], &[0]);
    check(&[(0, "0-3", 8), (1, "4-7", 8)], &[1, 9], &[(0, &[1, 9])], &[1]);
}

#[test]
fn a_tree_that_is_missing_or_makes_no_sense_is_one_node() {
    check(&[], &[0, 1, 2], &[(0, &[0, 1, 2])], &[]);
    check(&[(0, "", 64)], &[0, 1], &[(0, &[0, 1])], &[]);
    check(&[(0, "zero", 0), (1, "3-1,-,x-y,,", 0)], &[0, 2], &[(0, &[0, 2])], &[]);
    check(&[(0, "0-99999999999", 1), (1, "0-1", 1)], &[0, 1], &[(0, &[0, 1])], &[1]);
    let root = tree(&[(0, "0-1", 8)]);
    put(&root, "devices/system/cpu/present", "0-1");
    put(&root, "devices/system/cpu/online", "none");
    let topology = Topology::read(root.path(), &CpuSet::from_iter([0, 1]));
    assert_eq!(topology.cpu_count(), 2, "whoever reads this runs on a processor");
    let here = Topology::detect();
    assert!(here.cpu_count() >= 1 && !here.nodes.is_empty());
}

#[test]
fn the_small_cores_of_a_hybrid_processor_are_told_by_their_kind() {
    let root = tree(&[(0, "0-5", 8)]);
    put(&root, "devices/cpu_core/cpus", "0-3\n");
    put(&root, "devices/cpu_atom/cpus", "4-5\n");
    for (cpu, khz) in [(0, 5_200_000), (1, 5_200_000), (2, 5_000_000), (3, 5_000_000), (4, 3_900_000), (5, 3_900_000)] {
        put(&root, &format!("devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"), &format!("{khz}\n"));
    }
    let topology = Topology::read(root.path(), &(0..6).collect());
    let capacities: Vec<u32> = topology.cpus.iter().map(|cpu| cpu.capacity).collect();
    assert_eq!(capacities, [1024, 1024, 1024, 1024, 798, 798]);
    assert!(topology.is_heterogeneous());
    assert_eq!(topology.fastest(&topology.nodes[0]), [0, 1, 2, 3]);
    // Within a container on the small cores alone they are the fastest there are.
    let small = Topology::read(root.path(), &CpuSet::from_iter([4, 5]));
    assert!(!small.is_heterogeneous());
    assert_eq!(small.fastest(&small.nodes[0]), [4, 5]);
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
        prop_assert_eq!(&cpus, &allowed.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(cpus, topology.cpus.iter().map(|cpu| cpu.number).collect::<Vec<_>>());
        prop_assert!(topology.nodes.iter().all(|node| !node.cpus.is_empty()));
    }
}
