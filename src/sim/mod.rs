//! Virtual-time models: the engine (batching, KV cache, step time) and its presets. Pure.

pub mod engine;
pub mod fleet;
pub mod hardware;
pub mod preset;
pub mod timing;
