//! The supervision tree: declared in [`tree`], carried out by [`supervisor`].

pub mod supervisor;
pub mod tree;

mod start;
