//! `gorgo simulate`: strategies on a whole fleet in virtual time.

mod set;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{
    Output, TraceArgs, describe_fleet, json_values, meant_there, positive, read_fleet, seconds, slo, stoppable,
    strategies,
};
use crate::bench::demo::{fleet, pace};
use crate::bench::simulate::{
    self, Contender, Draw, Loads, Pace, Scene, SimulateConfig, Source, against_live, ensure_both, ensure_reachable,
};
use crate::bench::{Board, profile};
use crate::report::Slo;
use crate::routing::{Router, Settings};
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::sim::world::{Edge, News};
use crate::workload::arrivals::Window;
use crate::workload::fleet::Entry;
use crate::workload::{Arrivals, Fleet, Generator, PlanOptions, ReadOptions, Trace};

/// Session starts per second when nothing is said of a trace without a clock: as in `gorgo demo`.
const DEFAULT_RATE: f64 = 2.0;
/// Objectives when none are given: those of the paper's authors (TTFT under 2 s, 50 ms between tokens).
const DEFAULT_SLO: Slo = Slo { ttft_ms: Some(2000.0), itl_ms: Some(50.0), e2e_ms: None };

/// Arguments of `gorgo simulate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = set::after_help())]
#[command(group = clap::ArgGroup::new("loads").args(["rate", "time_scale", "concurrency", "load"]))]
pub(crate) struct Args {
    /// Fleet file (engines, routers, clients, network) or a built-in fleet (listed by --help) [default: the fleet of `gorgo demo`]
    #[arg(long, value_name = "FILE|NAME")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    trace: TraceArgs,
    /// Draw the requests instead of reading them: art-like (long conversations that grow), wild-like (short single prompts)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["trace", "block_size"])]
    generator: Option<Generator>,
    /// How clients find their router: rtt (the shortest round trip), geo (the nearest on the globe) or first (the first one for all)
    /// [default: `entry` of the fleet file, else rtt]
    #[arg(long, value_name = "HOW")]
    entry: Option<Entry>,
    /// Strategies to compare, separated by commas; on agents `gorgo` means `gorgo-v1` [default: those of `gorgo demo`]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 1)]
    strategy: Vec<String>,
    /// Play the first strategy once more with routers that know everything of each other at once: the bound of what news can give
    #[arg(long)]
    oracle: bool,
    /// The strategy that others are compared with, draw by draw [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Change a strategy's parameter or a setting of the simulation (listed by --help); `NAME.KEY=VALUE` is for one strategy
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Session starts per second, Poisson; several make a sweep [default: 2 for traces without a clock, else see --time-scale]
    #[arg(long, value_name = "PER_SECOND,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    rate: Vec<f64>,
    /// Replay the trace's own times, stretched by this factor; 2 is half as fast [default: as much as the fleet needs to keep up]
    #[arg(long, value_name = "X,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    time_scale: Vec<f64>,
    /// A fixed number of sessions at once, each followed by the next, instead of starts by the clock
    #[arg(long, value_name = "N,…", value_parser = clap::value_parser!(u32).range(1..=65_536), value_delimiter = ',', num_args = 1)]
    concurrency: Vec<u32>,
    /// Loads as shares of the capacity, such as `0.5,0.7,0.9`: the load at which the best of the strategies just keeps up is searched first
    #[arg(long, value_name = "SHARE,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    load: Vec<f64>,
    /// Replay only what arrives in this part of the trace, in its own seconds, such as `60..300`; several parts are played one by one
    #[arg(long, value_name = "FROM..TO,…", value_delimiter = ',', num_args = 1, conflicts_with_all = ["rate", "concurrency"])]
    window: Vec<Window>,
    /// Send every request at its time in the trace, however late the replies before it in its session are
    #[arg(long, conflicts_with_all = ["rate", "concurrency"])]
    open_loop: bool,
    /// Sessions start for this long in virtual time; then the run drains [default: each session of the trace once]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    seconds: Option<f64>,
    /// Sessions that start in the first seconds do not count [default: a fifth of the starts, at most 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warmup: Option<f64>,
    /// Longest virtual time for replies after the last start
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0, value_parser = seconds)]
    drain: f64,
    /// Cut outputs to this length
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_output: Option<u32>,
    /// Cut pauses inside sessions to this length
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_think: Option<f64>,
    /// Move the clients' shares on by so many regions from the first start to the last, as a day does
    #[arg(long, value_name = "REGIONS", value_parser = positive)]
    drift: Option<f64>,
    /// What goes wrong, such as `down:east@60..120`, `slow:east@60..300x3` or `cut:us-east-1@60..90` (kinds are listed by --help)
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Fault>,
    /// What the engines really are, whatever the fleet says: `chunk`, `max_running`, `kv_tokens`, `block`, `scheduler` or `order` of all
    #[arg(long, value_name = "KEY=VALUE")]
    engine: Vec<String>,
    /// Objectives for goodput in ms [default: ttft=2000,itl=50]
    #[arg(long, value_name = "NAME=MS,…", value_parser = slo)]
    slo: Option<Slo>,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
        let fleet = self.real_fleet(&typed)?;
        let names = meant_there(typed, &fleet, "--strategy")?;
        let contenders = self.contenders(&names, &fleet)?;
        let specs = fleet::specs(&fleet).map_err(Failure::usage)?;
        let max_input = self.trace.max_input.unwrap_or_else(|| fleet::default_max_input(&specs));
        let baseline = self.baseline(&contenders)?;
        let source = self.source(max_input)?;
        let trace = source.trace(self.seed);
        let loads = self.loads(&trace, &specs);
        drop(trace);
        let described = self.described(&fleet, &loads, &names, max_input);
        let scene = Scene {
            options: self.options(),
            fleet,
            specs,
            source,
            drift: self.drift.unwrap_or(0.0),
            faults: self.fault,
            warmup_s: self.warmup,
            drain_s: self.drain,
            slo: Some(self.slo.unwrap_or(DEFAULT_SLO)),
        };
        let seeds: Vec<u64> = (self.seed..self.seed.saturating_add(self.seeds)).collect();
        let draws = Draw::all(&self.window, &seeds);
        let config = SimulateConfig { contenders, baseline, scene, loads, draws, described };
        check_plans(&config)?;
        Ok(config)
    }

    /// The fleet, its clients led to their routers. A comparison by distance in which somebody stands nowhere would be none.
    fn entered(&self, strategies: &[String]) -> Result<Fleet, Failure> {
        let mut fleet = read_fleet(self.fleet.as_deref())?;
        if let Some(entry) = self.entry {
            let problems =
                |problems: Vec<String>| Failure::usage(anyhow!("`--entry {entry}`: {}", problems.join("; ")));
            fleet = fleet.entered_by(entry).map_err(problems)?;
        }
        let nowhere: Vec<&str> = fleet.unplaced().iter().map(|region| region.as_str()).collect();
        if strategies.iter().any(|name| name == "geo") && !nowhere.is_empty() {
            let regions = nowhere.join(", ");
            return Err(Failure::usage(anyhow!(
                "strategy `geo`: no place is known of {regions}; add it to [places] of the fleet file"
            )));
        }
        Ok(fleet)
    }

    /// The fleet, with engines as they really are, checked against the faults.
    fn real_fleet(&self, names: &[String]) -> Result<Fleet, Failure> {
        let mut fleet = self.entered(names)?;
        for text in &self.engine {
            set::engine(text, &mut fleet).map_err(|error| Failure::usage(anyhow!("`--engine {text}`: {error}")))?;
        }
        ensure_reachable(&fleet).map_err(Failure::usage)?;
        for fault in &self.fault {
            fault.check(&fleet).map_err(|error| Failure::usage(anyhow!("`--fault` {error}")))?;
        }
        Ok(fleet)
    }

    /// How plans are made; arrivals come with the load.
    fn options(&self) -> PlanOptions {
        PlanOptions {
            seconds: self.seconds,
            max_output: self.max_output,
            max_think_ms: self.max_think.map(|seconds| seconds * 1000.0),
            open_loop: self.open_loop,
            ..PlanOptions::new(Arrivals::Replay { time_scale: 1.0, window: None }, self.seed)
        }
    }

    /// The strategies with their parameters and limits, and the edge, as changed by `--set`.
    fn settings(&self, names: &[String]) -> Result<(Vec<Settings>, Edge), Failure> {
        let mut settings: Vec<Settings> =
            names.iter().map(|name| Settings { strategy: name.clone(), ..Settings::default() }).collect();
        let mut edge = Edge::default();
        for text in &self.set {
            set::set(text, &mut settings, &mut edge).map_err(|error| Failure::usage(anyhow!("`--set` {error}")))?;
        }
        for settings in &settings {
            // What is out of range is found by the router itself.
            Router::new(settings.clone()).map_err(|error| Failure::usage(anyhow!("`--set`: {error}")))?;
        }
        Ok((settings, edge))
    }

    /// What plays: every strategy, and the first one once more if it is to be compared with perfect knowledge.
    fn contenders(&self, names: &[String], fleet: &Fleet) -> Result<Vec<Contender>, Failure> {
        let (settings, edge) = self.settings(names)?;
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
        Ok(contenders)
    }

    fn source(&self, max_input: u32) -> Result<Source, Failure> {
        if let Some(generator) = self.generator {
            return Ok(Source::Generated { generator, max_input });
        }
        let mut trace = self.trace.read(ReadOptions::default())?;
        trace.drop_longer_than(max_input);
        Ok(Source::Trace(Box::new(trace)))
    }

    fn loads(&self, trace: &Trace, specs: &[EngineSpec]) -> Loads {
        let replay = |time_scale| Arrivals::Replay { time_scale, window: None };
        let timed = trace.is_timed() || !self.window.is_empty() || self.open_loop;
        if !self.load.is_empty() {
            let pace = if timed { Pace::TimeScale } else { Pace::Rate };
            return Loads::OfCapacity { fractions: self.load.clone(), pace };
        }
        let rates = self.rate.iter().map(|per_s| Arrivals::Poisson { per_s: *per_s });
        let slots = self.concurrency.iter().map(|sessions| Arrivals::Concurrent { sessions: *sessions });
        let scales = self.time_scale.iter().map(|scale| replay(*scale));
        let mut loads: Vec<Arrivals> = rates.chain(slots).chain(scales).collect();
        if loads.is_empty() && timed {
            loads.push(replay(pace::default_time_scale(trace, specs, self.max_output)));
        } else if loads.is_empty() {
            loads.push(Arrivals::Poisson { per_s: DEFAULT_RATE });
        }
        Loads::Given(loads)
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
        let list = |texts: Vec<String>| (!texts.is_empty()).then(|| json!(texts));
        json_values([
            ("strategies", Some(json!(strategies))),
            ("oracle", self.oracle.then_some(Value::Bool(true))),
            ("set", list(self.set.clone())),
            ("fleet", Some(describe_fleet(fleet, self.fleet.as_deref()))),
            ("generator", self.generator.map(|generator| json!(generator.name()))),
            ("arrivals", Some(json!(arrivals(loads)))),
            ("open_loop", self.open_loop.then_some(Value::Bool(true))),
            ("windows_s", list(self.window.iter().map(Window::to_string).collect())),
            ("seconds", self.seconds.map(|seconds| json!(seconds))),
            ("warmup_s", self.warmup.map(|seconds| json!(seconds))),
            ("drain_s", Some(json!(self.drain))),
            ("max_input", Some(json!(max_input))),
            ("max_output", self.max_output.map(|tokens| json!(tokens))),
            ("max_think_s", self.max_think.map(|seconds| json!(seconds))),
            ("drift", self.drift.map(|regions| json!(regions))),
            ("engines", list(self.engine.clone())),
            ("faults", list(self.fault.iter().map(Fault::to_string).collect())),
            ("slo", serde_json::to_value(self.slo.unwrap_or(DEFAULT_SLO)).ok()),
            ("seed", Some(json!(self.seed))),
            ("seeds", Some(json!(self.seeds))),
        ])
    }
}

