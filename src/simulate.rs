//! Replays traces of accesses against the cache's own policies, beside what an offline limit would have done.
//!
//! ```
//! use flyloft::simulate::{Policy, Replay, Trace};
//!
//! let csv = "time,id,size\n0,a,10\n1,b,20\n2,a,10\n";
//! let trace = Trace::from_reader(csv.as_bytes(), "example", None)?;
//! let figures = Replay::new(&trace, 64).run(Policy::Lru);
//! assert_eq!((figures.requests, figures.hits, figures.hit_bytes), (3, 1, 10));
//! # Ok::<(), flyloft::Error>(())
//! ```
//!
//! Nothing here opens sockets, starts actors or waits: a replay is a plain loop over a [`Trace`] in memory, driving a
//! policy as the runtime's evictor drives it.

mod limit;
mod prefetch;
mod read;
mod recommend;
mod replay;
mod report;
mod sample;
mod study;
mod synthetic;
mod trace;

pub use crate::config::EvictionObjective as Objective;
pub use crate::config::EvictionPolicy as Policy;
pub use limit::{Aim, Limits};
pub use prefetch::{LATENCY_CLASSES, Predictor, Prefetched};
pub use read::Format;
pub use recommend::Recommendation;
pub use replay::{Figures, Replay};
pub use report::page;
pub use sample::Sample;
pub use study::{Curve, Findings, LimitPoint, Point, SIZES_MAX, Size, Study};
pub use synthetic::Synthetic;
pub use trace::{Gathering, Notes, Object, Trace};
