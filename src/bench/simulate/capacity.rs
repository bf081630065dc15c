//! How much of a trace a fleet can take: the highest load at which a strategy still keeps up.
//!
//! Kept up has a strategy that lost nothing and whose p95 of TTFT is at most [`PATIENCE`] times what the best strategy has on the nearly
//! idle fleet. Beyond capacity queues grow for as long as requests come, so that the limit is crossed steeply and its exact height
//! matters little. The load is found by bisection; at each one all strategies are tried, since capacity is what the best of them makes
//! of the fleet: caches that hit are capacity, too.

use anyhow::{Result, bail};

use super::scene::{Contender, Draw, Scene};
use super::stage::{Stage, Watch};
use crate::bench::demo::pace;
use crate::report::Run;
use crate::report::figures::{MAX_LOST_SHARE, lost_share};
use crate::report::schema::Capacity;
use crate::workload::{Arrivals, PlanOptions};

/// How many times as long as on the idle fleet the slowest twentieth of first tokens may take.
pub const PATIENCE: f64 = 2.0;
/// Share of the estimated capacity at which a fleet is taken to be nearly idle.
const IDLE: f64 = 1.0 / 16.0;
/// The bisection ends when the ends are this close: their ratio.
const CLOSE: f64 = 1.02;
/// Most loads that are tried on the way to two ends that hold the capacity between them; each doubles or halves the one before.
const MOST_DOUBLINGS: u32 = 12;

/// What is changed to change the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The factor on the trace's own times.
    TimeScale,
    /// Session starts per second.
    Rate,
}

impl Pace {
    /// The load at a speed: sessions per second, or how many times as fast as recorded.
    #[must_use]
    pub fn at(self, speed: f64) -> Arrivals {
        match self {
            Self::TimeScale => Arrivals::Replay { time_scale: 1.0 / speed, window: None },
            Self::Rate => Arrivals::Poisson { per_s: speed },
        }
    }

    /// A guess at the speed that the fleet can take with nothing cached.
    fn guess(self, scene: &Scene, draw: Draw) -> f64 {
        let trace = scene.source.trace(draw.seed);
        let per_s = pace::capacity_per_s(&scene.specs, &trace, scene.options.max_output);
        match self {
            Self::Rate => per_s * trace.episodes.len() as f64 / trace.requests().max(1) as f64,
            Self::TimeScale => pace::offered_per_s(&trace).map_or(1.0, |offered| per_s / offered),
        }
    }
}

/// A search under way.
struct Search<'a> {
    scene: &'a Scene,
    contenders: &'a [Contender],
    pace: Pace,
    draw: Draw,
    watch: &'a Watch<'a>,
    /// Speeds tried.
    probes: u32,
}

/// The capacity of the scene's fleet for its trace, and the speed that stands for it. `None` after a stop.
///
/// # Errors
/// Unknown strategies, options that do not fit the trace, and fleets that are never busy or always are.
pub fn capacity(
    scene: &Scene,
    contenders: &[Contender],
    (pace, draw): (Pace, Draw),
    watch: &Watch<'_>,
) -> Result<Option<(f64, Capacity)>> {
    let guess = pace.guess(scene, draw);
    let slow = Scene { options: longer(scene, pace), ..scene.clone() };
    let Some(idle) = (Search { scene: &slow, contenders, pace, draw, watch, probes: 0 }).play(guess * IDLE)? else {
        return Ok(None);
    };
    let idle_ms = idle.iter().filter_map(p95_ms).fold(f64::INFINITY, f64::min);
    if !idle_ms.is_finite() {
        bail!("no strategy keeps up with a sixteenth of the load that this fleet is estimated to take");
    }
    let limit_ms = PATIENCE * idle_ms;
    let mut search = Search { scene, contenders, pace, draw, watch, probes: 1 };
    let Some(found) = search.between(guess, limit_ms)? else { return Ok(None) };
    let (speed, best) = found;
    let capacity = Capacity { load: best.load, strategy: best.strategy, limit_ms, idle_ms, probes: search.probes };
    Ok(Some((speed, capacity)))
}

/// The scene's options with so much time that as many sessions start on the nearly idle fleet as would at the guessed load.
fn longer(scene: &Scene, pace: Pace) -> PlanOptions {
    let stretch = if pace == Pace::Rate { 1.0 / IDLE } else { 1.0 };
    PlanOptions { seconds: scene.options.seconds.map(|seconds| seconds * stretch), ..scene.options.clone() }
}

