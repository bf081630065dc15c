//! Small references that instances carry.

use serde::{Deserialize, Serialize};

/// A key and its value. In a request the key has 2–55 characters, starts with a lower-case letter and goes on with lower-case letters,
/// digits, dashes and colons (no underscore); the value has at most 128 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// A firewall ruleset by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesetRef {
    /// Its id.
    pub id: String,
}
