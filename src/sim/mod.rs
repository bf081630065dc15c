//! Virtual-time models: the engine (batching, KV cache, step time) and its presets, the network, and whole fleets with their routers
//! and clients ([`world`]). Pure: one run is a function of its scenario and seed.

pub mod engine;
pub mod fault;
pub mod fleet;
pub mod hardware;
mod link;
pub mod path;
pub mod preset;
mod schedule;
pub mod timing;
pub mod world;
