//! Several seeds of one strategy as one run: means, intervals, and ratios to another strategy on the same seeds.

use std::collections::BTreeMap;

use super::percentile::{mean, round};
use super::schema::{
    Bound, Cache, Cost, Goodput, Interval, Latency, Paired, Prediction, Ratio, Requests, Routing, Run, SeedFigures,
    Throughput,
};

/// 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom; beyond the table the normal distribution's is near enough (2 % off
/// at 31).
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
const NORMAL: f64 = 1.96;

/// One draw of what is random: a seed, and the part of the trace where there are several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The seed.
    pub seed: u64,
    /// Begin and end, s; the end `None` for an open one.
    pub window_s: Option<(f64, Option<f64>)>,
}

/// A figure that gets an interval: its key and how to read it.
type Read = (&'static str, fn(&Run) -> Option<f64>);

/// Figures with intervals and ratios.
const READS: [Read; 8] = [
    ("ttft_ms.mean", |run| run.ttft_ms.mean),
    ("ttft_ms.p50", |run| run.ttft_ms.p50),
    ("ttft_ms.p95", |run| run.ttft_ms.p95),
    ("ttft_ms.p99", |run| run.ttft_ms.p99),
    ("e2e_ms.p50", |run| run.e2e_ms.p50),
    ("e2e_ms.p95", |run| run.e2e_ms.p95),
    ("cache.hit_ratio", |run| run.cache.hit_ratio),
    ("goodput.share", |run| run.goodput.as_ref().and_then(|goodput| goodput.share)),
];

/// The runs of one strategy, one per draw, as one; `None` without any. A single one stays as it is.
#[must_use]
pub fn merge(mut runs: Vec<(Draw, Run)>) -> Option<Run> {
    if runs.len() <= 1 {
        return runs.pop().map(|(_, run)| run);
    }
    let per_seed = runs.iter().map(|(draw, run)| figures(*draw, run)).collect();
    let runs: Vec<&Run> = runs.iter().map(|(_, run)| run).collect();
    let first = runs[0];
    let ci = READS.iter().filter_map(|(key, read)| {
        let (middle, half) = spread(&runs.iter().filter_map(|run| read(run)).collect::<Vec<f64>>())?;
        Some(((*key).to_owned(), Interval { low: round6(middle - half), high: round6(middle + half) }))
    });
    Some(Run {
        requests: requests(&runs),
        ttft_ms: latency(&runs, |run| &run.ttft_ms),
        ttft_intended_ms: latency(&runs, |run| &run.ttft_intended_ms),
        e2e_ms: latency(&runs, |run| &run.e2e_ms),
        itl_ms: latency(&runs, |run| &run.itl_ms),
        tpot_ms: latency(&runs, |run| &run.tpot_ms),
        throughput: Throughput {
            requests_per_s: average(&runs, |run| run.throughput.requests_per_s),
            input_tokens_per_s: average(&runs, |run| run.throughput.input_tokens_per_s),
            output_tokens_per_s: average(&runs, |run| run.throughput.output_tokens_per_s),
        },
        goodput: first.goodput.as_ref().map(|goodput| Goodput {
            share: average(&runs, |run| run.goodput.as_ref().and_then(|goodput| goodput.share)),
            slo: goodput.slo,
        }),
        cache: Cache {
            hit_ratio: average(&runs, |run| run.cache.hit_ratio),
            infinite_cache_ratio: average(&runs, |run| run.cache.infinite_cache_ratio),
        },
        routing: routing(&runs),
        prediction: Prediction {
            ttft_error_median: average(&runs, |run| run.prediction.ttft_error_median),
            ttft_error_ratio: average(&runs, |run| run.prediction.ttft_error_ratio),
        },
        bound: bound(&runs),
        cost: first.cost.map(|_| Cost {
            gpu_usd: average(&runs, |run| run.cost.and_then(|cost| cost.gpu_usd)),
            egress_usd: average(&runs, |run| run.cost.and_then(|cost| cost.egress_usd)),
        }),
        per_seed: Some(per_seed),
        ci: Some(ci.collect()),
        ..first.clone()
    })
}

/// Own figures ÷ those of `to`, draw by draw; `None` unless both have at least two draws, the same ones in the same order.
#[must_use]
pub fn paired(own: &[(Draw, Run)], to: &[(Draw, Run)]) -> Option<Paired> {
    let draws = |runs: &[(Draw, Run)]| runs.iter().map(|(draw, _)| *draw).collect::<Vec<Draw>>();
    if own.len() < 2 || draws(own) != draws(to) {
        return None;
    }
    let ratio = |(key, read): &Read| {
        let pairs = own.iter().zip(to).map(|((_, own), (_, to))| Some((read(own)?, read(to)?)));
        let logs: Option<Vec<f64>> = pairs
            .map(|pair| pair.filter(|(own, to)| *own > 0.0 && *to > 0.0).map(|(own, to)| (own / to).ln()))
            .collect();
        let (middle, half) = spread(&logs?)?;
        let of = |log: f64| round6(log.exp());
        Some(((*key).to_owned(), Ratio { mean: of(middle), low: of(middle - half), high: of(middle + half) }))
    };
    let ratios: BTreeMap<String, Ratio> = READS.iter().filter_map(ratio).collect();
    Some(Paired { to: to[0].1.strategy.clone(), ratios })
}

/// Mean and half of its 95 % interval; `None` below two values.
pub(super) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let middle = mean(values).filter(|_| values.len() > 1)?;
    let freedom = (values.len() - 1) as f64;
    let variance = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / freedom;
    let student = STUDENT.get(values.len() - 2).copied().unwrap_or(NORMAL);
    Some((middle, student * (variance / values.len() as f64).sqrt()))
}

