//! `gorgo proxy explain`: why a request went where it went, exactly as it was decided.

use super::super::Context;
use super::super::client::{Client, Read};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::human;
use super::super::table::{Column, Table};
use crate::model::RequestId;
use crate::routing::Excluded;
use crate::wire::{
    Attempt, Candidate, Deadline, Decision, DecisionSummary, Decisions, Explanation, Finished, OutcomeKind, Verdict,
    paths,
};

/// Arguments of `gorgo proxy explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Request, as in the response header `x-gorgo-request-id`; without it the last requests are listed
    #[arg(value_parser = request_id)]
    id: Option<RequestId>,
    /// How many requests to list
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "id")]
    last: u32,
    #[command(flatten)]
    read: Read,
}

/// Lists the last requests, or explains one.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let Some(id) = args.id else {
        let path = format!("{}?limit={}", paths::DECISIONS, args.last);
        return super::read(&args.read, &path, context, list).await;
    };
    let path = paths::decision(&id.to_string());
    let explanation: Explanation =
        Client::new(&args.read.admin, context)?.get(&path).await.map_err(|failure| not_found(failure, id))?;
    super::print(&explanation, args.read.json, context, explain)?;
    Ok(Exit::Done)
}

/// An id as the gateway writes it.
fn request_id(text: &str) -> Result<RequestId, String> {
    text.parse().map_err(|_| "wanted up to 16 hexadecimal digits, as in `x-gorgo-request-id`".to_owned())
}

/// A hint where the proxy does not know the request.
fn not_found(failure: Failure, id: RequestId) -> Failure {
    if failure.exit == Exit::NothingSuitable {
        failure
            .with_hint(format!("`{id}` may have left the ring of the last decisions; `gorgo proxy explain` lists them"))
    } else {
        failure
    }
}

/// A line per request, newest first.
fn list(decisions: &Decisions) -> String {
    let mut table = Table::new(&[
        Column::Text("request"),
        Column::Text("decided"),
        Column::Text("strategy"),
        Column::Text("verdict"),
        Column::Number("prompt"),
        Column::Number("cached"),
        Column::Number("predicted ttft"),
        Column::Number("actual ttft"),
        Column::Text("ended"),
    ]);
    for it in &decisions.decisions {
        table.row(line(it));
    }
    format!(
        "{table}\n\nprompt and cached in tokens; the last {} requests are kept",
        human::count(u64::from(decisions.capacity))
    )
}

fn line(it: &DecisionSummary) -> [String; 9] {
    let ttft = it.outcome.as_ref().and_then(|outcome| outcome.ttft_ms);
    [
        it.request.clone(),
        human::age_ms(it.age_ms),
        it.strategy.clone(),
        verdict(&it.verdict),
        human::count(u64::from(it.prompt_tokens)),
        human::or_unknown(it.cached_tokens, |tokens| human::count(u64::from(tokens))),
        human::or_unknown(it.predicted_ttft_ms, human::ms),
        human::or_unknown(ttft, human::ms),
        it.outcome.as_ref().map_or("running", |outcome| kind(outcome.kind)).to_owned(),
    ]
}

/// Every decision of one request, then how it ended.
fn explain(explanation: &Explanation) -> String {
    let model = explanation.model.as_deref().unwrap_or("no model named");
    let client = explanation.client.as_ref().map(|place| format!(", client at {place}")).unwrap_or_default();
    let mut parts = vec![format!("request {} ({model}{client})", explanation.request)];
    parts.extend(explanation.decisions.iter().map(|it| decision(it, &explanation.attempts)));
    let last = explanation.decisions.iter().rfind(|it| it.chosen().is_some());
    parts.push(
        explanation.outcome.as_ref().map_or_else(|| "still running".to_owned(), |outcome| finished(outcome, last)),
    );
    parts.join("\n\n")
}

