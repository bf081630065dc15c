//! Every figure of a report: its name, unit and definition. The only place where they are written down.

use super::schema::{Latency, Report, Run};

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Smaller is better.
    Lower,
    /// Larger is better.
    Higher,
    /// Neither: it describes.
    Neither,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Key in the JSON, below a run unless it starts with `/` (then below the report).
    pub key: &'static str,
    /// Name in tables and headings.
    pub name: &'static str,
    /// Unit as shown; empty for counts.
    pub unit: &'static str,
    /// Which direction is better.
    pub better: Better,
    /// What exactly is counted.
    pub definition: &'static str,
}

const fn figure(
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    better: Better,
    definition: &'static str,
) -> Figure {
    Figure { key, name, unit, better, definition }
}

/// All figures in the order in which reports explain them.
pub const FIGURES: &[Figure] = &[
    figure(
        "window",
        "window",
        "s",
        Better::Neither,
        "Open loop: the requests that count are those of the sessions that start from the end of the warm-up until the \
         starts end, so every strategy is judged on the same requests. Requests of sessions that start during the \
         warm-up are sent but not counted; after the last start the run drains, and what counts then still counts. \
         Closed loop: the requests that are themselves sent in that time count, and none is sent after it.",
    ),
    figure(
        "load",
        "load",
        "",
        Better::Neither,
        "Open: sessions start by the clock, at the given rate, however slow replies are. Closed: a fixed number of \
         sessions at once, each followed by the next. Within a session a request waits for the reply before.",
    ),
    figure(
        "requests",
        "requests",
        "",
        Better::Neither,
        "Sent requests of the window: total = ok (complete reply) + failed (any error, by kind) + refused (429 or \
         503, by status and error code) + cancelled (given up by the client: interrupted, or unfinished when the drain \
         ended). Retried: further \
         attempts at other replicas that the router made, warm-up included; 0 where the router is not ours. Unsent: \
         later turns of the window's sessions that were never sent because the run ended. Latencies cover ok requests \
         only.",
    ),
    figure(
        "requests.refused",
        "refused",
        "",
        Better::Neither,
        "Of these refused. They are not good: goodput counts them as missed. TTFT and E2E are those of the served requests alone, and say \
         nothing of how long a refused client had to wait elsewhere.",
    ),
    figure(
        "ttft_ms",
        "TTFT",
        "ms",
        Better::Lower,
        "Time to first token: from handing the request to the connection until the first event with content arrives \
         at the client. Events that carry only a role, and comments, do not count.",
    ),
    figure(
        "ttft_intended_ms",
        "TTFT from intended start",
        "ms",
        Better::Lower,
        "The same from the moment at which the plan wanted the request sent, so that a late load generator cannot \
         hide waiting (coordinated omission).",
    ),
    figure(
        "e2e_ms",
        "E2E",
        "ms",
        Better::Lower,
        "End to end: from handing over the request until the last event with content.",
    ),
    figure(
        "itl_ms",
        "ITL",
        "ms",
        Better::Lower,
        "Inter-token latency: gaps between consecutive content events, pooled over all requests, so long replies \
         weigh more. An engine that sends several tokens per event shows fewer, longer gaps.",
    ),
    figure(
        "tpot_ms",
        "TPOT",
        "ms",
        Better::Lower,
        "Time per output token after the first: (E2E − TTFT) ÷ (output tokens − 1), one value per request with at \
         least two tokens.",
    ),
    figure(
        "throughput",
        "throughput",
        "1/s",
        Better::Higher,
        "Complete replies, their prompt tokens and their output tokens per second, over the replies that ended \
         between the end of the warm-up and the last start, whichever session they belong to.",
    ),
    figure(
        "goodput",
        "goodput",
        "%",
        Better::Higher,
        "Share of all requests of the window (failed, refused and cancelled ones miss) with TTFT, mean gap between \
         their own tokens and E2E within the objectives.",
    ),
    figure(
        "cache.hit_ratio",
        "cache hits",
        "%",
        Better::Higher,
        "Prompt tokens that the engines report as found in their prefix caches ÷ prompt tokens, over ok requests \
         whose reply tells it.",
    ),
    figure(
        "cache.infinite_cache_ratio",
        "infinite cache",
        "%",
        Better::Neither,
        "The same ratio for one cache of infinite size that sees the requests in the order of the plan: the most that \
         any routing can reach.",
    ),
    figure("routing.share", "share", "%", Better::Neither, "Ok requests by the replica that served them."),
    figure("routing.max_share", "max share", "%", Better::Neither, "The largest share of one replica."),
    figure(
        "routing.cross_region_share",
        "cross region",
        "%",
        Better::Neither,
        "Ok requests served in another region than the router's. Not bad in itself: it costs a round trip and may \
         save a prefill or a queue.",
    ),
    figure(
        "prediction.ttft_error_median",
        "prediction error",
        "ms",
        Better::Lower,
        "Median of |predicted − measured| TTFT at the router over its latest replies (warm-up included), for \
         strategies whose score is a time.",
    ),
    figure(
        "prediction.ttft_error_ratio",
        "relative error",
        "%",
        Better::Lower,
        "Median of |predicted − measured| ÷ measured over the same replies.",
    ),
    figure(
        "bound.ttft_ms",
        "lower bound",
        "ms",
        Better::Neither,
        "No routing can be faster on these requests: each request goes to the replica where round trip plus prefill \
         is shortest, nothing waits, and all replicas share one cache of infinite size. For whole answers (E2E), in simulations: one engine \
         with the speed, bandwidth and KV of all replicas together, as near as the nearest of them.",
    ),
    figure("cost.gpu_usd", "GPU cost", "USD", Better::Lower, "Price of the fleet's GPUs for the length of the window."),
    figure(
        "cost.egress_usd",
        "egress cost",
        "USD",
        Better::Lower,
        "Price of the traffic that crossed regions, both directions, at the source region's rate.",
    ),
    figure(
        "ttft_quantiles_ms",
        "TTFT distribution",
        "ms",
        Better::Neither,
        "TTFT at 0, 0.5, 1, … 100 per cent, nearest rank.",
    ),
    figure(
        "series",
        "time series",
        "",
        Better::Neither,
        "Slices of equal length from the start of the run, warm-up and drain included: TTFT median of the requests \
         sent in the slice, and requests under way (mean over the slice).",
    ),
    figure(
        "per_seed",
        "per seed",
        "",
        Better::Neither,
        "With several seeds a run's figures are the means over seeds, its counts of requests their sums; distribution and \
         time series are those of the first seed. Here are the figures of each.",
    ),
    figure("ci", "confidence interval", "", Better::Neither, "95 % interval of the mean over seeds (Student's t)."),
    figure(
        "paired",
        "paired ratio",
        "",
        Better::Lower,
        "Own figure ÷ the same figure of the first strategy, seed by seed: geometric mean over the seeds and its 95 % \
         interval (Student's t of the logarithms). The same seed is the same requests and the same network.",
    ),
    figure(
        "live",
        "live",
        "",
        Better::Neither,
        "The same strategy on the same requests with emulated engines over HTTP in real time; a table shows simulated figures ÷ live \
         ones. Same replica: share of the requests that the same replica served both ways, warm-up included.",
    ),
    figure(
        "/comparisons",
        "ratios",
        "",
        Better::Lower,
        "Own figure ÷ the baseline's (or the lower bound's) on the same draw, a draw being a seed in a window of the trace: geometric \
         mean over loads and draws, and its 95 % interval over draws (Student's t of the logarithms). All four: the geometric mean of \
         TTFT p50, p95, p99 and E2E p95. Where one of both lost more than 1 % of its requests nothing is compared.",
    ),
    figure(
        "/capacity",
        "capacity",
        "",
        Better::Neither,
        "The highest load at which a strategy keeps up, found by bisection on the first draw: it loses at most 1 % of the requests, and \
         its TTFT p95 is at most twice what the best strategy has on the nearly idle fleet. The best of the compared strategies counts, since \
         what caches save is capacity, too.",
    ),
    figure(
        "/client_lag_ms",
        "client lag",
        "ms",
        Better::Lower,
        "How much later than intended the load generator sent requests: its own error. Above 5 ms at the 95th \
         percentile the machine was too slow for the load and the figures suffer.",
    ),
    figure(
        "/emulator_error_ms",
        "emulator error",
        "ms",
        Better::Lower,
        "How much later than its model asked an emulated engine delivered first tokens: the error of the emulation.",
    ),
    figure(
        "/wan_error_ms",
        "WAN error",
        "ms",
        Better::Lower,
        "How much later than the delay model asked bytes left an emulated WAN link. The runtime's timers fire on whole \
         milliseconds, so about 0.5 ms are usual; a request crosses a link twice.",
    ),
];

