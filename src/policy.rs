//! Decisions: pure functions and values; `now` is an argument.
//!
//! A policy looks at values and returns a decision; an actor carries it out. Nothing here knows a clock, a thread,
//! a file or an actor, so each policy is tested against a plain model of what it promises.

pub mod bandwidth;
pub mod eviction;
pub mod places;
pub mod prediction;
pub mod pressure;
pub mod restart;
pub mod schedule;
pub mod settle;
