//! The router's view of its replicas, in the order of their registration.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::estimate::{Ewma, RTT_MAX_MS, RTT_WEIGHT};
use super::health::{Health, HealthThresholds, HealthTracker};
use super::peer::PeerBook;
use super::prediction::Samples;
use crate::model::geo::Coordinates;
use crate::model::{Region, ReplicaId, Time};

/// Who answers behind a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaKind {
    /// An inference engine. A central proxy has nothing else; on an agent it is the node's own.
    #[default]
    Engine,
    /// Another node's agent, which decides for itself but does not send the request on.
    Peer,
}

/// What is configured of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSpec {
    /// Unique name.
    pub name: Arc<str>,
    /// Where it stands.
    pub region: Region,
    /// Who answers there.
    pub kind: ReplicaKind,
    /// Models it serves; empty = any.
    pub models: Vec<Arc<str>>,
    /// Its limits.
    pub limits: Limits,
    /// Its configured rates.
    pub rates: Rates,
}

impl ReplicaSpec {
    /// An engine of which nothing else is known, for tests.
    #[cfg(test)]
    pub(crate) fn engine(name: &str) -> Self {
        Self {
            name: name.into(),
            region: Region::new("r"),
            kind: ReplicaKind::Engine,
            models: Vec::new(),
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }

    /// Does it serve this model? A request that names none goes anywhere.
    #[must_use]
    pub fn serves(&self, model: Option<&str>) -> bool {
        let Some(model) = model else { return true };
        self.models.is_empty() || self.models.iter().any(|served| **served == *model)
    }
}

/// Limits of a replica; `None` = unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// KV cache capacity, tokens.
    pub kv_tokens: Option<u64>,
}

/// Rates of a replica that override the strategy's; `None` = the strategy's own, and so is one that is negative or not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Prefill time per uncached token, ms.
    pub prefill_ms_per_token: Option<f64>,
    /// Queueing time per queued token, ms.
    pub queue_ms_per_token: Option<f64>,
}

impl Rates {
    fn plausible(self) -> Self {
        let plausible = |rate: Option<f64>| rate.filter(|rate| rate.is_finite() && *rate >= 0.0);
        Self {
            prefill_ms_per_token: plausible(self.prefill_ms_per_token),
            queue_ms_per_token: plausible(self.queue_ms_per_token),
        }
    }
}

/// Engine gauges as last read from its metrics; `None` = the engine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Requests in the running batch.
    pub running: Option<f64>,
    /// Requests waiting in the engine.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, 0..=1.
    pub kv_usage: Option<f64>,
    /// Tokens of KV in use.
    pub used_tokens: Option<f64>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<f64>,
}

impl Gauges {
    /// Without the readings that are negative or not finite.
    #[must_use]
    pub fn plausible(self) -> Self {
        let plausible = |reading: Option<f64>| reading.filter(|reading| reading.is_finite() && *reading >= 0.0);
        Self {
            running: plausible(self.running),
            waiting: plausible(self.waiting),
            kv_usage: plausible(self.kv_usage),
            used_tokens: plausible(self.used_tokens),
            kv_tokens: plausible(self.kv_tokens),
        }
    }
}

/// What an engine says of its own settings; `None` = it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLimits {
    /// Requests that it runs at once at most.
    pub max_running: Option<u32>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<u64>,
    /// Prompt tokens that it takes into one step at most.
    pub batch_tokens: Option<u32>,
    /// Is it one queue, first come first served?
    pub in_order: Option<bool>,
}

