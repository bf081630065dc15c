//! `gorgo demo`: three emulated regions on this machine, one trace, several strategies side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{
    Output, TraceArgs, describe_fleet, json_values, meant_there, positive, read_fleet, seconds, slo, stoppable,
    strategies,
};
use crate::bench::Board;
use crate::bench::demo::{self, DemoConfig, fleet, pace};
use crate::report::Slo;
use crate::routing::Settings;
use crate::sim::engine::EngineSpec;
use crate::workload::fleet::Entry;
use crate::workload::{Arrivals, Fleet, Generator, PlanOptions, ReadOptions, Trace, build, homes};

/// Session starts per second when nothing is said: two thirds of what the default fleet takes under the median strategy. Measured
/// in closed loops of 8 to 64 sessions (`--concurrency`), best sessions/s on the bundled trace: gorgo 4.6, session-affinity 3.3,
/// least-load 2.9, prefix-tree 2.3, round-robin 1.8. So the last one cannot keep up, which its row then shows.
const DEFAULT_RATE: f64 = 2.0;
/// Objectives when none are given: those of the paper's authors (TTFT under 2 s, 50 ms between tokens).
const DEFAULT_SLO: Slo = Slo { ttft_ms: Some(2000.0), itl_ms: Some(50.0), e2e_ms: None };
/// Where results go unless said otherwise.
const JSON_FILE: &str = "demo.json";
const HTML_FILE: &str = "demo.html";

/// Arguments of `gorgo demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Strategies to compare, separated by commas; on agents `gorgo` means `gorgo-v1` [default: predictive,gorgo,prefix-tree,least-load,session-affinity,round-robin]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', num_args = 1)]
    strategies: Vec<String>,
    #[command(flatten)]
    trace: TraceArgs,
    /// Draw the requests instead of reading them: art-like (long conversations that grow), wild-like (short single prompts)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["trace", "block_size"])]
    generator: Option<Generator>,
    /// Fleet file: engines, routers, clients, network; several routers are agents [default: three regions, one slower than the
    /// others]
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// How clients find their router: rtt (the shortest round trip), geo (the nearest on the globe) or first (the first one for all)
    /// [default: `entry` of the fleet file, else rtt]
    #[arg(long, value_name = "HOW")]
    entry: Option<Entry>,
    /// Move the clients' shares on by so many regions from the first start to the last, as a day does
    #[arg(long, value_name = "REGIONS", value_parser = positive)]
    drift: Option<f64>,
    /// Sessions start for this long; then the run drains
    #[arg(long, value_name = "SECONDS", default_value_t = 40.0, value_parser = positive)]
    seconds: f64,
    /// Sessions that start in the first seconds do not count [default: a fifth of --seconds, at most 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warmup: Option<f64>,
    /// Longest wait for replies after the last start
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    drain: f64,
    /// Session starts per second, Poisson [default: 2 for traces without a clock, else see --time-scale]
    #[arg(long, value_name = "PER_SECOND", value_parser = positive, conflicts_with_all = ["time_scale", "concurrency"])]
    rate: Option<f64>,
    /// Replay the trace's own times, stretched by this factor; 2 is half as fast [default: as much as the fleet needs to keep up]
    #[arg(long, value_name = "X", value_parser = positive, conflicts_with = "concurrency")]
    time_scale: Option<f64>,
    /// A fixed number of sessions at once, each followed by the next, instead of starts by the clock
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Option<u32>,
    /// Cut outputs to this length
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_output: Option<u32>,
    /// Objectives for goodput in ms [default: ttft=2000,itl=50]
    #[arg(long, value_name = "NAME=MS,…", value_parser = slo)]
    slo: Option<Slo>,
    /// Seed of starts, order, text, network and random strategies
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the results as JSON; `-` = stdout, which then carries nothing else
    #[arg(long, value_name = "FILE", default_value = JSON_FILE)]
    json: PathBuf,
    /// Where to write the results as one HTML page
    #[arg(long, value_name = "FILE", default_value = HTML_FILE)]
    report: PathBuf,
}

