//! A runtime that is served, and a client that does nothing it is not told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use flyloft::serve::Listener;
use flyloft::{ContentHash, Event, Runtime, RuntimeBuilder};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{PATIENCE, Tree};

/// A runtime that is served.
pub struct Server {
    pub executor: tokio::runtime::Runtime,
    pub runtime: Runtime,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<flyloft::Result<()>>>,
}

impl Server {
    pub fn start(builder: RuntimeBuilder) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (runtime, listener) = executor.block_on(async {
            let runtime = builder.start().await.unwrap();
            (runtime, Listener::bind("127.0.0.1:0").await.unwrap())
        });
        let address = listener.address();
        let served = executor.spawn(listener.serve(runtime.clone(), async { drop(stopped.await) }));
        Self { executor, runtime, address, stop: Some(stop), served: Some(served) }
    }

    pub fn of(tree: &Tree) -> Self {
        Self::start(tree.builder().budget_bytes(16 << 20))
    }

    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    /// Sends one request and reads until the server closes.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut connection = self.connect();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(connection, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut reader = BufReader::new(connection);
        let mut answer = head(&mut reader);
        reader.read_to_end(&mut answer.body).unwrap();
        answer
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        serde_json::from_slice(&answer.body).unwrap()
    }

    pub fn resident(&self) -> usize {
        self.runtime.stats().resident
    }

    /// Waits until the next generation is published.
    pub fn published(&self, events: &mut flyloft::telemetry::Subscription) {
        self.executor
            .block_on(super::within(async { while !matches!(events.recv().await, Some(Event::Published(_))) {} }));
    }

    /// Asks the server to stop and waits until it has.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        let served = self.served.take().unwrap();
        self.executor.block_on(super::within(served)).unwrap().unwrap();
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A refusal: its status, and one line that says `said`.
    pub fn refused(&self, status: u16, said: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8");
        assert!(self.text().ends_with('\n') && self.text().lines().count() == 1, "{:?}", self.text());
        assert!(self.text().contains(said), "'{said}' is not in: {}", self.text());
    }
}

/// Reads the status line and the headers.
pub fn head(reader: &mut impl BufRead) -> Answer {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}")).parse().unwrap();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Answer { status, headers, body: Vec::new() }
}

pub fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", ContentHash::of(bytes))
}

pub fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}
