//! What Perfetto's importer demands of a file in the JSON form (google/perfetto, src/trace_processor/importers/json), checked here: the
//! real one is no part of this repository. A file that passes is loaded there without a single entry of severity `error` in `stats`.

use std::collections::{BTreeMap, BTreeSet};

use gorgo::wire::OutcomeKind;
use gorgo::wire::span::{AttemptSpan, Counters, Dump, NodeTrace, ReplicaCounters, RequestSpan, SCHEMA, Trip, merge};
use proptest::prelude::{Just, Strategy, prop, prop_oneof};
use proptest::{option, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

/// A slice as the importer sees it.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// `process / track`, without the number of the track.
    pub(super) track: String,
    pub(super) name: String,
    pub(super) depth: usize,
    pub(super) args: Value,
    /// Slices that an arrow leads to from here.
    pub(super) to: Vec<usize>,
}

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) slices: Vec<Slice>,
    /// Names of counters per process.
    pub(super) counters: BTreeSet<String>,
    /// What the importer would have complained about.
    pub(super) errors: Vec<String>,
    open: BTreeMap<(i64, i64), Vec<(i64, usize)>>,
    flows: BTreeMap<u64, usize>,
    processes: BTreeMap<i64, String>,
    threads: BTreeMap<(i64, i64), String>,
}

/// Loads a file as the importer does: in order of time, equals in the order of the file.
pub(super) fn load(text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    let file: Value = match serde_json::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            loaded.errors.push(format!("no JSON: {error}"));
            return loaded;
        }
    };
    let Some(events) = file["traceEvents"].as_array() else {
        loaded.errors.push("no traceEvents".to_owned());
        return loaded;
    };
    let mut timed = Vec::new();
    for event in events {
        match (event["ph"].as_str(), event["ts"].as_i64()) {
            (Some("M"), _) => loaded.name(event),
            (Some("X" | "i" | "C"), Some(ts)) if ts >= 0 => timed.push((ts, event)),
            _ => loaded.complain("phase or time", event),
        }
    }
    timed.sort_by_key(|(ts, _)| *ts);
    for (ts, event) in timed {
        loaded.take(ts, event);
    }
    loaded
}

impl Loaded {
    fn complain(&mut self, what: &str, event: &Value) {
        self.errors.push(format!("{what}: {event}"));
    }

    fn name(&mut self, event: &Value) {
        let (pid, tid) = (event["pid"].as_i64(), event["tid"].as_i64());
        let name = event["args"]["name"].as_str().map(str::to_owned);
        let order = event["args"]["sort_index"].is_u64();
        match (event["name"].as_str(), pid, tid, name) {
            (Some("process_name"), Some(pid), _, Some(name)) => {
                self.processes.insert(pid, name);
            }
            (Some("thread_name"), Some(pid), Some(tid), Some(name)) => {
                self.threads.insert((pid, tid), name);
            }
            (Some("process_sort_index"), Some(_), _, _) | (Some("thread_sort_index"), Some(_), Some(_), _) if order => {
            }
            _ => self.complain("metadata", event),
        }
    }

    fn take(&mut self, ts: i64, event: &Value) {
        let Some(process) = event["pid"].as_i64().and_then(|pid| self.processes.get(&pid)).cloned() else {
            return self.complain("a process without a name", event);
        };
        let Some(name) = event["name"].as_str().filter(|name| !name.is_empty()) else {
            return self.complain("no name", event);
        };
        if event["ph"] == "C" {
            match event["args"].as_object() {
                Some(values) if !values.is_empty() && values.values().all(Value::is_number) => {
                    self.counters.extend(values.keys().map(|key| format!("{process} / {name} {key}")));
                }
                _ => self.complain("a counter without numbers", event),
            }
            return;
        }
        let track = (event["pid"].as_i64().unwrap_or(-1), event["tid"].as_i64().unwrap_or(-1));
        let Some(thread) = self.threads.get(&track).cloned() else {
            return self.complain("a track without a name", event);
        };
        let duration = match event["ph"].as_str() {
            Some("X") => event["dur"].as_i64().filter(|dur| *dur >= 0),
            _ => Some(0).filter(|_| event["s"] == "t"),
        };
        let Some(duration) = duration else { return self.complain("duration or scope", event) };
        let lane = thread.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
        self.slice(track, (ts, ts + duration), format!("{process} / {lane}"), event);
    }

