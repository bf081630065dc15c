//! What surrounds every answer: `{"data": …}` or `{"error": …}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A successful answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data<T> {
    /// Its content.
    pub data: T,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub error: ApiError,
    /// Complaints by field; only older versions of the service send them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_errors: Option<BTreeMap<String, Value>>,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable identifier, e.g. `global/invalid-api-key`; the only part to branch on.
    pub code: String,
    /// A sentence; it changes between versions.
    #[serde(default)]
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// An object without fields, as deletions answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
