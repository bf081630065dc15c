//! The comparisons of a report as rows: who ÷ whom, figure by figure. Table and page draw the same rows.

use super::compare::{ALL, BOUND, FIGURES};
use super::schema::{Compared, Comparison, Live, Report, Run};

/// Comparisons with one baseline.
pub(super) struct Ratios<'a> {
    /// The baseline.
    pub(super) to: &'a str,
    pub(super) rows: Vec<&'a Comparison>,
}

/// Columns: key and heading.
pub(super) fn columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    FIGURES.iter().map(|(key, heading, ..)| (*key, *heading)).chain([(ALL, "all four")])
}

/// The report's comparisons by baseline, in its order; `by_load`: with the rows of single loads.
pub(super) fn ratios(report: &Report, by_load: bool) -> Vec<Ratios<'_>> {
    let mut all: Vec<Ratios<'_>> = Vec::new();
    for comparison in report.comparisons.iter().filter(|comparison| by_load || comparison.load.is_none()) {
        match all.iter_mut().find(|ratios| ratios.to == comparison.to) {
            Some(ratios) => ratios.rows.push(comparison),
            None => all.push(Ratios { to: &comparison.to, rows: vec![comparison] }),
        }
    }
    all
}

impl Ratios<'_> {
    /// What the ratios are of.
    pub(super) fn heading(&self) -> String {
        if self.to == BOUND { "÷ lower bound".to_owned() } else { format!("÷ {}", self.to) }
    }

    /// The columns for which a row has a value. The bounds of first tokens and of whole answers are not of one kind: no mean over all.
    pub(super) fn columns(&self) -> Vec<(&'static str, &'static str)> {
        let known = |key: &str| self.rows.iter().any(|row| row.ratios.contains_key(key));
        columns().filter(|(key, _)| known(key) && !(self.to == BOUND && *key == ALL)).collect()
    }
}

/// `0.85 [0.82, 0.88]`, the interval only where there is one and room for it.
pub(super) fn text(ratio: Option<&Compared>, intervals: bool) -> String {
    let Some(ratio) = ratio else { return "-".to_owned() };
    match (ratio.low, ratio.high) {
        (Some(low), Some(high)) if intervals => format!("{:.2} [{low:.2}, {high:.2}]", ratio.mean),
        _ => format!("{:.2}", ratio.mean),
    }
}

/// A figure that a simulation has in common with a live run: heading and how to read both.
type Both = (&'static str, fn(&Run) -> Option<f64>, fn(&Live) -> Option<f64>);

/// Columns of [`live_rows`].
const BOTH: [Both; 6] = [
    ("TTFT p50", |run| run.ttft_ms.p50, |live| live.ttft_ms.p50),
    ("TTFT p95", |run| run.ttft_ms.p95, |live| live.ttft_ms.p95),
    ("E2E p50", |run| run.e2e_ms.p50, |live| live.e2e_ms.p50),
    ("E2E p95", |run| run.e2e_ms.p95, |live| live.e2e_ms.p95),
    ("TPOT p50", |run| run.tpot_ms.p50, |live| live.tpot_ms.p50),
    ("cache hits", |run| run.cache.hit_ratio, |live| live.cache.hit_ratio),
];

/// Headings and rows of simulated ÷ live; without rows where nothing was played live.
pub(super) fn live_rows(report: &Report) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let headings = ["simulated ÷ live"].into_iter().chain(BOTH.iter().map(|(heading, ..)| *heading));
    let row = |run: &Run| {
        let live = run.live.as_ref()?;
        let ratio = |(_, own, other): &Both| match (own(run), other(live)) {
            (Some(own), Some(other)) if other > 0.0 => format!("{:.3}", own / other),
            _ => "-".to_owned(),
        };
        let same = live.agreement.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        Some([run.strategy.clone()].into_iter().chain(BOTH.iter().map(ratio)).chain([same]).collect())
    };
    (headings.chain(["same replica"]).collect(), report.runs.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::live_rows;
    use crate::report::example;
    use crate::report::schema::{Cache, Latency, Live};

    #[test]
    fn simulated_figures_stand_over_live_ones() {
        let mut report = example::report();
        assert!(live_rows(&report).1.is_empty());
        report.runs[1].live = Some(Live {
            ttft_ms: Latency { p50: Some(120.0), ..Latency::default() },
            cache: Cache { hit_ratio: Some(0.951), ..Cache::default() },
            agreement: Some(0.9875),
            ..Live::default()
        });
        let (headings, rows) = live_rows(&report);
        assert_eq!((headings.len(), headings[7]), (8, "same replica"));
        assert_eq!(rows, [["session-affinity", "1.250", "-", "-", "-", "-", "1.000", "98.8 %"]]);
    }
}
