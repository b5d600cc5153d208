//! Which node's memory bytes lie in, and which they shall lie in.
//!
//! The kernel places a page on the node of the thread that touches it first. That is enough where the thread that fills
//! memory runs on the node of who uses it; [`prefer`] says otherwise, for memory that others touch first. On other
//! systems nothing here works, first touch holds there too, and nothing depends on more than that.

use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;

use super::memory::page_size;
use super::topology::Topology;

/// Stands for no node in a table.
const NOWHERE: u8 = u8::MAX;

/// Asks for the pages from `start` on, `len` bytes, to come from `node` as long as it has memory free, and from others
/// then. It concerns whole pages that nobody has touched yet; what is there stays where it is.
///
/// # Errors
/// `Unsupported` where the system has no such call; otherwise what it says, as for a node that is not there.
pub fn prefer(start: NonNull<u8>, len: usize, node: usize) -> io::Result<()> {
    set_policy(start, len, Policy::Preferred, &[node])
}

/// Asks for the pages from `start` on, `len` bytes, to be dealt out to `nodes` in turn: for tables that all nodes read.
///
/// # Errors
/// As [`prefer`].
pub fn interleave(start: NonNull<u8>, len: usize, nodes: &[usize]) -> io::Result<()> {
    set_policy(start, len, Policy::Interleaved, nodes)
}

/// The nodes that work is done on, known by their places in [`Topology::nodes`], which have no holes.
///
/// ```
/// use flyloft::platform::{numa::Nodes, topology::Topology};
/// let nodes = Nodes::of(&Topology::detect());
/// assert_eq!(nodes.current().is_some(), nodes.count() > 1 && cfg!(target_os = "linux"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The operating system's numbers.
    numbers: Vec<usize>,
    /// The place of each processor's node. Empty where there is one node: nobody has to ask then.
    of_cpu: Vec<u8>,
}

