//! Replays traces of accesses against the cache's own policies, beside what an offline limit would have done.
//!
//! ```
//! use flyloft::simulate::{Policy, Replay, Trace};
//!
//! let csv = "time,id,size\n0,a,10\n1,b,20\n2,a,10\n";
//! let trace = Trace::from_reader(csv.as_bytes(), "example", None)?;
//! let figures = Replay::new(&trace, 64).run(&Policy::Lru);
//! assert_eq!((figures.requests, figures.hits, figures.hit_bytes), (3, 1, 10));
//! # Ok::<(), flyloft::Error>(())
//! ```
//!
//! Nothing here opens sockets, starts actors or waits: a replay is a plain loop over a [`Trace`] in memory, driving a
//! policy as the runtime's evictor drives it.

mod limit;
mod policy;
mod read;
mod replay;
mod sample;
mod synthetic;
mod trace;

pub use limit::{Aim, Limits};
pub use policy::Policy;
pub use read::Format;
pub use replay::{Figures, Replay};
pub use sample::Sample;
pub use synthetic::Synthetic;
pub use trace::{Gathering, Notes, Object, Trace};
