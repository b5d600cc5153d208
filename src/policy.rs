//! Decisions: pure functions and values; `now` is an argument.
