//! The router's view of its replicas.

use std::sync::Arc;

use crate::model::Region;

/// What is configured of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSpec {
    /// Unique name.
    pub name: Arc<str>,
    /// Where it stands.
    pub region: Region,
    /// Models it serves; empty = any.
    pub models: Vec<Arc<str>>,
    /// Its limits.
    pub limits: Limits,
    /// Its configured rates.
    pub rates: Rates,
}

/// Limits of a replica; `None` = unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Most requests running at once.
    pub max_running: Option<u32>,
    /// KV cache capacity, tokens.
    pub kv_tokens: Option<u64>,
}

/// Rates of a replica that override the strategy's; `None` = the strategy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Prefill time per uncached token, ms.
    pub prefill_ms_per_token: Option<f64>,
    /// Queueing time per queued token, ms.
    pub queue_ms_per_token: Option<f64>,
}

/// Engine gauges as last read from its metrics; `None` = the engine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Requests in the running batch.
    pub running: Option<f64>,
    /// Requests waiting in the engine.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, 0..=1.
    pub kv_usage: Option<f64>,
    /// Tokens of KV in use.
    pub used_tokens: Option<f64>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<f64>,
}

/// Health of a replica, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not checked yet: eligible only while no other replica is known to be healthy.
    #[default]
    Unknown,
    /// In rotation.
    Healthy,
    /// Out of rotation.
    Unhealthy,
}
