//! `gorgo tune`: weights of a strategy searched in simulation, and checked where nothing was chosen.
//!
//! A search looks only at its own windows and seeds. All candidates of a measurement play the same draws (common random numbers), so
//! that ratios are of pairs and what a draw does to everybody cancels. The objective is a geometric mean over figures, loads and draws:
//! one saturated load cannot decide alone, and neither can one figure. What wins is played once more, beside the weights as they were,
//! in windows and with seeds that no choice has seen; only that says whether the gain is larger than the noise.

mod arena;
mod check;
pub mod evolution;
pub mod figures;
pub mod grid;
pub mod search;
pub mod space;
pub mod windows;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use tokio_util::sync::CancellationToken;

use self::arena::Simulated;
use self::evolution::{Rules, evolution};
use self::figures::{Objective, each};
use self::search::{Arena as _, Ended, Found, Kind};
use self::space::{Point, Space};
use super::Board;
use super::load::load;
use super::simulate::{Contender, Draw, Loads, Scene, Watch, capacity, ensure_reachable};
use crate::report::schema::Capacity;
use crate::report::tuning::{self, Search, Step, Trial, Tuning, Weights};
use crate::workload::Arrivals;
use crate::workload::arrivals::Window;

/// Runs of a search by steps when no budget is given: some thirty generations under three loads.
pub const BUDGET: u64 = 2000;

/// What to search.
#[derive(Clone, Debug)]
pub struct TuneConfig {
    /// The strategy with its weights as they are.
    pub contender: Contender,
    /// Another strategy to compare with in the check.
    pub baseline: Option<Contender>,
    /// What is simulated.
    pub scene: Scene,
    /// The loads.
    pub loads: Loads,
    /// Parts of the trace to choose in; none = all of it.
    pub windows: Vec<Window>,
    /// Parts of the trace to check in; none = all of it, with other seeds.
    pub held_out: Vec<Window>,
    /// First seed.
    pub seed: u64,
    /// Seeds per measurement, at least 2.
    pub seeds: u64,
    /// The weights.
    pub space: Space,
    /// How to search them.
    pub kind: Kind,
    /// What to make small.
    pub objective: Objective,
    /// Most simulated runs of the search; `None` = all of a grid, [`BUDGET`] of a search by steps.
    pub budget: Option<u64>,
    /// Options as given, for the result.
    pub described: BTreeMap<String, serde_json::Value>,
}

impl TuneConfig {
    /// The strategy at a point.
    fn candidate(&self, point: &Point) -> Contender {
        let mut candidate = self.contender.clone();
        candidate.routing.parameters.extend(self.space.named(point));
        candidate
    }

    /// Runs that the search takes at most.
    ///
    /// # Errors
    /// A budget that does not suffice for a grid, or for a generation.
    pub fn most_runs(&self) -> Result<u64> {
        let loads = match &self.loads {
            Loads::Given(loads) => loads.len(),
            Loads::OfCapacity { fractions, .. } => fractions.len(),
        };
        let runs_per_seed = (loads * self.windows.len().max(1)) as u64;
        if self.kind == Kind::Evolution {
            let (budget, one) = (self.budget.unwrap_or(BUDGET), self.rules().generation(runs_per_seed));
            ensure!(budget >= one, "{budget} runs are less than a generation takes: {one}");
            return Ok(budget);
        }
        let points = self.space.points().len();
        let runs = grid::runs(points, self.seeds, runs_per_seed, self.kind == Kind::Halving);
        if self.budget.is_some_and(|budget| runs > budget) {
            bail!("{points} points take {runs} runs; allow as many, or search fewer values, loads or seeds");
        }
        Ok(runs)
    }

    fn rules(&self) -> Rules {
        Rules { seeds: self.seeds, budget: self.budget.unwrap_or(BUDGET), seed: self.seed }
    }
}

/// Searches and checks. A fired `stop` ends it early; the result then says so and holds what was measured.
///
/// # Errors
/// What cannot be simulated, and a budget that does not suffice.
pub fn tune(config: &TuneConfig, board: &Board, stop: &CancellationToken) -> Result<Tuning> {
    ensure_reachable(&config.scene.fleet)?;
    let most = config.most_runs()?;
    let Some((loads, capacity)) = loads(config, board, stop)? else {
        return Ok(told(config, &Found::nothing(config.space.start()), &[], &BTreeSet::new()));
    };
    let mut arena = Simulated {
        config,
        loads: &loads,
        board,
        stop,
        most: if config.kind == Kind::Evolution { format!("at most {most}") } else { most.to_string() },
        done: AtomicU64::new(0),
        saturated: BTreeSet::new(),
    };
    let points = config.space.points();
    let found = match config.kind {
        Kind::Grid => grid::grid(&mut arena, &config.objective, &points, config.seeds),
        Kind::Halving => grid::halving(&mut arena, &config.objective, &points, config.seeds),
        Kind::Evolution => evolution(&mut arena, &config.objective, &config.space, config.rules()),
    }?;
    debug_assert!(found.runs <= most, "{} runs, {} per seed", found.runs, arena.runs_per_seed());
    let mut tuning = told(config, &found, &loads, &arena.saturated);
    if found.ended != Ended::Interrupted {
        check::check(config, &found.winner, (&loads, capacity), &mut tuning, (board, stop))?;
    }
    Ok(tuning)
}

