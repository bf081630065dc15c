//! Stand-ins for what costs money: an inference engine's HTTP face over the simulated engine, and a relay with WAN delay.

mod clock;
pub mod engine;
mod lateness;
pub mod wan;
