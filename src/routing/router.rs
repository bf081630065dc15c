//! The router: one owner of the fleet view, the prefix index, the queue and the strategy.

use std::sync::Arc;

use super::decision::{Decision, Refusal};
use super::features::Features;
use super::fleet::{Gauges, ReplicaSpec};
use crate::model::{ReplicaId, RequestId, Time};

/// What a router is told at its start and may be told anew at run time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registered strategy name.
    pub strategy: String,
    /// Weights and rates of the strategy by their documented keys (`w_rtt`, `w_queue`, …); unknown keys are an error.
    pub parameters: Vec<(String, f64)>,
    /// Hold requests in the router while every replica has this many running; `None` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// Most requests in the router's queue.
    pub queue_limit: usize,
    /// Longest wait in the router's queue, ms.
    pub queue_timeout_ms: f64,
    /// Seed of the random strategies.
    pub seed: u64,
}

/// Usage as the engine reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt length, tokens.
    pub prompt_tokens: Option<u32>,
    /// Of these found in the engine's cache.
    pub cached_tokens: Option<u32>,
    /// Output length, tokens.
    pub completion_tokens: Option<u32>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The whole answer was delivered.
    Done(Usage),
    /// The client went away; the upstream request was cancelled.
    Cancelled,
    /// It failed after the first byte: never repeated.
    Broken,
}

/// What the router wants done after an event, besides the answer to it.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A held request may go (verdict `Dispatch`) or is refused (verdict `Reject`).
    Released(Arc<Decision>),
}

/// The routing engine of one router.
pub struct Router {}

#[expect(unused_variables, missing_docs, reason = "signatures first")]
impl Router {
    /// Errors name the unknown strategy or parameter and list the known ones.
    pub fn new(settings: Settings) -> Result<Self, super::policy::UnknownStrategy> {
        unimplemented!()
    }
    pub fn set_strategy(
        &mut self,
        now: Time,
        strategy: &str,
        parameters: &[(String, f64)],
    ) -> Result<Vec<Effect>, super::policy::UnknownStrategy> {
        unimplemented!()
    }
    pub fn set_max_concurrent(&mut self, now: Time, limit: Option<u32>) -> Vec<Effect> {
        unimplemented!()
    }
    /// Adds a replica or, where the name is known, changes its configuration.
    pub fn add_replica(&mut self, now: Time, spec: ReplicaSpec) -> (ReplicaId, Vec<Effect>) {
        unimplemented!()
    }
    /// Forgets a replica. Its requests in flight end with whatever the gateway reports for them.
    pub fn remove_replica(&mut self, now: Time, replica: ReplicaId) -> Vec<Effect> {
        unimplemented!()
    }
    pub fn set_draining(&mut self, now: Time, replica: ReplicaId, draining: bool) -> Vec<Effect> {
        unimplemented!()
    }
    /// A request arrives; the answer is final unless it is `Hold`.
    pub fn arrive(&mut self, now: Time, request: RequestId, features: Arc<Features>) -> Arc<Decision> {
        unimplemented!()
    }
    /// Response headers (2xx) came back.
    pub fn headers(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        unimplemented!()
    }
    /// First body byte with content came back.
    pub fn first_token(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        unimplemented!()
    }
    /// The attempt ended, with usage if the reply carried it.
    pub fn finish(&mut self, now: Time, request: RequestId, outcome: Outcome) -> Vec<Effect> {
        unimplemented!()
    }
    /// The attempt failed before its first byte: where next? `Reject(AllTried)` ends it.
    pub fn failed(&mut self, now: Time, request: RequestId) -> (Arc<Decision>, Vec<Effect>) {
        unimplemented!()
    }
    /// A held request's client went away.
    pub fn withdraw(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        unimplemented!()
    }
    /// A probe measured a round trip, ms.
    pub fn rtt(&mut self, now: Time, replica: ReplicaId, rtt_ms: f64) {
        unimplemented!()
    }
    /// Engine gauges were read.
    pub fn gauges(&mut self, now: Time, replica: ReplicaId, gauges: Gauges) -> Vec<Effect> {
        unimplemented!()
    }
    /// A health check or a request succeeded or failed.
    pub fn health(&mut self, now: Time, replica: ReplicaId, ok: bool) -> Vec<Effect> {
        unimplemented!()
    }
    /// When [`Self::tick`] has to be called at the latest (queue ages), if ever.
    pub fn deadline(&self) -> Option<Time> {
        unimplemented!()
    }
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        unimplemented!()
    }
    /// Empties the prefix index of one replica, or of all.
    pub fn clear_cache(&mut self, replica: Option<ReplicaId>) {
        unimplemented!()
    }
    /// Reasons why a decision now could not dispatch at all, for `/health`.
    pub fn can_serve(&self) -> Result<(), Refusal> {
        unimplemented!()
    }
}
