//! One request on its way through the router, over all of its attempts.

use std::sync::Arc;

use super::features::Features;
use super::share::{Bill, Flow};
use crate::model::{ReplicaId, Time};

/// What stays the same or adds up from attempt to attempt.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) features: Arc<Features>,
    /// Whose it is.
    pub(super) flow: Flow,
    /// Order of arrival at this router.
    pub(super) turn: u64,
    /// 1 for the first attempt.
    pub(super) attempt: u32,
    /// Replicas that failed it before their first byte.
    pub(super) tried: Vec<ReplicaId>,
    /// Time spent in the router's queue so far, ms.
    pub(super) held_ms: f64,
}

impl Ticket {
    /// Would the filters treat this request as they treat the other?
    pub(super) fn same_filters(&self, other: &Self) -> bool {
        self.features.model == other.features.model
            && self.features.residency == other.features.residency
            && self.features.forwarded == other.features.forwarded
            && self.tried == other.tried
    }
}

/// An attempt at a replica, with what was predicted for it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) ticket: Ticket,
    pub(super) replica: ReplicaId,
    pub(super) dispatched: Time,
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    /// Time to first token as predicted, ms, if the strategy predicts one.
    pub(super) ttft_ms: Option<f64>,
    /// The belief about its cached tokens rests on a prompt that was itself still waiting for its first token, which the engine may
    /// not have computed yet: no evidence for or against the index.
    pub(super) unproven: bool,
    /// What its flow was charged for it.
    pub(super) bill: Bill,
    /// Was the replica already credited with answering?
    pub(super) answered: bool,
    /// When it is to be looked at next, without a first token.
    pub(super) look_at: Option<Time>,
    /// It is wanted back.
    pub(super) called: bool,
}
