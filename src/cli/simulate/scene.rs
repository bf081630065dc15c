//! What is simulated, as arguments: fleet, requests, loads, faults and settings. `simulate` and `tune` take the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::objectives::{Objectives, objectives};
use super::set;
use crate::bench::demo::{fleet, pace};
use crate::bench::profile;
use crate::bench::simulate::{Draw, Loads, Pace, Scene, Source, ensure_reachable};
use crate::cli::exit::Failure;
use crate::cli::measure::{TraceArgs, describe_fleet, json_values, positive, read_fleet, seconds};
use crate::routing::{Router, Settings};
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::sim::world::Edge;
use crate::workload::fleet::Entry;
use crate::workload::{Arrivals, Fleet, Generator, PlanOptions, ReadOptions, Trace};

/// Session starts per second when nothing is said of a trace without a clock: as in `gorgo demo`.
const DEFAULT_RATE: f64 = 2.0;

/// Loads where none were asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Otherwise {
    /// One that the fleet can take.
    One,
    /// Shares of the capacity.
    Shares(&'static [f64]),
}

/// Arguments that say what is simulated.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("loads").args(["rate", "time_scale", "concurrency", "load"]))]
pub(in crate::cli) struct SceneArgs {
    /// Fleet file (engines, routers, clients, network) or a built-in fleet (listed by --help) [default: the fleet of `gorgo demo`]
    #[arg(long, value_name = "FILE|NAME")]
    pub(in crate::cli) fleet: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) trace: TraceArgs,
    /// Draw the requests instead of reading them: art-like (long conversations that grow), wild-like (short single prompts)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["trace", "block_size"])]
    pub(in crate::cli) generator: Option<Generator>,
    /// How clients find their router: rtt (the shortest round trip), geo (the nearest on the globe) or first (the first one for all)
    /// [default: `entry` of the fleet file, else rtt]
    #[arg(long, value_name = "HOW")]
    pub(in crate::cli) entry: Option<Entry>,
    /// Change a strategy's parameter or a setting of the simulation (listed by --help); `NAME.KEY=VALUE` is for one strategy
    #[arg(long, value_name = "KEY=VALUE")]
    pub(in crate::cli) set: Vec<String>,
    /// Session starts per second, Poisson; several make a sweep
    #[arg(long, value_name = "PER_SECOND,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    pub(in crate::cli) rate: Vec<f64>,
    /// Replay the trace's own times, stretched by this factor; 2 is half as fast
    #[arg(long, value_name = "X,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    pub(in crate::cli) time_scale: Vec<f64>,
    /// A fixed number of sessions at once, each followed by the next, instead of starts by the clock
    #[arg(long, value_name = "N,…", value_parser = clap::value_parser!(u32).range(1..=65_536), value_delimiter = ',', num_args = 1)]
    pub(in crate::cli) concurrency: Vec<u32>,
    /// Loads as shares of the capacity, such as `0.5,0.7,0.9`: the load at which the best of the strategies just keeps up is searched first
    /// [default of all these: `tune` 0.5,0.7,0.9; `simulate` as slow as the fleet needs, or 2 per second for a trace without a clock]
    #[arg(long, value_name = "SHARE,…", value_parser = positive, value_delimiter = ',', num_args = 1)]
    pub(in crate::cli) load: Vec<f64>,
    /// Send every request at its time in the trace, however late the replies before it in its session are
    #[arg(long, conflicts_with_all = ["rate", "concurrency"])]
    pub(in crate::cli) open_loop: bool,
    /// Sessions start for this long in virtual time; then the run drains [default: each session of the trace once]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(in crate::cli) seconds: Option<f64>,
    /// Sessions that start in the first seconds do not count [default: a fifth of the starts, at most 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) warmup: Option<f64>,
    /// Longest virtual time for replies after the last start
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0, value_parser = seconds)]
    pub(in crate::cli) drain: f64,
    /// Cut outputs to this length
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) max_output: Option<u32>,
    /// Cut pauses inside sessions to this length
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(in crate::cli) max_think: Option<f64>,
    /// Move the clients' shares on by so many regions from the first start to the last, as a day does
    #[arg(long, value_name = "REGIONS", value_parser = positive)]
    pub(in crate::cli) drift: Option<f64>,
    /// What goes wrong, such as `down:east@60..120`, `slow:east@60..300x3` or `cut:us-east-1@60..90` (kinds are listed by --help)
    #[arg(long, value_name = "FAULT")]
    pub(in crate::cli) fault: Vec<Fault>,
    /// What the engines really are, whatever the fleet says: `chunk`, `max_running`, `kv_tokens`, `block`, `scheduler` or `order` of all
    #[arg(long, value_name = "KEY=VALUE")]
    pub(in crate::cli) engine: Vec<String>,
    /// Objectives for goodput in ms; `admit`: play each strategy that predicts times once more with routers that refuse at once who is
    /// predicted to miss `ttft` (`simulate` only) [default: ttft=2000,itl=50]
    #[arg(long, value_name = "NAME=MS,…[,admit]", value_parser = objectives)]
    pub(in crate::cli) slo: Option<Objectives>,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) seed: u64,
}

