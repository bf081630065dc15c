//! `gorgo bench`: one target under one load, or under a sweep of loads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::body::BodyFormat;
use super::client::{Client, Target};
use super::doors::Doors;
use super::entries::Entries;
use super::machine;
use super::play::{Played, Player};
use super::profile::{Numbers, Profile, label};
use crate::gateway::clock::Clock;
use crate::inference::Dialect;
use crate::report::percentile::spread;
use crate::report::schema::{Load, Report, SCHEMA, Trace as TraceInfo};
use crate::report::{Rules, Run, Slo, summarise};
use crate::workload::arrivals::{Arrivals, sweep_rates};
use crate::workload::{Plan, PlanOptions, Trace, build};

/// What to measure.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server under test; with several entries the first one, and what all have in common.
    pub target: Target,
    /// Several ways in; `None` = the target is the only one.
    pub entries: Option<Entries>,
    /// Chat or text completions.
    pub dialect: Dialect,
    /// Value of `model`; `None` = the first that the target lists.
    pub model: Option<String>,
    /// The requests.
    pub trace: Trace,
    /// How plans are made from it; arrivals are set by the profile.
    pub plan: PlanOptions,
    /// Shape of the load.
    pub profile: Profile,
    /// Its numbers.
    pub numbers: Numbers,
    /// Runs of a sweep, both ends included.
    pub runs: u32,
    /// Warm-up of each run, s.
    pub warmup_s: f64,
    /// Apply it to `throughput`, too, whose first requests, all sent at once, are what it is about.
    pub warmup_given: bool,
    /// Longest drain of each run.
    pub drain: Duration,
    /// Objectives.
    pub slo: Option<Slo>,
    /// Options as given, for the report.
    pub described: BTreeMap<String, serde_json::Value>,
}

impl LoadConfig {
    /// What is under test, for people.
    fn against(&self) -> String {
        match &self.entries {
            Some(entries) => format!("{} entries", entries.points.len()),
            None => self.target.url.clone(),
        }
    }

    fn warmup_of(&self, arrivals: Arrivals) -> f64 {
        match arrivals {
            Arrivals::Throughput { .. } if !self.warmup_given => 0.0,
            _ => self.warmup_s,
        }
    }
}

/// Runs it and reports. A fired `stop` ends it early; the report then says so and holds what was measured.
///
/// # Errors
/// A plan that cannot be made, or a target that cannot be reached at all.
pub async fn run(config: LoadConfig, board: &Board, stop: &CancellationToken) -> Result<Report> {
    let clock = Clock::start();
    let model = match &config.model {
        Some(model) => model.clone(),
        None => {
            super::client::first_model(&config.target, clock).await.context("failed to ask the target for its model")?
        }
    };
    let mut bench =
        Bench { model, stop, board, lag_ms: Vec::new(), remarks: Vec::new(), runs: Vec::new(), config: &config };
    let first = config.profile.arrivals(&config.numbers)?;
    bench.one(first).await?;
    if config.profile == Profile::Sweep {
        bench.one(Arrivals::Throughput { at_most: config.numbers.at_most() }).await?;
        for per_s in bench.rates_between() {
            bench.one(Arrivals::Constant { per_s }).await?;
        }
    }
    Ok(Report {
        schema: SCHEMA.to_owned(),
        gorgo: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::describe(),
        trace: trace_info(&config.trace),
        client_lag_ms: Some(spread(bench.lag_ms)),
        emulator_error_ms: None,
        wan_error_ms: None,
        interrupted: stop.is_cancelled(),
        remarks: bench.remarks,
        runs: bench.runs.into_iter().map(|finished| finished.run).collect(),
        config: config.described,
        comparisons: Vec::new(),
        capacity: None,
    })
}

/// The trace's part of a report.
#[must_use]
pub fn trace_info(trace: &Trace) -> TraceInfo {
    TraceInfo {
        // The name of the file without its folder: results travel, folders do not.
        name: trace.name.rsplit('/').next().unwrap_or(&trace.name).to_owned(),
        sha256: trace.sha256.clone(),
        requests: trace.requests() as u64,
        dropped: trace.dropped as u64,
    }
}

/// A finished run.
struct Finished {
    run: Run,
    /// The measured rate of complete sessions, for the ends of a sweep.
    sessions_per_s: f64,
}

/// Complete replies per second in units of the plan's mean session. Up to the last reply and not over the window: in a short run of
/// many requests at once most end during the drain.
fn sessions_per_s(plan: &Plan, played: &Played) -> f64 {
    let ok = played.samples.iter().filter(|sample| sample.ok());
    let (count, last_ms) = ok.fold((0_u32, 0.0_f64), |(count, last), sample| (count + 1, last.max(sample.end.ms())));
    let per_session = plan.requests() as f64 / plan.sessions.len().max(1) as f64;
    if last_ms > 0.0 { f64::from(count) * 1000.0 / last_ms / per_session } else { 0.0 }
}

