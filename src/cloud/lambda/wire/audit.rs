//! The account's log of who did what: the only list that comes in pages.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditPage {
    /// Events.
    pub events: Vec<AuditEvent>,
    /// Ask for the next page with this; none = this was the last one.
    #[serde(default)]
    pub page_token: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Service, e.g. `cloud`.
    #[serde(default)]
    pub service_name: String,
    /// Kind of the thing, e.g. `api_key`.
    #[serde(default)]
    pub resource_name: String,
    /// What was done, e.g. `created`.
    #[serde(default)]
    pub action: String,
    /// Version of the catalogue of events.
    #[serde(default)]
    pub catalog_version: String,
    /// Its id.
    pub event_id: String,
    /// When, ISO 8601, UTC.
    pub event_time: String,
    /// Who.
    #[serde(default)]
    pub actor_lrn: Option<String>,
    /// To what.
    #[serde(default)]
    pub resource_lrns: Vec<String>,
    /// Whose those are.
    #[serde(default)]
    pub resource_owner_lrn: Option<String>,
    /// With which API key (its name, not the key).
    #[serde(default)]
    pub request_api_key_lrn: Option<String>,
    /// More; the keys depend on the kind of event.
    #[serde(default)]
    pub additional_details: Map<String, Value>,
}

/// What to show of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQuery {
    /// From here on, ISO 8601, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Up to here, ISO 8601, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The page after the one that named this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
    /// Only this kind, e.g. `cloud.api_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
}
