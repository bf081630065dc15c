//! The same fleet and requests both ways: in virtual time, and with emulated engines over real HTTP in real time.
//!
//! Both have the same routing code, engine model and delay model with the same seeds. What is left to differ: time to parse, hash and
//! decide, the operating system's timers, and requests that reach a router in another order because replies came a little later. So
//! this compares the simulator with everything that it leaves out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio_util::sync::CancellationToken;

use super::stage::Stage;
use super::{Loads, SimulateConfig, run};
use crate::bench::Board;
use crate::bench::demo::{self, DemoConfig};
use crate::report::percentile::ratio;
use crate::report::schema::{Live, Report};
use crate::report::{Run, Sample};
use crate::sim::world::Edge;
use crate::workload::{PlanOptions, homes};

/// Plays the comparison in real time, then in virtual time, and reports the latter, each run with what the former had.
///
/// # Errors
/// What only one of both can do, see [`ensure_both`], and fleets that cannot be started.
pub async fn against_live(config: SimulateConfig, board: &Board, stop: &CancellationToken) -> Result<Report> {
    ensure_both(&config)?;
    let live = demo::measure(demo_of(&config)?, board, stop).await?;
    let (board, stop) = (board.clone(), stop.clone());
    let simulated = tokio::task::spawn_blocking(move || {
        let report = run(&config, &board, &stop)?;
        Ok::<_, anyhow::Error>((report, samples(&config)?))
    });
    let (mut report, samples) = simulated.await??;
    for (run, (samples, (other, played))) in
        report.runs.iter_mut().zip(samples.iter().zip(live.report.runs.iter().zip(&live.played)))
    {
        run.live = Some(beside(other, agreement(samples, &played.samples)));
    }
    let Report { client_lag_ms, emulator_error_ms, wan_error_ms, .. } = live.report;
    Ok(Report { client_lag_ms, emulator_error_ms, wan_error_ms, ..report })
}

/// Whether the emulated data plane can play it, too.
///
/// # Errors
/// What it cannot.
pub fn ensure_both(config: &SimulateConfig) -> Result<()> {
    let scene = &config.scene;
    demo::fleet::ensure_playable(&scene.fleet)?;
    ensure!(scene.fleet.routers.len() == 1, "only fleets with one central router are compared with their simulation");
    ensure!(matches!(&config.loads, Loads::Given(loads) if loads.len() == 1), "one load at a time can be played live");
    ensure!(config.draws.len() == 1, "one seed and one window at a time can be played live");
    ensure!(scene.faults.is_empty(), "faults are simulated only");
    ensure!(
        config.contenders.iter().all(|contender| contender.edge == Edge::default()),
        "the live routers learn what they learn: settings of the simulation cannot change it"
    );
    Ok(())
}

fn demo_of(config: &SimulateConfig) -> Result<DemoConfig> {
    let (scene, draw) = (&config.scene, config.draws[0]);
    let Loads::Given(loads) = &config.loads else { bail!("a load that is known") };
    let load = loads[0];
    let plan = scene.plan(load, draw)?;
    Ok(DemoConfig {
        strategies: config.contenders.iter().map(|contender| contender.routing.clone()).collect(),
        trace: scene.source.trace(draw.seed).into_owned(),
        options: PlanOptions { arrivals: load, seed: draw.seed, ..scene.options.clone() },
        warmup_s: scene.warmup_s(&plan),
        homes: homes(&scene.fleet.clients, &plan, draw.seed, scene.drift),
        plan: Arc::new(plan),
        fleet: scene.fleet.clone(),
        drain: Duration::from_secs_f64(scene.drain_s),
        slo: scene.slo,
        seed: draw.seed,
        described: config.described.clone(),
    })
}

/// The simulated requests of each strategy.
fn samples(config: &SimulateConfig) -> Result<Vec<Vec<Sample>>> {
    let Loads::Given(loads) = &config.loads else { return Ok(Vec::new()) };
    let stage = Stage::new(&config.scene, loads[0], &config.draws)?;
    config.contenders.iter().map(|contender| Ok(stage.played(contender, 0)?.samples)).collect()
}

fn beside(run: &Run, agreement: Option<f64>) -> Live {
    Live {
        requests: run.requests.clone(),
        ttft_ms: run.ttft_ms,
        e2e_ms: run.e2e_ms,
        tpot_ms: run.tpot_ms,
        cache: run.cache,
        share: run.routing.share.clone(),
        agreement,
    }
}

/// Share of the requests that the same replica served both ways; `None` unless all of them were sent and answered both ways.
fn agreement(one: &[Sample], other: &[Sample]) -> Option<f64> {
    if one.len() != other.len() || one.iter().chain(other).any(|sample| !sample.ok()) {
        return None;
    }
    let same = one.iter().zip(other).filter(|(one, other)| one.replica == other.replica).count();
    ratio(same as f64, one.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::agreement;
    use crate::model::Time;
    use crate::report::{Outcome, Sample};

    #[test]
    fn agreement_is_of_whole_runs_only() {
        let served = |replica: &str| Sample {
            replica: Some(replica.into()),
            outcome: Outcome::Ok,
            ..Sample::new(true, Time::ZERO, Time::ZERO, 1)
        };
        let (a, b) = (served("a"), served("b"));
        assert_eq!(agreement(&[a.clone(), b.clone()], &[a.clone(), a.clone()]), Some(0.5));
        assert_eq!(agreement(std::slice::from_ref(&a), &[a.clone(), b]), None);
        let lost = Sample { outcome: Outcome::Cancelled, ..a.clone() };
        assert_eq!(agreement(&[a], &[lost]), None);
    }
}