/// A replica as the router sees it, the ledger's figures apart.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its identity in this router.
    pub id: ReplicaId,
    /// What is configured.
    pub spec: ReplicaSpec,
    /// Where its region is, if that is known.
    pub place: Option<Coordinates>,
    /// Taken out by an operator.
    pub draining: bool,
    /// Round trip, ms.
    pub rtt: Ewma,
    /// Gauges and when they were read; only plausible readings.
    pub gauges: Option<(Time, Gauges)>,
    /// KV capacity as the engine said last, tokens.
    told_kv_tokens: Option<f64>,
    /// What the engine said of itself when it was asked last.
    pub told: EngineLimits,
    /// Time from dispatch to first token, ms, as scored where the policy's unit is ms, against what it was.
    pub ttft_ms: Samples,
    /// What it tells of itself, if it is a peer.
    pub peer: PeerBook,
    /// What other routers told that they have there, by their numbers.
    pub sharers: BTreeMap<u32, PeerBook>,
    health: HealthTracker,
}

impl Replica {
    fn new(id: ReplicaId, spec: ReplicaSpec) -> Self {
        Self {
            id,
            spec,
            place: None,
            draining: false,
            rtt: Ewma::new(RTT_WEIGHT),
            gauges: None,
            told_kv_tokens: None,
            told: EngineLimits::default(),
            ttft_ms: Samples::default(),
            peer: PeerBook::default(),
            sharers: BTreeMap::new(),
            health: HealthTracker::default(),
        }
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.state()
    }

    /// How often its health has changed since it was first known.
    #[must_use]
    pub fn health_changes(&self) -> u32 {
        self.health.changes()
    }

    /// Takes a health result. True if the state changed.
    pub fn observe_health(&mut self, ok: bool, thresholds: HealthThresholds) -> bool {
        self.health.observe(ok, thresholds)
    }

    /// Nothing is heard of it any more. True if its health changed.
    pub fn condemn(&mut self) -> bool {
        self.health.condemn()
    }

    /// Takes a round trip; one that is negative, not a number or longer than [`RTT_MAX_MS`] is ignored.
    pub fn observe_rtt(&mut self, now: Time, rtt_ms: f64) {
        if (0.0..=RTT_MAX_MS).contains(&rtt_ms) {
            self.rtt.update(now, rtt_ms);
        }
    }

    /// Takes gauges; readings that make no sense count as not told.
    pub fn observe_gauges(&mut self, now: Time, gauges: Gauges) {
        let gauges = gauges.plausible();
        self.told_kv_tokens = gauges.kv_tokens.filter(|tokens| *tokens >= 1.0).or(self.told_kv_tokens);
        self.gauges = Some((now, gauges));
    }

    /// Takes what the engine says of itself: all of it, for it may have been started anew with other settings.
    pub fn observe_limits(&mut self, told: EngineLimits) {
        self.told = told;
        let kv_tokens = told.kv_tokens.filter(|tokens| *tokens >= 1).map(|tokens| tokens as f64);
        self.told_kv_tokens = kv_tokens.or(self.told_kv_tokens);
    }

    /// Gauges that are at most `max_age_ms` old.
    #[must_use]
    pub fn fresh_gauges(&self, now: Time, max_age_ms: f64) -> Option<Gauges> {
        self.gauges.filter(|(at, _)| now.since_ms(*at) <= max_age_ms).map(|(_, gauges)| gauges)
    }

    /// Does it take no new requests, by an operator's word or by its own?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining || self.peer.draining()
    }

    /// KV capacity in tokens: as configured, else as the engine said last. One reading without it changes nothing.
    #[must_use]
    pub fn kv_tokens(&self) -> Option<f64> {
        self.spec.limits.kv_tokens.map(|tokens| tokens as f64).or(self.told_kv_tokens)
    }
}

/// All replicas of a router.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// Ascending ids: they are given out in order and never again.
    replicas: Vec<Replica>,
    next: u32,
}

impl Fleet {
    /// Adds a replica, or changes the configuration of the one with this name and keeps what was learned of it.
    pub fn upsert(&mut self, mut spec: ReplicaSpec) -> ReplicaId {
        spec.rates = spec.rates.plausible();
        if let Some(known) = self.replicas.iter_mut().find(|replica| replica.spec.name == spec.name) {
            known.spec = spec;
            return known.id;
        }
        let id = ReplicaId(self.next);
        self.next += 1;
        self.replicas.push(Replica::new(id, spec));
        id
    }

