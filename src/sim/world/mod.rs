//! A whole fleet in virtual time: clients, routers, links, engines.
//!
//! The routers are [`crate::routing::Router`], the very ones that the gateway runs, fed with the same calls: arrivals, first tokens, ends
//! with usage, round trips, gauges, health, and looks at the queue. Nothing of routing is modelled here; what is modelled is what the
//! gateway does around it (probes and their intervals, retries before the first byte, time limits, one hop to a peer) and the world it
//! does it in.
//!
//! One router is a central proxy whose replicas are all engines. Several are agents: the engines of its own region are its replicas,
//! and the other agents are its peers, which decide again when a request reaches them and do not send it on. In the direct form each of
//! several routers has all engines for replicas, and they tell each other what they have there.
//!
//! One run is one thread and a function of its [`Scenario`]: equal scenarios give equal bytes.
//!
//! Not modelled: time to parse, hash and decide; bandwidth; bytes of the answer (tokens between the first and the last travel like the
//! first); clients that go away; prompts that do not fit a connection's window while others use it.

mod event;
mod exchange;
mod fail;
pub mod keys;
mod machine;
mod node;
mod outcome;
mod play;
mod request;
mod scenario;
mod serve;
mod share;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

pub use scenario::{Edge, Events, Measured, News, Observer, Played, Scenario, Unobserved};

use std::collections::BTreeSet;
use std::sync::Arc;

use event::Event;
use machine::Machine;
use node::Node;
use play::Play;
use request::Request;

use super::engine::EngineEvent;
use super::schedule::Schedule;
use crate::model::Time;
use crate::report;
use crate::routing::prediction::Sample;
use crate::routing::{ReplicaKind, SettingsError};
use crate::workload::fleet::Replica;

/// Events between two looks at the observer's wish to go on.
const LOOK_EVERY: u64 = 1024;

/// Plays a scenario to its end.
///
/// # Errors
/// An unknown strategy or parameter.
pub fn run(scenario: &Scenario<'_>, observer: &mut dyn Observer) -> Result<Played, SettingsError> {
    let mut world = World::new(scenario, observer)?;
    world.begin();
    let stopped = !world.go_on();
    Ok(world.collect(stopped))
}

/// Everything at one moment.
struct World<'a> {
    scenario: &'a Scenario<'a>,
    observer: &'a mut dyn Observer,
    now: Time,
    schedule: Schedule<Event>,
    nodes: Vec<Node>,
    machines: Vec<Machine>,
    /// By number; `None` once both its sample and its last leg are done with.
    requests: Vec<Option<Box<Request>>>,
    play: Play,
    /// Name and region of each machine, as samples show them.
    servers: Vec<(Arc<str>, Arc<str>)>,
    /// Room for what an engine tells, kept for its size.
    heard: Vec<EngineEvent>,
    /// Ended requests by (session, step).
    samples: Vec<((u32, u32), report::Sample)>,
    events: Events,
    retried: u64,
    forwarded: u64,
    recalled: Recalled,
}