    fn slice(&mut self, track: (i64, i64), (start, end): (i64, i64), called: String, event: &Value) {
        let stack = self.open.entry(track).or_default();
        while stack.last().is_some_and(|(until, _)| *until <= start) {
            stack.pop();
        }
        if stack.last().is_some_and(|(until, _)| *until < end) {
            return self.complain("overlaps the slice before it", event);
        }
        let number = self.slices.len();
        let depth = stack.len();
        stack.push((end, number));
        let name = event["name"].as_str().unwrap_or_default().to_owned();
        self.slices.push(Slice { track: called, name, depth, args: event["args"].clone(), to: Vec::new() });
        self.arrows(number, event);
    }

    fn arrows(&mut self, number: usize, event: &Value) {
        let (from, to) = (event["flow_in"] == true, event["flow_out"] == true);
        let id = event["bind_id"].as_str().and_then(|id| u64::from_str_radix(id.strip_prefix("0x")?, 16).ok());
        let Some(id) = id else {
            if from || to || !event["bind_id"].is_null() {
                self.complain("an arrow without a number", event);
            }
            return;
        };
        match (from, self.flows.remove(&id)) {
            (true, Some(before)) => self.slices[before].to.push(number),
            (true, None) => self.complain("an arrow that begins nowhere", event),
            (false, Some(_)) => self.complain("an arrow that begins twice", event),
            (false, None) => {}
        }
        if to {
            self.flows.insert(id, number);
        }
    }

    /// Slices whose arrows lead nowhere.
    pub(super) fn dangling(&self) -> usize {
        self.flows.len()
    }
}

#[test]
fn the_check_finds_what_the_importer_would() {
    let meta = [
        json!({ "ph": "M", "pid": 1, "name": "process_name", "args": { "name": "p" } }),
        json!({ "ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": { "name": "t 1" } }),
    ];
    let x = |ts: i64, dur: i64| json!({ "ph": "X", "pid": 1, "tid": 2, "name": "n", "ts": ts, "dur": dur });
    let arrow = |ts: i64, key: &str| {
        let mut event = x(ts, 1);
        event["bind_id"] = "0x1".into();
        event[key] = true.into();
        event
    };
    let cases: [(&str, Vec<Value>); 12] = [
        ("", vec![x(0, 9), x(0, 4), x(4, 5), x(9, 0)]),
        ("", vec![arrow(5, "flow_in"), arrow(0, "flow_out")]),
        ("overlaps", vec![x(0, 9), x(5, 9)]),
        ("duration", vec![json!({ "ph": "X", "pid": 1, "tid": 2, "name": "n", "ts": 1 })]),
        ("phase or time", vec![json!({ "ph": "X", "pid": 1, "tid": 2, "name": "n", "dur": 1 })]),
        ("phase or time", vec![x(-1, 1)]),
        ("a process without", vec![json!({ "ph": "i", "s": "t", "pid": 7, "tid": 2, "name": "n", "ts": 1 })]),
        ("a track without", vec![json!({ "ph": "i", "s": "t", "pid": 1, "tid": 9, "name": "n", "ts": 1 })]),
        ("a counter without", vec![json!({ "ph": "C", "pid": 1, "name": "n", "ts": 1, "args": { "a": "b" } })]),
        ("an arrow that begins nowhere", vec![arrow(0, "flow_in")]),
        ("an arrow that begins nowhere", vec![arrow(0, "flow_in"), arrow(5, "flow_out")]),
        ("an arrow that begins twice", vec![arrow(0, "flow_out"), arrow(5, "flow_out")]),
    ];
    for (wanted, events) in cases {
        let events: Vec<Value> = meta.iter().cloned().chain(events).collect();
        let errors = load(&json!({ "traceEvents": events }).to_string()).errors;
        let right =
            if wanted.is_empty() { errors.is_empty() } else { errors.len() == 1 && errors[0].starts_with(wanted) };
        assert!(right, "wanted {wanted:?}: {errors:?}");
    }
}

