//! A report as a table for terminals and logs.
//!
//! Plain text without colour: the best value of a column carries a `*`, so that nothing is lost in a file or for a reader who
//! cannot tell colours apart.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::figures::{COLUMNS, Column, best, display};
use super::notes::notes;
use super::ratios::{self, Ratios, live_rows, ratios};
use super::schema::{Report, Run, Spread};

/// Width at which notes wrap without a terminal, characters; the grid of five strategies is about as wide.
pub(super) const LINE: usize = 110;
/// Columns that a narrow terminal does without, the most dispensable first: figure and part.
const DISPENSABLE: [(&str, &str); 8] = [
    ("tpot_ms", "p50"),
    ("prediction.ttft_error_median", ""),
    ("ttft_ms", "mean"),
    ("routing.max_share", ""),
    ("ttft_ms", "p99"),
    ("e2e_ms", "p95"),
    ("routing.cross_region_share", ""),
    ("goodput", ""),
];

/// The table, then its notes and footer. `width` is that of the terminal: columns are left out until the grid fits; without one
/// everything is shown. `page` is where the HTML report with the definitions goes, if there is one.
#[must_use]
pub fn render(report: &Report, width: Option<usize>, page: Option<&Path>) -> String {
    let line = width.unwrap_or(LINE).min(LINE);
    let parts = report.by_load();
    let (mut text, mut left_out) = (String::new(), Vec::new());
    for part in &parts {
        let (grid, without) = fitting(part, width);
        if let Some(run) = part.runs.first().filter(|_| parts.len() > 1) {
            let _ = writeln!(text, "{}", run.load.label());
        }
        let _ = writeln!(text, "{grid}");
        left_out = if without.len() > left_out.len() { without } else { left_out };
    }
    if report.runs.len() > 1 && !report.interrupted {
        push_wrapped(&mut text, line, "* ", "best of its column, or within 2 % of it");
    }
    let defined = match page {
        Some(page) => format!("every figure is defined in `{}`", page.display()),
        None => "`--report FILE` writes a page that defines every figure".to_owned(),
    };
    push_wrapped(&mut text, line, "", &defined);
    if !left_out.is_empty() {
        push_wrapped(&mut text, line, "", &format!("left out for want of room: {}", left_out.join(", ")));
    }
    for note in notes(report) {
        push_wrapped(&mut text, line, &format!("{}: ", note.kind.word()), &note.text);
    }
    text.push_str(&comparisons(report, width));
    text.push_str(&live(report));
    text.push_str(&footer(report, line));
    text
}

/// Ratios to the baseline and to the lower bound, over all loads; single loads stand in the page and in the file.
fn comparisons(report: &Report, width: Option<usize>) -> String {
    let mut text = String::new();
    for ratios in ratios(report, false) {
        let whole = ratio_grid(&ratios, true);
        let fits = width.is_none_or(|width| whole.lines().all(|line| line.chars().count() <= width));
        let _ = writeln!(text, "{}", if fits { whole } else { ratio_grid(&ratios, false) });
    }
    let several = report.comparisons.iter().any(|one| one.ratios.values().any(|ratio| ratio.low.is_some()));
    if !text.is_empty() && several {
        text.push_str("in brackets: 95 % intervals over seeds and windows, pair by pair\n");
    }
    text
}

/// What was simulated ÷ what was measured live.
fn live(report: &Report) -> String {
    let (headings, rows) = live_rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let mut table = plain_table();
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    aligned(table) + "\n"
}

fn ratio_grid(ratios: &Ratios<'_>, intervals: bool) -> String {
    let columns = ratios.columns();
    let mut table = plain_table();
    let mut header = vec![Cell::new(ratios.heading())];
    header.extend(columns.iter().map(|(_, heading)| Cell::new(heading)));
    table.set_header(header);
    for row in &ratios.rows {
        let mut cells = vec![Cell::new(&row.strategy)];
        cells.extend(columns.iter().map(|(key, _)| Cell::new(ratios::text(row.ratios.get(*key), intervals))));
        table.add_row(cells);
    }
    aligned(table)
}

