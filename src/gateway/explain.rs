//! A decision as the documents that people and programs read: the admin API's, and the header `x-gorgo-decision`.

use http::HeaderValue;

use super::journal::{Entry, Foreseen, Tried, foreseen};
use crate::model::{RequestId, Time};
use crate::routing;
use crate::wire;

/// Largest `x-gorgo-decision`, bytes. Common clients and proxies take heads of 8 KiB in all.
const MAX_HEADER_BYTES: usize = 4096;

/// The document of one decision.
#[must_use]
pub(super) fn decision(of: &routing::Decision, age_ms: f64) -> wire::Decision {
    wire::Decision {
        request: of.request.to_string(),
        age_ms,
        strategy: of.strategy.to_owned(),
        attempt: of.attempt,
        prompt_tokens: of.prompt_tokens,
        held_ms: of.held_ms,
        unit: of.unit.as_str().to_owned(),
        verdict: verdict(of),
        kept_local: of.kept_local,
        weights: of.weights.iter().map(term).collect(),
        predicted_ttft_ms: foreseen(of).ttft_ms,
        pruned: of.pruned,
        deadline: of.deadline.as_ref().map(deadline),
        candidates: of.candidates.iter().map(candidate).collect(),
        excluded: of.excluded.iter().map(|(_, name, reason)| excluded(name, *reason)).collect(),
    }
}

fn deadline(of: &routing::Deadline) -> wire::Deadline {
    wire::Deadline {
        class: of.class.as_deref().map(str::to_owned),
        limit_ms: of.limit_ms,
        waited_ms: of.waited_ms,
        ttft_ms: of.ttft_ms,
        late_by_ms: of.late_by_ms(),
    }
}

fn verdict(of: &routing::Decision) -> wire::Verdict {
    match of.verdict {
        routing::Verdict::Dispatch(_) => {
            let replica = of.chosen().map(|chosen| chosen.name.to_string()).unwrap_or_default();
            wire::Verdict::Dispatch { replica }
        }
        routing::Verdict::Hold => wire::Verdict::Hold,
        routing::Verdict::Reject { reason, retry_after_ms } => {
            wire::Verdict::Reject { reason: reason.as_str().to_owned(), retry_after_ms }
        }
    }
}

fn candidate(of: &routing::Candidate) -> wire::Candidate {
    wire::Candidate {
        replica: of.name.to_string(),
        cached_tokens: of.cached_tokens,
        uncached_tokens: of.uncached_tokens,
        score: of.score,
        terms: of.terms.iter().map(term).collect(),
    }
}

fn term(of: &routing::Term) -> wire::Term {
    wire::Term { name: of.name.to_owned(), value: of.value }
}

fn excluded(name: &str, reason: routing::Excluded) -> wire::Excluded {
    wire::Excluded { replica: name.to_owned(), reason: reason.as_str().to_owned() }
}

/// Everything about one request.
#[must_use]
pub(super) fn explanation(request: RequestId, entry: &Entry, now: Time) -> wire::Explanation {
    wire::Explanation {
        request: request.to_string(),
        model: entry.model.as_deref().map(str::to_owned),
        client: entry.place.map(|place| place.to_string()),
        decisions: entry.decisions.iter().map(|of| decision(of, now.since_ms(of.at).max(0.0))).collect(),
        attempts: entry.attempts.iter().map(|tried| attempt(entry, tried)).collect(),
        outcome: finished(entry),
    }
}

fn attempt(entry: &Entry, tried: &Tried) -> wire::Attempt {
    let decided =
        entry.decisions.iter().rfind(|decision| decision.attempt == tried.attempt).map(|decision| decision.at);
    let failed_after_ms = tried.failure.as_ref().zip(decided).map(|((_, failed), decided)| failed.since_ms(decided));
    wire::Attempt {
        attempt: tried.attempt,
        peer_request: tried.request_there.map(|request| request.to_string()),
        failure: tried.failure.as_ref().map(|(why, _)| why.clone()),
        failed_after_ms,
        recalled: tried.recalled,
    }
}

/// One request in one line; `None` for one without a decision, which does not exist.
#[must_use]
pub(super) fn summary(request: RequestId, entry: &Entry, now: Time) -> Option<wire::DecisionSummary> {
    let last = entry.decisions.last()?;
    let Foreseen { ttft_ms, cached_tokens } = foreseen(last);
    Some(wire::DecisionSummary {
        request: request.to_string(),
        age_ms: now.since_ms(last.at).max(0.0),
        strategy: last.strategy.to_owned(),
        verdict: verdict(last),
        attempts: u32::try_from(entry.decisions.len()).unwrap_or(u32::MAX),
        prompt_tokens: last.prompt_tokens,
        cached_tokens,
        predicted_ttft_ms: ttft_ms,
        outcome: finished(entry),
    })
}