fn decision(it: &Decision, attempts: &[Attempt]) -> String {
    let mut text = format!(
        "attempt {}, {}, by `{}`: {}\nprompt {} tokens",
        it.attempt,
        human::age_ms(it.age_ms),
        it.strategy,
        verdict(&it.verdict),
        human::count(u64::from(it.prompt_tokens)),
    );
    if it.held_ms > 0.0 {
        text += &format!(", held {}", human::ms(it.held_ms));
    }
    if let Some(predicted) = it.predicted_ttft_ms {
        text += &format!(", predicted ttft {}", human::ms(predicted));
    }
    if !it.weights.is_empty() {
        let weights = it.weights.iter().map(|weight| format!("{} {:.3}", weight.name, weight.value));
        text += &format!("\nweights in force: {}", weights.collect::<Vec<_>>().join(", "));
    }
    if let Some(deadline) = &it.deadline {
        text += &limit(deadline);
    }
    if !it.candidates.is_empty() {
        let rule = if it.kept_local {
            "kept local, where there was room: nothing was compared"
        } else {
            "the smallest score wins"
        };
        text += &format!("\n\n{}\n(score and terms in {}; {rule})", candidates(it), it.unit);
    }
    if it.pruned > 0 {
        text += &format!("\nand {} more, each dearer at the least", it.pruned);
    }
    for excluded in &it.excluded {
        text += &format!("\nnot considered: {} ({})", excluded.replica, reason(&excluded.reason));
    }
    if let (Verdict::Dispatch { replica }, Some(tried)) =
        (&it.verdict, attempts.iter().find(|tried| tried.attempt == it.attempt))
    {
        text += &attempt(replica, tried);
    }
    text
}

/// How it stood against the limit of its class.
fn limit(it: &Deadline) -> String {
    let class = it.class.as_ref().map_or(String::new(), |class| format!(" of class {class}"));
    let predicted =
        it.ttft_ms.map_or_else(|| "nothing predicted".to_owned(), |ms| format!("{} predicted", human::ms(ms)));
    let late = if it.late_by_ms > 0.0 {
        format!("{} too late", human::ms(it.late_by_ms))
    } else {
        format!("in time with {} left", human::ms(-it.late_by_ms))
    };
    format!("\nlimit{class} {}: {} waited, {predicted}: {late}", human::ms(it.limit_ms), human::ms(it.waited_ms))
}

/// A reason as it is called, and in words where that says more.
fn reason(name: &str) -> String {
    let known = Excluded::ALL.into_iter().find(|it| it.as_str() == name && it.explained() != name);
    known.map_or_else(|| name.to_owned(), |it| format!("{name}: {}", it.explained()))
}

/// What came of it, where that is not told at the end.
fn attempt(replica: &str, tried: &Attempt) -> String {
    let mut text = String::new();
    if let Some(id) = &tried.peer_request {
        text += &format!(
            "\n{replica} knows it as {id}: `gorgo proxy --remote {replica} --service agent explain {id}` tells why it went on as it did"
        );
    }
    if let Some(failure) = &tried.failure {
        let after = tried.failed_after_ms.map_or_else(String::new, |after| format!(" after {}", human::ms(after)));
        let what = if tried.recalled { "recalled from" } else { "failed at" };
        text += &format!("\n{what} {replica}{after}: {failure}");
    }
    text
}

/// One line per candidate, its terms written out as the sum that they are.
fn candidates(it: &Decision) -> Table {
    let mut table = Table::new(&[
        Column::Text("candidate"),
        Column::Number("score"),
        Column::Text("= sum of"),
        Column::Number("cached"),
        Column::Number("uncached"),
    ]);
    for candidate in &it.candidates {
        let chosen = matches!(&it.verdict, Verdict::Dispatch { replica } if *replica == candidate.replica);
        table.row([
            format!("{} {}", if chosen { "*" } else { " " }, candidate.replica),
            format!("{:.2}", candidate.score),
            terms(candidate),
            human::count(u64::from(candidate.cached_tokens)),
            human::count(u64::from(candidate.uncached_tokens)),
        ]);
    }
    table
}

fn terms(candidate: &Candidate) -> String {
    let terms: Vec<_> = candidate.terms.iter().map(|term| format!("{} {:.2}", term.name, term.value)).collect();
    terms.join(" + ")
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Dispatch { replica } => format!("to {replica}"),
        Verdict::Hold => "held in the queue".to_owned(),
        Verdict::Reject { reason, retry_after_ms: None } => format!("refused ({reason})"),
        Verdict::Reject { reason, retry_after_ms: Some(wait) } => {
            format!("refused ({reason}), retry after {}", human::ms(*wait))
        }
    }
}

