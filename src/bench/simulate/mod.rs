//! `gorgo simulate`: contenders × seeds in virtual time, each run on one thread, as many at once as there are cores.
//!
//! A seed is a workload (starts, order, homes, generated prompts) and a network; every contender plays the same ones, so that
//! differences between contenders are differences of pairs.

mod crew;
mod lot;

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tokio_util::sync::CancellationToken;

use self::crew::Crew;
use self::lot::Lot;
use super::Board;
use super::demo::fleet::ensure_one_model;
use super::load::trace_info;
use super::machine;
use crate::report::schema::{Report, SCHEMA};
use crate::report::{Run, Slo, seeds};
use crate::routing::Settings;
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::sim::world::{Edge, Events, News};
use crate::workload::{Fleet, Generator, Plan, PlanError, PlanOptions, Trace};

/// Longest warm-up when none is given, s: that of the papers' own simulations' first minute.
const LONGEST_WARMUP_S: f64 = 60.0;
/// Share of the starts that the warm-up takes when none is given.
const WARMUP_SHARE: f64 = 0.2;

/// One row of the report: what plays the workload.
#[derive(Clone, Debug)]
pub struct Contender {
    /// How the report calls it.
    pub name: String,
    /// Its strategy with parameters and limits.
    pub routing: Settings,
    /// What its routers learn, how late and how often.
    pub edge: Edge,
}

impl Contender {
    /// The same with agents that know everything of each other at once: the bound of what news can give.
    #[must_use]
    pub fn omniscient(&self) -> Self {
        let edge = Edge { news: News::Oracle, ..self.edge };
        Self { name: format!("{} (oracle)", self.name), routing: self.routing.clone(), edge }
    }
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SimulateConfig {
    /// In the order of the report; the first is the one that others are paired with.
    pub contenders: Vec<Contender>,
    /// Routers, replicas, clients, network.
    pub fleet: Fleet,
    /// The engines of its replicas.
    pub specs: Vec<EngineSpec>,
    /// The requests.
    pub source: Source,
    /// How plans are made from them; each seed takes its own.
    pub options: PlanOptions,
    /// The seeds, at least one.
    pub seeds: Vec<u64>,
    /// How many places the shares of clients move on during the run.
    pub drift: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Sessions that start before do not count, s; `None`: a fifth of the starts, at most a minute.
    pub warmup_s: Option<f64>,
    /// Longest virtual time after the last start, s.
    pub drain_s: f64,
    /// Objectives.
    pub slo: Option<Slo>,
    /// Options as given, for the report.
    pub described: BTreeMap<String, serde_json::Value>,
}

/// Where requests come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The same trace for every seed.
    Trace(Box<Trace>),
    /// Another draw for every seed.
    Generated {
        /// What draws.
        generator: Generator,
        /// Longer prompts are dropped, tokens.
        max_input: u32,
    },
}

impl Source {
    /// The trace of a seed.
    #[must_use]
    pub fn trace(&self, seed: u64) -> Cow<'_, Trace> {
        match self {
            Self::Trace(trace) => Cow::Borrowed(trace),
            Self::Generated { generator, max_input } => {
                let mut trace = generator.trace(seed);
                trace.drop_longer_than(*max_input);
                Cow::Owned(trace)
            }
        }
    }
}

impl SimulateConfig {
    /// The plan of a seed.
    ///
    /// # Errors
    /// Options that do not fit the trace.
    pub fn plan(&self, seed: u64) -> Result<Plan, PlanError> {
        let options = PlanOptions { seed, ..self.options.clone() };
        crate::workload::build(&self.source.trace(seed), &options)
    }

    /// End of the warm-up of a plan, s.
    #[must_use]
    pub fn warmup_s(&self, plan: &Plan) -> f64 {
        let starts_s = match (plan.concurrency, self.options.seconds) {
            (_, Some(seconds)) => seconds,
            (None, None) => plan.sessions.last().map_or(0.0, |session| session.start_ms / 1000.0),
            // Nobody knows how long a closed loop takes that ends with its sessions.
            (Some(_), None) => 0.0,
        };
        self.warmup_s.unwrap_or((starts_s * WARMUP_SHARE).min(LONGEST_WARMUP_S))
    }
}

/// Agents reach the engines of their own regions and each other, nothing else; requests name one model.
///
/// # Errors
/// Fleets of agents in which an engine has no agent or an agent no engine, and fleets of several models.
pub fn ensure_reachable(fleet: &Fleet) -> Result<()> {
    ensure_one_model(fleet)?;
    if fleet.routers.len() == 1 {
        return Ok(());
    }
    for replica in &fleet.replicas {
        ensure!(
            fleet.routers.iter().any(|router| router.region == replica.region),
            "replica `{}` stands in {}, which has no `[[router]]`; of several routers each reaches the engines of its own region",
            replica.name,
            replica.region
        );
    }
    for router in &fleet.routers {
        ensure!(
            fleet.replicas.iter().any(|replica| replica.region == router.region),
            "the router in {} has no replica in its region; several routers are agents, each beside engines of its own",
            router.region
        );
    }
    Ok(())
}

/// Runs everything. A fired `stop` ends it early; the report then says so and holds what was finished.
///
/// # Errors
/// Unknown strategies or parameters, and options that do not fit the trace.
pub fn run(config: &SimulateConfig, board: &Board, stop: &CancellationToken) -> Result<Report> {
    ensure_reachable(&config.fleet)?;
    let lots = config.seeds.iter().map(|seed| Lot::new(config, *seed)).collect::<Result<Vec<Lot>, PlanError>>()?;
    let crew = Crew { config, lots: &lots, board, stop };
    let done = crew.work()?;
    let of = |contender: usize| -> Vec<(u64, Run)> {
        let own = done.iter().filter(|done| done.contender == contender);
        own.map(|done| (config.seeds[done.seed], done.run.clone())).collect()
    };
    let first = of(0);
    let runs = (0..config.contenders.len()).filter_map(|contender| {
        let own = of(contender);
        let paired = (contender > 0).then(|| seeds::paired(&own, &first)).flatten();
        Some(Run { paired, ..seeds::merge(own)? })
    });
    let runs = runs.collect();
    let events = done.iter().map(|done| done.events);
    let events = events.fold(Events::default(), |sum, one| Events {
        handled: sum.handled + one.handled,
        tokens: sum.tokens + one.tokens,
    });
    let mut described = config.described.clone();
    described.insert("events".into(), serde_json::json!({ "handled": events.handled, "tokens": events.tokens }));
    Ok(Report {
        schema: SCHEMA.to_owned(),
        gorgo: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::describe(),
        trace: trace_info(&config.source.trace(config.seeds[0])),
        client_lag_ms: None,
        emulator_error_ms: None,
        wan_error_ms: None,
        interrupted: stop.is_cancelled(),
        remarks: lots.first().map(Lot::remarks).unwrap_or_default(),
        runs,
        config: described,
    })
}
