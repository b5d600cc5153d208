//! Watching a tree: what editors, version controls and people do to files, replayed call by call against real files, and
//! what happens when the operating system does not tell of it.
#![cfg(target_os = "linux")] // What Linux tells is told here; elsewhere tests/reload.rs says that changes arrive.

mod common;

#[path = "watching/checkouts.rs"]
mod checkouts;
#[path = "watching/editors.rs"]
mod editors;
#[path = "watching/files.rs"]
mod files;
#[path = "watching/folders.rs"]
mod folders;
#[path = "watching/ignoring.rs"]
mod ignoring;
#[path = "watching/losses.rs"]
mod losses;
#[path = "watching/support.rs"]
mod support;