fn finished(it: &Finished, sent: Option<&Decision>) -> String {
    let mut text = format!("ended: {}", kind(it.kind));
    if let Some(replica) = &it.replica {
        text += &format!(", answered by {replica}");
    }
    if let Some(status) = it.status {
        text += &format!(", status {status}");
    }
    text += &format!(", ttft {}, whole answer {}", human::or_unknown(it.ttft_ms, human::ms), human::ms(it.e2e_ms));
    let counts = [(it.prompt_tokens, "prompt"), (it.cached_tokens, "cached"), (it.completion_tokens, "generated")];
    let told: Vec<_> = counts
        .iter()
        .filter_map(|(tokens, name)| tokens.map(|tokens| format!("{name} {}", human::count(u64::from(tokens)))))
        .collect();
    if !told.is_empty() {
        text += &format!("\nthe engine counted, in tokens: {}", told.join(", "));
    }
    text + &foreseen(it, sent)
}

/// What the last decision foresaw beside what came.
fn foreseen(it: &Finished, sent: Option<&Decision>) -> String {
    let mut text = String::new();
    let Some(sent) = sent else { return text };
    if let (Some(predicted), Some(actual)) = (sent.predicted_ttft_ms, it.dispatch_ttft_ms) {
        let off = actual - predicted;
        let (off, way) = (human::ms(off.abs()), if off < 0.0 { "less" } else { "more" });
        text += &format!(
            "\ndecision to first token: predicted {}, took {} ({off} {way})",
            human::ms(predicted),
            human::ms(actual)
        );
    }
    if let (Some(chosen), Some(cached)) = (sent.chosen(), it.cached_tokens) {
        let (predicted, cached) = (human::count(u64::from(chosen.cached_tokens)), human::count(u64::from(cached)));
        text += &format!("\ncached tokens: predicted {predicted}, the engine found {cached}");
    }
    text
}

