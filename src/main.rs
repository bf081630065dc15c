//! The `gorgo` binary.

fn main() {}
