//! Tables of cases for policies: fleet and request as text in, scores and target as text out.
//!
//! A case is a block of lines, cases are separated by empty lines, and one policy object sees them all in turn:
//! ```text
//! # what the case shows
//! prompt=6000 session=7 blocks=1,2,3 attempt=1
//! near rtt=40 cached=0 sent=3000,500
//! far  rtt=110 cached=5376 answered=800 decoding=4000 running=3 waiting=1 used=9000 age=500
//! ```
//! `place=48.9,2.4`: coordinates, of the client or of a replica's region, and `region`: its name.
//! `peer=1`: another agent, with `others=3000,500`: prompt tokens of what others have sent there, unanswered. `up=1`: checked and healthy. On the request line `queued`: prompt tokens in the router's queue, `waits`: requests there, `limit`:
//! `--max-concurrent`.
//! `at=MS`: the case happens so much later. `go=1`: the rule sees its request, of this number, go where it was sent. Lines at the end tell it what
//! happens afterwards: `> first 1 near at=100`, `> done 1 near at=900 out=40`, `> left 1 near`.
//! `output`: output tokens expected of each request in flight. `sent`, `answered`, `decoding`: prompt tokens of requests in flight without headers, without a first token, past it.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::{ProptestConfig, Strategy, proptest};

use super::{Choice, Event, Observation, Parameters, Policy, Query, Sent, View, find, strategies};
use crate::model::geo::Coordinates;
use crate::model::{Region, ReplicaId, RequestId, Time};
use crate::routing::decision::Candidate;
use crate::routing::fleet::Fleet;
use crate::routing::ledger::{Demand, Ledger};
use crate::routing::peer::Totals;
use crate::routing::score::{Ranking, rank};
use crate::routing::{Features, Gauges, HealthThresholds, Limits, Rates, ReplicaKind, ReplicaSpec, Usage};

/// When every case happens.
const NOW: Time = Time::from_micros(3_600_000_000);

/// Scores of all cases in order. `parameters`: `key=value` pairs that differ from the defaults.
pub(super) fn scores(strategy: &str, parameters: &str, cases: &str) -> String {
    scores_seeded(strategy, parameters, 0, cases)
}

/// The same for a rule that draws.
pub(super) fn scores_seeded(strategy: &str, parameters: &str, seed: u64, cases: &str) -> String {
    let entry = find(strategy).expect("strategy");
    let given: Vec<(String, f64)> = pairs(parameters).map(|(key, value)| (key.to_owned(), number(value))).collect();
    let parameters = Parameters::resolve(entry.name, entry.parameters, &given).expect("parameters");
    let mut policy = (entry.build)(&parameters, seed);
    let lines: Vec<&str> = cases.lines().map(str::trim).collect();
    let blocks = lines.split(|line| line.is_empty()).filter(|block| !block.is_empty());
    blocks.map(|block| play(&mut *policy, block)).collect::<Vec<_>>().join("\n")
}

fn play(policy: &mut dyn Policy, block: &[&str]) -> String {
    let (comments, lines): (Vec<&str>, Vec<&str>) = block.iter().partition(|line| line.starts_with('#'));
    let (events, lines): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.starts_with('>'));
    let (request, replicas) = lines.split_first().expect("a request line");
    let features = features(request);
    let prompt_tokens = field(request, "prompt").map_or(0, number);
    let mut fleet = Fleet::default();
    let mut ledger = Ledger::default();
    for line in replicas {
        add_replica(&mut fleet, &mut ledger, line);
    }
    let views: Vec<View<'_>> = fleet
        .iter()
        .zip(replicas)
        .map(|(replica, line)| {
            let cached_tokens = field(line, "cached").map_or(0, number);
            let rtt_ms = replica.rtt.value().unwrap_or(fleet.assumed_rtt_ms());
            let load = ledger.load(replica.id);
            let others = others(line);
            View { replica, load, others, rtt_ms, cached_tokens, uncached_tokens: prompt_tokens - cached_tokens }
        })
        .collect();
    let query = Query {
        features: &features,
        prompt_tokens,
        attempt: field(request, "attempt").map_or(1, number),
        now: when(request),
        queued_tokens: field(request, "queued").map_or(0, number),
        queued_requests: field(request, "waits").map_or(0, number),
        max_concurrent: field(request, "limit").map(number),
        central: false,
    };
    let Ranking { candidates, choice, .. } = rank(policy, &query, &views);
    if let (Some(id), Some(Choice::Best(best))) = (field(request, "go"), choice) {
        send(policy, &query, &views[best], RequestId(number(id)));
    }
    for event in events {
        happen(policy, &fleet, event);
    }
    let mark = |i| match choice {
        Some(Choice::Best(best)) if best == i => "  <-",
        Some(Choice::Local(kept)) if kept == i => "  <- kept",
        _ => "",
    };
    let rows = candidates.iter().enumerate().map(|(i, candidate)| row(candidate, mark(i)));
    let held = (choice == Some(Choice::Hold)).then(|| "hold\n".to_owned());
    comments.into_iter().map(|comment| format!("{comment}\n")).chain(rows).chain(held).collect()
}

