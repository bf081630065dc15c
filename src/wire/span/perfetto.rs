//! Dumps of several nodes as one file for Perfetto (<https://ui.perfetto.dev>), in the JSON form of Chrome's trace events.
//!
//! Per node: a process for its clients, one for its router, one per engine. A process has as many tracks as it had requests at once,
//! so that the slices of a track lie behind or inside each other: Perfetto's importer drops what overlaps otherwise. Arrows are
//! `bind_id` with `flow_out` and `flow_in`; of each chain the file has the beginning before every later stop.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::flows::{Arrows, Flows, Stop, flows};
use super::lanes::lanes;
use super::slices::{self, Slice, micros};
use super::{Alignment, Counters, Dump, Offset};

/// A file and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The file.
    pub json: String,
    /// Slices and marks in it.
    pub events: usize,
    /// Chains of arrows.
    pub flows: u64,
    /// Stops that have no arrow, because the clocks cannot tell that they came after the stop before.
    pub reversed: u64,
}

/// Puts dumps onto the clock of the first. `offsets` are those of [`super::align()`], one per dump.
#[must_use]
pub fn perfetto(dumps: &[Dump], alignment: &Alignment) -> Written {
    let shifts: Vec<i64> = (0..dumps.len()).map(|node| -offset(dumps, alignment, node)).collect();
    let origin = dumps.iter().zip(&shifts).filter_map(|(dump, shift)| Some(first(dump)?.saturating_add(*shift))).min();
    let origin = origin.unwrap_or(0);
    let shifts: Vec<i64> = shifts.into_iter().map(|shift| shift.saturating_sub(origin)).collect();
    let scene = Scene::new(dumps, &shifts);
    let flows = flows(dumps, |stop| scene.start(stop));
    let mut file = File::default();
    for (node, dump) in dumps.iter().enumerate() {
        let router = file.node(node, dump, &scene, &flows);
        file.counters(&dump.counters, router, shifts[node]);
    }
    let events = file.events.len();
    let json = file.text(&metadata(dumps, alignment));
    Written { json, events, flows: flows.chains, reversed: flows.reversed }
}

/// How far a node's clock is ahead. A node that nothing ties to the others is put where tracing began on all of them.
fn offset(dumps: &[Dump], alignment: &Alignment, node: usize) -> i64 {
    let known = alignment.offsets.get(node).copied().flatten();
    let begun = |node: usize| micros(dumps[node].node.started_us);
    known.map_or_else(|| begun(node) - begun(0), |offset| offset.offset_us)
}

/// The earliest stamp in a dump.
fn first(dump: &Dump) -> Option<i64> {
    let requests = dump.requests.iter().map(|request| request.received_us);
    requests.chain(dump.counters.iter().map(|counters| counters.at_us)).min().map(micros)
}

fn metadata(dumps: &[Dump], alignment: &Alignment) -> Value {
    let node = |(index, dump): (usize, &Dump)| {
        let at: Option<Offset> = alignment.offsets.get(index).copied().flatten();
        json!({
            "node": dump.node.node,
            "region": dump.node.region,
            "clock_offset_us": at.map(|at| at.offset_us),
            "clock_error_us": at.map(|at| at.error_us),
            "requests": dump.requests.len(),
            "dropped": dump.node.dropped,
            "unfinished": dump.node.unfinished,
        })
    };
    json!({
        "gorgo": env!("CARGO_PKG_VERSION"),
        "clock": dumps.first().map(|dump| &dump.node.node),
        "clock_contradictions": alignment.contradictions,
        "nodes": dumps.iter().enumerate().map(node).collect::<Vec<_>>(),
    })
}

/// All slices, on the common clock.
struct Scene {
    /// Per node and request: the client's, if a client sent it.
    clients: Vec<Vec<Option<Slice>>>,
    /// Per node and request.
    routers: Vec<Vec<Slice>>,
    /// Per node, by request and attempt: name of the engine and slice.
    engines: Vec<BTreeMap<(usize, usize), (String, Slice)>>,
}

