//! Persistent file systems. Listing spells the path `file-systems`; creating and deleting spell it `filesystems`.

use serde::{Deserialize, Serialize};

use super::region::RegionInfo;
use crate::model::Region;

/// A file system; it belongs to one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where instances mount it unless told otherwise.
    #[serde(default)]
    pub mount_point: String,
    /// When it was made, ISO 8601.
    #[serde(default)]
    pub created: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<User>,
    /// Attached to an instance. Stays set for a while after the instance is gone.
    #[serde(default)]
    pub is_in_use: bool,
    /// Where it is.
    pub region: RegionInfo,
    /// Size in bytes, some hours old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_used: Option<u64>,
}

/// A person of the account's team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Their id.
    pub id: String,
    /// Their address.
    #[serde(default)]
    pub email: String,
    /// `active`, `deactivated` or a word that came later.
    #[serde(default)]
    pub status: String,
}

/// Body of a creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFilesystem {
    /// Letters first, then letters, digits and dashes; at most 60 characters.
    pub name: String,
    /// Where.
    pub region: Region,
}

/// What a deletion answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFilesystems {
    /// What is gone.
    pub deleted_ids: Vec<String>,
}
