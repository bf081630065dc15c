//! What a simulation is given and what it leaves.

use crate::model::Time;
use crate::report::Sample;
use crate::routing::Settings;
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::workload::{Fleet, Home, Plan};

/// Everything that a run depends on.
#[derive(Clone, Copy, Debug)]
pub struct Scenario<'a> {
    /// Routers, replicas, clients and the network between them.
    pub fleet: &'a Fleet,
    /// The engines of the fleet's replicas, in order.
    pub specs: &'a [EngineSpec],
    /// What is sent.
    pub plan: &'a Plan,
    /// Where the clients of each session of the plan stand, in order.
    pub homes: &'a [Home],
    /// Strategy and limits of every router.
    pub routing: &'a Settings,
    /// What routers learn, how late and how often.
    pub edge: Edge,
    /// What goes wrong.
    pub faults: &'a [Fault],
    /// What counts, and when it ends.
    pub measured: Measured,
    /// Seed of delays and of random strategies.
    pub seed: u64,
}

/// The edge of a router: what it learns of the world, how often and how late. Defaults are the gateway's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// Time between two round-trip probes of a replica, which are the health checks as well, ms.
    pub rtt_every_ms: f64,
    /// Time between two readings of an engine's gauges, ms.
    pub gauges_every_ms: f64,
    /// Time between two states of a router that the others are told, ms.
    pub peers_every_ms: f64,
    /// A peer that has said nothing for so long is given up, and what waits for an answer of it tried elsewhere, ms.
    pub peers_silence_ms: f64,
    /// Longest wait for the answer to a probe, ms.
    pub probe_timeout_ms: f64,
    /// Longest silence of an engine, ms.
    pub upstream_timeout_ms: f64,
    /// Each router's clock is so much ahead of that of the router before it in the fleet, ms.
    pub clocks_apart_ms: f64,
    /// Share of the answers that carry usage, 0..=1.
    pub usage: f64,
    /// Clients that are refused because they would be late send the same request again after so long, ms; infinite = never.
    pub come_back_ms: f64,
    /// Routers are told each replica's prefill rate, as an operator would who knows the GPUs.
    pub rates: bool,
    /// How routers know of each other.
    pub news: News,
    /// TCP's congestion window of idle connections begins anew (as in the emulator's relay).
    pub slow_start: bool,
    /// Delays of every link rise by 1.3 to 3 times for some 20 s every 4 minutes or so.
    pub rtt_spells: bool,
}

/// How routers know of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum News {
    /// By what they tell each other, at its interval and after its way.
    #[default]
    Told,
    /// Routers of the direct form know only of their own requests. Agents cannot do without telling each other that they serve.
    Own,
    /// What they would tell is known everywhere at once, before every decision: the bound of what news can give.
    Oracle,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            rtt_every_ms: 1000.0,
            gauges_every_ms: 500.0,
            peers_every_ms: 200.0,
            peers_silence_ms: 3000.0,
            probe_timeout_ms: 5000.0,
            upstream_timeout_ms: 600_000.0,
            clocks_apart_ms: 0.0,
            usage: 1.0,
            come_back_ms: f64::INFINITY,
            rates: true,
            news: News::Told,
            slow_start: true,
            rtt_spells: false,
        }
    }
}

/// Which requests count and when a run ends, ms from its start: the rules of the load generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Sessions that start from here on count, in a closed loop requests that are sent from here on.
    pub from_ms: f64,
    /// No session starts from here on, in a closed loop no request is sent.
    pub to_ms: f64,
    /// How long requests under way may go on after the last start.
    pub drain_ms: f64,
}

/// What a run left.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// One sample per request sent, by session in the order of the plan; within a session in order.
    pub samples: Vec<Sample>,
    /// Requests of sessions that count and had started that were never sent, because the time was up first.
    pub unsent: u64,
    /// The observer ended it.
    pub stopped: bool,
    /// Attempts that routers repeated elsewhere.
    pub retried: u64,
    /// Requests that an agent gave to a peer.
    pub forwarded: u64,
    /// Attempts that routers called back from engines that were late.
    pub recalled: u64,
    /// Of these, those that their engine had begun when the call came: work done twice.
    pub recalled_begun: u64,
    /// How often routers took one of their replicas out of rotation, or in again.
    pub health_changes: u64,
    /// Median of |predicted − observed| time to first token at the routers over their latest replies, ms.
    pub prediction_error_ms: Option<f64>,
    /// Median of the same relative to what was observed.
    pub prediction_error_ratio: Option<f64>,
    /// What it took.
    pub events: Events,
    /// Time at work of each machine, ms.
    pub busy_ms: Vec<f64>,
    /// Requests left in routers' queues.
    pub queued: u64,
    /// Requests left at replicas, as routers see it.
    pub in_flight: u64,
    /// When it ended.
    pub end: Time,
}

/// Events of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Handled one by one.
    pub handled: u64,
    /// Tokens generated, which the engine model handles step by step.
    pub tokens: u64,
}

impl Events {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.handled + self.tokens
    }
}

/// Watches a run and may end it.
pub trait Observer {
    /// A request goes out.
    fn sent(&mut self) {}

    /// A request ended; `home` is the region of its client's router.
    fn ended(&mut self, _sample: &Sample, _home: &str) {}

    /// False ends the run.
    fn goes_on(&mut self) -> bool {
        true
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