    /// Forgets a replica. False if it was unknown.
    pub fn remove(&mut self, id: ReplicaId) -> bool {
        let before = self.replicas.len();
        self.replicas.retain(|replica| replica.id != id);
        self.replicas.len() < before
    }

    /// A replica.
    #[must_use]
    pub fn get(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.binary_search_by_key(&id, |replica| replica.id).ok().map(|at| &self.replicas[at])
    }

    /// A replica, to change what is observed of it.
    pub fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
        self.replicas.binary_search_by_key(&id, |replica| replica.id).ok().map(|at| &mut self.replicas[at])
    }

    /// All replicas in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Replica> {
        self.replicas.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// Round trip to assume for a replica without a probe, ms: the longest one known, so that an unmeasured replica never wins for
    /// being unmeasured; 0 while nothing is known.
    #[must_use]
    pub fn assumed_rtt_ms(&self) -> f64 {
        self.replicas.iter().filter_map(|replica| replica.rtt.value()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fleet, Gauges, Limits, Rates, ReplicaKind, ReplicaSpec};
    use crate::model::{Region, ReplicaId, Time};

    fn spec(name: &str) -> ReplicaSpec {
        ReplicaSpec {
            name: name.into(),
            region: Region::new("us-east-1"),
            kind: ReplicaKind::Engine,
            models: vec![],
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }

    #[test]
    fn ids_are_never_reused_and_names_are_unique() {
        let mut fleet = Fleet::default();
        let (a, b) = (fleet.upsert(spec("a")), fleet.upsert(spec("b")));
        assert!(fleet.remove(a) && !fleet.remove(a));
        assert_eq!((b, fleet.upsert(spec("b")), fleet.upsert(spec("a"))), (ReplicaId(1), ReplicaId(1), ReplicaId(2)));
        assert_eq!(fleet.iter().map(|replica| replica.id.0).collect::<Vec<_>>(), [1, 2]);
        assert!(fleet.get(a).is_none() && fleet.get_mut(ReplicaId(2)).is_some());
    }

    #[test]
    fn a_new_configuration_keeps_what_was_learned() {
        let mut fleet = Fleet::default();
        let id = fleet.upsert(spec("a"));
        fleet.get_mut(id).unwrap().observe_rtt(Time::ZERO, 40.0);
        fleet.upsert(ReplicaSpec { models: vec!["m".into()], ..spec("a") });
        let replica = fleet.get(id).unwrap();
        assert_eq!((replica.rtt.value(), replica.spec.serves(Some("x"))), (Some(40.0), false));
    }

    #[test]
    fn nonsense_measurements_are_ignored() {
        let mut fleet = Fleet::default();
        let id = fleet.upsert(spec("a"));
        let replica = fleet.get_mut(id).unwrap();
        for rtt in [-1.0, f64::NAN, f64::INFINITY, 60_001.0] {
            replica.observe_rtt(Time::ZERO, rtt);
        }
        assert_eq!(replica.rtt.value(), None);
        let readings =
            Gauges { kv_tokens: Some(f64::NAN), running: Some(-1.0), waiting: Some(2.0), ..Gauges::default() };
        replica.observe_gauges(Time::ZERO, readings);
        assert_eq!(replica.kv_tokens(), None);
        replica.observe_gauges(Time::ZERO, Gauges { kv_tokens: Some(9e4), ..Gauges::default() });
        replica.observe_gauges(Time::ZERO, readings);
        assert_eq!(replica.kv_tokens(), Some(9e4), "one reading without it changes nothing");
        let kept = Gauges { waiting: Some(2.0), ..Gauges::default() };
        assert_eq!(replica.gauges, Some((Time::ZERO, kept)));
        assert!(replica.fresh_gauges(Time::from_ms(10.0), 10.0).is_some());
        assert!(replica.fresh_gauges(Time::from_ms(10.1), 10.0).is_none());
        assert_eq!(fleet.assumed_rtt_ms(), 0.0);
    }
}
