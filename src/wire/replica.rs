//! `replicas`: who serves, and what the router knows about each.

use serde::{Deserialize, Serialize};

use crate::model::{Region, ReplicaId};

/// All replicas in order of registration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replicas {
    /// The replicas.
    pub replicas: Vec<Replica>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// The router's number for it, never given out twice.
    pub id: ReplicaId,
    /// Unique name.
    pub name: String,
    /// Base URL, e.g. `http://10.0.0.5:30000`.
    pub url: String,
    /// Where it stands.
    pub region: Region,
    /// Kind of engine: `sglang`, `vllm` or `emulator`; `agent` for a peer of an agent.
    pub engine: String,
    /// Models that it serves; empty = any.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether it is in rotation.
    pub health: Health,
    /// Why it is not healthy, if so.
    #[serde(default)]
    pub health_reason: Option<String>,
    /// Taken out by an operator: finishes what it has, gets nothing new.
    pub draining: bool,
    /// Network round trip; `null` before the first probe.
    pub rtt: Option<Rtt>,
    /// What its engine says; `null` before the first reading.
    pub gauges: Option<Gauges>,
    /// What this router has in flight there.
    pub ledger: Ledger,
    /// Its limits.
    pub limits: Limits,
    /// Its own rates, where they override the strategy's.
    pub rates: Rates,
    /// Requests since it was added.
    pub requests: ReplicaRequests,
}

/// Whether a replica is in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not checked yet.
    Unknown,
    /// In rotation.
    Healthy,
    /// Out of rotation.
    Unhealthy,
}

/// A round trip as the router's own probe sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rtt {
    /// Smoothed estimate, the figure that decisions use, ms.
    pub ms: f64,
    /// The last sample, ms.
    pub last_ms: f64,
    /// Age of the last sample, ms.
    pub age_ms: f64,
}

/// Engine gauges as last read; a field is `null` where the engine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Age of the reading, ms.
    pub age_ms: f64,
}

/// What one router has in flight at a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Requests sent whose first token has not come.
    pub prefilling: u32,
    /// Their prompt tokens that were believed not to be cached.
    pub uncached_tokens: u64,
    /// Requests whose tokens are coming.
    pub decoding: u32,
    /// Prompt tokens of everything unfinished, cached or not.
    pub queued_tokens: u64,
}

/// Limits; `null` = unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// KV capacity, tokens.
    #[serde(default)]
    pub kv_tokens: Option<u64>,
}

/// A replica's own rates; `null` = the strategy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Prefill time per uncached token, ms.
    #[serde(default)]
    pub prefill_ms_per_token: Option<f64>,
    /// Queueing time per queued token, ms.
    #[serde(default)]
    pub queue_ms_per_token: Option<f64>,
}

/// Attempts at one replica since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRequests {
    /// Sent there, repeats included.
    pub dispatched: u64,
    /// Answered in full.
    pub ok: u64,
    /// Failed before or after the first byte.
    pub failed: u64,
    /// Left by their clients.
    pub cancelled: u64,
    /// Called back by the router, because the replica was late and had not begun them.
    #[serde(default)]
    pub recalled: u64,
}

/// Body of `POST replicas`: exactly one change, e.g. `{"remove": {"name": "east"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ReplicaChange {
    /// Adds a replica or, where the name is known, changes its configuration.
    Add(AddReplica),
    /// Forgets a replica. What it is answering still ends in peace; it gets nothing new.
    Remove {
        /// Its name.
        name: String,
    },
    /// Takes a replica out of rotation or back in, and keeps it in the list.
    Drain {
        /// Its name.
        name: String,
        /// True = out.
        draining: bool,
    },
}

/// What stands for the kind of engine where a replica is another node's agent.
pub const AGENT: &str = "agent";

/// A replica to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddReplica {
    /// Unique name.
    pub name: String,
    /// Base URL.
    pub url: String,
    /// Where it stands.
    pub region: Region,
    /// Kind of engine: `sglang`, `vllm`, `emulator`, or [`AGENT`]; `null` = found out by asking it.
    #[serde(default)]
    pub engine: Option<String>,
    /// Models that it serves; empty = any.
    #[serde(default)]
    pub models: Vec<String>,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// Its own rates.
    #[serde(default)]
    pub rates: Rates,
}
