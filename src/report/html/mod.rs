//! A report as one self-contained HTML file: no network, no script needed to read it, light, dark and on paper.
//!
//! The raw results travel inside as `<script type="application/json" id="report">`, so the page is also the data.

mod charts;
mod escape;
mod intro;
mod scale;
mod svg;
mod words;

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{Column, FIGURES, PERCENTILES, best, display};
use super::notes::{Kind, notes};
use super::ratios::{self, live_rows, ratios};
use super::schema::{Report, Run, Spread};
use super::table::{columns, ended_well};

/// The page. `title` is its heading, e.g. `gorgo demo`.
///
/// # Errors
/// Only if the report cannot be written as JSON: see [`Report::to_json`].
pub fn page(report: &Report, title: &str) -> Result<String, serde_json::Error> {
    let data = escape::json(&serde_json::to_string(report)?);
    let mut html = String::with_capacity(data.len() + 64 * 1024);
    let title = escape::text(title);
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<p class=\"lead\">{}</p>\n",
        include_str!("style.css"),
        escape::text(&intro::experiment(report)),
        escape::text(&intro::lead(report)),
    );
    html.push_str(&findings(report));
    let parts = report.by_load();
    html.push_str("<h2>Comparison</h2>\n");
    for part in &parts {
        if let Some(run) = part.runs.first().filter(|_| parts.len() > 1) {
            let _ = writeln!(html, "<h3>{}</h3>", escape::text(&run.load.label()));
        }
        html.push_str(&comparison(part));
    }
    html.push_str(LEGEND);
    html.push_str(&ratio_tables(report));
    html.push_str(&live_table(report));
    if parts.len() > 1 {
        figure(&mut html, "Latency by load", charts::by_load(&parts), BY_LOAD);
    }
    if let Some(heaviest) = parts.last() {
        figures(&mut html, heaviest, parts.len() > 1);
    }
    html.push_str(&configuration(report));
    html.push_str(&definitions());
    let _ =
        write!(html, "</main>\n<script type=\"application/json\" id=\"report\">{data}</script>\n</body>\n</html>\n");
    Ok(html)
}

fn findings(report: &Report) -> String {
    let mut html = String::from("<ul class=\"notes\">\n");
    for note in notes(report) {
        let class = match note.kind {
            Kind::Best | Kind::Level | Kind::Paired | Kind::Limit | Kind::Counted | Kind::Capacity => "result",
            Kind::Beaten => "beaten",
            Kind::Warning => "warning",
        };
        let word = note.kind.word();
        let _ = writeln!(html, "<li class=\"{class}\"><strong>{word}</strong> {}</li>", escape::text(&note.text));
    }
    html + "</ul>\n"
}

