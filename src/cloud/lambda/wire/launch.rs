//! Asking for a machine. One call, one machine: the old `quantity` is gone.

use serde::{Deserialize, Serialize};

use super::instance::Mount;
use super::secret;
use super::tag::{RulesetRef, Tag};
use crate::model::{Region, Secret};

/// Body of a launch. Everything named in it must be in the same region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// Where.
    pub region_name: Region,
    /// What.
    pub instance_type_name: String,
    /// Exactly one key name; the document does not limit the list, the service does.
    pub ssh_key_names: Vec<String>,
    /// File systems to mount at their usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system_names: Option<Vec<String>>,
    /// File systems to mount elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system_mounts: Option<Vec<Mount>>,
    /// Host name: lower-case letters, digits and dashes, not first a dash, at most 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Name, at most 64 characters; need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image; absent = the newest Lambda Stack, which differs per region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageChoice>,
    /// Cloud-init text, at most 1 MB; can hold a private host key.
    #[serde(default, with = "secret", skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Secret>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// Rulesets; cannot be attached or detached later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_rulesets: Option<Vec<RulesetRef>>,
}

/// An image, named one way or the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageChoice {
    /// By id, which belongs to one region.
    Id {
        /// The id.
        id: String,
    },
    /// By family, which is the same everywhere, e.g. `lambda-stack-24-04`.
    Family {
        /// The family.
        family: String,
    },
}

/// What a launch answers: one id, no address, no status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchedInstances {
    /// A list of one.
    pub instance_ids: Vec<String>,
}
