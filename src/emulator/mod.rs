//! Stand-ins for what costs money: an inference engine's HTTP face over the simulated engine, a relay with WAN
//! delay, and an account at a cloud.

mod clock;
pub mod engine;
pub mod lambda;
mod lateness;
pub mod wan;
