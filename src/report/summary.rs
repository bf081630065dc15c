//! From samples to the figures of one run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::percentile::{latency, nearest_rank, ratio, round, sorted};
use super::sample::{Outcome, Sample};
use super::schema::{Bound, Cache, Goodput, Latency, Load, Requests, Routing, Run, Series, Slo, Throughput, Window};
use crate::model::Time;

/// Most slices of the time series: with more, the medians of a minute's run rest on a handful of requests each and only wriggle.
const MAX_SLICES: f64 = 15.0;
/// Steps of the stored TTFT distribution: half per cents.
const QUANTILE_STEPS: u32 = 200;

/// How to judge a run.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// End of the warm-up and end of the starts, s.
    pub from_s: f64,
    /// See `from_s`.
    pub to_s: f64,
    /// Objectives, if any.
    pub slo: Option<Slo>,
    /// The router's region: what is served elsewhere crossed regions.
    pub home: Option<Arc<str>>,
    /// Token-weighted hit ratio of an infinite cache on the requests of the window.
    pub infinite_cache_ratio: Option<f64>,
}

/// The figures of one run. Latencies, cache and routing cover the measured samples that ended well; `requests` and goodput cover
/// all measured samples; throughput and series cover everything that ran in their time.
#[must_use]
pub fn summarise(strategy: &str, load: Load, samples: &[Sample], rules: &Rules) -> Run {
    let measured: Vec<&Sample> = samples.iter().filter(|sample| sample.measured).collect();
    let ok: Vec<&Sample> = measured.iter().copied().filter(|sample| sample.ok()).collect();
    let of = |figure: fn(&Sample) -> Option<f64>| ok.iter().copied().filter_map(figure).collect::<Vec<f64>>();
    let ttft = sorted(of(Sample::ttft_ms));
    Run {
        strategy: strategy.to_owned(),
        window: Window {
            from_s: rules.from_s,
            to_s: rules.to_s,
            warmup_requests: (samples.len() - measured.len()) as u64,
        },
        load,
        requests: requests(&measured),
        ttft_quantiles_ms: quantiles(&ttft),
        ttft_ms: latency(ttft),
        ttft_intended_ms: latency(of(Sample::ttft_intended_ms)),
        e2e_ms: latency(of(Sample::e2e_ms)),
        itl_ms: gaps(&ok),
        tpot_ms: latency(of(Sample::tpot_ms)),
        throughput: throughput(samples, rules),
        goodput: rules.slo.map(|slo| goodput(&measured, slo)),
        cache: Cache { hit_ratio: hit_ratio(&ok), infinite_cache_ratio: rules.infinite_cache_ratio },
        routing: Routing { entries: entries(&measured), ..routing(&ok, rules.home.as_deref()) },
        series: Some(series(samples)),
        ..Run::default()
    }
}

/// The lower bound's figures from its TTFT per request, ms.
#[must_use]
pub fn bound(ttft_ms: Vec<f64>) -> Bound {
    let values = sorted(ttft_ms);
    Bound { ttft_quantiles_ms: quantiles(&values), ttft_ms: latency(values), pooled_e2e_ms: None }
}

fn requests(measured: &[&Sample]) -> Requests {
    let mut counts = Requests { total: measured.len() as u64, ..Requests::default() };
    for sample in measured {
        counts.retried += u64::from(sample.retried);
        match &sample.outcome {
            Outcome::Ok => counts.ok += 1,
            Outcome::Refused(kind) => {
                counts.refused += 1;
                *counts.refusals.entry(kind.to_string()).or_insert(0) += 1;
            }
            Outcome::Cancelled => counts.cancelled += 1,
            Outcome::Failed(kind) => {
                counts.failed += 1;
                *counts.failures.entry(kind.to_string()).or_insert(0) += 1;
            }
        }
    }
    counts
}

fn gaps(ok: &[&Sample]) -> Latency {
    latency(ok.iter().flat_map(|sample| &sample.gaps_ms).map(|gap| f64::from(*gap)).collect())
}