impl Nodes {
    /// The nodes with processors for this process.
    pub fn of(topology: &Topology) -> Self {
        let numbers: Vec<usize> = topology.nodes.iter().map(|node| node.number).collect();
        let mut of_cpu = Vec::new();
        if numbers.len() > 1 {
            let last = topology.nodes.iter().flat_map(|node| &node.cpus).max();
            of_cpu.resize(last.map_or(0, |last| last + 1), NOWHERE);
            for (place, node) in topology.nodes.iter().enumerate().take(usize::from(NOWHERE)) {
                node.cpus.iter().for_each(|cpu| of_cpu[*cpu] = place as u8);
            }
        }
        Self { numbers, of_cpu }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// The operating system's number of the node at `place`.
    pub fn number(&self, place: usize) -> Option<usize> {
        self.numbers.get(place).copied()
    }

    /// The place of the node that the calling thread runs on at this moment. `None` where there is only one, or where
    /// it is not known; with one node it costs a comparison.
    pub fn current(&self) -> Option<u8> {
        if self.of_cpu.is_empty() { None } else { self.of_cpu(imp::current_cpu()?) }
    }

    /// The place of the node of the processor `cpu`.
    fn of_cpu(&self, cpu: usize) -> Option<u8> {
        self.of_cpu.get(cpu).copied().filter(|place| *place != NOWHERE)
    }
}

/// The node of the processor that the calling thread runs on at this moment; `None` where it is not known.
pub fn current_node() -> Option<usize> {
    imp::current_node()
}

/// How many pages of `bytes` lie on each node. Pages that nobody has touched are on none.
///
/// # Errors
/// `Unsupported` where the system has no such call; otherwise what it says.
pub fn pages_by_node(bytes: &[u8]) -> io::Result<BTreeMap<usize, usize>> {
    if bytes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let page = page_size();
    let first = bytes.as_ptr().addr() / page;
    let last = (bytes.as_ptr().addr() + bytes.len() - 1) / page;
    imp::pages_by_node((first..=last).map(|number| number * page).collect())
}

#[derive(Clone, Copy)]
enum Policy {
    Preferred,
    Interleaved,
}

fn set_policy(start: NonNull<u8>, len: usize, policy: Policy, nodes: &[usize]) -> io::Result<()> {
    let page = page_size();
    let from = start.addr().get().next_multiple_of(page);
    let to = start.addr().get().saturating_add(len) / page * page;
    if from >= to {
        return Ok(());
    }
    imp::set_policy(from, to - from, policy, nodes)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod imp {
    use super::{BTreeMap, Policy, io};

    /// Words of a set of 1,024 nodes, as many as a kernel may be built for.
    const MASK_WORDS: usize = 16;

    pub(super) fn set_policy(from: usize, len: usize, policy: Policy, nodes: &[usize]) -> io::Result<()> {
        let mut mask = [0u64; MASK_WORDS];
        for node in nodes {
            let word = mask.get_mut(node / 64).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            *word |= 1 << (node % 64);
        }
        let mode = match policy {
            Policy::Preferred => libc::MPOL_PREFERRED,
            Policy::Interleaved => libc::MPOL_INTERLEAVE,
        };
        // The kernel takes one bit less than it is told of.
        let bits = MASK_WORDS * 64 + 1;
        // SAFETY: the kernel reads `mask` alone, which is as long as it is told. It does not read or write the pages from
        // `from` on: it notes where they shall come from, and refuses addresses that are not this process's.
        let status = unsafe { libc::syscall(libc::SYS_mbind, from, len, mode, mask.as_ptr(), bits, 0) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn current_node() -> Option<usize> {
        let (mut cpu, mut node) = (0u32, 0u32);
        let nothing = std::ptr::null_mut::<u8>();
        // SAFETY: the kernel writes the two numbers; the third pointer has not been used since Linux 2.6.24.
        let status = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, nothing) };
        (status == 0).then_some(node as usize)
    }

    pub(super) fn current_cpu() -> Option<usize> {
        // SAFETY: it takes nothing and changes nothing.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    pub(super) fn pages_by_node(pages: Vec<usize>) -> io::Result<BTreeMap<usize, usize>> {
        let mut places = vec![-1i32; pages.len()];
        let (nothing, process) = (std::ptr::null::<i32>(), 0);
        // SAFETY: the kernel reads as many addresses and writes as many numbers as both vectors hold. Without nodes to
        // move to it moves nothing.
        let status = unsafe {
            libc::syscall(libc::SYS_move_pages, process, pages.len(), pages.as_ptr(), nothing, places.as_mut_ptr(), 0)
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut count = BTreeMap::new();
        for node in places.iter().filter_map(|place| usize::try_from(*place).ok()) {
            *count.entry(node).or_insert(0) += 1;
        }
        Ok(count)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::{BTreeMap, Policy, io};

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "memory is placed by first touch alone here"))
    }

    pub(super) fn set_policy(_: usize, _: usize, policy: Policy, _: &[usize]) -> io::Result<()> {
        match policy {
            Policy::Preferred | Policy::Interleaved => unsupported(),
        }
    }

    pub(super) fn current_node() -> Option<usize> {
        None
    }

    pub(super) fn current_cpu() -> Option<usize> {
        None
    }

    pub(super) fn pages_by_node(_: Vec<usize>) -> io::Result<BTreeMap<usize, usize>> {
        unsupported()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::platform::memory::AlignedBuffer;

    /// Kernels without NUMA, containers and emulators refuse the calls; then there is nothing to see.
    fn refused<T>(result: &io::Result<T>) -> bool {
        let refusals = [Some(libc::ENOSYS), Some(libc::EPERM)];
        result.as_ref().is_err_and(|error| refusals.contains(&error.raw_os_error()))
    }

    #[test]
    fn a_processors_node_is_found_by_its_place() {
        let root = tempfile::tempdir().unwrap();
        for (node, cpus) in [(2, "0-1"), (7, "5")] {
            let folder = root.path().join(format!("devices/system/node/node{node}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("cpulist"), cpus).unwrap();
        }
        let nodes = Nodes::of(&Topology::read(root.path(), &[0, 1, 5].into_iter().collect()));
        let of: Vec<_> = [0, 1, 3, 5, 6, 4000].into_iter().map(|cpu| nodes.of_cpu(cpu)).collect();
        assert_eq!(of, [Some(0), Some(0), None, Some(1), None, None]);
        assert_eq!((nodes.number(1), nodes.current().is_some_and(|place| place > 1)), (Some(7), false));
    }

    #[test]
    fn memory_is_on_the_node_that_it_is_bound_to() {
        let Some(node) = current_node() else { return };
        let page = page_size();
        let mut buffer = AlignedBuffer::new_zeroed(64 * page, page).unwrap();
        let start = NonNull::from(buffer.as_mut_slice()).cast();
        let bound = prefer(start, 64 * page, node);
        if refused(&bound) {
            return;
        }
        bound.unwrap();
        buffer.as_mut_slice().fill(1);
        let places = pages_by_node(buffer.as_slice());
        assert!(refused(&places) || places.unwrap() == BTreeMap::from([(node, 64)]));
        interleave(start, 64 * page, &[node]).unwrap();
        assert!(prefer(start, 64 * page, 1023).is_err(), "no machine has that node");
        assert!(prefer(start, 64 * page, 5000).is_err());
        assert!(prefer(start, 1, node).is_ok(), "less than a page is nobody's");
        assert!(pages_by_node(&[]).unwrap().is_empty());
    }
}
