//! Where things lie on a node, and what listens where. Pure.
//!
//! The same on every kind of node; a local node maps the folders into its own.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The program. The one before stays as `gorgo.old`.
pub const BINARY: &str = "/opt/gorgo/bin/gorgo";
/// Where the program lies.
pub const PROGRAMS: &str = "/opt/gorgo";
/// Configuration and secrets, root's.
pub const CONFIGURATION: &str = "/etc/gorgo";
/// State: services' own folders, models, records.
pub const STATE: &str = "/var/lib/gorgo";
/// One small file per thing that is finished, so that a set-up that was cut short goes on where it stopped.
pub const RECORDS: &str = "/var/lib/gorgo/done";
/// Cache of model files, mounted into the engine's container.
pub const MODELS: &str = "/var/lib/gorgo/models";
/// Sockets of running services.
pub const RUN: &str = "/run/gorgo";
/// The token for model files, 0600; mounted only while they are fetched.
pub const HF_TOKEN: &str = "/etc/gorgo/hf-token";

/// A service of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The inference engine.
    Engine,
    /// The load balancer beside it.
    Agent,
    /// The central router.
    Proxy,
}

impl Role {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Engine, Self::Agent, Self::Proxy];

    /// `engine`, `agent`, `proxy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Agent => "agent",
            Self::Proxy => "proxy",
        }
    }

    /// Name of its unit, with `.service`.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Engine => "gorgo-engine.service",
            Self::Agent => "gorgo-agent.service",
            Self::Proxy => "gorgo-proxy.service",
        }
    }

    /// Its environment file, 0600.
    #[must_use]
    pub fn environment_file(self) -> String {
        format!("{CONFIGURATION}/{}.env", self.name())
    }

    /// The record that says which definition runs.
    #[must_use]
    pub fn record(self) -> String {
        format!("{RECORDS}/{}", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a node's services listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// Engine, loopback.
    pub engine: u16,
    /// Requests to the agent.
    pub agent: u16,
    /// Admin API of the agent, loopback.
    pub agent_admin: u16,
    /// Requests to a central router.
    pub proxy: u16,
    /// Admin API of a central router, loopback.
    pub proxy_admin: u16,
    /// Other agents and central routers at the agent, with certificates.
    #[serde(default = "usual_peer")]
    pub peer: u16,
}

/// What a file of before has.
fn usual_peer() -> u16 {
    Ports::default().peer
}

/// A machine of its own; a central router stands beside the agent, so it cannot have the agent's ports.
impl Default for Ports {
    fn default() -> Self {
        Self { engine: 30000, agent: 8000, agent_admin: 8001, proxy: 8080, proxy_admin: 8081, peer: 8443 }
    }
}

impl Ports {
    /// The ports that a local machine got at its launch (tags `gorgo-port-…`); the defaults where there is no tag.
    #[must_use]
    pub fn from_tags(tags: &BTreeMap<String, String>) -> Self {
        let port = |name: &str, default: u16| {
            tags.get(&format!("gorgo-port-{name}")).and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let usual = Self::default();
        Self {
            engine: port("engine", usual.engine),
            agent: port("agent", usual.agent),
            agent_admin: port("agent-admin", usual.agent_admin),
            proxy: port("proxy", usual.proxy),
            proxy_admin: port("proxy-admin", usual.proxy_admin),
            peer: port("peer", usual.peer),
        }
    }

    /// Where a service tells how it is: the engine's own port, else the admin port.
    #[must_use]
    pub const fn control(&self, role: Role) -> u16 {
        match role {
            Role::Engine => self.engine,
            Role::Agent => self.agent_admin,
            Role::Proxy => self.proxy_admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Ports, Role};
    use crate::cloud::local::PORT_TAGS;

    #[test]
    fn the_tags_of_local_machines_are_those_that_are_read() {
        let tags: BTreeMap<String, String> =
            PORT_TAGS.iter().zip(20001..).map(|(tag, port)| ((*tag).to_owned(), port.to_string())).collect();
        let expected =
            Ports { engine: 20001, agent: 20002, agent_admin: 20003, proxy: 20004, proxy_admin: 20005, peer: 20006 };
        assert_eq!(Ports::from_tags(&tags), expected);
        assert_eq!(Ports::from_tags(&BTreeMap::new()), Ports::default());
        assert_eq!(Role::ALL.map(|role| expected.control(role)), [20001, 20003, 20005]);
    }
}
