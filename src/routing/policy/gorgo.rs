//! `gorgo`: the paper's third cost, in milliseconds.
//!
//! ```text
//! score = w_rtt · rtt_ms  +  prefill_ms_per_token · uncached  +  w_queue · queue_ms_per_token · queued        ms
//! ```
//!
//! uncached: prompt tokens not believed cached on the replica. queued: raw prompt tokens (cache hits not subtracted) of this
//! router's requests there, from dispatch to the end of decoding. Both rates may be set per replica.
//!
//! The rates default to 0.094 ms per token, the authors' cold prefill rate (Mistral-7B on 8 × A100), so that 1 ms of distance
//! weighs what it is: about 11 tokens of prefill. `w_queue` is 0.1, the authors' starting value; with the 0.5 that their tuner
//! ended at, a few tokens in flight outweigh a warm cache and affinity is lost under load.

use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

/// Prefill time per token that the paper assumes, ms.
pub(super) const PAPER_MS_PER_TOKEN: f64 = 0.094;

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo",
    help: "least predicted cost in ms: round trip, prefill of uncached tokens, queue",
    unit: Unit::Ms,
    parameters: &[
        Parameter { key: "w_rtt", default: 1.0, min: 0.0, max: 1000.0, help: "weight of the round trip" },
        Parameter {
            key: "prefill_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "prefill time per uncached token, ms; a replica's own rate overrides it",
        },
        Parameter {
            key: "queue_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "queueing time per queued token, ms; a replica's own rate overrides it",
        },
        Parameter { key: "w_queue", default: 0.1, min: 0.0, max: 100.0, help: "weight of the queue" },
    ],
    build: |parameters, _| Box::new(Gorgo::new(parameters)),
};

struct Gorgo {
    w_rtt: f64,
    prefill_ms_per_token: f64,
    queue_ms_per_token: f64,
    w_queue: f64,
}

impl Gorgo {
    fn new(parameters: &Parameters) -> Self {
        Self {
            w_rtt: parameters.get("w_rtt"),
            prefill_ms_per_token: parameters.get("prefill_ms_per_token"),
            queue_ms_per_token: parameters.get("queue_ms_per_token"),
            w_queue: parameters.get("w_queue"),
        }
    }
}

impl Policy for Gorgo {
    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let rates = candidate.replica.spec.rates;
        let prefill_rate = rates.prefill_ms_per_token.unwrap_or(self.prefill_ms_per_token);
        let queue_rate = rates.queue_ms_per_token.unwrap_or(self.queue_ms_per_token);
        let uncached = f64::from(candidate.uncached_tokens);
        let queued = candidate.load.prompt_tokens as f64;
        terms([
            ("network", self.w_rtt * candidate.rtt_ms),
            ("prefill", prefill_rate * uncached),
            ("queue", self.w_queue * queue_rate * queued),
        ])
    }
}
