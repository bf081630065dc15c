//! What happens at replicas, as a rule that learns sees it.

use std::sync::Arc;

use crate::model::RequestId;
use crate::routing::features::Features;
use crate::routing::fleet::Replica;
use crate::routing::router::Usage;

/// An event at a replica. Every request that is dispatched ends exactly once, as `Finished`, `Left` or `Lost`, unless its replica is
/// `Removed` before; with another strategy in force at its dispatch only its end may be seen.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Where, after the event.
    pub replica: &'a Replica,
    /// What.
    pub event: Event<'a>,
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A request goes there.
    Dispatched(Sent<'a>),
    /// Its first token came.
    FirstToken {
        /// Whose.
        request: RequestId,
    },
    /// It was answered in full.
    Finished {
        /// Which.
        request: RequestId,
        /// As far as the answer told.
        usage: Usage,
    },
    /// Its client or its router does not want it any more: nothing can be learned from it.
    Left {
        /// Which.
        request: RequestId,
    },
    /// It failed by the replica's fault.
    Lost {
        /// Which.
        request: RequestId,
    },
    /// Its replies say that the replica has lost all that it had cached: it was started anew, or flushed.
    Emptied,
    /// The replica is gone, and its requests are no longer seen.
    Removed,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Its identity.
    pub request: RequestId,
    /// What is known of it.
    pub features: &'a Arc<Features>,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Of these believed cached there.
    pub cached_tokens: u32,
    /// Round trip, ms.
    pub rtt_ms: f64,
    /// Time to first token as predicted, ms, by a rule that predicts one.
    pub ttft_ms: Option<f64>,
}
