//! Several NUMA nodes: who decodes where, and where an asset lies. The nodes are made up of this machine's own
//! processors, so that threads are really pinned; what is bound to a node that is not there comes from where it is touched.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Tree, check, content, name, within};
use flyloft::actors::ActorState;
use flyloft::config::{AssetNode, PredictionConfig, RuntimeConfig};
use flyloft::platform::affinity::{CpuSet, allowed, pin_current};
use flyloft::platform::threads::{OsThreads, Threads};
use flyloft::platform::topology::{Cpu, Node, Topology};
use flyloft::{Runtime, RuntimeBuilder};

/// Two nodes that share this process's processors; `None` where it has only one, or they are not known.
fn two_nodes() -> Option<Topology> {
    let allowed: Vec<usize> = allowed().cpus().collect();
    if allowed.len() < 2 || !cfg!(target_os = "linux") {
        return None;
    }
    let halves = allowed.split_at(allowed.len() / 2);
    let node = |number, cpus: &[usize]| Node { number, cpus: cpus.to_vec(), ..Node::default() };
    let cpu = |number: &usize| Cpu {
        number: *number,
        node: usize::from(halves.1.contains(number)),
        package: 0,
        core: *number,
        capacity: flyloft::platform::topology::CAPACITY_MAX,
    };
    let cpus = allowed.iter().map(cpu).collect();
    let nodes = vec![node(0, halves.0), node(1, halves.1)];
    Some(Topology { nodes, memory_only: Vec::new(), cpus, offline: Vec::new() })
}

fn set(node: &Node) -> CpuSet {
    node.cpus.iter().copied().collect()
}

/// The system's threads, which notes what each may run on.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<BTreeMap<String, String>>>);

impl Threads for Noting {
    fn spawn(&self, name: &str, pin: &CpuSet, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        self.0.lock().unwrap().insert(name.to_owned(), pin.to_string());
        OsThreads.spawn(name, pin, body)
    }
}

fn builder(tree: &Tree, topology: &Topology, config: RuntimeConfig) -> RuntimeBuilder {
    tree.builder().config(config).store(tree.store()).topology(topology.clone())
}

/// Starts a runtime with two decoding threads; gives the names of its decoding threads with their processors.
fn decoders(topology: Option<&Topology>) -> Vec<(String, String)> {
    let tree = Tree::with_files(1);
    let noting = Noting::default();
    let config = RuntimeConfig { decode_threads: 2, ..RuntimeConfig::default() };
    let builder = tree.builder().config(config).store(tree.store()).threads(Arc::new(noting.clone()));
    let runtime = match topology {
        Some(topology) => builder.topology(topology.clone()).start_blocking().unwrap(),
        None => builder.start_blocking().unwrap(),
    };
    drop(runtime);
    let noted = noting.0.lock().unwrap();
    noted.iter().filter(|(name, _)| name.starts_with("flyloft-decode")).map(|(n, c)| (n.clone(), c.clone())).collect()
}

#[test]
fn decoders_run_on_the_processors_of_their_node_and_anywhere_where_there_is_one() {
    let one = Topology::read(std::path::Path::new("/no/such/tree"), &allowed());
    let anywhere = |number: usize| (format!("flyloft-decode-{number}"), "any".to_owned());
    assert_eq!(decoders(Some(&one)), [anywhere(0), anywhere(1)]);
    if Topology::detect().nodes.len() == 1 {
        assert_eq!(decoders(None), [anywhere(0), anywhere(1)], "this machine's own");
    }
    let Some(two) = two_nodes() else { return };
    let on = |node: &Node| (format!("flyloft-decode-{}-0", node.number), set(node).to_string());
    assert_eq!(decoders(Some(&two)), two.nodes.iter().map(on).collect::<Vec<_>>());
}

/// Loads `files` assets at once on a thread that is pinned to `node`, and gives the runtime, shut down: reads and
/// decoding jobs by node are final then, and the assets are still in memory.
fn loaded(topology: &Topology, node: &Node, files: usize, ask: impl Fn(&Runtime) + Sync) -> Runtime {
    let tree = Tree::with_files(files);
    // Few places with the engine, so that one worker cannot take everything.
    // Nothing is read but what is asked for.
    let prediction = PredictionConfig { enabled: false, ..PredictionConfig::default() };
    let config = RuntimeConfig { queue_depth: 4, prediction, ..RuntimeConfig::default() };
    let runtime = builder(&tree, topology, config).start_blocking().unwrap();
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            pin_current(&set(node)).unwrap();
            ask(&runtime);
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(within(runtime.shutdown(Duration::from_secs(5))));
        });
        pinned.join().unwrap();
    });
    runtime
}

fn all(runtime: &Runtime, files: usize, node: AssetNode) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let assets = executor.block_on(within(runtime.load_many((0..files).map(name)).node(node).all())).unwrap();
    for (index, asset) in assets.iter().enumerate() {
        assert_eq!(&**asset, content(index, 0), "{}", name(index));
    }
}

