//! Strategies against a baseline and against the lower bound, draw by draw: ratios that the draws' own differences do not blur.

use std::collections::BTreeMap;

use super::figures::{MAX_LOST_SHARE, lost_share};
use super::schema::{Compared, Comparison, Run};
use super::seeds::spread;

/// A figure of a run.
type Read = fn(&Run) -> Option<f64>;

/// Figures that are compared: key, heading, how to read them, and the same of the lower bound where it has one.
pub const FIGURES: [(&str, &str, Read, Option<Read>); 4] = [
    ("ttft_ms.p50", "TTFT p50", |run| run.ttft_ms.p50, Some(|run| run.bound.as_ref()?.ttft_ms.p50)),
    ("ttft_ms.p95", "TTFT p95", |run| run.ttft_ms.p95, Some(|run| run.bound.as_ref()?.ttft_ms.p95)),
    ("ttft_ms.p99", "TTFT p99", |run| run.ttft_ms.p99, Some(|run| run.bound.as_ref()?.ttft_ms.p99)),
    ("e2e_ms.p95", "E2E p95", |run| run.e2e_ms.p95, Some(|run| run.bound.as_ref()?.pooled_e2e_ms?.p95)),
];

/// Key of the geometric mean of all compared figures.
pub const ALL: &str = "all";

/// What stands in [`Comparison::to`] for the lower bound.
pub const BOUND: &str = "lower bound";

/// The runs of one strategy under one load, one per draw, in the order of the draws; `None` = it has none.
pub type Draws = Vec<Option<Run>>;

/// Every strategy ÷ the one at `baseline`, then every strategy ÷ the lower bound: over all loads, and with several loads also by load.
/// `loads` holds the draws by load and strategy. A strategy is not compared under a load under which it or the baseline lost requests.
#[must_use]
pub fn comparisons(loads: &[Vec<Draws>], baseline: usize) -> Vec<Comparison> {
    let strategies = loads.first().map_or(0, Vec::len);
    let mut all = Vec::new();
    for strategy in (0..strategies).filter(|strategy| *strategy != baseline) {
        let pairs: Vec<(&Draws, &Draws)> = loads.iter().map(|load| (&load[strategy], &load[baseline])).collect();
        all.extend(by_load(&pairs, name(loads, baseline), |own, to, read, _| Some((read(own)?, read(to)?))));
    }
    for strategy in 0..strategies {
        let pairs: Vec<(&Draws, &Draws)> = loads.iter().map(|load| (&load[strategy], &load[strategy])).collect();
        all.extend(by_load(&pairs, Some(BOUND.to_owned()), |own, _, read, bound| Some((read(own)?, bound?(own)?))));
    }
    all
}

fn name(loads: &[Vec<Draws>], strategy: usize) -> Option<String> {
    loads.iter().flat_map(|load| load[strategy].iter().flatten()).next().map(|run| run.strategy.clone())
}

/// The two values of a figure that make a ratio.
type Pair = fn(&Run, &Run, Read, Option<Read>) -> Option<(f64, f64)>;

fn by_load(pairs: &[(&Draws, &Draws)], to: Option<String>, pair: Pair) -> Vec<Comparison> {
    let Some(to) = to else { return Vec::new() };
    let first = |draws: &Draws| draws.iter().flatten().next().cloned();
    let Some(example) = pairs.iter().find_map(|(own, _)| first(own)) else { return Vec::new() };
    let comparison = |pairs: &[(&Draws, &Draws)], load| {
        let ratios = ratios(pairs, pair);
        let made = Comparison { strategy: example.strategy.clone(), to: to.clone(), load, ratios };
        (!made.ratios.is_empty()).then_some(made)
    };
    let mut made: Vec<Comparison> = comparison(pairs, None).into_iter().collect();
    if pairs.len() > 1 {
        let single = |pair: &(&Draws, &Draws)| comparison(std::slice::from_ref(pair), Some(first(pair.0)?.load));
        made.extend(pairs.iter().filter_map(single));
    }
    made
}

fn ratios(loads: &[(&Draws, &Draws)], pair: Pair) -> BTreeMap<String, Compared> {
    let draws = loads.iter().map(|(own, _)| own.len()).min().unwrap_or(0);
    let mut known: Vec<Vec<f64>> = Vec::new();
    let mut ratios = BTreeMap::new();
    for (key, _, read, bound) in FIGURES {
        let log = |draw: usize, (own, to): &(&Draws, &Draws)| {
            let runs = own.get(draw)?.as_ref().zip(to.get(draw)?.as_ref());
            let (own, to) = runs.filter(|(own, to)| kept(own) && kept(to))?;
            let values = pair(own, to, read, bound).filter(|(own, to)| *own > 0.0 && *to > 0.0);
            values.map(|(own, to)| (own / to).ln())
        };
        let of_draw = |draw| {
            let logs: Option<Vec<f64>> = loads.iter().map(|pair| log(draw, pair)).collect();
            Some(logs?.iter().sum::<f64>() / loads.len() as f64)
        };
        let logs: Option<Vec<f64>> = (0..draws).map(of_draw).collect();
        let Some(logs) = logs.filter(|logs| !logs.is_empty()) else { continue };
        ratios.insert(key.to_owned(), compared(&logs));
        known.push(logs);
    }
    if known.len() > 1 {
        let over_figures = |draw: usize| known.iter().map(|logs| logs[draw]).sum::<f64>() / known.len() as f64;
        let all: Vec<f64> = (0..draws).map(over_figures).collect();
        ratios.insert(ALL.to_owned(), compared(&all));
    }
    ratios
}

