//! What a cluster is to be. Pure; the command line fills it from flags, `gorgo.toml` and the inventory.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::certificate::Certificates;
use super::front::Front;
use super::layout::Ports;
use crate::inference::Engine;
use crate::inference::engine::{EMULATOR, SGLANG, VLLM};
use crate::model::{Region, Secret};

/// The model that is served unless another is named.
pub const DEFAULT_MODEL: &str = "mistralai/Mistral-7B-Instruct-v0.3";

/// The program to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentBinary {
    /// The file here.
    pub path: PathBuf,
    /// Its checksum, lower-case hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Machine that it is for, as `uname -m` says it.
    pub arch: String,
    /// Newest glibc that it asks for; `None` = needs none.
    pub glibc: Option<(u32, u32)>,
}

/// An engine in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Model id at Hugging Face.
    pub model: String,
    /// Image instead of the one chosen by the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// More arguments for the engine, after ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// It publishes what enters and leaves its prefix cache.
    #[serde(default = "yes")]
    pub kv_events: bool,
}

/// Inventories of before say nothing of events, which were always on.
fn yes() -> bool {
    true
}

/// Which engine a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EngineChoice {
    /// SGLang in its container image.
    Sglang(Container),
    /// vLLM in its container image.
    Vllm(Container),
    /// The emulated engine.
    Emulator {
        /// GPU preset.
        gpu: String,
        /// Model preset.
        model: String,
    },
}

impl EngineChoice {
    /// Its container, unless it is the emulator.
    #[must_use]
    pub const fn container(&self) -> Option<&Container> {
        match self {
            Self::Sglang(container) | Self::Vllm(container) => Some(container),
            Self::Emulator { .. } => None,
        }
    }

    /// What it answers where.
    #[must_use]
    pub const fn description(&self) -> &'static Engine {
        match self {
            Self::Sglang(_) => &SGLANG,
            Self::Vllm(_) => &VLLM,
            Self::Emulator { .. } => &EMULATOR,
        }
    }

    /// The model that requests name.
    #[must_use]
    pub fn model(&self) -> &str {
        match self {
            Self::Sglang(container) | Self::Vllm(container) => &container.model,
            Self::Emulator { model, .. } => model,
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub region: Region,
    /// What it runs.
    pub engine: EngineChoice,
    /// What its services listen on.
    pub ports: Ports,
    /// Where its agent takes requests.
    pub listen: SocketAddr,
    /// Where clients reach its agent, e.g. `http://10.0.0.5:8000`.
    pub url: String,
    /// The addresses that its connections come from; the first is the one by which it is reached.
    pub addresses: Vec<IpAddr>,
}

impl NodeSpec {
    /// Where an agent listens on a node with this address, and how it is reached there. A public address is often not the machine's own
    /// (the provider translates it), so the agent listens on all of its addresses then.
    #[must_use]
    pub fn reach(address: IpAddr, port: u16) -> (SocketAddr, String) {
        let listen = if is_private(address) { address } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        (SocketAddr::new(listen, port), format!("http://{}", SocketAddr::new(address, port)))
    }

    /// Where its agent takes requests: where strangers can come only if the cluster is open to them ([`Desired::is_open`]), else on loopback,
    /// for a tunnel or a router beside it.
    #[must_use]
    pub fn requests(&self, open: bool) -> SocketAddr {
        if self.is_private() || open {
            return self.listen;
        }
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.listen.port())
    }

    /// Where its agent awaits other agents and central routers with their certificates.
    #[must_use]
    pub fn peer_listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.ports.peer)
    }

    /// Where other agents and central routers reach its agent, e.g. `mtls://10.0.0.5:8443`.
    #[must_use]
    pub fn peer_url(&self) -> String {
        let address = self.addresses.first().copied().unwrap_or_else(|| self.listen.ip());
        format!("mtls://{}", SocketAddr::new(address, self.ports.peer))
    }

    /// Its agent can be reached only from this machine or a private network.
    #[must_use]
    pub fn is_private(&self) -> bool {
        is_private(self.listen.ip())
    }

    /// The address by which others know it.
    fn host(&self) -> IpAddr {
        let authority = self.url.split_once("://").map_or(self.url.as_str(), |(_, authority)| authority);
        authority.parse().map_or(self.listen.ip(), |address: SocketAddr| address.ip())
    }

    /// Where a central router of this node takes requests unless another address is wanted: beside the agent.
    #[must_use]
    pub fn proxy_listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.ports.proxy)
    }
}

/// Addresses that the Internet does not route: loopback, private and link-local ones.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// A central router on one of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySpec {
    /// The node it stands on.
    pub node: String,
    /// Where it takes requests.
    pub listen: SocketAddr,
    /// Its strategy.
    pub strategy: String,
    /// Most requests running per replica before it holds back.
    pub max_concurrent: Option<u32>,
}

impl ProxySpec {
    /// Where clients reach it: on a machine that listens everywhere by the node's own address.
    #[must_use]
    pub fn url(&self, node: &NodeSpec, scheme: &str) -> String {
        let host = if self.listen.ip().is_unspecified() { node.host() } else { self.listen.ip() };
        format!("{scheme}://{}", SocketAddr::new(host, self.listen.port()))
    }

    /// It can be reached only from its machine or a private network.
    #[must_use]
    pub fn is_private(&self) -> bool {
        is_private(self.listen.ip())
    }
}

