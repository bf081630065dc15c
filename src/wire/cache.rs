//! `cache`: the router's picture of the engines' prefix caches.

use serde::{Deserialize, Serialize};

/// The prefix index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Bytes of canonical prompt per block.
    pub block_bytes: u64,
    /// One entry per replica, in order of registration.
    pub replicas: Vec<CacheReplica>,
}

/// What is believed of one replica's cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheReplica {
    /// The replica.
    pub name: String,
    /// Blocks held.
    pub blocks: u64,
    /// Most blocks held before the oldest leaf goes.
    pub capacity_blocks: u64,
    /// Nodes of its tree.
    pub nodes: u64,
    /// Longest path, blocks.
    pub depth: u64,
    /// Memory, estimated from the capacities of the containers, bytes.
    pub bytes: u64,
    /// Requests whose reply told its usage; the three figures below are sums over them.
    pub requests_with_usage: u64,
    /// Prompt tokens as the engine counted them.
    pub prompt_tokens: u64,
    /// Of these found in its cache, as the engine reported.
    pub cached_tokens: u64,
    /// Of these believed cached by this router when it decided.
    pub predicted_cached_tokens: u64,
}

impl CacheReplica {
    /// Share of prompt tokens found in the engine's cache, 0..=1; `None` before any usage came.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.prompt_tokens > 0).then(|| self.cached_tokens as f64 / self.prompt_tokens as f64)
    }

    /// Share of prompt tokens that the router believed cached, 0..=1; `None` before any usage came.
    #[must_use]
    pub fn predicted_hit_ratio(&self) -> Option<f64> {
        (self.prompt_tokens > 0).then(|| self.predicted_cached_tokens as f64 / self.prompt_tokens as f64)
    }
}

/// Body of `POST cache`: empties the router's index. The engines keep their caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearCache {
    /// Name of the one replica to forget; `null` or absent = all.
    #[serde(default)]
    pub replica: Option<String>,
}

/// What was emptied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Names of the replicas whose entries are gone.
    pub replicas: Vec<String>,
    /// Blocks forgotten in total.
    pub blocks: u64,
}
