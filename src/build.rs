//! From a source tree to its next generation.