/// Any stamps at all: a dump is what another process says.
fn attempts() -> impl Strategy<Value = Vec<AttemptSpan>> {
    let stamp = 0_u64..400;
    let attempt = (0_usize..3, stamp.clone(), option::of(stamp.clone()), option::of(stamp.clone()), stamp);
    let attempt = attempt.prop_map(|(replica, sent_us, headers_us, first_token_us, ended_us)| AttemptSpan {
        replica: ["a", "b", "c"][replica].into(),
        peer: replica == 1,
        peer_request: (replica == 1).then(|| "1".into()),
        sent_us,
        headers_us,
        status: headers_us.map(|_| 200),
        first_token_us,
        ended_us,
        failure: None,
    });
    prop::collection::vec(attempt, 0..4)
}

fn request() -> impl Strategy<Value = RequestSpan> {
    let outcome = prop_oneof![Just(OutcomeKind::Ok), Just(OutcomeKind::Failed), Just(OutcomeKind::Cancelled)];
    let stamps = (0_u64..400, option::of(0_u64..400), option::of(0_u64..400), 0_u64..400);
    (0_u8..4, option::of(0_u8..4), stamps, attempts(), outcome).prop_map(
        |(id, parent, (received_us, collected_us, extracted_us, ended_us), attempts, outcome)| RequestSpan {
            request: id.to_string(),
            trace: "t".into(),
            parent: parent.map(|parent| parent.to_string()),
            model: None,
            received_us,
            collected_us,
            body_bytes: None,
            extracted_us,
            decisions: Vec::new(),
            attempts,
            ended_us,
            outcome,
            status: None,
            refusal: None,
            prompt_tokens: None,
            cached_tokens: None,
            completion_tokens: None,
        },
    )
}

fn dump(name: &'static str) -> impl Strategy<Value = Dump> {
    let requests = prop::collection::vec(request(), 0..8);
    (requests, prop::collection::vec(0_u64..400, 0..4)).prop_map(move |(requests, samples)| {
        let counters = |at_us| {
            let replicas = vec![ReplicaCounters { replica: "a".into(), in_flight: 1, rtt_ms: None }];
            Counters { at_us, queue: 2, replicas }
        };
        let node = NodeTrace {
            schema: SCHEMA.into(),
            node: name.into(),
            region: None,
            started_us: 0,
            stopped_us: 400,
            now_us: 400,
            buffer_bytes: 0,
            dropped: 0,
            lines: 0,
            unfinished: 0,
            peers: Vec::new(),
        };
        Dump { node, requests, counters: samples.into_iter().map(counters).collect() }
    })
}

proptest! {
    /// Whatever routers say, the file loads, and nothing of it is dropped.
    #[test]
    fn every_file_loads_without_an_error(a in dump("a"), b in dump("b"), ahead in 0_u64..1_000) {
        let mut dumps = [a, b];
        dumps[1].node.now_us += ahead;
        let trips = [Trip { asked_us: 390, answered_us: 410 }, Trip { asked_us: 395, answered_us: 415 }];
        let merged = merge(&dumps, &trips);
        let loaded = load(&merged.written.json);
        prop_assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        prop_assert_eq!(loaded.dangling(), 0);
        let attempts: usize = dumps.iter().flat_map(|dump| &dump.requests).map(|request| request.attempts.len()).sum();
        let drawn = loaded.slices.iter().filter(|slice| slice.name.starts_with("to ")).count();
        prop_assert_eq!(drawn, attempts);
    }
}
