//! The result schema `gorgo.report/1`: what `--json` of `bench`, `demo` and `simulate` writes.
//!
//! Within version 1 keys are only added. A figure that could not be measured is `null`; a group that does not apply to the command
//! (`per_seed` without `--seeds`, `bound` without a known fleet) is absent. Units stand in the key; [`super::figures`] defines each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name and version of the schema.
pub const SCHEMA: &str = "gorgo.report/1";

/// A whole result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of gorgo that measured.
    pub gorgo: String,
    /// Where it was measured.
    pub machine: Machine,
    /// What was asked for: options, seed, fleet, as resolved. Free-form; keys are those of the command.
    pub config: BTreeMap<String, serde_json::Value>,
    /// The workload.
    pub trace: Trace,
    /// How late requests left the load generator; absent in virtual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_lag_ms: Option<Spread>,
    /// How late emulated engines delivered first tokens; absent where no engine was emulated in real time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator_error_ms: Option<Spread>,
    /// How late bytes left the emulated WAN links; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan_error_ms: Option<Spread>,
    /// True when the run was interrupted: the figures cover what was measured until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// What the command that measured has to add: why something is missing, what to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// One entry per strategy (or per load step of `bench`); with several loads load by load.
    pub runs: Vec<Run>,
    /// Strategies against a baseline and against the lower bound, in simulations: over all loads, then by load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
    /// What the fleet can take of this trace; absent unless it was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// The machine that measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system, e.g. `linux`.
    pub os: String,
    /// Processor architecture, e.g. `x86_64`.
    pub arch: String,
    /// Cores that this process may use.
    pub cores: u32,
    /// Processor model, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory, bytes, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// The workload that was played.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// File name or the name of the bundled set.
    pub name: String,
    /// SHA-256 of the trace file as read, hexadecimal.
    pub sha256: String,
    /// Requests in the trace that were kept.
    pub requests: u64,
    /// Requests that were dropped as longer than `--max-input`.
    pub dropped: u64,
}

/// Median and tail of lags or errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Number of values.
    pub n: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
}

/// Mean and percentiles of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
}

/// One strategy under one load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Strategy of the router, or the target's name where the router is not ours.
    pub strategy: String,
    /// Which part of the run the figures cover.
    pub window: Window,
    /// What was offered.
    pub load: Load,
    /// How the requests of the window ended.
    pub requests: Requests,
    /// Time to first token from the moment of sending.
    pub ttft_ms: Latency,
    /// Time to first token from the moment at which the plan wanted it sent.
    pub ttft_intended_ms: Latency,
    /// Time to the end of the reply, from the moment of sending.
    pub e2e_ms: Latency,
    /// Gaps between content events, pooled over all requests.
    pub itl_ms: Latency,
    /// Time per output token after the first, one value per request.
    pub tpot_ms: Latency,
    /// Work done per second.
    pub throughput: Throughput,
    /// Share of requests within the objectives; absent when none were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
    /// Prefix cache.
    pub cache: Cache,
    /// Who served.
    pub routing: Routing,
    /// Quality of the router's own predictions.
    pub prediction: Prediction,
    /// The no-queue lower bound on the same requests; absent where the fleet is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// Money; absent where prices are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// TTFT at 0, 0.5, 1, … 100 per cent, ms: 201 points of the distribution; empty without requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttft_quantiles_ms: Vec<f64>,
    /// How the run went over time; absent where it was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// With several seeds: the figures of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_seed: Option<Vec<SeedFigures>>,
    /// With several seeds: 95 % confidence intervals by figure key, e.g. `ttft_ms.p95`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci: Option<BTreeMap<String, Interval>>,
    /// With several seeds and strategies: seed by seed against the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<Paired>,
    /// With a simulation that was also played live: what emulated engines over HTTP gave in real time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// Which part of a run the figures cover: the requests of the sessions that start in `from_s <= t < to_s`, in a closed loop the
/// requests that are sent then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// End of the warm-up, s from the start of the run.
    pub from_s: f64,
    /// Last session start, s from the start of the run; then the run drains.
    pub to_s: f64,
    /// Requests of sessions that started in the warm-up (closed loop: requests sent in it): not counted.
    pub warmup_requests: u64,
}

/// What was offered to the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// `open` (starts by the clock) or `closed` (a fixed number of sessions at once).
    pub kind: String,
    /// Session starts per second that were asked for (open loop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_per_s: Option<f64>,
    /// Sessions at once (closed loop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Factor on the trace's own times (replay).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_scale: Option<f64>,
    /// Share of the capacity that was searched, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_capacity: Option<f64>,
}

