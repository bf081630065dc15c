//! `gorgo simulate`: strategies on a whole fleet in virtual time.

mod objectives;
mod scene;
mod set;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(super) use self::scene::{Otherwise, SceneArgs, check_plans};
pub(super) use self::set::after_help;
use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{Output, json_values, meant_there, stoppable, strategies};
use crate::bench::Board;
use crate::bench::demo::fleet;
use crate::bench::simulate::{self, Contender, Draw, Loads, SimulateConfig, against_live, ensure_both};
use crate::routing::admission::predicting;
use crate::sim::world::News;
use crate::workload::Fleet;
use crate::workload::arrivals::Window;

/// Arguments of `gorgo simulate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub(crate) struct Args {
    /// Strategies to compare, separated by commas; on agents `gorgo` means `gorgo-v1` [default: those of `gorgo demo`]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 1)]
    strategy: Vec<String>,
    /// Play the first strategy once more with routers that know everything of each other at once: the bound of what news can give
    #[arg(long)]
    oracle: bool,
    /// The strategy that others are compared with, draw by draw [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    #[command(flatten)]
    scene: SceneArgs,
    /// Replay only what arrives in this part of the trace, in its own seconds, such as `60..300`; several parts are played one by one
    #[arg(long, value_name = "FROM..TO,…", value_delimiter = ',', num_args = 1, conflicts_with_all = ["rate", "concurrency"])]
    window: Vec<Window>,
    /// Run this many seeds, from --seed on, and report means, confidence intervals and paired ratios
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Play it also in real time, with emulated engines over HTTP as `gorgo demo`, and print simulated figures ÷ live ones
    #[arg(long)]
    against_live: bool,
    /// Where to write the results as JSON; `-` = stdout, which then carries nothing else
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write the results as one HTML page
    #[arg(long, value_name = "FILE", visible_alias = "html")]
    report: Option<PathBuf>,
}

/// Runs the simulation. The first Ctrl-C ends it and reports what was finished (exit code 130); a second one ends at once.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let output = Output::new(args.json.clone(), args.report.clone());
    output.check()?;
    let live = args.against_live;
    let config = args.meant()?;
    let (board, stop) = (Board::default(), CancellationToken::new());
    if live {
        ensure_both(&config).map_err(|error| Failure::usage(anyhow!("`--against-live`: {error}")))?;
        let work = Box::pin(against_live(config, &board, &stop));
        let Some(report) = stoppable(context, &board, &stop, work).await? else { return Ok(Exit::Interrupted) };
        return output.finish(&report, "gorgo simulate", context);
    }
    let work = {
        let (board, stop) = (board.clone(), stop.clone());
        async move {
            let run = tokio::task::spawn_blocking(move || simulate::run(&config, &board, &stop));
            run.await.context("the simulation broke off")?
        }
    };
    let Some(report) = stoppable(context, &board, &stop, work).await? else {
        return Ok(Exit::Interrupted);
    };
    output.finish(&report, "gorgo simulate", context)
}

impl Args {
    /// From what was typed to what is meant; everything that can be wrong is found before anything starts.
    fn meant(self) -> Result<SimulateConfig, Failure> {
        let typed = strategies(&self.strategy, "--strategy")?;
        let fleet = self.scene.real_fleet(&typed)?;
        let names = meant_there(typed, &fleet, "--strategy")?;
        let contenders = self.contenders(&names, &fleet)?;
        let specs = fleet::specs(&fleet).map_err(Failure::usage)?;
        let max_input = self.scene.max_input(&specs);
        let baseline = self.baseline(&contenders)?;
        let source = self.scene.source(max_input)?;
        let trace = source.trace(self.scene.seed);
        let loads = self.scene.loads(&trace, &specs, !self.window.is_empty(), Otherwise::One);
        drop(trace);
        let described = self.described(&fleet, &loads, &names, max_input);
        let seeds: Vec<u64> = (self.scene.seed..self.scene.seed.saturating_add(self.seeds)).collect();
        let draws = Draw::all(&self.window, &seeds);
        let scene = self.scene.scene(fleet, specs, source);
        check_plans(&scene, &loads, &draws)?;
        Ok(SimulateConfig { contenders, baseline, scene, loads, draws, described })
    }

