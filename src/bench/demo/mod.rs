//! `gorgo demo`: several strategies, each with its own emulated fleet, play the same plan at the same time.
//!
//! At the same time, because one after the other would take as many minutes as there are strategies and would measure the noise
//! of this machine at different moments; the price is that all lanes share its cores. How late the load generator and the
//! emulated engines were is therefore measured and printed, and above 5 ms warned of.

pub mod fleet;
mod lane;
pub mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use self::lane::Lane;
use super::body::BodyFormat;
use super::limit::{Limit, limit};
use super::load::{load, trace_info};
use super::{Board, Client, Door, Doors, Played, Player, Tally, Target, machine};
use crate::gateway::clock::Clock;
use crate::inference::Dialect;
use crate::report::percentile::spread;
use crate::report::schema::{Cost, Report, SCHEMA};
use crate::report::{Rules, Run, Slo, summarise};
use crate::routing::Settings;
use crate::sim::engine::EngineSpec;
use crate::workload::{Fleet, Home, Plan, PlanOptions, Trace};

/// What `gorgo demo` compares when nothing is said.
pub const DEFAULT_STRATEGIES: [&str; 6] =
    ["predictive", "gorgo", "prefix-tree", "least-load", "session-affinity", "round-robin"];
/// Longest silence of a router before a request counts as failed: far above any wait of a fleet that keeps up.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Client connections to each router that are opened ahead of need.
const WARM: usize = 16;

/// What to compare.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Strategies with their parameters and limits, in the order of the report; their seeds are the demo's.
    pub strategies: Vec<Settings>,
    /// The requests, longer ones than the fleet can hold already left out.
    pub trace: Trace,
    /// How the plan was made from it.
    pub options: PlanOptions,
    /// What every strategy plays.
    pub plan: Arc<Plan>,
    /// Where the clients of each of its sessions stand.
    pub homes: Vec<Home>,
    /// Engines, router and network.
    pub fleet: Fleet,
    /// Sessions that start before do not count, s.
    pub warmup_s: f64,
    /// Longest wait for replies after the last start.
    pub drain: Duration,
    /// Objectives.
    pub slo: Option<Slo>,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Options as given, for the report.
    pub described: BTreeMap<String, serde_json::Value>,
}

/// Runs the comparison. A fired `stop` ends it early; the report then says so and holds what was measured.
///
/// # Errors
/// A fleet that cannot be started.
pub async fn run(config: DemoConfig, board: &Board, stop: &CancellationToken) -> Result<Report> {
    Ok(measure(config, board, stop).await?.report)
}

/// A comparison with what its figures were made from.
#[derive(Debug)]
pub struct Measured {
    /// The figures.
    pub report: Report,
    /// The requests of each strategy.
    pub played: Vec<Played>,
}

/// As [`run`], with the single requests.
///
/// # Errors
/// A fleet that cannot be started.
pub async fn measure(config: DemoConfig, board: &Board, stop: &CancellationToken) -> Result<Measured> {
    fleet::ensure_playable(&config.fleet)?;
    let specs = fleet::specs(&config.fleet)?;
    let plan = Arc::clone(&config.plan);
    // In a closed loop each strategy gets as far in the plan as it can: there is no common set of requests to bound.
    let rtt_ms = |session: usize, replica: usize| fleet::rtt_ms(&config.fleet, config.homes[session], replica);
    let bound = || limit(&plan, &specs, rtt_ms, config.warmup_s * 1000.0);
    let limit = plan.concurrency.is_none().then(bound);
    let mut lanes = Vec::new();
    for settings in &config.strategies {
        board.phase(format!("starting {} emulated engines for {}", specs.len(), settings.strategy));
        lanes.push(Lane::start(&config, &specs, settings).await?);
    }
    let demo = Demo { config: &config, plan, limit };
    let played = demo.play(&lanes, board, stop).await?;
    let report = demo.report(&played, &lanes, &specs, stop.is_cancelled());
    for lane in lanes {
        lane.stop().await;
    }
    Ok(Measured { report, played })
}

/// One comparison under way.
struct Demo<'a> {
    config: &'a DemoConfig,
    plan: Arc<Plan>,
    limit: Option<Limit>,
}

