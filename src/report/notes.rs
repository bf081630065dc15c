//! The sentences under a table: where our strategy does not win, how far the limit is, and what makes the figures doubtful.
//!
//! They are derived from the report alone, so table, HTML and a later reader of the JSON say the same.

use super::figures::{self, Better, COLUMNS, Column, MAX_LOST_SHARE, best, comparable, display, lost_share};
use super::schema::{Report, Run};

/// The strategies whose standing the notes describe: the first of them that plays.
pub const SUBJECTS: [&str; 2] = ["predictive", "gorgo"];
/// Most lag of the load generator and most lateness of the emulator that leave the figures trustworthy, ms at p95.
pub const MAX_LAG_MS: f64 = 5.0;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where the first of [`SUBJECTS`] is ahead.
    Best,
    /// Where it is level with somebody.
    Level,
    /// Where it is beaten.
    Beaten,
    /// How others compare with the first strategy, seed by seed.
    Paired,
    /// What the fleet can take.
    Capacity,
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
            Self::Paired => "paired",
            Self::Capacity => "capacity",
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
    let parts = report.by_load();
    let mut notes: Vec<Note> = capacity(report).into_iter().collect();
    match &parts[..] {
        [one] => {
            notes.extend(results(one));
            notes.extend(counted(one));
            notes.extend(entries(one));
            notes.extend(doubts(one));
        }
        several => notes.extend(several.iter().flat_map(of_load)),
    }
    notes.extend(report.remarks.iter().map(|remark| Note::new(Kind::Warning, remark.clone())));
    notes.extend(lag_warnings(report));
    if report.interrupted {
        let text = "interrupted: the figures cover what was measured until then, and nothing is compared";
        notes.push(Note::new(Kind::Warning, text.into()));
    }
    notes
}

/// Who is where in a report of one load.
fn results(report: &Report) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(subject) = SUBJECTS.iter().find_map(|name| report.runs.iter().position(|run| run.strategy == *name)) {
        let run = &report.runs[subject];
        let several = report.runs.len() > 1 && !report.interrupted;
        let lost = lost_share(run) > MAX_LOST_SHARE;
        if several && lost && run.requests.total > 0 {
            let text =
                format!("{} lost {:.1} % of its requests and is not compared", run.strategy, lost_share(run) * 100.0);
            notes.push(Note::new(Kind::Beaten, text));
        } else if several {
            notes.extend(standing(report, subject));
        }
        notes.extend(distance(run).filter(|_| !lost && !report.interrupted));
    }
    if report.comparisons.is_empty() {
        notes.extend(report.runs.iter().filter_map(paired));
    }
    notes
}

/// What makes the figures of one load doubtful.
fn doubts(report: &Report) -> Vec<Note> {
    let lost = report.runs.iter().filter_map(|run| lost(run, report.interrupted));
    lost.chain(overload(report)).collect()
}

/// Of one load of several: what counts and what is doubtful; results stand in the ratios.
fn of_load(part: &Report) -> Vec<Note> {
    let label = part.runs.first().map(|run| run.load.label()).unwrap_or_default();
    let named = |note: Note| Note { text: format!("{label}: {}", note.text), ..note };
    counted(part).into_iter().chain(entries(part)).chain(doubts(part)).map(named).collect()
}

fn capacity(report: &Report) -> Option<Note> {
    let found = report.capacity.as_ref()?;
    let text = format!(
        "the fleet keeps up with {}: there {} has a TTFT p95 of at most {} ms, {:.0} times that of the nearly idle fleet",
        found.load.label(),
        found.strategy,
        display(found.limit_ms),
        found.limit_ms / found.idle_ms
    );
    Some(Note::new(Kind::Capacity, text))
}

