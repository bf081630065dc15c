//! SSH keys of the account.

use serde::{Deserialize, Serialize};

use super::secret;
use crate::model::Secret;

/// A stored key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    /// Its id.
    pub id: String,
    /// Its name, 1–64 characters.
    pub name: String,
    /// One line in OpenSSH's form.
    pub public_key: String,
}

/// Body of an addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddSshKey {
    /// Name, 1–64 characters.
    pub name: String,
    /// The public half, at most 4096 characters; absent = the service makes a pair and shows the private half once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// What an addition answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedSshKey {
    /// The key.
    #[serde(flatten)]
    pub key: SshKey,
    /// The private half (RSA, PEM) of a pair that the service made.
    #[serde(default, with = "secret", skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
}