fn figures(draw: Draw, run: &Run) -> SeedFigures {
    SeedFigures {
        seed: draw.seed,
        window_s: draw.window_s,
        requests: run.requests.clone(),
        ttft_ms: run.ttft_ms,
        e2e_ms: run.e2e_ms,
        cache: run.cache,
        goodput: run.goodput,
    }
}

fn average(runs: &[&Run], read: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    mean(&runs.iter().filter_map(|run| read(run)).collect::<Vec<f64>>()).map(round6)
}

fn latency(runs: &[&Run], of: fn(&Run) -> &Latency) -> Latency {
    let at = |read: fn(&Latency) -> Option<f64>| average(runs, |run| read(of(run))).map(round);
    Latency {
        mean: at(|latency| latency.mean),
        p50: at(|latency| latency.p50),
        p90: at(|latency| latency.p90),
        p95: at(|latency| latency.p95),
        p99: at(|latency| latency.p99),
        max: at(|latency| latency.max),
    }
}

fn requests(runs: &[&Run]) -> Requests {
    let mut sum = Requests::default();
    for requests in runs.iter().map(|run| &run.requests) {
        sum.total += requests.total;
        sum.ok += requests.ok;
        sum.failed += requests.failed;
        sum.retried += requests.retried;
        sum.refused += requests.refused;
        sum.cancelled += requests.cancelled;
        sum.unsent += requests.unsent;
        for (kinds, of) in [(&mut sum.failures, &requests.failures), (&mut sum.refusals, &requests.refusals)] {
            for (kind, count) in of {
                *kinds.entry(kind.clone()).or_insert(0) += count;
            }
        }
    }
    sum
}

fn routing(runs: &[&Run]) -> Routing {
    let names: BTreeMap<&String, ()> =
        runs.iter().flat_map(|run| run.routing.share.keys()).map(|name| (name, ())).collect();
    let share = |name: &String| {
        let of = |run: &Run| Some(run.routing.share.get(name).copied().unwrap_or(0.0));
        average(runs, of).map(|share| (name.clone(), share))
    };
    Routing {
        share: names.into_keys().filter_map(share).collect(),
        max_share: average(runs, |run| run.routing.max_share),
        cross_region_share: average(runs, |run| run.routing.cross_region_share),
        entries: entries(runs),
    }
}