/// The figure with this key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.key == key)
}

/// How percentiles are taken; one sentence for every face of a report.
pub const PERCENTILES: &str =
    "Percentiles are nearest rank: p95 is the smallest measured value that at least 95 % of the values do not exceed.";

/// The definitions as a Markdown list, for documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = format!("{PERCENTILES}\n\n");
    for figure in FIGURES {
        let unit = if figure.unit.is_empty() { String::new() } else { format!(" ({})", figure.unit) };
        text.push_str(&format!("- **{}**{unit}, `{}`: {}\n", figure.name, figure.key, figure.definition));
    }
    text
}

/// A single number of a run, picked for a table column: what it is called there and how to read it.
#[derive(Clone, Copy)]
pub struct Column {
    /// Key of its [`Figure`].
    pub figure: &'static str,
    /// Which part of the figure: `p50`, `mean`, …; empty for single numbers.
    pub part: &'static str,
    /// Its value in the unit of the figure (shares in per cent).
    pub read: fn(&Run) -> Option<f64>,
    /// The same part of the lower bound's TTFT, for columns that have one.
    pub bound: Option<fn(&Latency) -> Option<f64>>,
}

impl Column {
    /// The figure's definition. Every column names an existing one (tested).
    #[must_use]
    pub fn figure(&self) -> &'static Figure {
        find(self.figure).expect("every column names a figure of the list")
    }

    /// Its heading in two lines, the unit at the end of the second: `TTFT` / `p50 ms`, `cache` / `hits %`.
    #[must_use]
    pub fn heading(&self) -> (&'static str, String) {
        let figure = self.figure();
        let (first, rest) = match figure.name.split_once(' ') {
            Some((first, rest)) if self.part.is_empty() => (first, rest),
            _ => (figure.name, self.part),
        };
        (first, [rest, figure.unit].join(" ").trim().to_owned())
    }
}