fn kind(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Ok => "ok",
        OutcomeKind::Failed => "failed",
        OutcomeKind::Refused => "refused",
        OutcomeKind::Cancelled => "cancelled by the client",
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{explain, list};
    use crate::wire::{
        Attempt, Candidate, Deadline, Decision, DecisionSummary, Decisions, Excluded, Explanation, Finished,
        OutcomeKind, Term, Verdict,
    };

    fn candidate(replica: &str, cached_tokens: u32, terms: &[(&str, f64)]) -> Candidate {
        Candidate {
            replica: replica.into(),
            cached_tokens,
            uncached_tokens: 4_086 - cached_tokens,
            score: terms.iter().map(|(_, value)| value).sum(),
            terms: terms.iter().map(|(name, value)| Term { name: (*name).into(), value: *value }).collect(),
        }
    }

    fn done() -> Finished {
        Finished {
            kind: OutcomeKind::Ok,
            replica: Some("europe".into()),
            status: Some(200),
            ttft_ms: Some(131.0),
            dispatch_ttft_ms: Some(118.5),
            e2e_ms: 1_840.0,
            prompt_tokens: Some(4_086),
            cached_tokens: Some(3_904),
            completion_tokens: Some(38),
        }
    }

    #[test]
    fn an_explanation_names_every_candidate_every_term_and_everyone_left_out() {
        let first = Decision {
            request: "00000000000000a1".into(),
            age_ms: 4_200.0,
            strategy: "gorgo".into(),
            attempt: 1,
            prompt_tokens: 4_086,
            held_ms: 0.0,
            unit: "ms".into(),
            verdict: Verdict::Dispatch { replica: "east".into() },
            kept_local: true,
            weights: Vec::new(),
            pruned: 0,
            deadline: None,
            predicted_ttft_ms: Some(73.3),
            candidates: vec![
                candidate("east", 3_328, &[("network", 2.0), ("prefill", 71.25), ("queue", 0.0)]),
                candidate("europe", 3_904, &[("network", 97.0), ("prefill", 17.11), ("queue", 38.41)]),
            ],
            excluded: vec![Excluded { replica: "asia".into(), reason: "unhealthy".into() }],
        };
        let second = Decision {
            attempt: 2,
            age_ms: 4_100.0,
            held_ms: 12.0,
            verdict: Verdict::Dispatch { replica: "europe".into() },
            kept_local: false,
            weights: vec![Term { name: "w_queue".into(), value: 0.25 }],
            pruned: 0,
            deadline: Some(Deadline {
                class: Some("batch".into()),
                limit_ms: 10_000.0,
                waited_ms: 12.0,
                ttft_ms: Some(152.5),
                late_by_ms: -9_835.5,
            }),
            predicted_ttft_ms: Some(152.5),
            candidates: vec![first.candidates[1].clone()],
            excluded: vec![Excluded { replica: "east".into(), reason: "tried".into() }],
            ..first.clone()
        };
        let request = "00000000000000a1".to_owned();
        let explanation = Explanation {
            request,
            model: Some("mistral-7b".into()),
            client: Some("48.9,2.4".into()),
            decisions: vec![first, second],
            attempts: vec![
                Attempt {
                    attempt: 1,
                    failure: Some("connection to http://10.0.0.1:30000 broke before an answer".into()),
                    failed_after_ms: Some(4.0),
                    ..Attempt::default()
                },
                Attempt { attempt: 2, peer_request: Some("00000000000000b7".into()), ..Attempt::default() },
            ],
            outcome: Some(done()),
        };
        assert_snapshot!(explain(&explanation), @r"
        request 00000000000000a1 (mistral-7b, client at 48.9,2.4)

        attempt 1, 4 s ago, by `gorgo`: to east
        prompt 4,086 tokens, predicted ttft 73.3 ms

        CANDIDATE   SCORE  = SUM OF                                     CACHED  UNCACHED
        * east      73.25  network 2.00 + prefill 71.25 + queue 0.00     3,328       758
          europe   152.52  network 97.00 + prefill 17.11 + queue 38.41   3,904       182
        (score and terms in ms; kept local, where there was room: nothing was compared)
        not considered: asia (unhealthy: not known to be healthy)
        failed at east after 4.00 ms: connection to http://10.0.0.1:30000 broke before an answer

        attempt 2, 4 s ago, by `gorgo`: to europe
        prompt 4,086 tokens, held 12.0 ms, predicted ttft 152 ms
        weights in force: w_queue 0.250
        limit of class batch 10.0 s: 12.0 ms waited, 152 ms predicted: in time with 9836 ms left

        CANDIDATE   SCORE  = SUM OF                                     CACHED  UNCACHED
        * europe   152.52  network 97.00 + prefill 17.11 + queue 38.41   3,904       182
        (score and terms in ms; the smallest score wins)
        not considered: east (tried: already tried for this request)
        europe knows it as 00000000000000b7: `gorgo proxy --remote europe --service agent explain 00000000000000b7` tells why it went on as it did

        ended: ok, answered by europe, status 200, ttft 131 ms, whole answer 1840 ms
        the engine counted, in tokens: prompt 4,086, cached 3,904, generated 38
        decision to first token: predicted 152 ms, took 118 ms (34.0 ms less)
        cached tokens: predicted 3,904, the engine found 3,904
        ");
    }

    #[test]
    fn the_list_is_a_line_per_request() {
        let one = DecisionSummary {
            request: "00000000000000a1".into(),
            age_ms: 900.0,
            strategy: "gorgo".into(),
            verdict: Verdict::Dispatch { replica: "europe".into() },
            attempts: 2,
            prompt_tokens: 4_086,
            cached_tokens: Some(3_904),
            predicted_ttft_ms: Some(152.5),
            outcome: Some(done()),
        };
        let refused = DecisionSummary {
            request: "00000000000000a2".into(),
            verdict: Verdict::Reject { reason: "queue_full".into(), retry_after_ms: Some(500.0) },
            cached_tokens: None,
            predicted_ttft_ms: None,
            outcome: None,
            ..one.clone()
        };
        assert_snapshot!(list(&Decisions { capacity: 1024, decisions: vec![refused, one] }), @"
        REQUEST           DECIDED     STRATEGY  VERDICT                                   PROMPT  CACHED  PREDICTED TTFT  ACTUAL TTFT  ENDED
        00000000000000a2  900 ms ago  gorgo     refused (queue_full), retry after 500 ms   4,086       -               -            -  running
        00000000000000a1  900 ms ago  gorgo     to europe                                  4,086   3,904          152 ms       131 ms  ok

        prompt and cached in tokens; the last 1,024 requests are kept
        ");
    }

    #[test]
    fn a_call_back_is_no_failure() {
        let late = Attempt {
            attempt: 1,
            failure: Some("late, and not begun by its engine".into()),
            failed_after_ms: Some(2_700.0),
            recalled: true,
            ..Attempt::default()
        };
        let text = super::attempt("east", &late);
        assert_eq!(text, "\nrecalled from east after 2700 ms: late, and not begun by its engine");
    }
}
