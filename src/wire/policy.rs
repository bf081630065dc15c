//! `policy`: which strategy decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The strategy in charge and those that could be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Registered name of the strategy in charge.
    pub strategy: String,
    /// Its parameters with their present values.
    pub parameters: Vec<Parameter>,
    /// Every registered strategy.
    pub known: Vec<StrategyInfo>,
}

/// A registered strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyInfo {
    /// Name to be given to `--strategy`.
    pub name: String,
    /// Its rule in one line.
    pub summary: String,
}

/// One weight or rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Documented key, e.g. `w_rtt`.
    pub key: String,
    /// Value in force.
    pub value: f64,
    /// Value if nothing is set.
    pub default: f64,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed; `null` = no upper end.
    pub max: Option<f64>,
    /// What it means, with its unit.
    pub help: String,
}

/// Body of `POST policy`: replaces the strategy. What is in flight stays where it is; what waits is decided anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPolicy {
    /// Registered name.
    pub strategy: String,
    /// Parameters that differ from their defaults.
    #[serde(default)]
    pub parameters: BTreeMap<String, f64>,
}