/// When a line happens.
fn when(line: &str) -> Time {
    NOW.plus_ms(field(line, "at").map_or(0.0, number))
}

fn send(policy: &mut dyn Policy, query: &Query<'_>, target: &View<'_>, request: RequestId) {
    let sent = Sent {
        request,
        features: &Arc::new(query.features.clone()),
        prompt_tokens: query.prompt_tokens,
        cached_tokens: target.cached_tokens,
        rtt_ms: target.rtt_ms,
        ttft_ms: None,
    };
    policy.observe(query.now, &Observation { replica: target.replica, event: Event::Dispatched(sent) });
}

fn happen(policy: &mut dyn Policy, fleet: &Fleet, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let request = RequestId(number(words[2]));
    let usage = Usage { completion_tokens: field(line, "out").map(number), ..Usage::default() };
    let event = match words[1] {
        "first" => Event::FirstToken { request },
        "done" => Event::Finished { request, usage },
        "left" => Event::Left { request },
        other => panic!("no such event: {other}"),
    };
    let replica = fleet.iter().find(|replica| *replica.spec.name == *words[3]).expect("a replica of the case");
    policy.observe(when(line), &Observation { replica, event });
}

/// Others' requests at a peer.
fn others(line: &str) -> Totals {
    let tokens: Vec<f64> = field(line, "others").into_iter().flat_map(|list| list.split(',')).map(number).collect();
    let (requests, tokens) = (tokens.len() as f64, tokens.iter().sum::<f64>());
    Totals::untouched(requests, tokens)
}

fn row(candidate: &Candidate, mark: &str) -> String {
    let mut row = format!("{:<6} {:>9.3} =", candidate.name, candidate.score);
    for (i, term) in candidate.terms.iter().enumerate() {
        let plus = if i > 0 { " +" } else { "" };
        write!(row, "{plus} {} {:.3}", term.name, term.value).expect("string");
    }
    row + mark + "\n"
}

fn add_replica(fleet: &mut Fleet, ledger: &mut Ledger, line: &str) {
    let id = fleet.upsert(ReplicaSpec {
        name: line.split_whitespace().next().expect("name").into(),
        region: Region::new(field(line, "region").unwrap_or("r")),
        kind: if field(line, "peer").is_some() { ReplicaKind::Peer } else { ReplicaKind::Engine },
        models: Vec::new(),
        limits: Limits { kv_tokens: field(line, "kv").map(number) },
        rates: Rates {
            prefill_ms_per_token: field(line, "prefill").map(number),
            queue_ms_per_token: field(line, "queue").map(number),
        },
    });
    let replica = fleet.get_mut(id).expect("just added");
    replica.place = field(line, "place").map(place);
    replica.told.max_running = field(line, "slots").map(number);
    if field(line, "up").is_some() {
        replica.observe_health(true, HealthThresholds::default());
    }
    if let Some(rtt) = field(line, "rtt") {
        replica.observe_rtt(NOW, number(rtt));
    }
    let gauges = Gauges {
        running: field(line, "running").map(number),
        waiting: field(line, "waiting").map(number),
        used_tokens: field(line, "used").map(number),
        kv_usage: field(line, "usage").map(number),
        kv_tokens: None,
    };
    if gauges != Gauges::default() {
        let read = Time::from_ms(NOW.ms() - field(line, "age").map_or(0.0, number::<f64>));
        replica.observe_gauges(read, gauges);
    }
    for phase in ["sent", "answered", "decoding"] {
        for tokens in field(line, phase).into_iter().flat_map(|tokens| tokens.split(',')) {
            let output_tokens = field(line, "output").map_or(0, number);
            fly(ledger, id, phase, number(tokens), output_tokens);
        }
    }
}