fn percent(share: Option<f64>) -> Option<f64> {
    share.map(|share| share * 100.0)
}

/// The columns of a comparison, in order.
pub const COLUMNS: &[Column] = &[
    Column { figure: "ttft_ms", part: "mean", read: |run| run.ttft_ms.mean, bound: Some(|ttft| ttft.mean) },
    Column { figure: "ttft_ms", part: "p50", read: |run| run.ttft_ms.p50, bound: Some(|ttft| ttft.p50) },
    Column { figure: "ttft_ms", part: "p95", read: |run| run.ttft_ms.p95, bound: Some(|ttft| ttft.p95) },
    Column { figure: "ttft_ms", part: "p99", read: |run| run.ttft_ms.p99, bound: Some(|ttft| ttft.p99) },
    Column { figure: "e2e_ms", part: "p95", read: |run| run.e2e_ms.p95, bound: None },
    Column { figure: "tpot_ms", part: "p50", read: |run| run.tpot_ms.p50, bound: None },
    Column { figure: "cache.hit_ratio", part: "", read: |run| percent(run.cache.hit_ratio), bound: None },
    Column {
        figure: "requests.refused",
        part: "",
        read: |run| (run.requests.refused > 0).then_some(run.requests.refused as f64),
        bound: None,
    },
    Column { figure: "goodput", part: "", read: |run| percent(run.goodput.and_then(|good| good.share)), bound: None },
    Column {
        figure: "routing.cross_region_share",
        part: "",
        read: |run| percent(run.routing.cross_region_share),
        bound: None,
    },
    Column { figure: "routing.max_share", part: "", read: |run| percent(run.routing.max_share), bound: None },
    Column {
        figure: "prediction.ttft_error_median",
        part: "",
        read: |run| run.prediction.ttft_error_median,
        bound: None,
    },
];

/// Runs whose latencies may be compared: at most this share of their requests ended badly. Latencies of the served requests alone
/// flatter a strategy that lost the slow ones.
pub const MAX_LOST_SHARE: f64 = 0.01;

/// A difference up to this share is called level: two runs with one seed on an idle machine differ by about as much.
pub const LEVEL: f64 = 0.02;

/// Share of a run's requests, the unsent included, that did not end well; 1 for a run without requests.
#[must_use]
pub fn lost_share(run: &Run) -> f64 {
    let wanted = run.requests.total + run.requests.unsent;
    if wanted == 0 { 1.0 } else { wanted.saturating_sub(run.requests.ok) as f64 / wanted as f64 }
}

