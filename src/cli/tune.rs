//! `gorgo tune`: weights of a strategy searched in simulation.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{Output, json_values, meant_there, stoppable, strategies};
use super::simulate::{Otherwise, SceneArgs, after_help, check_plans};
use crate::bench::Board;
use crate::bench::demo::fleet;
use crate::bench::simulate::{Contender, Draw, Source};
use crate::bench::tune::figures::{Figure, Objective};
use crate::bench::tune::search::Kind;
use crate::bench::tune::space::{Asked, Space};
use crate::bench::tune::windows::{overlap, thirds};
use crate::bench::tune::{TuneConfig, tune};
use crate::report::tuning::{Gain, Tuning, render};
use crate::routing::policy::{self, Parameters};
use crate::workload::Trace;
use crate::workload::arrivals::Window;

/// Loads when none are given: from half to nine tenths of the capacity, so that no single saturated one decides.
const LOADS: &[f64] = &[0.5, 0.7, 0.9];
/// Most runs that a budget may allow; seeds beyond are for the check.
const MOST_RUNS: u64 = 1_000_000;

/// Arguments of `gorgo tune`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub(crate) struct Args {
    /// The strategy whose weights are searched; on agents `gorgo` means `gorgo-v1`
    #[arg(long, value_name = "NAME", default_value = "gorgo")]
    strategy: String,
    /// What to search: a weight and its values, `w_queue=0.01,0.1,1`, or its range, `w_queue=0.01..1` (repeatable); or `paper`, the 42
    /// combinations of w_rtt (0.05 to 25 tokens per ms) and w_queue (0.01 to 1) around the weights that the paper's authors published
    /// [default: paper]
    #[arg(long, value_name = "KEY=VALUES")]
    grid: Vec<Asked>,
    /// How to search: grid (all combinations), halving (all on a third of the seeds, the best third on all) or evolution (small steps,
    /// each measured again on fresh seeds)
    #[arg(long, value_name = "HOW", default_value = "grid")]
    search: Kind,
    /// Figures whose geometric mean is to be small [default: ttft_ms.p50,ttft_ms.p95,ttft_ms.p99,e2e_ms.p95]
    #[arg(long, value_name = "FIGURE,…", value_delimiter = ',', num_args = 1)]
    objective: Vec<Figure>,
    /// Another strategy that the check compares with
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Choose in these parts of the trace, in its own seconds, such as `0..300` [default: the first third of a trace with a clock]
    #[arg(
        long,
        value_name = "FROM..TO,…",
        value_delimiter = ',',
        num_args = 1,
        requires = "hold_out",
        conflicts_with_all = ["rate", "concurrency"]
    )]
    tune_window: Vec<Window>,
    /// Check in these parts of the trace; the check's seeds are other ones, too [default: the other two thirds]
    #[arg(long, value_name = "FROM..TO,…", value_delimiter = ',', num_args = 1, requires = "tune_window")]
    hold_out: Vec<Window>,
    /// Seeds per measurement, from --seed on; every candidate plays the same
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=1000))]
    seeds: u64,
    /// Most simulated runs of the search [default: all of a grid, 2000 of an evolution]
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(u64).range(1..=MOST_RUNS))]
    budget: Option<u64>,
    /// End with exit code 1 unless the check shows a gain that is larger than the noise
    #[arg(long)]
    require_gain: bool,
    #[command(flatten)]
    scene: SceneArgs,
    /// Where to write the results as JSON; `-` = stdout, which then carries nothing else
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write the check as one HTML page
    #[arg(long, value_name = "FILE", visible_alias = "html")]
    report: Option<PathBuf>,
}

/// Searches and checks. The first Ctrl-C ends it and prints what was measured (exit code 130); a second one ends at once.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let output = Output::new(args.json.clone(), args.report.clone());
    output.check()?;
    let require_gain = args.require_gain;
    let config = args.meant()?;
    let (board, stop) = (Board::default(), CancellationToken::new());
    let work = {
        let (board, stop) = (board.clone(), stop.clone());
        async move {
            let run = tokio::task::spawn_blocking(move || tune(&config, &board, &stop));
            run.await.context("the search broke off")?
        }
    };
    let Some(tuning) = stoppable(context, &board, &stop, work).await? else {
        return Ok(Exit::Interrupted);
    };
    finish(&tuning, &output, require_gain, context)
}

