//! What a gateway is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::audit::AuditTarget;
use super::pool::PoolSettings;
use super::tls::TlsFiles;
use crate::inference::engine::Engine;
use crate::model::{Region, Secret};
use crate::routing::{Limits as ReplicaLimits, Rates, ReplicaKind, Settings as RoutingSettings};

/// Everything a central proxy or an agent needs.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Address for requests; port 0 = any free one.
    pub listen: SocketAddr,
    /// Address of the admin API: loopback, or any with a token. Other addresses than loopback have TLS if requests have it.
    pub admin: SocketAddr,
    /// File with the token that the admin API asks for; `None` = none, on loopback only.
    pub admin_token: Option<PathBuf>,
    /// Where it stands, for the audit log: what leaves this region is written down. `None` = not known, so everything is.
    pub region: Option<Region>,
    /// TLS towards clients; `None` = plain HTTP.
    pub tls: Option<TlsFiles>,
    /// File of the clients' API keys (see [`super::keys::file`]); `None` = no key is wanted.
    pub api_keys: Option<PathBuf>,
    /// Where audit lines go.
    pub audit: AuditTarget,
    /// The routing engine's settings.
    pub routing: RoutingSettings,
    /// The engines, and other agents: an agent's peers, or what a central proxy has instead of engines that listen on loopback.
    pub replicas: Vec<ReplicaConfig>,
    /// Present in an agent.
    pub agent: Option<AgentConfig>,
    /// Certificates for the links to other processes of the cluster; `None` = they know each other by address, in plain text.
    pub mutual: Option<MutualConfig>,
    /// Ask engines for usage in streams whose clients did not, and take the extra event out again.
    pub inject_usage: bool,
    /// Limits of the data path.
    pub limits: Limits,
    /// How engines are watched.
    pub probe: ProbeSettings,
    /// How agents tell each other how they are.
    pub peers: PeerSettings,
    /// How connections to engines are kept.
    pub pool: PoolSettings,
    /// Most requests whose decisions are kept for `explain`.
    pub decisions_kept: usize,
}

impl GatewayConfig {
    /// The documented defaults around a strategy and its replicas.
    #[must_use]
    pub fn new(routing: RoutingSettings, replicas: Vec<ReplicaConfig>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8001)),
            admin_token: None,
            region: None,
            tls: None,
            api_keys: None,
            audit: AuditTarget::Off,
            routing,
            replicas,
            agent: None,
            mutual: None,
            inject_usage: false,
            limits: Limits::default(),
            probe: ProbeSettings::default(),
            peers: PeerSettings::default(),
            pool: PoolSettings::default(),
            decisions_kept: 1024,
        }
    }
}

/// Mutual TLS between the processes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualConfig {
    /// File with key, certificate and CA; see [`super::mutual`].
    pub identity: PathBuf,
    /// An agent's port for peers and central routers; port 0 = any free one. A central proxy has none.
    pub listen: Option<SocketAddr>,
    /// Time between two looks for a new certificate.
    pub look_every: Duration,
}

impl MutualConfig {
    /// The usual pace of looking: a renewed certificate is old by weeks, so seconds are soon enough.
    #[must_use]
    pub fn new(identity: PathBuf, listen: Option<SocketAddr>) -> Self {
        Self { identity, listen, look_every: Duration::from_secs(5) }
    }
}

/// The node that an agent stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Its name, the same that its peers have for it.
    pub name: String,
    /// Where it stands.
    pub region: Region,
}

/// One engine, or one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaConfig {
    /// Unique name.
    pub name: String,
    /// Base URL, `http://` or `https://`.
    pub url: String,
    /// Where it stands.
    pub region: Region,
    /// An engine, or another agent.
    pub kind: ReplicaKind,
    /// Kind of engine; `None` = found out by asking it.
    pub engine: Option<&'static Engine>,
    /// Models that it serves; empty = any.
    pub models: Vec<String>,
    /// Its limits.
    pub limits: ReplicaLimits,
    /// Its own rates.
    pub rates: Rates,
    /// The key that the engine itself wants, if it wants one.
    pub api_key: Option<Secret>,
}

impl ReplicaConfig {
    /// A replica with nothing known but where it is.
    #[must_use]
    pub fn new(name: &str, url: &str, region: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            region: Region::new(region),
            kind: ReplicaKind::Engine,
            engine: None,
            models: Vec::new(),
            limits: ReplicaLimits::default(),
            rates: Rates::default(),
            api_key: None,
        }
    }
}

/// Limits of the data path. Each refusal that follows from one is an OpenAI-style error with its own `code`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections at once; more wait in the kernel's backlog. As many again of peers on their own port.
    pub max_connections: usize,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Most bytes of all request bodies that are being read, held or sent; counted as received.
    pub max_bodies_bytes: usize,
    /// Largest request head, bytes (target, names and values).
    pub max_header_bytes: usize,
    /// Longest time from the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Longest pause between two pieces of a request body.
    pub body_timeout: Duration,
    /// Longest time from the first byte of a request body to its last.
    pub body_total_timeout: Duration,
    /// Longest time that a client connection stays open without a request.
    pub keep_alive: Duration,
    /// Longest time that a client may take nothing of an answer that is there for it.
    pub write_timeout: Duration,
    /// Longest silence of an engine: until the first byte of its answer's body, or inside it.
    pub upstream_timeout: Duration,
    /// Longest silence between two pieces of an answer after its first token, if that is shorter: nobody computes on one token for so long,
    /// so the engine or the way to it is gone.
    pub stream_timeout: Duration,
    /// Longest time that draining waits for the requests that came before it.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_body_bytes: 64 << 20,
            max_bodies_bytes: 1 << 30,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            // The largest body at 2 Mbit/s.
            body_total_timeout: Duration::from_secs(300),
            keep_alive: Duration::from_secs(120),
            write_timeout: Duration::from_secs(120),
            // A long prompt in a long queue is silent for minutes; OpenAI's clients give up after ten.
            upstream_timeout: Duration::from_secs(600),
            // More than a request waits that is displaced by others and computed anew, and than most partitions last.
            stream_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(120),
        }
    }
}

/// How engines are watched.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// Time between two round-trip probes, which are the health checks as well.
    pub rtt_every: Duration,
    /// Time between two readings of the engine's gauges.
    pub gauges_every: Duration,
    /// Time between two readings of its list of models.
    pub models_every: Duration,
    /// Longest time for one answer.
    pub timeout: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            rtt_every: Duration::from_millis(1000),
            gauges_every: Duration::from_millis(500),
            models_every: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }
}

/// How agents tell each other how they are.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Time between two states. Routing's memory of them is tuned to 100 to 250 ms.
    pub every: Duration,
    /// A peer that has said nothing for so long is given up: its connection, and what waits for an answer of it. More than a lost packet and
    /// its retransmission take, over any distance.
    pub silence: Duration,
    /// Pause before the next attempt to reach a peer, doubled after each that fails.
    pub retry_first: Duration,
    /// Longest such pause.
    pub retry_most: Duration,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(200),
            silence: Duration::from_millis(3000),
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_millis(1000),
        }
    }
}