/// Runs the demo. The first Ctrl-C ends it and reports what was measured (exit code 130); a second one ends at once.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let output = Output::new(Some(args.json.clone()), Some(args.report.clone()));
    output.check()?;
    let config = args.meant()?;
    let (board, stop) = (Board::default(), CancellationToken::new());
    let Some(report) = stoppable(context, &board, &stop, Box::pin(demo::run(config, &board, &stop))).await? else {
        return Ok(Exit::Interrupted);
    };
    output.finish(&report, "gorgo demo", context)
}

impl Args {
    /// From what was typed to what is meant; everything that can be wrong is found before anything starts.
    fn meant(self) -> Result<DemoConfig, Failure> {
        let fleet = self.entered()?;
        fleet::ensure_playable(&fleet).map_err(Failure::usage)?;
        let strategies = meant_there(strategies(&self.strategies, "--strategies")?, &fleet, "--strategies")?;
        let specs = fleet::specs(&fleet).map_err(Failure::usage)?;
        let mut trace = match self.generator {
            Some(generator) => generator.trace(self.seed),
            None => self.trace.read(ReadOptions::default())?,
        };
        let max_input = self.trace.max_input.unwrap_or_else(|| fleet::default_max_input(&specs));
        trace.drop_longer_than(max_input);
        let warmup_s = self.warmup.unwrap_or((self.seconds / 5.0).min(10.0));
        if warmup_s >= self.seconds {
            return Err(Failure::usage(anyhow!(
                "`--warmup` {warmup_s} leaves nothing of `--seconds` {}",
                self.seconds
            )));
        }
        let options = PlanOptions {
            seconds: Some(self.seconds),
            max_output: self.max_output,
            ..PlanOptions::new(self.arrivals(&trace, &specs), self.seed)
        };
        let described = self.described(&fleet, &options, &strategies, warmup_s, max_input);
        let plan = Arc::new(build(&trace, &options).map_err(Failure::usage)?);
        let settings = |strategy| Settings { strategy, ..Settings::default() };
        let homes = homes(&fleet.clients, &plan, self.seed, self.drift.unwrap_or(0.0));
        Ok(DemoConfig {
            strategies: strategies.into_iter().map(settings).collect(),
            trace,
            options,
            plan,
            homes,
            fleet,
            warmup_s,
            drain: Duration::from_secs_f64(self.drain),
            slo: Some(self.slo.unwrap_or(DEFAULT_SLO)),
            seed: self.seed,
            described,
        })
    }

    /// The fleet, its clients led to their routers.
    fn entered(&self) -> Result<Fleet, Failure> {
        let fleet = read_fleet(self.fleet.as_deref())?;
        let Some(entry) = self.entry else { return Ok(fleet) };
        let problems = |problems: Vec<String>| Failure::usage(anyhow!("`--entry {entry}`: {}", problems.join("; ")));
        fleet.entered_by(entry).map_err(problems)
    }

    fn arrivals(&self, trace: &Trace, specs: &[EngineSpec]) -> Arrivals {
        match (self.rate, self.time_scale, self.concurrency) {
            (Some(per_s), _, _) => Arrivals::Poisson { per_s },
            (None, Some(time_scale), _) => Arrivals::Replay { time_scale, window: None },
            (None, None, Some(sessions)) => Arrivals::Concurrent { sessions },
            (None, None, None) if trace.is_timed() => {
                Arrivals::Replay { time_scale: pace::default_time_scale(trace, specs, self.max_output), window: None }
            }
            (None, None, None) => Arrivals::Poisson { per_s: DEFAULT_RATE },
        }
    }