/// The widest grid that fits, and what it does without.
fn fitting(report: &Report, width: Option<usize>) -> (String, Vec<String>) {
    let mut shown = columns(&report.runs);
    let mut left_out = Vec::new();
    let mut grid = comparison(report, &shown);
    let fits = |grid: &str| width.is_none_or(|width| grid.lines().all(|line| line.chars().count() <= width));
    for (figure, part) in DISPENSABLE {
        if fits(&grid) {
            break;
        }
        let Some(place) = shown.iter().position(|column| (column.figure, column.part) == (figure, part)) else {
            continue;
        };
        let column = shown.remove(place);
        left_out.push(format!("{} {}", column.figure().name, column.part).trim_end().to_owned());
        grid = comparison(report, &shown);
    }
    (grid, left_out)
}

/// Only the grid: a row per run, then the lower bound.
fn comparison(report: &Report, shown: &[&Column]) -> String {
    let runs = &report.runs;
    let mut table = plain_table();
    let mut header = vec![Cell::new("strategy"), Cell::new("requests\nok")];
    header.extend(shown.iter().map(|column| Cell::new(heading(column))));
    table.set_header(header);
    let marks: Vec<Vec<bool>> = shown.iter().map(|column| best(column, report)).collect();
    for (index, run) in runs.iter().enumerate() {
        let mut row = vec![Cell::new(&run.strategy), Cell::new(ended_well(run))];
        row.extend(shown.iter().zip(&marks).map(|(column, marks)| Cell::new(value((column.read)(run), marks[index]))));
        table.add_row(row);
    }
    if let Some(bound) = runs.iter().find_map(|run| run.bound.as_ref()) {
        let mut row = vec![Cell::new("(lower bound)"), Cell::new("")];
        row.extend(
            shown.iter().map(|column| Cell::new(value(column.bound.and_then(|read| read(&bound.ttft_ms)), false))),
        );
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

pub(super) fn plain_table() -> Table {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table
}

/// Names to the left, numbers to the right.
pub(super) fn aligned(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table.trim_fmt()
}

/// The columns for which at least one run has a value.
#[must_use]
pub fn columns(runs: &[Run]) -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| runs.iter().any(|run| (column.read)(run).is_some())).collect()
}

fn heading(column: &Column) -> String {
    let (first, second) = column.heading();
    format!("{first}\n{second}")
}

/// `600` when all ended well, else `500/600`.
#[must_use]
pub fn ended_well(run: &Run) -> String {
    let (ok, total) = (run.requests.ok, run.requests.total + run.requests.unsent);
    if ok == total { total.to_string() } else { format!("{ok}/{total}") }
}

/// The mark takes a place in every cell, so that digits stay in line.
fn value(value: Option<f64>, best: bool) -> String {
    let mark = if best { '*' } else { ' ' };
    value.map_or_else(|| "-".to_owned() + " ", |value| format!("{}{mark}", display(value)))
}

/// Appends `head` and `body` as lines of at most `line` characters; further lines stand below the body's begin.
pub(super) fn push_wrapped(text: &mut String, line: usize, head: &str, body: &str) {
    let indent = head.chars().count();
    let mut width = indent;
    text.push_str(head);
    for (index, word) in body.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && width + 1 + length > line {
            let _ = write!(text, "\n{:indent$}", "");
            width = indent;
        } else if index > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text.push('\n');
}

