//! `gorgo-online`: the score of `gorgo-v3`, with weights that the paper's tuner moves on live requests, as a baseline.
//!
//! ```text
//! score = w_rtt · rtt_ms  +  prefill_rate · uncached  +  w_queue · queue_rate · queued        uncached tokens
//! ```
//!
//! Terms as in [`super::gorgo_v3`]; the tuner and what is wrong with it: [`Evolution`]. `w_rtt` and `w_queue` are where it starts. Its
//! samples are times from dispatch to first token of the requests that were answered in full, each for the proposal in force when its
//! answer ends, as in the authors' code. Every decision shows the weights in force.
//!
//! Different from it is what is different in [`super::gorgo_v3`], and the acceptance (`slip`).

use std::collections::BTreeMap;

use super::gorgo::PAPER_MS_PER_TOKEN;
use super::gorgo_v3::GorgoV3;
use super::observation::{Event, Observation};
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Terms, Unit};
use crate::routing::tune::{Evolution, EvolutionSettings, Weight};

const fn parameter(key: &'static str, default: f64, min: f64, max: f64, help: &'static str) -> Parameter {
    Parameter { key, default, min, max, help }
}

/// Smallest end of a range: the search is over logarithms.
const SMALLEST: f64 = 0.000_001;

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo-online",
    help: "the paper's score, its weights moved by the paper's tuner on live requests",
    unit: Unit::Tokens,
    parameters: &[
        parameter("w_rtt", 0.5, SMALLEST, 1000.0, "tokens per ms of round trip at the start"),
        parameter("w_rtt_min", 0.05, SMALLEST, 1000.0, "smallest that the tuner may set"),
        parameter("w_rtt_max", 2.0, SMALLEST, 1000.0, "largest that the tuner may set"),
        parameter("w_queue", 0.1, SMALLEST, 100.0, "weight of the queue at the start"),
        parameter("w_queue_min", 0.05, SMALLEST, 100.0, "smallest that the tuner may set"),
        parameter("w_queue_max", 0.5, SMALLEST, 100.0, "largest that the tuner may set"),
        parameter("window", 128.0, 1.0, 100_000.0, "answered requests in a score"),
        parameter("hop", 32.0, 1.0, 100_000.0, "answered requests between two scores"),
        parameter("sigma", 0.5, 0.000_1, 10.0, "first step size, natural logarithm"),
        parameter("stop", 0.05, 0.000_1, 10.0, "step size below which the weights stay"),
        parameter(
            "slip",
            0.0,
            0.0,
            1.0,
            "share by which a score may be worse and is accepted (the authors' program: 0.005)",
        ),
        parameter("prefill_rate", 1.0, 0.0, 1000.0, "weight of an uncached token"),
        parameter("queue_rate", 1.0, 0.0, 1000.0, "weight of a queued token before w_queue"),
        parameter(
            "reference_ms_per_token",
            PAPER_MS_PER_TOKEN,
            SMALLEST,
            1000.0,
            "rate in ms per token of a replica that counts as 1, for replicas with rates of their own",
        ),
    ],
    build: |parameters, seed| Box::new(GorgoOnline::new(parameters, seed)),
};

struct GorgoOnline {
    score: GorgoV3,
    tuner: Evolution,
    under_way: BTreeMap<RequestId, Flight>,
}

/// A request at a replica.
struct Flight {
    replica: ReplicaId,
    dispatched: Time,
    /// Once it is known.
    ttft_s: Option<f64>,
}

impl GorgoOnline {
    fn new(parameters: &Parameters, seed: u64) -> Self {
        let get = |key| parameters.get(key);
        let weight = |start, min, max| Weight { start: get(start), min: get(min), max: get(max) };
        let settings = EvolutionSettings {
            window: get("window") as usize,
            hop: get("hop") as usize,
            sigma: get("sigma"),
            stop: get("stop"),
            slip: get("slip"),
            weights: vec![weight("w_rtt", "w_rtt_min", "w_rtt_max"), weight("w_queue", "w_queue_min", "w_queue_max")],
        };
        let mut online =
            Self { score: GorgoV3::new(parameters), tuner: Evolution::new(settings, seed), under_way: BTreeMap::new() };
        online.set();
        online
    }

    /// Puts the tuner's weights in force.
    fn set(&mut self) {
        if let [w_rtt, w_queue] = *self.tuner.weights() {
            self.score.reweigh(w_rtt, w_queue);
        }
    }
}

