//! `gorgo simulate`: strategies on a whole fleet in virtual time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{
    Output, TraceArgs, describe_fleet, json_values, positive, read_fleet, seconds, slo, stoppable, strategies,
};
use crate::bench::Board;
use crate::bench::demo::{fleet, pace};
use crate::bench::simulate::{self, Contender, SimulateConfig, Source, ensure_reachable};
use crate::report::Slo;
use crate::routing::policy::{self, on_agent};
use crate::routing::{Router, Settings};
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::sim::world::keys::{self, KEYS};
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
#[command(after_long_help = after_help())]
pub(crate) struct Args {
    /// Fleet file: engines, routers, clients, network; several routers are agents [default: the fleet of `gorgo demo`]
    #[arg(long, value_name = "FILE")]
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
    /// Strategies to compare, separated by commas; others are paired with the first; on agents `gorgo` means `gorgo-v1`
    /// [default: those of `gorgo demo`]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 1)]
    strategy: Vec<String>,
    /// Play the first strategy once more with agents that know everything of each other at once: the bound of what news can give
    #[arg(long)]
    oracle: bool,
    /// Change a strategy's parameter or a setting of the simulation (listed by --help); `NAME.KEY=VALUE` is for one strategy
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Session starts per second, Poisson [default: 2 for traces without a clock, else see --time-scale]
    #[arg(long, value_name = "PER_SECOND", value_parser = positive, conflicts_with_all = ["time_scale", "concurrency"])]
    rate: Option<f64>,
    /// Replay the trace's own times, stretched by this factor; 2 is half as fast [default: as much as the fleet needs to keep up]
    #[arg(long, value_name = "X", value_parser = positive, conflicts_with = "concurrency")]
    time_scale: Option<f64>,
    /// A fixed number of sessions at once, each followed by the next, instead of starts by the clock
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Option<u32>,
    /// Replay only what arrives in this part of the trace, in the trace's own seconds, such as `60..300`
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["rate", "concurrency"])]
    window: Option<Window>,
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
    /// Objectives for goodput in ms [default: ttft=2000,itl=50]
    #[arg(long, value_name = "NAME=MS,…", value_parser = slo)]
    slo: Option<Slo>,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this many seeds, from --seed on, and report means, confidence intervals and paired ratios
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Where to write the results as JSON; `-` = stdout, which then carries nothing else
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write the results as one HTML page
    #[arg(long, value_name = "FILE", visible_alias = "html")]
    report: Option<PathBuf>,
}

fn after_help() -> String {
    let mut text = "Settings of the simulation for --set (default in brackets):\n".to_owned();
    for key in KEYS {
        text.push_str(&format!("  {}: {}\n", key.name, key.help));
    }
    for (name, help) in LIMITS {
        text.push_str(&format!("  {name}: {help}\n"));
    }
    text.push_str(
        "\nFaults, times in seconds from the start of the run:\n  \
         down:NAME@60..120      the engine's process dies; another one comes with an empty cache\n  \
         restart:NAME@60        the same, with the new one there at once\n  \
         hang:NAME@60..80       the engine stands still and answers nothing\n  \
         slow:NAME@60..300x3    its steps take three times as long\n  \
         rtt:A/B@60..90x3       delays between two regions, or between A and all others, are three times as long\n  \
         cut:A/B@60..90         nothing gets through between them until the end\n  \
         cut:A>B@60..90         the same from A to B only; what B sends stops soon after, for want of acknowledgements",
    );
    text
}

/// Limits of the routers that `--set` takes as well.
const LIMITS: [(&str, &str); 3] = [
    ("max_concurrent", "most requests in flight per replica; more wait in the router (the strategy's own rule)"),
    ("queue_limit", "most requests in a router's queue (10000)"),
    ("queue_timeout_ms", "longest wait there (60000)"),
];

