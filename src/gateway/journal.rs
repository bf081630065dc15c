//! The last decisions with what came of them: bounded, in memory, for `explain`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::geo::Coordinates;
use crate::model::{RequestId, Time};
use crate::routing::{Decision, Features, Usage};
use crate::wire::OutcomeKind;

/// Most decisions of one request: its attempts are few, but it may be held before each of them.
const MAX_DECISIONS: usize = 16;

/// How a request ended, as far as its ticket knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ended {
    /// Status that the client got.
    pub(super) status: Option<u16>,
    /// Taken in → first token, ms.
    pub(super) ttft_ms: Option<f64>,
    /// Decision that sent it → first token, ms: what a decision foresees.
    pub(super) dispatch_ttft_ms: Option<f64>,
    /// Taken in → end, ms.
    pub(super) e2e_ms: f64,
    /// What the engine counted.
    pub(super) usage: Usage,
}

/// What a decision foresees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Foreseen {
    /// TTFT at the chosen replica, ms, where the score is a time.
    pub(super) ttft_ms: Option<f64>,
    /// Prompt tokens believed cached at the chosen replica.
    pub(super) cached_tokens: Option<u32>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The model that was asked for.
    pub(super) model: Option<Arc<str>>,
    /// Where its client is.
    pub(super) place: Option<Coordinates>,
    /// Its decisions, first to last.
    pub(super) decisions: Vec<Arc<Decision>>,
    /// What came of its attempts that failed, or went to a peer, in order.
    pub(super) attempts: Vec<Tried>,
    /// How it ended, and the replica that answered.
    pub(super) outcome: Option<(OutcomeKind, Option<Arc<str>>, Ended)>,
}

/// What is told of an attempt besides the decision that sent it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried {
    /// As in [`Decision::attempt`].
    pub(super) attempt: u32,
    /// The request's identity at the peer that it went to.
    pub(super) request_there: Option<RequestId>,
    /// Why and when it failed or was called back, if it was.
    pub(super) failure: Option<(String, Time)>,
    /// It was called back.
    pub(super) recalled: bool,
}

/// The ring of entries.
#[derive(Debug)]
pub(super) struct Journal {
    capacity: usize,
    entries: BTreeMap<RequestId, Entry>,
    order: VecDeque<RequestId>,
}

impl Journal {
    /// Room for `capacity` requests.
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Most requests kept.
    #[must_use]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A request with its first decision.
    pub(super) fn open(&mut self, request: RequestId, features: &Features, decision: Arc<Decision>) {
        if self.capacity == 0 {
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(request);
        let (model, place) = (features.model.clone(), features.place);
        let entry = Entry { model, place, decisions: vec![decision], attempts: Vec::new(), outcome: None };
        self.entries.insert(request, entry);
    }

    /// A further decision.
    pub(super) fn decided(&mut self, request: RequestId, decision: Arc<Decision>) {
        if let Some(entry) = self.entries.get_mut(&request)
            && entry.decisions.len() < MAX_DECISIONS
        {
            entry.decisions.push(decision);
        }
    }

    /// The peer that it was sent to last has this name for it.
    pub(super) fn named(&mut self, request: RequestId, there: RequestId) {
        if let Some(tried) = self.tried(request) {
            tried.request_there = Some(there);
        }
    }

    /// Why its last attempt failed.
    pub(super) fn failed(&mut self, request: RequestId, at: Time, why: String) {
        if let Some(tried) = self.tried(request) {
            tried.failure = Some((why, at));
        }
    }

    /// Why its last attempt was called back.
    pub(super) fn recalled(&mut self, request: RequestId, at: Time, why: String) {
        if let Some(tried) = self.tried(request) {
            (tried.failure, tried.recalled) = (Some((why, at)), true);
        }
    }

    /// The attempt that its last decision began.
    fn tried(&mut self, request: RequestId) -> Option<&mut Tried> {
        let entry = self.entries.get_mut(&request)?;
        let attempt = entry.decisions.last()?.attempt;
        if entry.attempts.last().is_none_or(|last| last.attempt != attempt) && entry.attempts.len() < MAX_DECISIONS {
            entry.attempts.push(Tried { attempt, ..Tried::default() });
        }
        entry.attempts.last_mut().filter(|last| last.attempt == attempt)
    }

    /// The end, and the replica that had it then.
    pub(super) fn close(&mut self, request: RequestId, kind: OutcomeKind, replica: Option<Arc<str>>, ended: &Ended) {
        if let Some(entry) = self.entries.get_mut(&request) {
            entry.outcome = Some((kind, replica, *ended));
        }
    }

    /// One request.
    #[must_use]
    pub(super) fn get(&self, request: RequestId) -> Option<&Entry> {
        self.entries.get(&request)
    }

    /// The last requests, newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = (RequestId, &Entry)> {
        self.order.iter().rev().filter_map(|request| Some((*request, self.entries.get(request)?)))
    }
}

/// What a decision foresees at the replica that it chose.
#[must_use]
pub(super) fn foreseen(decision: &Decision) -> Foreseen {
    let Some(chosen) = decision.chosen() else { return Foreseen::default() };
    Foreseen { ttft_ms: decision.predicted_ttft_ms(), cached_tokens: Some(chosen.cached_tokens) }
}
