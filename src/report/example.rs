//! A small comparison with round figures, for tests of the faces.

use std::collections::BTreeMap;

use super::compare;
use super::percentile::round;
use super::schema::{
    Bound, Cache, Capacity, Goodput, Latency, Load, Machine, Prediction, Report, Requests, Routing, Run, SCHEMA,
    Series, Slo, Spread, Throughput, Trace, Window,
};

fn latency(p50: f64) -> Latency {
    Latency {
        mean: Some(p50 * 1.25),
        p50: Some(p50),
        p90: Some(p50 * 2.0),
        p95: Some(p50 * 3.0),
        p99: Some(p50 * 5.0),
        max: Some(p50 * 8.0),
    }
}

/// A distribution from `p50 / 4` to `p50 * 4` that is a straight line on a log axis.
fn quantiles(p50: f64) -> Vec<f64> {
    (0..=200).map(|step| round(p50 * 4_f64.powf(f64::from(step) / 100.0 - 1.0))).collect()
}

fn run(strategy: &str, p50: f64, tpot: f64, hit: f64, east: f64) -> Run {
    let slo = Slo { ttft_ms: Some(2000.0), itl_ms: Some(50.0), e2e_ms: None };
    Run {
        strategy: strategy.to_owned(),
        window: Window { from_s: 10.0, to_s: 50.0, warmup_requests: 120 },
        load: Load { kind: "open".into(), sessions_per_s: Some(3.0), ..Load::default() },
        requests: Requests { total: 600, ok: 600, ..Requests::default() },
        ttft_ms: latency(p50),
        ttft_intended_ms: latency(p50 + 1.0),
        e2e_ms: latency(p50 + 40.0 * tpot),
        itl_ms: latency(tpot),
        tpot_ms: latency(tpot),
        throughput: Throughput {
            requests_per_s: Some(15.0),
            input_tokens_per_s: Some(61_290.0),
            output_tokens_per_s: Some(570.0),
        },
        goodput: Some(Goodput { slo, share: Some(0.99) }),
        cache: Cache { hit_ratio: Some(hit), infinite_cache_ratio: Some(0.954) },
        routing: Routing {
            share: BTreeMap::from([("eu".into(), round(0.9 - east)), ("asia".into(), 0.1), ("us".into(), east)]),
            max_share: Some(east.max(round(0.9 - east))),
            cross_region_share: Some(round(1.0 - east)),
            entries: BTreeMap::new(),
        },
        prediction: Prediction {
            ttft_error_median: (strategy == "gorgo").then_some(21.0),
            ttft_error_ratio: (strategy == "gorgo").then_some(0.08),
        },
        bound: Some(Bound { ttft_ms: latency(60.0), ttft_quantiles_ms: quantiles(60.0), pooled_e2e_ms: None }),
        ttft_quantiles_ms: quantiles(p50),
        series: Some(Series {
            slice_s: 5.0,
            ttft_p50_ms: (0..11)
                .map(|slice| (slice != 4).then_some(p50 * (1.0 + f64::from(slice % 3) / 4.0)))
                .collect(),
            in_flight: (0..11).map(|slice| f64::from(slice % 4) + p50 / 20.0).collect(),
        }),
        ..Run::default()
    }
}

/// `gorgo` wins TTFT, loses TPOT, and `round-robin` lost requests.
pub(crate) fn report() -> Report {
    let mut robin = run("round-robin", 90.0, 12.0, 0.7, 0.34);
    robin.requests.ok = 500;
    robin.requests.failed = 60;
    robin.requests.cancelled = 40;
    robin.requests.unsent = 12;
    robin.requests.failures.insert("connect".into(), 60);
    // What was lost is not good.
    robin.goodput = robin.goodput.map(|good| Goodput { share: Some(0.825), ..good });
    Report {
        schema: SCHEMA.into(),
        gorgo: "0.1.0".into(),
        machine: Machine { os: "linux".into(), arch: "x86_64".into(), cores: 2, cpu: None, memory_bytes: None },
        config: BTreeMap::from([("seed".into(), 1.into()), ("fleet".into(), "a <b> & \"c\"".into())]),
        trace: Trace { name: "bfcl".into(), sha256: "0123456789abcdef0123".into(), requests: 1142, dropped: 0 },
        client_lag_ms: Some(Spread { n: 3600, p50: Some(0.1), p95: Some(0.8), p99: Some(1.9), max: Some(3.0) }),
        emulator_error_ms: Some(Spread { n: 1800, p50: Some(0.2), p95: Some(1.1), p99: Some(2.4), max: Some(4.0) }),
        wan_error_ms: Some(Spread { n: 60_000, p50: Some(0.6), p95: Some(1.2), p99: Some(2.0), max: Some(3.5) }),
        interrupted: false,
        remarks: Vec::new(),
        runs: vec![
            run("gorgo", 100.0, 12.5, 0.95, 0.6),
            run("session-affinity", 150.0, 12.0, 0.951, 0.4),
            run("least-load", 180.0, 11.0, 0.8, 0.3),
            robin,
        ],
        comparisons: Vec::new(),
        capacity: None,
    }
}

/// Two strategies under two loads, on two draws each.
pub(crate) fn sweep() -> Report {
    let played = |strategy: &str, p50: f64, share: f64| {
        let mut run = run(strategy, p50, 12.5, 0.9, 0.6);
        run.load =
            Load { sessions_per_s: None, time_scale: Some(round(1.0 / share)), of_capacity: Some(share), ..run.load };
        run
    };
    let loads = [(0.5, [100.0, 80.0]), (0.9, [150.0, 90.0])].map(|(share, p50)| {
        let draws =
            |strategy, p50: f64| vec![Some(played(strategy, p50, share)), Some(played(strategy, 1.1 * p50, share))];
        vec![draws("gorgo", p50[0]), draws("random", p50[1])]
    });
    let first = |draws: &Vec<Option<Run>>| draws[0].clone();
    Report {
        runs: loads.iter().flatten().filter_map(first).collect(),
        comparisons: compare::comparisons(&loads, 0),
        capacity: Some(Capacity {
            load: Load { kind: "open".into(), time_scale: Some(1.0), ..Load::default() },
            strategy: "random".into(),
            limit_ms: 400.0,
            idle_ms: 200.0,
            probes: 11,
        }),
        ..report()
    }
}
