//! Machines that you already have, from the configuration: an inventory that cannot launch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{CloudError, CloudErrorKind, Instance, InstanceId, Inventory, Status};
use crate::model::Region;

/// Longest wait for a name server. An address that cannot be resolved in time is left out: ssh resolves it again, with its own rules.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// One machine of your own. The configuration fills it, `remote::ssh` connects by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Its name in the cluster; unique.
    pub name: String,
    /// Where ssh connects to: an address, a host name, or an alias from the user's ssh config.
    pub address: String,
    /// Port of sshd; `None` = what ssh thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Login name; `None` = what ssh thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Private key file; `None` = the agent and ssh's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Where it stands.
    pub region: Region,
    /// What it is, in words of the user's own, e.g. a GPU preset.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
}

/// The machines of the configuration.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<HostSpec>);

impl Hosts {
    /// An inventory of these machines, in their order.
    ///
    /// # Errors
    /// A name or address that is empty, or a name that stands there twice.
    pub fn new(specs: Vec<HostSpec>) -> Result<Self, CloudError> {
        let mut names = BTreeSet::new();
        for spec in &specs {
            if spec.name.trim().is_empty() || spec.address.trim().is_empty() {
                return Err(invalid(format!(
                    "a host needs a name and an address, found `{}` at `{}`",
                    spec.name, spec.address
                )));
            }
            if !names.insert(spec.name.as_str()) {
                return Err(invalid(format!("two hosts are called `{}`", spec.name)));
            }
        }
        Ok(Self(specs))
    }

    /// The machines as configured.
    #[must_use]
    pub fn specs(&self) -> &[HostSpec] {
        &self.0
    }
}

fn invalid(message: String) -> CloudError {
    let hint = "correct `[[provider.hosts]]` in gorgo.toml".to_owned();
    CloudError { kind: CloudErrorKind::Invalid, code: None, message, hint: Some(hint) }
}

#[async_trait]
impl Inventory for Hosts {
    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        Ok(join_all(self.0.iter().map(instance)).await)
    }
}

/// A configured machine counts as active: whether it answers is for ssh to find out.
async fn instance(spec: &HostSpec) -> Instance {
    Instance {
        id: InstanceId(spec.name.clone()),
        name: Some(spec.name.clone()),
        status: Status::Active,
        address: resolve(&spec.address).await,
        private_address: None,
        region: spec.region.clone(),
        instance_type: spec.instance_type.clone().unwrap_or_default(),
        price_cents_per_hour: None,
        tags: BTreeMap::new(),
    }
}

async fn resolve(address: &str) -> Option<IpAddr> {
    if let Ok(literal) = address.parse() {
        return Some(literal);
    }
    let mut found = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((address, 22))).await.ok()?.ok()?;
    found.next().map(|socket| socket.ip())
}

#[cfg(test)]
mod tests {
    use super::{HostSpec, Hosts};
    use crate::cloud::{CloudErrorKind, Inventory as _};
    use crate::model::Region;

    fn spec(name: &str, address: &str) -> HostSpec {
        HostSpec {
            name: name.into(),
            address: address.into(),
            port: None,
            user: Some("ubuntu".into()),
            key: Some("~/.ssh/id_ed25519".into()),
            region: Region::new("us-east-1"),
            instance_type: None,
        }
    }

    #[test]
    fn names_and_addresses_are_checked() {
        let cases = [
            (vec![spec("a", "10.0.0.1"), spec("b", "10.0.0.1")], None),
            (vec![], None),
            (vec![spec("a", "10.0.0.1"), spec("a", "10.0.0.2")], Some("two hosts are called `a`")),
            (vec![spec("", "10.0.0.1")], Some("a host needs a name and an address, found `` at `10.0.0.1`")),
            (vec![spec("a", " ")], Some("a host needs a name and an address, found `a` at ` `")),
        ];
        for (specs, expected) in cases {
            let found = Hosts::new(specs).err();
            assert_eq!(found.as_ref().map(|error| error.message.as_str()), expected);
            assert!(found.is_none_or(|error| error.kind == CloudErrorKind::Invalid && error.hint.is_some()));
        }
    }

    #[tokio::test]
    async fn a_listing_keeps_the_order_and_the_addresses_that_are_known() {
        let hosts = vec![spec("b", "10.0.0.2"), spec("a", "fd00::1"), spec("c", "not a host name")];
        let listed = Hosts::new(hosts).unwrap().list().await.unwrap();
        let seen: Vec<_> = listed
            .iter()
            .map(|host| format!("{} {:?} {:?} {}", host.id, host.address, host.status, host.region))
            .collect();
        assert_eq!(
            seen,
            ["b Some(10.0.0.2) Active us-east-1", "a Some(fd00::1) Active us-east-1", "c None Active us-east-1"]
        );
    }

    #[test]
    fn the_shape_is_that_of_the_configuration_file() {
        let text = "name = \"node1\"\naddress = \"10.77.0.11\"\nuser = \"ubuntu\"\nkey = \"~/.ssh/id_ed25519\"\nregion = \"us-east-1\"\ntype = \"a100-40\"\n";
        let read: HostSpec = toml::from_str(text).unwrap();
        let expected = HostSpec { instance_type: Some("a100-40".into()), ..spec("node1", "10.77.0.11") };
        assert_eq!(read, expected);
        assert_eq!(toml::to_string(&read).unwrap(), text);
    }
}
