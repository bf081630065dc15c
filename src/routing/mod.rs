//! The pure brain: which replica serves a request, when, and why. No IO, no clock, no ambient randomness.
//!
//! [`Router`] owns all state. The gateway, the simulator and the tests feed it events with their times and carry out what it answers.

pub mod admission;
pub mod decision;
pub mod estimate;
mod explain;
pub mod features;
pub mod filter;
pub mod fleet;
pub mod health;
pub mod index;
pub mod ledger;
pub mod peer;
pub mod policy;
pub mod prediction;
mod queue;
pub mod residency;
pub mod router;
mod score;
pub mod settings;
mod share;
mod ticket;
pub mod tokens;
pub mod tune;

pub use admission::{Class, Deadline, Late, Slo};
pub use decision::{Candidate, Decision, Excluded, Refusal, Term, Unit, Verdict};
pub use features::{BLOCK_BYTES, Features};
pub use fleet::{EngineLimits, Gauges, Limits, Rates, ReplicaKind, ReplicaSpec};
pub use health::{Health, HealthThresholds};
pub use peer::Report;
pub use router::snapshot::{ReplicaSnapshot, Snapshot};
pub use router::{Effect, Outcome, Router, Usage};
pub use settings::{Settings, SettingsError};
