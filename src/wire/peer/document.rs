//! What an agent tells in one document, to whoever asks: the round-trip probe, and all that an older agent knows to ask for.

use serde::{Deserialize, Serialize};

use crate::model::Region;

/// How an agent and its own engine are doing: [`crate::wire::paths::PEER`], on the port for requests, to its peers only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerState {
    /// The node's name.
    pub name: String,
    /// Where it stands.
    pub region: Region,
    /// Takes requests: its engine is in rotation and it does not drain. What it could only hand on does not count.
    pub serving: bool,
    /// Requests at its engine, whoever sent them.
    pub running: u64,
    /// Requests in its queue.
    pub queued: u64,
    /// Share of its engine's KV cache in use, 0..=1; `null` = unknown.
    pub kv_usage: Option<f64>,
    /// Its engine's KV capacity, tokens; `null` = unknown.
    pub kv_tokens: Option<f64>,
    /// Its clock when it told this, µs since its process began; `null` from versions that do not tell.
    #[serde(default)]
    pub clock_us: Option<u64>,
}
