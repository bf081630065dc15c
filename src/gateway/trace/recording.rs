//! One request as it is recorded: stamps and decisions as they are, turned into a document at the end.

use std::sync::Arc;

use super::{Context, Tracer, kind};
use crate::gateway::explain;
use crate::gateway::journal::Ended;
use crate::gateway::reject::Rejection;
use crate::gateway::replica::Replica;
use crate::model::{RequestId, Time};
use crate::routing::{Decision, Features, ReplicaKind, Verdict};
use crate::wire::OutcomeKind;
use crate::wire::span::{AttemptSpan, DecisionSpan, RequestSpan};

/// Most decisions and attempts of one request that are recorded; a request that is held again and again makes no more of them.
const MOST: usize = 64;

/// A request that is being recorded. Dropped without an end, it is not written down.
pub(in crate::gateway) struct Recording {
    tracer: Arc<Tracer>,
    run: u64,
    request: RequestId,
    context: Option<Context>,
    model: Option<Arc<str>>,
    received: Time,
    collected: Option<(Time, usize)>,
    extracted: Option<Time>,
    decisions: Vec<(Time, Time, Arc<Decision>)>,
    attempts: Vec<Attempt>,
    ended: bool,
}

struct Attempt {
    replica: Arc<Replica>,
    peer_request: Option<RequestId>,
    sent: Time,
    headers: Option<(Time, u16)>,
    first_token: Option<Time>,
    ended: Option<Time>,
    failure: Option<String>,
}

impl Recording {
    pub(super) fn new(tracer: Arc<Tracer>, run: u64, request: RequestId, received: Time) -> Self {
        Self {
            tracer,
            run,
            request,
            context: None,
            model: None,
            received,
            collected: None,
            extracted: None,
            decisions: Vec::new(),
            attempts: Vec::new(),
            ended: false,
        }
    }

    /// Its body is complete.
    pub(in crate::gateway) fn collected(&mut self, now: Time, bytes: usize) {
        self.collected = Some((now, bytes));
    }

    /// It has been read; `context` is what a peer told of its way.
    pub(in crate::gateway) fn extracted(&mut self, now: Time, features: &Features, context: Option<Context>) {
        self.extracted = Some(now);
        self.model.clone_from(&features.model);
        self.context = context;
    }

    /// A decision was made between these times.
    pub(in crate::gateway) fn decided(&mut self, began: Time, made: Time, decision: &Arc<Decision>) {
        let known = self.decisions.last().is_some_and(|(_, _, last)| Arc::ptr_eq(last, decision));
        if !known && self.decisions.len() < MOST {
            self.decisions.push((began, made, decision.clone()));
        }
    }

    /// It goes to a replica, as this decision says.
    pub(in crate::gateway) fn sent(&mut self, now: Time, decision: &Arc<Decision>, replica: &Arc<Replica>) {
        self.decided(decision.at, decision.at, decision);
        if self.attempts.len() < MOST {
            self.attempts.push(Attempt {
                replica: replica.clone(),
                peer_request: None,
                sent: now,
                headers: None,
                first_token: None,
                ended: None,
                failure: None,
            });
        }
    }

    /// The head of an answer came, which may have its own name for the request.
    pub(in crate::gateway) fn headers(&mut self, now: Time, status: u16, peer_request: Option<RequestId>) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.headers.get_or_insert((now, status));
            attempt.peer_request = attempt.peer_request.or(peer_request);
        }
    }

    /// The first token came.
    pub(in crate::gateway) fn first_token(&mut self, now: Time) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.first_token = Some(now);
        }
    }

    /// The attempt failed.
    pub(in crate::gateway) fn failed(&mut self, now: Time, failure: String) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended = Some(now);
            attempt.failure = Some(failure);
        }
    }

    /// It has ended.
    pub(in crate::gateway) fn finish(mut self, now: Time, outcome: OutcomeKind, ended: &Ended) {
        let refusal = self.decisions.last().and_then(|(_, _, decision)| match decision.verdict {
            Verdict::Reject { reason, .. } => Some(reason.as_str().to_owned()),
            Verdict::Dispatch(_) | Verdict::Hold => None,
        });
        let span = self.span(now, outcome, ended, refusal);
        self.ended = true;
        self.tracer.ended(self.run, Some(span));
    }

    /// It was refused by us, before the router saw it.
    pub(super) fn refused(mut self, now: Time, rejection: &Rejection) {
        let status = rejection.status.as_u16();
        let ended = Ended { status: Some(status), ..Ended::default() };
        let span = self.span(now, kind(status), &ended, Some(rejection.code.to_owned()));
        self.ended = true;
        self.tracer.ended(self.run, Some(span));
    }

    fn span(&self, now: Time, outcome: OutcomeKind, ended: &Ended, refusal: Option<String>) -> RequestSpan {
        let decisions = self.decisions.iter().map(|(began, made, decision)| DecisionSpan {
            at_us: began.micros(),
            made_us: made.micros(),
            decision: explain::decision(decision, 0.0),
        });
        RequestSpan {
            request: self.request.to_string(),
            trace: self.context.map_or(self.request, |context| context.trace).to_string(),
            parent: self.context.map(|context| context.parent.to_string()),
            model: self.model.as_deref().map(str::to_owned),
            received_us: self.received.micros(),
            collected_us: self.collected.map(|(at, _)| at.micros()),
            body_bytes: self.collected.map(|(_, bytes)| bytes as u64),
            extracted_us: self.extracted.map(Time::micros),
            decisions: decisions.collect(),
            attempts: self.attempts.iter().map(|attempt| attempt.span(now)).collect(),
            ended_us: now.micros(),
            outcome,
            status: ended.status,
            refusal,
            prompt_tokens: ended.usage.prompt_tokens,
            cached_tokens: ended.usage.cached_tokens,
            completion_tokens: ended.usage.completion_tokens,
        }
    }
}

impl Attempt {
    fn span(&self, now: Time) -> AttemptSpan {
        AttemptSpan {
            replica: self.replica.name.to_string(),
            peer: self.replica.config.kind == ReplicaKind::Peer,
            peer_request: self.peer_request.map(|request| request.to_string()),
            sent_us: self.sent.micros(),
            headers_us: self.headers.map(|(at, _)| at.micros()),
            status: self.headers.map(|(_, status)| status),
            first_token_us: self.first_token.map(Time::micros),
            ended_us: self.ended.unwrap_or(now).micros(),
            failure: self.failure.clone(),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            self.tracer.ended(self.run, None);
        }
    }
}
