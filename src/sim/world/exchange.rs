//! What agents tell each other, as a pure message: what it holds, how it is made from a router, and what its hearer does with it.
//!
//! It holds what the gateway's peers tell each other ([`crate::routing::Gauges`] of a peer, and whether it serves). A richer protocol
//! replaces this file: [`Told::of`] at the sender, [`Told::hear`] at the receiver, and nothing else knows what is inside.

use crate::model::{ReplicaId, Time};
use crate::routing::filter::GATE_GAUGE_AGE_MS;
use crate::routing::{Effect, Gauges, Health, ReplicaKind, ReplicaSnapshot, Router};

/// How an agent and its own engines are doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Told {
    /// Takes requests: an engine of its own is in rotation.
    serving: bool,
    gauges: Gauges,
}

impl Told {
    /// What a router tells at `now`.
    pub(super) fn of(router: &Router, now: Time) -> Self {
        let snapshot = router.snapshot(now);
        let own: Vec<&ReplicaSnapshot> =
            snapshot.replicas.iter().filter(|replica| replica.spec.kind == ReplicaKind::Engine).collect();
        let figure =
            |of: fn(&Gauges) -> Option<f64>| own.iter().filter_map(|engine| of(fresh(engine)?)).reduce(f64::max);
        Self {
            serving: own.iter().any(|engine| engine.health == Health::Healthy && !engine.draining),
            gauges: Gauges {
                running: Some(own.iter().map(|engine| engine.in_flight).sum::<usize>() as f64),
                waiting: Some(snapshot.queue.len as f64),
                kv_usage: figure(|gauges| gauges.kv_usage),
                used_tokens: None,
                kv_tokens: figure(|gauges| gauges.kv_tokens),
            },
        }
    }

    /// What a router makes of it, to whom the teller is `peer`.
    pub(super) fn hear(&self, router: &mut Router, now: Time, peer: ReplicaId) -> Vec<Effect> {
        let mut effects = router.gauges(now, peer, self.gauges);
        effects.extend(router.health(now, peer, self.serving));
        effects
    }
}

/// The gauges of an engine, unless they are too old to go by.
fn fresh(engine: &ReplicaSnapshot) -> Option<&Gauges> {
    let young = engine.gauges_age_ms.is_some_and(|age| age <= GATE_GAUGE_AGE_MS);
    engine.gauges.as_ref().filter(|_| young)
}