/// For each figure that has a better end: alone in front, level with others, or beaten by whom and how far.
fn standing(report: &Report, subject: usize) -> Vec<Note> {
    let (mut won, mut level, mut beaten) = (Vec::new(), Vec::new(), Vec::new());
    for column in COLUMNS.iter().filter(|column| column.figure().better != Better::Neither) {
        let Some(own) = comparable(column, &report.runs[subject], report) else { continue };
        let Some((rival, value)) = strongest(column, report, subject) else { continue };
        let name = format!("{} {}", column.figure().name, column.part).trim_end().to_owned();
        let unit = column.figure().unit;
        let marks = best(column, report);
        let alone = marks.iter().filter(|mark| **mark).count() == 1;
        match (marks[subject], alone) {
            (true, true) => won.push(format!("{name} {} {unit} (next: {rival} {})", display(own), display(value))),
            (true, false) => level.push(format!("{name} ({rival})")),
            (false, _) => beaten.push(format!("{name} {} {unit} ({rival} {})", display(own), display(value))),
        }
    }
    let list = |kind, head: &str, items: Vec<String>| {
        (!items.is_empty())
            .then(|| Note::new(kind, format!("{} {head} {}", report.runs[subject].strategy, items.join(", "))))
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

/// The best of the others.
fn strongest<'a>(column: &Column, report: &'a Report, subject: usize) -> Option<(&'a str, f64)> {
    let others = report.runs.iter().enumerate().filter(|(index, _)| *index != subject);
    let values = others.filter_map(|(_, run)| Some((run.strategy.as_str(), comparable(column, run, report)?)));
    match column.figure().better {
        Better::Higher => values.max_by(|a, b| a.1.total_cmp(&b.1)),
        _ => values.min_by(|a, b| a.1.total_cmp(&b.1)),
    }
}

fn distance(subject: &Run) -> Option<Note> {
    let bound = subject.bound.as_ref()?.ttft_ms;
    let times = |own: Option<f64>, limit: Option<f64>| Some(own? / limit.filter(|limit| *limit > 0.0)?);
    let (p50, p95) = (times(subject.ttft_ms.p50, bound.p50)?, times(subject.ttft_ms.p95, bound.p95)?);
    let name = &subject.strategy;
    let text = format!("{name}'s TTFT is {p50:.2} times the lower bound at the median, {p95:.2} times at p95");
    Some(Note::new(Kind::Limit, text))
}

/// Figures whose ratios a note tells, as keys of [`super::schema::Paired`] and as words.
const PAIRED: [(&str, &str); 4] =
    [("ttft_ms.p50", "TTFT p50"), ("ttft_ms.p95", "TTFT p95"), ("ttft_ms.p99", "TTFT p99"), ("e2e_ms.p95", "E2E p95")];

/// What a strategy's figures are of the first one's on the same seeds, with 95 % intervals.
fn paired(run: &Run) -> Option<Note> {
    let paired = run.paired.as_ref()?;
    let told = PAIRED.iter().filter_map(|(key, name)| {
        let ratio = paired.ratios.get(*key)?;
        Some(format!("{name} {:.2} [{:.2}, {:.2}]", ratio.mean, ratio.low, ratio.high))
    });
    let told: Vec<String> = told.collect();
    let seeds = run.per_seed.as_ref().map_or(0, Vec::len);
    let text = format!("{} ÷ {} over {seeds} seeds: {}", run.strategy, paired.to, told.join(", "));
    (!told.is_empty()).then(|| Note::new(Kind::Paired, text))
}

/// Which requests count, where there was a warm-up; that none does, where nothing ended well.
fn counted(report: &Report) -> Option<Note> {
    let run = report.runs.first()?;
    let window = run.window;
    if report.runs.iter().all(|run| run.requests.total == 0 && run.requests.unsent == 0) {
        let text = match report.interrupted {
            true => "no request counts: interrupted before the first one after the warm-up",
            false => "no request counts: none was sent after the warm-up",
        };
        return Some(Note::new(Kind::Warning, text.into()));
    }
    let what = if run.load.kind == "closed" { "requests sent" } else { "sessions that start" };
    let text = format!(
        "{what} from {} to {} s; warm-up of {} s excluded ({} requests of the first run)",
        seconds(window.from_s),
        seconds(window.to_s),
        seconds(window.from_s),
        window.warmup_requests
    );
    (window.from_s > 0.0).then(|| Note::new(Kind::Counted, text))
}

/// How many requests each entry took: once where all runs agree, else run by run.
fn entries(report: &Report) -> Vec<Note> {
    let told = |run: &Run| {
        let counts: Vec<String> = run.routing.entries.iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!("requests by entry: {}", counts.join(", "))
    };
    let mut runs = report.runs.iter().filter(|run| !run.routing.entries.is_empty()).peekable();
    let Some(first) = runs.peek().copied() else { return Vec::new() };
    if report.runs.iter().all(|run| run.routing.entries == first.routing.entries) {
        return vec![Note::new(Kind::Counted, told(first))];
    }
    runs.map(|run| Note::new(Kind::Counted, format!("{}: {}", run.strategy, told(run)))).collect()
}

/// A tenth of a second is enough; whole seconds stand without one.
fn seconds(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Kinds of failures that a note names; more are summed up.
const SHOWN_KINDS: usize = 4;

fn lost(run: &Run, interrupted: bool) -> Option<Note> {
    let requests = &run.requests;
    // An interruption leaves requests under way; that says nothing of the target.
    let unfinished = if interrupted { 0 } else { requests.cancelled };
    let counts = [
        (requests.failed, "failed"),
        (requests.refused, "refused"),
        (unfinished, "unfinished"),
        (requests.unsent, "never sent"),
    ];
    let told: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if told.is_empty() {
        return None;
    }
    let wanted = requests.total + requests.unsent;
    let compared = match (requests.ok, lost_share(run) > MAX_LOST_SHARE) {
        (0, _) => "; none succeeded",
        (_, true) => "; its latencies cover the others only and are not compared",
        (_, false) => "",
    };
    let (told, reasons) = (told.join(", "), reasons(run));
    Some(Note::new(Kind::Warning, format!("{}: of {wanted} requests {told}{reasons}{compared}", run.strategy)))
}

/// ` (27 × 503 none_healthy, 3 × connect)`: failures and refusals by kind, most frequent first.
fn reasons(run: &Run) -> String {
    let mut kinds: Vec<(&String, &u64)> = run.requests.failures.iter().chain(&run.requests.refusals).collect();
    kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut told: Vec<String> =
        kinds.iter().take(SHOWN_KINDS).map(|(kind, count)| format!("{count} × {kind}")).collect();
    let rest: u64 = kinds.iter().skip(SHOWN_KINDS).map(|(_, count)| **count).sum();
    if rest > 0 {
        told.push(format!("{rest} of other kinds"));
    }
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

/// Says that the load was too much where every strategy of a comparison fell behind its open loop: then nothing can be compared.
fn overload(report: &Report) -> Option<Note> {
    let late = |run: &Run| {
        let behind = run.requests.cancelled + run.requests.unsent;
        run.load.kind == "open" && behind as f64 > MAX_LOST_SHARE * wanted(run)
    };
    if report.interrupted || report.runs.len() < 2 || !report.runs.iter().all(late) {
        return None;
    }
    let first = report.runs.first()?;
    let offered = wanted(first) / (first.window.to_s - first.window.from_s).max(f64::MIN_POSITIVE);
    let served = report.runs.iter().filter_map(|run| Some((run.throughput.requests_per_s?, &run.strategy)));
    let (most, strategy) = served.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let text = format!(
        "the fleet is overloaded: {offered:.1} requests/s were offered, at most {most:.1}/s served ({strategy}), so nothing can \
         be compared; lower the load (`--time-scale` up, `--rate` down), shorten requests (`--max-input`, `--max-output`) \
         or give a larger fleet (`--fleet`, more replicas or `kv_tokens`)"
    );
    Some(Note::new(Kind::Warning, text))
}

/// Requests that a run should have sent.
fn wanted(run: &Run) -> f64 {
    (run.requests.total + run.requests.unsent) as f64
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
        Warning: round-robin: of 612 requests 60 failed, 40 unfinished, 12 never sent (60 × connect); its latencies cover the others only and are not compared
        ");
    }

    #[test]
    fn entries_are_told_once_where_all_runs_agree() {
        let mut report = example::report();
        report.runs.truncate(2);
        let counts = |east: u64| [("east".to_owned(), east), ("west".to_owned(), 2)].into();
        let told = |report: &crate::report::Report| {
            let all = text(report);
            all.lines().filter(|line| line.contains("by entry")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(told(&report), "");
        report.runs[0].routing.entries = counts(1);
        report.runs[1].routing.entries = counts(1);
        assert_snapshot!(told(&report), @"Counted: requests by entry: east 1, west 2");
        report.runs[1].routing.entries = counts(7);
        assert_snapshot!(told(&report), @r"
        Counted: gorgo: requests by entry: east 1, west 2
        Counted: session-affinity: requests by entry: east 7, west 2
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
        Warning: interrupted: the figures cover what was measured until then, and nothing is compared
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
    fn what_was_lost_is_told_with_its_reasons() {
        let mut report = example::report();
        report.runs.truncate(1);
        let requests = &mut report.runs[0].requests;
        (requests.total, requests.ok, requests.refused, requests.failed) = (38, 0, 27, 11);
        requests.refusals.insert("503 none_healthy".into(), 27);
        requests.failures = ["a", "b", "c", "d"].map(|kind| (kind.to_owned(), 2)).into();
        requests.failures.insert("connect".into(), 3);
        let text = text(&report);
        let expected = "Warning: gorgo: of 38 requests 11 failed, 27 refused (27 × 503 none_healthy, 3 × connect, 2 × a, \
                        2 × b, 4 of other kinds); none succeeded\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(!text.contains("Beaten") && !text.contains("Limit"), "one run is not compared: {text}");
    }

    #[test]
    fn a_fleet_that_nobody_can_keep_up_with_is_called_overloaded() {
        let mut report = example::report();
        assert!(!text(&report).contains("overloaded"));
        for run in &mut report.runs {
            (run.requests.ok, run.requests.cancelled, run.requests.unsent) = (200, 400, 20);
            run.throughput.requests_per_s = Some(5.0);
        }
        report.runs[2].throughput.requests_per_s = Some(6.0);
        let text = text(&report);
        assert!(text.contains("15.5 requests/s were offered, at most 6.0/s served (least-load)"), "{text}");
    }

    #[test]
    fn an_interrupted_comparison_compares_nothing() {
        let mut report = example::report();
        report.interrupted = true;
        report.runs[0].requests.cancelled = 30;
        assert_snapshot!(text(&report), @r"
        Counted: sessions that start from 10 to 50 s; warm-up of 10 s excluded (120 requests of the first run)
        Warning: round-robin: of 612 requests 60 failed, 12 never sent (60 × connect); its latencies cover the others only and are not compared
        Warning: interrupted: the figures cover what was measured until then, and nothing is compared
        ");
        for run in &mut report.runs {
            run.requests = crate::report::schema::Requests::default();
        }
        assert_snapshot!(text(&report), @r"
        Warning: no request counts: interrupted before the first one after the warm-up
        Warning: interrupted: the figures cover what was measured until then, and nothing is compared
        ");
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
