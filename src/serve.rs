//! The HTTP face of a runtime: its assets, its events, what it says of itself, and a page that shows all of it.
//!
//! It uses the public interface alone; whoever wants another face can write one from this one. [`router`] is for a
//! program that has a server already, [`listen`] for one that has none.
//!
//! | path | answer |
//! |---|---|
//! | `/a/<path>` | the asset, with conditional requests and ranges; a folder answers with its `index.html` |
//! | `/events` | server-sent events: every [`crate::Event`] as JSON, named by its type |
//! | `/status` | [`crate::runtime::Status`] as JSON, with [`crate::runtime::Stats`] in the field `stats` |
//! | `/metrics` | the same figures for Prometheus |
//! | `/report` | [`crate::runtime::Stats`] as a page of text |
//! | `/memory` | [`crate::runtime::MemoryProfile`] as JSON |
//! | `/tree` | what a folder holds, as JSON: `prefix`, `after`, `search`, `limit` |
//! | `/explain?path=` | [`crate::runtime::Explanation`] of one path, as JSON |
//! | `/` | the page |
//!
//! An asset has a second representation, `Content-Encoding: zstd`, where it is stored as one Zstandard stream: frames
//! without a dictionary that hold nothing else ([`crate::Snapshot::load_stored`]). It is sent as it is stored, several
//! frames one after the other (RFC 8878, section 3.1), and nothing is compressed here. Where the transform `compress`
//! made an asset once more as `br` and `gzip`, these are representations too. Each has its own strong ETag, length and
//! ranges; of those that the client takes it gets the one with the most weight, and of equal ones brotli before
//! Zstandard before gzip.
//!
//! Invariant: one response is of one generation, whatever is published while it is sent.

mod asset;
mod body;
mod conditional;
mod connection;
mod events;
mod explain;
mod failure;
mod kind;
mod metrics;
mod traffic;
mod tree;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::runtime::{Runtime, Stats, Status};

/// How long connections may go on once the server is asked to stop.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(3);

const PAGE: &str = include_str!("serve/page.html");

/// What every handler sees.
struct Face {
    runtime: Runtime,
    /// Larger assets are streamed rather than made resident.
    resident_bytes_max: u64,
    listings: tree::Listings,
    traffic: traffic::Traffic,
    forms: traffic::Forms,
    /// Turns true when the server stops; `None` where the server is somebody else's.
    stopping: Option<watch::Receiver<bool>>,
}

/// The routes over a runtime, to be served or nested in a server that exists already.
///
/// Streams of `/events` end within a second after [`Runtime::shutdown`] began, so that a graceful shutdown of the
/// server around it does not wait for them.
///
/// ```no_run
/// # async fn example() -> flyloft::Result<()> {
/// let runtime = flyloft::Runtime::builder().directory("assets").watch(true).start().await?;
/// let app: axum::Router = axum::Router::new().nest("/flyloft", flyloft::serve::router(runtime));
/// # drop(app);
/// # Ok(())
/// # }
/// ```
pub fn router(runtime: Runtime) -> Router {
    routes(Face::new(runtime, None))
}

impl Face {
    fn new(runtime: Runtime, stopping: Option<watch::Receiver<bool>>) -> Arc<Self> {
        let resident_bytes_max = runtime.stats().budget.total / 4;
        let (listings, traffic, forms) = Default::default();
        Arc::new(Self { runtime, resident_bytes_max, listings, traffic, forms, stopping })
    }
}

fn routes(face: Arc<Face>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/a/", get(asset::serve))
        .route("/a/{*path}", get(asset::serve))
        .route("/events", get(events::stream))
        .route("/status", get(status))
        .route("/metrics", get(metrics::text))
        .route("/memory", get(memory))
        .route("/report", get(report))
        .route("/tree", get(tree::list))
        .route("/explain", get(explain::explain))
        .fallback(unknown)
        .with_state(face)
}

/// Binds `address`, such as `127.0.0.1:7070`, and serves `runtime` there until `shutdown` resolves; then open
/// responses have [`CLOSE_WITHIN`] to end.
///
/// # Errors
/// As [`Listener::bind`].
pub async fn listen(
    runtime: Runtime,
    address: &str,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    Listener::bind(address).await?.serve(runtime, shutdown).await
}

/// A bound address that nobody is served at yet: a port that is in use is known before anything is built.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// [`Error::Config`] that names the address: it does not parse, its port is in use, it is not one of this machine.
    pub async fn bind(address: &str) -> Result<Self> {
        let refused = |source: std::io::Error| {
            let why = match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "the port is in use; stop the program that has it or listen on another".to_owned()
                }
                std::io::ErrorKind::InvalidInput => {
                    "not an address to listen on; write host:port, such as 127.0.0.1:7070".to_owned()
                }
                _ => format!("cannot listen there: {source}"),
            };
            Error::config(address, why)
        };
        let tcp = TcpListener::bind(address).await.map_err(refused)?;
        let address = tcp.local_addr().map_err(refused)?;
        Ok(Self { tcp, address })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `runtime` until `shutdown` resolves. The runtime itself is not shut down.
    ///
    /// # Errors
    /// None any more; a connection that cannot be accepted is tried again.
    pub async fn serve(self, runtime: Runtime, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let (stop, stopping) = watch::channel(false);
        let face = Face::new(runtime, Some(stopping.clone()));
        let router = routes(Arc::clone(&face));
        let served = connection::serve(self.tcp, face, router, stopping);
        let overdue = async {
            shutdown.await;
            stop.send_replace(true);
            tokio::time::sleep(CLOSE_WITHIN).await;
        };
        tokio::select! {
            () = served => {}
            () = overdue => tracing::warn!("connections were still open when the server stopped"),
        }
        Ok(())
    }
}

async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, PAGE).into_response()
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    status: Status,
    stats: Stats,
}

async fn status(State(face): State<Arc<Face>>) -> Response {
    json(&Report { status: face.runtime.status(), stats: face.runtime.stats() })
}

async fn report(State(face): State<Arc<Face>>) -> Response {
    let text = face.runtime.stats().to_string();
    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}

async fn memory(State(face): State<Arc<Face>>) -> Response {
    json(&face.runtime.memory_profile())
}

async fn unknown(uri: Uri) -> Response {
    failure::line(StatusCode::NOT_FOUND, format!("'{}' is not here; assets are under /a/", uri.path()))
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response(),
        Err(error) => failure::line(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be written as JSON: {error}")),
    }
}
