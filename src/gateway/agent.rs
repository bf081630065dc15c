//! What makes a gateway an agent: it sits beside one node's engine, and other agents are among its replicas.
//!
//! A request makes one hop at most. The sender says so in `x-gorgo-hop`, which counts only when it comes from a configured peer or a central
//! router of the cluster: nobody else may pin work to a node, or learn how it is. With certificates ([`super::mutual`]) these come to a
//! port of their own, and nobody who comes to the port for requests is one. Without them they are known by address, a peer by that and
//! its name in `x-gorgo-peer`, a router by the address of a peer or of this very machine, so that port belongs on a private network then;
//! should two agents not know each other's addresses (a translated one, say), no request circles all the same: every agent signs what it
//! forwards in `via`, and what carries its own mark stays.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::VIA;
use http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::clock::wall_micros;
use super::connection::Pulse;
use super::headers::{HOP, PEER};
use super::origin::Origin;
use super::peers::Speech;
use super::replica::{Replica, label};
use super::serve::Shared;
use super::settings::AgentConfig;
use crate::model::Part;
use crate::routing::ReplicaKind;
use crate::wire::PeerState;

/// An agent's identity.
pub(super) struct Agent {
    config: AgentConfig,
    /// Another number after each start.
    epoch: u64,
    via: HeaderValue,
    name: HeaderValue,
}

impl Agent {
    /// A new one, whose mark differs from that of every other start.
    #[must_use]
    pub(super) fn new(config: AgentConfig) -> Self {
        let epoch = xxh3_64_with_seed(config.name.as_bytes(), wall_micros());
        let via = HeaderValue::from_str(&format!("1.1 gorgo-{epoch:016x}")).expect("hexadecimal digits");
        let name = label(&config.name);
        Self { config, epoch, via, name }
    }

    /// As configured.
    #[must_use]
    pub(super) fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// A number that is another one after each start.
    #[must_use]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its name, for `x-gorgo-peer`.
    #[must_use]
    pub(super) fn name(&self) -> &HeaderValue {
        &self.name
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

    /// The peer that speaks: the one that its certificate names; without certificates the one of this name, if it has this address.
    #[must_use]
    pub(super) fn speaker(&self, headers: &HeaderMap, origin: &Origin) -> Option<Arc<Replica>> {
        if self.keeper.is_some() {
            let identity = origin.identity().filter(|identity| identity.part() == Part::Agent)?;
            return self.peer(|peer| *peer.name == *identity.node());
        }
        let name = headers.get(&PEER)?;
        self.peer(|peer| peer.name_header == *name && peer.has(origin))
    }

    /// Is this a configured peer, or a central router of the cluster? Certificates tell, where there are certificates; addresses do without.
    #[must_use]
    pub(super) fn is_ours(&self, origin: &Origin) -> bool {
        match (&self.keeper, origin.identity()) {
            (_, Some(identity)) if identity.part() == Part::Proxy => true,
            (_, Some(identity)) => self.peer(|peer| *peer.name == *identity.node()).is_some(),
            (Some(_), None) => false,
            (None, None) => origin.is_here() || self.peer(|peer| peer.has(origin)).is_some(),
        }
    }

    /// The first configured peer of which that is true.
    fn peer(&self, is: impl Fn(&Replica) -> bool) -> Option<Arc<Replica>> {
        let state = self.brain.lock();
        let mut peers = state.replicas.values().filter(|replica| replica.config.kind == ReplicaKind::Peer);
        peers.find(|peer| is(peer)).cloned()
    }

    /// How this agent and its own engine are doing, for a client that is a peer, or a router beside one.
    #[must_use]
    pub(super) fn peer_state(&self, origin: &Origin) -> Option<PeerState> {
        let agent = self.agent.as_ref()?;
        if !self.is_ours(origin) {
            return None;
        }
        let report = self.brain.lock().router.report(self.brain.clock().now(), "");
        Some(PeerState {
            name: agent.config.name.clone(),
            region: agent.config.region.clone(),
            serving: report.serving && !self.draining.load(Ordering::Relaxed),
            running: report.running as u64,
            queued: report.queued as u64,
            kv_usage: report.kv_usage,
            kv_tokens: report.kv_tokens,
            clock_us: Some(self.brain.clock().now().micros()),
        })
    }

    /// The stream for a peer that asks for it. One that it had before ends.
    #[must_use]
    pub(super) fn speech(self: &Arc<Self>, headers: &HeaderMap, origin: &Origin, pulse: &Arc<Pulse>) -> Option<Speech> {
        self.agent.as_ref()?;
        let listener = self.speaker(headers, origin)?;
        let token = listener.gone.child_token();
        std::mem::replace(&mut listener.figures().speech, token.clone()).cancel();
        Some(Speech::new(self.clone(), listener, token, pulse.clone()))
    }
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
