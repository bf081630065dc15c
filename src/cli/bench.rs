//! `gorgo bench`: load a target and measure it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::measure::{EntryArgs, Output, TraceArgs, json_values, positive, read_file, seconds, slo, stoppable};
use crate::bench::load::{self, LoadConfig};
use crate::bench::profile::{Numbers, Profile};
use crate::bench::{Board, Target};
use crate::inference::Dialect;
use crate::model::Secret;
use crate::report::Slo;
use crate::workload::arrivals::Window;
use crate::workload::{PlanOptions, ReadOptions, Trace, build};

/// Warm-up where none is given: a tenth of the run, at most this, s.
const MAX_WARMUP_S: f64 = 10.0;

/// Arguments of `gorgo bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    entries: EntryArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// Literal prompts instead of a trace: JSON lines with a prompt field, or one prompt per line
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    prompts: Option<PathBuf>,
    /// Field of the prompt file that holds the prompt [default: the first known one, e.g. `prompt`]
    #[arg(long, value_name = "NAME")]
    prompt_column: Option<String>,
    /// Output length of prompts that name none
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    output_tokens: u32,
    /// Cut outputs to this length
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_output: Option<u32>,
    /// Shape of the load: synchronous, poisson, constant, concurrent, throughput, sweep or replay [default: what the other
    /// options imply]
    #[arg(long)]
    profile: Option<Profile>,
    /// Session starts per second (poisson, constant)
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    rate: Option<f64>,
    /// Sessions at once (concurrent, throughput)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Option<u32>,
    /// Factor on the trace's times (replay); 2 is half as fast
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive)]
    time_scale: f64,
    /// Part of the trace to replay, s
    #[arg(long, value_name = "FROM..TO")]
    window: Option<Window>,
    /// Sessions start for this long; per run of a sweep [default: each session of the trace once; 30 in a sweep]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// Sessions that start in the first seconds do not count [default: a tenth of --seconds, at most 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warmup: Option<f64>,
    /// Longest wait for replies after the last start
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    drain: f64,
    /// Runs of a sweep, its two ends included
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=100))]
    runs: u32,
    /// Objectives for goodput in ms, e.g. `ttft=2000,itl=50`
    #[arg(long, value_name = "NAME=MS,…", value_parser = slo)]
    slo: Option<Slo>,
    /// Model to ask for [default: the first that the target lists]
    #[arg(long)]
    model: Option<String>,
    /// API to speak
    #[arg(long, value_parser = ["chat", "completions"], default_value = "chat")]
    api: String,
    /// Do not send `ignore_eos`, for servers that refuse unknown fields; outputs may then be shorter
    #[arg(long)]
    strict: bool,
    /// Environment variable with the target's API key
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// Longest silence of the target before a request counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = positive)]
    timeout: f64,
    /// Seed of starts, order and text
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the results as JSON; `-` = stdout, which then carries nothing else
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as one HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Seconds per run of a sweep without `--seconds`.
const SWEEP_RUN_S: f64 = 30.0;

/// Runs the load. The first Ctrl-C ends it and reports what was measured (exit code 130); a second one ends at once.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let output = Output::new(args.json.clone(), args.report.clone());
    output.check()?;
    let config = args.meant()?;
    if config.profile == Profile::Sweep {
        context.printer.talk(sweep_length(&config));
    }
    let (board, stop) = (Board::default(), CancellationToken::new());
    let Some(report) = stoppable(context, &board, &stop, load::run(config, &board, &stop)).await? else {
        return Ok(Exit::Interrupted);
    };
    output.finish(&report, "gorgo bench", context)
}

/// How long a sweep takes at most, so that nobody waits for a quarter of an hour unwarned.
fn sweep_length(config: &LoadConfig) -> String {
    let (run_s, drain_s) = (config.plan.seconds.unwrap_or(SWEEP_RUN_S), config.drain.as_secs_f64());
    let most_min = f64::from(config.runs) * (run_s + drain_s) / 60.0;
    format!("sweep: {} runs of {run_s} s and at most {drain_s} s of drain each, {most_min:.1} min at most", config.runs)
}

