//! gorgo serves LLMs from GPUs in several regions with the lowest time to first token: a cluster CLI and a routing engine.
//!
//! ARCHITECTURE.md draws the picture; `tests/architecture.rs` enforces which module may import which.

pub mod bench;
pub mod cli;
pub mod cloud;
pub mod cluster;
pub mod config;
pub mod emulator;
pub mod gateway;
pub mod inference;
pub mod model;
pub mod remote;
pub mod report;
pub mod routing;
pub mod sim;
pub mod wire;
pub mod workload;