fn fly(ledger: &mut Ledger, replica: ReplicaId, phase: &str, tokens: u32, output_tokens: u32) {
    let request = RequestId(ledger.in_flight() as u64);
    let demand = Demand { prompt_tokens: tokens, uncached_tokens: tokens, output_tokens };
    ledger.dispatch(request, replica, demand, NOW);
    if phase == "answered" {
        ledger.headers(request);
    }
    if phase == "decoding" {
        ledger.first_token(request);
    }
}

fn features(line: &str) -> Features {
    let blocks = field(line, "blocks").into_iter().flat_map(|blocks| blocks.split(',')).map(number);
    Features {
        session: field(line, "session").map(number),
        place: field(line, "place").map(place),
        blocks: blocks.collect(),
        ..Features::default()
    }
}

fn place(text: &str) -> Coordinates {
    Coordinates::parse(text).unwrap_or_else(|| panic!("no coordinates: {text}"))
}

fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_whitespace().filter_map(|word| word.split_once('='))
}

fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    pairs(line).find(|(known, _)| *known == key).map(|(_, value)| value)
}

/// Any fleet, as lines of a case.
fn fleets() -> impl Strategy<Value = String> {
    let replica = (0..3u8, 0..500u32, 0..1001u32, 0..40usize, 0..8usize, (0..9u32, 0..101u32, 0..90_000u32));
    let line = |(i, (kind, rtt, cached, decoding, sent, (waiting, usage, age))): (usize, _)| {
        let (kind, rtt, cached, decoding, sent): (u8, u32, u32, usize, usize) = (kind, rtt, cached, decoding, sent);
        let list =
            |key: &str, n: usize| if n > 0 { format!(" {key}={}", vec!["9"; n].join(",")) } else { String::new() };
        let peer = if kind == 0 { " peer=1 others=40,50" } else { "" };
        let gauges = format!(" waiting={waiting} usage={} age={age}", f64::from(usage) / 100.0);
        let told = if kind == 1 { "" } else { gauges.as_str() };
        format!("r{i}{peer}{told} rtt={rtt} cached={cached}{}{}\n", list("decoding", decoding), list("sent", sent))
    };
    proptest::collection::vec(replica, 1..7)
        .prop_map(move |replicas| replicas.into_iter().enumerate().map(line).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the fleet is like: every candidate has a score that can be compared, one of them is chosen or the request is held, and the
    /// same seed gives the same answers.
    #[test]
    fn every_strategy_decides_on_any_fleet(fleet in fleets(), prompt in 1001..20_000u32, session: u64) {
        let case = |turn: u32| format!("prompt={prompt} session={session} waits={turn} go={turn} at={}\n{fleet}\n\n", 1000 * turn);
        let cases: String = (1..6).map(case).collect();
        for entry in strategies() {
            let log = scores_seeded(entry.name, "", 7, &cases);
            let rows: Vec<&str> = log.lines().filter(|line| line.contains('=')).collect();
            assert_eq!(rows.len(), 5 * fleet.lines().count(), "{}: {log}", entry.name);
            for row in rows {
                let score: f64 = number(row.split_whitespace().nth(1).expect("a score"));
                assert!(score.is_finite(), "{}: {row}", entry.name);
            }
            let decided = log.lines().filter(|line| line.contains("<-") || *line == "hold").count();
            assert_eq!(decided, 5, "{}: {log}", entry.name);
            assert_eq!(log, scores_seeded(entry.name, "", 7, &cases), "{}", entry.name);
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}