impl Args {
    /// From what was typed to what is meant.
    fn meant(self) -> Result<LoadConfig, Failure> {
        let trace = self.workload()?;
        let profile = self.profile.unwrap_or_else(|| Profile::implied(self.rate, self.concurrency, trace.is_timed()));
        let numbers = Numbers {
            rate: self.rate,
            concurrency: self.concurrency,
            time_scale: self.time_scale,
            window: self.window,
        };
        if self.window.is_some() && profile != Profile::Replay {
            let error = anyhow!("`--window` is for profile `replay` of a trace with timestamps; this is `{profile}`");
            return Err(Failure::usage(error));
        }
        let arrivals = profile.arrivals(&numbers).map_err(Failure::usage)?;
        let seconds = self.seconds.or((profile == Profile::Sweep).then_some(SWEEP_RUN_S));
        let warmup_s = self.warmup.unwrap_or_else(|| seconds.map_or(0.0, |s| (s / 10.0).min(MAX_WARMUP_S)));
        if seconds.is_some_and(|seconds| warmup_s >= seconds) {
            return Err(Failure::usage(anyhow!(
                "`--warmup` {warmup_s} leaves nothing of `--seconds` {}",
                seconds.unwrap_or(0.0)
            )));
        }
        let entries = self.entries.entries()?;
        let mut described = self.described(profile, seconds, warmup_s);
        described.extend(json_values(self.entries.described(entries.as_ref())));
        let plan = PlanOptions { seconds, max_output: self.max_output, ..PlanOptions::new(arrivals, self.seed) };
        // Made again by the run; made here so that what is wrong with it is a usage error.
        build(&trace, &plan).map_err(Failure::usage)?;
        let target = self.target()?;
        Ok(LoadConfig {
            target,
            entries,
            dialect: if self.api == "completions" { Dialect::Completions } else { Dialect::Chat },
            model: self.model,
            trace,
            plan,
            profile,
            numbers,
            runs: self.runs,
            warmup_s,
            warmup_given: self.warmup.is_some(),
            drain: Duration::from_secs_f64(self.drain),
            slo: self.slo,
            described,
        })
    }

    fn workload(&self) -> Result<Trace, Failure> {
        let options = ReadOptions {
            prompt_column: self.prompt_column.clone(),
            output_tokens: self.output_tokens,
            ..ReadOptions::default()
        };
        let mut trace = match &self.prompts {
            Some(path) => read_file(path, &options)?,
            None => self.trace.read(options)?,
        };
        if let Some(max_input) = self.trace.max_input {
            trace.drop_longer_than(max_input);
        }
        Ok(trace)
    }

    fn target(&self) -> Result<Target, Failure> {
        let key = match &self.api_key_env {
            None => None,
            Some(name) => {
                let key = std::env::var(name).with_context(|| format!("`--api-key-env`: cannot read `{name}`"));
                Some(Secret::new(key.map_err(Failure::usage)?))
            }
        };
        Ok(Target {
            url: self.entries.first_url().to_owned(),
            key,
            timeout: Duration::from_secs_f64(self.timeout),
            ignore_eos: !self.strict,
            warm: 4,
        })
    }

