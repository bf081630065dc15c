//! What was decided and why: every candidate with every term, so that nothing is computed again for display.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::model::{ReplicaId, RequestId, Time};

/// Most terms any policy's score has.
pub const MAX_TERMS: usize = 8;

/// Unit of a term and of the score it adds to. Policies that predict a cost use milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Tokens (also "weighted uncached tokens" of `gorgo-v3`).
    Tokens,
    /// Requests.
    Requests,
    /// A rank without unit: ring position, hash weight, turn.
    Rank,
}

/// One summand of a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Name as in the policy's formula, e.g. `network`, `prefill`, `queue`.
    pub name: &'static str,
    /// Its value in the policy's unit, weight included.
    pub value: f64,
}

/// A replica that passed the filters, with what the policy thinks of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The replica.
    pub replica: ReplicaId,
    /// Its name at the time of the decision.
    pub name: Arc<str>,
    /// Prompt tokens that the router believes cached there.
    pub cached_tokens: u32,
    /// Prompt tokens that it would have to compute.
    pub uncached_tokens: u32,
    /// Sum of the terms; the smallest score wins.
    pub score: f64,
    /// The terms in the order of the formula.
    pub terms: ArrayVec<Term, MAX_TERMS>,
}

/// Why a replica was not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// Out of rotation because its health checks or requests fail.
    Unhealthy,
    /// Taken out by an operator.
    Draining,
    /// Does not serve the model.
    Model,
    /// The residency class forbids its region.
    Residency,
    /// At its limit of running requests or KV use.
    Capacity,
    /// Already tried for this request.
    Tried,
}

/// Why a request was refused. The gateway turns it into a status and an error `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No replica is registered.
    NoReplica,
    /// Replicas exist, none of them is healthy.
    NoneHealthy,
    /// No healthy replica serves the model.
    UnknownModel,
    /// The residency class leaves no replica.
    Residency,
    /// The router's queue is full.
    QueueFull,
    /// Waited in the router's queue for as long as allowed.
    QueueTimeout,
    /// Every replica that could serve it was tried and failed before its first byte.
    AllTried,
}

/// The answer to "where does it go?".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Send it to this replica now.
    Dispatch(ReplicaId),
    /// Keep it in the router's queue; an [`super::Effect`] will release it.
    Hold,
    /// Refuse it.
    Reject {
        /// The reason.
        reason: Refusal,
        /// When to come back, if a time can be named.
        retry_after_ms: Option<f64>,
    },
}

/// One decision with everything that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The request.
    pub request: RequestId,
    /// When it was made.
    pub at: Time,
    /// Name of the strategy that made it.
    pub strategy: &'static str,
    /// 1 for the first attempt; more after failures before the first byte.
    pub attempt: u32,
    /// Unit of scores and terms.
    pub unit: Unit,
    /// Prompt length used, tokens.
    pub prompt_tokens: u32,
    /// Time spent in the router's queue before this decision, ms.
    pub held_ms: f64,
    /// What to do.
    pub verdict: Verdict,
    /// Who was scored, in fleet order.
    pub candidates: Vec<Candidate>,
    /// Who was filtered, in fleet order, and why.
    pub excluded: Vec<(ReplicaId, Arc<str>, Excluded)>,
}
