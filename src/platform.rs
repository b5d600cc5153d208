//! What the operating system and the machine give, behind traits.
//!
//! Everything above takes the machine as an argument: a [`clock::Clock`], [`random::Random`], [`threads::Threads`],
//! a [`fs::FileSystem`], so that a simulated twin can stand in for each. All unsafe code of the crate is here, but for
//! what src/residency/hold needs, each block with the invariant it rests on.
//!
//! Nothing here knows what an asset or a bundle is. The same code path runs on a machine that lacks io_uring, huge
//! pages, NUMA or affinity (invariant 16); [`capabilities`] says what is missing and what it costs.

pub mod affinity;
pub mod barrier;
pub mod capabilities;
pub mod cgroup;
pub mod clock;
pub mod fill;
pub mod fs;
pub mod io;
pub mod memory;
pub mod numa;
pub mod pressure;
pub mod process;
pub mod random;
pub mod threads;
pub mod topology;
pub mod version_control;
pub mod watch;
