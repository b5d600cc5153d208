//! Where a running `serve` or `watch` can be asked about a tree: its address, left in the tree's store.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flyloft::build::ADDRESS_FILE;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long a server on this machine may take to accept a connection, and to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Who serves a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The process.
    pub pid: u32,
    /// Where it is reached from this machine.
    pub url: String,
    address: SocketAddr,
}

/// The file, for as long as it is true. Removed when dropped, unless another server has taken the store over.
pub struct Announced {
    left: Option<(PathBuf, Serving)>,
}

impl Announced {
    /// Leaves the address in `store`. Where it cannot be written the server is as good, only harder to find.
    pub fn leave(store: Option<&str>, address: SocketAddr) -> Self {
        let Some(store) = store else { return Self { left: None } };
        let address = reachable(address);
        let serving = Serving { pid: std::process::id(), url: format!("http://{address}/"), address };
        let file = Path::new(store).join(ADDRESS_FILE);
        let written = serde_json::to_vec(&serving).map_err(io::Error::from);
        match written.and_then(|bytes| OsFileSystem.write_atomic(&file, &bytes)) {
            Ok(()) => Self { left: Some((file, serving)) },
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "`flyloft explain` will not find this server");
                Self { left: None }
            }
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some((file, serving)) = self.left.take()
            && read(&file).as_ref() == Some(&serving)
        {
            // One that stays is found out when it is asked.
            drop(OsFileSystem.remove_file(&file));
        }
    }
}

/// Somebody on this machine asks: an address that stands for all of its own is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read(file: &Path) -> Option<Serving> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// The server that the store at `store` names and that does serve it. One that was killed left its address behind, and
/// another program may have its port by now: what answers there is asked which store it serves.
pub fn find(store: &Path) -> Option<Serving> {
    let serving = read(&store.join(ADDRESS_FILE))?;
    let status: Value = serde_json::from_slice(&serving.get("/status").ok()?.1).ok()?;
    let same = |named: &str| {
        let real = |path: &Path| OsFileSystem.canonicalize(path).ok();
        Path::new(named) == store || real(Path::new(named)).is_some_and(|named| real(store) == Some(named))
    };
    status.get("store").and_then(Value::as_str).is_some_and(same).then_some(serving)
}

impl Serving {
    /// Asks for `target`; gives the status and the body.
    pub fn get(&self, target: &str) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let line = std::str::from_utf8(&answer[..head]).ok()?.lines().next()?;
    let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[head + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_reached_by_loopback() {
        let check = |address: &str, expected: &str| {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0:7070", "127.0.0.1:7070");
        check("[::]:7070", "[::1]:7070");
        check("192.0.2.1:80", "192.0.2.1:80");
    }

    #[test]
    fn an_answer_is_its_status_and_body() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody"), Some((200, b"body".to_vec())));
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, Vec::new())));
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), None);
    }
}
