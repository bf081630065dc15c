//! Evaluating strategies: any number of candidates on the same draws, as many runs at once as there are cores.
//!
//! This is what `gorgo simulate` compares with, what searches a fleet's capacity, and what a search of weights calls: a [`Stage`]
//! holds the draws of one load, so that candidates of several calls play the same requests over the same network and their figures
//! can be paired.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::crew;
use super::lot::Lot;
use super::scene::{Contender, Draw, Scene};
use crate::bench::Tally;
use crate::report::strict::{Strict, strict};
use crate::report::{Run, Sample};
use crate::routing::Settings;
use crate::sim::world::{self, Events, Observer, Played, Unobserved};
use crate::workload::{Arrivals, PlanError};

/// The draws of one load, ready to be played by any strategy.
#[derive(Debug)]
pub struct Stage<'a> {
    scene: &'a Scene,
    lots: Vec<Lot>,
}

/// A strategy on one draw.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Its figures.
    pub run: Run,
    /// Its latencies with the lost counted in.
    pub strict: Strict,
    /// What it took to simulate.
    pub events: Events,
}

/// Who watches an evaluation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Fires when it shall end early.
    pub stop: &'a CancellationToken,
    /// After a stop, runs under way count as far as they got.
    pub partial: bool,
    /// Live counts by candidate; empty where nobody looks.
    pub tallies: &'a [Arc<Tally>],
    /// Called after each run.
    pub finished: &'a (dyn Fn() + Sync),
}

/// The figures of a contender in a scene under a load, one run per draw, in order. The same draws again give the same figures.
///
/// # Errors
/// An unknown strategy or parameter, and options that do not fit the trace.
pub fn evaluate(scene: &Scene, contender: &Contender, load: Arrivals, draws: &[Draw]) -> Result<Vec<Run>> {
    let stage = Stage::new(scene, load, draws)?;
    let stop = CancellationToken::new();
    let watch = Watch { stop: &stop, partial: false, tallies: &[], finished: &|| {} };
    let done = stage.evaluate(std::slice::from_ref(contender), &watch)?;
    Ok(done.into_iter().flatten().flatten().map(|evaluated| evaluated.run).collect())
}

impl<'a> Stage<'a> {
    /// Makes the plans, homes and bounds of all draws.
    ///
    /// # Errors
    /// Options that do not fit the trace.
    pub fn new(scene: &'a Scene, load: Arrivals, draws: &[Draw]) -> Result<Self, PlanError> {
        let lots = draws.iter().map(|draw| Lot::new(scene, load, *draw)).collect::<Result<_, _>>()?;
        Ok(Self { scene, lots })
    }

    /// Requests of all draws together; `None` in a closed loop, of which nobody knows how far it gets.
    #[must_use]
    pub fn requests(&self) -> Option<u64> {
        let planned = self.lots.iter().map(|lot| lot.plan.requests() as u64).sum();
        self.lots.iter().all(|lot| lot.plan.concurrency.is_none()).then_some(planned)
    }

    /// What the figures alone do not say.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.lots.first().map(Lot::remarks).unwrap_or_default()
    }

    /// The candidates on all draws: by candidate, then by draw. Runs that a stop kept from ending are `None`.
    ///
    /// # Errors
    /// Unknown strategies or parameters.
    pub fn evaluate(&self, candidates: &[Contender], watch: &Watch<'_>) -> Result<Vec<Vec<Option<Evaluated>>>> {
        let (draws, jobs) = (self.lots.len(), self.lots.len() * candidates.len());
        // Draw by draw: an interrupted comparison then has whole draws.
        let mut done = crew::work(jobs, |job| {
            if watch.stop.is_cancelled() {
                return Ok(None);
            }
            let (draw, candidate) = (job / candidates.len(), job % candidates.len());
            let tally = watch.tallies.get(candidate).map(Arc::as_ref);
            let result = self.play(&candidates[candidate], &self.lots[draw], watch, tally);
            (watch.finished)();
            result
        });
        let mut by_candidate = vec![Vec::with_capacity(draws); candidates.len()];
        for (job, result) in done.drain(..).enumerate() {
            by_candidate[job % candidates.len()].push(result?);
        }
        Ok(by_candidate)
    }

    fn play(
        &self,
        candidate: &Contender,
        lot: &Lot,
        watch: &Watch<'_>,
        tally: Option<&Tally>,
    ) -> Result<Option<Evaluated>> {
        let played = self.simulate(candidate, lot, &mut Feed { tally, stop: watch.stop })?;
        if played.stopped && !watch.partial {
            return Ok(None);
        }
        let run = lot.judge(self.scene, &candidate.name, &played);
        let strict = strict(&played.samples, played.unsent);
        Ok(Some(Evaluated { run, strict, events: played.events }))
    }

    /// The requests of a candidate on the draw of this index.
    pub(super) fn played(&self, candidate: &Contender, draw: usize) -> Result<Played> {
        self.simulate(candidate, &self.lots[draw], &mut Unobserved)
    }

    fn simulate(&self, candidate: &Contender, lot: &Lot, observer: &mut dyn Observer) -> Result<Played> {
        let routing = Settings { seed: lot.draw.seed, ..candidate.routing.clone() };
        world::run(&lot.scenario(self.scene, &routing, candidate.edge), observer)
            .with_context(|| format!("strategy `{}`", candidate.name))
    }
}