    /// What plays: every strategy, and the first one once more if it is to be compared with perfect knowledge.
    fn contenders(&self, names: &[String], fleet: &Fleet) -> Result<Vec<Contender>, Failure> {
        let (settings, edge) = self.scene.settings(names)?;
        let mut contenders: Vec<Contender> =
            settings.into_iter().map(|routing| Contender::new(routing, edge)).collect();
        if self.oracle {
            if fleet.routers.len() == 1 || edge.news == News::Oracle {
                let why = if fleet.routers.len() == 1 {
                    "a single router has no peers"
                } else {
                    "`news=oracle` holds for all"
                };
                return Err(Failure::usage(anyhow!("`--oracle` has nothing to compare: {why}")));
            }
            contenders.insert(1, contenders[0].omniscient());
        }
        self.admitting(contenders)
    }

    /// Behind every strategy that can tell who will be late the same with routers that refuse those, if that is wanted.
    fn admitting(&self, contenders: Vec<Contender>) -> Result<Vec<Contender>, Failure> {
        let objectives = self.scene.objectives();
        let Some(ttft_ms) = objectives.of.ttft_ms.filter(|_| objectives.admit) else { return Ok(contenders) };
        let both = |plain: Contender| {
            // The oracle is about news alone.
            let news = self.oracle && plain.name != plain.routing.strategy;
            let admitting = plain.admitting(ttft_ms).filter(|_| !news);
            std::iter::once(plain).chain(admitting)
        };
        let before = contenders.len();
        let all: Vec<Contender> = contenders.into_iter().flat_map(both).collect();
        if all.len() == before {
            let known: Vec<&str> = predicting().collect();
            return Err(Failure::usage(anyhow!(
                "`--slo …,admit`: none of the strategies predicts times; those that do: {}",
                known.join(", ")
            )));
        }
        Ok(all)
    }

    fn baseline(&self, contenders: &[Contender]) -> Result<usize, Failure> {
        let Some(wanted) = &self.baseline else { return Ok(0) };
        contenders.iter().position(|contender| contender.name == *wanted).ok_or_else(|| {
            let names: Vec<&str> = contenders.iter().map(|contender| contender.name.as_str()).collect();
            Failure::usage(anyhow!("`--baseline {wanted}` is not among the strategies: {}", names.join(", ")))
        })
    }

