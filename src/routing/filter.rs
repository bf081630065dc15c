//! Who may serve a request at all, before anybody is scored.
//!
//! Order of the filters, the first that fails is the reason recorded: residency, hop, health, model, drain, tried, capacity. "Tried"
//! comes before capacity because a replica that already failed the request is not worth waiting for.
//! When every replica is unhealthy the request is refused ([`Refusal::NoneHealthy`]) rather than sent at random: health has
//! hysteresis, so this means several failures in a row everywhere, and an error at once is better than a hang.

use super::decision::{Excluded, Refusal};
use super::features::Features;
use super::fleet::{Fleet, Gauges, Replica, ReplicaKind};
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
    /// "Running" is this router's own count of requests in flight, not the engine's gauge: the gauge lags by up to a poll. At a peer,
    /// `others` have requests, too.
    #[must_use]
    pub fn closed(&self, load: &Load, others: f64, gauges: Option<Gauges>) -> bool {
        // Half a request of an estimate is none.
        load.in_flight() as f64 + others.round() >= f64::from(self.max_running) || self.kv_full(gauges)
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
                && !replica.is_draining()
                && !tried.contains(&replica.id)
                && replica.spec.serves(features.model.as_deref())
                && self.reachable(replica, features)
        });
        self.fleet.iter().map(|replica| self.exclude(replica, features, tried, proven)).collect()
    }

    fn exclude(&self, replica: &Replica, features: &Features, tried: &[ReplicaId], proven: bool) -> Option<Excluded> {
        if !self.resides(replica, features) {
            return Some(Excluded::Residency);
        }
        if !self.reachable(replica, features) {
            return Some(Excluded::Hop);
        }
        match replica.health() {
            Health::Unhealthy => return Some(Excluded::Unhealthy),
            Health::Unknown if proven => return Some(Excluded::Unhealthy),
            Health::Unknown | Health::Healthy => {}
        }
        if !replica.spec.serves(features.model.as_deref()) {
            return Some(Excluded::Model);
        }
        if replica.is_draining() {
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
        // Of one that has fallen silent, as many as it used to have.
        let others = replica.peer.others(self.now).or_else(|| replica.peer.mean());
        let others = others.map_or(0.0, |others| others.in_flight());
        self.gate.is_some_and(|gate| gate.closed(self.ledger.load(replica.id), others, gauges))
    }

    fn resides(&self, replica: &Replica, features: &Features) -> bool {
        self.residency.allows(features, &replica.spec.region)
    }

    /// Where the request may go at all: residency allows it, and what a peer sent is not sent on to another.
    fn reachable(&self, replica: &Replica, features: &Features) -> bool {
        !again(replica, features) && self.resides(replica, features)
    }

    /// The reason to give when `excluded` (from [`Self::apply`]) leaves nobody and nobody is only waiting for capacity.
    #[must_use]
    pub fn refusal(&self, features: &Features, excluded: &[Option<Excluded>]) -> Refusal {
        // What has made its hop has only the own engine to ask where it may be.
        let mut near = self.fleet.iter().filter(|replica| !again(replica, features));
        let mut reachable = self.fleet.iter().filter(|replica| self.reachable(replica, features));
        if self.fleet.is_empty() {
            Refusal::NoReplica
        } else if near.next().is_some() && reachable.clone().next().is_none() {
            Refusal::Residency
        } else if !reachable.any(|replica| replica.spec.serves(features.model.as_deref())) {
            Refusal::UnknownModel
        } else if excluded.contains(&Some(Excluded::Tried)) {
            Refusal::AllTried
        } else {
            Refusal::NoneHealthy
        }
    }
}

