//! Machines of the account and what can be done with them.

use serde::{Deserialize, Serialize};

use super::instance_type::InstanceType;
use super::region::RegionInfo;
use super::secret;
use super::tag::{RulesetRef, Tag};
use crate::cloud::Status;
use crate::model::Secret;

/// A machine. There is no creation time, and names are not unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its name, at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Public IPv4 address; absent early in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Address inside its region; can be absent even when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// Its state.
    pub status: Status,
    /// Keys installed at launch.
    #[serde(default)]
    pub ssh_key_names: Vec<String>,
    /// Attached file systems.
    #[serde(default)]
    pub file_system_names: Vec<String>,
    /// Where they are mounted; absent without file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system_mounts: Option<Vec<Mount>>,
    /// Where it stands.
    pub region: RegionInfo,
    /// What it is.
    pub instance_type: InstanceType,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// A credential of the machine. **Never read**: an answer's value is dropped, so that nothing here can print it. Only the stand-in writes it.
    #[serde(
        default,
        skip_deserializing,
        serialize_with = "secret::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub jupyter_token: Option<Secret>,
    /// An address that embeds that credential; never read either.
    #[serde(
        default,
        skip_deserializing,
        serialize_with = "secret::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub jupyter_url: Option<Secret>,
    /// What can be done with it now.
    #[serde(default)]
    pub actions: Actions,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// Attached firewall rulesets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_rulesets: Option<Vec<RulesetRef>>,
}

/// Where a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path; in a request under `/home`, `/lambda/nfs` or `/data`, at most 256 characters.
    pub mount_point: String,
    /// The file system's id.
    pub file_system_id: String,
}

/// What can be done with a machine. Only restart and terminate have calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actions {
    /// Move to another host.
    pub migrate: Action,
    /// Set up anew.
    pub rebuild: Action,
    /// Reboot.
    pub restart: Action,
    /// Power off and on.
    pub cold_reboot: Action,
    /// End for good.
    pub terminate: Action,
}

/// Whether something can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// It can.
    #[serde(default)]
    pub available: bool,
    /// Why not: `vm-has-not-launched`, `vm-is-too-old`, `vm-is-terminating` or a word that came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Why not, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_description: Option<String>,
}

/// Body of a rename; nothing else of a machine can be edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// New name, at most 64 characters; absent = unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Body of restart and terminate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceIds {
    /// The machines.
    pub instance_ids: Vec<String>,
}

/// What restart answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartedInstances {
    /// The machines.
    pub restarted_instances: Vec<Instance>,
}

/// What terminate answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminatedInstances {
    /// The machines, on their way out.
    pub terminated_instances: Vec<Instance>,
}
