//! What makes a gateway an agent: it sits beside one node's engine, and other agents are among its replicas.
//!
//! A request makes one hop at most. The sender says so in `x-gorgo-hop`, which counts only when it comes from a configured peer's address,
//! where a central router may stand beside that peer, or from this very machine, where one may stand beside this agent: nobody else may
//! pin work to a node. Addresses are all that peers know each other by so far, so the port for requests belongs on a private network. Should two agents not know each other's addresses (a translated one, say), no request circles all the same: every
//! agent signs what it forwards in `via`, and what carries its own mark stays.

use std::sync::atomic::Ordering;

use http::header::VIA;
use http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::clock::wall_micros;
use super::headers::HOP;
use super::origin::Origin;
use super::serve::Shared;
use super::settings::AgentConfig;
use crate::routing::filter::GATE_GAUGE_AGE_MS;
use crate::routing::{Gauges, Health, ReplicaKind, ReplicaSnapshot};
use crate::wire::PeerState;

/// An agent's identity.
pub(super) struct Agent {
    config: AgentConfig,
    via: HeaderValue,
}

impl Agent {
    /// A new one, whose mark differs from that of every other start.
    #[must_use]
    pub(super) fn new(config: AgentConfig) -> Self {
        let mark = xxh3_64_with_seed(config.name.as_bytes(), wall_micros());
        let via = HeaderValue::from_str(&format!("1.1 gorgo-{mark:016x}")).expect("hexadecimal digits");
        Self { config, via }
    }

    /// Its mark in `via`.
    #[must_use]
    pub(super) fn via(&self) -> &HeaderValue {
        &self.via
    }

    /// Has this request been here before?
    fn knows(&self, headers: &HeaderMap) -> bool {
        let mut marks = headers.get_all(VIA).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        marks.any(|mark| mark.trim_ascii() == self.via.as_bytes())
    }
}

impl Shared {
    /// Must this request stay here, because it has made its hop?
    #[must_use]
    pub(super) fn forwarded(&self, headers: &HeaderMap, origin: &Origin) -> bool {
        let Some(agent) = &self.agent else { return false };
        agent.knows(headers) || (headers.contains_key(HOP) && self.is_ours(origin))
    }

    /// Is this a configured peer, by its address, or somebody on this machine?
    fn is_ours(&self, origin: &Origin) -> bool {
        if origin.is_here() {
            return true;
        }
        let state = self.brain.lock();
        let mut peers = state.replicas.values().filter(|replica| replica.config.kind == ReplicaKind::Peer);
        peers.any(|peer| peer.figures().addresses.contains(&origin.address()))
    }

    /// How this agent and its own engine are doing, for a client that is a peer, or a router beside one.
    #[must_use]
    pub(super) fn peer_state(&self, origin: &Origin) -> Option<PeerState> {
        let agent = self.agent.as_ref()?;
        if !self.is_ours(origin) {
            return None;
        }
        let snapshot = self.brain.lock().router.snapshot(self.brain.clock().now());
        let own: Vec<&ReplicaSnapshot> =
            snapshot.replicas.iter().filter(|replica| replica.spec.kind == ReplicaKind::Engine).collect();
        let serves = own.iter().any(|engine| engine.health == Health::Healthy && !engine.draining);
        let figure =
            |of: fn(&Gauges) -> Option<f64>| own.iter().filter_map(|engine| of(fresh(engine)?)).reduce(f64::max);
        Some(PeerState {
            name: agent.config.name.clone(),
            region: agent.config.region.clone(),
            serving: serves && !self.draining.load(Ordering::Relaxed),
            running: own.iter().map(|engine| engine.in_flight as u64).sum(),
            queued: snapshot.queue.len as u64,
            kv_usage: figure(|gauges| gauges.kv_usage),
            kv_tokens: figure(|gauges| gauges.kv_tokens),
        })
    }
}

/// The gauges of an engine, unless they are too old to go by.
fn fresh(engine: &ReplicaSnapshot) -> Option<&Gauges> {
    let young = engine.gauges_age_ms.is_some_and(|age| age <= GATE_GAUGE_AGE_MS);
    engine.gauges.as_ref().filter(|_| young)
}

#[cfg(test)]
mod tests {
    use http::header::VIA;
    use http::{HeaderMap, HeaderValue};

    use super::{Agent, AgentConfig};
    use crate::model::Region;

    #[test]
    fn an_agent_knows_its_own_mark_wherever_it_stands() {
        let agent = |name: &str| Agent::new(AgentConfig { name: name.into(), region: Region::new("r") });
        let (east, west) = (agent("east"), agent("west"));
        let mark = |agent: &Agent| agent.via().to_str().unwrap().to_owned();
        let cases = [
            (vec![], false),
            (vec!["1.1 gorgo".to_owned()], false),
            (vec![mark(&west)], false),
            (vec![mark(&east)], true),
            (vec!["1.1 front".to_owned(), mark(&east)], true),
            (vec![format!("1.1 front, {} ,1.1 gorgo", mark(&east))], true),
        ];
        for (values, known) in cases {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(VIA, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(east.knows(&headers), known, "{values:?}");
        }
    }
}
