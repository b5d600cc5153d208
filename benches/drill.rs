//! A fault drill on a real tree: ten thousand loads in flight while each actor is killed in turn, and how soon the
//! first answer comes after a kill.
//!
//! ```sh
//! cargo bench --bench drill -- FOLDER...
//! ```
//! Without folders it takes examples/assets and the trees that scripts/corpus.sh has fetched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flyloft::{ContentHash, Runtime};

const LOADS: usize = 10_000;
const ROUNDS: usize = 5;
const ACTORS: [&str; 8] = [
    "io_worker[0]",
    "io_dispatcher",
    "decompressor",
    "cache_manager",
    "evictor",
    "predictor",
    "rebuilder",
    "file_watcher",
];

#[tokio::main]
async fn main() {
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from).collect();
    let trees = if named.is_empty() { corpus() } else { named };
    println!(
        "{:<16} {:>8} {:>9} {:>8} {:>9}   first answer after a kill, ms",
        "tree", "assets", "answered", "wrong", "restarts"
    );
    for tree in trees {
        drill(&tree).await;
    }
}

fn corpus() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut trees = vec![root.join("examples/assets")];
    let fetched = std::fs::read_dir(root.join(".corpus")).into_iter().flatten().flatten();
    trees.extend(fetched.map(|entry| entry.path()).filter(|path| path.is_dir()));
    trees.sort();
    trees
}

async fn drill(tree: &Path) {
    let store = tempfile::tempdir().expect("a temporary folder");
    let budget = 256 << 20;
    let builder = Runtime::builder().directory(tree).store(store.path()).budget_bytes(budget).watch(true);
    let runtime = builder.start().await.expect("the tree is served");
    let records = runtime.snapshot().assets("").await.expect("the table of contents is read");
    let fits = |len: u64| len < budget / 16;
    let expected: HashMap<String, ContentHash> = records
        .iter()
        .filter(|record| fits(record.len))
        .map(|record| (record.path.to_string(), record.content))
        .collect();
    let paths: Arc<Vec<String>> = Arc::new(expected.keys().cloned().collect());
    let expected = Arc::new(expected);

    let wrong = Arc::new(AtomicU64::new(0));
    let right = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::with_capacity(LOADS);
    for load in 0..LOADS {
        let (runtime, paths, expected) = (runtime.clone(), Arc::clone(&paths), Arc::clone(&expected));
        let (right, wrong) = (Arc::clone(&right), Arc::clone(&wrong));
        tasks.push(tokio::spawn(async move {
            let path = &paths[(load * 7919) % paths.len()];
            let fine = runtime.load(path).await.is_ok_and(|asset| ContentHash::of(&asset) == expected[path]);
            if fine { &right } else { &wrong }.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for actor in ACTORS {
        // Those that another's restart takes with it are down for a moment.
        while runtime.kill(actor).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for task in tasks {
        task.await.expect("a client does not panic");
    }
    let restarts: u64 = runtime.status().actors.iter().map(|actor| actor.restarts).sum();

    let mut firsts = Vec::new();
    for round in 0..ROUNDS {
        for (place, actor) in ACTORS.iter().take(4).enumerate() {
            // Outside the restart window of the round before, so that no backoff is measured.
            tokio::time::sleep(Duration::from_millis(2_600)).await;
            let path = next_miss(&runtime, &paths, round * 4 + place);
            runtime.kill(actor).expect("it runs");
            let began = Instant::now();
            runtime.load(path).await.expect("it is answered");
            firsts.push(began.elapsed());
        }
    }
    firsts.sort_unstable();
    let ms = |at: usize| firsts[at.min(firsts.len() - 1)].as_secs_f64() * 1e3;
    let name = tree.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    println!(
        "{name:<16} {:>8} {:>9} {:>8} {restarts:>9}   median {:.2}, worst {:.2} of {}",
        records.len(),
        right.load(Ordering::Relaxed),
        wrong.load(Ordering::Relaxed),
        ms(firsts.len() / 2),
        ms(firsts.len() - 1),
        firsts.len(),
    );
    runtime.shutdown(Duration::from_secs(10)).await;
}

/// A path that is not resident, so that its load goes through every stage; any path where all are.
fn next_miss<'a>(runtime: &Runtime, paths: &'a [String], start: usize) -> &'a str {
    let around = paths.iter().cycle().skip((start * 37) % paths.len()).take(paths.len());
    around.clone().find(|path| runtime.get(path).is_none()).or_else(|| around.into_iter().next()).expect("it has files")
}
