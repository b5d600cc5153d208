//! A thousand edits of a served tree while eight clients read it over HTTP: every body must match the hash that its
//! ETag names and be an edition that was written, and every last edition must be seen.
//!
//! ```sh
//! cargo bench --bench edits -- FOLDER...
//! ```
//! The folders are copied first. Without folders it takes examples/assets and the trees that scripts/corpus.sh fetched.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flyloft::serve::Listener;
use flyloft::{ContentHash, Runtime};

const EDITS: usize = 1_000;
const CLIENTS: usize = 8;
/// Files that are edited and read: small enough to be rewritten a thousand times.
const BYTES_MAX: u64 = 256 << 10;

/// Every edition of every file that is edited, known before it is written.
type Editions = Mutex<HashMap<String, HashSet<String>>>;

fn main() {
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from).collect();
    let trees = if named.is_empty() { corpus() } else { named };
    println!(
        "{:<16} {:>6} {:>10} {:>6} {:>7}   generations, reload ms",
        "tree", "edits", "responses", "wrong", "unseen"
    );
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("an executor");
    for tree in trees {
        run(&executor, &tree);
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

fn run(executor: &tokio::runtime::Runtime, tree: &Path) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tree");
    let copied = std::process::Command::new("cp").arg("-rL").arg(tree.join(".")).arg(&root).output().expect("cp runs");
    // Links to nothing cannot be copied; the rest is.
    assert!(root.is_dir(), "{}", String::from_utf8_lossy(&copied.stderr));
    let (runtime, address) = executor.block_on(async {
        let builder = Runtime::builder().directory(&root).store(folder.path().join("store")).watch(true);
        let runtime = builder.start().await.expect("the tree is served");
        let listener = Listener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.address();
        tokio::spawn(listener.serve(runtime.clone(), std::future::pending()));
        (runtime, address)
    });
    let records = executor.block_on(runtime.snapshot().assets("")).expect("the table of contents is read");
    let plain = |path: &str| !path.ends_with(".json") && !path.ends_with(".toml");
    let fits = |len: u64| (1..=BYTES_MAX).contains(&len);
    let chosen = records.iter().filter(|record| fits(record.len) && plain(record.path.as_str()));
    let editions: HashMap<String, HashSet<String>> =
        chosen.map(|record| (record.path.to_string(), HashSet::from([record.content.to_string()]))).collect();
    let mut paths: Vec<String> = editions.keys().cloned().collect();
    paths.sort();
    // The files that are edited are read often enough to be met in the act.
    paths.truncate(2_000);
    let (paths, editions) = (Arc::new(paths), Arc::new(Editions::new(editions)));

    let stop = Arc::new(AtomicBool::new(false));
    let (responses, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (paths, editions, stop) = (Arc::clone(&paths), Arc::clone(&editions), Arc::clone(&stop));
            let (responses, wrong) = (Arc::clone(&responses), Arc::clone(&wrong));
            std::thread::spawn(move || {
                let mut connection = Client::connect(address);
                let mut at = client * 97;
                while !stop.load(Ordering::Relaxed) {
                    at = (at * 31 + 7) % paths.len();
                    let path = &paths[at];
                    let right = connection.get(path).is_some_and(|(tag, body)| {
                        let hash = ContentHash::of(&body).to_string();
                        tag == hash && editions.lock().expect("no client panics")[path].contains(&hash)
                    });
                    responses.fetch_add(1, Ordering::Relaxed);
                    wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                    at += 1;
                }
            })
        })
        .collect();

    let (_never, pace) = std::sync::mpsc::channel::<()>();
    let first = runtime.snapshot().generation();
    let mut last: HashMap<&str, String> = HashMap::new();
    for edit in 0..EDITS {
        let path = paths[(edit * 7919) % paths.len()].as_str();
        let file = root.join(path);
        let mut bytes = std::fs::read(&file).expect("it is there");
        bytes.truncate(BYTES_MAX as usize);
        bytes.extend_from_slice(format!("\nedit {edit}\n").as_bytes());
        let hash = ContentHash::of(&bytes).to_string();
        editions.lock().expect("no client panics").get_mut(path).expect("it is known").insert(hash.clone());
        if edit % 2 == 0 {
            std::fs::write(&file, &bytes).expect("it is written");
        } else {
            let beside = folder.path().join("beside");
            std::fs::write(&beside, &bytes).expect("it is written");
            std::fs::rename(&beside, &file).expect("it is renamed");
        }
        last.insert(path, hash);
        // At the pace of a generator, not of a person.
        pace.recv_timeout(Duration::from_millis(2)).ok();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let seen = |path: &str, hash: &str| {
        executor.block_on(runtime.load(path)).is_ok_and(|asset| asset.hash().to_string() == hash)
    };
    last.retain(|path, hash| {
        while Instant::now() < deadline {
            if seen(path, hash) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    });
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client does not panic");
    }
    let stats = runtime.stats().metrics;
    let generations = runtime.snapshot().generation().0 - first.0;
    let name = tree.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    println!(
        "{name:<16} {EDITS:>6} {:>10} {:>6} {:>7}   {generations}, p50 {:.1}, p99 {:.1}",
        responses.load(Ordering::Relaxed),
        wrong.load(Ordering::Relaxed),
        last.len(),
        stats.reload_latency.p50_us as f64 / 1e3,
        stats.reload_latency.p99_us as f64 / 1e3,
    );
    executor.block_on(runtime.shutdown(Duration::from_secs(10)));
}

/// One connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let connection = TcpStream::connect(address).expect("the server listens");
        connection.set_nodelay(true).expect("a socket takes its options");
        Self(BufReader::new(connection))
    }

    /// The hash in the ETag and the body; `None` for any other answer than 200.
    fn get(&mut self, path: &str) -> Option<(String, Vec<u8>)> {
        let request = format!("GET /a/{} HTTP/1.1\r\nHost: x\r\n\r\n", path.replace(' ', "%20"));
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut line, mut len, mut tag, mut good) = (String::new(), 0, String::new(), false);
        loop {
            line.clear();
            self.0.read_line(&mut line).ok()?;
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            good |= text.starts_with("HTTP/1.1 200");
            if let Some((name, value)) = text.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => len = value.trim().parse().ok()?,
                    "etag" => tag = value.trim().trim_matches('"').to_owned(),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).ok()?;
        good.then_some((tag, body))
    }
}
