//! The charts of a report: TTFT by load, its distribution, time series, routing shares.

use std::collections::BTreeSet;

use super::scale::{Scale, log_range, nice_above};
use super::svg::{Anchor, Area, Svg, WIDTH};
use crate::report::schema::{Report, Run, Series};

/// Colours in `style.css`; more runs repeat them with other dashes.
const COLOURS: usize = 8;
const LEFT: f64 = 72.0;
const RIGHT: f64 = WIDTH - 16.0;

/// Class names of run number `index`.
fn run_class(index: usize) -> String {
    format!("run c{} d{}", index % COLOURS, index % COLOURS + index / COLOURS)
}

fn legend_entries(runs: &[Run]) -> Vec<(String, String)> {
    runs.iter().enumerate().map(|(index, run)| (run_class(index), run.strategy.clone())).collect()
}

/// Share of requests whose TTFT is at most x, x logarithmic. `None` without any TTFT.
#[must_use]
pub(super) fn distribution(report: &Report) -> Option<String> {
    let bound =
        report.runs.iter().find_map(|run| run.bound.as_ref()).filter(|bound| !bound.ttft_quantiles_ms.is_empty());
    let everything = report.runs.iter().flat_map(|run| &run.ttft_quantiles_ms);
    let range = log_range(everything.chain(bound.iter().flat_map(|bound| &bound.ttft_quantiles_ms)).copied())?;
    let counts: Vec<String> =
        report.runs.iter().map(|run| format!("{} n = {}", run.strategy, run.requests.ok)).collect();
    let mut svg = Svg::new(440.0, "Distribution of TTFT", &counts.join(", "));
    let mut entries = legend_entries(&report.runs);
    for (entry, run) in entries.iter_mut().zip(&report.runs) {
        entry.1 = format!("{} (n = {})", run.strategy, run.requests.ok);
    }
    if bound.is_some() {
        entries.push(("run bound".into(), "lower bound".into()));
    }
    let top = svg.legend(14.0, LEFT, &entries);
    let area = Area { left: LEFT, right: RIGHT, top, bottom: 392.0 };
    let x = Scale::log(range, (area.left, area.right));
    let y = Scale::linear((0.0, 100.0), (area.bottom, area.top));
    svg.axes(area, (&x, "time to first token, ms (logarithmic)"), (&y, "requests that had it by then, %"));
    if let Some(bound) = bound {
        svg.path("run bound", curve(&bound.ttft_quantiles_ms, &x, &y), "lower bound");
    }
    // The first run is the one under test: drawn last, on top.
    for (index, run) in report.runs.iter().enumerate().rev() {
        svg.path(&run_class(index), curve(&run.ttft_quantiles_ms, &x, &y), &run.strategy);
    }
    Some(svg.finish())
}

fn curve(quantiles: &[f64], x: &Scale, y: &Scale) -> Vec<Option<(f64, f64)>> {
    let last = quantiles.len().saturating_sub(1).max(1) as f64;
    quantiles.iter().enumerate().map(|(i, ms)| Some((x.at(*ms), y.at(i as f64 / last * 100.0)))).collect()
}

/// TTFT p50 and p95 by load, a line per strategy. `None` without two loads that can be ordered.
#[must_use]
pub(super) fn by_load(parts: &[Report]) -> Option<String> {
    let heights: Vec<(f64, &str)> = parts.iter().filter_map(|part| part.runs.first()?.load.height()).collect();
    let unit = heights.first()?.1;
    if heights.len() < parts.len() || parts.len() < 2 || heights.iter().any(|(_, other)| *other != unit) {
        return None;
    }
    let runs = &parts[0].runs;
    let everything = || parts.iter().flat_map(|part| &part.runs);
    let range = log_range(everything().flat_map(|run| [run.ttft_ms.p50, run.ttft_ms.p95]).flatten())?;
    let most = heights.iter().map(|(height, _)| *height).fold(0.0, f64::max);
    let mut svg = Svg::new(640.0, "Latency by load", "TTFT p95 and TTFT p50 by load, one line per strategy");
    let top = svg.legend(14.0, LEFT, &legend_entries(runs)) + 12.0;
    let upper = Area { left: LEFT, right: RIGHT, top, bottom: 300.0 };
    let lower = Area { top: 340.0, bottom: 592.0, ..upper };
    let x = Scale::linear((0.0, 1.05 * most), (upper.left, upper.right));
    for (area, title, read) in [
        (upper, "TTFT p95, ms (log.)", (|run| run.ttft_ms.p95) as fn(&Run) -> Option<f64>),
        (lower, "TTFT p50, ms (log.)", |run| run.ttft_ms.p50),
    ] {
        let y = Scale::log(range, (area.bottom, area.top));
        svg.axes(area, (&x, if area.top == lower.top { unit } else { "" }), (&y, title));
        for (index, run) in runs.iter().enumerate().rev() {
            let mut points: Vec<(f64, Option<f64>)> = parts
                .iter()
                .zip(&heights)
                .map(|(part, (height, _))| (*height, find(part, run).and_then(read)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let points = points.into_iter().map(|(height, ms)| ms.map(|ms| (x.at(height), y.at(ms))));
            svg.path(&run_class(index), points, &run.strategy);
        }
    }
    Some(svg.finish())
}

/// The run of the same strategy.
fn find<'a>(part: &'a Report, run: &Run) -> Option<&'a Run> {
    part.runs.iter().find(|other| other.strategy == run.strategy)
}

