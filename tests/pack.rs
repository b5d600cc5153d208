//! From a tree to a bundle and back: what is packed, what is refused, what is appended, what heals.

#[path = "pack/bad_input.rs"]
mod bad_input;
#[path = "pack/faults.rs"]
mod faults;
#[path = "common/file_system.rs"]
mod file_system;
#[path = "pack/incremental.rs"]
mod incremental;
#[path = "pack/serving.rs"]
mod serving;
#[path = "pack/support.rs"]
mod support;
#[path = "pack/tracked.rs"]
mod tracked;
#[path = "pack/whole.rs"]
mod whole;
