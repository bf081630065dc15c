//! What strategies are simulated on: a fleet, requests and what goes wrong; who plays, and what is drawn.

use std::borrow::Cow;

use crate::report::{self, seeds};
use crate::routing::admission::predicts;
use crate::routing::{Class, Settings, Slo, policy};
use crate::sim::engine::EngineSpec;
use crate::sim::fault::Fault;
use crate::sim::world::{Edge, News};
use crate::workload::arrivals::Window;
use crate::workload::{Arrivals, Fleet, Generator, Plan, PlanError, PlanOptions, Trace};

/// Longest warm-up when none is given, s: that of the papers' own simulations' first minute.
const LONGEST_WARMUP_S: f64 = 60.0;
/// Share of the starts that the warm-up takes when none is given.
const WARMUP_SHARE: f64 = 0.2;

/// One row of the report: what plays the workload.
#[derive(Clone, Debug)]
pub struct Contender {
    /// How the report calls it.
    pub name: String,
    /// Its strategy with parameters and limits; its seed is the draw's.
    pub routing: Settings,
    /// What its routers learn, how late and how often.
    pub edge: Edge,
}

impl Contender {
    /// A strategy under its own name.
    #[must_use]
    pub fn new(routing: Settings, edge: Edge) -> Self {
        Self { name: routing.strategy.clone(), routing, edge }
    }

    /// The same with routers that refuse who is predicted to have its first token later than `ttft_ms`; `None` for a strategy that predicts
    /// nothing.
    #[must_use]
    pub fn admitting(&self, ttft_ms: f64) -> Option<Self> {
        let entry = policy::find(&self.routing.strategy).ok().filter(|entry| predicts(entry))?;
        let default = Class { ttft_ms: Some(ttft_ms), ..Class::default() };
        let slo = Slo { default, ..self.routing.slo.clone() };
        let routing = Settings { slo, ..self.routing.clone() };
        Some(Self { name: format!("{} (admit)", entry.name), routing, edge: self.edge })
    }

    /// The same with routers that know everything of each other at once: the bound of what news can give.
    #[must_use]
    pub fn omniscient(&self) -> Self {
        let edge = Edge { news: News::Oracle, ..self.edge };
        Self { name: format!("{} (oracle)", self.name), routing: self.routing.clone(), edge }
    }
}

/// A scenario without its strategy, load and draw.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Routers, replicas, clients, network.
    pub fleet: Fleet,
    /// The engines of its replicas.
    pub specs: Vec<EngineSpec>,
    /// The requests.
    pub source: Source,
    /// How plans are made from them; arrivals come from the load, seed and window from the draw.
    pub options: PlanOptions,
    /// How many places the shares of clients move on during the run.
    pub drift: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Sessions that start before do not count, s; `None`: a fifth of the starts, at most a minute.
    pub warmup_s: Option<f64>,
    /// Longest virtual time after the last start, s.
    pub drain_s: f64,
    /// Objectives.
    pub slo: Option<report::Slo>,
}

/// One draw of what is random: the requests, where their clients stand, the network. Strategies that play the same draw can be paired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Seed of everything random.
    pub seed: u64,
    /// Only this part of the trace's time.
    pub window: Option<Window>,
}

impl Draw {
    /// As reports show it.
    #[must_use]
    pub(super) fn described(&self) -> seeds::Draw {
        let end_s = |window: Window| window.to_ms.is_finite().then_some(window.to_ms / 1000.0);
        seeds::Draw { seed: self.seed, window_s: self.window.map(|window| (window.from_ms / 1000.0, end_s(window))) }
    }

    /// Every seed in every window, window by window; without windows the whole trace.
    #[must_use]
    pub fn all(windows: &[Window], seeds: &[u64]) -> Vec<Self> {
        let windows: Vec<Option<Window>> =
            if windows.is_empty() { vec![None] } else { windows.iter().copied().map(Some).collect() };
        windows.iter().flat_map(|window| seeds.iter().map(|seed| Self { seed: *seed, window: *window })).collect()
    }
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

impl Scene {
    /// The plan of a draw under a load.
    ///
    /// # Errors
    /// Options that do not fit the trace.
    pub fn plan(&self, load: Arrivals, draw: Draw) -> Result<Plan, PlanError> {
        let arrivals = match (load, draw.window) {
            (Arrivals::Replay { time_scale, window }, own) => Arrivals::Replay { time_scale, window: own.or(window) },
            (other, _) => other,
        };
        let options = PlanOptions { arrivals, seed: draw.seed, ..self.options.clone() };
        crate::workload::build(&self.source.trace(draw.seed), &options)
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

#[cfg(test)]
mod tests {
    use super::{Draw, Scene, Source};
    use crate::bench::simulate::evaluate;
    use crate::bench::simulate::stage::tests::{scene, strategy};
    use crate::report::{Run, Slo};
    use crate::workload::arrivals::Window;
    use crate::workload::{Arrivals, Generator, PlanOptions};

    /// Short prompts, each at its time, three times as many as the fleet can do; of those that come back each is judged by its first time.
    #[test]
    fn beyond_capacity_refusing_the_late_serves_more_in_time_unless_they_come_back() {
        let load = Arrivals::Replay { time_scale: 0.3, window: None };
        let base = scene();
        let options = PlanOptions { seconds: Some(20.0), max_output: Some(50), open_loop: true, ..base.options };
        let scene = Scene {
            source: Source::Generated { generator: Generator::WildLike, max_input: 20_000 },
            options,
            slo: Some(Slo { ttft_ms: Some(1000.0), ..Slo::default() }),
            drain_s: 600.0,
            ..base
        };
        let run = |contender| -> Run {
            evaluate(&scene, &contender, load, &[Draw { seed: 1, window: None }]).unwrap().swap_remove(0)
        };
        let plain = strategy("predictive");
        let admitting = plain.admitting(1000.0).unwrap();
        assert_eq!(admitting.name, "predictive (admit)");
        let mut coming_back = admitting.clone();
        coming_back.edge.come_back_ms = 2000.0;
        let [plain, admitted, returned] = [plain, admitting, coming_back].map(run);
        let good = |run: &Run| run.goodput.and_then(|good| good.share).unwrap();
        let refused = [&plain, &admitted, &returned].map(|run| run.requests.refused);
        assert!(refused[0] == 0 && refused[1] > 0 && refused[2] == 0, "{refused:?}");
        assert!(good(&admitted) > good(&plain) + 0.1, "{} and {}", good(&admitted), good(&plain));
        assert!(good(&returned) < good(&admitted), "{} and {}", good(&returned), good(&admitted));
        assert!(returned.ttft_ms.p99 > admitted.ttft_ms.p99, "{:?} and {:?}", returned.ttft_ms, admitted.ttft_ms);
        assert!(strategy("random").admitting(1000.0).is_none(), "it predicts nothing");
    }

    #[test]
    fn draws_are_every_seed_in_every_window() {
        let window = |from_s: f64| Window { from_ms: from_s * 1000.0, to_ms: (from_s + 1.0) * 1000.0 };
        let of = |draws: Vec<Draw>| -> Vec<(u64, Option<f64>)> {
            draws.iter().map(|draw| (draw.seed, draw.window.map(|window| window.from_ms))).collect()
        };
        assert_eq!(of(Draw::all(&[], &[1, 2])), [(1, None), (2, None)]);
        let windows = [window(0.0), window(5.0)];
        let wanted = [(7, Some(0.0)), (8, Some(0.0)), (7, Some(5000.0)), (8, Some(5000.0))];
        assert_eq!(of(Draw::all(&windows, &[7, 8])), wanted);
    }
}