/// TTFT median per time slice above requests in flight. `None` where nothing was recorded.
#[must_use]
pub(super) fn over_time(report: &Report) -> Option<String> {
    let recorded =
        || report.runs.iter().enumerate().filter_map(|(index, run)| Some((index, run, run.series.as_ref()?)));
    let range = log_range(recorded().flat_map(|(_, _, series)| series.ttft_p50_ms.iter().flatten().copied()))?;
    let end_s = recorded().map(|(_, _, series)| series.slice_s * series.in_flight.len() as f64).fold(1.0, f64::max);
    let busiest = recorded().flat_map(|(_, _, series)| series.in_flight.iter().copied()).fold(1.0, f64::max);
    let mut svg = Svg::new(560.0, "Over time", "TTFT median by time of sending, and requests in flight");
    let top = svg.legend(14.0, LEFT, &legend_entries(&report.runs)) + 12.0;
    let upper = Area { left: LEFT, right: RIGHT, top, bottom: 300.0 };
    let lower = Area { top: 340.0, bottom: 512.0, ..upper };
    let x = Scale::linear((0.0, end_s), (upper.left, upper.right));
    let ttft = Scale::log(range, (upper.bottom, upper.top));
    let busy = Scale::linear((0.0, nice_above(busiest)), (lower.bottom, lower.top));
    phases(&mut svg, report, &x, &[upper, lower], end_s);
    let slice_s = recorded().map(|(_, _, series)| series.slice_s).fold(0.0, f64::max);
    svg.axes(upper, (&x, ""), (&ttft, "TTFT p50, ms (log.)"));
    svg.axes(lower, (&x, &format!("time since start, s (slices of {slice_s} s)")), (&busy, "requests in flight"));
    for (index, run, series) in recorded().collect::<Vec<_>>().into_iter().rev() {
        let values = series.ttft_p50_ms.iter().map(|value| value.map(|ms| ttft.at(ms)));
        svg.path(&run_class(index), at_slices(series, values, &x), &run.strategy);
        let values = series.in_flight.iter().map(|value| Some(busy.at(*value)));
        svg.path(&run_class(index), at_slices(series, values, &x), &run.strategy);
    }
    Some(svg.finish())
}

/// Points in the middle of their slices.
fn at_slices(series: &Series, places: impl Iterator<Item = Option<f64>>, x: &Scale) -> Vec<Option<(f64, f64)>> {
    let middle = |slice: usize| x.at((slice as f64 + 0.5) * series.slice_s);
    places.enumerate().map(|(slice, y)| y.map(|y| (middle(slice), y))).collect()
}

/// Shades what is not counted: warm-up and drain.
fn phases(svg: &mut Svg, report: &Report, x: &Scale, areas: &[Area], end_s: f64) {
    let Some(window) = report.runs.first().map(|run| run.window) else { return };
    for (name, from, to) in [("warm-up", 0.0, window.from_s), ("drain", window.to_s, end_s)] {
        let (left, right) = (x.at(from), x.at(to));
        if right - left < 1.0 {
            continue;
        }
        for area in areas {
            svg.rect("phase", (left, area.top), (right - left, area.bottom - area.top), name);
        }
        // Only where the word fits.
        if let Some(area) = areas.first().filter(|_| right - left > 44.0) {
            svg.text("tick", ((left + right) / 2.0, area.top - 4.0), Anchor::Middle, name);
        }
    }
}