/// The loads as a report's set-up shows them.
fn arrivals(loads: &Loads) -> String {
    let list = match loads {
        Loads::Given(loads) => loads.iter().map(|load| profile::label(*load)).collect::<Vec<_>>(),
        Loads::OfCapacity { fractions, .. } => {
            fractions.iter().map(|share| format!("{share} of the capacity")).collect()
        }
    };
    list.join(", ")
}

/// What the trace does not allow is told before anything runs.
fn check_plans(config: &SimulateConfig) -> Result<(), Failure> {
    let loads = match &config.loads {
        Loads::Given(loads) => loads.clone(),
        Loads::OfCapacity { pace, .. } => vec![pace.at(1.0)],
    };
    let mut seen = Vec::new();
    for draw in &config.draws {
        if !seen.contains(&draw.window) {
            loads.iter().try_for_each(|load| check_plan(&config.scene, *load, *draw))?;
            seen.push(draw.window);
        }
    }
    Ok(())
}

fn check_plan(scene: &Scene, load: Arrivals, draw: Draw) -> Result<(), Failure> {
    let plan = scene.plan(load, draw).map_err(Failure::usage)?;
    let warmup_s = scene.warmup_s(&plan);
    let starts_s = match (scene.options.seconds, plan.concurrency) {
        (Some(seconds), _) => seconds,
        (None, None) => plan.sessions.last().map_or(0.0, |session| session.start_ms / 1000.0),
        (None, Some(_)) => f64::INFINITY,
    };
    if warmup_s > starts_s || (warmup_s > 0.0 && warmup_s >= starts_s) {
        return Err(Failure::usage(anyhow!(
            "`--warmup` {warmup_s} leaves nothing: the last session starts at {starts_s} s"
        )));
    }
    Ok(())
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
        assert_eq!(names(&config), ["gorgo", "prefix-tree", "least-load", "session-affinity", "round-robin"]);
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
        assert_eq!(names(&config), ["gorgo-v1", "prefix-tree", "least-load", "session-affinity", "round-robin"]);
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
        assert!(error(&["--baseline", "random"]).contains("not among the strategies: gorgo, "));
        assert!(error(&["--seconds", "10", "--warmup", "10"]).contains("leaves nothing"));
    }
}
