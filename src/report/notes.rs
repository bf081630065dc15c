//! The sentences under a table: where `gorgo` does not win, how far the limit is, and what makes the figures doubtful.
//!
//! They are derived from the report alone, so table, HTML and a later reader of the JSON say the same.

use super::figures::{self, Better, COLUMNS, Column, MAX_LOST_SHARE, display, lost_share};
use super::schema::{Report, Run};

/// The strategy whose standing the notes describe.
pub const SUBJECT: &str = "gorgo";
/// A difference up to this share is called level: two runs with one seed on an idle machine differ by about as much.
const LEVEL: f64 = 0.02;
/// Most lag of the load generator and most lateness of the emulator that leave the figures trustworthy, ms at p95.
pub const MAX_LAG_MS: f64 = 5.0;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where [`SUBJECT`] is ahead.
    Best,
    /// Where it is level with somebody.
    Level,
    /// Where it is beaten.
    Beaten,
    /// How far the lower bound is.
    Limit,
    /// Which requests count.
    Counted,
    /// Why the figures may mislead.
    Warning,
}

impl Kind {
    /// The word before the sentence.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Level => "level",
            Self::Beaten => "BEATEN",
            Self::Limit => "limit",
            Self::Counted => "counted",
            Self::Warning => "warning",
        }
    }
}

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: Kind,
    /// The sentence, without final full stop.
    pub text: String,
}

impl Note {
    fn new(kind: Kind, text: String) -> Self {
        Self { kind, text }
    }
}

/// All notes: results first, warnings last.
#[must_use]
pub fn notes(report: &Report) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(subject) = report.runs.iter().find(|run| run.strategy == SUBJECT) {
        let others: Vec<&Run> = report.runs.iter().filter(|run| run.strategy != SUBJECT).collect();
        if lost_share(subject) > MAX_LOST_SHARE && subject.requests.total > 0 {
            let text =
                format!("{SUBJECT} lost {:.1} % of its requests and is not compared", lost_share(subject) * 100.0);
            notes.push(Note::new(Kind::Beaten, text));
        } else if !others.is_empty() {
            notes.extend(standing(subject, &others));
        }
        notes.extend(distance(subject));
    }
    notes.extend(warm_up(report));
    notes.extend(report.runs.iter().filter_map(lost));
    notes.extend(lag_warnings(report));
    if report.interrupted {
        notes.push(Note::new(Kind::Warning, "interrupted: the figures cover what was measured until then".into()));
    }
    notes
}

/// For each figure that has a better end: best, level, or beaten by whom and how far.
fn standing(subject: &Run, others: &[&Run]) -> Vec<Note> {
    let (mut won, mut level, mut beaten) = (Vec::new(), Vec::new(), Vec::new());
    for column in COLUMNS.iter().filter(|column| column.figure().better != Better::Neither) {
        let Some(own) = (column.read)(subject) else { continue };
        let Some((rival, value)) = strongest(column, others) else { continue };
        let name = format!("{} {}", column.figure().name, column.part).trim_end().to_owned();
        let gap = if value == own { 0.0 } else { (value - own).abs() / value.abs().max(f64::MIN_POSITIVE) };
        let ahead = if column.figure().better == Better::Lower { own < value } else { own > value };
        let unit = column.figure().unit;
        match (gap <= LEVEL, ahead) {
            (true, _) => level.push(format!("{name} ({rival})")),
            (false, true) => won.push(format!("{name} {} {unit} (next: {rival} {})", display(own), display(value))),
            (false, false) => beaten.push(format!("{name} {} {unit} ({rival} {})", display(own), display(value))),
        }
    }
    let list = |kind, head: &str, items: Vec<String>| {
        (!items.is_empty()).then(|| Note::new(kind, format!("{SUBJECT} {head} {}", items.join(", "))))
    };
    [
        list(Kind::Best, "wins", won),
        list(Kind::Level, "is within 2 % of the best other in", level),
        list(Kind::Beaten, "does not win", beaten),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The best of the others that lost no more requests than comparisons allow.
fn strongest<'a>(column: &Column, others: &[&'a Run]) -> Option<(&'a str, f64)> {
    let comparable = others.iter().filter(|run| lost_share(run) <= MAX_LOST_SHARE);
    let values = comparable.filter_map(|run| Some((run.strategy.as_str(), (column.read)(run)?)));
    match column.figure().better {
        Better::Higher => values.max_by(|a, b| a.1.total_cmp(&b.1)),
        _ => values.min_by(|a, b| a.1.total_cmp(&b.1)),
    }
}

