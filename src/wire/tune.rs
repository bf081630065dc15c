//! `tune`: the weights of the strategy in charge, changed by hand or by the tuner on live requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::Parameter;

/// What can be turned without replacing the strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tune {
    /// The strategy in charge.
    pub strategy: String,
    /// Its parameters with their present values.
    pub parameters: Vec<Parameter>,
    /// Most requests running per replica before the router holds back; `null` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// The tuner since its start, after its end too; `null` = none was started.
    #[serde(default)]
    pub tuner: Option<Tuner>,
}

/// Body of `POST tune`: changes what it names, leaves the rest. `tuner` stands alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTune {
    /// New values by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, f64>,
    /// New limit of running requests per replica; 0 = back to the strategy's own rule; absent = as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// What the tuner is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuner: Option<TunerAction>,
}

/// What a tuner is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum TunerAction {
    /// Begin to try weights on live requests.
    Start(StartTuner),
    /// No further candidates.
    Freeze,
    /// Candidates again.
    Resume,
    /// Back to the weights before the last acceptance, then as frozen.
    Rollback,
    /// End it; what is in force stays, but an acceptance that is still watched is taken back.
    Stop,
}

/// How to tune; absent = the router's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartTuner {
    /// `evolution` or `calibrated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What may move; empty = the usual weights of the strategy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<TuneKey>,
    /// Share of a candidate's blocks that stays with the weights in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Requests in a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u32>,
    /// Pairs of blocks in a comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periods: Option<u32>,
    /// Largest factor by which a candidate differs from the weights in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Seed of everything that is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// A parameter that may move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneKey {
    /// Its key.
    pub key: String,
    /// Smallest and largest value; `null` = a hundredth of the present one to a hundred times it.
    #[serde(default)]
    pub range: Option<(f64, f64)>,
}

/// The tuner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuner {
    /// `waiting`, `trial`, `watch`, `frozen` or `ended`.
    pub state: String,
    /// Why it ended; `null` before.
    pub why: Option<String>,
    /// `evolution` or `calibrated`.
    pub method: String,
    /// Share of a candidate's blocks that stays with the weights in force.
    pub share: f64,
    /// Requests in a block.
    pub block: u64,
    /// Pairs of blocks in a comparison.
    pub periods: u64,
    /// Step size, natural logarithm.
    pub sigma: f64,
    /// What may move.
    pub axes: Vec<TunedParameter>,
    /// What was measured in the comparison under way.
    pub measured: Measured,
    /// Candidates tried so far.
    pub proposed: u64,
    /// Of these accepted.
    pub accepted: u64,
    /// Of these without a proven gain.
    pub rejected: u64,
    /// Of these clearly worse, and gone before their time.
    pub rolled_back: u64,
    /// Acceptances that were taken back.
    pub reverted: u64,
    /// What happened last, the newest last.
    pub log: Vec<TuneEntry>,
}

/// A parameter that may move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedParameter {
    /// Its key.
    pub key: String,
    /// In force.
    pub value: f64,
    /// On trial, or in a watch that before; `null` = nothing is compared.
    pub compared: Option<f64>,
    /// Smallest value that may be tried.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// What a comparison measured so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Pairs of blocks judged.
    pub periods: u64,
    /// Geometric mean of the four times with the compared weights ÷ with those in force; below 1 is better.
    pub ratio: Option<f64>,
    /// Probability of a ratio so low or lower by luck.
    pub luck: Option<f64>,
    /// With the weights in force.
    pub in_force: Option<TuneTimes>,
    /// With those compared.
    pub compared: Option<TuneTimes>,
}

/// Times of a comparison, geometric means over its blocks, ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneTimes {
    /// Time to first token, median.
    pub ttft_p50_ms: f64,
    /// Time to first token, 95th percentile.
    pub ttft_p95_ms: f64,
    /// Whole time, median.
    pub e2e_p50_ms: f64,
    /// Whole time, 95th percentile.
    pub e2e_p95_ms: f64,
}

/// One thing that the tuner did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneEntry {
    /// How long ago, ms.
    pub age_ms: f64,
    /// What.
    #[serde(flatten)]
    pub record: TuneRecord,
}

/// What the tuner did, as its log and the audit log have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneRecord {
    /// Numbered from 1 since the start of the router.
    pub number: u64,
    /// `started`, `proposed`, `accepted`, `rejected`, `rolled_back`, `confirmed`, `reverted`, `frozen`, `resumed` or `ended`.
    pub what: String,
    /// Why, in words; `null` where nothing has to be said.
    pub why: Option<String>,
    /// The weights that it is about.
    pub values: BTreeMap<String, f64>,
    /// What was measured of them.
    pub measured: Measured,
    /// Step size after it, natural logarithm.
    pub sigma: f64,
}