impl Demo<'_> {
    fn report(&self, played: &[Played], lanes: &[Lane], specs: &[EngineSpec], interrupted: bool) -> Report {
        let lags: Vec<f64> = played.iter().flat_map(|played| played.lag_ms.iter().copied()).collect();
        let runs = self.config.strategies.iter().zip(played).zip(lanes);
        let runs: Vec<Run> =
            runs.map(|((settings, played), lane)| self.judge(&settings.strategy, played, lane, specs)).collect();
        Report {
            schema: SCHEMA.to_owned(),
            gorgo: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine::describe(),
            trace: trace_info(&self.config.trace),
            client_lag_ms: Some(spread(lags)),
            emulator_error_ms: Some(spread(lanes.iter().flat_map(Lane::timing_error_ms).collect())),
            wan_error_ms: Some(spread(lanes.iter().flat_map(Lane::wan_error_ms).collect())),
            interrupted,
            remarks: self.remarks(&runs, specs),
            runs,
            comparisons: Vec::new(),
            capacity: None,
            config: self.config.described.clone(),
        }
    }

    /// Plays the plan through all lanes at once.
    async fn play(&self, lanes: &[Lane], board: &Board, stop: &CancellationToken) -> Result<Vec<Played>> {
        let config = self.config;
        let requests = self.plan.sessions.iter().map(|session| session.steps.len() as u64).sum();
        let planned = self.plan.concurrency.is_none().then_some(requests);
        let mut doors = Vec::new();
        for lane in lanes {
            doors.push(self.doors(lane).await?);
        }
        let clock = Clock::start();
        let phases = self.announce(board, clock);
        let runs = config.strategies.iter().zip(doors).map(|(settings, doors)| {
            let player = self.player(doors, clock, board.line(&settings.strategy, planned), stop);
            tokio::spawn(player.play())
        });
        let runs: Vec<_> = runs.collect();
        let mut played = Vec::new();
        for run in runs {
            played.push(run.await.context("a load generator broke off")?);
        }
        phases.abort();
        Ok(played)
    }

    /// A warm client for each group of clients.
    async fn doors(&self, lane: &Lane) -> Result<Doors> {
        let fleet = &self.config.fleet;
        let warm = (WARM / fleet.clients.len()).max(2);
        let format = BodyFormat {
            dialect: Dialect::Chat,
            model: fleet.replicas.first().map_or_else(String::new, |replica| replica.model.clone()),
            block_size: self.plan.block_size,
            seed: self.config.seed,
        };
        let mut doors = Vec::new();
        for (group, clients) in fleet.clients.iter().enumerate() {
            let url = lane.url(group).to_owned();
            let target = Target { url, key: None, timeout: TIMEOUT, ignore_eos: true, warm };
            let client = Client::new(&target, format.clone(), Clock::start())?;
            let client = match fleet.places.region(&clients.region) {
                Some(place) => client.located(place),
                None => client,
            };
            client.warm().await?;
            let router: Arc<str> = fleet.routers[clients.router].region.as_str().into();
            let entry = (fleet.routers.len() > 1).then(|| router.clone());
            doors.push(Door { client: Arc::new(client), entry, home: Some(router) });
        }
        Ok(Doors::by_group(doors, self.config.homes.clone()))
    }

    fn player(&self, doors: Doors, clock: Clock, tally: Arc<Tally>, stop: &CancellationToken) -> Player {
        Player {
            doors,
            plan: self.plan.clone(),
            clock,
            tally,
            from_ms: self.config.warmup_s * 1000.0,
            to_ms: self.config.options.seconds.map_or(f64::INFINITY, |seconds| seconds * 1000.0),
            drain: self.config.drain,
            stop: stop.clone(),
        }
    }

    /// Keeps the board's phase up to date, as a task.
    fn announce(&self, board: &Board, clock: Clock) -> tokio::task::JoinHandle<()> {
        let (from_s, to_s) = (self.config.warmup_s, self.config.options.seconds);
        let board = board.clone();
        tokio::spawn(async move {
            loop {
                let now = clock.now().ms() / 1000.0;
                board.phase(match to_s {
                    _ if now < from_s => format!("warm-up, {now:.0} of {from_s:.0} s"),
                    Some(to_s) if now < to_s => format!("measuring, {now:.0} of {to_s:.0} s"),
                    Some(_) => "draining: no further sessions start".to_owned(),
                    None => format!("measuring, {now:.0} s"),
                });
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    }

    /// What the figures alone do not say.
    fn remarks(&self, runs: &[Run], specs: &[EngineSpec]) -> Vec<String> {
        match &self.limit {
            Some(limit) => pace::small_caches(runs, specs, limit.distinct_tokens).into_iter().collect(),
            None => vec![
                "no lower bound: in a closed loop each strategy gets as far in the trace as it can, so there is no common set of \
                 requests to bound"
                    .to_owned(),
            ],
        }
    }

    fn judge(&self, strategy: &str, played: &Played, lane: &Lane, specs: &[EngineSpec]) -> Run {
        let config = self.config;
        // A bound on requests that were not all sent would compare different ones.
        let limit = self.limit.as_ref().filter(|_| !played.stopped);
        let last_end_s = played.samples.iter().map(|sample| sample.end.ms()).fold(0.0, f64::max) / 1000.0;
        let to_s = match config.options.seconds {
            Some(seconds) if !played.stopped => seconds,
            // Interrupted during the warm-up: an empty window, not one that ends before it begins.
            _ => last_end_s.max(config.warmup_s),
        };
        let rules = Rules {
            from_s: config.warmup_s,
            to_s,
            slo: config.slo,
            // Every sample knows it.
            home: None,
            infinite_cache_ratio: limit.and_then(|limit| limit.infinite_cache_ratio),
        };
        let mut run = summarise(strategy, load(config.options.arrivals), &played.samples, &rules);
        run.requests.unsent = played.unsent;
        run.requests.retried = lane.gateways().iter().map(|gateway| gateway.counts().retried).sum();
        // Medians of several routers make none of all.
        if let [gateway] = lane.gateways() {
            run.prediction.ttft_error_median = gateway.prediction_error_ms();
            run.prediction.ttft_error_ratio = gateway.prediction_error_ratio();
        }
        run.bound = limit.map(|limit| limit.bound.clone());
        run.cost = cost(specs, to_s - config.warmup_s);
        run
    }
}

/// What the fleet's GPUs cost for `seconds`; `None` if a price is unknown. Lambda bills no traffic between regions.
#[must_use]
pub(super) fn cost(specs: &[EngineSpec], seconds: f64) -> Option<Cost> {
    let per_hour: f64 = specs.iter().map(|spec| spec.usd_per_hour).sum::<Option<f64>>()?;
    Some(Cost { gpu_usd: Some(per_hour * seconds / 3600.0), egress_usd: None })
}