/// Counts add up over the seeds, as those of [`Requests`] do.
fn entries(runs: &[&Run]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (name, count) in runs.iter().flat_map(|run| &run.routing.entries) {
        *sum.entry(name.clone()).or_insert(0) += count;
    }
    sum
}

fn bound(runs: &[&Run]) -> Option<Bound> {
    let first = runs[0].bound.as_ref()?;
    let of = |run: &&Run| {
        let bound = run.bound.as_ref()?;
        Some(Run { ttft_ms: bound.ttft_ms, e2e_ms: bound.pooled_e2e_ms.unwrap_or_default(), ..Run::default() })
    };
    let bounds: Vec<Run> = runs.iter().filter_map(of).collect();
    let bounds: Vec<&Run> = bounds.iter().collect();
    Some(Bound {
        ttft_ms: latency(&bounds, |run| &run.ttft_ms),
        pooled_e2e_ms: first.pooled_e2e_ms.map(|_| latency(&bounds, |run| &run.e2e_ms)),
        ttft_quantiles_ms: first.ttft_quantiles_ms.clone(),
    })
}

fn round6(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::{Draw, merge, paired};
    use crate::report::Run;
    use crate::report::schema::{Cache, Latency, Requests};

    fn run(strategy: &str, p95: f64, ok: u64) -> Run {
        Run {
            strategy: strategy.into(),
            requests: Requests { total: 10, ok, failed: 10 - ok, ..Requests::default() },
            ttft_ms: Latency { p95: Some(p95), ..Latency::default() },
            cache: Cache { hit_ratio: Some(0.5), infinite_cache_ratio: None },
            ..Run::default()
        }
    }

    fn seeds(strategy: &str, p95: &[f64]) -> Vec<(Draw, Run)> {
        let draw = |seed| Draw { seed, window_s: None };
        p95.iter().zip(1..).map(|(p95, seed)| (draw(seed), run(strategy, *p95, 9))).collect()
    }

    #[test]
    fn means_sums_and_student_intervals_against_hand_computed_values() {
        let merged = merge(seeds("a", &[90.0, 100.0, 110.0])).unwrap();
        assert_eq!((merged.ttft_ms.p95, merged.ttft_ms.p50), (Some(100.0), None));
        assert_eq!((merged.requests.total, merged.requests.ok, merged.requests.failed), (30, 27, 3));
        // Deviation 10, standard error 10 / sqrt 3, t with two degrees of freedom 4.303.
        let ci = merged.ci.unwrap();
        assert_eq!((ci["ttft_ms.p95"].low, ci["ttft_ms.p95"].high), (75.156_618, 124.843_382));
        assert_eq!((ci["cache.hit_ratio"].low, ci["cache.hit_ratio"].high), (0.5, 0.5));
        assert!(!ci.contains_key("ttft_ms.p50"), "what no seed has has no interval");
        let per_seed = merged.per_seed.unwrap();
        assert_eq!(per_seed.iter().map(|figures| figures.seed).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_single_seed_stays_as_it_is() {
        assert_eq!(merge(seeds("a", &[90.0])), Some(run("a", 90.0, 9)));
        assert_eq!(merge(Vec::new()), None);
    }

    #[test]
    fn ratios_are_of_pairs() {
        // Twice as long on every seed, whatever the seeds differ among themselves.
        let (a, b) = (seeds("a", &[100.0, 400.0]), seeds("b", &[200.0, 800.0]));
        let ratios = paired(&b, &a).unwrap();
        assert_eq!(ratios.to, "a");
        let p95 = ratios.ratios["ttft_ms.p95"];
        assert_eq!((p95.mean, p95.low, p95.high), (2.0, 2.0, 2.0));
        let wide = paired(&seeds("b", &[100.0, 800.0]), &a).unwrap().ratios["ttft_ms.p95"];
        assert!((wide.mean - 2.0_f64.sqrt()).abs() < 1e-6, "geometric mean of 1 and 2: {wide:?}");
        assert!(wide.low < 1.0 && wide.high > 2.0);
        assert_eq!(paired(&b[..1], &a[..1]), None);
        assert_eq!(paired(&b[..1], &a), None);
    }
}
