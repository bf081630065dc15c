//! A request as slices that lie inside each other: what its router does on one track, what the engine does on another.

use serde_json::{Map, Value, json};

use super::{AttemptSpan, DecisionSpan, RequestSpan};
use crate::wire::{Candidate, Decision, OutcomeKind, Verdict};

/// Something with a beginning and an end, µs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Slice {
    pub(super) name: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) args: Map<String, Value>,
    /// Which attempt it stands for, counted from 0: arrows go to and from it.
    pub(super) attempt: Option<usize>,
    pub(super) children: Vec<Slice>,
    pub(super) marks: Vec<Mark>,
}

/// Something without duration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) name: &'static str,
    pub(super) at: i64,
    pub(super) args: Map<String, Value>,
}

impl Slice {
    fn new(name: impl Into<String>, start: u64, end: u64) -> Self {
        Self { name: name.into(), start: micros(start), end: micros(end), ..Self::default() }
    }

    fn with(mut self, args: Value) -> Self {
        if let Value::Object(args) = args {
            self.args = args.into_iter().filter(|(_, value)| !value.is_null()).collect();
        }
        self
    }

    fn mark(&mut self, name: &'static str, at: u64, args: Value) {
        let args = if let Value::Object(args) = args { args } else { Map::new() };
        self.marks.push(Mark { name, at: micros(at), args });
    }

    /// Makes it lie inside of these bounds, and its children inside of itself one behind the other, whatever a dump says: a trace
    /// viewer drops what crosses a border.
    pub(super) fn fit(&mut self, low: i64, high: i64) {
        self.start = self.start.clamp(low, high);
        self.end = self.end.clamp(self.start, high);
        self.children.sort_by_key(|child| child.start);
        let mut from = self.start;
        for child in &mut self.children {
            child.fit(from, self.end);
            from = child.end;
        }
        for mark in &mut self.marks {
            mark.at = mark.at.clamp(self.start, self.end);
        }
    }

    /// Moves it in time.
    pub(super) fn shift(&mut self, by: i64) {
        self.start = self.start.saturating_add(by);
        self.end = self.end.saturating_add(by);
        self.children.iter_mut().for_each(|child| child.shift(by));
        self.marks.iter_mut().for_each(|mark| mark.at = mark.at.saturating_add(by));
    }
}

