//! Who a process of a cluster is, as its certificate says it: `gorgo://CLUSTER/PART/NODE`.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "gorgo://";

/// What a process does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The load balancer beside an engine.
    Agent,
    /// A central router.
    Proxy,
}

impl Part {
    const ALL: [Self; 2] = [Self::Agent, Self::Proxy];

    /// `agent`, `proxy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Proxy => "proxy",
        }
    }
}

/// A process of a cluster. Its text is the URI in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    cluster: String,
    part: Part,
    node: String,
}

/// A text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no identity; wanted `gorgo://CLUSTER/agent/NODE` or `gorgo://CLUSTER/proxy/NODE`")]
pub struct BadIdentity(pub String);

impl Identity {
    /// The identity of a node's agent or proxy.
    ///
    /// # Errors
    /// A name that cannot stand in a URI: wanted are letters, digits, `-`, `_` and `.`.
    pub fn new(cluster: &str, part: Part, node: &str) -> Result<Self, BadIdentity> {
        let identity = Self { cluster: cluster.to_owned(), part, node: node.to_owned() };
        if is_name(cluster) && is_name(node) { Ok(identity) } else { Err(BadIdentity(identity.to_string())) }
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What it does there.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.part.name(), self.node)
    }
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let bad = || BadIdentity(text.to_owned());
        let mut words = text.strip_prefix(SCHEME).ok_or_else(bad)?.split('/');
        let (Some(cluster), Some(part), Some(node), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad());
        };
        let part = Part::ALL.into_iter().find(|known| known.name() == part).ok_or_else(bad)?;
        Self::new(cluster, part, node).map_err(|_| bad())
    }
}

/// The names that clusters and nodes may have, so that a URI has one reading only.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{Identity, Part};

    #[test]
    fn an_identity_reads_as_it_is_written() {
        for (part, text) in
            [(Part::Agent, "gorgo://lab/agent/east-1.b_2"), (Part::Proxy, "gorgo://lab/proxy/east-1.b_2")]
        {
            let identity = Identity::new("lab", part, "east-1.b_2").unwrap();
            assert_eq!((identity.to_string().as_str(), text.parse().unwrap()), (text, identity));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_identity() {
        for text in [
            "",
            "gorgo://lab/agent",
            "gorgo://lab/agent/",
            "gorgo:///agent/a",
            "gorgo://lab/agent/a/b",
            "gorgo://lab/engine/a",
            "gorgo://lab/agent/a%2fb",
            "gorgo://lab/agent/a b",
            "https://lab/agent/a",
            "GORGO://lab/agent/a",
        ] {
            text.parse::<Identity>().expect_err(text);
        }
        Identity::new("a/b", Part::Agent, "c").expect_err("a slash in a name");
    }
}