    fn described(
        &self,
        profile: Profile,
        seconds: Option<f64>,
        warmup_s: f64,
    ) -> std::collections::BTreeMap<String, Value> {
        json_values([
            ("api", Some(json!(self.api))),
            ("model", self.model.as_ref().map(|model| json!(model))),
            ("profile", Some(json!(profile.name()))),
            ("rate", self.rate.map(|rate| json!(rate))),
            ("concurrency", self.concurrency.map(|n| json!(n))),
            ("time_scale", Some(json!(self.time_scale)).filter(|_| profile == Profile::Replay)),
            ("seconds", seconds.map(|s| json!(s))),
            ("warmup_s", Some(json!(warmup_s))),
            ("window", self.window.map(|window| json!([window.from_ms / 1000.0, window.to_ms / 1000.0]))),
            ("runs", Some(json!(self.runs)).filter(|_| profile == Profile::Sweep)),
            ("max_input", self.trace.max_input.map(|tokens| json!(tokens))),
            ("max_output", self.max_output.map(|tokens| json!(tokens))),
            ("output_tokens", self.prompts.as_ref().map(|_| json!(self.output_tokens))),
            ("prompt_column", self.prompt_column.as_ref().map(|column| json!(column))),
            ("ignore_eos", Some(json!(!self.strict))),
            ("drain_s", Some(json!(self.drain))),
            ("timeout_s", Some(json!(self.timeout))),
            ("slo", self.slo.and_then(|slo| serde_json::to_value(slo).ok())),
            ("seed", Some(json!(self.seed))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::sweep_length;
    use crate::bench::load::LoadConfig;
    use crate::bench::profile::Profile;
    use crate::cli::args::{Cli, Command};
    use crate::cli::exit::Failure;
    use crate::inference::Dialect;

    fn meant(options: &[&str]) -> Result<LoadConfig, Failure> {
        let line = ["gorgo", "bench", "--target", "http://127.0.0.1:8000"].iter().chain(options);
        match Cli::try_parse_from(line).expect("parses").command {
            Command::Bench(args) => args.meant(),
            other => panic!("not the bench: {other:?}"),
        }
    }

    #[test]
    fn the_profile_follows_from_the_numbers() {
        let cases: [(&[&str], Profile, Option<f64>, f64); 5] = [
            (&[], Profile::Synchronous, None, 0.0),
            (&["--rate", "3", "--seconds", "20"], Profile::Poisson, Some(20.0), 2.0),
            (&["--concurrency", "3", "--seconds", "500"], Profile::Concurrent, Some(500.0), 10.0),
            (&["--profile", "sweep"], Profile::Sweep, Some(30.0), 3.0),
            (&["--rate", "3", "--seconds", "20", "--warmup", "5"], Profile::Poisson, Some(20.0), 5.0),
        ];
        for (options, profile, seconds, warmup_s) in cases {
            let config = meant(options).unwrap();
            assert_eq!(
                (config.profile, config.plan.seconds, config.warmup_s),
                (profile, seconds, warmup_s),
                "{options:?}"
            );
        }
    }

    #[test]
    fn prompts_have_a_column_and_an_output_length() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.jsonl");
        std::fs::write(&file, "{\"ask\": \"one\", \"prompt\": \"two\"}\n").unwrap();
        let path = file.to_str().unwrap();
        let config =
            meant(&["--prompts", path, "--prompt-column", "ask", "--output-tokens", "9", "--api", "completions"])
                .unwrap();
        let row = config.trace.rows().next().unwrap();
        assert_eq!((row.text.as_deref(), row.output_tokens), (Some("one"), 9));
        assert_eq!(config.dialect, Dialect::Completions);
        assert!(meant(&["--api-key-env", "GORGO_TEST_NO_SUCH_KEY"]).is_err());
    }

    #[test]
    fn a_window_is_a_part_of_a_replay() {
        let error = meant(&["--window", "0..5"]).unwrap_err().to_string();
        assert!(error.contains("`--window`") && error.contains("synchronous"), "{error}");
    }

    #[test]
    fn a_sweep_says_how_long_it_takes_at_most() {
        let config = meant(&["--profile", "sweep", "--seconds", "20", "--runs", "6"]).unwrap();
        assert_eq!(sweep_length(&config), "sweep: 6 runs of 20 s and at most 60 s of drain each, 8.0 min at most");
    }
}