impl Policy for GorgoOnline {
    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        self.score.terms(query, candidate)
    }

    fn moved(&self) -> Terms {
        let [w_rtt, w_queue] = *self.tuner.weights() else { return Terms::new() };
        let frozen = f64::from(u8::from(self.tuner.is_frozen()));
        terms([("w_rtt", w_rtt), ("w_queue", w_queue), ("sigma", self.tuner.sigma()), ("frozen", frozen)])
    }

    fn observe(&mut self, now: Time, observation: &Observation<'_>) {
        match observation.event {
            Event::Dispatched(sent) => {
                let replica = observation.replica.id;
                self.under_way.insert(sent.request, Flight { replica, dispatched: now, ttft_s: None });
            }
            Event::FirstToken { request } => {
                if let Some(flight) = self.under_way.get_mut(&request) {
                    flight.ttft_s = Some(now.since_ms(flight.dispatched) / 1000.0);
                }
            }
            Event::Finished { request, .. } => {
                let ttft_s = self.under_way.remove(&request).and_then(|flight| flight.ttft_s);
                if ttft_s.is_some_and(|ttft_s| self.tuner.answered(ttft_s).is_some()) {
                    self.set();
                }
            }
            Event::Left { request } | Event::Lost { request } => {
                self.under_way.remove(&request);
            }
            // Nothing more will be seen of them.
            Event::Removed => self.under_way.retain(|_, flight| flight.replica != observation.replica.id),
            Event::Emptied => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores_seeded;
    use super::super::{Event, Observation, Parameters, Sent, find};
    use crate::model::{RequestId, Time};
    use crate::routing::fleet::Fleet;
    use crate::routing::{Features, ReplicaSpec, Usage};

    #[test]
    fn cases() {
        let log = scores_seeded(
            "gorgo-online",
            "window=2 hop=1",
            5,
            "
            # the starting weights
            prompt=1000 go=1
            near rtt=2 cached=0 sent=100
            far rtt=165 cached=0
            > first 1 near at=100
            > first 1 far at=100
            > done 1 far at=500

            # one answer is no window yet; one that was left counts for nothing
            prompt=1000 go=2
            near rtt=2 cached=0 sent=100
            far rtt=165 cached=0
            > first 2 near at=100
            > left 2 near at=200

            # the second answer fills it: a proposal is live
            prompt=1000 go=3
            near rtt=2 cached=0 sent=100
            far rtt=165 cached=0
            > first 3 near at=300
            > done 3 near at=400

            prompt=1000
            near rtt=2 cached=0 sent=100
            far rtt=165 cached=0

            # rates of its own count as in gorgo-v3
            prompt=1000
            near rtt=2 prefill=0.188 queue=0.047 sent=100
            ",
        );
        assert_snapshot!(log, @"
        # the starting weights
        near    1011.000 = network 1.000 + prefill 1000.000 + queue 10.000  <-
        far     1082.500 = network 82.500 + prefill 1000.000 + queue 0.000

        # one answer is no window yet; one that was left counts for nothing
        near    1011.000 = network 1.000 + prefill 1000.000 + queue 10.000  <-
        far     1082.500 = network 82.500 + prefill 1000.000 + queue 0.000

        # the second answer fills it: a proposal is live
        near    1011.000 = network 1.000 + prefill 1000.000 + queue 10.000  <-
        far     1082.500 = network 82.500 + prefill 1000.000 + queue 0.000

        near    1011.743 = network 0.584 + prefill 1000.000 + queue 11.159  <-
        far     1048.195 = network 48.195 + prefill 1000.000 + queue 0.000

        # rates of its own count as in gorgo-v3
        near    2006.163 = network 0.584 + prefill 2000.000 + queue 5.579  <-
        ");
    }

    /// The weights after each answer, told to the rule as a router tells it.
    #[test]
    fn live_answers_move_the_weights_as_the_tuner_says() {
        let entry = find("gorgo-online").unwrap();
        let mut policy = (entry.build)(&Parameters::resolve(entry.name, entry.parameters, &[]).unwrap(), 7);
        let mut fleet = Fleet::default();
        let id = fleet.upsert(ReplicaSpec::engine("a"));
        let replica = fleet.get(id).unwrap();
        let features = std::sync::Arc::new(Features::default());
        let mut log = Vec::new();
        for number in 0..1000_u64 {
            let request = RequestId(number);
            let ttft_ms = if number < 128 { 500.0 } else { 600.0 };
            let sent =
                Sent { request, features: &features, prompt_tokens: 1, cached_tokens: 0, rtt_ms: 0.0, ttft_ms: None };
            for (at, event) in [
                (0.0, Event::Dispatched(sent)),
                (ttft_ms, Event::FirstToken { request }),
                (900.0, Event::Finished { request, usage: Usage::default() }),
            ] {
                policy.observe(Time::from_ms(number as f64 * 1000.0 + at), &Observation { replica, event });
            }
            let weights: Vec<String> = policy.moved().iter().map(|term| format!("{:.3}", term.value)).collect();
            if log.last().is_none_or(|(_, last)| *last != weights) {
                log.push((number + 1, weights));
            }
        }
        let log: Vec<String> =
            log.into_iter().map(|(number, weights)| format!("{number:>4} {}", weights.join(" "))).collect();
        assert_snapshot!(log.join("\n"), @"
          1 0.500 0.100 0.500 0.000
        128 0.339 0.050 0.500 0.000
        160 0.780 0.120 0.500 0.000
        192 0.581 0.072 0.500 0.000
        224 0.284 0.172 0.500 0.000
        256 0.437 0.219 0.500 0.000
        288 0.300 0.088 0.500 0.000
        320 0.527 0.084 0.500 0.000
        352 0.467 0.106 0.500 0.000
        384 0.362 0.063 0.408 0.000
        416 0.430 0.077 0.334 0.000
        448 0.477 0.115 0.273 0.000
        480 0.417 0.085 0.223 0.000
        512 0.445 0.099 0.182 0.000
        544 0.553 0.081 0.149 0.000
        576 0.419 0.124 0.121 0.000
        608 0.536 0.098 0.099 0.000
        640 0.507 0.095 0.081 0.000
        672 0.500 0.100 0.066 0.000
        704 0.478 0.093 0.054 0.000
        736 0.500 0.100 0.044 1.000
        ");
    }
}
