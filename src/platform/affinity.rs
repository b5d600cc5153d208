//! Which processors a thread may run on.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use serde::Serialize;

use super::topology::{Node, Topology};
use crate::config::Pinning;

/// A node with at least this many processors can spare one for its I/O worker.
const SPARE_CPUS_MIN: usize = 4;

/// A set of processors. The empty set means: wherever the operating system likes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuSet {
    cpus: BTreeSet<usize>,
}

impl CpuSet {
    /// No pinning.
    pub fn any() -> Self {
        Self::default()
    }

    /// One processor.
    pub fn one(cpu: usize) -> Self {
        Self::from_iter([cpu])
    }

    /// Whether nothing is asked for.
    pub fn is_any(&self) -> bool {
        self.cpus.is_empty()
    }

    /// The processors, ascending.
    pub fn cpus(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.cpus.iter().copied()
    }

    /// How many processors are named.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether none is named; the same as [`CpuSet::is_any`].
    pub fn is_empty(&self) -> bool {
        self.is_any()
    }

    /// Whether `cpu` is named.
    pub fn contains(&self, cpu: usize) -> bool {
        self.cpus.contains(&cpu)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        Self { cpus: cpus.into_iter().collect() }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("any");
        }
        let mut cpus = self.cpus.iter().copied().peekable();
        let mut first = true;
        while let Some(from) = cpus.next() {
            let mut to = from;
            while cpus.next_if_eq(&(to + 1)).is_some() {
                to += 1;
            }
            f.write_str(if std::mem::take(&mut first) { "" } else { "," })?;
            if from == to { write!(f, "{from}")? } else { write!(f, "{from}-{to}")? }
        }
        Ok(())
    }
}

/// The processors that the calling thread may run on; [`CpuSet::any`] where the operating system does not say.
pub fn allowed() -> CpuSet {
    imp::allowed().unwrap_or_default()
}

/// Pins the calling thread to `set`; does nothing for [`CpuSet::any`].
///
/// # Errors
/// What the operating system says; `Unsupported` where it cannot pin.
pub fn pin_current(set: &CpuSet) -> io::Result<()> {
    if set.is_any() { Ok(()) } else { imp::pin_current(set) }
}

/// Where the I/O worker of `node` runs under `rule`. A single processor is the last of the node's fastest: the first ones
/// serve most interrupts.
pub fn worker_cpus(topology: &Topology, node: &Node, rule: Pinning) -> CpuSet {
    let one = match rule {
        Pinning::Off => return CpuSet::any(),
        Pinning::Core => true,
        Pinning::Node => false,
        Pinning::Auto => node.cpus.len() >= SPARE_CPUS_MIN,
    };
    match topology.fastest(node).last() {
        Some(last) if one => CpuSet::one(*last),
        _ => node.cpus.iter().copied().collect(),
    }
}