fn finish(tuning: &Tuning, output: &Output, require_gain: bool, context: &Context) -> Outcome {
    let text = render(tuning, context.printer.stdout_width(), output.page());
    let page = if output.page().is_some() { tuning.page("gorgo tune")? } else { None };
    let failed = output.publish((text, tuning.to_json()?, page), context)?;
    let real = tuning.held_out.as_ref().is_some_and(|held_out| held_out.gain == Gain::Real);
    Ok(match () {
        () if tuning.search.interrupted => Exit::Interrupted,
        () if require_gain && !real => Exit::Failed,
        () if failed => Exit::Partly,
        () => Exit::Done,
    })
}

impl Args {
    /// From what was typed to what is meant; everything that can be wrong is found before anything starts.
    fn meant(self) -> Result<TuneConfig, Failure> {
        if self.scene.objectives().admit {
            return Err(Failure::usage(anyhow!("`--slo …,admit`: `tune` refuses nobody; leave `admit` out")));
        }
        let names = self.names()?;
        let fleet = self.scene.real_fleet(&names)?;
        let names = meant_there(names, &fleet, "--strategy")?;
        let (settings, edge) = self.scene.settings(&names)?;
        let mut contenders = settings.into_iter().map(|routing| Contender::new(routing, edge));
        let contender = contenders.next().context("one strategy is always named")?;
        let space = self.space(&contender)?;
        let specs = fleet::specs(&fleet).map_err(Failure::usage)?;
        let max_input = self.scene.max_input(&specs);
        let source = self.scene.source(max_input)?;
        let trace = source.trace(self.scene.seed);
        let (windows, held_out) = self.windows(&source, &trace)?;
        let loads = self.scene.loads(&trace, &specs, !windows.is_empty(), Otherwise::Shares(LOADS));
        drop(trace);
        let objective = self.objective()?;
        let list = |windows: &[Window]| {
            (!windows.is_empty()).then(|| json!(windows.iter().map(Window::to_string).collect::<Vec<_>>()))
        };
        let own = json_values([
            ("strategies", Some(json!(names))),
            ("tune_windows_s", list(&windows)),
            ("windows_s", list(&held_out)),
            ("seeds", Some(json!(self.seeds))),
            ("budget", self.budget.map(|budget| json!(budget))),
        ]);
        let described = self.scene.described(&fleet, &loads, max_input).into_iter().chain(own).collect();
        let config = TuneConfig {
            contender,
            baseline: contenders.next(),
            loads,
            windows,
            held_out,
            seed: self.scene.seed,
            seeds: self.seeds,
            space,
            kind: self.search,
            objective,
            budget: self.budget,
            described,
            scene: self.scene.scene(fleet, specs, source),
        };
        checked(config)
    }

    /// The strategy, and the baseline if there is one.
    fn names(&self) -> Result<Vec<String>, Failure> {
        if self.baseline.as_ref() == Some(&self.strategy) {
            let error =
                anyhow!("`--baseline {}` is the strategy itself; its weights as they are play anyway", self.strategy);
            return Err(Failure::usage(error));
        }
        let given: Vec<String> = [Some(self.strategy.clone()), self.baseline.clone()].into_iter().flatten().collect();
        strategies(&given, "--strategy")
    }

    fn space(&self, contender: &Contender) -> Result<Space, Failure> {
        let entry = policy::find(&contender.routing.strategy).map_err(Failure::usage)?;
        let present = Parameters::resolve(entry.name, entry.parameters, &contender.routing.parameters);
        let present = present.map_err(Failure::usage)?;
        let space = Space::new(entry, &present, &self.grid);
        let space = space.map_err(|error| Failure::usage(anyhow!("`--grid`: {error}")))?;
        if self.search == Kind::Evolution
            && let Some(axis) = space.axes.iter().find(|axis| axis.low() <= 0.0 || axis.values.len() < 2)
        {
            return Err(Failure::usage(anyhow!(
                "`--grid`: an evolution steps through a range above 0; give `{}=LOW..HIGH`",
                axis.key
            )));
        }
        Ok(space)
    }

    fn objective(&self) -> Result<Objective, Failure> {
        if self.objective.is_empty() {
            return Ok(Objective::default());
        }
        Objective::new(self.objective.clone()).map_err(|error| Failure::usage(anyhow!("`--objective`: {error}")))
    }