impl Scene {
    fn new(dumps: &[Dump], shifts: &[i64]) -> Self {
        let mut scene = Self { clients: Vec::new(), routers: Vec::new(), engines: Vec::new() };
        for (dump, shift) in dumps.iter().zip(shifts) {
            let moved = |mut slice: Slice| {
                slice.shift(*shift);
                slice
            };
            let client =
                |request: &super::RequestSpan| request.parent.is_none().then(|| moved(slices::client(request)));
            scene.clients.push(dump.requests.iter().map(client).collect());
            scene.routers.push(dump.requests.iter().map(|request| moved(slices::router(request))).collect());
            let mut engines = BTreeMap::new();
            for (index, request) in dump.requests.iter().enumerate() {
                for (number, attempt) in request.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.peer) {
                    let slice = moved(slices::engine(request, number, attempt));
                    engines.insert((index, number), (attempt.replica.clone(), slice));
                }
            }
            scene.engines.push(engines);
        }
        scene
    }

    /// When a stop begins.
    fn start(&self, stop: Stop) -> i64 {
        let slice = match stop {
            Stop::Client(node, index) => self.clients[node][index].as_ref(),
            Stop::Request(node, index) => Some(&self.routers[node][index]),
            Stop::Attempt(node, index, number) => {
                self.routers[node][index].children.iter().find(|child| child.attempt == Some(number))
            }
            Stop::Engine(node, index, number) => self.engines[node].get(&(index, number)).map(|(_, slice)| slice),
        };
        slice.map_or(0, |slice| slice.start)
    }
}

/// The file as it grows.
#[derive(Default)]
struct File {
    names: Vec<Value>,
    /// (µs, event); sorted by time at the end, where equals stay as they came.
    events: Vec<(i64, Value)>,
    pids: u64,
}

/// Where an event goes.
#[derive(Clone, Copy)]
struct Track {
    pid: u64,
    tid: u64,
}

impl File {
    /// A new process.
    fn process(&mut self, name: &str) -> u64 {
        self.pids += 1;
        let pid = self.pids;
        self.names.push(json!({ "ph": "M", "pid": pid, "name": "process_name", "args": { "name": name } }));
        self.names.push(json!({ "ph": "M", "pid": pid, "name": "process_sort_index", "args": { "sort_index": pid } }));
        pid
    }

    /// Names the tracks of a process.
    fn tracks(&mut self, pid: u64, lanes: &[usize], name: &str) {
        for lane in 0..lanes.iter().max().map_or(0, |most| most + 1) {
            let tid = tid(pid, lane);
            let called = format!("{name} {}", lane + 1);
            self.names
                .push(json!({ "ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": { "name": called } }));
            let order = json!({ "ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": { "sort_index": lane } });
            self.names.push(order);
        }
    }

    /// Draws a node; returns the process of its router.
    fn node(&mut self, node: usize, dump: &Dump, scene: &Scene, flows: &Flows) -> u64 {
        let name = &dump.node.node;
        let place = dump.node.region.as_ref().map_or_else(String::new, |region| format!(" ({region})"));
        let router = self.process(&format!("{name}: router{place}"));
        let clients: Vec<(Stop, &Slice)> = scene.clients[node]
            .iter()
            .enumerate()
            .filter_map(|(index, slice)| Some((Stop::Client(node, index), slice.as_ref()?)))
            .collect();
        let requests: Vec<(Stop, &Slice)> =
            scene.routers[node].iter().enumerate().map(|(index, slice)| (Stop::Request(node, index), slice)).collect();
        if !clients.is_empty() {
            let pid = self.process(&format!("{name}: clients"));
            self.draw(pid, "client", &clients, flows);
        }
        self.draw(router, "request", &requests, flows);
        let mut engines: Vec<&str> = scene.engines[node].values().map(|(engine, _)| engine.as_str()).collect();
        engines.sort_unstable();
        engines.dedup();
        for engine in engines {
            let pid = self.process(&format!("{name}: engine {engine}"));
            let of_it = scene.engines[node].iter().filter(|(_, (at, _))| at == engine);
            let slots: Vec<(Stop, &Slice)> =
                of_it.map(|((index, number), (_, slice))| (Stop::Engine(node, *index, *number), slice)).collect();
            self.draw(pid, "slot", &slots, flows);
        }
        router
    }

