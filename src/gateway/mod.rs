//! The data plane: an HTTP proxy in front of the engines, with `routing` as its brain.

pub mod clock;
pub mod endpoint;
pub mod pool;
