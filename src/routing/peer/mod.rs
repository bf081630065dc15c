//! What agents know of each other: a report several times a second, worth less the older it is.
//!
//! One side makes a [`Report`] for each listener ([`crate::routing::Router::report`]), the other keeps a [`PeerBook`] per peer and asks it
//! for an estimate at the moment of a decision. How reports travel is none of the business of either.

mod book;
mod clocks;
mod totals;

pub use book::{BACKLOG_MEMORY_MS, COUNT_MEMORY_MS, PeerBook, UNKNOWN_AFTER_MS};
pub use totals::Totals;

/// How a node is doing, as told to one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Its engine is in rotation.
    pub serving: bool,
    /// It takes no new requests and finishes those that it has.
    pub draining: bool,
    /// Requests at its engine, whoever sent them.
    pub running: f64,
    /// Requests in its queue, whoever sent them.
    pub queued: f64,
    /// What it has of others' requests, those in its queue included. The listener's own are left out: it knows them better, and they
    /// count once only, however long news are under way.
    pub others: Totals,
    /// Predicted service time of those without a first token, ms; `None` = it does not predict.
    pub pending_ms: Option<f64>,
    /// Share of its engine's KV cache in use, 0..=1; `None` = unknown.
    pub kv_usage: Option<f64>,
    /// Tokens of KV in use; `None` = unknown.
    pub kv_used_tokens: Option<f64>,
    /// KV capacity, tokens; `None` = unknown.
    pub kv_tokens: Option<f64>,
    /// How often all that its engine had cached was lost.
    pub cache_generation: u64,
    /// What it has learned of its engine's speed; `None` = nothing.
    pub speed: Option<Speed>,
}

/// Time that an engine takes for a prefill: `service_ms + ms_per_token · uncached tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Fixed part, ms.
    pub service_ms: f64,
    /// Per uncached token, ms.
    pub ms_per_token: f64,
}