impl Search<'_> {
    /// The strategies' figures at a speed; `None` after a stop.
    fn play(&mut self, speed: f64) -> Result<Option<Vec<Run>>> {
        self.probes += 1;
        let stage = Stage::new(self.scene, self.pace.at(speed), &[self.draw])?;
        let done = stage.evaluate(self.contenders, self.watch)?;
        Ok(done.into_iter().map(|mut draws| Some(draws.pop()??.run)).collect())
    }

    /// The best strategy's run at a speed if it kept up.
    fn keeps_up(&mut self, speed: f64, limit_ms: f64) -> Result<Option<Option<Run>>> {
        let Some(runs) = self.play(speed)? else { return Ok(None) };
        let fit = runs.into_iter().filter(|run| p95_ms(run).is_some_and(|ms| ms <= limit_ms));
        Ok(Some(fit.min_by(|a, b| a.ttft_ms.p95.unwrap_or(0.0).total_cmp(&b.ttft_ms.p95.unwrap_or(0.0)))))
    }

    /// Two speeds, one kept up with and one not, drawn together.
    fn between(&mut self, guess: f64, limit_ms: f64) -> Result<Option<(f64, Run)>> {
        let Some(first) = self.keeps_up(guess, limit_ms)? else { return Ok(None) };
        let up = first.is_some();
        let (mut speed, mut kept) = (guess, first.map(|run| (guess, run)));
        let mut other = None;
        for _ in 0..MOST_DOUBLINGS {
            speed *= if up { 2.0 } else { 0.5 };
            let Some(found) = self.keeps_up(speed, limit_ms)? else { return Ok(None) };
            match (found, up) {
                (Some(run), true) => kept = Some((speed, run)),
                (Some(run), false) => {
                    kept = Some((speed, run));
                    other = Some(speed * 2.0);
                    break;
                }
                (None, true) => {
                    other = Some(speed);
                    break;
                }
                (None, false) => {}
            }
        }
        let (Some(kept), Some(lost)) = (kept, other) else {
            bail!(
                "no capacity was found: the fleet keeps up with everything or with nothing up to {speed:.3} times the trace's speed or rate"
            );
        };
        self.bisect(kept, lost, limit_ms)
    }

    fn bisect(&mut self, mut kept: (f64, Run), mut lost: f64, limit_ms: f64) -> Result<Option<(f64, Run)>> {
        while lost / kept.0 > CLOSE {
            let middle = (lost * kept.0).sqrt();
            let Some(found) = self.keeps_up(middle, limit_ms)? else { return Ok(None) };
            match found {
                Some(run) => kept = (middle, run),
                None => lost = middle,
            }
        }
        Ok(Some(kept))
    }
}

/// TTFT p95 of a run that lost next to nothing.
fn p95_ms(run: &Run) -> Option<f64> {
    run.ttft_ms.p95.filter(|_| lost_share(run) <= MAX_LOST_SHARE)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::{CLOSE, Pace, capacity};
    use crate::bench::simulate::stage::tests::{scene, strategy};
    use crate::bench::simulate::{Draw, Watch, evaluate};

    #[test]
    fn beyond_the_capacity_nobody_keeps_up_and_at_it_the_named_strategy_does() {
        let (scene, draw) = (scene(), Draw { seed: 3, window: None });
        let strategies = [strategy("random"), strategy("gorgo")];
        let stop = CancellationToken::new();
        let watch = Watch { stop: &stop, partial: false, tallies: &[], finished: &|| {} };
        let (speed, found) = capacity(&scene, &strategies, (Pace::Rate, draw), &watch).unwrap().unwrap();
        assert_eq!(found.load.sessions_per_s, Some(speed));
        let p95_ms = |name: &str, speed: f64| {
            let runs = evaluate(&scene, &strategy(name), Pace::Rate.at(speed), &[draw]).unwrap();
            runs[0].ttft_ms.p95.unwrap()
        };
        assert!(p95_ms(&found.strategy, speed) <= found.limit_ms);
        for name in ["random", "gorgo"] {
            assert!(p95_ms(name, speed * CLOSE * CLOSE) > found.limit_ms, "{name}");
        }
        stop.cancel();
        assert!(capacity(&scene, &strategies, (Pace::Rate, draw), &watch).unwrap().is_none());
    }
}