    fn described(
        &self,
        fleet: &Fleet,
        plan: &PlanOptions,
        strategies: &[String],
        warmup_s: f64,
        max_input: u32,
    ) -> BTreeMap<String, Value> {
        let slo = self.slo.unwrap_or(DEFAULT_SLO);
        json_values([
            ("strategies", Some(json!(strategies))),
            ("fleet", Some(describe_fleet(fleet, self.fleet.as_deref()))),
            ("generator", self.generator.map(|generator| json!(generator.name()))),
            ("drift", self.drift.map(|regions| json!(regions))),
            ("arrivals", Some(json!(crate::bench::profile::label(plan.arrivals)))),
            ("seconds", Some(json!(self.seconds))),
            ("warmup_s", Some(json!(warmup_s))),
            ("drain_s", Some(json!(self.drain))),
            ("max_input", Some(json!(max_input))),
            ("max_output", self.max_output.map(|tokens| json!(tokens))),
            ("slo", serde_json::to_value(slo).ok()),
            ("seed", Some(json!(self.seed))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::bench::demo::DemoConfig;
    use crate::cli::args::{Cli, Command};
    use crate::cli::exit::Failure;
    use crate::workload::Arrivals;

    fn meant(options: &[&str]) -> Result<DemoConfig, Failure> {
        let line = ["gorgo", "demo"].iter().chain(options);
        match Cli::try_parse_from(line).expect("parses").command {
            Command::Demo(args) => args.meant(),
            other => panic!("not the demo: {other:?}"),
        }
    }

    fn names(config: &DemoConfig) -> Vec<&str> {
        config.strategies.iter().map(|settings| settings.strategy.as_str()).collect()
    }

    #[test]
    fn what_is_meant_when_nothing_is_said() {
        let config = meant(&[]).unwrap();
        let wanted = ["predictive", "gorgo", "prefix-tree", "least-load", "session-affinity", "round-robin"];
        assert_eq!(names(&config), wanted);
        assert_eq!((config.options.seconds, config.warmup_s, config.seed), (Some(40.0), 8.0, 1));
        assert_eq!(config.options.arrivals, Arrivals::Poisson { per_s: 2.0 });
        assert_eq!((config.trace.requests(), config.trace.dropped), (1142, 0));
        assert_eq!(config.fleet.replicas.len(), 3);
    }

    #[test]
    fn strategies_are_read_leniently_and_all_unknown_ones_are_named_at_once() {
        assert_eq!(names(&meant(&["--strategies", "gorgo, random ,"]).unwrap()), ["gorgo", "random"]);
        let error = |names: &str| meant(&["--strategies", names]).unwrap_err().to_string();
        assert!(
            error("gorgo,nearest,fastest")
                .contains("unknown `nearest`, `fastest`; known strategies: predictive, gorgo")
        );
        assert!(error("round-robbin").contains("did you mean"), "{}", error("round-robbin"));
        assert!(error(" , ").contains("no name"));
        assert!(error("gorgo, gorgo").contains("twice"));
    }

    #[test]
    fn load_options_choose_the_arrivals_and_exclude_each_other() {
        assert_eq!(meant(&["--concurrency", "8"]).unwrap().options.arrivals, Arrivals::Concurrent { sessions: 8 });
        assert_eq!(meant(&["--rate", "0.5"]).unwrap().options.arrivals, Arrivals::Poisson { per_s: 0.5 });
        let untimed = meant(&["--time-scale", "2"]).unwrap_err().to_string();
        assert!(untimed.contains("no timestamps"), "{untimed}");
        assert!(Cli::try_parse_from(["gorgo", "demo", "--rate", "1", "--concurrency", "2"]).is_err());
    }

    #[test]
    fn long_prompts_are_dropped_and_counted() {
        let config = meant(&["--max-input", "4000"]).unwrap();
        assert!(config.trace.dropped > 0 && config.trace.rows().all(|row| row.input_tokens <= 4000));
        assert!(meant(&["--max-input", "1"]).unwrap_err().to_string().contains("--max-input"));
        assert!(meant(&["--warmup", "40"]).unwrap_err().to_string().contains("--warmup"));
    }
}
