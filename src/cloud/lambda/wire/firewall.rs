//! Inbound firewall rules: an allow list. IPv4 only, no outbound and no deny rules.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::region::RegionInfo;
use crate::model::Region;

/// Lets something in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FirewallRule {
    /// For which protocol.
    pub protocol: Protocol,
    /// To which ports; none for `icmp`, required for the others.
    #[serde(default, deserialize_with = "ports_if_any", skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    /// From which IPv4 addresses, CIDR; a bare address means `/32`.
    pub source_network: String,
    /// What for; at most 128 characters, may be empty.
    #[serde(default)]
    pub description: String,
}

/// A network protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP; has no ports.
    Icmp,
    /// All of them.
    All,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::All => "all",
            Self::Other(word) => word,
        })
    }
}

/// Ports from `low` to `high`, both included, 1–65535. Written as a list of two; a list of one is understood as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "[u16; 2]")]
pub struct PortRange {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { low: port, high: port }
    }
}

impl From<PortRange> for [u16; 2] {
    fn from(range: PortRange) -> Self {
        [range.low, range.high]
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high { write!(f, "{}", self.low) } else { write!(f, "{}-{}", self.low, self.high) }
    }
}

fn ports_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PortRange>, D::Error> {
    let ports = Option::<Vec<u16>>::deserialize(deserializer)?.unwrap_or_default();
    match ports.as_slice() {
        [] => Ok(None),
        [port] => Ok(Some(PortRange::single(*port))),
        [low, high] => Ok(Some(PortRange { low: *low, high: *high })),
        more => Err(serde::de::Error::invalid_length(more.len(), &"a list of two ports")),
    }
}

/// Body of `PUT /firewall-rules`. **Replaces all rules of the account.**
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRules {
    /// The rules from now on.
    pub data: Vec<FirewallRule>,
}

/// Rules of one region; attached to instances at launch, never later. The rules themselves can change at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: RegionInfo,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<FirewallRule>,
    /// When it was made, ISO 8601.
    #[serde(default)]
    pub created: String,
    /// The instances that have it.
    #[serde(default)]
    pub instance_ids: Vec<String>,
}

/// The rules of the whole account, except in `us-south-1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalRuleset {
    /// Always `global`.
    pub id: String,
    /// Always `Global Firewall Rules`.
    pub name: String,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<FirewallRule>,
}

/// Body of a creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRuleset {
    /// Name, at most 64 characters.
    pub name: String,
    /// Where.
    pub region: Region,
    /// Its rules.
    pub rules: Vec<FirewallRule>,
}

/// Body of a change; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchRuleset {
    /// New name, at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rules from now on, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<FirewallRule>>,
}

/// Body of a change of the global ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchGlobalRuleset {
    /// The rules from now on, all of them; absent = unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<FirewallRule>>,
}
