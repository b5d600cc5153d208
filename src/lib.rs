//! Flyloft: an actor-based runtime for assets.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod build;
pub mod bundle;
pub mod config;
pub mod error;
pub mod event;
pub mod ids;
pub mod limits;
pub mod platform;
pub mod policy;
pub mod residency;
pub mod storage;
pub mod telemetry;

pub use error::{Error, Result};
pub use ids::{AssetId, AssetKind, AssetPath, ContentHash, Generation, Origin, Priority};