    fn described(
        &self,
        fleet: &Fleet,
        loads: &Loads,
        strategies: &[String],
        max_input: u32,
    ) -> BTreeMap<String, Value> {
        let windows: Vec<String> = self.window.iter().map(Window::to_string).collect();
        let own = json_values([
            ("strategies", Some(json!(strategies))),
            ("oracle", self.oracle.then_some(Value::Bool(true))),
            ("windows_s", (!windows.is_empty()).then(|| json!(windows))),
            ("admit", self.scene.objectives().admit.then_some(Value::Bool(true))),
            ("seeds", Some(json!(self.seeds))),
        ]);
        self.scene.described(fleet, loads, max_input).into_iter().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::bench::simulate::{Draw, Loads, Pace, SimulateConfig};
    use crate::cli::args::{Cli, Command};
    use crate::cli::exit::Failure;
    use crate::sim::world::{Edge, News};
    use crate::workload::Arrivals;

    fn meant(options: &[&str]) -> Result<SimulateConfig, Failure> {
        let line = ["gorgo", "simulate"].iter().chain(options);
        match Cli::try_parse_from(line).expect("parses").command {
            Command::Simulate(args) => args.meant(),
            other => panic!("not the simulation: {other:?}"),
        }
    }

    fn error(options: &[&str]) -> String {
        meant(options).unwrap_err().to_string()
    }

    fn names(config: &SimulateConfig) -> Vec<&str> {
        config.contenders.iter().map(|contender| contender.name.as_str()).collect()
    }

    #[test]
    fn what_is_meant_when_nothing_is_said() {
        let config = meant(&[]).unwrap();
        assert_eq!(
            names(&config),
            ["predictive", "gorgo", "prefix-tree", "least-load", "session-affinity", "round-robin"]
        );
        assert_eq!(config.draws, [Draw { seed: 1, window: None }]);
        assert_eq!(config.loads, Loads::Given(vec![Arrivals::Poisson { per_s: 2.0 }]));
        assert_eq!(config.scene.fleet.replicas.len(), 3);
    }

    #[test]
    fn loads_windows_and_seeds_are_lists() {
        let timed = ["--generator", "wild-like"];
        let config = meant(&[&timed[..], &["--time-scale", "2,1", "--window", "0..60,60..", "--seeds", "2"]].concat());
        let config = config.unwrap();
        let replay = |time_scale| Arrivals::Replay { time_scale, window: None };
        assert_eq!(config.loads, Loads::Given(vec![replay(2.0), replay(1.0)]));
        let draws: Vec<_> = config.draws.iter().map(|draw| (draw.window.unwrap().to_string(), draw.seed)).collect();
        let wanted = [("0..60", 1), ("0..60", 2), ("60..", 1), ("60..", 2)];
        assert_eq!(draws, wanted.map(|(window, seed)| (window.to_owned(), seed)));
        let of = |options: &[&str]| meant(options).unwrap().loads;
        let shares = |pace| Loads::OfCapacity { fractions: vec![0.5, 0.9], pace };
        assert_eq!(of(&[&timed[..], &["--load", "0.5,0.9"]].concat()), shares(Pace::TimeScale));
        assert_eq!(of(&["--load", "0.5,0.9"]), shares(Pace::Rate));
        let sessions = |sessions| Arrivals::Concurrent { sessions };
        assert_eq!(of(&["--concurrency", "4,8"]), Loads::Given(vec![sessions(4), sessions(8)]));
    }

    #[test]
    fn settings_reach_the_strategies_that_know_them_and_the_edge() {
        let options = ["--strategy", "gorgo,gorgo-v3,random", "--set", "w_rtt=2", "--set", "gorgo-v3.w_queue=0.1"];
        let config = meant(&[&options[..], &["--set", "news=oracle", "--set", "max_concurrent=7"]].concat()).unwrap();
        let parameters: Vec<_> =
            config.contenders.iter().map(|contender| contender.routing.parameters.clone()).collect();
        assert_eq!(
            parameters,
            [vec![("w_rtt".to_owned(), 2.0)], vec![("w_rtt".to_owned(), 2.0), ("w_queue".to_owned(), 0.1)], vec![]]
        );
        for contender in &config.contenders {
            assert_eq!((contender.edge.news, contender.routing.max_concurrent), (News::Oracle, Some(7)));
        }
        let config = meant(&[&options[..4], &["--set", "random.heeds_others=off"]].concat()).unwrap();
        let heed: Vec<bool> = config.contenders.iter().map(|contender| contender.routing.heeds_others).collect();
        assert_eq!(heed, [true, true, false]);
    }

    /// Six regions with an agent in each.
    fn agents(options: &[&'static str]) -> Vec<&'static str> {
        let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fleets/six-regions.toml");
        [&["--fleet", fleet, "--generator", "wild-like"], options].concat()
    }

    #[test]
    fn among_agents_gorgo_is_the_rule_for_agents_and_the_plain_score_has_its_own_name() {
        let config = meant(&agents(&[])).unwrap();
        assert_eq!(
            names(&config),
            ["predictive", "gorgo-v1", "prefix-tree", "least-load", "session-affinity", "round-robin"]
        );
        let config = meant(&agents(&["--strategy", "gorgo,gorgo-score"])).unwrap();
        assert_eq!(names(&config), ["gorgo-v1", "gorgo-score"]);
        assert!(error(&agents(&["--strategy", "gorgo,gorgo-v1"])).contains("names `gorgo-v1` twice: `gorgo` means it"));
        assert_eq!(names(&meant(&["--strategy", "gorgo,gorgo-v1"]).unwrap()), ["gorgo", "gorgo-v1"], "one router");
    }

    #[test]
    fn the_oracle_is_the_first_strategy_with_other_news_and_nothing_else() {
        let config = meant(&agents(&["--strategy", "gorgo-score,random", "--oracle", "--set", "w_rtt=2"])).unwrap();
        assert_eq!(names(&config), ["gorgo-score", "gorgo-score (oracle)", "random"]);
        let [told, oracle, random] = &config.contenders[..] else { panic!("{:?}", config.contenders) };
        assert_eq!((told.edge.news, oracle.edge.news, random.edge.news), (News::Told, News::Oracle, News::Told));
        assert_eq!(Edge { news: News::Told, ..oracle.edge }, told.edge);
        assert_eq!(oracle.routing.parameters, told.routing.parameters);
        assert!(error(&["--oracle"]).contains("a single router has no peers"));
        assert!(error(&agents(&["--oracle", "--set", "news=oracle"])).contains("holds for all"));
    }

    #[test]
    fn who_predicts_plays_once_more_with_routers_that_refuse() {
        let options = ["--strategy", "predictive,random,gorgo", "--slo", "ttft=9000,itl=80,admit"];
        let config = meant(&options).unwrap();
        assert_eq!(names(&config), ["predictive", "predictive (admit)", "random", "gorgo", "gorgo (admit)"]);
        let limits: Vec<_> = config.contenders.iter().map(|contender| contender.routing.slo.default.ttft_ms).collect();
        assert_eq!(limits, [None, Some(9000.0), None, None, Some(9000.0)]);
        let objectives = config.scene.slo.unwrap();
        assert_eq!((objectives.ttft_ms, objectives.itl_ms), (Some(9000.0), Some(80.0)));
        assert_eq!(names(&meant(&["--strategy", "predictive", "--slo", "ttft=9000"]).unwrap()), ["predictive"]);
        assert!(error(&["--strategy", "random", "--slo", "ttft=9,admit"]).contains("those that do: predictive, gorgo"));
        for bad in ["admit", "itl=50,admit", "ttft=0,admit"] {
            assert!(super::objectives::objectives(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_are_told_before_anything_runs() {
        assert!(error(&["--set", "w_rtt"]).contains("wanted KEY=VALUE"));
        assert!(error(&["--set", "w_rtt=x"]).contains("wanted a number"));
        assert!(error(&["--set", "w_rt=1"]).contains("did you mean `w_rtt`?"));
        assert!(error(&["--set", "random.w_rtt=1"]).contains("`random` is not among the strategies"));
        assert!(error(&["--set", "w_rtt=-1"]).contains("wanted 0 to"));
        assert!(error(&["--set", "usage=2"]).contains("share of the answers"));
        assert!(error(&["--engine", "chunk=0"]).contains("`--engine chunk=0`: chunk: found 0"));
        assert!(error(&["--engine", "order=random"]).contains("one of arrival, longest-prefix"));
        assert!(error(&["--engine", "a b\n=c"]).contains("`--engine"));
        let engines = ["--engine", "scheduler=mixed", "--engine", "chunk=2048"];
        assert!(meant(&engines).unwrap().scene.specs.iter().all(|spec| spec.chunk == 2048));
        assert!(error(&["--fault", "down:nobody@1..2"]).contains("no replica `nobody`"));
        assert!(error(&["--window", "0..10"]).contains("no timestamps"));
        assert!(error(&["--open-loop"]).contains("no timestamps"));
        assert!(error(&["--baseline", "random"]).contains("not among the strategies: predictive, "));
        assert!(error(&["--seconds", "10", "--warmup", "10"]).contains("leaves nothing"));
    }
}
