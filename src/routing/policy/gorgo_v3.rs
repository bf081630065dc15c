//! `gorgo-v3`: the paper's tuned linear score with its published, frozen weights, as a baseline.
//!
//! ```text
//! score = w_rtt · rtt_ms  +  prefill_rate · uncached  +  w_queue · queue_rate · queued        uncached tokens
//! ```
//!
//! Terms as in `gorgo`. The rates are 1, so the unit is uncached tokens and 1 ms of round trip counts as `w_rtt` tokens. The
//! published weights are 0.276 and 0.5 (the upper end of their range).
//!
//! A replica with a rate of its own in ms per token counts relative to `reference_ms_per_token`: at twice the reference, each of
//! its tokens counts double (the authors' later experiment with a ratio per GPU class).
//!
//! Different from the authors' code: our index learns a prompt at dispatch, theirs when 2xx headers arrive, so that two equal
//! prompts in quick succession may part there; our index is bounded, theirs is not; we use every healthy replica, they use those
//! whose last scrape succeeded; ours counts tokens by a learned ratio, theirs has a tokenizer; an unmeasured round trip is assumed to be
//! the longest known one, theirs is the duration of a scrape; equal scores go to the fewest requests without a first token, theirs to the
//! first replica.

use super::gorgo::PAPER_MS_PER_TOKEN;
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo-v3",
    help: "the paper's published score in uncached tokens, weights frozen",
    unit: Unit::Tokens,
    parameters: &[
        Parameter { key: "w_rtt", default: 0.276, min: 0.0, max: 1000.0, help: "tokens per ms of round trip" },
        Parameter { key: "prefill_rate", default: 1.0, min: 0.0, max: 1000.0, help: "weight of an uncached token" },
        Parameter {
            key: "queue_rate",
            default: 1.0,
            min: 0.0,
            max: 1000.0,
            help: "weight of a queued token before w_queue",
        },
        Parameter { key: "w_queue", default: 0.5, min: 0.0, max: 100.0, help: "weight of the queue" },
        Parameter {
            key: "reference_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.000_001,
            max: 1000.0,
            help: "rate in ms per token of a replica that counts as 1, for replicas with rates of their own",
        },
    ],
    build: |parameters, _| Box::new(GorgoV3::new(parameters)),
};

pub(super) struct GorgoV3 {
    w_rtt: f64,
    prefill_rate: f64,
    queue_rate: f64,
    w_queue: f64,
    reference_ms_per_token: f64,
}

impl GorgoV3 {
    pub(super) fn new(parameters: &Parameters) -> Self {
        Self {
            w_rtt: parameters.get("w_rtt"),
            prefill_rate: parameters.get("prefill_rate"),
            queue_rate: parameters.get("queue_rate"),
            w_queue: parameters.get("w_queue"),
            reference_ms_per_token: parameters.get("reference_ms_per_token"),
        }
    }

    /// Other weights, by [`super::gorgo_online`].
    pub(super) fn reweigh(&mut self, w_rtt: f64, w_queue: f64) {
        self.w_rtt = w_rtt;
        self.w_queue = w_queue;
    }

    /// How much slower than the reference a replica is; 1 where nothing is configured.
    fn ratio(&self, ms_per_token: Option<f64>) -> f64 {
        ms_per_token.map_or(1.0, |rate| rate / self.reference_ms_per_token)
    }
}

impl Policy for GorgoV3 {
    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let rates = candidate.replica.spec.rates;
        let prefill_rate = self.prefill_rate * self.ratio(rates.prefill_ms_per_token);
        let queue_rate = self.queue_rate * self.ratio(rates.queue_ms_per_token);
        let uncached = f64::from(candidate.uncached_tokens);
        let queued = candidate.prompt_tokens();
        terms([
            ("network", self.w_rtt * candidate.rtt_ms),
            ("prefill", prefill_rate * uncached),
            ("queue", self.w_queue * queue_rate * queued),
        ])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "gorgo-v3",
            "",
            "
            # the published weights: distance hardly counts, the queue counts half
            prompt=1000
            near rtt=2 cached=0 sent=100
            far rtt=165 cached=0

            # a warm cache loses against a queue of a little more than twice the hit
            prompt=6000
            warm rtt=2 cached=5000 decoding=10100
            cold rtt=2 cached=0

            # rates of its own count relative to 0.094 ms per token
            prompt=1000
            twice rtt=10 prefill=0.188 queue=0.047 sent=400
            one rtt=10 sent=400
            ",
        );
        assert_snapshot!(log, @r"
        # the published weights: distance hardly counts, the queue counts half
        near    1050.552 = network 0.552 + prefill 1000.000 + queue 50.000
        far     1045.540 = network 45.540 + prefill 1000.000 + queue 0.000  <-

        # a warm cache loses against a queue of a little more than twice the hit
        warm    6050.552 = network 0.552 + prefill 1000.000 + queue 5050.000
        cold    6000.552 = network 0.552 + prefill 6000.000 + queue 0.000  <-

        # rates of its own count relative to 0.094 ms per token
        twice   2102.760 = network 2.760 + prefill 2000.000 + queue 100.000
        one     1202.760 = network 2.760 + prefill 1000.000 + queue 200.000  <-
        ");
    }

    #[test]
    fn tuned_weights() {
        let log = scores(
            "gorgo-v3",
            "w_rtt=2 w_queue=0.104 prefill_rate=3 queue_rate=5 reference_ms_per_token=0.1",
            "
            # each weight in its place
            prompt=1000
            a rtt=10 cached=400 sent=300
            b rtt=10 cached=400 sent=300 prefill=0.2
            ",
        );
        assert_snapshot!(log, @r"
        # each weight in its place
        a       1976.000 = network 20.000 + prefill 1800.000 + queue 156.000  <-
        b       3776.000 = network 20.000 + prefill 3600.000 + queue 156.000
        ");
    }
}
