//! What inference engines say and want to hear: request bodies, event streams, usage, endpoints, metrics. Pure.
//!
//! One description for SGLang, vLLM and our emulated engine; gateway, cluster and emulator all read it.

mod json;
pub mod prompt;
pub mod sse;
pub mod usage;

pub use prompt::{Dialect, Parsed};
pub use usage::Usage;
