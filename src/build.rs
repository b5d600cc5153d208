//! From a source tree to its next generation.
//!
//! [`TreeBuilder`] is the engine; [`pack`], [`compact`] and [`unpack`] are what the program does with bundles.

mod actions;
mod arena;
pub mod builder;
mod compact;
mod compare;
pub mod config;
mod contents;
pub mod extract;
mod frames;
pub mod graph;
mod labels;
mod order;
mod pack;
mod parallel;
pub mod plan;
pub mod scan;
mod source;
mod spill;
mod split;
pub mod stats;
pub mod transform;
mod unpack;
mod why;
pub mod workshop;

pub use self::actions::ActionCacheOptions;
pub use self::arena::ArenaStats;
pub use self::builder::{BuildOptions, Built, Keeper, NoProgress, Progress, TreeBuilder};
pub use self::compact::{CompactReport, compact};
pub use self::compare::Comparison;
pub use self::contents::ContentReader;
pub use self::order::AccessOrder;
pub use self::pack::{PackReport, pack};
pub use self::unpack::{UnpackReport, unpack};
pub use self::why::{Because, Why};
pub use self::workshop::{ADDRESS_FILE, Task, Workshop};