fn distance(subject: &Run) -> Option<Note> {
    let bound = subject.bound.as_ref()?.ttft_ms;
    let times = |own: Option<f64>, limit: Option<f64>| Some(own? / limit.filter(|limit| *limit > 0.0)?);
    let (p50, p95) = (times(subject.ttft_ms.p50, bound.p50)?, times(subject.ttft_ms.p95, bound.p95)?);
    let text = format!("{SUBJECT}'s TTFT is {p50:.2} times the lower bound at the median, {p95:.2} times at p95");
    Some(Note::new(Kind::Limit, text))
}

fn warm_up(report: &Report) -> Option<Note> {
    let window = report.runs.first()?.window;
    let text = format!(
        "sessions that start from {} to {} s; warm-up of {} s excluded ({} requests of the first run)",
        window.from_s, window.to_s, window.from_s, window.warmup_requests
    );
    (window.from_s > 0.0).then(|| Note::new(Kind::Counted, text))
}

fn lost(run: &Run) -> Option<Note> {
    let requests = &run.requests;
    let counts = [
        (requests.failed, "failed"),
        (requests.refused, "refused"),
        (requests.cancelled, "unfinished"),
        (requests.unsent, "never sent"),
    ];
    let told: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if told.is_empty() {
        return None;
    }
    let wanted = requests.total + requests.unsent;
    let compared = if lost_share(run) > MAX_LOST_SHARE {
        "; its latencies cover the others only and are not compared"
    } else {
        ""
    };
    Some(Note::new(Kind::Warning, format!("{}: of {wanted} requests {}{compared}", run.strategy, told.join(", "))))
}

fn lag_warnings(report: &Report) -> Vec<Note> {
    let lags = [
        ("/client_lag_ms", report.client_lag_ms),
        ("/emulator_error_ms", report.emulator_error_ms),
        ("/wan_error_ms", report.wan_error_ms),
    ];
    let mut warnings = Vec::new();
    for (key, spread) in lags {
        let name = figures::find(key).map_or(key, |figure| figure.name);
        if let Some(p95) = spread.and_then(|spread| spread.p95).filter(|p95| *p95 > MAX_LAG_MS) {
            let text = format!(
                "{name} p95 is {p95:.1} ms, above {MAX_LAG_MS:.0} ms: this machine was too slow or too busy; take the figures as rough"
            );
            warnings.push(Note::new(Kind::Warning, text));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::notes;
    use crate::report::example;
    use crate::report::schema::Spread;

    fn text(report: &crate::report::Report) -> String {
        notes(report).iter().map(|note| format!("{:?}: {}\n", note.kind, note.text)).collect()
    }

    #[test]
    fn it_is_said_plainly_where_gorgo_does_not_win() {
        assert_snapshot!(text(&example::report()), @r"
        Best: gorgo wins TTFT mean 125 ms (next: session-affinity 188), TTFT p50 100 ms (next: session-affinity 150), TTFT p95 300 ms (next: session-affinity 450), TTFT p99 500 ms (next: session-affinity 750), E2E p95 1800 ms (next: least-load 1860)
        Level: gorgo is within 2 % of the best other in cache hits (session-affinity), goodput (least-load)
        Beaten: gorgo does not win TPOT p50 12.5 ms (least-load 11.0)
        Limit: gorgo's TTFT is 1.67 times the lower bound at the median, 1.67 times at p95
        Counted: sessions that start from 10 to 50 s; warm-up of 10 s excluded (120 requests of the first run)
        Warning: round-robin: of 612 requests 60 failed, 40 unfinished, 12 never sent; its latencies cover the others only and are not compared
        ");
    }

    #[test]
    fn slow_machines_and_interruptions_are_warned_of() {
        let mut report = example::report();
        report.runs.truncate(1);
        report.runs[0].strategy = "round-robin".into();
        report.client_lag_ms = Some(Spread { p95: Some(7.25), ..Spread::default() });
        report.interrupted = true;
        assert_snapshot!(text(&report), @r"
        Counted: sessions that start from 10 to 50 s; warm-up of 10 s excluded (120 requests of the first run)
        Warning: client lag p95 is 7.2 ms, above 5 ms: this machine was too slow or too busy; take the figures as rough
        Warning: interrupted: the figures cover what was measured until then
        ");
    }

    #[test]
    fn a_subject_that_lost_requests_claims_nothing() {
        let mut report = example::report();
        report.runs[0].requests.ok = 570;
        report.runs[0].requests.refused = 30;
        let text = text(&report);
        assert!(text.starts_with("Beaten: gorgo lost 5.0 % of its requests and is not compared\n"), "{text}");
        assert!(!text.contains("wins"), "{text}");
    }

    #[test]
    fn nothing_is_compared_where_there_is_nothing() {
        let mut report = example::report();
        report.runs.clear();
        report.client_lag_ms = None;
        report.emulator_error_ms = None;
        report.wan_error_ms = None;
        assert_eq!(text(&report), "");
    }
}
