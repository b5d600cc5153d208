//! NUMA nodes, processors and caches, as far as this process may use them.

mod sysfs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use self::sysfs::{Folder, parse_list, parse_memory};
use super::affinity::{self, CpuSet};

/// Processor and node numbers above this are not believed: no kernel is built for more.
const NUMBER_MAX: usize = 8191;
/// The capacity of the fastest processors, as the kernel counts it.
pub const CAPACITY_MAX: u32 = 1024;

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The operating system's number; there may be holes.
    pub number: usize,
    /// The processors of the node that this process may use, ascending.
    pub cpus: Vec<usize>,
    /// The node's memory in bytes; 0 where it is not known.
    pub memory_bytes: u64,
    /// How far the memory of each node is from this one; 10 is its own, 20 twice as far. Empty where it is not known.
    pub distances: BTreeMap<usize, u32>,
}

/// A processor that this process may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The operating system's number.
    pub number: usize,
    /// The number of its node.
    pub node: usize,
    /// The physical package that it sits in.
    pub package: usize,
    /// The lowest number among the processors that share its core (SMT): the same for all of them.
    pub core: usize,
    /// How fast it is beside the fastest of the machine, which have [`CAPACITY_MAX`]: less for the small cores of a
    /// heterogeneous machine.
    pub capacity: u32,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// Data alone.
    Data,
    /// Code alone.
    Instruction,
    /// Both.
    Unified,
}

/// A cache of one processor, or of several that share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size.
    pub bytes: u64,
    /// The size of one line.
    pub line_bytes: u32,
    /// The processors that share it, ascending, as far as this process may use them.
    pub cpus: Vec<usize>,
}

/// What the machine looks like to this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The nodes with processors for this process, by number; never empty. A machine without NUMA is one node.
    pub nodes: Vec<Node>,
    /// Nodes with memory and no processor for this process.
    pub memory_only: Vec<Node>,
    /// The processors that this process may use, by number; never empty.
    pub cpus: Vec<Cpu>,
    /// Processors that are there but switched off.
    pub offline: Vec<usize>,
}

impl Topology {
    /// This machine, within the calling thread's affinity mask.
    pub fn detect() -> Self {
        Self::read(Path::new("/sys"), &affinity::allowed())
    }

    /// Reads the tree that Linux shows at `/sys` from `sysfs`. What is missing or malformed there is passed over: every
    /// processor of `allowed` that is not offline ends up in exactly one node.
    pub fn read(sysfs: &Path, allowed: &CpuSet) -> Self {
        let system = Folder(sysfs.join("devices/system"));
        let offline = offline(&system.at("cpu"));
        let mut usable: BTreeSet<usize> = if allowed.is_any() {
            (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
        } else {
            allowed.cpus().collect()
        };
        // A tree that calls everything offline is not this machine's.
        if usable.iter().any(|cpu| !offline.contains(cpu)) {
            usable.retain(|cpu| !offline.contains(cpu));
        }
        let (nodes, memory_only) = nodes(&system.at("node"), &usable);
        let cpus = cpus(sysfs, &nodes);
        Self { nodes, memory_only, cpus, offline: offline.into_iter().collect() }
    }

    /// The number of processors that this process may use.
    pub fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// The number of cores that these processors are on: fewer than processors where cores run several threads.
    pub fn core_count(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.core).collect::<BTreeSet<_>>().len()
    }

    /// The processor `number`, if this process may use it.
    pub fn cpu(&self, number: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.number == number)
    }

    /// Whether some processors are slower than others by design.
    pub fn is_heterogeneous(&self) -> bool {
        self.cpus.iter().any(|cpu| Some(cpu.capacity) != self.cpus.first().map(|first| first.capacity))
    }

    /// The processors of `node` that are as fast as its fastest, ascending.
    pub fn fastest(&self, node: &Node) -> Vec<usize> {
        let of_node = || self.cpus.iter().filter(|cpu| node.cpus.contains(&cpu.number));
        let most = of_node().map(|cpu| cpu.capacity).max();
        of_node().filter(|cpu| Some(cpu.capacity) == most).map(|cpu| cpu.number).collect()
    }

    /// The memory of all nodes, in bytes; 0 where it is not known.
    pub fn memory_bytes(&self) -> u64 {
        self.nodes.iter().chain(&self.memory_only).map(|node| node.memory_bytes).sum()
    }

    /// The caches of the processors that this process may use, as `sysfs` describes them: the nearest first. Empty where
    /// it does not. It reads many small files on a large machine.
    pub fn caches(&self, sysfs: &Path) -> Vec<Cache> {
        sysfs::caches(sysfs, &self.cpus.iter().map(|cpu| cpu.number).collect())
    }
}

