//! `flyloft serve` beside nginx on the same tree: requests per second of files under 64 KiB, bytes per second of large ones.
//!
//! ```sh
//! cargo bench --bench http -- [FOLDER]
//! ```
//! Without a folder it takes the documentation that scripts/corpus.sh fetched, or else examples/assets. Both servers run
//! on core 0 (nginx with one worker), wrk on core 1 with one thread. They are asked in turn, round by round; each figure
//! is the median of the rounds. `cpu` is what the server's processes took per request, which still tells them apart where
//! wrk is what limits. nginx, wrk and taskset must be installed. Everything else is in a temporary folder.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
/// Seconds of one round of one server.
const SECONDS: u32 = 1;
/// Connections that ask for small files, and for large ones.
const CONNECTIONS: [u32; 2] = [32, 8];
/// Files of the random mix.
const MIX_FILES: usize = 2_000;
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Sizes of which the tree's nearest file is asked for.
const SMALL: [u64; 4] = [1 << 10, 4 << 10, 16 << 10, 60 << 10];
/// Sizes of the large files, which are made.
const LARGE: [u64; 3] = [256 << 10, 4 << 20, 32 << 20];
/// One tick of a process's time in /proc, in seconds.
const TICK: f64 = 0.01;

/// Asks for the paths of a list in random order, or for the URL alone, and prints what came of it in one line.
const SCRIPT: &str = r#"
local requests = {}
function init(args)
  if args[1] then
    for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
    math.randomseed(42)
    request = function() return requests[math.random(#requests)] end
  end
end
function done(summary, latency)
  local e = summary.errors
  local bad = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.bytes, summary.duration, bad, latency:percentile(99)))
end
"#;

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).map_or_else(default_folder, PathBuf::from);
    let folder = folder.canonicalize().expect("the folder exists");
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let large = temporary.path().join("large");
    std::fs::create_dir(&large).expect("a folder for the large files");
    for len in LARGE {
        std::fs::write(large.join(len.to_string()), noise(len)).expect("a large file is written");
    }
    let bench = Bench::new(temporary.path());
    println!(
        "{:<22} {:>8} {:>11} {:>11} {:>7} {:>9} {:>9}",
        "what", "bytes", "nginx", "flyloft", "ratio", "cpu nginx", "cpu ours"
    );
    small(&bench, &folder);
    streams(&bench, &large);
}

fn default_folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join(".corpus/docs");
    if docs.is_dir() { docs } else { root.join("examples/assets") }
}

/// Requests per second.
fn small(bench: &Bench, folder: &Path) {
    let mut all = Vec::new();
    walk(folder, folder, &mut all);
    all.retain(|(path, _)| path.bytes().all(plain));
    all.sort();
    let mut files = all.clone();
    files.retain(|(_, len)| (1..SMALL_BYTES_MAX).contains(len));
    assert!(!files.is_empty(), "the folder has no file under 64 KiB");
    let servers = bench.serve(folder, "small");
    for size in SMALL {
        let (path, len) = files.iter().min_by_key(|(_, len)| len.abs_diff(size)).expect("there is a file");
        let label = format!("file of {} KiB", size >> 10);
        bench.compare(&label, *len, &servers, &Ask { path: path.clone(), list: None, accept: None }, Unit::Requests);
    }
    let step = (files.len() / MIX_FILES).max(1);
    let mix: Vec<&(String, u64)> = files.iter().step_by(step).take(MIX_FILES).collect();
    let list = bench.folder.join("mix");
    let paths: String = mix.iter().map(|(path, _)| format!("{path}\n")).collect();
    std::fs::write(&list, paths).expect("the list of the mix is written");
    let mean = mix.iter().map(|(_, len)| len).sum::<u64>() / mix.len() as u64;
    let mut ask = Ask { path: mix[0].0.clone(), list: Some(list), accept: None };
    let label = format!("random of {} files", mix.len());
    bench.compare(&label, mean, &servers, &ask, Unit::Requests);
    ask.accept = Some("zstd");
    bench.compare("the same, zstd taken", mean, &servers, &ask, Unit::Requests);
    let stored = sent_as_stored(servers.flyloft.port, &all);
    if let Some((path, len)) = stored.iter().min_by_key(|(_, len)| len.abs_diff(1 << 20)) {
        let ask = Ask { path: path.clone(), list: None, accept: Some("zstd") };
        let label = format!("{} KiB, zstd from us", len >> 10);
        bench.compare(&label, *len, &servers, &ask, Unit::Requests);
    }
    println!("{} of the {} files have a stored form that is sent as it is", stored.len(), all.len());
}

