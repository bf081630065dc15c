//! All loads, one after the other: each with all strategies on all draws at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::pooled::pooled;
use super::scene::Contender;
use super::stage::{Evaluated, Stage, Watch};
use super::{Planned, SimulateConfig};
use crate::bench::Board;
use crate::report::compare::Draws;
use crate::report::schema::{Bound, Latency};
use crate::report::strict::Strict;
use crate::report::{Run, seeds};
use crate::routing::Settings;
use crate::sim::world::{Edge, Events, News};

/// What was played.
#[derive(Default)]
pub(super) struct Played {
    /// By load and strategy, one run per draw.
    pub(super) loads: Vec<Vec<Draws>>,
    /// The same of the latencies with the lost counted in.
    pub(super) strict: Vec<Vec<Vec<Option<Strict>>>>,
    pub(super) events: Events,
    pub(super) remarks: Vec<String>,
}

/// Plays all loads, or as many as are finished before a stop.
pub(super) fn play(
    config: &SimulateConfig,
    loads: &[Planned],
    board: &Board,
    stop: &CancellationToken,
) -> Result<Played> {
    let mut played = Played::default();
    let mut tallies = Vec::new();
    let (all, finished) = (loads.len() * config.contenders.len() * config.draws.len(), AtomicUsize::new(0));
    let say = |finished: usize| board.phase(format!("{finished} of {all} runs done"));
    say(0);
    for load in loads.iter().take_while(|_| !stop.is_cancelled()) {
        let stage = Stage::new(&config.scene, load.arrivals, &config.draws)?;
        if tallies.is_empty() {
            let planned = stage.requests().filter(|_| loads.len() == 1);
            tallies = config.contenders.iter().map(|contender| board.line(&contender.name, planned)).collect();
        }
        let watch = Watch {
            stop,
            partial: loads.len() * config.draws.len() == 1,
            tallies: &tallies,
            finished: &|| say(finished.fetch_add(1, Ordering::Relaxed) + 1),
        };
        let done = stage.evaluate(&config.contenders, &watch)?;
        played.add(done, &pooled_e2e_ms(config, load, &watch)?, load);
        played.remarks.extend(stage.remarks());
    }
    Ok(played)
}

impl Played {
    /// What was evaluated under a load, by strategy and draw.
    fn add(&mut self, done: Vec<Vec<Option<Evaluated>>>, pooled_e2e_ms: &[Option<Latency>], load: &Planned) {
        let strict = |draws: &Vec<Option<Evaluated>>| draws.iter().map(|one| Some(one.as_ref()?.strict)).collect();
        self.strict.push(done.iter().map(strict).collect());
        let mut run = |(evaluated, pooled_e2e_ms): (Option<Evaluated>, &Option<Latency>)| {
            let Evaluated { mut run, events, .. } = evaluated?;
            run.bound = run.bound.map(|bound| Bound { pooled_e2e_ms: *pooled_e2e_ms, ..bound });
            self.events.handled += events.handled;
            self.events.tokens += events.tokens;
            run.load.of_capacity = load.of_capacity;
            Some(run)
        };
        let runs = done.into_iter().map(|draws| draws.into_iter().zip(pooled_e2e_ms).map(&mut run).collect()).collect();
        self.loads.push(runs);
    }
}

/// E2E of the pooled engine on each draw; unknown in a closed loop, in which it would send other requests.
fn pooled_e2e_ms(config: &SimulateConfig, load: &Planned, watch: &Watch<'_>) -> Result<Vec<Option<Latency>>> {
    let scene = pooled(&config.scene);
    let stage = Stage::new(&scene, load.arrivals, &config.draws)?;
    if stage.requests().is_none() {
        return Ok(vec![None; config.draws.len()]);
    }
    let quiet = Watch { tallies: &[], finished: &|| {}, partial: false, ..*watch };
    let settings = Settings { strategy: "round-robin".into(), ..Settings::default() };
    let any = Contender::new(settings, Edge { news: News::Own, ..config.contenders[0].edge });
    let mut done = stage.evaluate(&[any], &quiet)?;
    Ok(done.swap_remove(0).into_iter().map(|evaluated| Some(evaluated?.run.e2e_ms)).collect())
}

/// A run per load and strategy: its draws as one, with ratios to the baseline under the same load.
pub(super) fn runs(config: &SimulateConfig, loads: &[Vec<Draws>]) -> Vec<Run> {
    let draws: Vec<seeds::Draw> = config.draws.iter().map(|draw| draw.described()).collect();
    let named = |runs: &Draws| -> Vec<(seeds::Draw, Run)> {
        draws.iter().zip(runs).filter_map(|(draw, run)| Some((*draw, run.clone()?))).collect()
    };
    let mut merged = Vec::new();
    for load in loads {
        let baseline = named(&load[config.baseline]);
        for (strategy, own) in load.iter().map(named).enumerate() {
            let paired = (strategy != config.baseline).then(|| seeds::paired(&own, &baseline)).flatten();
            merged.extend(seeds::merge(own).map(|run| Run { paired, ..run }));
        }
    }
    merged
}
