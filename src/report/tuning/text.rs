//! A search as text: what was tried, what it does on held-out draws, and in a sentence whether that is more than noise.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::Cell;

use super::{Gain, Trial, Tuning, Weights};
use crate::report::compare::FIGURES;
use crate::report::ratios;
use crate::report::table::{self, LINE, aligned, plain_table, push_wrapped};

/// Trials that are shown; all of them stand in the file.
const SHOWN: usize = 5;

/// Everything for a terminal of this width, or for a file. `page` is where the page with the definitions goes, if there is one.
#[must_use]
pub fn render(tuning: &Tuning, width: Option<usize>, page: Option<&Path>) -> String {
    let mut text = head(tuning);
    if !tuning.trials.is_empty() {
        let _ = writeln!(text, "\n{}", trials(tuning));
    }
    if !tuning.steps.is_empty() {
        let _ = writeln!(text, "\n{}", steps(tuning));
    }
    if let Some(held_out) = &tuning.held_out {
        let _ = writeln!(text, "\nheld out, on draws by which nothing was chosen:");
        text.push_str(&table::render(&held_out.report, width, page));
    }
    let line = width.unwrap_or(LINE).min(LINE);
    for remark in &tuning.remarks {
        push_wrapped(&mut text, line, "note: ", remark);
    }
    text.push('\n');
    push_wrapped(&mut text, line, "", &verdict(tuning));
    if !tuning.toml.is_empty() {
        let _ = writeln!(text, "\n{}", tuning.toml);
    }
    text
}

fn head(tuning: &Tuning) -> String {
    let search = &tuning.search;
    let axes = tuning.axes.iter().map(|axis| match &axis.values[..] {
        [low, .., high] => format!("{} from {low} to {high}", axis.key),
        values => format!("{} {values:?}", axis.key),
    });
    let loads = search.loads.iter().map(|load| load.label()).collect::<Vec<_>>().join(", ");
    let loads = if loads.is_empty() { "not known yet" } else { &loads };
    let windows = if search.windows_s.is_empty() { "all".to_owned() } else { search.windows_s.join(", ") };
    format!(
        "{} of {}: {}\nloads: {loads}; part of the trace: {windows}\n{} runs; {}\n",
        search.kind,
        tuning.strategy,
        axes.collect::<Vec<_>>().join(", "),
        search.runs,
        search.ended
    )
}

/// The best points, and the weights before.
fn trials(tuning: &Tuning) -> String {
    let keys: Vec<&str> = tuning.axes.iter().map(|axis| axis.key.as_str()).collect();
    let start: Weights = tuning.axes.iter().map(|axis| (axis.key.clone(), axis.start)).collect();
    let mut table = plain_table();
    let figures = shown_figures(tuning);
    let headings = keys.iter().map(|key| (*key).to_owned()).chain(["objective".to_owned()]);
    let headings = headings.chain(figures.iter().map(|key| heading(key))).chain(["draws".to_owned()]);
    table.set_header(headings.map(Cell::new));
    let best = tuning.trials.iter().take(SHOWN);
    let before = tuning.trials.iter().skip(SHOWN).filter(|trial| trial.weights == start);
    let shown: Vec<&Trial> = best.chain(before).collect();
    for trial in &shown {
        table.add_row(row(trial, &keys, &figures));
    }
    let left = tuning.trials.len() - shown.len();
    let more = if left > 0 { format!("\n… and {left} more, all in the file of `--json`") } else { String::new() };
    format!(
        "{}{more}\nratios to the weights before, in brackets 95 % intervals over draws; below 1 is better",
        aligned(table)
    )
}

fn row(trial: &Trial, keys: &[&str], figures: &[&str]) -> Vec<Cell> {
    let weights = keys.iter().map(|key| trial.weights.get(*key).map_or("-".to_owned(), f64::to_string));
    let objective = [ratios::text(Some(&trial.objective), true)];
    let figures = figures.iter().map(|key| ratios::text(trial.ratios.get(*key), false));
    weights.chain(objective).chain(figures).chain([trial.draws.to_string()]).map(Cell::new).collect()
}

