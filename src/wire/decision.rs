//! `decisions`: why a request went where it went. Every candidate with every term, as it was when the decision was made.

use serde::{Deserialize, Serialize};

/// The last requests, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// Most requests that the ring keeps.
    pub capacity: u32,
    /// The requests.
    pub decisions: Vec<DecisionSummary>,
}

/// One request in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionSummary {
    /// The request, as in `x-gorgo-request-id`.
    pub request: String,
    /// Time since its last decision, ms.
    pub age_ms: f64,
    /// The strategy that decided.
    pub strategy: String,
    /// The last verdict.
    pub verdict: Verdict,
    /// Decisions made for it: more than 1 after it was held or repeated.
    pub attempts: u32,
    /// Prompt length used, tokens.
    pub prompt_tokens: u32,
    /// Of these believed cached at the chosen replica; `null` if none was chosen.
    pub cached_tokens: Option<u32>,
    /// TTFT foreseen by the last decision, ms; `null` where the score is not a time.
    pub predicted_ttft_ms: Option<f64>,
    /// How it ended; `null` while it runs or waits.
    pub outcome: Option<Finished>,
}

/// Everything about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The request, as in `x-gorgo-request-id`.
    pub request: String,
    /// The model that was asked for, if the body named one.
    pub model: Option<String>,
    /// Where its client is, degrees north and east as `48.9,2.4`, if that is known.
    #[serde(default)]
    pub client: Option<String>,
    /// Its decisions, first to last.
    pub decisions: Vec<Decision>,
    /// What came of its attempts that failed or went to a peer, first to last.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// How it ended; `null` while it runs or waits.
    pub outcome: Option<Finished>,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// As in [`Decision::attempt`].
    pub attempt: u32,
    /// The request's identity at the peer that it went to: ask there why it went on as it did.
    pub peer_request: Option<String>,
    /// Why it failed or was called back; `null` if it was not.
    pub failure: Option<String>,
    /// Decision → failure, ms.
    pub failed_after_ms: Option<f64>,
    /// It was called back: its replica was late and had not begun it.
    #[serde(default)]
    pub recalled: bool,
}

/// One decision. Also the compact JSON of the response header `x-gorgo-decision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The request.
    pub request: String,
    /// Age when this document was made, ms (0 in the header).
    pub age_ms: f64,
    /// The strategy that decided.
    pub strategy: String,
    /// 1 for the first attempt; more after failures before the first byte.
    pub attempt: u32,
    /// Prompt length used, tokens.
    pub prompt_tokens: u32,
    /// Time spent in the router's queue before, ms.
    pub held_ms: f64,
    /// Unit of scores and terms: `ms`, `tokens`, `requests`, `km` or `rank`.
    pub unit: String,
    /// What was decided.
    pub verdict: Verdict,
    /// The target is an agent's own engine, taken because it had room, whatever the scores say.
    #[serde(default)]
    pub kept_local: bool,
    /// Weights in force that nobody set by hand: those of a rule that moves its own, and those that `proxy tune` tries or found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Term>,
    /// TTFT foreseen at the chosen replica, ms; `null` where the score is not a time.
    pub predicted_ttft_ms: Option<f64>,
    /// How many more could have had it, in a large fleet, but cost more at the least than the chosen one does: they were not scored.
    #[serde(default, skip_serializing_if = "none")]
    pub pruned: usize,
    /// How it stood against the limit of its class; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// Who was scored, in fleet order; the smallest score wins.
    pub candidates: Vec<Candidate>,
    /// Who was filtered before, in fleet order.
    pub excluded: Vec<Excluded>,
}

/// A request against the limit of its class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deadline {
    /// The class; `null` = none.
    pub class: Option<String>,
    /// Longest time to first token that it may have, ms.
    pub limit_ms: f64,
    /// How long it had waited in the router, ms.
    pub waited_ms: f64,
    /// Time to first token from then on, as predicted, ms; `null` = nothing was predicted.
    pub ttft_ms: Option<f64>,
    /// How much too late that is, ms; below 0 it is in time.
    pub late_by_ms: f64,
}

fn none(count: &usize) -> bool {
    *count == 0
}

impl Decision {
    /// The candidate that the request was sent to.
    #[must_use]
    pub fn chosen(&self) -> Option<&Candidate> {
        let Verdict::Dispatch { replica } = &self.verdict else { return None };
        self.candidates.iter().find(|candidate| candidate.replica == *replica)
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Verdict {
    /// Sent to a replica.
    Dispatch {
        /// Its name.
        replica: String,
    },
    /// Kept in the router's queue.
    Hold,
    /// Refused.
    Reject {
        /// Stable code, the same as in the error object.
        reason: String,
        /// When to come back, ms, if a time can be named.
        #[serde(default)]
        retry_after_ms: Option<f64>,
    },
}

/// A replica that passed the filters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub replica: String,
    /// Prompt tokens believed cached there.
    pub cached_tokens: u32,
    /// Prompt tokens that it would have to compute.
    pub uncached_tokens: u32,
    /// Sum of the terms.
    pub score: f64,
    /// The terms in the order of the strategy's formula.
    pub terms: Vec<Term>,
}

/// One summand of a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Name as in the formula, e.g. `network`.
    pub name: String,
    /// Value in the decision's unit, weight included.
    pub value: f64,
}

/// A replica that was not a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Its name.
    pub replica: String,
    /// `unhealthy`, `draining`, `hop`, `model`, `residency`, `capacity` or `tried`.
    pub reason: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// In which way.
    pub kind: OutcomeKind,
    /// Replica that answered, if one did.
    pub replica: Option<String>,
    /// HTTP status that the client got; `null` if it left before.
    pub status: Option<u16>,
    /// Taken in → first byte with content, ms.
    pub ttft_ms: Option<f64>,
    /// Decision that sent it → first byte with content, ms: what `predicted_ttft_ms` of a decision foresees.
    #[serde(default)]
    pub dispatch_ttft_ms: Option<f64>,
    /// Taken in → last byte, ms.
    pub e2e_ms: f64,
    /// Prompt tokens as the engine counted them.
    pub prompt_tokens: Option<u32>,
    /// Of these found in its cache.
    pub cached_tokens: Option<u32>,
    /// Tokens generated.
    pub completion_tokens: Option<u32>,
}

/// The ways in which a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// Answered in full, with whatever status below 500: an engine that refuses a request (4xx) has done its part.
    Ok,
    /// Failed everywhere, broke after its first byte, or was answered with an engine's own error (5xx).
    Failed,
    /// Refused by the router, at once or later.
    Refused,
    /// Left by its client.
    Cancelled,
}