/// How requests ended: `total = ok + failed + refused + cancelled`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Requests sent.
    pub total: u64,
    /// Answered completely.
    pub ok: u64,
    /// Ended by an error of any kind but a refusal.
    pub failed: u64,
    /// Attempts that the router repeated at another replica, counted beside the outcomes.
    pub retried: u64,
    /// Answered with 429 or 503.
    pub refused: u64,
    /// Given up by the client: interrupted, or still running when the drain ended.
    pub cancelled: u64,
    /// Later turns of the window's sessions that were never sent because the drain ended first; not in `total`. None in a closed
    /// loop, which sends nothing after its time, and none after an interruption.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsent: u64,
    /// `failed` by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
    /// `refused` by status and error code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, u64>,
}

/// Work per second of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Complete replies.
    pub requests_per_s: Option<f64>,
    /// Prompt tokens of complete replies.
    pub input_tokens_per_s: Option<f64>,
    /// Output tokens of complete replies.
    pub output_tokens_per_s: Option<f64>,
}

/// Objectives for one request; an absent one always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Most TTFT, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Most mean gap between the request's own tokens, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl_ms: Option<f64>,
    /// Most time to the end of the reply, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e_ms: Option<f64>,
}

/// Share of requests within the objectives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// The objectives.
    pub slo: Slo,
    /// Share of ALL requests of the window, 0..=1: failed, refused and cancelled ones miss.
    pub share: Option<f64>,
}

/// Prefix cache figures, 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Prompt tokens that engines found in their caches.
    pub hit_ratio: Option<f64>,
    /// The same for one cache of infinite size that sees every request.
    pub infinite_cache_ratio: Option<f64>,
}

/// Who served, as shares of the complete replies, 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// By replica.
    pub share: BTreeMap<String, f64>,
    /// The largest of them.
    pub max_share: Option<f64>,
    /// Served in another region than the router's.
    pub cross_region_share: Option<f64>,
    /// Requests by the entry that took them, however they ended: a count, no share; absent where there was one entry for all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub entries: BTreeMap<String, u64>,
}

/// Quality of the router's predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Median of |predicted − measured| TTFT at the router, ms; null where the strategy predicts none.
    pub ttft_error_median: Option<f64>,
    /// Median of |predicted − measured| ÷ measured; null likewise.
    #[serde(default)]
    pub ttft_error_ratio: Option<f64>,
}

/// The lower bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// TTFT that no routing can beat on these requests.
    pub ttft_ms: Latency,
    /// E2E of one engine that has all replicas' speed, bandwidth and KV together and is as near as the nearest; absent where it was not
    /// simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooled_e2e_ms: Option<Latency>,
    /// Its distribution, as [`Run::ttft_quantiles_ms`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttft_quantiles_ms: Vec<f64>,
}

/// Money, USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// GPUs for the length of the window.
    pub gpu_usd: Option<f64>,
    /// Traffic between regions.
    pub egress_usd: Option<f64>,
}

/// How a run went, in slices of equal length from its start (warm-up included).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Length of a slice, s.
    pub slice_s: f64,
    /// TTFT median of the requests sent in the slice; null in slices without.
    pub ttft_p50_ms: Vec<Option<f64>>,
    /// Requests under way, mean over the slice.
    pub in_flight: Vec<f64>,
}

/// The figures of one seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeedFigures {
    /// The seed.
    pub seed: u64,
    /// Part of the trace's time, s: begin and end; absent without windows, the end `null` for an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<(f64, Option<f64>)>,
    /// As in [`Run`].
    pub requests: Requests,
    /// As in [`Run`].
    pub ttft_ms: Latency,
    /// As in [`Run`].
    pub e2e_ms: Latency,
    /// As in [`Run`].
    pub cache: Cache,
    /// As in [`Run`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
}

/// A confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Ratios to another strategy on the same seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The other strategy.
    pub to: String,
    /// By figure key: own figure ÷ the other's.
    pub ratios: BTreeMap<String, Ratio>,
}