struct Bench<'a> {
    config: &'a LoadConfig,
    model: String,
    board: &'a Board,
    stop: &'a CancellationToken,
    lag_ms: Vec<f64>,
    remarks: Vec<String>,
    runs: Vec<Finished>,
}

impl Bench<'_> {
    async fn one(&mut self, arrivals: Arrivals) -> Result<()> {
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let config = self.config;
        let plan = Arc::new(build(&config.trace, &PlanOptions { arrivals, ..config.plan.clone() })?);
        let requests = plan.sessions.iter().map(|session| session.steps.len() as u64).sum::<u64>();
        let label = label(arrivals);
        self.board.phase(format!("{label} against {}", config.against()));
        // A closed plan with a time limit holds more than will be used.
        let planned = (plan.concurrency.is_none() || config.plan.seconds.is_none()).then_some(requests);
        let tally = self.board.line(&label, planned);
        let clock = Clock::start();
        let format = BodyFormat {
            dialect: config.dialect,
            model: self.model.clone(),
            block_size: plan.block_size,
            seed: config.plan.seed,
        };
        let doors = self.doors(&plan, &format, clock).await?;
        // The run's time 0 comes after the warm connections.
        let clock = Clock::start();
        let to_ms = config.plan.seconds.map_or(f64::INFINITY, |seconds| seconds * 1000.0);
        let player = Player {
            doors: doors.clone(),
            plan: plan.clone(),
            clock,
            tally,
            from_ms: config.warmup_of(arrivals) * 1000.0,
            to_ms,
            drain: config.drain,
            stop: self.stop.clone(),
        };
        let played = player.play().await;
        self.lag_ms.extend(&played.lag_ms);
        let name = doors.strategy().map_or_else(|| config.against(), |name| name.to_string());
        let name = if config.profile == Profile::Sweep { format!("{name}, {label}") } else { name };
        let mut run = summarise(&name, load(arrivals), &played.samples, &self.rules(arrivals, &plan, &played));
        run.requests.unsent = played.unsent;
        self.runs.push(Finished { run, sessions_per_s: sessions_per_s(&plan, &played) });
        Ok(())
    }

    /// Where the sessions of `plan` go, connections warm.
    async fn doors(&self, plan: &Plan, format: &BodyFormat, clock: Clock) -> Result<Doors> {
        let (target, seed) = (&self.config.target, self.config.plan.seed);
        if let Some(entries) = &self.config.entries {
            return entries.open(target, format, plan, seed, clock).await;
        }
        let client = Arc::new(Client::new(target, format.clone(), clock)?);
        client.warm().await?;
        Ok(Doors::one(client, None))
    }

    /// The constant rates of a sweep after its two ends were measured.
    fn rates_between(&mut self) -> Vec<f64> {
        let rate = |run: usize| self.runs.get(run).map_or(0.0, |finished| finished.sessions_per_s);
        let (low, high) = (rate(0), rate(1));
        let rates = sweep_rates(low, high, self.config.runs);
        if rates.is_empty() && !self.stop.is_cancelled() {
            self.remarks.push(format!(
                "the sweep has only its ends: {low:.2} sessions/s one at a time and {high:.2}/s all at once leave no rates between"
            ));
        }
        rates
    }

    fn rules(&self, arrivals: Arrivals, plan: &Plan, played: &Played) -> Rules {
        let from_s = self.config.warmup_of(arrivals);
        let starts_end_s = match (self.config.plan.seconds, plan.concurrency) {
            (Some(seconds), _) if !played.stopped => seconds,
            (_, None) if !played.stopped => plan.sessions.last().map_or(0.0, |session| session.start_ms) / 1000.0,
            _ => played.samples.iter().map(|sample| sample.end.ms()).fold(0.0, f64::max) / 1000.0,
        };
        Rules { from_s, to_s: starts_end_s.max(from_s), slo: self.config.slo, ..Rules::default() }
    }
}

/// What a report says of the offered load.
#[must_use]
pub fn load(arrivals: Arrivals) -> Load {
    let (kind, sessions_per_s) = match arrivals {
        Arrivals::Poisson { per_s } | Arrivals::Constant { per_s } => ("open", Some(per_s)),
        Arrivals::Replay { .. } => ("open", None),
        Arrivals::Concurrent { .. } | Arrivals::Throughput { .. } | Arrivals::Synchronous => ("closed", None),
    };
    let time_scale = match arrivals {
        Arrivals::Replay { time_scale, .. } => Some(time_scale),
        _ => None,
    };
    Load { kind: kind.to_owned(), sessions_per_s, concurrency: arrivals.concurrency(), time_scale, of_capacity: None }
}
