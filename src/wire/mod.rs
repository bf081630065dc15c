//! Types that cross a process border of ours: the admin API of a router, the error object of its data API, and what agents tell each
//! other. Pure data.
//!
//! Writers fill every field; readers ignore keys that they don't know, so that an older CLI can talk to a newer proxy. Bodies
//! that CHANGE something refuse unknown keys instead: a typo must not look like success. Quantities that may be unknown are
//! `null`, never 0 or NaN (JSON has no NaN). Units are in the names: `_ms`, `_s`, `_tokens`, `_bytes`.

mod audit;
mod cache;
mod decision;
mod drain;
mod error;
mod latency;
pub mod paths;
pub mod peer;
mod policy;
mod replica;
pub mod span;
mod status;
mod tune;

pub use audit::{AuditEvent, AuditLine};
pub use cache::{Cache, CacheReplica, ClearCache, Cleared};
pub use decision::{
    Attempt, Candidate, Deadline, Decision, DecisionSummary, Decisions, Excluded, Explanation, Finished, OutcomeKind,
    Term, Verdict,
};
pub use drain::{Drain, SetDrain};
pub use error::{ErrorBody, ErrorObject};
pub use latency::{HitRatio, Latency, LatencyReplica, Percentiles, Prediction};
pub use peer::PeerState;
pub use policy::{Parameter, Policy, SetPolicy, StrategyInfo};
pub use replica::{
    AGENT, AddReplica, Gauges, Health, Ledger, Limits, Rates, Replica, ReplicaChange, ReplicaRequests, Replicas, Rtt,
};
pub use status::{QueueStatus, ReplicaCounts, RequestCounts, Status};
pub use tune::{
    Measured, SetTune, StartTuner, Tune, TuneEntry, TuneKey, TuneRecord, TuneTimes, TunedParameter, Tuner, TunerAction,
};

#[cfg(test)]
mod tests;