fn finished(entry: &Entry) -> Option<wire::Finished> {
    let (kind, replica, ended) = entry.outcome.as_ref()?;
    Some(wire::Finished {
        kind: *kind,
        replica: replica.as_deref().map(str::to_owned),
        status: ended.status,
        ttft_ms: ended.ttft_ms,
        dispatch_ttft_ms: ended.dispatch_ttft_ms,
        e2e_ms: ended.e2e_ms,
        prompt_tokens: ended.usage.prompt_tokens,
        cached_tokens: ended.usage.cached_tokens,
        completion_tokens: ended.usage.completion_tokens,
    })
}

/// The decision as compact JSON in ASCII, of at most [`MAX_HEADER_BYTES`].
///
/// In a large fleet the excluded go first, then the candidates with the worst scores; what stays is whole.
#[must_use]
pub(super) fn decision_header(of: &routing::Decision) -> HeaderValue {
    let mut document = decision(of, 0.0);
    let mut text = ascii_json(&document);
    if text.len() > MAX_HEADER_BYTES {
        document.excluded.clear();
        document.candidates.sort_by(|a, b| a.score.total_cmp(&b.score));
        text = ascii_json(&document);
    }
    while text.len() > MAX_HEADER_BYTES && !document.candidates.is_empty() {
        document.candidates.truncate(document.candidates.len() / 2);
        text = ascii_json(&document);
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("{}"))
}

/// JSON with everything outside of ASCII escaped, as a header needs it.
fn ascii_json(document: &wire::Decision) -> String {
    let json = serde_json::to_string(document).expect("strings and finite numbers");
    if json.is_ascii() {
        return json;
    }
    let mut ascii = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use crate::model::{ReplicaId, RequestId, Time};
    use crate::routing::{Candidate, Decision, Excluded, Term, Unit, Verdict};

    use super::{MAX_HEADER_BYTES, decision_header};

    fn of(replicas: u32, name: &str) -> Decision {
        let candidate = |n: u32| Candidate {
            replica: ReplicaId(n),
            name: format!("{name}{n}").into(),
            cached_tokens: 64,
            uncached_tokens: 36,
            score: 100.0 - f64::from(n),
            ttft_ms: None,
            terms: [Term { name: "network", value: 60.0 }, Term { name: "prefill", value: 40.0 - f64::from(n) }]
                .into_iter()
                .collect(),
        };
        Decision {
            request: RequestId(0x1234),
            at: Time::from_ms(5.0),
            strategy: "gorgo",
            attempt: 1,
            unit: Unit::Ms,
            prompt_tokens: 100,
            held_ms: 0.0,
            verdict: Verdict::Dispatch(ReplicaId(replicas - 1)),
            kept_local: false,
            weights: Vec::new(),
            pruned: 0,
            deadline: None,
            candidates: (0..replicas).map(candidate).collect(),
            excluded: vec![(ReplicaId(99), "gone".into(), Excluded::Unhealthy)],
        }
    }

    #[test]
    fn the_header_is_compact_json() {
        insta::assert_snapshot!(decision_header(&of(1, "e")).to_str().unwrap(), @r#"{"request":"0000000000001234","age_ms":0.0,"strategy":"gorgo","attempt":1,"prompt_tokens":100,"held_ms":0.0,"unit":"ms","verdict":{"action":"dispatch","replica":"e0"},"kept_local":false,"predicted_ttft_ms":100.0,"candidates":[{"replica":"e0","cached_tokens":64,"uncached_tokens":36,"score":100.0,"terms":[{"name":"network","value":60.0},{"name":"prefill","value":40.0}]}],"excluded":[{"replica":"gone","reason":"unhealthy"}]}"#);
    }

    #[test]
    fn the_header_stays_small_and_keeps_the_best() {
        let header = decision_header(&of(500, "replica-"));
        let text = header.to_str().unwrap();
        assert!(text.len() <= MAX_HEADER_BYTES && text.len() > MAX_HEADER_BYTES / 3, "{}", text.len());
        let parsed: crate::wire::Decision = serde_json::from_str(text).unwrap();
        assert_eq!(parsed.candidates[0].replica, "replica-499");
    }

    #[test]
    fn names_outside_of_ascii_survive() {
        let header = decision_header(&of(1, "zürich😀"));
        let parsed: crate::wire::Decision = serde_json::from_str(header.to_str().unwrap()).unwrap();
        assert_eq!(parsed.candidates[0].replica, "zürich😀0");
    }
}