/// A ratio over seeds and its confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Geometric mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The same strategy on the same requests, with emulated engines over HTTP in real time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// As in [`Run`].
    pub requests: Requests,
    /// As in [`Run`].
    pub ttft_ms: Latency,
    /// As in [`Run`].
    pub e2e_ms: Latency,
    /// As in [`Run`].
    pub tpot_ms: Latency,
    /// As in [`Run`].
    pub cache: Cache,
    /// As in [`Routing`].
    pub share: BTreeMap<String, f64>,
    /// Share of the requests that the same replica served both ways, 0..=1; null unless all were answered both ways.
    pub agreement: Option<f64>,
}

/// A strategy's figures ÷ another's, or ÷ the lower bound of the same requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The strategy.
    pub strategy: String,
    /// The strategy that it is compared with, or `lower bound`.
    pub to: String,
    /// Which load; absent = geometric means over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// By figure key, and `all`: the geometric mean of the others. What could not be compared is missing.
    pub ratios: BTreeMap<String, Compared>,
}

/// A ratio over draws (seeds and windows), geometric mean; its 95 % interval where there are several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Geometric mean.
    pub mean: f64,
    /// Lower end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// The highest load at which a strategy of the comparison keeps up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// That load.
    pub load: Load,
    /// The strategy that kept up there.
    pub strategy: String,
    /// TTFT p95 up to which a strategy keeps up, ms.
    pub limit_ms: f64,
    /// TTFT p95 of the best strategy on the nearly idle fleet, ms.
    pub idle_ms: f64,
    /// Loads that were tried.
    pub probes: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Report {
    /// The file's text: indented JSON with compact lists, at most three decimals (six below 1), and a final line end.
    ///
    /// # Errors
    /// None of our types can fail to serialise; a caller's `config` could (a map with keys that are no strings).
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        super::json::text(self)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::Value;

    use super::Report;
    use crate::report::example;
    use crate::report::figures;

    /// Every key path of a value, arrays as `[]`, values left out.
    fn paths(value: &Value, prefix: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    paths(inner, &format!("{prefix}.{key}"), out);
                }
            }
            Value::Array(items) => match items.first() {
                Some(first) => paths(first, &format!("{prefix}[]"), out),
                None => out.push(format!("{prefix}[]")),
            },
            _ => out.push(prefix.to_owned()),
        }
    }

    #[test]
    fn the_keys_are_those_of_version_1() {
        let mut report = example::report();
        report.runs.truncate(1);
        let run = &mut report.runs[0];
        run.per_seed = Some(vec![super::SeedFigures { seed: 1, ..super::SeedFigures::default() }]);
        run.ci = Some([("ttft_ms.p95".to_owned(), super::Interval { low: 1.0, high: 2.0 })].into());
        let ratios = [("ttft_ms.p95".to_owned(), super::Ratio { mean: 0.9, low: 0.8, high: 1.0 })].into();
        run.paired = Some(super::Paired { to: "other".into(), ratios });
        run.cost = Some(super::Cost::default());
        let mut all = Vec::new();
        paths(&serde_json::to_value(&report).unwrap(), "", &mut all);
        all.sort();
        assert_snapshot!(all.join("\n"), @r"
        .client_lag_ms.max
        .client_lag_ms.n
        .client_lag_ms.p50
        .client_lag_ms.p95
        .client_lag_ms.p99
        .config.fleet
        .config.seed
        .emulator_error_ms.max
        .emulator_error_ms.n
        .emulator_error_ms.p50
        .emulator_error_ms.p95
        .emulator_error_ms.p99
        .gorgo
        .machine.arch
        .machine.cores
        .machine.os
        .runs[].bound.ttft_ms.max
        .runs[].bound.ttft_ms.mean
        .runs[].bound.ttft_ms.p50
        .runs[].bound.ttft_ms.p90
        .runs[].bound.ttft_ms.p95
        .runs[].bound.ttft_ms.p99
        .runs[].bound.ttft_quantiles_ms[]
        .runs[].cache.hit_ratio
        .runs[].cache.infinite_cache_ratio
        .runs[].ci.ttft_ms.p95.high
        .runs[].ci.ttft_ms.p95.low
        .runs[].cost.egress_usd
        .runs[].cost.gpu_usd
        .runs[].e2e_ms.max
        .runs[].e2e_ms.mean
        .runs[].e2e_ms.p50
        .runs[].e2e_ms.p90
        .runs[].e2e_ms.p95
        .runs[].e2e_ms.p99
        .runs[].goodput.share
        .runs[].goodput.slo.itl_ms
        .runs[].goodput.slo.ttft_ms
        .runs[].itl_ms.max
        .runs[].itl_ms.mean
        .runs[].itl_ms.p50
        .runs[].itl_ms.p90
        .runs[].itl_ms.p95
        .runs[].itl_ms.p99
        .runs[].load.kind
        .runs[].load.sessions_per_s
        .runs[].paired.ratios.ttft_ms.p95.high
        .runs[].paired.ratios.ttft_ms.p95.low
        .runs[].paired.ratios.ttft_ms.p95.mean
        .runs[].paired.to
        .runs[].per_seed[].cache.hit_ratio
        .runs[].per_seed[].cache.infinite_cache_ratio
        .runs[].per_seed[].e2e_ms.max
        .runs[].per_seed[].e2e_ms.mean
        .runs[].per_seed[].e2e_ms.p50
        .runs[].per_seed[].e2e_ms.p90
        .runs[].per_seed[].e2e_ms.p95
        .runs[].per_seed[].e2e_ms.p99
        .runs[].per_seed[].requests.cancelled
        .runs[].per_seed[].requests.failed
        .runs[].per_seed[].requests.ok
        .runs[].per_seed[].requests.refused
        .runs[].per_seed[].requests.retried
        .runs[].per_seed[].requests.total
        .runs[].per_seed[].seed
        .runs[].per_seed[].ttft_ms.max
        .runs[].per_seed[].ttft_ms.mean
        .runs[].per_seed[].ttft_ms.p50
        .runs[].per_seed[].ttft_ms.p90
        .runs[].per_seed[].ttft_ms.p95
        .runs[].per_seed[].ttft_ms.p99
        .runs[].prediction.ttft_error_median
        .runs[].prediction.ttft_error_ratio
        .runs[].requests.cancelled
        .runs[].requests.failed
        .runs[].requests.ok
        .runs[].requests.refused
        .runs[].requests.retried
        .runs[].requests.total
        .runs[].routing.cross_region_share
        .runs[].routing.max_share
        .runs[].routing.share.asia
        .runs[].routing.share.eu
        .runs[].routing.share.us
        .runs[].series.in_flight[]
        .runs[].series.slice_s
        .runs[].series.ttft_p50_ms[]
        .runs[].strategy
        .runs[].throughput.input_tokens_per_s
        .runs[].throughput.output_tokens_per_s
        .runs[].throughput.requests_per_s
        .runs[].tpot_ms.max
        .runs[].tpot_ms.mean
        .runs[].tpot_ms.p50
        .runs[].tpot_ms.p90
        .runs[].tpot_ms.p95
        .runs[].tpot_ms.p99
        .runs[].ttft_intended_ms.max
        .runs[].ttft_intended_ms.mean
        .runs[].ttft_intended_ms.p50
        .runs[].ttft_intended_ms.p90
        .runs[].ttft_intended_ms.p95
        .runs[].ttft_intended_ms.p99
        .runs[].ttft_ms.max
        .runs[].ttft_ms.mean
        .runs[].ttft_ms.p50
        .runs[].ttft_ms.p90
        .runs[].ttft_ms.p95
        .runs[].ttft_ms.p99
        .runs[].ttft_quantiles_ms[]
        .runs[].window.from_s
        .runs[].window.to_s
        .runs[].window.warmup_requests
        .schema
        .trace.dropped
        .trace.name
        .trace.requests
        .trace.sha256
        .wan_error_ms.max
        .wan_error_ms.n
        .wan_error_ms.p50
        .wan_error_ms.p95
        .wan_error_ms.p99
        ");
    }

    #[test]
    fn every_key_of_a_run_is_defined() {
        let mut run = example::report().runs.remove(0);
        run.per_seed = Some(Vec::new());
        run.ci = Some(std::collections::BTreeMap::new());
        run.paired = Some(super::Paired::default());
        run.live = Some(super::Live::default());
        run.cost = Some(super::Cost::default());
        let Value::Object(keys) = serde_json::to_value(&run).unwrap() else { panic!("a run is an object") };
        for key in keys.keys().filter(|key| *key != "strategy") {
            let defined = |figure: &figures::Figure| figure.key == key || figure.key.starts_with(&format!("{key}."));
            assert!(figures::FIGURES.iter().any(defined), "{key} has no definition");
        }
    }

    #[test]
    fn a_report_survives_the_round_trip_and_readers_ignore_new_keys() {
        let report = example::report();
        let text = report.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let newer = text.replacen("\"schema\"", "\"from_the_future\": [1], \"schema\"", 1);
        assert_eq!(serde_json::from_str::<Report>(&newer).unwrap(), report);
    }
}
