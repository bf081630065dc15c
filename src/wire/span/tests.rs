//! Dumps in, one file out.

use insta::assert_snapshot;

use super::{
    Alignment, AttemptSpan, Bound, Counters, DecisionSpan, Dump, Line, NodeTrace, Offset, PeerClock, ReplicaCounters,
    RequestSpan, SCHEMA, Trip, align, bounds, perfetto,
};
use crate::wire::{Candidate, Decision, Excluded, OutcomeKind, Term, Verdict};

/// How far west's clock is ahead of east's, µs.
const AHEAD: u64 = 600_000_000;

fn node(name: &str, now_us: u64) -> NodeTrace {
    NodeTrace {
        schema: SCHEMA.into(),
        node: name.into(),
        region: Some(format!("region-{name}")),
        started_us: 0,
        stopped_us: now_us,
        now_us,
        buffer_bytes: 1 << 20,
        dropped: 0,
        lines: 0,
        unfinished: 0,
        peers: Vec::new(),
    }
}

fn decision(at_us: u64, request: &str, verdict: Verdict) -> DecisionSpan {
    let terms = vec![Term { name: "network".into(), value: 2.5 }, Term { name: "prefill".into(), value: 7.0 }];
    let decision = Decision {
        request: request.into(),
        age_ms: 0.0,
        strategy: "gorgo".into(),
        attempt: 1,
        prompt_tokens: 100,
        held_ms: 0.0,
        unit: "ms".into(),
        verdict,
        kept_local: false,
        weights: Vec::new(),
        pruned: 0,
        deadline: None,
        predicted_ttft_ms: Some(9.5),
        candidates: vec![Candidate {
            replica: "west".into(),
            cached_tokens: 64,
            uncached_tokens: 36,
            score: 9.5,
            terms,
        }],
        excluded: vec![Excluded { replica: "asia".into(), reason: "unhealthy".into() }],
    };
    DecisionSpan { at_us, made_us: at_us + 5, decision }
}

fn attempt(replica: &str, sent_us: u64, ended_us: u64) -> AttemptSpan {
    AttemptSpan {
        replica: replica.into(),
        peer: false,
        peer_request: None,
        sent_us,
        headers_us: Some(sent_us + 40),
        status: Some(200),
        first_token_us: Some(sent_us + 60),
        ended_us,
        failure: None,
    }
}

fn request(id: &str, received_us: u64, ended_us: u64) -> RequestSpan {
    RequestSpan {
        request: id.into(),
        trace: id.into(),
        parent: None,
        model: Some("tiny".into()),
        received_us,
        collected_us: Some(received_us + 10),
        body_bytes: Some(400),
        extracted_us: Some(received_us + 15),
        decisions: Vec::new(),
        attempts: Vec::new(),
        ended_us,
        outcome: OutcomeKind::Ok,
        status: Some(200),
        refusal: None,
        prompt_tokens: Some(100),
        cached_tokens: None,
        completion_tokens: Some(2),
    }
}

/// East forwards to west, whose clock is ten minutes ahead; the line takes 20 µs there and 20 µs back.
fn forwarded() -> [Dump; 2] {
    let mut at_east = request("e1", 1_000, 2_000);
    at_east.decisions.push(decision(1_016, "e1", Verdict::Dispatch { replica: "west".into() }));
    let to_west = AttemptSpan {
        peer: true,
        peer_request: Some("w7".into()),
        headers_us: Some(1_150),
        ..attempt("west", 1_030, 2_000)
    };
    at_east.attempts.push(to_west);
    let mut at_west = request("w7", AHEAD + 1_050, AHEAD + 1_980);
    at_west.trace = "e1".into();
    at_west.parent = Some("e1".into());
    at_west.decisions.push(decision(AHEAD + 1_066, "w7", Verdict::Dispatch { replica: "west".into() }));
    at_west.attempts.push(attempt("west", AHEAD + 1_090, AHEAD + 1_980));
    let counters = Counters {
        at_us: 1_100,
        queue: 3,
        replicas: vec![ReplicaCounters { replica: "west".into(), in_flight: 1, rtt_ms: Some(0.04) }],
    };
    [
        Dump { node: node("east", 5_000), requests: vec![at_east], counters: vec![counters] },
        Dump { node: node("west", AHEAD + 9_000), requests: vec![at_west], counters: Vec::new() },
    ]
}