/// Would this be a second hop?
fn again(replica: &Replica, features: &Features) -> bool {
    features.forwarded && replica.spec.kind == ReplicaKind::Peer
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Filters, Gate};
    use crate::model::{Region, ReplicaId, RequestId, Time};
    use crate::routing::fleet::Fleet;
    use crate::routing::ledger::{Demand, Ledger};
    use crate::routing::residency::Residency;
    use crate::routing::{Features, Gauges, HealthThresholds, Limits, Rates, ReplicaKind, ReplicaSpec};

    const NOW: Time = Time::from_micros(60_000_000);

    /// One word per replica, `name:flags`; flags: `u` unhealthy, `?` not checked, `d` draining, `m` serves only model "other", `e` in
    /// eu-1 (else us-1), `f` two requests in flight, `k` KV full, `K` KV full by an old gauge, `t` tried, `p` a peer.
    fn fleet(text: &str) -> (Fleet, Ledger, Vec<ReplicaId>) {
        let (mut fleet, mut ledger, mut tried) = (Fleet::default(), Ledger::default(), Vec::new());
        for word in text.split_whitespace() {
            let (name, flags) = word.split_once(':').unwrap();
            let has = |flag: char| flags.contains(flag);
            let id = fleet.upsert(ReplicaSpec {
                name: name.into(),
                region: Region::new(if has('e') { "eu-1" } else { "us-1" }),
                kind: if has('p') { ReplicaKind::Peer } else { ReplicaKind::Engine },
                models: if has('m') { vec!["other".into()] } else { Vec::new() },
                limits: Limits::default(),
                rates: Rates::default(),
            });
            let replica = fleet.get_mut(id).unwrap();
            let checks = if has('u') { 3 } else { u32::from(!has('?')) };
            for _ in 0..checks {
                replica.observe_health(!has('u'), HealthThresholds::default());
            }
            replica.draining = has('d');
            if has('k') || has('K') {
                let age = if has('K') { 5001.0 } else { 5000.0 };
                let gauges = Gauges { kv_usage: Some(0.95), ..Gauges::default() };
                replica.observe_gauges(Time::from_ms(NOW.ms() - age), gauges);
            }
            for _ in 0..if has('f') { 2 } else { 1 } {
                let demand = Demand { prompt_tokens: 1, uncached_tokens: 1, output_tokens: 1 };
                ledger.dispatch(RequestId(ledger.in_flight() as u64), id, demand, NOW);
            }
            tried.extend(has('t').then_some(id));
        }
        (fleet, ledger, tried)
    }

    fn outcome(text: &str, gate: Option<Gate>, class: Option<&str>) -> String {
        let (fleet, ledger, tried) = fleet(text);
        let classes = [("eu".to_owned(), vec!["eu-*".to_owned()]), ("mars".to_owned(), vec!["mars-*".to_owned()])];
        let residency = Residency { classes: classes.into(), ..Residency::default() };
        let filters = Filters { fleet: &fleet, ledger: &ledger, residency: &residency, gate, now: NOW };
        let features = Features {
            model: Some("m".into()),
            residency: class.into_iter().flat_map(str::split_whitespace).filter(|class| *class != "hop").collect(),
            forwarded: class.is_some_and(|class| class.contains("hop")),
            ..Features::default()
        };
        let verdicts = filters.apply(&features, &tried);
        let words: Vec<&str> = verdicts.iter().map(|verdict| verdict.map_or("ok", |reason| reason.as_str())).collect();
        let nobody = verdicts.iter().all(Option::is_some);
        let refusal = if nobody { filters.refusal(&features, &verdicts).as_str() } else { "-" };
        format!("{:<28} {:<60} {refusal}\n", format!("{text} {}", class.unwrap_or("")), words.join(" "))
    }

    #[test]
    fn who_is_left_out_and_why() {
        let gate = Some(Gate { max_running: 2, max_kv_usage: 0.95 });
        let cases = [
            ("", None),
            ("a: b:u c:d d:m e:f f:k g:t", None),
            ("a:f b:k c:K", None),
            ("a:? b:?", None),
            ("a:? b:", None),
            ("a:? b:d c:m d:t", None),
            ("a:u b:u", None),
            ("a:u b:d", None),
            ("a:m b:m", None),
            ("a:m b:u", None),
            ("a:mu", None),
            ("a:t b:u", None),
            ("a:tf b:f", None),
            ("a:e b: c:eu", Some("eu")),
            ("a: b:u", Some("eu")),
            ("a:e b:e", Some("mars")),
            ("a:e b:e", Some("unknown")),
            ("a:eumdtf", None),
            ("a:udmtf", Some("eu")),
            ("a: b:p", None),
            ("a: b:p", Some("hop")),
            ("a:? b:p", Some("hop")),
            ("a:u b:p", Some("hop")),
            ("a:m b:p", Some("hop")),
            ("a:t b:p", Some("hop")),
            ("a: b:pe", Some("eu hop")),
            ("a:e b:p", Some("eu hop")),
        ];
        let table: String = cases.into_iter().map(|(fleet, class)| outcome(fleet, gate, class)).collect();
        assert_snapshot!(table, @r"
                                                                                                  no_replica
        a: b:u c:d d:m e:f f:k g:t   ok unhealthy draining model capacity capacity tried          -
        a:f b:k c:K                  capacity capacity ok                                         -
        a:? b:?                      ok ok                                                        -
        a:? b:                       unhealthy ok                                                 -
        a:? b:d c:m d:t              ok draining model tried                                      -
        a:u b:u                      unhealthy unhealthy                                          none_healthy
        a:u b:d                      unhealthy draining                                           none_healthy
        a:m b:m                      model model                                                  unknown_model
        a:m b:u                      model unhealthy                                              none_healthy
        a:mu                         unhealthy                                                    unknown_model
        a:t b:u                      tried unhealthy                                              all_tried
        a:tf b:f                     tried capacity                                               all_tried
        a:e b: c:eu eu               ok residency unhealthy                                       -
        a: b:u eu                    residency residency                                          residency
        a:e b:e mars                 residency residency                                          residency
        a:e b:e unknown              residency residency                                          residency
        a:eumdtf                     unhealthy                                                    unknown_model
        a:udmtf eu                   residency                                                    residency
        a: b:p                       ok ok                                                        -
        a: b:p hop                   ok hop                                                       -
        a:? b:p hop                  ok hop                                                       -
        a:u b:p hop                  unhealthy hop                                                none_healthy
        a:m b:p hop                  model hop                                                    unknown_model
        a:t b:p hop                  tried hop                                                    all_tried
        a: b:pe eu hop               residency hop                                                residency
        a:e b:p eu hop               ok residency                                                 -
        ");
    }

    #[test]
    fn without_a_gate_nothing_is_full() {
        assert_eq!(
            outcome("a:f b:k", None, None).split_whitespace().collect::<Vec<_>>(),
            ["a:f", "b:k", "ok", "ok", "-"]
        );
    }
}