/// TTFT at 0, 0.5, 1, … 100 per cent; empty for an empty sample. `sorted` ascends.
#[must_use]
pub fn quantiles(sorted: &[f64]) -> Vec<f64> {
    (0..=QUANTILE_STEPS).filter_map(|step| nearest_rank(sorted, step * 1000 / QUANTILE_STEPS)).map(round).collect()
}

/// Replies that ended inside the window's clock time, whichever session they belong to: a steady state has as many that began
/// before it as it leaves unfinished.
fn throughput(samples: &[Sample], rules: &Rules) -> Throughput {
    let (from, to) = (Time::from_ms(rules.from_s * 1000.0), Time::from_ms(rules.to_s * 1000.0));
    let length_s = rules.to_s - rules.from_s;
    let ended = || samples.iter().filter(|sample| sample.ok() && sample.end >= from && sample.end < to);
    let per_s = |amount: u64| (length_s > 0.0).then(|| round(amount as f64 / length_s));
    Throughput {
        requests_per_s: per_s(ended().count() as u64),
        input_tokens_per_s: per_s(ended().map(|sample| u64::from(sample.prompt_tokens)).sum()),
        output_tokens_per_s: per_s(ended().map(|sample| u64::from(sample.output_tokens)).sum()),
    }
}

fn goodput(measured: &[&Sample], slo: Slo) -> Goodput {
    let good = measured.iter().filter(|sample| meets(sample, slo)).count();
    Goodput { slo, share: ratio(good as f64, measured.len() as f64) }
}

/// A reply of one token has no gap, so an objective on gaps holds for it.
fn meets(sample: &Sample, slo: Slo) -> bool {
    let within = |value: Option<f64>, limit: Option<f64>| limit.is_none_or(|limit| value.is_some_and(|v| v <= limit));
    sample.ok()
        && within(sample.ttft_ms(), slo.ttft_ms)
        && within(Some(sample.tpot_ms().unwrap_or(0.0)), slo.itl_ms)
        && within(sample.e2e_ms(), slo.e2e_ms)
}

/// Over the requests whose reply told the cached tokens.
fn hit_ratio(ok: &[&Sample]) -> Option<f64> {
    let told = ok.iter().filter_map(|sample| Some((sample.cached_tokens?, sample.prompt_tokens)));
    let (cached, prompt) =
        told.fold((0_u64, 0_u64), |(cached, prompt), (c, p)| (cached + u64::from(c), prompt + u64::from(p)));
    ratio(cached as f64, prompt as f64)
}

fn routing(ok: &[&Sample], home: Option<&str>) -> Routing {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for replica in ok.iter().filter_map(|sample| sample.replica.as_deref()) {
        *counts.entry(replica).or_insert(0) += 1;
    }
    let known = counts.values().sum::<u64>() as f64;
    let share: BTreeMap<String, f64> =
        counts.iter().filter_map(|(name, count)| Some((String::from(*name), ratio(*count as f64, known)?))).collect();
    let max_share = share.values().copied().max_by(f64::total_cmp);
    // From where it was taken to where it was served.
    let ways = || ok.iter().filter_map(|sample| Some((sample.home.as_deref().or(home)?, sample.region.as_deref()?)));
    let cross_region_share = ratio(ways().filter(|(from, to)| from != to).count() as f64, ways().count() as f64);
    Routing { share, max_share, cross_region_share, entries: BTreeMap::new() }
}