/// The value that a table shows: enough digits to compare, none that are noise.
#[must_use]
pub fn display(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The value of a run's column if it may be compared: nobody interrupted the run, it lost few requests (or the figure counts them), and its
/// sample is large enough for the percentile.
#[must_use]
pub fn comparable(column: &Column, run: &Run, report: &Report) -> Option<f64> {
    let enough = run.requests.ok >= least_sample(column.part);
    // Goodput counts what was lost as missed.
    let whole = column.figure == "goodput" || lost_share(run) <= MAX_LOST_SHARE;
    (column.read)(run).filter(|_| enough && !report.interrupted && whole)
}

/// Requests below which a percentile is not compared: with fewer, its nearest rank is the largest value or close to it.
fn least_sample(part: &str) -> u64 {
    match part {
        "p99" => 100,
        "p95" => 20,
        _ => 1,
    }
}

/// For one column: which of the runs show its best value or one level with it. None where nothing is better, or with fewer than two
/// comparable runs. Marks in tables and the sentences of [`super::notes`] both rest on this.
#[must_use]
pub fn best(column: &Column, report: &Report) -> Vec<bool> {
    let values: Vec<Option<f64>> = report.runs.iter().map(|run| comparable(column, run, report)).collect();
    let known = values.iter().flatten().copied();
    let best = match column.figure().better {
        Better::Lower => known.min_by(f64::total_cmp),
        Better::Higher => known.max_by(f64::total_cmp),
        Better::Neither => None,
    };
    let best = best.filter(|_| values.iter().flatten().count() > 1);
    values.into_iter().map(|value| best.zip(value).is_some_and(|(best, value)| level(best, value))).collect()
}

/// Whether two values are as good as equal, see [`LEVEL`].
fn level(best: f64, value: f64) -> bool {
    best == value || (value - best).abs() <= LEVEL * best.abs()
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, FIGURES, best, display, find, markdown};
    use crate::report::example;
    use crate::report::schema::{Goodput, Latency, Report, Requests, Run};

    fn run(p50: f64, total: u64, ok: u64) -> Run {
        Run {
            ttft_ms: Latency { p50: Some(p50), p95: Some(p50), p99: Some(p50), ..Latency::default() },
            requests: Requests { total, ok, ..Requests::default() },
            ..Run::default()
        }
    }

    #[test]
    fn every_column_has_a_figure_and_every_figure_a_definition() {
        for column in COLUMNS {
            assert!(find(column.figure).is_some(), "{}", column.figure);
        }
        for figure in FIGURES {
            assert!(figure.definition.ends_with('.'), "{}", figure.key);
            assert_eq!(FIGURES.iter().filter(|other| other.key == figure.key).count(), 1, "{} twice", figure.key);
        }
        assert_eq!(markdown().lines().filter(|line| line.starts_with("- **")).count(), FIGURES.len());
    }

    #[test]
    fn what_is_level_with_the_best_value_is_marked_too() {
        let p50 = COLUMNS.iter().find(|column| column.part == "p50").unwrap();
        let cases = [
            (vec![run(200.0, 10, 10), run(100.0, 10, 10)], vec![false, true]),
            (vec![run(102.1, 10, 10), run(100.0, 10, 10)], vec![false, true]),
            (vec![run(101.9, 10, 10), run(100.0, 10, 10)], vec![true, true]),
            (vec![run(0.0, 10, 10), run(0.0, 10, 10), run(0.1, 10, 10)], vec![true, true, false]),
            (vec![run(100.0, 10, 10)], vec![false]),
            // Lost a fifth of its requests: its latencies are not comparable.
            (vec![run(200.0, 10, 10), run(100.0, 10, 8), run(300.0, 10, 10)], vec![true, false, false]),
        ];
        for (runs, expected) in cases {
            let report = Report { runs, ..example::report() };
            assert_eq!(best(p50, &report), expected, "{:?}", report.runs);
            assert!(!best(p50, &Report { interrupted: true, ..report }).contains(&true));
        }
    }

    #[test]
    fn goodput_counts_what_was_lost_and_is_compared_whatever_was() {
        let goodput = COLUMNS.iter().find(|column| column.figure == "goodput").unwrap();
        let good = |share, ok| Run {
            goodput: Some(Goodput { share: Some(share), ..Goodput::default() }),
            requests: Requests { total: 100, ok, refused: 100 - ok, ..Requests::default() },
            ..Run::default()
        };
        let runs = vec![good(0.7, 100), good(0.9, 92)];
        let report = Report { runs, ..example::report() };
        assert_eq!(best(goodput, &report), [false, true]);
        let refused = COLUMNS.iter().find(|column| column.figure == "requests.refused").unwrap();
        assert_eq!(report.runs.iter().map(refused.read).collect::<Vec<_>>(), [None, Some(8.0)]);
    }

    #[test]
    fn percentiles_of_small_samples_are_not_compared() {
        for (part, requests, marked) in [("p95", 19, false), ("p95", 20, true), ("p99", 99, false), ("p99", 100, true)]
        {
            let column = COLUMNS.iter().find(|column| column.part == part && column.figure == "ttft_ms").unwrap();
            let runs = vec![run(200.0, requests, requests), run(100.0, requests, requests)];
            let report = Report { runs, ..example::report() };
            assert_eq!(best(column, &report), [false, marked], "{part} of {requests}");
        }
    }

    #[test]
    fn three_digits_are_enough() {
        for (value, text) in [(0.04, "0.0"), (9.96, "10.0"), (99.94, "99.9"), (123.4, "123"), (70_417.2, "70417")] {
            assert_eq!(display(value), text);
        }
    }
}
