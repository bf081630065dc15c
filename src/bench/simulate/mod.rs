//! `gorgo simulate`: strategies × seeds in virtual time, each run on one thread, as many at once as there are cores.
//!
//! A seed is a workload (starts, order, homes, generated prompts) and a network; every strategy plays the same ones, so that
//! differences between strategies are differences of pairs.

mod capacity;
mod crew;
mod live;
mod lot;
mod pooled;
mod scene;
mod stage;
mod sweep;
mod ways;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use tokio_util::sync::CancellationToken;

pub use self::capacity::{PATIENCE, Pace, capacity};
pub use self::live::{against_live, ensure_both};
pub use self::scene::{Contender, Draw, Scene, Source};
pub use self::stage::{Evaluated, Stage, Watch, evaluate};
use super::Board;
use super::demo::fleet::ensure_one_model;
use super::load::trace_info;
use super::machine;
use crate::report::compare::{Draws, comparisons};
use crate::report::schema::{Capacity, Report, SCHEMA};
use crate::report::strict::Strict;
use crate::workload::{Arrivals, Fleet};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SimulateConfig {
    /// In the order of the report.
    pub contenders: Vec<Contender>,
    /// Index of the one that others are compared with.
    pub baseline: usize,
    /// What they are simulated on.
    pub scene: Scene,
    /// The loads.
    pub loads: Loads,
    /// The draws, at least one.
    pub draws: Vec<Draw>,
    /// Options as given, for the report.
    pub described: BTreeMap<String, serde_json::Value>,
}

/// The loads of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub enum Loads {
    /// These, at least one.
    Given(Vec<Arrivals>),
    /// Shares of the capacity, which is searched first.
    OfCapacity {
        /// The shares, at least one.
        fractions: Vec<f64>,
        /// What is changed to change the load.
        pace: Pace,
    },
}

/// A load to play.
#[derive(Clone, Copy, Debug)]
struct Planned {
    arrivals: Arrivals,
    of_capacity: Option<f64>,
}

/// Agents reach the engines of their own regions and each other, nothing else; requests name one model.
///
/// # Errors
/// Fleets of agents in which an engine has no agent or an agent no engine, and fleets of several models.
pub fn ensure_reachable(fleet: &Fleet) -> Result<()> {
    ensure_one_model(fleet)?;
    if !fleet.has_agents() {
        return ensure_neighbours(fleet);
    }
    for replica in &fleet.replicas {
        ensure!(
            fleet.routers.iter().any(|router| router.region == replica.region),
            "replica `{}` stands in {}, which has no `[[router]]`; of several agents each reaches the engines of its own region (`form = \"direct\"` lets every router reach all)",
            replica.name,
            replica.region
        );
    }
    for router in &fleet.routers {
        ensure!(
            fleet.replicas.iter().any(|replica| replica.region == router.region),
            "the router in {} has no replica in its region; several routers are agents, each beside engines of its own, unless the fleet says `form = \"direct\"`",
            router.region
        );
    }
    Ok(())
}

/// Several routers that reach all engines tell each other what they have there.
fn ensure_neighbours(fleet: &Fleet) -> Result<()> {
    for (index, router) in fleet.routers.iter().enumerate() {
        for other in &fleet.routers[..index] {
            ensure!(
                fleet.rtt.rtt_ms(&other.region, &router.region).is_some(),
                "no RTT between the routers in {} and {}; add \"{}/{}\" to network.rtt_ms",
                other.region,
                router.region,
                other.region,
                router.region
            );
        }
    }
    Ok(())
}

/// Runs everything. A fired `stop` ends it early; the report then says so and holds what was finished.
///
/// # Errors
/// Unknown strategies or parameters, and options that do not fit the trace.
pub fn run(config: &SimulateConfig, board: &Board, stop: &CancellationToken) -> Result<Report> {
    Ok(play(config, board, stop)?.report)
}

/// A finished simulation: its report, and what that does not hold.
#[derive(Clone, Debug)]
pub struct Finished {
    /// As [`run`] returns it.
    pub report: Report,
    /// By load and strategy, one run per draw; `None` where a stop came first.
    pub draws: Vec<Vec<Draws>>,
    /// The same of the latencies with the lost counted in.
    pub strict: Vec<Vec<Vec<Option<Strict>>>>,
}

/// Runs everything, as [`run`] does, and keeps the draws apart, too.
///
/// # Errors
/// As [`run`].
pub fn play(config: &SimulateConfig, board: &Board, stop: &CancellationToken) -> Result<Finished> {
    ensure_reachable(&config.scene.fleet)?;
    let (loads, capacity) = loads(config, board, stop)?;
    let mut played = sweep::play(config, &loads, board, stop)?;
    let events = played.events;
    let mut described = config.described.clone();
    described.insert("events".into(), serde_json::json!({ "handled": events.handled, "tokens": events.tokens }));
    played.remarks.dedup();
    let report = Report {
        schema: SCHEMA.to_owned(),
        gorgo: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::describe(),
        trace: trace_info(&config.scene.source.trace(config.draws[0].seed)),
        client_lag_ms: None,
        emulator_error_ms: None,
        wan_error_ms: None,
        interrupted: stop.is_cancelled(),
        remarks: played.remarks,
        comparisons: if stop.is_cancelled() { Vec::new() } else { comparisons(&played.loads, config.baseline) },
        runs: sweep::runs(config, &played.loads),
        capacity,
        config: described,
    };
    Ok(Finished { report, draws: played.loads, strict: played.strict })
}

/// The loads to play, and the capacity that they are shares of, if it is searched.
fn loads(config: &SimulateConfig, board: &Board, stop: &CancellationToken) -> Result<(Vec<Planned>, Option<Capacity>)> {
    let (fractions, pace) = match &config.loads {
        Loads::Given(loads) => {
            return Ok((loads.iter().map(|load| Planned { arrivals: *load, of_capacity: None }).collect(), None));
        }
        Loads::OfCapacity { fractions, pace } => (fractions, *pace),
    };
    let tried = AtomicUsize::new(0);
    let say = || board.phase(format!("searching the capacity, {} runs done", tried.fetch_add(1, Ordering::Relaxed)));
    say();
    let watch = Watch { stop, partial: false, tallies: &[], finished: &say };
    let found = capacity(&config.scene, &config.contenders, (pace, config.draws[0]), &watch)?;
    let Some((speed, found)) = found else { return Ok((Vec::new(), None)) };
    let at = |fraction: &f64| Planned { arrivals: pace.at(speed * fraction), of_capacity: Some(*fraction) };
    Ok((fractions.iter().map(at).collect(), Some(found)))
}
