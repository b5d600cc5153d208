//! What Flyloft understands of machines that it does not run on: the files that Linux showed on them are in
//! tests/topology/, one text file for each machine.

use std::fs;
use std::path::Path;

use flyloft::config::Pinning;
use flyloft::platform::affinity::{CpuSet, deal_threads, worker_cpus};
use flyloft::platform::numa::Nodes;
use flyloft::platform::topology::{Cache, CacheKind, Topology};
use tempfile::TempDir;

/// Makes the tree of a machine: lines of `path = text`.
fn machine(name: &str) -> TempDir {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topology").join(format!("{name}.sysfs"));
    let root = tempfile::tempdir().unwrap();
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (path, text) = line.split_once(" =").unwrap();
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{}\n", text.trim().replace("\\n", "\n"))).unwrap();
    }
    root
}

fn read(root: &TempDir, allowed: impl IntoIterator<Item = usize>) -> Topology {
    Topology::read(&root.path().join("sys"), &allowed.into_iter().collect())
}

/// Node by node: number, processors, GiB.
fn shown(topology: &Topology) -> Vec<(usize, String, u64)> {
    let node = |node: &flyloft::platform::topology::Node| {
        (node.number, CpuSet::from_iter(node.cpus.iter().copied()).to_string(), node.memory_bytes >> 30)
    };
    topology.nodes.iter().map(node).collect()
}

fn check(name: &str, allowed: impl IntoIterator<Item = usize>, nodes: &[(usize, &str, u64)]) -> Topology {
    let topology = read(&machine(name), allowed);
    let expected: Vec<_> = nodes.iter().map(|(number, cpus, gib)| (*number, (*cpus).to_owned(), *gib)).collect();
    assert_eq!(shown(&topology), expected, "{name}");
    topology
}

#[test]
fn a_desktop_is_one_node_whose_cores_run_two_threads() {
    let topology = check("desktop-1-node", 0..8, &[(0, "0-7", 0)]);
    assert_eq!((topology.cpu_count(), topology.core_count()), (8, 4));
    let cores: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.core).collect();
    assert_eq!(cores, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert!(!topology.is_heterogeneous() && topology.offline.is_empty());
}

#[test]
fn caches_are_told_once_with_those_who_share_them() {
    let root = machine("desktop-1-node");
    let topology = read(&root, 0..8);
    let caches = topology.caches(&root.path().join("sys"));
    let count = |level, kind| caches.iter().filter(|cache| (cache.level, cache.kind) == (level, kind)).count();
    assert_eq!(count(1, CacheKind::Data) + count(1, CacheKind::Instruction), 8);
    assert_eq!((count(2, CacheKind::Unified), count(3, CacheKind::Unified)), (4, 1));
    let last = Cache { level: 3, kind: CacheKind::Unified, bytes: 8 << 20, line_bytes: 64, cpus: (0..8).collect() };
    assert_eq!(caches.last(), Some(&last));
    // A process that may use one thread of one core sees that core's caches, shared with nobody.
    let one = read(&root, [5]).caches(&root.path().join("sys"));
    assert!(one.len() == 4 && one.iter().all(|cache| cache.cpus == [5]), "{one:?}");
}

#[test]
fn a_server_of_two_nodes_knows_how_far_they_are() {
    let topology = check("server-2-nodes", 0..32, &[(0, "0-7,16-23", 45), (1, "8-15,24-31", 47)]);
    assert_eq!(
        topology.nodes[0].distances.iter().map(|(node, far)| (*node, *far)).collect::<Vec<_>>(),
        [(0, 10), (1, 21)]
    );
    assert_eq!((topology.core_count(), topology.cpus[31].package, topology.cpus[31].core), (16, 1, 15));
    // Where the node has cores to spare the worker gets its last one.
    assert_eq!(worker_cpus(&topology, &topology.nodes[1], Pinning::Auto).to_string(), "31");
}

#[test]
fn four_nodes_whose_processors_are_dealt_out_in_turn() {
    let nodes = [(0, "0,4", 15), (1, "1,5", 16), (2, "2,6", 16), (3, "3,7", 16)];
    let topology = check("opteron-4-nodes", 0..8, &nodes);
    assert_eq!(worker_cpus(&topology, &topology.nodes[1], Pinning::Auto).to_string(), "1,5");
}

#[test]
fn eight_nodes_and_a_container_on_part_of_them() {
    let nodes: Vec<(usize, String)> = (0..8).map(|node| (node, format!("{}-{}", node * 4, node * 4 + 3))).collect();
    let nodes: Vec<(usize, &str, u64)> =
        nodes.iter().map(|(node, cpus)| (*node, cpus.as_str(), if *node == 0 { 15 } else { 16 })).collect();
    let topology = check("opteron-8-nodes", 0..32, &nodes);
    assert_eq!(topology.nodes[0].distances[&3], 22);
    // What this machine's own job was given: processors 0 to 5.
    let job = check("opteron-8-nodes", 0..6, &[(0, "0-3", 15), (1, "4-5", 16)]);
    assert_eq!(job.memory_only.len(), 6);
}