/// Latencies of the served alone flatter whoever lost the slow ones.
fn kept(run: &Run) -> bool {
    lost_share(run) <= MAX_LOST_SHARE
}

/// The geometric mean of ratios given as natural logarithms, one per draw, and its 95 % interval if there are several. Never of none.
#[must_use]
pub fn compared(logs: &[f64]) -> Compared {
    let of = |log: f64| (log.exp() * 1e6).round() / 1e6;
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let half = spread(logs).map(|(_, half)| half);
    Compared { mean: of(mean), low: half.map(|half| of(mean - half)), high: half.map(|half| of(mean + half)) }
}

#[cfg(test)]
mod tests {
    use super::{ALL, BOUND, Draws, comparisons};
    use crate::report::Run;
    use crate::report::schema::{Bound, Compared, Latency, Load, Requests};

    fn run(strategy: &str, p50: f64, scale: f64) -> Option<Run> {
        let ttft = |p50: f64| Latency { p50: Some(p50), p95: Some(2.0 * p50), p99: None, ..Latency::default() };
        Some(Run {
            strategy: strategy.into(),
            load: Load { time_scale: Some(scale), ..Load::default() },
            requests: Requests { total: 10, ok: 10, ..Requests::default() },
            ttft_ms: ttft(p50),
            e2e_ms: Latency { p95: Some(1000.0), ..Latency::default() },
            bound: Some(Bound {
                ttft_ms: ttft(50.0),
                pooled_e2e_ms: Some(Latency { p95: Some(500.0), ..Latency::default() }),
                ..Bound::default()
            }),
            ..Run::default()
        })
    }

    fn draws(strategy: &str, p50: [f64; 2], scale: f64) -> Draws {
        p50.map(|p50| run(strategy, p50, scale)).into()
    }

    #[test]
    fn ratios_are_of_pairs_and_geometric_means_over_loads() {
        // Under the first load half as long on every draw, under the second twice as long.
        let loads = [
            vec![draws("a", [100.0, 400.0], 2.0), draws("b", [50.0, 200.0], 2.0)],
            vec![draws("a", [100.0, 400.0], 1.0), draws("b", [200.0, 800.0], 1.0)],
        ];
        let found = comparisons(&loads, 0);
        let one = |strategy: &str, to: &str, scale: Option<f64>| {
            let of = |c: &&super::Comparison| {
                (c.strategy.as_str(), c.to.as_str(), c.load.as_ref().and_then(|load| load.time_scale))
                    == (strategy, to, scale)
            };
            found.iter().find(of).unwrap().ratios.clone()
        };
        let exactly = |mean| Compared { mean, low: Some(mean), high: Some(mean) };
        assert_eq!(one("b", "a", None)["ttft_ms.p50"], exactly(1.0));
        assert_eq!(one("b", "a", Some(2.0))["ttft_ms.p95"], exactly(0.5));
        assert_eq!(one("b", "a", Some(1.0))["ttft_ms.p95"], exactly(2.0));
        assert_eq!(one("b", "a", Some(2.0))["e2e_ms.p95"], exactly(1.0));
        // Two halves and a one: 0.25 ^ (1 / 3).
        assert_eq!(one("b", "a", Some(2.0))[ALL], exactly(0.629_961));
        assert!(!one("b", "a", None).contains_key("ttft_ms.p99"), "what nobody has is not compared");
        // a: 2 and 8 times the bound.
        let bound = one("a", BOUND, Some(2.0))["ttft_ms.p50"];
        assert_eq!(bound.mean, 4.0);
        assert!(bound.low < Some(2.0) && bound.high > Some(8.0), "two draws that differ much: {bound:?}");
        assert_eq!(one("a", BOUND, None)["e2e_ms.p95"], exactly(2.0));
        assert_eq!(found.len(), 3 + 2 * 3);
    }

    #[test]
    fn one_draw_has_no_interval_and_who_lost_requests_is_not_compared() {
        let mut lossy = run("b", 50.0, 1.0);
        let single = vec![vec![vec![run("a", 100.0, 1.0)], vec![lossy.clone()]]];
        let compared = comparisons(&single, 0)[0].ratios["ttft_ms.p50"];
        assert_eq!(compared, Compared { mean: 0.5, low: None, high: None });
        if let Some(run) = &mut lossy {
            run.requests.ok = 5;
        }
        let found = comparisons(&[vec![vec![run("a", 100.0, 1.0)], vec![lossy]]], 0);
        assert!(found.iter().all(|comparison| comparison.strategy == "a"), "{found:?}");
        assert!(comparisons(&[], 0).is_empty());
        assert!(comparisons(&[vec![vec![None], vec![None]]], 0).is_empty(), "nothing was played");
    }
}
