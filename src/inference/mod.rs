//! What inference engines say and want to hear: request bodies, event streams, usage, endpoints, metrics. Pure.
//!
//! One description for SGLang, vLLM and our emulated engine; gateway, cluster and emulator all read it.

pub mod engine;
mod json;
pub mod prom;
pub mod prompt;
pub mod sse;
pub mod usage;

pub use engine::{Engine, Gauges};
pub use prompt::{Dialect, Parsed};
pub use usage::Usage;
