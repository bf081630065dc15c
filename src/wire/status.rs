//! `status`: one screen about a router.

use serde::{Deserialize, Serialize};

/// How a router is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of gorgo that runs, e.g. `0.1.0`.
    pub version: String,
    /// Process id, to be shown; nothing of ours kills by it.
    pub pid: u32,
    /// Time since the start, s.
    pub uptime_s: f64,
    /// Address that takes requests, e.g. `127.0.0.1:8000`.
    pub listen: String,
    /// Name of the strategy in charge.
    pub strategy: String,
    /// Most requests running per replica before the router holds back; `null` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// True once it takes no new requests.
    pub draining: bool,
    /// Its replicas by state.
    pub replicas: ReplicaCounts,
    /// Its queue.
    pub queue: QueueStatus,
    /// Requests since the start.
    pub requests: RequestCounts,
}

/// Replicas by state. Health counts add up to `total`; `draining` is counted beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCounts {
    /// All of them.
    pub total: u32,
    /// In rotation.
    pub healthy: u32,
    /// Out of rotation.
    pub unhealthy: u32,
    /// Not checked yet.
    pub unknown: u32,
    /// Taken out by an operator, whatever their health.
    pub draining: u32,
}

/// The router's own queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Requests in it now.
    pub waiting: u64,
    /// Most that fit.
    pub limit: u64,
    /// Longest wait allowed, ms.
    pub timeout_ms: f64,
    /// Age of the oldest one, ms; `null` when it is empty.
    pub oldest_ms: Option<f64>,
}

/// Requests since the start, each counted once by how it ended. `total` = `in_flight` + `ok` + `failed` + `refused` + `cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Taken in.
    pub total: u64,
    /// Neither answered nor refused yet.
    pub in_flight: u64,
    /// Answered in full by an engine, whatever its status code said.
    pub ok: u64,
    /// Failed at every replica tried, or broke after the first byte.
    pub failed: u64,
    /// Refused by the router: a limit, no replica, a bad request.
    pub refused: u64,
    /// Left by their clients.
    pub cancelled: u64,
    /// Attempts repeated elsewhere; these are counted beside the outcomes, not among them.
    pub retried: u64,
}
