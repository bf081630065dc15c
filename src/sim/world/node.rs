//! A router and its ways to its replicas.

use std::sync::Arc;

use super::exchange::{EPOCH, Ear, Mouth};
use super::is_peer;
use super::machine::Machine;
use super::scenario::Scenario;
use crate::model::{Region, ReplicaId, Time};
use crate::report::percentile::{nearest_rank, sorted};
use crate::routing::prediction::Sample;
use crate::routing::{Gauges, Limits, Rates, ReplicaKind, ReplicaSpec, Router, SettingsError};
use crate::sim::engine::EngineSpec;
use crate::sim::link::{Connection, Link, LinkKind, Weather};
use crate::workload::Fleet;

/// Prompt length at which a replica's rates are taken, tokens: about the mean of the bundled trace, as in `gorgo demo`.
const RATE_TOKENS: u32 = 4096;

/// A router with everything around it.
pub(super) struct Node {
    pub(super) router: Router,
    /// Of its region.
    pub(super) name: Arc<str>,
    region: Region,
    /// Its replicas in the router's order; the router's id of each is its index.
    pub(super) targets: Vec<Target>,
    /// Ways of the clients whose router it is, by group of clients; `None` beside the router itself or elsewhere.
    pub(super) clients: Vec<Option<Link>>,
    /// Ways to the other routers that use the same engines, by router; none to itself.
    pub(super) others: Vec<Option<Line>>,
    /// For when a look at the queue is planned.
    pub(super) tick_at: Option<Time>,
}

/// A replica as a router reaches it.
pub(super) struct Target {
    pub(super) to: To,
    pub(super) link: Link,
    /// For probes, gauges and news.
    pub(super) control: Box<Connection>,
    /// What this peer is told.
    pub(super) mouth: Option<Mouth>,
    /// What is heard of this peer.
    pub(super) ear: Ear,
}

/// A way to another router.
pub(super) struct Line {
    pub(super) link: Link,
    pub(super) connection: Box<Connection>,
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// A machine, by its index.
    Engine(usize),
    /// Another node, by its index.
    Peer(usize),
}

impl Target {
    /// The router's id of the target at `index`.
    pub(super) fn id(index: usize) -> ReplicaId {
        ReplicaId(index as u32)
    }
}

/// All routers of a scenario, their replicas known, healthy and measured once, as a gateway's are after its first seconds.
pub(super) fn all(scenario: &Scenario<'_>) -> Result<Vec<Node>, SettingsError> {
    (0..scenario.fleet.routers.len()).map(|index| node(scenario, index)).collect()
}

fn node(scenario: &Scenario<'_>, index: usize) -> Result<Node, SettingsError> {
    let fleet = scenario.fleet;
    let region = fleet.routers[index].region.clone();
    let agents = fleet.has_agents();
    let mut settings = scenario.routing.clone();
    settings.places = Arc::clone(&fleet.places);
    settings.seed = settings.seed.wrapping_add(index as u64);
    let mut node = Node {
        router: Router::new(settings)?,
        name: region.as_str().into(),
        region: region.clone(),
        targets: Vec::new(),
        clients: Vec::new(),
        others: Vec::new(),
        tick_at: None,
    };
    for (machine, replica) in fleet.replicas.iter().enumerate().filter(|(_, at)| !agents || at.region == region) {
        let spec = &scenario.specs[machine];
        let known = ReplicaSpec {
            name: replica.name.as_str().into(),
            region: replica.region.clone(),
            kind: ReplicaKind::Engine,
            models: Vec::new(),
            limits: Limits::default(),
            rates: rates(scenario, spec),
        };
        node.add(scenario, known, To::Engine(machine), way(fleet, index, machine));
    }
    for (peer, router) in fleet.routers.iter().enumerate().filter(|(peer, _)| agents && *peer != index) {
        // Of the engines behind a peer the first stands for its rates.
        let behind = fleet.replicas.iter().position(|replica| replica.region == router.region);
        let known = ReplicaSpec {
            name: router.region.as_str().into(),
            region: router.region.clone(),
            kind: ReplicaKind::Peer,
            models: Vec::new(),
            limits: Limits::default(),
            rates: behind.map_or(Rates::default(), |machine| rates(scenario, &scenario.specs[machine])),
        };
        let number = fleet.replicas.len() + index * fleet.routers.len() + peer;
        node.add(scenario, known, To::Peer(peer), number as u64);
    }
    if agents {
        node.router.publish();
        node.speak();
    }
    node.clients = clients(scenario, &region);
    node.others = if agents { Vec::new() } else { others(scenario, index) };
    Ok(node)
}

/// Number of the link from a router to a machine: only routers that reach engines of all regions have ways of their own to one.
fn way(fleet: &Fleet, router: usize, machine: usize) -> u64 {
    let others = fleet.replicas.len() + fleet.routers.len() * fleet.routers.len() + fleet.clients.len();
    let own = if fleet.has_agents() || router == 0 { 0 } else { others + (router - 1) * fleet.replicas.len() };
    (own + machine) as u64
}