fn steps(tuning: &Tuning) -> String {
    let mut table = plain_table();
    let keys: Vec<&str> = tuning.axes.iter().map(|axis| axis.key.as_str()).collect();
    let headings = ["generation"].into_iter().chain(keys.iter().copied()).chain(["÷ before the step"]);
    table.set_header(headings.map(Cell::new));
    for step in &tuning.steps {
        let weights = keys.iter().map(|key| step.weights.get(*key).map_or("-".to_owned(), f64::to_string));
        let cells = [step.generation.to_string()].into_iter().chain(weights);
        table.add_row(cells.chain([ratios::text(Some(&step.objective), true)]).map(Cell::new));
    }
    aligned(table)
}

/// The figures of comparisons and those of the objective.
fn shown_figures(tuning: &Tuning) -> Vec<&str> {
    let common = FIGURES.iter().map(|(key, ..)| *key);
    let own = tuning.objective.iter().map(String::as_str);
    let mut keys: Vec<&str> = common.collect();
    for key in own {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// `ttft_ms.p95` as people read it.
fn heading(key: &str) -> String {
    let (kind, part) = key.split_once("_ms.").unwrap_or((key, ""));
    format!("{} {part}", kind.to_uppercase()).trim_end().to_owned()
}

/// In a sentence: what was found, and whether it is more than noise.
#[must_use]
pub fn verdict(tuning: &Tuning) -> String {
    let weights = tuning.weights.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ");
    let Some(held_out) = &tuning.held_out else {
        return format!(
            "interrupted before the check on held-out draws: {weights} is the best so far, which says little"
        );
    };
    let objective = tuning.objective.iter().map(|key| heading(key)).collect::<Vec<_>>().join(", ");
    let of = if tuning.objective.len() == 1 { objective } else { format!("the geometric mean of {objective}") };
    let ratio = ratios::text(held_out.objective.as_ref(), true);
    let found = format!("held out, {weights} has {ratio} times {of} of the weights as they were");
    match held_out.gain {
        Gain::Real => format!("{found}: the gain is larger than the noise"),
        Gain::Noise => format!("{found}: no difference larger than the noise; there is no reason to change them"),
        Gain::Loss => format!(
            "{found}: they are worse; what was gained on the draws of the search was chance or suits only those"
        ),
        Gain::Nothing => format!("nothing was better than the weights as they were, {weights}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use insta::assert_snapshot;

    use super::{render, verdict};
    use crate::report::example;
    use crate::report::schema::{Compared, Load};
    use crate::report::tuning::{Axis, Gain, HeldOut, Search, Step, Trial, Tuning, Weights};

    fn weights(rtt: f64, queue: f64) -> Weights {
        BTreeMap::from([("w_rtt".to_owned(), rtt), ("w_queue".to_owned(), queue)])
    }

    fn ratio(mean: f64) -> Compared {
        Compared { mean, low: Some(mean - 0.05), high: Some(mean + 0.05) }
    }

    fn tuning() -> Tuning {
        let axis = |key: &str, values: &[f64], start| Axis { key: key.into(), values: values.into(), start };
        let trial = |rtt, queue, mean| Trial {
            weights: weights(rtt, queue),
            draws: 6,
            objective: ratio(mean),
            ratios: BTreeMap::from([("ttft_ms.p95".to_owned(), ratio(mean)), ("e2e_ms.p95".to_owned(), ratio(1.2))]),
        };
        Tuning {
            strategy: "gorgo".into(),
            objective: vec!["ttft_ms.p95".into()],
            axes: vec![axis("w_rtt", &[0.1, 1.0, 10.0], 1.0), axis("w_queue", &[0.01, 0.1], 0.1)],
            search: Search {
                kind: "grid".into(),
                ended: "everything was tried".into(),
                interrupted: false,
                runs: 72,
                loads: [2.0, 1.0].map(|scale| Load { time_scale: Some(scale), ..Load::default() }).into(),
                windows_s: vec!["0..60".into()],
            },
            trials: vec![
                trial(10.0, 0.01, 0.7),
                trial(1.0, 0.01, 0.75),
                trial(0.1, 0.01, 0.8),
                trial(0.1, 0.1, 0.85),
                trial(10.0, 0.1, 0.9),
                trial(1.0, 0.1, 1.0),
            ],
            weights: weights(10.0, 0.01),
            remarks: vec!["`w_queue` stands at the lower end".into()],
            toml: "[routing]\nweights = { w_queue = 0.01, w_rtt = 10.0 }".into(),
            ..Tuning::default()
        }
    }

    #[test]
    fn an_interrupted_search_shows_what_it_has() {
        assert_snapshot!(render(&Tuning { toml: String::new(), ..tuning() }, None, None), @r"
        grid of gorgo: w_rtt from 0.1 to 10, w_queue from 0.01 to 0.1
        loads: time scale 2, time scale 1; part of the trace: 0..60
        72 runs; everything was tried

        ────────────────────────────────────────────────────────────────────────────────
        w_rtt  w_queue          objective  TTFT p50  TTFT p95  TTFT p99  E2E p95  draws
        ════════════════════════════════════════════════════════════════════════════════
        10        0.01  0.70 [0.65, 0.75]         -      0.70         -     1.20      6
        1         0.01  0.75 [0.70, 0.80]         -      0.75         -     1.20      6
        0.1       0.01  0.80 [0.75, 0.85]         -      0.80         -     1.20      6
        0.1        0.1  0.85 [0.80, 0.90]         -      0.85         -     1.20      6
        10         0.1  0.90 [0.85, 0.95]         -      0.90         -     1.20      6
        1          0.1  1.00 [0.95, 1.05]         -      1.00         -     1.20      6
        ────────────────────────────────────────────────────────────────────────────────
        ratios to the weights before, in brackets 95 % intervals over draws; below 1 is better
        note: `w_queue` stands at the lower end

        interrupted before the check on held-out draws: w_queue = 0.01, w_rtt = 10 is the best so far, which says
        little
        ");
    }

    #[test]
    fn the_sentence_says_whether_it_is_noise() {
        let with = |gain, mean: f64| {
            let ratio = (gain != Gain::Nothing).then(|| ratio(mean));
            let held_out = HeldOut { gain, objective: ratio, ratios: BTreeMap::new(), report: example::report() };
            verdict(&Tuning { held_out: Some(held_out), ..tuning() })
        };
        let all = [with(Gain::Real, 0.8), with(Gain::Noise, 0.99), with(Gain::Loss, 1.2), with(Gain::Nothing, 1.0)];
        assert_snapshot!(all.join("\n"), @r"
        held out, w_queue = 0.01, w_rtt = 10 has 0.80 [0.75, 0.85] times TTFT p95 of the weights as they were: the gain is larger than the noise
        held out, w_queue = 0.01, w_rtt = 10 has 0.99 [0.94, 1.04] times TTFT p95 of the weights as they were: no difference larger than the noise; there is no reason to change them
        held out, w_queue = 0.01, w_rtt = 10 has 1.20 [1.15, 1.25] times TTFT p95 of the weights as they were: they are worse; what was gained on the draws of the search was chance or suits only those
        nothing was better than the weights as they were, w_queue = 0.01, w_rtt = 10
        ");
    }

    #[test]
    fn a_whole_search_ends_with_lines_for_the_configuration() {
        let step = Step { generation: 2, weights: weights(3.0, 0.03), objective: ratio(0.9) };
        let held_out = HeldOut {
            gain: Gain::Real,
            objective: Some(ratio(0.8)),
            ratios: BTreeMap::new(),
            report: example::report(),
        };
        let whole = Tuning { steps: vec![step], held_out: Some(held_out), ..tuning() };
        let text = render(&whole, None, None);
        assert!(text.contains("generation"), "{text}");
        let (_, end) = text.split_once("note: `w_queue`").unwrap();
        assert_snapshot!(end, @r"
         stands at the lower end

        held out, w_queue = 0.01, w_rtt = 10 has 0.80 [0.75, 0.85] times TTFT p95 of the weights as they were: the
        gain is larger than the noise

        [routing]
        weights = { w_queue = 0.01, w_rtt = 10.0 }
        ");
        assert!(text.contains("session-affinity"), "the comparison stands in between");
    }
}
