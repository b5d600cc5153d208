//! The program, which is still to come.

fn main() {}
