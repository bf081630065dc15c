//! What a load generator plays: sessions with start times, each a chain of requests.

use std::sync::Arc;

/// A whole run, ready to play. Made once per run from trace, arrival process and seed; the same for every strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Tokens per block id.
    pub block_size: u32,
    /// Sessions in order of their starts.
    pub sessions: Vec<Session>,
    /// `None`: each session starts at its `start_ms`. `Some(n)`: closed loop, n sessions at once, each followed by the next.
    pub concurrency: Option<u32>,
}

/// A chain of requests: each waits for the reply before, then for its think time.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Key that clients send, unique in the plan.
    pub id: Arc<str>,
    /// Start from the beginning of the run, ms.
    pub start_ms: f64,
    /// The requests in order.
    pub steps: Vec<Step>,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Pause between the end of the reply before (or the session's start) and this request, ms.
    pub think_ms: f64,
    /// Prompt length, tokens.
    pub input_tokens: u32,
    /// Output length, tokens (exact through `max_tokens` and `ignore_eos`).
    pub output_tokens: u32,
    /// One id per STARTED block of `block_size` tokens; equal ids give equal text. Unused when `text` is given.
    pub blocks: Arc<[u64]>,
    /// Literal prompt text (prompt files); otherwise it is synthesised from `blocks`.
    pub text: Option<Arc<str>>,
}