    /// Where to choose and where to check.
    fn windows(&self, source: &Source, trace: &Trace) -> Result<(Vec<Window>, Vec<Window>), Failure> {
        if let Some((one, other)) = overlap(&self.tune_window, &self.hold_out) {
            return Err(Failure::usage(anyhow!(
                "`--tune-window {one}` and `--hold-out {other}` overlap: what chose the weights cannot check them"
            )));
        }
        let replayed = self.scene.rate.is_empty() && self.scene.concurrency.is_empty();
        // A generator draws other requests for the check's seeds; a trace has only its own.
        if self.tune_window.is_empty() && replayed && matches!(source, Source::Trace(_)) {
            let found = thirds(trace).map(|(choose, check)| (vec![choose], check.to_vec()));
            return Ok(found.unwrap_or_default());
        }
        Ok((self.tune_window.clone(), self.hold_out.clone()))
    }
}

/// What the trace or the budget does not allow is told before anything runs.
fn checked(config: TuneConfig) -> Result<TuneConfig, Failure> {
    let draws: Vec<Draw> = [&config.windows, &config.held_out]
        .into_iter()
        .flat_map(|windows| Draw::all(windows, &[config.seed]))
        .collect();
    check_plans(&config.scene, &config.loads, &draws)?;
    config.most_runs().map_err(|error| Failure::usage(anyhow!("`--budget`: {error}")))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::bench::simulate::{Loads, Pace};
    use crate::bench::tune::TuneConfig;
    use crate::cli::args::{Cli, Command};
    use crate::workload::arrivals::Window;

    fn meant(options: &[&str]) -> TuneConfig {
        let line = ["gorgo", "tune"].iter().chain(options);
        match Cli::try_parse_from(line).expect("parses").command {
            Command::Tune(args) => args.meant().unwrap(),
            other => panic!("not the search: {other:?}"),
        }
    }

    fn windows(config: &TuneConfig) -> [Vec<String>; 2] {
        [&config.windows, &config.held_out].map(|windows| windows.iter().map(Window::to_string).collect())
    }

    #[test]
    fn without_a_word_three_loads_choose_among_the_paper_s_weights() {
        let config = meant(&[]);
        assert_eq!(config.loads, Loads::OfCapacity { fractions: vec![0.5, 0.7, 0.9], pace: Pace::Rate });
        assert_eq!((config.space.points().len(), config.seeds, config.seed), (43, 3, 1));
        assert_eq!((config.contender.name.as_str(), config.most_runs().unwrap()), ("gorgo", 43 * 9));
        assert_eq!(windows(&config), [Vec::<String>::new(), Vec::new()], "a trace without a clock has no windows");
    }

    #[test]
    fn a_trace_with_a_clock_chooses_in_one_part_and_checks_in_others() {
        let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
        let row = |s: u32| {
            format!("{{\"timestamp\":{},\"input_length\":600,\"output_length\":1,\"hash_ids\":[1,{s}]}}\n", s * 1000)
        };
        std::fs::write(file.path(), (2..=92).map(row).collect::<String>()).unwrap();
        let path = file.path().to_str().unwrap();
        let trace = ["--trace", path, "--time-scale", "2"];
        let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(windows(&meant(&trace)), [text(&["0..30"]), text(&["30..60", "60.."])]);
        let given = meant(&[&trace[..], &["--tune-window", "0..20", "--hold-out", "20..40,50.."]].concat());
        assert_eq!(windows(&given), [text(&["0..20"]), text(&["20..40", "50.."])]);
        let poisson = meant(&["--trace", path, "--rate", "1,2"]);
        assert_eq!(windows(&poisson), [text(&[]), text(&[])], "by rate there is no clock to divide");
        let generated = meant(&["--generator", "wild-like", "--time-scale", "2"]);
        assert_eq!(windows(&generated), [text(&[]), text(&[])], "other seeds are other requests");
    }

    #[test]
    fn settings_are_the_start_of_the_search_and_hold_for_the_baseline_by_name() {
        let options = ["--set", "gorgo.w_queue=0.3", "--baseline", "llm-d", "--set", "llm-d.w_queue=4"];
        let config = meant(&options);
        assert_eq!(config.space.start(), [1.0, 0.3]);
        assert_eq!(config.contender.routing.parameters, [("w_queue".to_owned(), 0.3)]);
        assert_eq!(config.baseline.unwrap().routing.parameters, [("w_queue".to_owned(), 4.0)]);
    }
}