#[test]
fn holes_in_the_numbering_are_kept() {
    let topology = read(&machine("sparse-8-nodes"), 0..48);
    let numbers: Vec<usize> = topology.nodes.iter().map(|node| node.number).collect();
    assert_eq!(numbers, [0, 1, 2, 33, 34, 45, 72, 73]);
    assert_eq!(topology.nodes[3].distances[&72], 22);
    assert_eq!(topology.cpu(20).unwrap().node, 33);
    let topology = read(&machine("power5-8-nodes"), 0..1024);
    let numbers: Vec<usize> = topology.nodes.iter().map(|node| node.number).collect();
    assert_eq!(numbers, [0, 1, 4, 5, 8, 9, 12, 13]);
    assert_eq!(topology.nodes[7].cpus.first().zip(topology.nodes[7].cpus.last()), Some((&224, &255)));
}

#[test]
fn memory_without_processors_is_nobodys_to_read_for() {
    let topology = check("power9-gpus", (0..16).chain(88..104), &[(0, "0-15", 123), (8, "88-103", 127)]);
    let memory_only: Vec<usize> = topology.memory_only.iter().map(|node| node.number).collect();
    assert_eq!(memory_only, [250, 251, 252, 253, 254, 255]);
    assert_eq!(topology.nodes[1].distances[&250], 80);
    assert_eq!(topology.memory_bytes() >> 30, 123 + 127 + 6 * 15 + 1);
}

/// Who decodes: threads and their processors, node by node.
fn decoders(topology: &Topology, threads: usize) -> Vec<(usize, String)> {
    deal_threads(topology, threads, Pinning::Auto).into_iter().map(|(count, cpus)| (count, cpus.to_string())).collect()
}

#[test]
fn decoders_are_dealt_to_nodes_by_their_processors_and_every_node_has_one() {
    let check = |name: &str, allowed: std::ops::Range<usize>, threads, expected: &[(usize, &str)]| {
        let expected: Vec<_> = expected.iter().map(|(count, cpus)| (*count, (*cpus).to_owned())).collect();
        assert_eq!(decoders(&read(&machine(name), allowed), threads), expected, "{name}");
    };
    check("desktop-1-node", 0..8, 8, &[(8, "any")]);
    check("server-2-nodes", 0..32, 32, &[(16, "0-7,16-23"), (16, "8-15,24-31")]);
    check("server-2-nodes", 0..32, 5, &[(3, "0-7,16-23"), (2, "8-15,24-31")]);
    check("opteron-8-nodes", 0..6, 6, &[(4, "0-3"), (2, "4-5")]);
    check("opteron-4-nodes", 0..8, 1, &[(1, "0,4"), (1, "1,5"), (1, "2,6"), (1, "3,7")]);
    let unpinned = deal_threads(&read(&machine("opteron-4-nodes"), 0..8), 8, Pinning::Off);
    assert!(unpinned.iter().all(|(count, cpus)| *count == 2 && cpus.is_any()));
}

#[test]
fn nodes_are_known_by_their_places_where_their_numbers_have_holes() {
    let nodes = Nodes::of(&read(&machine("sparse-8-nodes"), 0..48));
    assert_eq!((nodes.count(), nodes.number(3), nodes.number(8)), (8, Some(33), None));
    // Whatever processor this test runs on, it is on no node or on one of them.
    assert!(nodes.current().is_none_or(|place| usize::from(place) < 8));
    let one = Nodes::of(&read(&machine("desktop-1-node"), 0..8));
    assert_eq!((one.count(), one.current()), (1, None), "nobody has to ask where there is one");
}

#[test]
fn what_is_offline_is_not_used() {
    let topology = check("offline-1-node", 0..16, &[(0, "0-1,3-4,6-12,15", 15)]);
    assert_eq!(topology.offline, [2, 5, 13, 14]);
    // Its node offline, a processor that runs is still somebody's.
    let topology = check("node-0-offline", 0..24, &[(1, "4-20", 64)]);
    assert_eq!(topology.offline, [0, 1, 2, 3, 21, 22, 23]);
}

#[test]
fn a_worker_gets_a_fast_core_where_cores_are_unequal() {
    let topology = read(&machine("made-up-unequal-cores"), 0..24);
    assert!(topology.is_heterogeneous());
    for node in &topology.nodes {
        let fastest = topology.fastest(node);
        let capacity = |cpu: &usize| topology.cpu(*cpu).unwrap().capacity;
        assert!(node.cpus.iter().all(|cpu| capacity(cpu) <= capacity(&fastest[0])));
        let chosen = worker_cpus(&topology, node, Pinning::Core);
        assert!(chosen.len() == 1 && chosen.contains(*fastest.last().unwrap()), "{chosen}");
    }
}
