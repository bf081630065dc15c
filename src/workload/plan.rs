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
    /// Key that clients send: unique in the plan, but for the requests of an open loop, each of which is a session here.
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
    /// One id per STARTED block of `block_size` tokens; equal ids give equal text. With `text`
    /// they are made from it and serve statistics only.
    pub blocks: Arc<[u64]>,
    /// Literal prompt text (prompt files); otherwise it is synthesised from `blocks`.
    pub text: Option<Arc<str>>,
}

impl Plan {
    /// Number of requests.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.sessions.iter().map(|session| session.steps.len()).sum()
    }

    /// Whether requests belong together, so that a session key says something.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        if self.sessions.iter().any(|session| session.steps.len() > 1) {
            return true;
        }
        let mut ids: Vec<&str> = self.sessions.iter().map(|session| &*session.id).collect();
        ids.sort_unstable();
        ids.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// All requests in plan order: by the earliest time at which each can be sent (start of its session and the pauses up to
    /// it, as if replies took no time), in a closed loop session by session.
    #[must_use]
    pub fn in_order(&self) -> Vec<Request<'_>> {
        let mut requests = Vec::with_capacity(self.requests());
        for (session, played) in self.sessions.iter().enumerate() {
            let mut earliest_ms = played.start_ms;
            for (place, step) in played.steps.iter().enumerate() {
                earliest_ms += step.think_ms;
                requests.push(Request { session, place, earliest_ms, step });
            }
        }
        if self.concurrency.is_none() {
            requests.sort_by(|a, b| a.earliest_ms.total_cmp(&b.earliest_ms));
        }
        requests
    }
}

/// One request of a plan and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request<'a> {
    /// Index into [`Plan::sessions`].
    pub session: usize,
    /// Index into [`Session::steps`].
    pub place: usize,
    /// Earliest time at which it can be sent, ms from the beginning of the run.
    pub earliest_ms: f64,
    /// The request.
    pub step: &'a Step,
}