/// What routers called back.
#[derive(Debug, Default)]
struct Recalled {
    calls: u64,
    /// Jobs whose engines have yet to hear of it.
    jobs: BTreeSet<u64>,
    /// Of the calls, those that came too late: the engine had begun.
    begun: u64,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario<'a>, observer: &'a mut dyn Observer) -> Result<Self, SettingsError> {
        let nodes = node::all(scenario)?;
        let machines = scenario.specs.iter().map(|spec| Machine::new(spec.clone())).collect();
        Ok(Self {
            observer,
            now: Time::ZERO,
            schedule: Schedule::new(),
            nodes,
            machines,
            requests: Vec::new(),
            servers: scenario.fleet.replicas.iter().map(server).collect(),
            heard: Vec::new(),
            play: Play::new(scenario),
            samples: Vec::new(),
            events: Events::default(),
            retried: 0,
            forwarded: 0,
            recalled: Recalled::default(),
            scenario,
        })
    }

    /// Plans what happens by itself.
    fn begin(&mut self) {
        self.begin_faults();
        self.begin_watching();
        self.begin_sessions();
    }

    /// Runs until nothing is left to be played, the time is up, or the observer wants no more (then false).
    fn go_on(&mut self) -> bool {
        while !self.play.is_over() {
            let Some((at, event)) = self.schedule.next() else { break };
            if at > self.play.deadline() {
                self.now = self.play.deadline();
                break;
            }
            debug_assert!(at >= self.now, "time went back: {event:?}");
            self.now = at;
            self.events.handled += 1;
            self.handle(event);
            if self.events.handled.is_multiple_of(LOOK_EVERY) && !self.observer.goes_on() {
                return false;
            }
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Due { session } => self.due(session),
            Event::Arrive { request } => self.arrive(request, 0),
            Event::Reach(attempt) => self.reach(attempt),
            Event::Step { machine, turn } => self.step(machine as usize, turn),
            Event::First(attempt) => self.first(attempt),
            Event::Done(attempt) => self.done(attempt),
            Event::TooLarge(attempt) => self.too_large(attempt),
            Event::Lost { attempt, gone } => self.lost(attempt, gone),
            Event::Broken(attempt) => self.broken(attempt),
            Event::Silent(attempt) => self.silent(attempt),
            Event::Abort { machine, job } => self.abort(machine as usize, job),
            Event::Gone { request, hop } => self.gone(request, usize::from(hop)),
            Event::Ended { request } => self.ended(request),
            Event::Tick { node } => self.tick(node as usize),
            Event::Ask(ask) => self.ask(ask),
            Event::Asked { ask, sent } => self.asked(ask, sent),
            Event::Answered { ask, answer } => self.answered(ask, answer),
            Event::Tell { node } => self.tell(node as usize),
            Event::Hear { node, target, told } => self.hear(node as usize, target as usize, &told),
            Event::Listen { node, target } => self.listen(node as usize, target as usize),
            Event::Call { node, target } => self.call(node as usize, target as usize),
            Event::Called { node, target } => self.called(node as usize, target as usize),
            Event::Share { node } => self.share(node as usize),
            Event::Shared { node, from, sent, shares } => self.shared(node as usize, from, sent, &shares),
            Event::Fault { fault, ends } => self.fault(fault as usize, ends),
        }
    }

    fn request(&self, request: u32) -> &Request {
        self.requests[request as usize].as_deref().expect("events of a request end with it")
    }

    fn request_mut(&mut self, request: u32) -> &mut Request {
        self.requests[request as usize].as_deref_mut().expect("events of a request end with it")
    }

    fn collect(mut self, stopped: bool) -> Played {
        self.give_up();
        self.samples.sort_unstable_by_key(|(place, _)| *place);
        let unsent = if stopped { 0 } else { self.unsent() };
        let tokens = self.machines.iter().map(Machine::tokens).sum();
        Played {
            unsent,
            stopped,
            retried: self.retried,
            forwarded: self.forwarded,
            recalled: self.recalled.calls,
            recalled_begun: self.recalled.begun,
            health_changes: node::health_changes(&self.nodes),
            prediction_error_ms: node::prediction_error(&self.nodes, Sample::error),
            prediction_error_ratio: node::prediction_error(&self.nodes, |sample| sample.relative().abs()),
            events: Events { tokens, ..self.events },
            busy_ms: self.machines.iter().map(Machine::busy_ms).collect(),
            queued: self.nodes.iter().map(|node| node.router.queue_len() as u64).sum(),
            in_flight: self.nodes.iter().map(|node| node.router.in_flight() as u64).sum(),
            end: self.now,
            samples: self.samples.into_iter().map(|(_, sample)| sample).collect(),
        }
    }
}

/// Name and region of a replica.
fn server(replica: &Replica) -> (Arc<str>, Arc<str>) {
    (replica.name.as_str().into(), replica.region.as_str().into())
}

/// Is this replica another agent?
fn is_peer(kind: ReplicaKind) -> bool {
    kind == ReplicaKind::Peer
}
