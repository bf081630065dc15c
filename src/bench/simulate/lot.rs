//! One draw of a load: its plan, where its clients stand, and the bound of its requests.

use super::scene::{Draw, Scene};
use super::ways::Ways;
use crate::bench::demo::cost;
use crate::bench::limit::{Limit, limit};
use crate::bench::load::load;
use crate::report::{Rules, Run, Sample, summarise};
use crate::routing::Settings;
use crate::sim::world::{Edge, Measured, Played, Scenario};
use crate::workload::{Arrivals, Home, Plan, PlanError, homes};

/// What all contenders of a draw have in common.
#[derive(Debug)]
pub(super) struct Lot {
    pub(super) draw: Draw,
    load: Arrivals,
    pub(super) plan: Plan,
    homes: Vec<Home>,
    measured: Measured,
    limit: Option<Limit>,
}

impl Lot {
    pub(super) fn new(scene: &Scene, load: Arrivals, draw: Draw) -> Result<Self, PlanError> {
        let plan = scene.plan(load, draw)?;
        let homes = homes(&scene.fleet.clients, &plan, draw.seed, scene.drift);
        let from_ms = scene.warmup_s(&plan) * 1000.0;
        let to_ms = scene.options.seconds.map_or(f64::INFINITY, |seconds| seconds * 1000.0);
        let measured = Measured { from_ms, to_ms, drain_ms: scene.drain_s * 1000.0 };
        let ways = Ways::new(scene);
        let rtt_ms = |session: usize, kind: usize| ways.rtt_ms(homes[session], kind);
        // In a closed loop each strategy gets as far in the plan as it can: there is no common set of requests to bound.
        let limit = plan.concurrency.is_none().then(|| limit(&plan, &ways.specs, rtt_ms, from_ms));
        Ok(Self { draw, load, plan, homes, measured, limit })
    }

    /// The scenario of one contender.
    pub(super) fn scenario<'a>(&'a self, scene: &'a Scene, routing: &'a Settings, edge: Edge) -> Scenario<'a> {
        Scenario {
            fleet: &scene.fleet,
            specs: &scene.specs,
            plan: &self.plan,
            homes: &self.homes,
            routing,
            edge,
            faults: &scene.faults,
            measured: self.measured,
            seed: self.draw.seed,
        }
    }

    /// The figures of a run.
    pub(super) fn judge(&self, scene: &Scene, name: &str, played: &Played) -> Run {
        // A bound on requests that were not all sent would compare different ones.
        let limit = self.limit.as_ref().filter(|_| !played.stopped);
        let from_s = self.measured.from_ms / 1000.0;
        let to_s = if self.measured.to_ms.is_finite() && !played.stopped {
            self.measured.to_ms / 1000.0
        } else {
            last_start_s(&played.samples).max(from_s)
        };
        let rules = Rules {
            from_s,
            to_s,
            slo: scene.slo,
            home: None,
            infinite_cache_ratio: limit.and_then(|limit| limit.infinite_cache_ratio),
        };
        let mut run = summarise(name, load(self.load), &played.samples, &rules);
        run.requests.unsent = played.unsent;
        run.requests.retried = played.retried;
        run.prediction.ttft_error_median = played.prediction_error_ms;
        run.prediction.ttft_error_ratio = played.prediction_error_ratio;
        run.bound = limit.map(|limit| limit.bound.clone());
        run.cost = cost(&scene.specs, to_s - from_s);
        run
    }

    /// What the figures alone do not say.
    pub(super) fn remarks(&self) -> Vec<String> {
        let bounded = self.limit.is_some();
        let remark = "no lower bound: in a closed loop there is no common set of requests to bound";
        if bounded { Vec::new() } else { vec![remark.to_owned()] }
    }
}

/// When the last request was sent, s.
fn last_start_s(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.sent.ms()).fold(0.0, f64::max) / 1000.0
}