fn aligned(dumps: &[Dump], trips: &[Trip]) -> Alignment {
    align(dumps.len() + 1, &bounds(dumps, trips))
}

fn lines(dump: &Dump) -> String {
    let lines = (dump.requests.len() + dump.counters.len()) as u64;
    let head = Line::Node(NodeTrace { lines, ..dump.node.clone() });
    let requests = dump.requests.iter().map(|request| Line::Request(Box::new(request.clone())));
    let counters = dump.counters.iter().map(|counters| Line::Counters(counters.clone()));
    let all = std::iter::once(head).chain(requests).chain(counters);
    all.map(|line| serde_json::to_string(&line).unwrap() + "\n").collect()
}

#[test]
fn a_dump_is_read_as_it_was_written() {
    for dump in forwarded() {
        let read = Dump::parse(&lines(&dump)).unwrap();
        assert_eq!(
            (&read.requests, &read.counters, &read.node.node),
            (&dump.requests, &dump.counters, &dump.node.node)
        );
    }
}

#[test]
fn what_is_no_dump_says_where() {
    let [east, west] = forwarded();
    let head = lines(&Dump { requests: Vec::new(), counters: Vec::new(), ..east.clone() });
    let other = head.replace("gorgo.trace/1", "gorgo.trace/9");
    let cases = [
        (String::new(), "the trace is empty"),
        (lines(&east).lines().nth(1).unwrap().to_owned(), "line 1 of the trace is out of place"),
        (head.clone() + &lines(&west), "line 2 of the trace is out of place"),
        (head.clone() + "\n{\"kind\":", "line 3 of the trace cannot be read"),
        (head + "{\"kind\":\"dream\"}", "line 2 of the trace cannot be read"),
        (lines(&east).lines().next().unwrap().to_owned(), "the trace is cut off: 0 of 2 lines came"),
        (other, "the trace is of the form `gorgo.trace/9`, this gorgo reads `gorgo.trace/1`"),
    ];
    for (text, wanted) in cases {
        let error = Dump::parse(&text).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, wanted {wanted}");
    }
}

#[test]
fn a_forwarded_request_is_a_round_trip_that_ties_two_clocks() {
    let dumps = forwarded();
    let known = bounds(&dumps, &[]);
    let (low_us, high_us) = (AHEAD as i64 - 21, AHEAD as i64 + 21);
    assert_eq!(known, [Bound { from: 0, to: 1, low_us, high_us }], "there and back, and the rounding");
    let offsets = aligned(&dumps, &[]).offsets;
    assert_eq!(offsets[1], Some(Offset { offset_us: AHEAD as i64, error_us: 21 }));
}

#[test]
fn peers_that_ask_each_other_and_whoever_collects_tie_clocks_as_well() {
    let [mut east, mut west] = forwarded();
    east.requests.clear();
    west.requests.clear();
    let trips = [Trip { asked_us: 0, answered_us: 3_000 }, Trip { asked_us: 3_000, answered_us: 7_000 }];
    let collected = aligned(&[east.clone(), west.clone()], &trips).offsets[1];
    // 5,000 at east is 1,500 ± 1,500 here, AHEAD + 9,000 at west 5,000 ± 2,000.
    assert_eq!(collected, Some(Offset { offset_us: AHEAD as i64 + 500, error_us: 3_502 }));
    east.node.peers.push(PeerClock { name: "west".into(), low_us: AHEAD as i64 - 30, high_us: AHEAD as i64 + 50 });
    let asked = aligned(&[east, west], &trips).offsets[1];
    assert_eq!(asked, Some(Offset { offset_us: AHEAD as i64 + 10, error_us: 41 }));
}

#[test]
fn the_file_of_a_forwarded_request() {
    let dumps = forwarded();
    let written = perfetto(&dumps, &aligned(&dumps, &[]));
    assert_eq!((written.flows, written.reversed), (1, 0));
    assert_snapshot!(written.json);
}

