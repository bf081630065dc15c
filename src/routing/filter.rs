//! Who may serve a request at all, before anybody is scored.
//!
//! Order of the filters, the first that fails is the reason recorded: residency, health, model, drain, tried, capacity. "Tried"
//! comes before capacity because a replica that already failed the request is not worth waiting for.
//! When every replica is unhealthy the request is refused ([`Refusal::NoneHealthy`]) rather than sent at random: health has
//! hysteresis, so this means several failures in a row everywhere, and an error at once is better than a hang.

use super::decision::{Excluded, Refusal};
use super::features::Features;
use super::fleet::{Fleet, Gauges, Replica};
use super::health::Health;
use super::ledger::{Ledger, Load};
use super::residency::Residency;
use crate::model::{ReplicaId, Time};

/// KV use at which a rule with a gate sends nothing more (the paper's proxies).
pub const KV_USAGE_LIMIT: f64 = 0.95;

/// Gauges older than this close no gate, ms: a replica whose metrics have stopped must not be held shut by its last reading.
pub const GATE_GAUGE_AGE_MS: f64 = 5_000.0;

/// A capacity gate: while it is closed for every replica that could serve a request, the request waits in the router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Most requests of this router in flight at a replica.
    pub max_running: u32,
    /// KV use (0..=1) from which the replica takes nothing more, if its gauges are fresh.
    pub max_kv_usage: f64,
}

impl Gate {
    /// Does it keep requests from a replica with this load?
    ///
    /// "Running" is this router's own count of requests in flight, not the engine's gauge: the gauge lags by up to a poll.
    #[must_use]
    pub fn closed(&self, load: &Load, gauges: Option<Gauges>) -> bool {
        load.in_flight() >= self.max_running as usize || self.kv_full(gauges)
    }

    /// Is it closed by KV use?
    #[must_use]
    pub fn kv_full(&self, gauges: Option<Gauges>) -> bool {
        gauges.and_then(|gauges| gauges.kv_usage).is_some_and(|usage| usage >= self.max_kv_usage)
    }
}

/// The filters of one router at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    /// All replicas.
    pub fleet: &'a Fleet,
    /// What is in flight.
    pub ledger: &'a Ledger,
    /// Residency classes.
    pub residency: &'a Residency,
    /// The gate in force, if any.
    pub gate: Option<Gate>,
    /// The moment.
    pub now: Time,
}

impl Filters<'_> {
    /// Why each replica, in fleet order, may not serve the request; `None` = it may.
    #[must_use]
    pub fn apply(&self, features: &Features, tried: &[ReplicaId]) -> Vec<Option<Excluded>> {
        let proven = self.fleet.iter().any(|replica| {
            replica.health() == Health::Healthy
                && !replica.draining
                && !tried.contains(&replica.id)
                && replica.spec.serves(features.model.as_deref())
                && self.resides(replica, features)
        });
        self.fleet.iter().map(|replica| self.exclude(replica, features, tried, proven)).collect()
    }

    fn exclude(&self, replica: &Replica, features: &Features, tried: &[ReplicaId], proven: bool) -> Option<Excluded> {
        if !self.resides(replica, features) {
            return Some(Excluded::Residency);
        }
        match replica.health() {
            Health::Unhealthy => return Some(Excluded::Unhealthy),
            Health::Unknown if proven => return Some(Excluded::Unhealthy),
            Health::Unknown | Health::Healthy => {}
        }
        if !replica.spec.serves(features.model.as_deref()) {
            return Some(Excluded::Model);
        }
        if replica.draining {
            return Some(Excluded::Draining);
        }
        if tried.contains(&replica.id) {
            return Some(Excluded::Tried);
        }
        self.gate_closed(replica).then_some(Excluded::Capacity)
    }

    /// Is the gate closed for this replica?
    #[must_use]
    pub fn gate_closed(&self, replica: &Replica) -> bool {
        let gauges = replica.fresh_gauges(self.now, GATE_GAUGE_AGE_MS);
        self.gate.is_some_and(|gate| gate.closed(self.ledger.load(replica.id), gauges))
    }

    fn resides(&self, replica: &Replica, features: &Features) -> bool {
        self.residency.allows(features.residency.as_deref(), &replica.spec.region)
    }

    /// The reason to give when `excluded` (from [`Self::apply`]) leaves nobody and nobody is only waiting for capacity.
    #[must_use]
    pub fn refusal(&self, features: &Features, excluded: &[Option<Excluded>]) -> Refusal {
        let mut allowed = self.fleet.iter().filter(|replica| self.resides(replica, features)).peekable();
        if self.fleet.is_empty() {
            Refusal::NoReplica
        } else if allowed.peek().is_none() {
            Refusal::Residency
        } else if !allowed.any(|replica| replica.spec.serves(features.model.as_deref())) {
            Refusal::UnknownModel
        } else if excluded.contains(&Some(Excluded::Tried)) {
            Refusal::AllTried
        } else {
            Refusal::NoneHealthy
        }
    }
}