/// Runs the simulation. The first Ctrl-C ends it and reports what was finished (exit code 130); a second one ends at once.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let output = Output::new(args.json.clone(), args.report.clone());
    output.check()?;
    let config = args.meant()?;
    let (board, stop) = (Board::default(), CancellationToken::new());
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
        let fleet = self.entered(&typed)?;
        ensure_reachable(&fleet).map_err(Failure::usage)?;
        let names = meant_there(typed, &fleet)?;
        let contenders = self.contenders(&names, &fleet)?;
        for fault in &self.fault {
            fault.check(&fleet).map_err(|error| Failure::usage(anyhow!("`--fault` {error}")))?;
        }
        let specs = fleet::specs(&fleet).map_err(Failure::usage)?;
        let max_input = self.trace.max_input.unwrap_or_else(|| fleet::default_max_input(&specs));
        let source = self.source(max_input)?;
        let trace = source.trace(self.seed);
        let options = PlanOptions {
            seconds: self.seconds,
            max_output: self.max_output,
            max_think_ms: self.max_think.map(|seconds| seconds * 1000.0),
            ..PlanOptions::new(self.arrivals(&trace, &specs), self.seed)
        };
        drop(trace);
        let described = self.described(&fleet, &options, &names, max_input);
        let config = SimulateConfig {
            contenders,
            fleet,
            specs,
            source,
            options,
            seeds: (self.seed..self.seed.saturating_add(self.seeds)).collect(),
            drift: self.drift.unwrap_or(0.0),
            faults: self.fault,
            warmup_s: self.warmup,
            drain_s: self.drain,
            slo: Some(self.slo.unwrap_or(DEFAULT_SLO)),
            described,
        };
        check_plan(&config, self.seed)?;
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

    /// The strategies with their parameters and limits, and the edge, as changed by `--set`.
    fn settings(&self, names: &[String]) -> Result<(Vec<Settings>, Edge), Failure> {
        let mut settings: Vec<Settings> =
            names.iter().map(|name| Settings { strategy: name.clone(), ..Settings::default() }).collect();
        let mut edge = Edge::default();
        for text in &self.set {
            set(text, &mut settings, &mut edge).map_err(|error| Failure::usage(anyhow!("`--set` {error}")))?;
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
            settings.into_iter().map(|routing| Contender { name: routing.strategy.clone(), routing, edge }).collect();
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

    fn arrivals(&self, trace: &Trace, specs: &[EngineSpec]) -> Arrivals {
        match (self.rate, self.concurrency, self.time_scale) {
            (Some(per_s), _, _) => Arrivals::Poisson { per_s },
            (None, Some(sessions), _) => Arrivals::Concurrent { sessions },
            (None, None, scale) if trace.is_timed() || scale.is_some() || self.window.is_some() => {
                let fits = || pace::default_time_scale(trace, specs, self.max_output);
                Arrivals::Replay { time_scale: scale.unwrap_or_else(fits), window: self.window }
            }
            (None, None, _) => Arrivals::Poisson { per_s: DEFAULT_RATE },
        }
    }

    fn described(
        &self,
        fleet: &Fleet,
        plan: &PlanOptions,
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
            ("arrivals", Some(json!(crate::bench::profile::label(plan.arrivals)))),
            ("window_s", self.window.map(|window| json!([window.from_ms / 1000.0, window.to_ms / 1000.0]))),
            ("seconds", self.seconds.map(|seconds| json!(seconds))),
            ("warmup_s", self.warmup.map(|seconds| json!(seconds))),
            ("drain_s", Some(json!(self.drain))),
            ("max_input", Some(json!(max_input))),
            ("max_output", self.max_output.map(|tokens| json!(tokens))),
            ("max_think_s", self.max_think.map(|seconds| json!(seconds))),
            ("drift", self.drift.map(|regions| json!(regions))),
            ("faults", list(self.fault.iter().map(Fault::to_string).collect())),
            ("slo", serde_json::to_value(self.slo.unwrap_or(DEFAULT_SLO)).ok()),
            ("seed", Some(json!(self.seed))),
            ("seeds", Some(json!(self.seeds))),
        ])
    }
}