fn footer(report: &Report, line: usize) -> String {
    let mut text = String::new();
    let runs_bound = report.runs.iter().find_map(|run| run.cache.infinite_cache_ratio);
    if let Some(ratio) = runs_bound {
        let _ = writeln!(text, "infinite cache would hit {:.1} % of the prompt tokens", ratio * 100.0);
    }
    let errors = [
        ("client lag", report.client_lag_ms),
        ("emulator error", report.emulator_error_ms),
        ("WAN error", report.wan_error_ms),
    ];
    for (name, spread) in errors {
        if let Some(Spread { n, p50: Some(p50), p95: Some(p95), p99: Some(p99), .. }) = spread {
            let _ = writeln!(text, "{name} p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms (n = {n})");
        }
    }
    let origin = format!(
        "trace {} (sha256 {}), {} requests, {} dropped; gorgo {} on {} {} with {} cores",
        report.trace.name,
        report.trace.sha256.get(..12).unwrap_or(&report.trace.sha256),
        report.trace.requests,
        report.trace.dropped,
        report.gorgo,
        report.machine.os,
        report.machine.arch,
        report.machine.cores,
    );
    push_wrapped(&mut text, line, "", &origin);
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::render;
    use crate::report::example;

    #[test]
    fn a_sweep_has_a_grid_per_load_and_ratios_over_all() {
        let mut report = example::sweep();
        assert_snapshot!(render(&report, None, Some("r.html".as_ref())), @r"
        0.5 of the capacity (time scale 2)
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────
        strategy      requests    TTFT   TTFT   TTFT   TTFT    E2E   TPOT  cache goodput    cross     max prediction
                            ok mean ms p50 ms p95 ms p99 ms p95 ms p50 ms hits %       % region % share %   error ms
        ════════════════════════════════════════════════════════════════════════════════════════════════════════════
        gorgo              600    125    100    300    500   1800   12.5*  90.0*   99.0*    40.0    60.0       21.0
        random             600    100*  80.0*   240*   400*  1740*  12.5*  90.0*   99.0*    40.0    60.0          -
        (lower bound)            75.0   60.0    180    300      -      -      -       -        -       -          -
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────
        0.9 of the capacity (time scale 1.111)
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────
        strategy      requests    TTFT   TTFT   TTFT   TTFT    E2E   TPOT  cache goodput    cross     max prediction
                            ok mean ms p50 ms p95 ms p99 ms p95 ms p50 ms hits %       % region % share %   error ms
        ════════════════════════════════════════════════════════════════════════════════════════════════════════════
        gorgo              600    188    150    450    750   1950   12.5*  90.0*   99.0*    40.0    60.0       21.0
        random             600    112*  90.0*   270*   450*  1770*  12.5*  90.0*   99.0*    40.0    60.0          -
        (lower bound)            75.0   60.0    180    300      -      -      -       -        -       -          -
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────
        * best of its column, or within 2 % of it
        every figure is defined in `r.html`
        capacity: the fleet keeps up with time scale 1: there random has a TTFT p95 of at most 400 ms, 2 times that of
                  the nearly idle fleet
        counted: 0.5 of the capacity (time scale 2): sessions that start from 10 to 50 s; warm-up of 10 s excluded
                 (120 requests of the first run)
        counted: 0.9 of the capacity (time scale 1.111): sessions that start from 10 to 50 s; warm-up of 10 s excluded
                 (120 requests of the first run)
        ───────────────────────────────────────────────────────────────────────────────────────────────────────
        ÷ gorgo           TTFT p50           TTFT p95           TTFT p99            E2E p95           all four
        ═══════════════════════════════════════════════════════════════════════════════════════════════════════
        random   0.69 [0.69, 0.69]  0.69 [0.69, 0.69]  0.69 [0.69, 0.69]  0.93 [0.90, 0.97]  0.75 [0.74, 0.75]
        ───────────────────────────────────────────────────────────────────────────────────────────────────────
        ───────────────────────────────────────────────────────────────────────
        ÷ lower bound           TTFT p50           TTFT p95           TTFT p99
        ═══════════════════════════════════════════════════════════════════════
        gorgo          2.14 [1.17, 3.92]  2.14 [1.17, 3.92]  2.14 [1.17, 3.92]
        random         1.48 [0.81, 2.72]  1.48 [0.81, 2.72]  1.48 [0.81, 2.72]
        ───────────────────────────────────────────────────────────────────────
        in brackets: 95 % intervals over seeds and windows, pair by pair
        infinite cache would hit 95.4 % of the prompt tokens
        client lag p50 0.10 ms, p95 0.80 ms, p99 1.90 ms (n = 3600)
        emulator error p50 0.20 ms, p95 1.10 ms, p99 2.40 ms (n = 1800)
        WAN error p50 0.60 ms, p95 1.20 ms, p99 2.00 ms (n = 60000)
        trace bfcl (sha256 0123456789ab), 1142 requests, 0 dropped; gorgo 0.1.0 on linux x86_64 with 2 cores
        ");
        report.runs.clear();
        report.comparisons.clear();
        assert!(!render(&report, Some(80), None).contains('÷'));
    }

    #[test]
    fn a_whole_comparison() {
        assert_snapshot!(render(&example::report(), None, Some("demo.html".as_ref())), @r"
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
        strategy         requests    TTFT   TTFT   TTFT   TTFT    E2E   TPOT  cache goodput    cross     max prediction
                               ok mean ms p50 ms p95 ms p99 ms p95 ms p50 ms hits %       % region % share %   error ms
        ═══════════════════════════════════════════════════════════════════════════════════════════════════════════════
        gorgo                 600    125*   100*   300*   500*  1800*  12.5   95.0*   99.0*    40.0    60.0       21.0
        session-affinity      600    188    150    450    750   1890   12.0   95.1*   99.0*    60.0    50.0          -
        least-load            600    225    180    540    900   1860   11.0*  80.0    99.0*    70.0    60.0          -
        round-robin       500/612    112   90.0    270    450   1710   12.0   70.0    82.5     66.0    56.0          -
        (lower bound)               75.0   60.0    180    300      -      -      -       -        -       -          -
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
        * best of its column, or within 2 % of it
        every figure is defined in `demo.html`
        best: gorgo wins TTFT mean 125 ms (next: session-affinity 188), TTFT p50 100 ms (next: session-affinity 150),
              TTFT p95 300 ms (next: session-affinity 450), TTFT p99 500 ms (next: session-affinity 750), E2E p95 1800
              ms (next: least-load 1860)
        level: gorgo is within 2 % of the best other in cache hits (session-affinity), goodput (least-load)
        BEATEN: gorgo does not win TPOT p50 12.5 ms (least-load 11.0)
        limit: gorgo's TTFT is 1.67 times the lower bound at the median, 1.67 times at p95
        counted: sessions that start from 10 to 50 s; warm-up of 10 s excluded (120 requests of the first run)
        warning: round-robin: of 612 requests 60 failed, 40 unfinished, 12 never sent (60 × connect); its latencies
                 cover the others only and are not compared
        infinite cache would hit 95.4 % of the prompt tokens
        client lag p50 0.10 ms, p95 0.80 ms, p99 1.90 ms (n = 3600)
        emulator error p50 0.20 ms, p95 1.10 ms, p99 2.40 ms (n = 1800)
        WAN error p50 0.60 ms, p95 1.20 ms, p99 2.00 ms (n = 60000)
        trace bfcl (sha256 0123456789ab), 1142 requests, 0 dropped; gorgo 0.1.0 on linux x86_64 with 2 cores
        ");
    }

    #[test]
    fn a_single_run_without_figures() {
        let mut report = example::report();
        report.runs = vec![crate::report::Run { strategy: "target".into(), ..crate::report::Run::default() }];
        report.client_lag_ms = None;
        report.emulator_error_ms = None;
        report.wan_error_ms = None;
        assert_snapshot!(render(&report, None, None), @r"
        ─────────────────
        strategy requests
                       ok
        ═════════════════
        target          0
        ─────────────────
        `--report FILE` writes a page that defines every figure
        warning: no request counts: none was sent after the warm-up
        trace bfcl (sha256 0123456789ab), 1142 requests, 0 dropped; gorgo 0.1.0 on linux x86_64 with 2 cores
        ");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_shorter_lines() {
        let text = render(&example::report(), Some(80), None);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_snapshot!(text.lines().take(11).collect::<Vec<_>>().join("\n"), @r"
        ─────────────────────────────────────────────────────────────────────────────
        strategy         requests   TTFT   TTFT   TTFT    E2E  cache goodput    cross
                               ok p50 ms p95 ms p99 ms p95 ms hits %       % region %
        ═════════════════════════════════════════════════════════════════════════════
        gorgo                 600   100*   300*   500*  1800*  95.0*   99.0*    40.0
        session-affinity      600   150    450    750   1890   95.1*   99.0*    60.0
        least-load            600   180    540    900   1860   80.0    99.0*    70.0
        round-robin       500/612  90.0    270    450   1710   70.0    82.5     66.0
        (lower bound)              60.0    180    300      -      -       -        -
        ─────────────────────────────────────────────────────────────────────────────
        * best of its column, or within 2 % of it
        ");
        // Wider than it needs to be changes nothing.
        assert_eq!(render(&example::report(), Some(200), None), render(&example::report(), None, None));
    }
}