fn comparison(report: &Report) -> String {
    let runs = &report.runs;
    let shown = columns(runs);
    let mut html =
        String::from("<div class=\"scroll\"><table>\n<thead><tr><th>strategy</th><th>requests <span>ok</span></th>");
    for column in &shown {
        let (first, second) = column.heading();
        let definition = escape::text(column.figure().definition);
        let _ = write!(html, "<th title=\"{definition}\">{first} <span>{second}</span></th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let marks: Vec<Vec<bool>> = shown.iter().map(|column| best(column, report)).collect();
    for (index, run) in runs.iter().enumerate() {
        let _ = write!(html, "<tr><td>{}</td><td>{}</td>", escape::text(&run.strategy), ended_well(run));
        for (column, marks) in shown.iter().zip(&marks) {
            html.push_str(&cell((column.read)(run), marks[index]));
        }
        html.push_str("</tr>\n");
    }
    html.push_str(&bound_row(runs, &shown));
    html + "</tbody></table></div>\n"
}

/// What the marks of a comparison mean.
const LEGEND: &str = "<p class=\"small\">★ best of its column or within 2 % of it; lines of the charts below have the same order. \
                      Only runs that lost at most 1 % of their requests are compared.</p>\n";

/// Ratios to the baseline and to the lower bound, over all loads and load by load.
fn ratio_tables(report: &Report) -> String {
    let mut html = String::new();
    for ratios in ratios(report, true) {
        let columns = ratios.columns();
        let _ = write!(
            html,
            "<h3>Ratios {}</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th>strategy</th>",
            escape::text(&ratios.heading())
        );
        for (_, heading) in &columns {
            let _ = write!(html, "<th>{heading}</th>");
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &ratios.rows {
            let load = row.load.as_ref().map(|load| format!(", {}", load.label())).unwrap_or_default();
            let _ = write!(html, "<tr><td>{}</td>", escape::text(&format!("{}{load}", row.strategy)));
            for (key, _) in &columns {
                let _ = write!(html, "<td>{}</td>", ratios::text(row.ratios.get(*key), true));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
    }
    html
}

fn cell(value: Option<f64>, best: bool) -> String {
    let text = value.map_or_else(|| "–".to_owned(), display);
    if best { format!("<td class=\"best\">★ {text}</td>") } else { format!("<td>{text}</td>") }
}

fn bound_row(runs: &[Run], shown: &[&Column]) -> String {
    let Some(bound) = runs.iter().find_map(|run| run.bound.as_ref()) else { return String::new() };
    let mut html = String::from("<tr class=\"bound\"><td>lower bound</td><td></td>");
    for column in shown {
        html.push_str(&cell(column.bound.and_then(|read| read(&bound.ttft_ms)), false));
    }
    html + "</tr>\n"
}

/// What was simulated ÷ what was measured live.
fn live_table(report: &Report) -> String {
    let (headings, rows) = live_rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let cells = |tag: &str, cells: Vec<String>| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape::text(cell))).collect()
    };
    let head = cells("th", headings.into_iter().map(str::to_owned).collect());
    let rows: String = rows.into_iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    format!(
        "<h3>Simulated and live</h3>\n<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// Caption of the chart of latency by load.
const BY_LOAD: &str = "Lower is faster; where a line turns up, the strategy no longer keeps up.";

/// The charts of one load; `heaviest`: of the last of several.
fn figures(html: &mut String, report: &Report, heaviest: bool) {
    let all = [
        (
            "Distribution of time to first token",
            charts::distribution(report),
            "Further left is faster. Steep lines are predictable, long tails to the right are requests that waited.",
        ),
        (
            "Over time",
            charts::over_time(report),
            "Medians by time of sending; a line that climbs is a fleet that falls behind. Requests of sessions that start in the warm-up are \
             not counted; those of earlier sessions that are sent during the drain are.",
        ),
        ("Who served", charts::shares(report), "Hover for exact shares; they are also in the embedded data."),
    ];
    let load = report.runs.first().filter(|_| heaviest).map(|run| format!(": {}", run.load.label()));
    let load = load.unwrap_or_default();
    for (heading, chart, caption) in all {
        figure(html, &format!("{heading}{}", escape::text(&load)), chart, caption);
    }
}

fn figure(html: &mut String, heading: &str, chart: Option<String>, caption: &str) {
    if let Some(chart) = chart {
        let _ = write!(
            html,
            "<h2>{heading}</h2>\n<figure>\n<div class=\"chart\">\n{chart}</div>\n<figcaption>{caption}</figcaption>\n</figure>\n"
        );
    }
}

fn configuration(report: &Report) -> String {
    let mut html = String::from("<h2>Set-up</h2>\n<dl>\n");
    let mut item = |name: &str, value: &str| {
        let lines: Vec<String> = value.lines().map(escape::text).collect();
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape::text(name), lines.join("<br/>"));
    };
    let trace = &report.trace;
    item("trace", &format!("{}: {} requests, {} dropped as too long", trace.name, trace.requests, trace.dropped));
    item("trace sha256", &trace.sha256);
    for (key, value) in &report.config {
        let (name, unit) = words::of(key);
        let text = plain(value);
        item(&name, &if unit.is_empty() { text } else { format!("{text} {unit}") });
    }
    item("gorgo", &report.gorgo);
    let machine = &report.machine;
    let cpu = machine.cpu.as_deref().map(|cpu| format!(", {cpu}")).unwrap_or_default();
    let memory = machine.memory_bytes.map(|bytes| format!(", {:.1} GiB memory", bytes as f64 / f64::from(1 << 30)));
    let memory = memory.unwrap_or_default();
    item("machine", &format!("{} {}, {} cores{cpu}{memory}", machine.os, machine.arch, machine.cores));
    item("client lag", &spread(report.client_lag_ms));
    item("emulator error", &spread(report.emulator_error_ms));
    item("WAN error", &spread(report.wan_error_ms));
    html + "</dl>\n"
}

/// A value of the configuration as people read it: `key value, key value`, and a line for each object of a list.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => {
            let (lists, single): (Vec<_>, Vec<_>) = map.iter().partition(|(_, value)| value.is_array());
            let words: Vec<String> = single.into_iter().map(|(key, value)| words::pair(key, &plain(value))).collect();
            let lines = lists.into_iter().map(|(_, list)| plain(list));
            std::iter::once(words.join(", ")).chain(lines).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

fn spread(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { n, p50: Some(p50), p95: Some(p95), p99: Some(p99), .. }) => {
            format!("p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms (n = {n})")
        }
        _ => "not measured".to_owned(),
    }
}

fn definitions() -> String {
    let mut html = format!("<h2>Definitions</h2>\n<p class=\"small\">{}</p>\n<dl>\n", escape::text(PERCENTILES));
    for figure in FIGURES {
        let unit =
            if figure.unit.is_empty() { String::new() } else { format!(" <span>{}</span>", escape::text(figure.unit)) };
        let _ = writeln!(
            html,
            "<dt>{}{unit}</dt><dd>{} <code>{}</code></dd>",
            escape::text(figure.name),
            escape::text(figure.definition),
            escape::text(figure.key)
        );
    }
    html + "</dl>\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{page, plain};
    use crate::report::{Report, example};

    /// Tags in order; void elements and the doctype left out. Knows no attributes with `>` in them, which [`super::escape`]
    /// never lets through.
    fn unbalanced(html: &str) -> Option<String> {
        const VOID: [&str; 1] = ["meta"];
        let mut open: Vec<&str> = Vec::new();
        let mut rest = html.split_once("<!doctype html>")?.1;
        while let Some(begin) = rest.find('<') {
            let end = begin + rest[begin..].find('>')?;
            let tag = &rest[begin + 1..end];
            rest = &rest[end + 1..];
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or("");
            if tag.starts_with('/') {
                match open.pop() {
                    Some(last) if last == name => {}
                    last => return Some(format!("</{name}> closes {last:?}")),
                }
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
        open.pop().map(|name| format!("<{name}> stays open"))
    }

    #[test]
    fn the_balance_check_can_fail() {
        assert_eq!(unbalanced("<!doctype html><a><b></b><c/></a>"), None);
        assert!(unbalanced("<!doctype html><a><b></a></b>").is_some());
        assert!(unbalanced("<!doctype html><a>").is_some());
    }

    #[test]
    fn the_page_is_well_formed_and_loads_nothing() {
        let html = page(&example::sweep(), "gorgo simulate").unwrap();
        assert_eq!(unbalanced(&html), None);
        assert!(html.contains("0.9 of the capacity (time scale 1.111)") && html.contains("÷ gorgo"));
        let html = page(&example::report(), "gorgo demo").unwrap();
        assert_eq!(unbalanced(&html), None);
        for foreign in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn names_from_outside_are_shown_and_never_run() {
        let evil = "</script><script>alert('1')</script><!-- \"x\" &amp;";
        let mut report = example::report();
        report.runs[0].strategy = evil.into();
        report.trace.name = evil.into();
        report.config.insert(evil.into(), evil.into());
        report.runs[0].routing.share.insert(evil.into(), 0.5);
        report.runs[3].requests.failures.insert(evil.into(), 1);
        let html = page(&report, evil).unwrap();
        assert_eq!(unbalanced(&html), None);
        assert_eq!(html.matches("<script").count(), 1);
        assert!(!html.contains("<!--"));
    }

    #[test]
    fn the_page_carries_the_report() {
        let report = example::report();
        let html = page(&report, "t").unwrap();
        let data = html.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(serde_json::from_str::<Report>(data).unwrap(), report);
    }

    /// For looking at the page: `GORGO_PAGE=/tmp/page.html cargo test --lib report::html`.
    #[test]
    fn the_page_can_be_written_out_and_looked_at() {
        if let Some(path) = std::env::var_os("GORGO_PAGE") {
            std::fs::write(path, page(&example::sweep(), "gorgo simulate").unwrap()).unwrap();
        }
    }

    #[test]
    fn nested_configuration_reads_as_lines() {
        let value = json!({ "router": "us", "replicas": [{ "name": "a", "rtt_ms": 2 }, { "name": "b" }] });
        assert_eq!(plain(&value), "router us\nname a, round trip 2 ms\nname b");
    }

    #[test]
    fn an_empty_report_is_still_a_page() {
        let mut report = example::report();
        report.runs.clear();
        report.client_lag_ms = None;
        let html = page(&report, "t").unwrap();
        assert_eq!(unbalanced(&html), None);
        assert!(html.contains("not measured"));
    }
}