/// The loads, and the capacity that they are shares of, if it was searched. `None` after a stop.
fn loads(
    config: &TuneConfig,
    board: &Board,
    stop: &CancellationToken,
) -> Result<Option<(Vec<Arrivals>, Option<Capacity>)>> {
    let (fractions, pace) = match &config.loads {
        Loads::Given(loads) => return Ok(Some((loads.clone(), None))),
        Loads::OfCapacity { fractions, pace } => (fractions, *pace),
    };
    let tried = AtomicUsize::new(0);
    let say = || board.phase(format!("searching the capacity, {} runs done", tried.fetch_add(1, Ordering::Relaxed)));
    say();
    let contenders: Vec<Contender> =
        [Some(&config.contender), config.baseline.as_ref()].into_iter().flatten().cloned().collect();
    let draw = Draw::all(&config.windows, &[config.seed])[0];
    let watch = Watch { stop, partial: false, tallies: &[], finished: &say };
    let found = capacity(&config.scene, &contenders, (pace, draw), &watch)?;
    let at = |speed: f64| fractions.iter().map(|fraction| pace.at(speed * fraction)).collect();
    Ok(found.map(|(speed, capacity)| (at(speed), Some(capacity))))
}

/// The search as its document tells it, without the check.
fn told(config: &TuneConfig, found: &Found, loads: &[Arrivals], saturated: &BTreeSet<String>) -> Tuning {
    let axes = config.space.axes.iter();
    let step = |step: &search::Step| Step {
        generation: step.generation,
        weights: weights(config, &step.point),
        objective: step.ratio,
    };
    Tuning {
        schema: tuning::SCHEMA.to_owned(),
        gorgo: env!("CARGO_PKG_VERSION").to_owned(),
        strategy: config.contender.routing.strategy.clone(),
        config: config.described.clone(),
        objective: config.objective.keys().map(str::to_owned).collect(),
        axes: axes
            .map(|axis| tuning::Axis { key: axis.key.clone(), values: axis.values.clone(), start: axis.start })
            .collect(),
        search: Search {
            kind: config.kind.to_string(),
            ended: found.ended.to_string(),
            interrupted: found.ended == Ended::Interrupted,
            runs: found.runs,
            loads: loads.iter().map(|arrivals| load(*arrivals)).collect(),
            windows_s: config.windows.iter().map(Window::to_string).collect(),
        },
        trials: found.trials.iter().map(|trial| trial_of(config, trial)).collect(),
        steps: found.steps.iter().map(step).collect(),
        weights: weights(config, &found.winner),
        remarks: remarks(config, found, loads, saturated),
        ..Tuning::default()
    }
}

fn weights(config: &TuneConfig, point: &Point) -> Weights {
    config.space.named(point).collect()
}

fn trial_of(config: &TuneConfig, trial: &search::Trial) -> Trial {
    Trial {
        weights: weights(config, &trial.point),
        draws: trial.cells.len() as u64,
        objective: config.objective.compared(&trial.cells, &trial.to),
        ratios: each(&trial.cells, &trial.to).map(|(key, ratio)| (key.to_owned(), ratio)).collect(),
    }
}

/// What to be careful about.
fn remarks(config: &TuneConfig, found: &Found, loads: &[Arrivals], saturated: &BTreeSet<String>) -> Vec<String> {
    let ends = config.space.ends(&found.winner).filter(|_| found.winner != config.space.start());
    let mut remarks: Vec<String> = ends
        .map(|(key, upper)| {
            let end = if upper { "upper" } else { "lower" };
            format!("`{key}` ended at the {end} end of what was searched: better values may lie beyond, or the objective does not see what they cost")
        })
        .collect();
    if loads.len() == 1 {
        remarks.push("chosen under one load: weights that suit one load can fail under another".to_owned());
    }
    if !saturated.is_empty() {
        let loads = saturated.iter().cloned().collect::<Vec<_>>().join(", ");
        remarks.push(format!(
            "requests were lost under {loads} with the weights as they were: near saturation figures are chaotic, so choose under lower loads"
        ));
    }
    remarks
}
