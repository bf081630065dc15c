//! The strategies: one file each, one line each in [`registry`].

pub mod observation;
pub mod parameters;
pub mod registry;

mod aibrix_prefix;
mod balance;
mod consistent_hash;
mod dynamo;
mod geo;
mod gorgo;
mod gorgo_online;
mod gorgo_proxy;
mod gorgo_v1;
mod gorgo_v3;
mod least_load;
mod least_request;
mod llm_d;
mod openings;
mod power_of_two;
mod preble;
mod predictive;
mod prefix_tree;
mod random;
mod round_robin;
mod session_affinity;
mod sglang_cache_aware;
mod skywalker;
#[cfg(test)]
mod testing;

pub use observation::{Event, Observation, Sent};
pub use parameters::{Parameter, Parameters};
pub(super) use predictive::ramp_ms;
pub use registry::{Entry, UnknownStrategy, find, names, on_agent, strategies};

use super::decision::{Candidate, Term, Terms};
use super::features::Features;
use super::filter::Gate;
use super::fleet::Replica;
use super::ledger::Load;
use super::peer::{Speed, Totals};
use crate::model::{ReplicaId, Time};

/// The request that a policy is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What is known of it.
    pub features: &'a Features,
    /// Its prompt length, tokens: exact or estimated.
    pub prompt_tokens: u32,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The time of the decision.
    pub now: Time,
    /// Prompt tokens of the other requests in the router's queue.
    pub queued_tokens: u64,
    /// How many those are.
    pub queued_requests: usize,
    /// Limit of requests in flight per replica as set by people; it overrides the rule's own.
    pub max_concurrent: Option<u32>,
    /// The router has no peers: nobody else sends to its replicas.
    pub central: bool,
}

/// A replica that passed the filters, as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Configuration, gauges and health.
    pub replica: &'a Replica,
    /// What this router has in flight there.
    pub load: &'a Load,
    /// What others have in flight there, if it is a peer: as it told, drawn back to its mean, or as assumed where it is silent.
    pub others: Totals,
    /// Round trip, ms: the estimate, or what is assumed without one ([`super::fleet::Fleet::assumed_rtt_ms`]).
    pub rtt_ms: f64,
    /// Prompt tokens believed cached there.
    pub cached_tokens: u32,
    /// The rest of the prompt, tokens.
    pub uncached_tokens: u32,
}

impl View<'_> {
    /// All that is in flight there, whoever sent it. An engine's is what this router sent.
    #[must_use]
    pub fn in_flight(&self) -> f64 {
        self.load.in_flight() as f64 + self.others.in_flight()
    }

    /// Of these without a first token.
    #[must_use]
    pub fn pending(&self) -> f64 {
        self.load.pending.len() as f64 + self.others.pending
    }

    /// Prompt tokens that are expected to be computed there, of requests without a first token.
    #[must_use]
    pub fn uncached_in_flight(&self) -> f64 {
        self.load.uncached_tokens as f64 + self.others.uncached_tokens
    }

    /// Prompt tokens of all that is in flight there.
    #[must_use]
    pub fn prompt_tokens(&self) -> f64 {
        self.load.prompt_tokens as f64 + self.others.prompt_tokens
    }

    /// Output tokens that are expected of all that is in flight there, counted until it ends.
    #[must_use]
    pub fn expected_output(&self) -> f64 {
        let own = self.load.held_tokens.saturating_sub(self.load.prompt_tokens) as f64;
        own + (self.others.held_tokens - self.others.prompt_tokens).max(0.0)
    }

    /// Requests there without response headers.
    #[must_use]
    pub fn unanswered(&self) -> f64 {
        f64::from(self.load.unanswered) + self.others.unanswered
    }

    /// Prompt tokens of those.
    #[must_use]
    pub fn unanswered_tokens(&self) -> f64 {
        self.load.unanswered_tokens as f64 + self.others.unanswered_tokens
    }
}

/// What a rule makes of its candidates, by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it there.
    Best(usize),
    /// Keep it at this engine of our own because it has room; nothing was compared.
    Local(usize),
    /// Keep it in the router's queue although somebody could take it.
    Hold,
}

/// A routing rule: gives every candidate a score of named terms; the smallest wins.
///
/// Filters before it and ties after it are not its business. It sees each dispatch exactly once in `prepare`, so that is where a
/// rule with a memory (a turn, a generator) moves on.
pub trait Policy: Send {
    /// Looks at all candidates (never none) before they are scored one by one.
    fn prepare(&mut self, _query: &Query<'_>, _candidates: &[View<'_>]) {}

    /// The terms of one candidate, in the order of the formula.
    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms;

    /// What a candidate's score is at the least, much quicker to get than the score: of many candidates, those above the best score are not
    /// scored. Only for a rule that chooses the smallest score. `None`: all are scored.
    fn at_least(&self, _query: &Query<'_>, _candidate: &View<'_>) -> Option<f64> {
        None
    }

    /// The capacity gate that is part of the rule, if it has one.
    fn gate(&self) -> Option<Gate> {
        None
    }

    /// Does the rule ask [`Self::choose`] who has room, instead of having those at their gate left out before they are scored?
    fn keeps_local(&self) -> bool {
        false
    }

    /// What to do with the scored candidates (never none), of which `best` has the smallest score.
    fn choose(&self, _query: &Query<'_>, _views: &[View<'_>], _candidates: &[Candidate], best: usize) -> Choice {
        Choice::Best(best)
    }

    /// Time to first token that the terms of a candidate foresee, ms. `None`: the score itself, if it is in ms.
    fn ttft_ms(&self, _query: &Query<'_>, _candidate: &View<'_>) -> Option<f64> {
        None
    }

    /// Are the times that it foresees to be believed, as far as it has seen what came of them?
    fn foresees(&self) -> bool {
        true
    }

    /// Does the rule decide anew on what waits in the router's queue, after every event?
    fn reconsiders(&self) -> bool {
        self.keeps_local()
    }

    /// Does what waits go shortest first, with age, instead of first come first served?
    fn shortest_first(&self) -> bool {
        false
    }

    /// How long until a candidate takes more, ms; 0 = it has room. `None` where the rule does not hold requests back by their wait.
    fn room_in_ms(&self, _candidate: &Candidate) -> Option<f64> {
        None
    }

    /// How long a request for which this time to first token was predicted may go without one before its replica counts as late, ms from its
    /// dispatch. `None`: for ever.
    fn patience_ms(&self, _predicted_ttft_ms: f64) -> Option<f64> {
        None
    }

    /// Time to first token at a candidate if nothing of the prompt is cached there, ms, for a rule with patience.
    fn cold_ttft_ms(&self, _query: &Query<'_>, _candidate: &View<'_>) -> Option<f64> {
        None
    }

    /// The speed that was learned of a replica, once it is more than a guess.
    fn speed(&self, _replica: ReplicaId) -> Option<Speed> {
        None
    }

    /// KV tokens that this router's requests take at a replica, what they share counted once, if the rule counts so.
    fn kv_tokens(&self, _replica: ReplicaId) -> Option<f64> {
        None
    }

    /// Weights that the rule moves by itself, as they are now, for the decision's record.
    fn moved(&self) -> Terms {
        Terms::new()
    }

    /// Something happened at a replica. Every rule in force sees every event, for the requests that it did not decide on, too.
    fn observe(&mut self, _now: Time, _observation: &Observation<'_>) {}
}

/// Terms from names and values.
fn terms<const N: usize>(terms: [(&'static str, f64); N]) -> Terms {
    terms.into_iter().map(|(name, value)| Term { name, value }).collect()
}
