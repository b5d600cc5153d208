//! What is not resident: read once for all who wait, into the memory where it stays.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Tree, noise, within};
use flyloft::actors::Faults;
use flyloft::config::{DirectIo, Engine, IoConfig, RuntimeConfig};
use flyloft::{AssetPath, Error, Priority, Runtime};

/// Holds the look-up of one asset back until the test lets it go on.
struct Gate {
    path: &'static str,
    reached: Mutex<Sender<()>>,
    open: Mutex<Receiver<()>>,
}

impl Gate {
    fn new(path: &'static str) -> (Arc<Self>, Receiver<()>, Sender<()>) {
        let ((tell, told), (open, opened)) = (channel(), channel());
        (Arc::new(Self { path, reached: Mutex::new(tell), open: Mutex::new(opened) }), told, open)
    }
}

impl Faults for Gate {
    fn reached(&self, stage: &'static str, path: &AssetPath) {
        if stage == "io_worker" && path.as_str() == self.path {
            self.reached.lock().unwrap().send(()).unwrap();
            // The test ended: then nobody opens it any more.
            let _ = self.open.lock().unwrap().recv();
        }
    }
}

async fn start(tree: &Tree, engine: Engine, direct: DirectIo) -> Runtime {
    let io = IoConfig { direct, ..IoConfig::default() };
    let config = RuntimeConfig { engine, io, ..RuntimeConfig::default() };
    within(Runtime::builder().bundle(tree.packed()).config(config).start()).await.unwrap()
}

#[tokio::test]
async fn what_is_stored_is_read_into_its_own_memory_and_never_copied() {
    let tree = Tree::new();
    // From less than a block to several reads, and with the same bytes twice within one asset.
    let sizes = [100, 4096, 4097, 70_000, 1 << 20, 3_500_000];
    for (index, len) in sizes.into_iter().enumerate() {
        tree.write(&format!("{index}.bin"), &noise(index as u64, len));
    }
    tree.write("twice.bin", &[noise(50, 200_000), noise(50, 200_000)].concat());
    for engine in [Engine::Auto, Engine::Positioned] {
        for direct in [DirectIo::Always, DirectIo::Never] {
            let runtime = start(&tree, engine, direct).await;
            for (index, len) in sizes.into_iter().enumerate().skip(4) {
                let asset = within(runtime.load(format!("{index}.bin"))).await.unwrap();
                assert!(asset[..] == noise(index as u64, len), "{index}");
            }
            let metrics = runtime.stats().metrics;
            assert_eq!((metrics.copies, metrics.copied_bytes), (0, 0), "{metrics:?}");
            assert_eq!(metrics.frames_in_place, metrics.frames, "{metrics:?}");
            for (index, len) in sizes.into_iter().enumerate().take(4) {
                let asset = within(runtime.load(format!("{index}.bin"))).await.unwrap();
                assert!(asset[..] == noise(index as u64, len), "{index}");
            }
            let twice = within(runtime.load("twice.bin")).await.unwrap();
            assert!(twice[..200_000] == noise(50, 200_000) && twice[200_000..] == twice[..200_000]);
            let stats = runtime.stats();
            assert_eq!((stats.budget.charged_io, stats.ledger.open), (0, 0), "{stats:?}");
            within(runtime.shutdown(Duration::from_secs(5))).await;
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_what_is_read_in_place_is_an_error_and_gives_the_memory_back() {
    let tree = Tree::new();
    let bytes = noise(7, 500_000);
    tree.write("noise.bin", &bytes);
    let packed = tree.packed();
    let mut file = std::fs::read(&packed).unwrap();
    let at = file.windows(64).position(|window| *window == bytes[300_000..300_064]).unwrap();
    file[at] ^= 1;
    std::fs::write(&packed, file).unwrap();
    let runtime = within(Runtime::builder().bundle(packed).start()).await.unwrap();
    let error = within(runtime.load("noise.bin")).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    within(async {
        // The answer comes before the memory of the other frames is let go of.
        while runtime.stats().budget.charged + runtime.stats().budget.charged_io > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(runtime.get("noise.bin").is_none());
}

#[tokio::test]
async fn small_assets_of_one_frame_are_read_and_decoded_once_for_all_who_wait() {
    const FILES: usize = 400;
    let tree = Tree::new();
    let (name, text) = (|index| format!("notes/{index:03}.txt"), |index| format!("note number {index}\n").repeat(5));
    for index in 0..FILES {
        tree.write(&name(index), text(index).as_bytes());
    }
    let (gate, reached, open) = Gate::new("notes/000.txt");
    let runtime = within(Runtime::builder().bundle(tree.packed()).faults(gate).start()).await.unwrap();
    let first = runtime.load(name(0));
    tokio::task::spawn_blocking(move || reached.recv().unwrap()).await.unwrap();
    // Nothing is looked up now. One of them is urgent and goes ahead of the others.
    let urgent = runtime.request(name(1)).priority(Priority::Critical).send();
    let rest: Vec<_> = (2..FILES).map(|index| runtime.load(name(index))).collect();
    open.send(()).unwrap();
    for (index, load) in [first, urgent].into_iter().chain(rest).enumerate() {
        assert_eq!(*within(load).await.unwrap(), *text(index).as_bytes(), "{index}");
    }
    let metrics = runtime.stats().metrics;
    // 40 KB are one frame. It is not read for every asset, nor for every batch of look-ups that comes while it is on
    // its way; how many come after that depends on the disk.
    assert!(metrics.frames <= 8, "{metrics:?}");
    assert_eq!(metrics.copies, FILES as u64, "one copy out of the shared frame each: {metrics:?}");
}
