//! The typed protocols: one file per receiving actor, and what travels between them.
//!
//! Commands are imperative, events past tense. Whatever carries work carries its leases and permits with it:
//! a message that is dropped, wherever and why ever, gives its work back to the ledger and its permits to their
//! owners. So a lost message delays a request and never loses it.

mod address;
mod cache_manager;
mod decompressor;
mod evictor;
mod file_watcher;
mod io_dispatcher;
mod io_worker;
mod predictor;
mod rebuilder;
mod supervisor;
pub mod work;

pub use address::Address;
pub use cache_manager::{CacheManagerMessage, Filled, Finished};
pub use decompressor::DecompressorMessage;
pub use evictor::EvictorMessage;
pub use file_watcher::FileWatcherMessage;
pub use io_dispatcher::{DispatcherMessage, Lookup, Prefetch};
pub use io_worker::IoWorkerMessage;
pub use predictor::{Loaded, PredictorMessage, Uses};
pub use rebuilder::{ChangeSet, Publication, RebuilderMessage, Rollback, Staged, StagedTimes};
pub use supervisor::SupervisorMessage;
