//! Flyloft: an actor-based runtime for assets.
//!
//! It packs a tree of files and its dependency graph into one content-addressed bundle, streams assets out of it by
//! priority under a memory budget, and hot-reloads what changes, atomically. File watcher, rebuilder, I/O dispatcher and
//! workers, decompressor, cache manager, evictor and predictor are independent actors under supervisors: what dies is
//! restarted, and no request is lost.
//!
//! ```no_run
//! use flyloft::{Priority, Runtime};
//!
//! # async fn example() -> flyloft::Result<()> {
//! let runtime = Runtime::builder().directory("assets").budget_bytes(256 << 20).watch(true).start().await?;
//! let page = runtime.load("pages/index.html").await?;
//! let wall = runtime.request("textures/wall.png").priority(Priority::Critical).send().await?;
//! println!("{} bytes of {}, {} bytes of {}", page.len(), page.path(), wall.len(), wall.path());
//! # Ok(())
//! # }
//! ```
//!
//! - [`Runtime`] is what a program holds; [`Snapshot`] is one generation of the tree, [`Asset`] a handle to resident
//!   bytes, [`AssetReader`] a stream for what is larger than memory, [`Typed`] a handle to a decoded value,
//!   [`Watched`] one that follows reloads.
//! - [`build`] packs trees, [`bundle`] reads and writes the file format.
//! - `serve` (a feature, on by default) is the HTTP face.
//!
//! `default-features = false` is the library alone.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod actors;
pub mod build;
pub mod builder;
pub mod bundle;
pub mod config;
pub mod error;
pub mod event;
pub mod ids;
pub mod limits;
pub mod messages;
pub mod platform;
pub mod policy;
pub mod residency;
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod simulate;
pub mod storage;
pub mod telemetry;

pub use builder::RuntimeBuilder;
pub use config::{Place, RuntimeConfig};
pub use error::{Error, Result};
pub use event::Event;
pub use ids::{AssetId, AssetKind, AssetPath, ContentHash, Generation, Origin, Priority};
pub use residency::Asset;
pub use runtime::{AssetReader, Load, LoadMany, Request, Runtime, ShutdownReport, Snapshot, Viewer, ViewerState};
pub use runtime::{Decode, DecodeContext, DecodeError, Json, LoadAs, Newest, Postcard, ReloadCallback, Typed, Watched};
