//! Where threads run and memory lies: for each NUMA node one read engine, its share of the threads that decode, and a heap;
//! in all as many threads as this process may keep busy.

use std::sync::Arc;

use crate::config::{BudgetConfig, Pinning, RuntimeConfig};
use crate::error::{Error, Result};
use crate::messages::work::ReadToken;
use crate::platform::affinity::{self, CpuSet};
use crate::platform::cgroup::Limits;
use crate::platform::io::{Driver, DriverConfig};
use crate::platform::memory::{BufferPool, Heap};
use crate::platform::numa::{self, Nodes};
use crate::platform::threads::{Pool, Threads};
use crate::platform::topology::{Node, Topology};
use crate::policy::pressure::Thresholds;
use crate::residency::{Budget, Sizes};

/// What the machine gives to this process.
pub(super) struct Machine {
    topology: Topology,
    limits: Limits,
}

impl Machine {
    /// This machine, or one whose nodes and processors are as `topology` says.
    pub(super) fn detect(topology: Option<Topology>) -> Self {
        Self { topology: topology.unwrap_or_else(Topology::detect), limits: Limits::detect() }
    }

    /// The nodes, in the order of everything that there is one of on each.
    pub(super) fn nodes(&self) -> Nodes {
        Nodes::of(&self.topology)
    }

    /// Threads that decode, on each node.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn decoders(&self, config: &RuntimeConfig, threads: &dyn Threads) -> Result<Vec<Pool>> {
        let name = |node: &Node| match self.topology.nodes.len() {
            1 => "flyloft-decode".to_owned(),
            _ => format!("flyloft-decode-{}", node.number),
        };
        let dealt = affinity::deal_threads(&self.topology, self.threads(config.decode_threads), config.pinning);
        let pools = self.topology.nodes.iter().zip(dealt);
        pools.map(|(node, (count, cpus))| Pool::new(&name(node), count, &cpus, threads)).collect()
    }

    /// A heap in each node's memory, or none. Any of them may have all of the budget: they are address space only, and
    /// what is charged is bounded by the budget.
    pub(super) fn heaps(&self, config: &RuntimeConfig) -> Vec<Arc<Heap>> {
        // Where a range of addresses takes memory at once there is none: every asset is an allocation of its own.
        let bytes = if cfg!(unix) { usize::try_from(config.resident_bytes_max()).ok() } else { None };
        let heap = |node: &Node| {
            let bind = |start, len| numa::prefer(start, len, node.number);
            let several = self.topology.nodes.len() > 1;
            Heap::bound(bytes?, if several { Some(&bind) } else { None }).ok()
        };
        // All of them or none: they stand in the order of the nodes.
        let heaps: Option<Vec<_>> = self.topology.nodes.iter().map(heap).collect();
        heaps.unwrap_or_default()
    }

    /// The budget, which takes resident memory from these heaps.
    pub(super) fn budget(&self, config: &RuntimeConfig, heaps: Vec<Arc<Heap>>) -> Arc<Budget> {
        let budget = Budget::of(Sizes::of(config), heaps);
        let BudgetConfig { thresholds_percent: percent, hysteresis_percent: hysteresis, .. } = config.budget;
        budget.measure(Thresholds { percent, hysteresis }, config.budget.target_percent);
        budget
    }

    /// Threads for work that computes: what is asked for, or one for each processor that may be kept busy.
    pub(super) fn threads(&self, wanted: usize) -> usize {
        if wanted == 0 { self.limits.parallelism(self.topology.cpu_count()) } else { wanted }
    }

    /// One read engine for each node with processors, on its own thread, with a pool of buffers in the node's memory.
    ///
    /// # Errors
    /// [`Error::Config`] for a processor that cannot be had; otherwise what starting an engine returned.
    pub(super) fn drivers(
        &self,
        config: &RuntimeConfig,
        heaps: &[Arc<Heap>],
        threads: &dyn Threads,
    ) -> Result<Vec<Arc<Driver<ReadToken>>>> {
        check_cpus(config, &self.topology)?;
        let nodes = self.topology.nodes.iter().enumerate();
        nodes.map(|(place, node)| self.driver(node, config, heaps.get(place).cloned(), threads)).collect()
    }

    fn driver(
        &self,
        node: &Node,
        config: &RuntimeConfig,
        heap: Option<Arc<Heap>>,
        threads: &dyn Threads,
    ) -> Result<Arc<Driver<ReadToken>>> {
        // With one node all memory is near; the call would only divide the mapping.
        let several = self.topology.nodes.len() + self.topology.memory_only.len() > 1;
        let bind = |start, len| if several { numa::prefer(start, len, node.number) } else { Ok(()) };
        let bytes = usize::try_from(config.io_pool_bytes()).unwrap_or(usize::MAX);
        let pool = BufferPool::new(bytes, Some(&bind));
        if let Some(pool) = pool.as_ref().ok().filter(|_| config.debug.poison) {
            pool.poison();
        }
        if let Err(error) = &pool {
            tracing::warn!(%error, "no pool of buffers; each read allocates its own");
        }
        let driver = DriverConfig {
            name: format!("flyloft-io-{}", node.number),
            cpus: worker_cpus(node, &self.topology, config),
            depth: config.queue_depth,
            engine: config.engine,
            pool: pool.ok(),
            heap,
            adaptive_depth: config.io.adaptive_depth,
            sqpoll: config.io.sqpoll,
            threads: 0,
        };
        Driver::start(driver, threads)
    }
}

