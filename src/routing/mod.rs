//! The pure brain: which replica serves a request, when, and why. No IO, no clock, no ambient randomness.
//!
//! [`Router`] owns all state. The gateway, the simulator and the tests feed it events with their times and carry out what it answers.

pub mod decision;
pub mod features;
pub mod fleet;
pub mod index;
pub mod policy;
pub mod router;

pub use decision::{Candidate, Decision, Excluded, Refusal, Term, Unit, Verdict};
pub use features::{BLOCK_BYTES, Features};
pub use fleet::{Gauges, Health, Limits, Rates, ReplicaSpec};
pub use router::{Effect, Outcome, Router, Settings, Usage};