/// Deals `threads` that compute out to the nodes, by the number of their processors, in the order of
/// [`Topology::nodes`]: how many run on each, and where. At least one on each, so that the memory of every node is
/// worked on from near. With one node, or under [`Pinning::Off`], they may run anywhere.
pub fn deal_threads(topology: &Topology, threads: usize, rule: Pinning) -> Vec<(usize, CpuSet)> {
    let nodes = &topology.nodes;
    let mut counts = vec![1; nodes.len()];
    for _ in nodes.len()..threads {
        // The next one goes where its share is largest; of equals to the first.
        let share = |place: &usize| (nodes[*place].cpus.len() as f64) / (counts[*place] + 1) as f64;
        let next = (0..nodes.len()).rev().max_by(|one, other| share(one).total_cmp(&share(other)));
        counts[next.unwrap_or(0)] += 1;
    }
    let anywhere = nodes.len() == 1 || rule == Pinning::Off;
    let cpus = nodes.iter().map(|node| if anywhere { CpuSet::any() } else { node.cpus.iter().copied().collect() });
    counts.into_iter().zip(cpus).collect()
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod imp {
    use super::{CpuSet, io};

    /// Words of a mask of 8,192 processors, more than any kernel is built for. libc's own type stops at 1,024.
    const MASK_WORDS: usize = 128;
    type Mask = [u64; MASK_WORDS];

    pub(super) fn allowed() -> io::Result<CpuSet> {
        let mut mask: Mask = [0; MASK_WORDS];
        // SAFETY: the kernel writes at most the given size, which is the size of `mask`; 0 is the calling thread.
        let status = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((0..MASK_WORDS * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect())
    }

    pub(super) fn pin_current(set: &CpuSet) -> io::Result<()> {
        if let (1, Some(id)) = (set.len(), set.cpus().next())
            && id < libc::CPU_SETSIZE as usize
            && core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            return Ok(());
        }
        let mut mask: Mask = [0; MASK_WORDS];
        for cpu in set.cpus() {
            if let Some(word) = mask.get_mut(cpu / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
        // SAFETY: the kernel reads at most the given size, which is the size of `mask`; 0 is the calling thread.
        let status = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(windows)]
#[allow(unsafe_code)]
mod imp {
    use windows_sys::Win32::System::SystemInformation::GROUP_AFFINITY;
    use windows_sys::Win32::System::Threading::{GetCurrentThread, GetThreadGroupAffinity, SetThreadGroupAffinity};

    use super::{CpuSet, io};

    /// Processors are numbered through their groups, of 64 each.
    const GROUP: usize = 64;

    pub(super) fn allowed() -> io::Result<CpuSet> {
        let mut affinity = GROUP_AFFINITY::default();
        // SAFETY: the handle stands for the calling thread, and the call fills `affinity`.
        if unsafe { GetThreadGroupAffinity(GetCurrentThread(), &mut affinity) } == 0 {
            return Err(io::Error::last_os_error());
        }
        let first = usize::from(affinity.Group) * GROUP;
        Ok((0..GROUP).filter(|bit| affinity.Mask >> bit & 1 == 1).map(|bit| first + bit).collect())
    }

    pub(super) fn pin_current(set: &CpuSet) -> io::Result<()> {
        let mut affinity = GROUP_AFFINITY::default();
        for cpu in set.cpus() {
            let group = u16::try_from(cpu / GROUP).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            if affinity.Mask != 0 && affinity.Group != group {
                let why = "a thread cannot be pinned to processors of two groups";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            affinity.Group = group;
            affinity.Mask |= 1 << (cpu % GROUP);
        }
        // SAFETY: the handle stands for the calling thread, `affinity` is read, and nothing is asked for in return.
        let done = unsafe { SetThreadGroupAffinity(GetCurrentThread(), &affinity, std::ptr::null_mut()) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(not(any(target_os = "linux", windows)))]
mod imp {
    use super::{CpuSet, io};

    pub(super) fn allowed() -> io::Result<CpuSet> {
        Ok(core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect())
    }

    pub(super) fn pin_current(set: &CpuSet) -> io::Result<()> {
        if let (1, Some(id)) = (set.len(), set.cpus().next())
            && core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "threads cannot be pinned to a set of processors here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_shown_as_the_kernel_shows_it() {
        assert_eq!(CpuSet::any().to_string(), "any");
        assert_eq!(CpuSet::from_iter([3, 0, 1, 2, 7, 9, 10]).to_string(), "0-3,7,9-10");
    }

    #[test]
    fn a_pinned_thread_may_run_on_its_set_alone() {
        let allowed_here = allowed();
        let Some(cpu) = allowed_here.cpus().last() else { return };
        let seen = std::thread::spawn(move || pin_current(&CpuSet::one(cpu)).map(|()| allowed())).join().unwrap();
        assert_eq!(seen.unwrap(), CpuSet::one(cpu));
        let whole = allowed_here.clone();
        let seen = std::thread::spawn(move || pin_current(&whole).map(|()| allowed())).join().unwrap();
        assert_eq!(seen.unwrap(), allowed_here);
    }

    #[test]
    fn a_worker_gets_a_core_where_the_node_can_spare_one() {
        let nowhere = std::path::Path::new("/no/such/tree");
        let (small, large) = ([0, 1], [4, 5, 6, 7]);
        let check = |cpus: &[usize], rule, expected: &str| {
            let topology = Topology::read(nowhere, &cpus.iter().copied().collect());
            assert_eq!(worker_cpus(&topology, &topology.nodes[0], rule).to_string(), expected);
        };
        check(&small, Pinning::Auto, "0-1");
        check(&large, Pinning::Auto, "7");
        check(&small, Pinning::Core, "1");
        check(&large, Pinning::Node, "4-7");
        check(&large, Pinning::Off, "any");
    }

    #[test]
    fn on_one_node_threads_run_anywhere_and_are_as_many_as_asked_for() {
        let topology = Topology::read(std::path::Path::new("/no/such/tree"), &(0..4).collect());
        assert_eq!(deal_threads(&topology, 3, Pinning::Auto), [(3, CpuSet::any())]);
    }

    #[test]
    fn a_processor_that_does_not_exist_is_an_error() {
        let result = std::thread::spawn(|| pin_current(&CpuSet::one(8000))).join().unwrap();
        assert!(result.is_err());
    }
}