/// What was asked for of a central router, as the inventory keeps it; what is not said is the cluster's own or follows from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyWish {
    /// Where it takes requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Its strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Most requests running per replica before it holds back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
}

impl ProxyWish {
    /// What it means on this node of a cluster with this strategy.
    #[must_use]
    pub fn on(&self, node: &NodeSpec, strategy: &str) -> ProxySpec {
        ProxySpec {
            node: node.name.clone(),
            listen: self.listen.unwrap_or_else(|| node.proxy_listen()),
            strategy: self.strategy.clone().unwrap_or_else(|| strategy.to_owned()),
            max_concurrent: self.max_concurrent,
        }
    }
}

/// How an agent spreads its requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Its strategy, as people name it.
    pub strategy: String,
    /// Most requests running per engine before it holds back; `None` = the strategy's own rule.
    #[serde(default)]
    pub max_concurrent: Option<u32>,
    /// Weights and rates of the strategy that differ from their defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
}

/// `least-load, at most 50 running, q=1`.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.strategy)?;
        match self.max_concurrent {
            Some(limit) => write!(f, ", at most {limit} running")?,
            None => f.write_str(", no limit")?,
        }
        self.weights.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))
    }
}

/// The cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its name.
    pub cluster: String,
    /// Strategy of the agents.
    pub strategy: String,
    /// Most requests running per engine before agents hold back; `None` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// Weights of the strategy that differ from its defaults.
    pub weights: BTreeMap<String, f64>,
    /// Nodes whose agents were told to balance otherwise (`gorgo cluster restart-lb`).
    pub pinned: BTreeMap<String, Balance>,
    /// Agents may take requests on public addresses although those are in plain text. Links between nodes never are.
    pub allow_public_plaintext: bool,
    /// What routers show to clients.
    pub front: Front,
    /// The program.
    pub binary: AgentBinary,
    /// The program for other kinds of machines, at most one for each.
    pub others: Vec<AgentBinary>,
    /// Token for model files.
    pub hf_token: Option<Secret>,
    /// Its nodes, in order; names are unique.
    pub nodes: Vec<NodeSpec>,
    /// The certificates of its links, as far as there are some.
    pub certificates: Certificates,
    /// Central routers, at most one per node.
    pub proxies: Vec<ProxySpec>,
}

impl Desired {
    /// The same with the program for such a machine (`uname -m`) in its place; where there is none, the cluster as it is.
    #[must_use]
    pub fn on_machine(&self, arch: &str) -> Self {
        let fits = |program: &&AgentBinary| program.arch == arch;
        let program = [&self.binary].into_iter().chain(&self.others).find(fits).unwrap_or(&self.binary);
        Self { binary: program.clone(), ..self.clone() }
    }

    /// Routers may take requests where strangers can come: these are encrypted, or it was asked for by name.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow_public_plaintext || self.front.tls()
    }

    /// How agents balance where nothing else was asked for.
    #[must_use]
    pub fn configured(&self) -> Balance {
        Balance { strategy: self.strategy.clone(), max_concurrent: self.max_concurrent, weights: self.weights.clone() }
    }

    /// How the agent of a node is to balance.
    #[must_use]
    pub fn balance(&self, node: &str) -> Balance {
        self.pinned.get(node).cloned().unwrap_or_else(|| self.configured())
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The central router, if it stands on that node.
    #[must_use]
    pub fn proxy_on(&self, node: &str) -> Option<&ProxySpec> {
        self.proxies.iter().find(|proxy| proxy.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeSpec;
    use crate::cluster::testing::{emulator, node};

    #[test]
    fn only_peers_come_to_a_public_address_unless_more_is_asked_for() {
        let private = node(1, "us-east-1", emulator());
        assert_eq!(private.requests(false).to_string(), "10.0.0.1:8000");
        assert_eq!(
            (private.peer_listen().to_string().as_str(), private.peer_url().as_str()),
            ("10.0.0.1:8443", "mtls://10.0.0.1:8443")
        );
        let address = [129, 146, 1, 2].into();
        let (listen, url) = NodeSpec::reach(address, 8000);
        let public = NodeSpec { listen, url, addresses: vec![address], ..private };
        let listens = [false, true].map(|allowed| public.requests(allowed).to_string());
        assert_eq!(listens, ["127.0.0.1:8000", "0.0.0.0:8000"]);
        assert_eq!(
            (public.peer_listen().to_string().as_str(), public.peer_url().as_str()),
            ("0.0.0.0:8443", "mtls://129.146.1.2:8443")
        );
    }

    #[test]
    fn agents_listen_on_private_addresses_by_name_and_behind_public_ones_on_all() {
        let cases = [
            ("10.0.0.5", "10.0.0.5:8000", "http://10.0.0.5:8000"),
            ("127.0.0.1", "127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("fd00::1", "[fd00::1]:8000", "http://[fd00::1]:8000"),
            ("129.146.1.2", "0.0.0.0:8000", "http://129.146.1.2:8000"),
            ("2001:db8::1", "0.0.0.0:8000", "http://[2001:db8::1]:8000"),
        ];
        for (address, listen, url) in cases {
            let reach = NodeSpec::reach(address.parse().unwrap(), 8000);
            assert_eq!(reach, (listen.parse().unwrap(), url.to_owned()), "{address}");
        }
    }
}
