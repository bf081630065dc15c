//! The check: the weights found, the weights as they were and a baseline, in windows and with seeds that no choice has seen.

use std::collections::BTreeMap;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::TuneConfig;
use super::arena::HELD_OUT;
use super::figures::{Cell, cell, each};
use super::space::Point;
use crate::bench::Board;
use crate::bench::simulate::{self, Contender, Draw, Finished, Loads, SimulateConfig};
use crate::report::compare::comparisons;
use crate::report::schema::{Capacity, Report};
use crate::report::tuning::{Gain, HeldOut, Tuning};
use crate::routing::policy::{Parameters, find};
use crate::workload::Arrivals;

/// Plays the check and writes what it says into the result.
pub(super) fn check(
    config: &TuneConfig,
    winner: &Point,
    (loads, capacity): (&[Arrivals], Option<Capacity>),
    tuning: &mut Tuning,
    (board, stop): (&Board, &CancellationToken),
) -> Result<()> {
    let found = *winner != config.space.start();
    let tuned = config.candidate(winner);
    let tuned = Contender { name: format!("{} (tuned)", tuned.name), ..tuned };
    let contenders: Vec<Contender> = [Some(config.contender.clone()), found.then_some(tuned), config.baseline.clone()]
        .into_iter()
        .flatten()
        .collect();
    let first = config.seed.wrapping_add(HELD_OUT);
    let seeds: Vec<u64> = (0..config.seeds).map(|seed| first.wrapping_add(seed)).collect();
    let played = SimulateConfig {
        contenders,
        baseline: 0,
        scene: config.scene.clone(),
        loads: Loads::Given(loads.to_vec()),
        draws: Draw::all(&config.held_out, &seeds),
        described: config.described.clone(),
    };
    let finished = simulate::play(&played, board, stop)?;
    if finished.report.interrupted {
        tuning.search.interrupted = true;
        return Ok(());
    }
    let mut held_out = judged(config, found, finished);
    held_out.report.capacity = capacity;
    tuning.toml =
        lines(config, if worth(held_out.gain) { winner.clone() } else { config.space.start() }, held_out.gain)?;
    tuning.held_out = Some(held_out);
    Ok(())
}

/// Whether the weights found are recommended.
fn worth(gain: Gain) -> bool {
    gain == Gain::Real
}

fn judged(config: &TuneConfig, found: bool, finished: Finished) -> HeldOut {
    let Finished { report, draws, strict } = finished;
    let cells = |contender: usize| -> Option<Vec<Cell>> {
        let count = strict.first()?.get(contender)?.len();
        (0..count)
            .map(|draw| {
                let loads: Option<Vec<_>> = strict.iter().map(|load| load[contender][draw].as_ref()).collect();
                cell(loads?.into_iter())
            })
            .collect()
    };
    let pair = if found { cells(1).zip(cells(0)) } else { None };
    let objective = pair.as_ref().map(|(tuned, before)| config.objective.compared(tuned, before));
    let ratios =
        pair.map(|(tuned, before)| each(&tuned, &before).map(|(key, ratio)| (key.to_owned(), ratio)).collect());
    let gain = match (&objective, found) {
        (Some(ratio), _) => Gain::of(ratio),
        (None, true) => Gain::Noise,
        (None, false) => Gain::Nothing,
    };
    let report = beside_baseline(config, found, report, &draws);
    HeldOut { gain, objective, ratios: ratios.unwrap_or_else(BTreeMap::new), report }
}

/// The report with what the tuned weights have against the baseline, too.
fn beside_baseline(
    config: &TuneConfig,
    found: bool,
    mut report: Report,
    draws: &[Vec<crate::report::compare::Draws>],
) -> Report {
    let Some(baseline) = &config.baseline else { return report };
    let all = comparisons(draws, if found { 2 } else { 1 });
    let own = all.into_iter().filter(|one| one.to == baseline.name && one.strategy != baseline.name);
    // After those with the weights as they were, before those with the bound.
    let at = report.comparisons.iter().position(|one| one.to != config.contender.name);
    let at = at.unwrap_or(report.comparisons.len());
    report.comparisons.splice(at..at, own);
    report
}

/// Lines for gorgo.toml: the strategy, and every parameter that is not the default.
fn lines(config: &TuneConfig, point: Point, gain: Gain) -> Result<String> {
    let candidate = config.candidate(&point);
    let entry = find(&candidate.routing.strategy)?;
    let given = Parameters::resolve(entry.name, entry.parameters, &candidate.routing.parameters)?;
    let searched = |key: &str| config.space.axes.iter().any(|axis| axis.key == key);
    let changed = given.iter().filter(|(parameter, value)| *value != parameter.default || searched(parameter.key));
    let weights: Vec<String> = changed.map(|(parameter, value)| format!("{} = {value:?}", parameter.key)).collect();
    let note = if worth(gain) { "" } else { "# as it was: nothing was better by more than the noise\n" };
    Ok(format!("{note}[cluster]\nstrategy = \"{}\"\n\n[routing]\nweights = {{ {} }}", entry.name, weights.join(", ")))
}