/// Microseconds of a dump; what no clock shows becomes the largest number.
pub(super) fn micros(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// The request as its client has it, as far as its first router sees.
pub(super) fn client(span: &RequestSpan) -> Slice {
    let mut slice = Slice::new("request", span.received_us, span.ended_us).with(json!({
        "trace": span.trace,
        "seen": "by its first router: the way from the client and back is not in it",
        "outcome": outcome(span.outcome),
        "status": span.status,
    }));
    slice.fit(i64::MIN / 4, i64::MAX / 4);
    slice
}

/// The request at a router.
pub(super) fn router(span: &RequestSpan) -> Slice {
    let mut slice = Slice::new("request", span.received_us, span.ended_us).with(json!({
        "request": span.request,
        "trace": span.trace,
        "parent": span.parent,
        "model": span.model,
        "body_bytes": span.body_bytes,
        "outcome": outcome(span.outcome),
        "status": span.status,
        "refusal": span.refusal,
        "prompt_tokens": span.prompt_tokens,
        "cached_tokens": span.cached_tokens,
        "completion_tokens": span.completion_tokens,
    }));
    if let Some(collected) = span.collected_us {
        slice.children.push(Slice::new("receive", span.received_us, collected));
        if let Some(extracted) = span.extracted_us {
            slice.children.push(Slice::new("extract", collected, extracted));
        }
    }
    for (index, decision) in span.decisions.iter().enumerate() {
        slice.children.push(decide(decision));
        if decision.decision.verdict == Verdict::Hold {
            let until = span.decisions.get(index + 1).map_or(span.ended_us, |next| next.at_us);
            slice.children.push(Slice::new("queue", decision.made_us, until));
        }
    }
    for (index, tried) in span.attempts.iter().enumerate() {
        slice.children.push(attempt(index, tried));
        if index > 0 {
            slice.mark("retry", tried.sent_us, json!({ "attempt": index + 1, "to": tried.replica }));
        }
    }
    end(&mut slice, span);
    slice.fit(i64::MIN / 4, i64::MAX / 4);
    slice
}

fn end(slice: &mut Slice, span: &RequestSpan) {
    let name = match span.outcome {
        OutcomeKind::Ok => "done",
        OutcomeKind::Failed => "failed",
        OutcomeKind::Refused => "refused",
        OutcomeKind::Cancelled => "cancel",
    };
    let args = span.refusal.as_ref().map_or_else(|| json!({}), |code| json!({ "code": code }));
    slice.mark(name, span.ended_us, args);
}

fn outcome(kind: OutcomeKind) -> Value {
    serde_json::to_value(kind).unwrap_or_default()
}

fn attempt(index: usize, tried: &AttemptSpan) -> Slice {
    let mut slice = Slice::new(format!("to {}", tried.replica), tried.sent_us, tried.ended_us).with(json!({
        "attempt": index + 1,
        "replica": tried.replica,
        "peer_request": tried.peer_request,
        "status": tried.status,
        "failure": tried.failure,
    }));
    slice.attempt = Some(index);
    let head = tried.headers_us.unwrap_or(tried.ended_us);
    slice.children.push(Slice::new("forward", tried.sent_us, head));
    if tried.headers_us.is_some() {
        slice.children.push(Slice::new("answer", head, tried.ended_us));
    }
    if let Some(at) = tried.first_token_us {
        slice.mark("first token", at, json!({}));
    }
    slice
}

/// The attempt at the engine, as far as its router sees: forward → first token is prefill, with the way there and back.
pub(super) fn engine(span: &RequestSpan, index: usize, tried: &AttemptSpan) -> Slice {
    let mut slice = Slice::new("request", tried.sent_us, tried.ended_us).with(json!({
        "request": span.request,
        "trace": span.trace,
        "attempt": index + 1,
        "status": tried.status,
        "failure": tried.failure,
        "prompt_tokens": span.prompt_tokens,
        "cached_tokens": span.cached_tokens,
        "completion_tokens": span.completion_tokens,
    }));
    slice.attempt = Some(index);
    if let Some(first) = tried.first_token_us {
        slice.children.push(Slice::new("prefill", tried.sent_us, first));
        slice.children.push(Slice::new("decode", first, tried.ended_us));
    }
    let start = micros(span.received_us);
    slice.fit(start, micros(span.ended_us).max(start));
    slice
}

/// A decision with everybody who was considered and every term.
fn decide(span: &DecisionSpan) -> Slice {
    let Decision { strategy, attempt, prompt_tokens, held_ms, unit, kept_local, predicted_ttft_ms, .. } =
        &span.decision;
    let candidates: Map<String, Value> =
        span.decision.candidates.iter().map(|candidate| (candidate.replica.clone(), terms(candidate))).collect();
    let excluded: Map<String, Value> =
        span.decision.excluded.iter().map(|it| (it.replica.clone(), it.reason.clone().into())).collect();
    let verdict = match &span.decision.verdict {
        Verdict::Dispatch { replica } => format!("to {replica}"),
        Verdict::Hold => "hold".to_owned(),
        Verdict::Reject { reason, .. } => format!("refuse: {reason}"),
    };
    Slice::new("decide", span.at_us, span.made_us).with(json!({
        "verdict": verdict,
        "strategy": strategy,
        "attempt": attempt,
        "prompt_tokens": prompt_tokens,
        "held_ms": held_ms,
        "unit": unit,
        "kept_local": kept_local,
        "predicted_ttft_ms": predicted_ttft_ms,
        "candidates": candidates,
        "excluded": excluded,
    }))
}

fn terms(candidate: &Candidate) -> Value {
    let terms: Map<String, Value> = candidate.terms.iter().map(|term| (term.name.clone(), term.value.into())).collect();
    json!({
        "score": candidate.score,
        "cached_tokens": candidate.cached_tokens,
        "uncached_tokens": candidate.uncached_tokens,
        "terms": terms,
    })
}