/// How many requests each entry took, however they ended.
fn entries(measured: &[&Sample]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in measured.iter().filter_map(|sample| sample.entry.as_deref()) {
        *counts.entry(entry.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// TTFT medians by send time and requests under way, in slices of whole seconds.
fn series(samples: &[Sample]) -> Series {
    let end_s = samples.iter().map(|sample| sample.end.ms() / 1000.0).fold(0.0, f64::max);
    let slice_s = (end_s / MAX_SLICES).ceil().max(1.0);
    let slices = (end_s / slice_s).ceil() as usize;
    let slice_of = |time: Time| ((time.ms() / 1000.0 / slice_s) as usize).min(slices.saturating_sub(1));
    let mut ttft: Vec<Vec<f64>> = vec![Vec::new(); slices];
    let mut busy_ms = vec![0.0; slices];
    for sample in samples {
        if let Some(value) = sample.ttft_ms().filter(|_| sample.ok()) {
            ttft[slice_of(sample.sent)].push(value);
        }
        if slices == 0 {
            continue;
        }
        for (slice, busy) in busy_ms.iter_mut().enumerate().take(slice_of(sample.end) + 1).skip(slice_of(sample.sent)) {
            let (begin, finish) = (slice as f64 * slice_s * 1000.0, (slice + 1) as f64 * slice_s * 1000.0);
            *busy += (sample.end.ms().min(finish) - sample.sent.ms().max(begin)).max(0.0);
        }
    }
    Series {
        slice_s,
        ttft_p50_ms: ttft.into_iter().map(|values| nearest_rank(&sorted(values), 500).map(round)).collect(),
        in_flight: busy_ms.into_iter().map(|busy| round(busy / (slice_s * 1000.0))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Rules, summarise};
    use crate::model::Time;
    use crate::report::sample::{Outcome, Sample};
    use crate::report::schema::{Load, Slo};

    /// A complete reply: sent, first and last token in ms, with `gaps` gaps of equal length between.
    fn reply(sent: f64, first: f64, last: f64, tokens: u32) -> Sample {
        let mut sample = Sample::new(true, Time::from_ms(sent), Time::from_ms(sent), 100);
        sample.first = Some(Time::from_ms(first));
        sample.last = Some(Time::from_ms(last));
        sample.end = Time::from_ms(last);
        sample.output_tokens = tokens;
        let gaps = tokens.saturating_sub(1);
        sample.gaps_ms = (0..gaps).map(|_| ((last - first) / f64::from(gaps)) as f32).collect();
        sample.outcome = Outcome::Ok;
        sample
    }

    fn served(mut sample: Sample, replica: &str, region: &str, cached: u32) -> Sample {
        sample.replica = Some(replica.into());
        sample.region = Some(region.into());
        sample.cached_tokens = Some(cached);
        sample
    }

    fn failed(outcome: Outcome) -> Sample {
        Sample { outcome, ..Sample::new(true, Time::ZERO, Time::ZERO, 100) }
    }

    fn rules() -> Rules {
        let slo = Slo { ttft_ms: Some(100.0), itl_ms: Some(10.0), e2e_ms: None };
        Rules { from_s: 0.0, to_s: 2.0, slo: Some(slo), home: Some("here".into()), infinite_cache_ratio: Some(0.9) }
    }

    #[test]
    fn figures_of_a_small_run_against_hand_computed_values() {
        let samples = [
            served(reply(0.0, 100.0, 130.0, 4), "a", "here", 50),
            served(reply(0.0, 200.0, 220.0, 3), "b", "there", 100),
            served(reply(500.0, 550.0, 650.0, 5), "a", "here", 0),
            served(reply(1000.0, 1080.0, 1080.0, 1), "a", "here", 100),
            failed(Outcome::Failed("connect".into())),
            failed(Outcome::Refused("503 none_healthy".into())),
            failed(Outcome::Cancelled),
        ];
        let run = summarise("gorgo", Load::default(), &samples, &rules());
        assert_eq!((run.requests.total, run.requests.ok, run.requests.failed), (7, 4, 1));
        assert_eq!((run.requests.refused, run.requests.cancelled), (1, 1));
        assert_eq!(run.requests.failures.get("connect"), Some(&1));
        assert_eq!(run.requests.refusals.get("503 none_healthy"), Some(&1));
        // TTFT 100, 200, 50, 80; E2E 130, 220, 150, 80.
        assert_eq!(run.ttft_ms.mean, Some(107.5));
        assert_eq!((run.ttft_ms.p50, run.ttft_ms.p95), (Some(80.0), Some(200.0)));
        assert_eq!((run.e2e_ms.p50, run.e2e_ms.max), (Some(130.0), Some(220.0)));
        // TPOT 10, 10, 25; gaps 3 x 10, 2 x 10, 4 x 25.
        assert_eq!((run.tpot_ms.mean, run.tpot_ms.p50), (Some(15.0), Some(10.0)));
        assert_eq!((run.itl_ms.p50, run.itl_ms.p90), (Some(10.0), Some(25.0)));
        // Good: the first (100 ms, 10 ms) and the fourth (80 ms, no gap), of all seven.
        assert_eq!(run.goodput.unwrap().share, Some(0.285_714));
        assert_eq!(run.cache.hit_ratio, Some(250.0 / 400.0));
        assert_eq!((run.routing.share["a"], run.routing.max_share), (0.75, Some(0.75)));
        assert_eq!(run.routing.cross_region_share, Some(0.25));
        assert_eq!(run.throughput.requests_per_s, Some(2.0));
        assert_eq!(run.throughput.output_tokens_per_s, Some(6.5));
    }

    #[test]
    fn warm_up_counts_for_throughput_and_series_only() {
        let warm = Sample { measured: false, ..reply(0.0, 900.0, 1000.0, 2) };
        let run = summarise("x", Load::default(), &[warm, reply(1000.0, 1010.0, 1500.0, 2)], &rules());
        assert_eq!((run.requests.total, run.window.warmup_requests), (1, 1));
        assert_eq!(run.ttft_ms.max, Some(10.0));
        assert_eq!(run.throughput.requests_per_s, Some(1.0));
        let series = run.series.unwrap();
        assert_eq!(series.ttft_p50_ms, [Some(900.0), Some(10.0)]);
        assert_eq!(series.in_flight, [1.0, 0.5]);
    }

    #[test]
    fn entries_count_their_requests_however_these_end() {
        let by = |entry: &str, sample: Sample| Sample { entry: Some(entry.into()), ..sample };
        let warm = Sample { measured: false, ..reply(0.0, 1.0, 2.0, 1) };
        let samples = [
            by("west", reply(0.0, 10.0, 20.0, 1)),
            by("west", failed(Outcome::Failed("connect".into()))),
            by("east", reply(0.0, 10.0, 20.0, 1)),
            by("east", warm),
            reply(0.0, 10.0, 20.0, 1),
        ];
        let run = summarise("x", Load::default(), &samples, &rules());
        let counts: Vec<(&str, u64)> =
            run.routing.entries.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(counts, [("east", 1), ("west", 2)]);
    }

    #[test]
    fn latency_counts_from_the_intended_time_too() {
        let mut late = reply(300.0, 400.0, 500.0, 2);
        late.intended = Time::from_ms(100.0);
        let run = summarise("x", Load::default(), &[late], &rules());
        assert_eq!((run.ttft_ms.p50, run.ttft_intended_ms.p50), (Some(100.0), Some(300.0)));
    }

    #[test]
    fn a_run_without_requests_has_no_figures_and_no_panic() {
        let run = summarise("x", Load::default(), &[], &Rules { to_s: 0.0, ..rules() });
        assert_eq!((run.ttft_ms.p50, run.cache.hit_ratio, run.routing.max_share), (None, None, None));
        assert_eq!(run.goodput.unwrap().share, None);
        assert_eq!(run.throughput.requests_per_s, None);
        assert!(run.ttft_quantiles_ms.is_empty());
    }

    #[test]
    fn the_distribution_starts_at_the_smallest_and_ends_at_the_largest() {
        let samples: Vec<_> = (1..=400).map(|ms| reply(0.0, f64::from(ms), f64::from(ms), 1)).collect();
        let quantiles = summarise("x", Load::default(), &samples, &rules()).ttft_quantiles_ms;
        assert_eq!((quantiles.len(), quantiles[0], quantiles[100], quantiles[200]), (201, 1.0, 200.0, 400.0));
    }
}