#[test]
fn a_node_that_nothing_ties_to_the_others_begins_with_them() {
    let mut dumps = forwarded();
    dumps[1].requests[0].parent = None;
    dumps[1].node.started_us = AHEAD;
    let written = perfetto(&dumps, &aligned(&dumps, &[]));
    let file: serde_json::Value = serde_json::from_str(&written.json).unwrap();
    assert_eq!(file["metadata"]["nodes"][1]["clock_error_us"], serde_json::Value::Null);
    let starts: Vec<_> = file["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").collect();
    assert!(starts.iter().all(|event| event["ts"].as_u64().unwrap() < 2_000), "side by side");
}

#[test]
fn arrows_never_point_back_in_time() {
    let dumps = forwarded();
    // A clock that is wrong by more than the line takes: west seems to have it before east sent it.
    let offsets =
        vec![Some(Offset { offset_us: 0, error_us: 0 }), Some(Offset { offset_us: AHEAD as i64 + 100, error_us: 1 })];
    let written = perfetto(&dumps, &Alignment { offsets, contradictions: 0 });
    assert_eq!((written.flows, written.reversed), (1, 3), "everything at west");
}

#[test]
fn every_ending_has_its_mark_and_a_retry_a_chain_of_its_own() {
    let mut retried = request("r1", 0, 900);
    retried.decisions.push(decision(20, "r1", Verdict::Hold));
    retried.decisions.push(decision(200, "r1", Verdict::Dispatch { replica: "a".into() }));
    let refused = AttemptSpan {
        headers_us: None,
        status: None,
        first_token_us: None,
        failure: Some("refused".into()),
        ..attempt("a", 210, 300)
    };
    retried.attempts.extend([refused, attempt("b", 310, 900)]);
    let cancelled = RequestSpan { outcome: OutcomeKind::Cancelled, status: None, ..request("c1", 100, 400) };
    let mut rejected = request("j1", 150, 180);
    rejected.outcome = OutcomeKind::Refused;
    rejected.refusal = Some("queue_full".into());
    rejected.decisions.push(decision(170, "j1", Verdict::Reject { reason: "queue_full".into(), retry_after_ms: None }));
    let dump = Dump { node: node("proxy", 1_000), requests: vec![cancelled, rejected, retried], counters: Vec::new() };
    let written = perfetto(&[dump], &align(1, &[]));
    let file: serde_json::Value = serde_json::from_str(&written.json).unwrap();
    let outline: String = file["traceEvents"].as_array().unwrap().iter().filter_map(outline).collect();
    assert_snapshot!(outline, @"
    200000 0 +900 request 0x3 ->
    100000 0 +900 request -> 0x3 ->
    100000 0 +10 receive
    100000 10 +5 extract
    100000 20 +5 decide
    100000 25 +175 queue
    200001 100 +300 request 0x1 ->
    100001 100 +300 request -> 0x1
    100001 100 +10 receive
    100001 110 +5 extract
    200002 150 +30 request 0x2 ->
    100002 150 +30 request -> 0x2
    100002 150 +10 receive
    100002 160 +5 extract
    100002 170 +5 decide
    100002 180 ! refused
    100000 200 +5 decide
    100000 210 +90 to a -> 0x3 ->
    100000 210 +90 forward
    300000 210 +90 request -> 0x3
    100000 310 +590 to b 0x4 ->
    100000 310 +40 forward
    100000 310 ! retry
    400000 310 +590 request -> 0x4
    400000 310 +60 prefill
    100000 350 +550 answer
    100000 370 ! first token
    400000 370 +530 decode
    100001 400 ! cancel
    100000 900 ! done
    ");
    assert_eq!(written.flows, 4);
}

/// What an event is, in a line.
fn outline(event: &serde_json::Value) -> Option<String> {
    let arrows = [("flow_in", " ->"), ("flow_out", " ")].map(|(key, sign)| if event[key] == true { sign } else { "" });
    let [from, _] = arrows;
    let to = if event["flow_out"] == true { " ->" } else { "" };
    let chain = event["bind_id"].as_str().map_or_else(String::new, |id| format!("{from} {id}{to}"));
    let (ts, tid, name) = (&event["ts"], &event["tid"], event["name"].as_str()?);
    match event["ph"].as_str()? {
        "X" => Some(format!("{tid} {ts:>4} +{} {name}{chain}\n", event["dur"])),
        "i" => Some(format!("{tid} {ts:>4} ! {name}\n")),
        _ => None,
    }
}