/// Feeds a progress line.
struct Feed<'a> {
    tally: Option<&'a Tally>,
    stop: &'a CancellationToken,
}

impl Observer for Feed<'_> {
    fn sent(&mut self) {
        if let Some(tally) = self.tally {
            tally.sent();
        }
    }

    fn ended(&mut self, sample: &Sample, home: &str) {
        if let Some(tally) = self.tally {
            tally.ended(sample, Some(home));
        }
    }

    fn goes_on(&mut self) -> bool {
        !self.stop.is_cancelled()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio_util::sync::CancellationToken;

    use super::{Stage, Watch, evaluate};
    use crate::bench::demo::fleet::{default_fleet, specs};
    use crate::bench::simulate::{Contender, Draw, Scene, Source};
    use crate::routing::Settings;
    use crate::sim::world::Edge;
    use crate::workload::{Arrivals, PlanOptions, Trace};

    const LOAD: Arrivals = Arrivals::Poisson { per_s: 2.0 };

    pub(in crate::bench::simulate) fn scene() -> Scene {
        let fleet = default_fleet().unwrap();
        Scene {
            specs: specs(&fleet).unwrap(),
            fleet,
            source: Source::Trace(Box::new(Trace::bundled().unwrap())),
            options: PlanOptions { seconds: Some(10.0), ..PlanOptions::new(LOAD, 0) },
            drift: 0.0,
            faults: Vec::new(),
            warmup_s: Some(1.0),
            drain_s: 60.0,
            slo: None,
        }
    }

    pub(in crate::bench::simulate) fn strategy(name: &str) -> Contender {
        Contender::new(Settings { strategy: name.into(), ..Settings::default() }, Edge::default())
    }

    #[test]
    fn alone_or_among_others_a_strategy_has_the_same_figures() {
        let scene = scene();
        let draws = Draw::all(&[], &[1, 2]);
        let alone = evaluate(&scene, &strategy("random"), LOAD, &draws).unwrap();
        assert_eq!(alone.len(), 2);
        assert_ne!(alone[0].ttft_ms, alone[1].ttft_ms, "another draw");
        let stage = Stage::new(&scene, LOAD, &draws).unwrap();
        let stop = CancellationToken::new();
        let watch = Watch { stop: &stop, partial: false, tallies: &[], finished: &|| {} };
        let together = stage.evaluate(&[strategy("gorgo"), strategy("random")], &watch).unwrap();
        let random: Vec<_> = together[1].iter().flatten().map(|evaluated| evaluated.run.clone()).collect();
        assert_eq!(random, alone);
        let requests = |runs: &[Option<super::Evaluated>]| -> Vec<u64> {
            runs.iter().flatten().map(|evaluated| evaluated.run.requests.total).collect()
        };
        assert_eq!(requests(&together[0]), requests(&together[1]), "the same requests for everybody");
    }

    #[test]
    fn what_is_unknown_is_an_error_and_what_was_stopped_is_missing() {
        let scene = scene();
        let draws = Draw::all(&[], &[1, 2]);
        assert!(evaluate(&scene, &strategy("nearest"), LOAD, &draws).is_err());
        let stop = CancellationToken::new();
        stop.cancel();
        let watch = Watch { stop: &stop, partial: false, tallies: &[], finished: &|| {} };
        let stopped = Stage::new(&scene, LOAD, &draws).unwrap().evaluate(&[strategy("gorgo")], &watch).unwrap();
        assert!(stopped[0].iter().all(Option::is_none));
    }
}