impl SceneArgs {
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
    pub(in crate::cli) fn real_fleet(&self, names: &[String]) -> Result<Fleet, Failure> {
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

    /// What counts as good.
    pub(in crate::cli) fn objectives(&self) -> Objectives {
        self.slo.unwrap_or_default()
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
    pub(in crate::cli) fn settings(&self, names: &[String]) -> Result<(Vec<Settings>, Edge), Failure> {
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

    /// The requests.
    pub(in crate::cli) fn source(&self, max_input: u32) -> Result<Source, Failure> {
        if let Some(generator) = self.generator {
            return Ok(Source::Generated { generator, max_input });
        }
        let mut trace = self.trace.read(ReadOptions::default())?;
        trace.drop_longer_than(max_input);
        Ok(Source::Trace(Box::new(trace)))
    }

    /// The loads that were asked for; `otherwise` what stands where nothing was said.
    pub(in crate::cli) fn loads(
        &self,
        trace: &Trace,
        specs: &[EngineSpec],
        windows: bool,
        otherwise: Otherwise,
    ) -> Loads {
        let replay = |time_scale| Arrivals::Replay { time_scale, window: None };
        let timed = trace.is_timed() || windows || self.open_loop;
        let pace = if timed { Pace::TimeScale } else { Pace::Rate };
        if !self.load.is_empty() {
            return Loads::OfCapacity { fractions: self.load.clone(), pace };
        }
        let rates = self.rate.iter().map(|per_s| Arrivals::Poisson { per_s: *per_s });
        let slots = self.concurrency.iter().map(|sessions| Arrivals::Concurrent { sessions: *sessions });
        let scales = self.time_scale.iter().map(|scale| replay(*scale));
        let mut loads: Vec<Arrivals> = rates.chain(slots).chain(scales).collect();
        if loads.is_empty() {
            match otherwise {
                Otherwise::Shares(shares) => return Loads::OfCapacity { fractions: shares.to_vec(), pace },
                Otherwise::One if timed => loads.push(replay(pace::default_time_scale(trace, specs, self.max_output))),
                Otherwise::One => loads.push(Arrivals::Poisson { per_s: DEFAULT_RATE }),
            }
        }
        Loads::Given(loads)
    }

    /// Longest prompt that is kept, tokens.
    pub(in crate::cli) fn max_input(&self, specs: &[EngineSpec]) -> u32 {
        self.trace.max_input.unwrap_or_else(|| fleet::default_max_input(specs))
    }

    /// What is simulated, of a fleet, its engines and the requests.
    pub(in crate::cli) fn scene(self, fleet: Fleet, specs: Vec<EngineSpec>, source: Source) -> Scene {
        let objectives = self.objectives();
        Scene {
            options: self.options(),
            fleet,
            specs,
            source,
            drift: self.drift.unwrap_or(0.0),
            faults: self.fault,
            warmup_s: self.warmup,
            drain_s: self.drain,
            slo: Some(objectives.of),
        }
    }

    /// The arguments as results show them.
    pub(in crate::cli) fn described(&self, fleet: &Fleet, loads: &Loads, max_input: u32) -> BTreeMap<String, Value> {
        let list = |texts: Vec<String>| (!texts.is_empty()).then(|| json!(texts));
        json_values([
            ("set", list(self.set.clone())),
            ("fleet", Some(describe_fleet(fleet, self.fleet.as_deref()))),
            ("generator", self.generator.map(|generator| json!(generator.name()))),
            ("arrivals", Some(json!(arrivals(loads)))),
            ("open_loop", self.open_loop.then_some(Value::Bool(true))),
            ("seconds", self.seconds.map(|seconds| json!(seconds))),
            ("warmup_s", self.warmup.map(|seconds| json!(seconds))),
            ("drain_s", Some(json!(self.drain))),
            ("max_input", Some(json!(max_input))),
            ("max_output", self.max_output.map(|tokens| json!(tokens))),
            ("max_think_s", self.max_think.map(|seconds| json!(seconds))),
            ("drift", self.drift.map(|regions| json!(regions))),
            ("engines", list(self.engine.clone())),
            ("faults", list(self.fault.iter().map(Fault::to_string).collect())),
            ("slo", serde_json::to_value(self.objectives().of).ok()),
            ("seed", Some(json!(self.seed))),
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
pub(in crate::cli) fn check_plans(scene: &Scene, loads: &Loads, draws: &[Draw]) -> Result<(), Failure> {
    let loads = match loads {
        Loads::Given(loads) => loads.clone(),
        Loads::OfCapacity { pace, .. } => vec![pace.at(1.0)],
    };
    let mut seen = Vec::new();
    for draw in draws {
        if !seen.contains(&draw.window) {
            loads.iter().try_for_each(|load| check_plan(scene, *load, *draw))?;
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