/// Which of the files flyloft sends as they are stored to a client that takes zstd.
fn sent_as_stored(port: u16, files: &[(String, u64)]) -> Vec<(String, u64)> {
    let connection = TcpStream::connect(("127.0.0.1", port)).expect("flyloft takes connections");
    let mut sending = connection.try_clone().expect("a socket has two ends");
    let mut reader = BufReader::new(connection);
    let mut is_stored = |path: &str| -> std::io::Result<bool> {
        // In one piece: a second small one would wait for the first to be acknowledged.
        sending.write_all(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd\r\n\r\n").as_bytes())?;
        let (mut stored, mut line) = (false, String::new());
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            stored |= line.eq_ignore_ascii_case("content-encoding: zstd\r\n");
            if line.trim_end().is_empty() {
                return Ok(stored);
            }
        }
    };
    files.iter().filter(|(path, _)| is_stored(path).expect("flyloft answers")).cloned().collect()
}

/// Bytes per second.
fn streams(bench: &Bench, folder: &Path) {
    let servers = bench.serve(folder, "large");
    for len in LARGE {
        let ask = Ask { path: format!("/a/{len}"), list: None, accept: None };
        bench.compare(&format!("file of {} KiB", len >> 10), len, &servers, &ask, Unit::Bytes);
    }
}

/// What needs no escaping in a URL, a Lua string or a line.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(root, &path, files);
        } else if kind.is_file() {
            let name = path.strip_prefix(root).expect("found below it").to_string_lossy().into_owned();
            files.push((format!("/a/{name}"), entry.metadata().map_or(0, |about| about.len())));
        }
    }
}