/// One bar per run, cut by replica. `None` where the router does not tell who served.
#[must_use]
pub(super) fn shares(report: &Report) -> Option<String> {
    let replicas: BTreeSet<&str> =
        report.runs.iter().flat_map(|run| run.routing.share.keys().map(String::as_str)).collect();
    let bars: Vec<&Run> = report.runs.iter().filter(|run| !run.routing.share.is_empty()).collect();
    if bars.is_empty() {
        return None;
    }
    // Names of a sweep hold the target's URL: at most half of the width is theirs.
    let longest = bars.iter().map(|run| run.strategy.chars().count()).max().unwrap_or(0);
    let left = (72.0 + 6.8 * longest as f64).min(WIDTH / 2.0);
    let (row, top) = (40.0, 20.0);
    let bottom = top + row * bars.len() as f64;
    let mut svg = Svg::new(bottom + 44.0, "Who served", "share of ok requests by replica");
    let x = Scale::linear((0.0, 100.0), (left, RIGHT));
    for tick in x.ticks() {
        svg.line("grid", (x.at(tick), top - 6.0), (x.at(tick), bottom));
        svg.text("tick", (x.at(tick), bottom + 16.0), Anchor::Middle, &format!("{tick:.0}"));
    }
    svg.text("title", ((left + RIGHT) / 2.0, bottom + 36.0), Anchor::Middle, "share of ok requests by replica, %");
    for (index, run) in bars.iter().enumerate() {
        let y = top + row * index as f64;
        svg.text("label", (left - 10.0, y + 14.0), Anchor::End, &run.strategy);
        svg.text("tick", (left - 10.0, y + 28.0), Anchor::End, &format!("n = {}", run.requests.ok));
        let mut begin = 0.0;
        for (colour, replica) in replicas.iter().enumerate() {
            let share = run.routing.share.get(*replica).copied().unwrap_or(0.0) * 100.0;
            segment(&mut svg, (&x, y, row - 8.0), (begin, share), colour % COLOURS, replica);
            begin += share;
        }
    }
    Some(svg.finish())
}

fn segment(
    svg: &mut Svg,
    (x, y, height): (&Scale, f64, f64),
    (begin, share): (f64, f64),
    colour: usize,
    replica: &str,
) {
    if share <= 0.0 {
        return;
    }
    let (from, to) = (x.at(begin), x.at(begin + share));
    let text = format!("{replica} {share:.0} %");
    svg.rect(&format!("part p{colour}"), (from, y), (to - from, height), &format!("{replica} {share:.1} %"));
    // The name where it fits, else the number, else only the hint.
    let room = to - from - 8.0;
    let short = format!("{share:.0} %");
    let fits = |text: &str| 6.8 * text.chars().count() as f64 <= room;
    if let Some(label) = [text.as_str(), short.as_str()].into_iter().find(|text| fits(text)) {
        svg.text("label", ((from + to) / 2.0, y + height / 2.0 + 4.0), Anchor::Middle, label);
    }
}

#[cfg(test)]
mod tests {
    use super::{by_load, distribution, over_time, shares};
    use crate::report::example;

    #[test]
    fn every_chart_names_its_axes_units_and_counts() {
        let report = example::report();
        let (cdf, time, who) = (distribution(&report), over_time(&report), shares(&report));
        assert!(cdf.as_ref().unwrap().contains("time to first token, ms"));
        assert!(cdf.unwrap().contains("round-robin (n = 500)"));
        assert!(time.as_ref().unwrap().contains("TTFT p50, ms"));
        assert!(time.unwrap().contains("warm-up"));
        assert!(who.as_ref().unwrap().contains("share of ok requests by replica, %"));
        assert!(who.unwrap().contains("n = 600"));
    }

    #[test]
    fn latency_by_load_has_a_line_per_strategy_in_both_panels() {
        let chart = by_load(&example::sweep().by_load()).unwrap();
        for strategy in ["gorgo", "random"] {
            assert_eq!(chart.matches(&format!("<title>{strategy}</title>")).count(), 2, "{strategy}");
        }
        assert!(chart.contains("share of the capacity") && chart.contains("TTFT p95, ms"));
        assert_eq!(by_load(&[example::report()]), None);
    }

    #[test]
    fn without_data_there_is_no_chart() {
        let mut report = example::report();
        for run in &mut report.runs {
            *run = crate::report::Run { strategy: run.strategy.clone(), ..crate::report::Run::default() };
        }
        assert_eq!((distribution(&report), over_time(&report), shares(&report)), (None, None, None));
    }
}