/// The strategies that names mean in this fleet: several routers are agents.
fn meant_there(typed: Vec<String>, fleet: &Fleet) -> Result<Vec<String>, Failure> {
    if fleet.routers.len() == 1 {
        return Ok(typed);
    }
    let meant: Vec<String> = typed.iter().map(|name| on_agent(name).to_owned()).collect();
    match meant.iter().enumerate().find(|(index, name)| meant[..*index].contains(name)) {
        Some((_, name)) => Err(Failure::usage(anyhow!(
            "`--strategy` names `{name}` twice: `gorgo` means it on agents, where the score of a central `gorgo` is `gorgo-score`"
        ))),
        None => Ok(meant),
    }
}

/// What the trace does not allow is told before anything runs.
fn check_plan(config: &SimulateConfig, seed: u64) -> Result<(), Failure> {
    let plan = config.plan(seed).map_err(Failure::usage)?;
    let warmup_s = config.warmup_s(&plan);
    let starts_s = match (config.options.seconds, plan.concurrency) {
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

/// Applies one `--set`.
fn set(text: &str, settings: &mut [Settings], edge: &mut Edge) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("found `{text}`; wanted KEY=VALUE"))?;
    let (key, value) = (key.trim(), value.trim());
    if let Some(result) = keys::set(edge, key, value) {
        return result;
    }
    let number: f64 = value.parse().map_err(|_| format!("`{key}` is `{value}`; wanted a number"))?;
    if LIMITS.iter().any(|(name, _)| *name == key) {
        for settings in settings {
            match key {
                "max_concurrent" => settings.max_concurrent = Some(number as u32),
                "queue_limit" => settings.queue_limit = number as usize,
                _ => settings.queue_timeout_ms = number,
            }
        }
        return Ok(());
    }
    let (only, parameter) = match key.split_once('.') {
        Some((strategy, parameter)) => (Some(strategy), parameter),
        None => (None, key),
    };
    let knows = |settings: &&mut Settings| {
        let entry = policy::find(&settings.strategy);
        only.is_none_or(|only| settings.strategy == only)
            && entry.is_ok_and(|entry| entry.parameters.iter().any(|known| known.key == parameter))
    };
    let mut found = false;
    for settings in settings.iter_mut().filter(knows) {
        settings.parameters.push((parameter.to_owned(), number));
        found = true;
    }
    if found { Ok(()) } else { Err(unknown(key, only, settings)) }
}

fn unknown(key: &str, only: Option<&str>, settings: &[Settings]) -> String {
    if let Some(only) = only.filter(|only| settings.iter().all(|settings| settings.strategy != **only)) {
        return format!("`{key}`: `{only}` is not among the strategies");
    }
    let mut known: Vec<&str> = settings
        .iter()
        .filter_map(|settings| policy::find(&settings.strategy).ok())
        .flat_map(|entry| entry.parameters.iter().map(|parameter| parameter.key))
        .collect();
    known.sort_unstable();
    known.dedup();
    known.extend(KEYS.iter().map(|key| key.name));
    known.extend(LIMITS.iter().map(|(name, _)| *name));
    let hint = crate::model::spelling::hint(key, known.iter().copied());
    format!(
        "`{key}`: no strategy here has it, and it is no setting of the simulation; known: {}{hint}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::bench::simulate::SimulateConfig;
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
        assert_eq!((config.seeds.as_slice(), config.options.arrivals), (&[1][..], Arrivals::Poisson { per_s: 2.0 }));
        assert_eq!(config.fleet.replicas.len(), 3);
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
        assert!(error(&["--fault", "down:nobody@1..2"]).contains("no replica `nobody`"));
        assert!(error(&["--window", "0..10"]).contains("no timestamps"));
        assert!(error(&["--seconds", "10", "--warmup", "10"]).contains("leaves nothing"));
    }
}