impl Node {
    /// Opens a stream to every peer.
    fn speak(&mut self) {
        for target in 0..self.targets.len() {
            if let To::Peer(_) = self.targets[target].to {
                self.open_stream(target, 0);
            }
        }
    }

    /// Opens a stream of this number to a peer.
    pub(super) fn open_stream(&mut self, target: usize, stream: u32) {
        let listener = self.router.replicas().nth(target).map(|peer| peer.spec.region.clone());
        let listener = listener.expect("targets stand in the router's order");
        self.targets[target].mouth = Some(Mouth::new(stream, &self.router, &listener));
    }

    /// Adds a replica over link number `number` of the fleet.
    fn add(&mut self, scenario: &Scenario<'_>, spec: ReplicaSpec, to: To, number: u64) {
        let link = link(scenario, &self.region, &spec.region, number);
        let control = link.control();
        let rtt_ms = link.rtt_ms();
        let engine = !is_peer(spec.kind);
        let (id, _) = self.router.add_replica(Time::ZERO, spec);
        debug_assert_eq!(id, Target::id(self.targets.len()), "ids are given out in order");
        self.router.rtt(Time::ZERO, id, rtt_ms);
        if engine && let To::Engine(machine) = to {
            let kv_tokens = Some(scenario.specs[machine].kv_tokens as f64);
            let idle = Gauges { kv_tokens, running: Some(0.0), waiting: Some(0.0), ..Gauges::default() };
            self.router.gauges(Time::ZERO, id, idle);
            self.router.limits(Time::ZERO, id, Machine::limits(&scenario.specs[machine]));
        }
        self.router.health(Time::ZERO, id, true);
        self.router.greet(id, EPOCH);
        let ear = Ear { stream: 0, heard: Some(Time::ZERO) };
        self.targets.push(Target { to, link, control, mouth: None, ear });
    }
}

/// Ways from a router to all others.
fn others(scenario: &Scenario<'_>, from: usize) -> Vec<Option<Line>> {
    let fleet = scenario.fleet;
    let region = &fleet.routers[from].region;
    let first = fleet.replicas.len() + from * fleet.routers.len();
    let line = |(to, router): (usize, &crate::workload::fleet::Router)| {
        let link = link(scenario, region, &router.region, (first + to) as u64);
        (to != from).then(|| Line { connection: link.control(), link })
    };
    fleet.routers.iter().enumerate().map(line).collect()
}

/// Ways of all groups of clients to a router in `region`.
fn clients(scenario: &Scenario<'_>, region: &Region) -> Vec<Option<Link>> {
    let fleet = scenario.fleet;
    let first = fleet.replicas.len() + fleet.routers.len() * fleet.routers.len();
    let way = |(group, clients): (usize, &crate::workload::fleet::Clients)| {
        let apart = clients.region != *region && fleet.routers[clients.router].region == *region;
        apart.then(|| link(scenario, &clients.region, region, (first + group) as u64))
    };
    fleet.clients.iter().enumerate().map(way).collect()
}

fn link(scenario: &Scenario<'_>, from: &Region, to: &Region, number: u64) -> Link {
    let fleet = scenario.fleet;
    let kind = LinkKind {
        jitter: fleet.jitter,
        slow_start: scenario.edge.slow_start,
        spells: scenario.edge.rtt_spells && from != to,
    };
    let weather = Weather::between(from.as_str(), to.as_str(), scenario.faults);
    // A checked fleet knows every pair that is used.
    let rtt_ms = fleet.rtt.rtt_ms(from, to).unwrap_or(0.0);
    Link::new(rtt_ms, kind, scenario.seed.wrapping_add(number), weather)
}

/// The prefill time per token of a cold prompt of [`RATE_TOKENS`], for prefill and queue alike, where routers are told.
fn rates(scenario: &Scenario<'_>, spec: &EngineSpec) -> Rates {
    let told = scenario.edge.rates.then(|| spec.lone_prefill_ms(0, RATE_TOKENS) / f64::from(RATE_TOKENS));
    Rates { prefill_ms_per_token: told, queue_ms_per_token: told }
}

/// How often replicas left rotation or came back, as all routers together saw it.
pub(super) fn health_changes(nodes: &[Node]) -> u64 {
    let replicas = nodes.iter().flat_map(|node| node.router.replicas());
    replicas.map(|replica| u64::from(replica.health_changes())).sum()
}

/// Median of a figure of predictions and observations over the latest replies of all routers.
pub(super) fn prediction_error(nodes: &[Node], figure: fn(Sample) -> f64) -> Option<f64> {
    let replicas = nodes.iter().flat_map(|node| node.router.replicas());
    let errors: Vec<f64> = replicas.flat_map(|replica| replica.ttft_ms.iter().map(figure)).collect();
    nearest_rank(&sorted(errors), 500)
}