/// Processors that are present and not online.
fn offline(cpu: &Folder) -> BTreeSet<usize> {
    let list = |name: &str| cpu.text(name).map(|text| parse_list(&text));
    match (list("present"), list("online")) {
        (Some(present), Some(online)) => present.difference(&online).copied().collect(),
        // Older kernels say it processor by processor; where there is no such file it cannot be switched off.
        _ => {
            let off = |number: &usize| cpu.number::<u8>(&format!("cpu{number}/online")) == Some(0);
            cpu.numbered("cpu").into_iter().filter(off).collect()
        }
    }
}

/// The nodes with processors of `usable`, and those with memory alone.
fn nodes(folder: &Folder, usable: &BTreeSet<usize>) -> (Vec<Node>, Vec<Node>) {
    let mut left = usable.clone();
    let (mut nodes, mut memory_only): (Vec<Node>, Vec<Node>) = (Vec::new(), Vec::new());
    let numbers = folder.numbered("node");
    for number in &numbers {
        let folder = folder.at(&format!("node{number}"));
        let cpus = folder.cpus("cpulist", "cpumap").unwrap_or_default();
        let cpus = cpus.into_iter().filter(|cpu| left.remove(cpu)).collect();
        let memory_bytes = folder.text("meminfo").and_then(|text| parse_memory(&text)).unwrap_or(0);
        let distances: Vec<u32> =
            folder.text("distance").unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
        // One distance for each node that is online, in their order.
        let distances = if distances.len() == numbers.len() {
            numbers.iter().copied().zip(distances).collect()
        } else {
            BTreeMap::new()
        };
        let node = Node { number: *number, cpus, memory_bytes, distances };
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
            nodes.push(Node { cpus: left.into_iter().collect(), memory_bytes, ..Node::default() });
        }
    }
    (nodes, memory_only)
}

/// What is known of each processor of `nodes`.
fn cpus(sysfs: &Path, nodes: &[Node]) -> Vec<Cpu> {
    let capacities = capacities(sysfs, nodes);
    let describe = |node: &Node, number: usize| {
        let folder = Folder(sysfs.join(format!("devices/system/cpu/cpu{number}/topology")));
        let siblings = folder.cpus("thread_siblings_list", "thread_siblings").unwrap_or_default();
        Cpu {
            number,
            node: node.number,
            package: folder.number("physical_package_id").unwrap_or(0),
            core: siblings.first().copied().filter(|_| siblings.contains(&number)).unwrap_or(number),
            capacity: capacities.get(&number).copied().unwrap_or(CAPACITY_MAX),
        }
    };
    let mut cpus: Vec<Cpu> =
        nodes.iter().flat_map(|node| node.cpus.iter().map(|number| describe(node, *number))).collect();
    cpus.sort_by_key(|cpu| cpu.number);
    cpus
}

/// The capacities of the processors of a heterogeneous machine, scaled so that the fastest have [`CAPACITY_MAX`]; empty
/// for any other. Arm's kernels say them. For Intel's hybrid processors, whose kernels name the two kinds of core alone,
/// the highest frequency of each stands for it.
fn capacities(sysfs: &Path, nodes: &[Node]) -> BTreeMap<usize, u32> {
    let all = || nodes.iter().flat_map(|node| node.cpus.iter().copied());
    let cpu = |number: usize| Folder(sysfs.join(format!("devices/system/cpu/cpu{number}")));
    let mut found: BTreeMap<usize, u64> =
        all().filter_map(|number| Some((number, cpu(number).number("cpu_capacity")?))).collect();
    let small = Folder(sysfs.join("devices/cpu_atom")).cpus("cpus", "");
    if let (true, Some(small)) = (found.is_empty(), small) {
        let highest = |number| cpu(number).number::<u64>("cpufreq/cpuinfo_max_freq");
        found = all().filter_map(|number| Some((number, highest(number)?))).collect();
        // Whatever their frequency, small cores do less with it.
        let least_of_large = found.iter().filter(|(number, _)| !small.contains(number)).map(|(_, hz)| *hz).min();
        for (_, hz) in found.iter_mut().filter(|(number, _)| small.contains(number)) {
            *hz = (*hz).min(least_of_large.unwrap_or(*hz).saturating_sub(1));
        }
        if let Some(least) = least_of_large {
            // Two large cores that differ by a few steps of the clock are of one kind.
            found.values_mut().for_each(|hz| *hz = (*hz).min(least));
        }
    }
    let most = found.values().copied().max().unwrap_or(0);
    if most == 0 {
        return BTreeMap::new();
    }
    let scale = |value: u64| (u128::from(value) * u128::from(CAPACITY_MAX) / u128::from(most)) as u32;
    found.into_iter().map(|(number, value)| (number, scale(value))).collect()
}

#[cfg(test)]
mod tests;