/// Per node: reads, whether anything was decoded, whether any asset is in its memory.
fn work(runtime: &Runtime) -> Vec<(u64, bool, bool)> {
    let heaps = runtime.stats().budget.node_heaps;
    let engines = runtime.status().engines;
    let work = engines.iter().enumerate().map(|(place, engine)| {
        let lent = heaps.get(place).is_some_and(|heap| heap.lent_bytes > 0);
        (engine.stats.completed, engine.decoding.finished > 0, lent)
    });
    work.collect()
}

#[test]
fn an_asset_is_read_decoded_and_kept_on_the_node_that_asks_for_it() {
    let Some(topology) = two_nodes() else { return };
    const FILES: usize = 8;
    for (place, node) in topology.nodes.iter().enumerate() {
        let runtime = loaded(&topology, node, FILES, |runtime| {
            // One by one, so that its worker always has a place for it.
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for index in 0..FILES {
                let request = runtime.request(name(index)).node(AssetNode::Asker);
                assert_eq!(&*executor.block_on(within(request.send())).unwrap(), content(index, 0));
            }
        });
        let work = work(&runtime);
        assert!(work[place].0 > 0 && work[place].2, "{work:?}");
        // What else there is to do is done by the first node's threads: they look how much memory there is.
        let (reads, _, lent) = work[1 - place];
        assert_eq!((reads, lent), (0, false), "nothing of it is the other node's");
        assert_eq!(runtime.status().engines[place].node, node.number);
    }
}

#[test]
fn frames_are_decoded_on_the_node_that_read_them() {
    let Some(topology) = two_nodes() else { return };
    let work = work(&loaded(&topology, &topology.nodes[1], 200, |runtime| all(runtime, 200, AssetNode::Asker)));
    assert!(work[1].0 > 0 && work[1].1, "{work:?}");
    assert!(work[1].2 && !work[0].2, "also what the other worker helped with lies where it was asked for: {work:?}");
}

#[test]
fn where_it_does_not_matter_every_node_takes_its_part() {
    let Some(topology) = two_nodes() else { return };
    let work = work(&loaded(&topology, &topology.nodes[0], 400, |runtime| all(runtime, 400, AssetNode::Any)));
    assert!(work.iter().all(|(reads, decoded, _)| *reads > 0 && *decoded), "{work:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_where_the_old_one_was() {
    let Some(topology) = two_nodes() else { return };
    let tree = Tree::with_files(1);
    let config = RuntimeConfig { watch: true, ..RuntimeConfig::default() };
    let runtime = within(builder(&tree, &topology, config).start()).await.unwrap();
    let (far, asking) = (set(&topology.nodes[1]), runtime.clone());
    let ask = move || {
        pin_current(&far).unwrap();
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        executor.block_on(within(asking.request(name(0)).node(AssetNode::Asker).send())).unwrap();
    };
    tokio::task::spawn_blocking(ask).await.unwrap();
    let mut events = runtime.events();
    tree.replace(&name(0), &content(0, 1));
    let published = async { while !matches!(events.recv().await, Some(flyloft::Event::Published(_))) {} };
    within(published).await;
    assert_eq!(runtime.get(name(0)).as_deref(), Some(&*content(0, 1)), "it is in memory already");
    let lent: Vec<u64> = runtime.stats().budget.node_heaps.iter().map(|heap| heap.lent_bytes).collect();
    assert!(lent[0] == 0 && lent[1] >= content(0, 1).len() as u64, "{lent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_load_is_answered_while_a_nodes_actors_are_killed() {
    let Some(topology) = two_nodes() else { return };
    const FILES: usize = 600;
    let tree = Tree::with_files(FILES);
    // A part of the tree fits, so that loads go on reading.
    let config = RuntimeConfig { budget_bytes: 12 << 20, queue_depth: 8, ..RuntimeConfig::default() };
    let runtime = within(builder(&tree, &topology, config).start()).await.unwrap();
    let mut clients = Vec::new();
    for client in 0..3_000 {
        let runtime = runtime.clone();
        clients.push(tokio::spawn(async move { check(&runtime, client * 7919 % FILES, 0).await }));
    }
    let actors = ["io_worker[0]", "io_worker[1]", "io_dispatcher", "decompressor", "cache_manager"];
    for actor in actors {
        let mut events = runtime.events();
        runtime.kill(actor).unwrap();
        let up = |report: &flyloft::actors::ActorReport| {
            report.name == actor && report.restarts > 0 && report.state == ActorState::Up
        };
        let back = async {
            while !runtime.status().actors.iter().any(up) {
                // An event tells that something moved; what counts is the status.
                drop(tokio::time::timeout(Duration::from_millis(20), events.recv()).await);
            }
        };
        within(back).await;
    }
    for client in clients {
        within(client).await.unwrap();
    }
    let stats = runtime.stats();
    assert_eq!((stats.ledger.open, stats.budget.charged_io), (0, 0), "{stats:?}");
    for engine in runtime.status().engines {
        assert!(engine.stats.completed > 0, "{engine:?}");
        assert_eq!((engine.in_flight, engine.stats.submitted), (0, engine.stats.completed), "{engine:?}");
    }
    within(runtime.shutdown(Duration::from_secs(5))).await;
}
