//! `gorgo.toml` as written: every key optional, nothing resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fleet::{HostEntry, NodeEntry};
use super::replica::ReplicaEntry;
use super::slo::SloSection;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// `[cluster]`.
    pub cluster: ClusterSection,
    /// `[provider]`.
    pub provider: ProviderSection,
    /// `[engine]`.
    pub engine: EngineSection,
    /// `[[node]]`.
    pub node: Vec<NodeEntry>,
    /// `[[replica]]`.
    pub replica: Vec<ReplicaEntry>,
    /// `[routing]`.
    pub routing: RoutingSection,
    /// `[slo]`.
    pub slo: SloSection,
    /// `[residency]`: region patterns by class.
    pub residency: BTreeMap<String, Vec<String>>,
    /// `[residency_by_model]`: class by pattern of a model's name.
    pub residency_by_model: BTreeMap<String, String>,
    /// `[addresses]`: more addresses by node.
    pub addresses: BTreeMap<String, Vec<String>>,
    /// `[proxy]`.
    pub proxy: ProxySection,
}

/// `[cluster]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct ClusterSection {
    pub name: Option<String>,
    pub strategy: Option<String>,
    pub engine: Option<String>,
    pub model: Option<String>,
}

/// `[provider]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct ProviderSection {
    pub kind: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub key: Option<String>,
    pub hosts: Vec<HostEntry>,
}

/// `[engine]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct EngineSection {
    pub image: Option<String>,
    pub arguments: Option<Vec<String>>,
    pub kv_events: Option<bool>,
}

/// `[routing]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct RoutingSection {
    pub weights: BTreeMap<String, f64>,
    pub max_concurrent: Option<u32>,
    pub queue_limit: Option<u64>,
    pub queue_timeout_ms: Option<u64>,
    pub max_attempts: Option<u32>,
    pub seed: Option<u64>,
    pub inject_usage: Option<bool>,
}

/// `[proxy]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct ProxySection {
    pub listen: Option<String>,
    pub admin: Option<String>,
    pub admin_token_file: Option<String>,
    pub region: Option<String>,
    pub tls_certificate: Option<String>,
    pub tls_key: Option<String>,
    pub api_keys: Option<String>,
    pub places: Option<String>,
    pub audit: Option<String>,
    pub max_connections: Option<u64>,
    pub max_body_bytes: Option<u64>,
    pub max_bodies_bytes: Option<u64>,
    pub max_header_bytes: Option<u64>,
    pub header_timeout_ms: Option<u64>,
    pub body_timeout_ms: Option<u64>,
    pub body_total_timeout_ms: Option<u64>,
    pub keep_alive_ms: Option<u64>,
    pub write_timeout_ms: Option<u64>,
    pub upstream_timeout_ms: Option<u64>,
    pub stream_timeout_ms: Option<u64>,
    pub drain_timeout_ms: Option<u64>,
    pub rtt_every_ms: Option<u64>,
    pub gauges_every_ms: Option<u64>,
    pub decisions_kept: Option<u64>,
}
