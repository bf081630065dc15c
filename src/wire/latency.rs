//! `latency`: the network and the predictions, replica by replica.

use serde::{Deserialize, Serialize};

use super::replica::Rtt;
use crate::model::Region;

/// Latencies over the last requests of each replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Most requests per replica that the figures look back on.
    pub window: u32,
    /// One entry per replica, in order of registration.
    pub replicas: Vec<LatencyReplica>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyReplica {
    /// The replica.
    pub name: String,
    /// Where it stands.
    pub region: Region,
    /// Network round trip; `null` before the first probe.
    pub rtt: Option<Rtt>,
    /// Time to first token as the router saw it (taken in → first byte with content), ms; `null` before the first one.
    pub ttft_ms: Option<Percentiles>,
    /// How well the strategy foresaw it; `null` where its score is not a time, or before the first reply.
    pub prediction: Option<Prediction>,
    /// How well the prefix index foresaw its cache; `null` before the first reply with usage.
    #[serde(default)]
    pub hit_ratio: Option<HitRatio>,
}

/// Percentiles of a sample, in the unit that the field's name gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Size of the sample.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// Predicted against actual time from dispatch to first token of the same requests; a wait in the router's queue is in neither.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Requests that had both.
    pub count: u64,
    /// Median of the predicted TTFT, ms.
    pub predicted_p50_ms: f64,
    /// Median of the actual TTFT, ms.
    pub actual_p50_ms: f64,
    /// Median of |predicted − actual|, ms.
    pub error_p50_ms: f64,
    /// Mean of predicted − actual, ms: above 0 the strategy is too pessimistic.
    pub bias_ms: f64,
    /// Median of |predicted − actual| ÷ actual.
    #[serde(default)]
    pub error_p50_ratio: f64,
    /// Median of (predicted − actual) ÷ actual: above 0 the strategy is mostly too pessimistic.
    #[serde(default)]
    pub bias_p50_ratio: f64,
}

/// Predicted against actual share of prompt tokens found in the replica's cache, over the replies that told their usage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRatio {
    /// Such replies.
    pub count: u64,
    /// As believed when they were sent, 0..=1.
    pub predicted: f64,
    /// As the engine counted, 0..=1.
    pub actual: f64,
}