/// Where the worker of `node` runs: on those of `io_cpus` that are the node's, or by the rule where none is.
fn worker_cpus(node: &Node, topology: &Topology, config: &RuntimeConfig) -> CpuSet {
    let named: CpuSet = config.io_cpus.iter().copied().filter(|cpu| node.cpus.contains(cpu)).collect();
    if named.is_any() { affinity::worker_cpus(topology, node, config.pinning) } else { named }
}

/// Whether the processors that are asked for can be had.
fn check_cpus(config: &RuntimeConfig, topology: &Topology) -> Result<()> {
    let refuse = |why: String| Err(Error::config("io_cpus", why));
    if config.io_cpus.is_empty() {
        return Ok(());
    }
    if config.pinning == Pinning::Off {
        return refuse("processors are named, but pinning is off".to_owned());
    }
    if affinity::allowed().is_any() {
        return refuse("threads cannot be pinned to named processors on this system".to_owned());
    }
    for cpu in &config.io_cpus {
        if topology.offline.contains(cpu) {
            return refuse(format!("processor {cpu} is offline"));
        }
        if topology.cpu(*cpu).is_none() {
            let usable: CpuSet = topology.cpus.iter().map(|cpu| cpu.number).collect();
            return refuse(format!("processor {cpu} is not there or not allowed here; allowed: {usable}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of two processors, of which the last is offline.
    fn topology() -> Topology {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("cpu/present", "0-3"),
            ("cpu/online", "0-2"),
            ("node/node0/cpulist", "0-1"),
            ("node/node1/cpulist", "2-3"),
        ];
        for (path, text) in files {
            let path = root.path().join("devices/system").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Topology::read(root.path(), &(0..4).collect())
    }

    fn check(cpus: &[usize], pinning: Pinning, expected: std::result::Result<&[&str], &str>) {
        let config = RuntimeConfig { io_cpus: cpus.to_vec(), pinning, ..RuntimeConfig::default() };
        let topology = topology();
        let got = check_cpus(&config, &topology).map(|()| {
            topology.nodes.iter().map(|node| worker_cpus(node, &topology, &config).to_string()).collect::<Vec<_>>()
        });
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(Error::Config { field, why }), Err(expected)) => {
                assert_eq!(field, "io_cpus");
                assert!(why.contains(expected), "{why}");
            }
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_processor_that_cannot_be_had_is_refused_with_the_reason() {
        check(&[3], Pinning::Auto, Err("processor 3 is offline"));
        check(&[0, 9], Pinning::Auto, Err("processor 9 is not there or not allowed here; allowed: 0-2"));
        check(&[0], Pinning::Off, Err("pinning is off"));
    }

    #[test]
    fn named_processors_are_dealt_to_their_nodes() {
        check(&[], Pinning::Auto, Ok(&["0-1", "2"]));
        check(&[0, 2], Pinning::Auto, Ok(&["0", "2"]));
        check(&[1], Pinning::Core, Ok(&["1", "2"]));
    }
}
