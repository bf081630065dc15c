//! Machines and types of machines, as far as every provider has them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Region, Secret};

/// The provider's own id of a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Life of a machine. The provider's set is open: unknown words are kept and mean "not ready, keep watching".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Starting; may already have an address.
    Booting,
    /// The provider calls it up (which is not "SSH answers").
    Active,
    /// The provider calls it broken.
    Unhealthy,
    /// On its way out.
    Terminating,
    /// Gone.
    Terminated,
    /// Taken away by the provider.
    Preempted,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The provider's id.
    pub id: InstanceId,
    /// Its name; not unique at the provider.
    pub name: Option<String>,
    /// Its state.
    pub status: Status,
    /// Public address, once it has one.
    pub address: Option<IpAddr>,
    /// Address inside its region or network, if the provider tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<IpAddr>,
    /// Where it stands.
    pub region: Region,
    /// Type name, e.g. `gpu_1x_a100`; for `hosts` as configured or empty.
    pub instance_type: String,
    /// Price, US cents per hour, if it costs anything.
    pub price_cents_per_hour: Option<u32>,
    /// Tags, among them the run tag of this tool.
    pub tags: BTreeMap<String, String>,
}

/// A kind of machine that can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceType {
    /// Type name.
    pub name: String,
    /// The provider's words.
    pub description: String,
    /// GPU model as the provider names it; empty without GPU.
    pub gpu: String,
    /// GPUs in it.
    pub gpus: u32,
    /// Memory per GPU, GiB, if it can be told from the description.
    pub vram_gib: Option<u32>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, GiB.
    pub memory_gib: u32,
    /// Disk, GiB.
    pub storage_gib: u32,
    /// Price, US cents per hour.
    pub price_cents_per_hour: u32,
    /// Regions that claim capacity now.
    pub capacity: Capacity,
}

/// Regions that claim capacity, in order of name.
pub type Capacity = Vec<Region>;

/// One machine to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchRequest {
    /// Its name.
    pub name: String,
    /// Type name.
    pub instance_type: String,
    /// Where.
    pub region: Region,
    /// Name of the account's SSH key to install (exactly one at Lambda).
    pub ssh_key: Option<String>,
    /// Cloud-init text; a secret, because it can hold the preset host key's private half.
    pub user_data: Option<Secret>,
    /// Tags; hold the run tag that was saved BEFORE this call.
    pub tags: BTreeMap<String, String>,
    /// Firewall rulesets to attach; cannot be attached later.
    pub firewall_rulesets: Vec<String>,
    /// File systems to attach.
    pub file_systems: Vec<String>,
    /// Image family; `None` = the provider's newest.
    pub image_family: Option<String>,
}