fn noise(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct Ask {
    path: String,
    /// A file with the paths of a random mix.
    list: Option<PathBuf>,
    accept: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Unit {
    Requests,
    Bytes,
}

struct Bench {
    folder: PathBuf,
    script: PathBuf,
}

/// nginx and flyloft over one folder.
struct Servers {
    nginx: Server,
    flyloft: Server,
}

/// A server on core 0, which ends with this.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM: nginx's master takes its worker with it.
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        if stopped.is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

struct Round {
    requests: f64,
    bytes: f64,
    cpu_us: f64,
    bad: u64,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let script = folder.join("ask.lua");
        std::fs::write(&script, SCRIPT).expect("the script is written");
        Self { folder: folder.to_owned(), script }
    }

    fn serve(&self, tree: &Path, name: &str) -> Servers {
        let own = self.folder.join(name);
        std::fs::create_dir_all(own.join("logs")).expect("a folder for nginx");
        let (port, other) = (free_port(), free_port());
        let (own_text, tree_text) = (own.display(), tree.display());
        // Started by root, nginx works as nobody, who may not be allowed to read the tree.
        let user = if is_root() { "user root;\n" } else { "" };
        let config = format!(
            "{user}worker_processes 1;\nerror_log {own_text}/error.log;\npid {own_text}/pid;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n include /etc/nginx/mime.types;\n access_log off;\n sendfile on;\n tcp_nopush on;\n tcp_nodelay on;\n\
             keepalive_timeout 65;\n keepalive_requests 1000000000;\n\
             open_file_cache max=100000 inactive=600s;\n open_file_cache_valid 600s;\n open_file_cache_min_uses 1;\n\
             client_body_temp_path {own_text};\n proxy_temp_path {own_text};\n fastcgi_temp_path {own_text};\n\
             uwsgi_temp_path {own_text};\n scgi_temp_path {own_text};\n\
             server {{ listen 127.0.0.1:{port}; location /a/ {{ alias {tree_text}/; }} }}\n}}\n"
        );
        let file = own.join("nginx.conf");
        std::fs::write(&file, config).expect("nginx's configuration is written");
        let mut command = pinned(0, "nginx");
        command.arg("-p").arg(&own).arg("-c").arg(&file).args(["-g", "daemon off;"]);
        let mut nginx = Server::start(command, port);
        nginx.wait_for_port();
        let mut command = pinned(0, env!("CARGO_BIN_EXE_flyloft"));
        command.arg("serve").arg(tree).args(["--budget", "4GiB", "--listen", &format!("127.0.0.1:{other}")]);
        command.arg("--store").arg(own.join("store"));
        let mut flyloft = Server::start(command, other);
        flyloft.wait_for_line();
        Servers { nginx, flyloft }
    }

    fn compare(&self, label: &str, len: u64, servers: &Servers, ask: &Ask, unit: Unit) {
        for server in [&servers.nginx, &servers.flyloft] {
            self.round(server, ask, unit, 1);
        }
        let (mut nginx, mut flyloft) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            nginx.push(self.round(&servers.nginx, ask, unit, SECONDS));
            flyloft.push(self.round(&servers.flyloft, ask, unit, SECONDS));
        }
        let bad: u64 = nginx.iter().chain(&flyloft).map(|round| round.bad).sum();
        assert_eq!(bad, 0, "{label}: some requests failed");
        let speed = |round: &Round| match unit {
            Unit::Requests => round.requests,
            Unit::Bytes => round.bytes / 1e6,
        };
        let (theirs, ours) = (median(&nginx, speed), median(&flyloft, speed));
        let (their_cpu, our_cpu) = (median(&nginx, |round| round.cpu_us), median(&flyloft, |round| round.cpu_us));
        let unit = match unit {
            Unit::Requests => "/s",
            Unit::Bytes => "MB/s",
        };
        println!(
            "{label:<22} {len:>8} {theirs:>7.0} {unit:<4}{ours:>7.0} {unit:<4}{:>7.2} {their_cpu:>6.1} us {our_cpu:>6.1} us",
            ours / theirs
        );
    }

    fn round(&self, server: &Server, ask: &Ask, unit: Unit, seconds: u32) -> Round {
        let before = server.cpu_seconds();
        let mut command = pinned(1, "wrk");
        let connections = CONNECTIONS[unit as usize];
        command
            .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "20s"])
            .arg("-s")
            .arg(&self.script);
        if let Some(accept) = ask.accept {
            command.args(["-H", &format!("Accept-Encoding: {accept}")]);
        }
        command.arg(format!("http://127.0.0.1:{}{}", server.port, ask.path));
        command.args(ask.list.iter().flat_map(|list| [Path::new("--"), list]));
        let output = command.output().expect("wrk runs; it is in the package wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let figures: Vec<f64> = line.split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let [requests, bytes, us, bad, _p99] = figures[..] else { panic!("wrk said: {line}") };
        let cpu_us = (server.cpu_seconds() - before) * 1e6 / requests;
        Round { requests: requests * 1e6 / us, bytes: bytes * 1e6 / us, cpu_us, bad: bad as u64 }
    }
}

impl Server {
    fn start(mut command: Command, port: u16) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().expect("the server starts; nginx is in the package nginx");
        Self { child, port }
    }

    /// Waits until flyloft says that it serves, which is after it has packed the tree.
    fn wait_for_line(&mut self) {
        let output = self.child.stdout.as_mut().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("flyloft's output is readable");
        assert!(line.starts_with("serving "), "flyloft said: {line:?}");
    }

    /// Waits until nginx, which says nothing, takes connections.
    fn wait_for_port(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let gone = self.child.try_wait().expect("its state can be asked for");
            assert!(gone.is_none() && Instant::now() < deadline, "nginx did not come up: {gone:?}");
            std::thread::yield_now();
        }
    }

    /// What it and its children have taken so far.
    fn cpu_seconds(&self) -> f64 {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let all = children.split_whitespace().map(str::to_owned).chain([id.to_string()]);
        all.map(|id| ticks(&id) as f64 * TICK).sum()
    }
}

fn ticks(id: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; time in user and kernel mode are the 12th and 13th after it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn pinned(core: u32, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// Whether this process is root's: `/proc` says so in the line `Uid:  0 0 0 0`.
fn is_root() -> bool {
    let about = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = about.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    effective == Some("0")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