    /// Draws slices beside each other on as many tracks as it takes.
    fn draw(&mut self, pid: u64, name: &str, slices: &[(Stop, &Slice)], flows: &Flows) {
        let intervals: Vec<(i64, i64)> = slices.iter().map(|(_, slice)| (slice.start, slice.end)).collect();
        let lanes = lanes(&intervals);
        self.tracks(pid, &lanes, name);
        for ((stop, slice), lane) in slices.iter().zip(lanes) {
            self.slice(Track { pid, tid: tid(pid, lane) }, slice, Some(*stop), flows);
        }
    }

    fn slice(&mut self, track: Track, slice: &Slice, stop: Option<Stop>, flows: &Flows) {
        let Track { pid, tid } = track;
        let mut event = json!({
            "ph": "X", "pid": pid, "tid": tid, "cat": "gorgo", "name": slice.name,
            "ts": slice.start, "dur": slice.end - slice.start,
        });
        if !slice.args.is_empty() {
            event["args"] = Value::Object(slice.args.clone());
        }
        if let Some(Arrows { chain, from, to }) = stop.and_then(|stop| flows.arrows.get(&stop)) {
            event["bind_id"] = json!(format!("0x{chain:x}"));
            if *from {
                event["flow_in"] = true.into();
            }
            if *to {
                event["flow_out"] = true.into();
            }
        }
        self.events.push((slice.start, event));
        for child in &slice.children {
            let below = match (stop, child.attempt) {
                (Some(Stop::Request(node, index)), Some(number)) => Some(Stop::Attempt(node, index, number)),
                _ => None,
            };
            self.slice(track, child, below, flows);
        }
        for mark in &slice.marks {
            let mut event = json!({
                "ph": "i", "s": "t", "pid": pid, "tid": tid, "cat": "gorgo", "name": mark.name, "ts": mark.at,
            });
            if !mark.args.is_empty() {
                event["args"] = Value::Object(mark.args.clone());
            }
            self.events.push((mark.at, event));
        }
    }

    /// The counters belong to the router that counted.
    fn counters(&mut self, counters: &[Counters], router: u64, shift: i64) {
        for sample in counters {
            let at = micros(sample.at_us).saturating_add(shift);
            let in_flight: Map<String, Value> =
                sample.replicas.iter().map(|it| (it.replica.clone(), it.in_flight.into())).collect();
            let rtt: Map<String, Value> =
                sample.replicas.iter().filter_map(|it| Some((it.replica.clone(), it.rtt_ms?.into()))).collect();
            let queue: Map<String, Value> = [("requests".to_owned(), sample.queue.into())].into_iter().collect();
            for (name, values) in [("queue", queue), ("in flight", in_flight), ("rtt ms", rtt)] {
                if !values.is_empty() {
                    let event = json!({ "ph": "C", "pid": router, "name": name, "ts": at, "args": values });
                    self.events.push((at, event));
                }
            }
        }
    }

    fn text(mut self, metadata: &Value) -> String {
        self.events.sort_by_key(|(at, _)| *at);
        let mut text = String::from("{\"traceEvents\":[\n");
        let events = self.names.iter().chain(self.events.iter().map(|(_, event)| event));
        for (index, event) in events.enumerate() {
            if index > 0 {
                text.push_str(",\n");
            }
            text.push_str(&event.to_string());
        }
        text.push_str("\n],\"displayTimeUnit\":\"ms\",\"metadata\":");
        text.push_str(&metadata.to_string());
        text.push_str("}\n");
        text
    }
}

/// Tracks have a number of their own in the whole file: old viewers take equal ones for the same.
fn tid(pid: u64, lane: usize) -> u64 {
    pid * 100_000 + lane as u64
}
